"""Checks the files in docs/deploy: files.py PORTCULLIS NODE_MODULES, or files.py --write after a change of the chart."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import compose_spec
import hcl2
import helm_python as helm
import kubernetes_validate
import yaml
from chart import CHART, DEPLOY, POLICY, ROOT, manifests, objects, one, values
from wire import certificate

PLAIN = DEPLOY / "kubernetes.yaml"
FLEET = "helm/fleet.yaml"
IMAGE = {"image": {"repository": "registry.example.com/portcullis"}}
# A policy without accounts of its own.
FOREIGN = POLICY.replace("[authority]", "[other]")
# Kubernetes from the oldest that the chart allows to the newest of the package.
KUBERNETES = sorted({version for version in kubernetes_validate.utils.all_versions() if version >= "1.27"})
# Values of environment variables that Helm itself would print in another form, such as 1.048576e+06, and their text.
NUMBERS = {
    "PORTCULLIS_DEFAULTS__BODY_SIZE": (1048576, "1048576"),
    "PORTCULLIS_SERVER__BOUNDS__REQUESTS": (20000, "20000"),
    "PORTCULLIS_EXAMPLE__RATIO": (0.25, "0.25"),
    "PORTCULLIS_EXAMPLE__SWITCH": (True, "true"),
}
CASES = {
    "a fleet": values(FLEET),
    "a gateway that decides": values(FLEET, "gateway-api/values.yaml"),
    "a service monitor": values(FLEET, monitoring={"monitor": "ServiceMonitor"}, policyChange="restart"),
    "no accounts": values(policy=FOREIGN, **IMAGE),
    "one pod": values(replicas=1, state={"kind": "claim", "accessMode": "ReadWriteOnce"}, **IMAGE),
    "everything": values(
        FLEET,
        secrets=["partner-keys"],
        image={"digest": "sha256:" + "0" * 64, "pullSecrets": ["registry"]},
        environment={"PORTCULLIS_LOG__LEVEL": "warn", **{key: value for key, (value, _) in NUMBERS.items()}},
        service={"type": "NodePort", "annotations": {"a": "b"}, "loadBalancerClass": "c"},
        networkPolicy={"clients": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "monitoring": [], "egress": []},
        podLabels={"team": "x"},
        podAnnotations={"note": "y"},
        nodeSelector={"disk": "fast"},
        tolerations=[{"key": "edge", "operator": "Exists"}],
        affinity={"podAntiAffinity": {}},
        priorityClassName="high",
        serviceAccount={"annotations": {"z": "1"}},
    ),
}
REFUSED = {
    "image.repository is missing": values(),
    "policy is missing": values(FLEET, policy=""),
    "each pod would make its own signing key": values(FLEET, state={"kind": "emptyDir"}),
    "several replicas with [authority] need PostgreSQL": values(FLEET, store={"secret": ""}),
    "several replicas share the state folder": values(FLEET, state={"accessMode": "ReadWriteOnce"}),
    "accounts would be lost": values(
        policy=POLICY.replace("[authority]", '[authority]\nalgorithm = "HS256"'), replicas=1, **IMAGE
    ),
    "additional properties 'replica'": values(FLEET, replica=2),
    "state/kind": values(FLEET, state={"kind": "hostPath"}),
}


def the_chart():
    report = helm.lint(CHART, values(FLEET), strict=True)
    assert not report["errors"] and all(message["severity"] < 2 for message in report["messages"]), report
    monitored = []
    for name, given in CASES.items():
        found = objects(given)
        for thing in found:
            if thing["apiVersion"].startswith("monitoring.coreos.com/"):
                monitored.append(thing)
                continue
            for version in KUBERNETES:
                try:
                    kubernetes_validate.validate(thing, version, strict=True)
                except kubernetes_validate.ValidationError as error:
                    raise AssertionError(f"{name}: {thing['kind']}, Kubernetes {version}: {error.message}") from error
        a_pod(name, given, found)
    assert {thing["kind"] for thing in monitored} == {"PodMonitor", "ServiceMonitor", "PrometheusRule"}
    (container,) = one(objects(CASES["everything"]), "Deployment")["spec"]["template"]["spec"]["containers"]
    written = {variable["name"]: variable["value"] for variable in container["env"]}
    assert {key: written[key] for key in NUMBERS} == {key: text for key, (_, text) in NUMBERS.items()}
    rules = yaml.safe_load((ROOT / "docs/monitoring/alerts.yml").read_text())
    assert one(objects(CASES["a fleet"]), "PrometheusRule")["spec"] == rules
    for reason, given in REFUSED.items():
        try:
            manifests(given)
        except helm.HelmError as error:
            assert reason in str(error), f"{reason}: {error}"
        else:
            raise AssertionError(f"not refused: {reason}")
    return monitored


def a_pod(name, given, found):
    """What the schemas cannot see: the parts of one release fit each other."""
    deployment = one(found, "Deployment")
    template = deployment["spec"]["template"]
    pod, labels = template["spec"], template["metadata"]["labels"]
    (container,) = pod["containers"]
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    assert len(environment) == len(container["env"]), f"{name}: a variable occurs twice"

    seconds = lambda key: int(environment[key].removesuffix("s"))
    drained = seconds("PORTCULLIS_SERVER__DRAIN_DELAY") + seconds("PORTCULLIS_SERVER__DRAIN")
    assert pod["terminationGracePeriodSeconds"] > drained, name

    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for port in ports:
        assert environment[f"PORTCULLIS_SERVER__{port.upper()}"].endswith(f":{ports[port]}"), f"{name}: {port}"
    for probe, path in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]:
        # Without a Host of its own, the kubelet sends the pod's address.
        assert container[probe]["httpGet"] == {"path": path, "port": "admin"}, f"{name}: {probe}"

    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert volumes.keys() == mounts.keys(), name
    paths = [mount["mountPath"] for mount in mounts.values()]
    assert len(set(paths)) == len(paths), name
    assert all("subPath" not in mount for mount in mounts.values()), f"{name}: the kubelet would not update it"
    assert [key for key, mount in mounts.items() if not mount.get("readOnly")] == ["state"], name
    for volume in volumes.values():
        assert volume.get("secret", {"defaultMode": 0o440})["defaultMode"] == 0o440, f"{name}: {volume}"
    security = pod["securityContext"]
    assert security["runAsNonRoot"] and security["fsGroup"] == security["runAsGroup"] == 65532, name
    assert security["fsGroupChangePolicy"] == "OnRootMismatch", name
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
    confined = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert container["securityContext"] == confined, name
    assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False, name

    selects = lambda selector: selector.items() <= labels.items()
    assert selects(deployment["spec"]["selector"]["matchLabels"]), name
    assert selects(one(found, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]), name
    assert selects(one(found, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]), name
    for service in [thing for thing in found if thing["kind"] == "Service"]:
        assert selects(service["spec"]["selector"]), name
        assert all(port["targetPort"] in ports for port in service["spec"]["ports"]), name
        is_admin = service["metadata"]["name"] == "portcullis-admin"
        assert is_admin == any(port["targetPort"] == "admin" for port in service["spec"]["ports"]), name
    for rule in one(found, "NetworkPolicy")["spec"]["ingress"]:
        is_admin = any(port["port"] == "admin" for port in rule["ports"])
        assert not is_admin or rule["from"], f"{name}: the admin listener is open to the cluster"
    assert ("replicas" in deployment["spec"]) != bool([t for t in found if t["kind"] == "HorizontalPodAutoscaler"]), name
    for monitor in [thing for thing in found if thing["kind"].endswith("Monitor")]:
        # The label that becomes the job, which the alert rules expect to be "portcullis".
        assert monitor["spec"]["jobLabel"] == "app.kubernetes.io/name" and labels["app.kubernetes.io/name"] == "portcullis"
    if given.get("policyChange") == "restart":
        assert "portcullis/policy" in template["metadata"]["annotations"], name


def plain():
    """The chart's fleet without Helm, and without objects that need the Prometheus Operator."""
    head = (
        "# Three gateways with PostgreSQL, as the Helm chart renders them with helm/fleet.yaml. tests/deploy/files.py --write\n"
        "# writes this file. docs/deploy.md says what to replace, and names the two Secrets that must exist.\n"
    )
    helms = re.compile(r"^ +(?:app\.kubernetes\.io/managed-by|helm\.sh/chart|annotations: \{ helm\.sh/).*\n", re.MULTILINE)
    given = values(FLEET, monitoring={"monitor": "none", "rules": False})
    texts = [re.sub(helms, "", text).strip() for text in manifests(given).values()]
    text = head + "".join(f"---\n{text}\n" for text in texts)
    assert "elm.sh" not in text and "Helm" not in text.removeprefix(head)
    return "\n".join(line.rstrip() for line in text.split("\n"))


def policy_of(portcullis, environment, where, expected=()):
    """Checks the policy as a deployment serves it; its folders are in a folder of the test."""
    with tempfile.TemporaryDirectory() as folder:
        secrets = pathlib.Path(folder, "secrets")
        secrets.mkdir()
        certificate(secrets)
        for name in ["store_url", "url"]:
            (secrets / name).write_text("postgres://portcullis:x@db.example.com/portcullis")
        for file in secrets.iterdir():
            file.chmod(0o400)
        moved = re.compile(r"/secrets|/etc/portcullis-(?:tls|secrets/store)")
        there = {key: re.sub(moved, str(secrets), str(value)) for key, value in environment.items()}
        there["PORTCULLIS_STATE__DIR"] = str(pathlib.Path(folder, "state"))
        there["PATH"] = os.environ["PATH"]
        pathlib.Path(folder, "gateway.toml").write_text(POLICY)
        ran = subprocess.run(
            [portcullis, "check", "--strict", "--format", "json", "--config", "gateway.toml"],
            env=there,
            cwd=folder,
            capture_output=True,
            text=True,
        )
    report = json.loads(ran.stdout)
    found = sorted({finding["id"] for finding in report["diagnostics"]})
    assert found == sorted(expected), f"{where}: {ran.stdout}{ran.stderr}"


def the_compose_file(portcullis):
    text = (DEPLOY / "compose/compose.yaml").read_text()
    compose_spec.PyCompose.from_yaml(text)
    document = yaml.safe_load(text)
    services = document["services"]
    gateway = services["gateway"]
    networks = {name: set(service.get("networks", {})) for name, service in services.items()}
    assert networks["orders"] == networks["billing"] == {"apps"}, "a service reaches the gateway alone"
    assert networks["postgres"] == {"data"} and networks["prometheus"] == {"metrics"}
    # The admin listener has an address of the network that the services cannot reach.
    address = gateway["networks"]["metrics"]["ipv4_address"]
    admin = json.loads(gateway["environment"]["PORTCULLIS_SERVER__ADMIN"])
    assert admin == ["127.0.0.1:9900", f"{address}:9900"]
    assert not any("9900" in port for port in gateway["ports"])
    assert int(gateway["stop_grace_period"].removesuffix("s")) > int(
        gateway["environment"]["PORTCULLIS_SERVER__DRAIN"].removesuffix("s")
    )
    assert gateway["read_only"] and gateway["cap_drop"] == ["ALL"]
    for volume in [volume for service in services.values() for volume in service.get("volumes", [])]:
        source = volume.split(":")[0]
        assert source in document["volumes"] or (DEPLOY / "compose" / source).exists(), volume
    # No certificate of its own: this deployment begins with the self-signed one.
    environment = {**gateway["environment"], "DATABASE_URL": "postgres://portcullis:x@postgres/p?sslmode=disable"}
    policy_of(portcullis, environment, "compose", ["self_signed"])
    with tempfile.TemporaryDirectory() as folder:
        for file in [DEPLOY / "compose/prometheus.yml", ROOT / "docs/monitoring/alerts.yml"]:
            pathlib.Path(folder, file.name).write_text(file.read_text())
        subprocess.run(["promtool", "check", "config", "prometheus.yml"], cwd=folder, check=True, capture_output=True)


def the_nomad_job(portcullis):
    text = (DEPLOY / "nomad/portcullis.nomad.hcl").read_text()
    bare = lambda value: value.strip('"') if isinstance(value, str) else value
    (job,) = hcl2.loads(text)["job"]
    ((_, job),) = [item for item in job.items() if not item[0].startswith("__")]
    inner = lambda block, kind: next(
        found for name, found in block[kind][0].items() if not name.startswith("__")
    )
    group = inner(job, "group")
    task = inner(group, "task")
    (env,) = task["env"]
    environment = {key.strip('"'): bare(value) for key, value in env.items() if not key.startswith("__")}
    seconds = lambda value: int(bare(value).removesuffix("s"))
    drained = seconds(environment["PORTCULLIS_SERVER__DRAIN_DELAY"]) + seconds(environment["PORTCULLIS_SERVER__DRAIN"])
    assert seconds(task["kill_timeout"]) > drained
    templates = {bare(template["destination"]): template for template in task["template"]}
    private = [template for name, template in templates.items() if name.startswith("secrets/")]
    assert len(private) == 3 and all((bare(t["perms"]), t["uid"]) == ("0400", 65532) for t in private)
    for value in environment.values():
        if "/secrets/" in str(value):
            assert value.removeprefix("file:").removeprefix("/") in templates, value
    for name in ["orders", "billing"]:
        assert f'"http://{name}:8080"' in POLICY and f'\\"http://{name}:8080\\"' in text, "the name that is replaced"
    assert "{{" not in POLICY, "a template of Nomad would take it for its own"
    policy_of(portcullis, environment, "nomad")


def the_recipes(portcullis):
    found = list(yaml.safe_load_all((DEPLOY / "gateway-api/envoy-gateway.yaml").read_text()))
    policy = one(found, "SecurityPolicy")["spec"]["extAuth"]
    assert policy["failOpen"] is False and policy["http"]["path"] == "/auth/verify"
    routes = {thing["metadata"]["name"]: thing for thing in found if thing["kind"] == "HTTPRoute"}
    exposed = [match["path"]["value"] for rule in routes["authority"]["spec"]["rules"] for match in rule["matches"]]
    assert not any("/auth/verify".startswith(path) for path in exposed), "clients must not ask"
    # This configuration removes each field of requests that the tested configuration of Envoy removes.
    removed = one(found, "ClientTrafficPolicy")["spec"]["headers"]["earlyRequestHeaders"]["removeOnMatch"]
    assert len(removed) <= 64
    tested = yaml.safe_load((ROOT / "docs/forward-auth/envoy.yaml").read_text())
    manager = tested["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    mutations = manager["http_filters"][0]["typed_config"]["mutations"]["request_mutations"]
    kinds = {"exact": "Exact", "prefix": "Prefix", "suffix": "Suffix"}
    for matcher in [mutation["remove_on_match"]["key_matcher"] for mutation in mutations]:
        ((kind, value),) = matcher.items()
        same = {"type": "RegularExpression", "value": value["regex"]} if kind == "safe_regex" else {
            "type": kinds[kind], "value": value
        }
        assert same in removed, same
    (external,) = yaml.safe_load_all((DEPLOY / "gateway-api/external-auth.yaml").read_text())
    (rule,) = external["spec"]["rules"]
    asked = rule["filters"][0]["externalAuth"]
    assert asked["http"]["path"] == "/auth/verify" and asked["http"]["allowedResponseHeaders"] == ["X-Auth-Assertion"]
    assert set(asked["http"]["allowedHeaders"]) <= set(policy["headersToExtAuth"])
    deployment = one(objects(CASES["a gateway that decides"]), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    # Cleartext is for the proxy, which the network policy admits alone.
    policy_of(portcullis, environment, "a gateway that decides", ["cleartext_exposed"])


def main():
    if sys.argv[1:] == ["--write"]:
        PLAIN.write_text(plain())
        return
    portcullis, modules = sys.argv[1:]
    monitored = the_chart()
    script = pathlib.Path(modules, "monitors.mjs")
    subprocess.run(["node", script], input=json.dumps(monitored), text=True, check=True)
    assert PLAIN.read_text() == plain(), "docs/deploy/kubernetes.yaml is not what the chart renders: files.py --write"
    the_compose_file(portcullis)
    the_nomad_job(portcullis)
    the_recipes(portcullis)


main()
