"""Runs Envoy as the recipes for the Gateway API configure it, in front of the gateway: envoy.py PORTCULLIS ENVOY

The configuration is made of the recipes' own lists, in the way in which Envoy Gateway 1.9 makes Envoy's of them.
"""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile

import yaml
from chart import DEPLOY, POLICY, objects, one, values
from kubelet import Gateway, until
from wire import HOST, Client, Service, certificate, log_in

TYPE = "type.googleapis.com/envoy."
FILTER = TYPE + "extensions.filters.http."
FORGED = {
    "X-Auth-Subject": "root",
    "X-Auth-Roles": "admin",
    "X.Auth.Roles": "admin",
    "X-Forwarded-User": "root",
    "X-HTTP-Method-Override": "DELETE",
    "X-Original-URL": "/billing/7",
}


def recipe(name):
    return list(yaml.safe_load_all((DEPLOY / "gateway-api" / name).read_text()))


def matched(matcher):
    kind, value = matcher["type"], matcher["value"]
    return {"safe_regex": {"regex": value}} if kind == "RegularExpression" else {kind.lower(): value}


def named(fields):
    return {"patterns": [{"exact": field, "ignore_case": True} for field in fields]}


def ask(path, sent, taken, timeout="2s", status=503):
    """The filter that asks the gateway."""
    return {
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": FILTER + "ext_authz.v3.ExtAuthz",
            "http_service": {
                "server_uri": {"uri": "http://portcullis", "cluster": "portcullis", "timeout": timeout},
                "path_prefix": path,
                "authorization_response": {"allowed_upstream_headers": named(taken)},
            },
            "allowed_headers": named(sent),
            "failure_mode_allow": False,
            "status_on_error": {"code": status},
        },
    }


def routed(routes, asking, clusters):
    """The routes of HTTPRoutes. Only those of `asking` keep the filter."""
    found = []
    for route in routes:
        for rule in route["spec"]["rules"]:
            modify = [f["requestHeaderModifier"] for f in rule.get("filters", []) if "requestHeaderModifier" in f]
            for match in rule["matches"]:
                path = match["path"]
                kind = "path" if path["type"] == "Exact" else "path_separated_prefix"
                made = {
                    "match": {kind: path["value"].rstrip("/")},
                    "route": {"cluster": clusters[rule["backendRefs"][0]["name"]]},
                    "request_headers_to_remove": [name for part in modify for name in part["remove"]],
                }
                if route["metadata"]["name"] not in asking:
                    disabled = {"@type": FILTER + "ext_authz.v3.ExtAuthzPerRoute", "disabled": True}
                    made["typed_per_filter_config"] = {"envoy.filters.http.ext_authz": disabled}
                found.append(made)
    return found


def configuration(port, pair, filters, routes, early, servers):
    manager = {
        "@type": FILTER.replace("http.", "network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "front",
        "use_remote_address": True,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "common_http_protocol_options": {"headers_with_underscores_action": "REJECT_REQUEST"},
        "early_header_mutation_extensions": early,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": [HOST], "routes": routes}]},
        "http_filters": [
            *filters,
            {"name": "envoy.filters.http.router", "typed_config": {"@type": FILTER + "router.v3.Router"}},
        ],
    }
    inline = lambda text: {"inline_string": text}
    tls = {
        "@type": TYPE + "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "tls_certificates": [
                {"certificate_chain": inline(pair["tls.crt"]), "private_key": inline(pair["tls.key"])}
            ]
        },
    }
    at = lambda port: {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    cluster = lambda name, port: {
        "name": name,
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at(port)}}]}],
        },
    }
    chain = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
    }
    return {
        "static_resources": {
            "listeners": [{"name": "front", "address": at(port), "filter_chains": [chain]}],
            "clusters": [cluster(name, port) for name, port in servers.items()],
        }
    }


class Envoy:
    """Envoy in front of the gateway and the service."""

    def __init__(self, program, folder, pair, *parts):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        path = pathlib.Path(folder, "envoy.json")
        path.write_text(json.dumps(configuration(self.port, pair, *parts)))
        self.output = open(pathlib.Path(folder, "envoy.log"), "w+")
        words = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warn", "-c", path]
        self.process = subprocess.Popen([program, *words], stdout=self.output, stderr=self.output, cwd=folder)

        def listens():
            assert self.process.poll() is None, pathlib.Path(folder, "envoy.log").read_text()
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return True
            except ConnectionRefusedError:
                return False

        until("Envoy listens", listens)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


class Deciding:
    """The gateway as the values of the recipes configure it, with the store in a file."""

    def __init__(self, program, folder, more=""):
        deployment = one(objects(values("helm/fleet.yaml", "gateway-api/values.yaml")), "Deployment")
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        environment = {variable["name"]: variable["value"] for variable in container["env"]}
        for name in [name for name in environment if re.search("TLS__|STORE", name)]:
            del environment[name]
        # Here the proxy's address is this machine.
        local = {"HTTPS": "", "HTTP": "127.0.0.1:0", "ADMIN": "127.0.0.1:0", "TRUSTED_PROXIES": '["127.0.0.1"]'}
        environment.update({f"PORTCULLIS_SERVER__{name}": value for name, value in local.items()})
        environment.update(PORTCULLIS_STATE__DIR=f"{folder}/state", PORTCULLIS_LOG__FORMAT="json", PATH=os.environ["PATH"])
        config = pathlib.Path(folder, "gateway.toml")
        config.write_text(POLICY + more)
        words = {"env": environment, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        account = ["user", "add", "ada", "--role", "clerk", "--password-stdin"]
        ran = subprocess.run(
            [program, *account, "--config", config], input="correct horse battery staple\n", **words
        )
        assert ran.returncode == 0, ran.stdout
        self.gateway = Gateway(subprocess.Popen([program, "run", "--config", config], **words), ["http", "admin"])

    def __enter__(self):
        return self.gateway

    def __exit__(self, *_):
        self.gateway.process.kill()
        self.gateway.process.wait()


def envoy_gateway(portcullis, envoy, folder, pair, service):
    found = recipe("envoy-gateway.yaml")
    policy = one(found, "SecurityPolicy")["spec"]["extAuth"]
    (target,) = one(found, "SecurityPolicy")["spec"]["targetRefs"]
    client = one(found, "ClientTrafficPolicy")["spec"]
    assert client["path"]["escapedSlashesAction"] == client["headers"]["withUnderscoresAction"] == "RejectRequest"
    removed = client["headers"]["earlyRequestHeaders"]["removeOnMatch"]
    mutations = [{"remove_on_match": {"key_matcher": matched(matcher)}} for matcher in removed]
    early = {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": TYPE + "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": mutations,
        },
    }
    filters = [
        ask(
            policy["http"]["path"],
            policy["headersToExtAuth"],
            policy["http"]["headersToBackend"],
            policy["timeout"],
            policy["statusOnError"],
        )
    ]
    routes = [thing for thing in found if thing["kind"] == "HTTPRoute"]
    clusters = {"orders": "service", "billing": "service", "portcullis": "portcullis"}
    trusted = pair["tls.crt"]
    with Deciding(portcullis, folder) as gateway:
        servers = {"service": service, "portcullis": gateway.ports["http"]}
        parts = filters, routed(routes, [target["name"]], clusters), [early], servers
        with Envoy(envoy, folder, pair, *parts) as proxy:
            request = lambda path, *more, **fields: Client(proxy.port, trusted).ask("GET", path, *more, **fields)
            token = log_in(proxy.port, trusted)
            assert request("/orders/7", token, fields=FORGED)[:2] == (200, "ada")
            seen = Service.last
            assert seen.get_all("X-Auth-Subject") == ["ada"] and seen.get_all("X-Auth-Roles") == ["clerk"]
            for name in {*FORGED, "Authorization"} - {"X-Auth-Subject", "X-Auth-Roles"}:
                assert name not in seen, seen
            status, body, _ = request("/billing/7", token)
            assert status == 403 and "insufficient_role" in body
            status, body, _ = request("/orders/7", fields=FORGED)
            assert status == 401 and "missing_token" in body, body
            # Cookies arrive at the gateway, and a handshake of a WebSocket with them passes from the own site alone.
            login = Client(proxy.port, trusted)
            form = "username=ada&password=correct+horse+battery+staple"
            login.send("POST", "/auth/login", form=form, fields={"Origin": f"https://{HOST}"})
            answer = login.connection.getresponse()
            assert answer.read() is not None and answer.status == 200
            cookies = "; ".join(cookie.split(";")[0] for cookie in answer.headers.get_all("Set-Cookie"))
            assert request("/orders/7", fields={"Cookie": cookies})[:2] == (200, "ada")
            for origin, expected in [(f"https://{HOST}", 200), ("https://evil.example", 403)]:
                handshake = {"Cookie": cookies, "Origin": origin, "Sec-WebSocket-Key": "x"}
                assert request("/orders/7", fields=handshake)[0] == expected, origin
            # Clients cannot ask for verdicts, and two readings of one path do not arrive.
            assert request("/auth/verify/orders/7", token)[0] == 404
            assert request("/orders/..%2fbilling/7", token)[0] == 400
            assert request("/orders/7", token, fields={"X_Auth_Roles": "admin"})[0] == 400
            # Without the gateway nothing passes.
            gateway.process.kill()
            gateway.process.wait()
            assert request("/orders/7", token)[0] == policy["statusOnError"]


def external_auth(portcullis, envoy, folder, pair, service):
    (route,) = recipe("external-auth.yaml")
    (rule,) = route["spec"]["rules"]
    asked = rule["filters"][0]["externalAuth"]["http"]
    filters = [ask(asked["path"], asked["allowedHeaders"], asked["allowedResponseHeaders"])]
    identity = '\n[identity]\nassertion = "X-Auth-Assertion"\n'
    trusted = pair["tls.crt"]
    with Deciding(portcullis, folder, identity) as gateway:
        servers = {"service": service, "portcullis": gateway.ports["http"]}
        own = {
            "metadata": {"name": "authority"},
            "spec": {
                "rules": [
                    {
                        "matches": [{"path": {"type": "Exact", "value": "/auth/login"}}],
                        "backendRefs": [{"name": "portcullis"}],
                    }
                ]
            },
        }
        clusters = {"orders": "service", "portcullis": "portcullis"}
        parts = filters, routed([route, own], ["orders"], clusters), [], servers
        with Envoy(envoy, folder, pair, *parts) as proxy:
            token = log_in(proxy.port, trusted)
            forged = {"X-Auth-Roles": "admin", "X-Auth-Assertion": "forged"}
            assert Client(proxy.port, trusted).ask("GET", "/orders/7", token, fields=forged)[0] == 200
            (assertion,) = Service.last.get_all("X-Auth-Assertion")
            assert assertion.count(".") == 2, "the gateway's, in place of the forged one"
            assert Service.last["X-Auth-Roles"] == "admin", "the filter removes nothing: why the recipe asks for assertions"
            assert Client(proxy.port, trusted).ask("GET", "/orders/7", fields=forged)[0] == 401


def main():
    portcullis, envoy = sys.argv[1:]
    service = Service.start()
    for check in [envoy_gateway, external_auth]:
        with tempfile.TemporaryDirectory() as folder:
            check(portcullis, envoy, folder, certificate(folder), service)


main()
