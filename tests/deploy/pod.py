"""Serves the chart's policy in the files of a pod: pod.py PORTCULLIS URL_OF_THE_STORE CERTIFICATE_OF_THE_STORE"""

import http.client
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

if os.geteuid() != 0:
    os.environ["POD_USER"] = "0"
    os.execvp("unshare", ["unshare", "--user", "--map-root-user", sys.executable, *sys.argv])

from chart import POLICY, objects, values
from kubelet import USER, Pod, own_volume, until
from wire import Client, Service, certificate, log_in

DELAY, REQUESTS = 3, 10
CONFIG = ["--config", "/etc/portcullis/gateway.toml"]


def probe(gateway, path, host):
    """A request as the kubelet and Prometheus send it; returns status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.ports["admin"], timeout=10)
    connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
    for name, value in [("Host", host), ("User-Agent", "kube-probe/1.37"), ("Accept", "*/*"), ("Connection", "close")]:
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def sample(gateway, name):
    # The pod monitor scrapes the pod's address.
    status, text = probe(gateway, "/metrics", "10.244.1.7:9900")
    assert status == 200
    return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[1])


def the_modes_of_secrets(pod):
    """Mode 0440 with fsGroup is the one that the gateway can read and accepts without a finding."""
    code, text = pod.run("check", "--strict", *CONFIG)
    assert code == 0 and "good" in text, text
    if USER:
        pod.write_secrets(mode=0o400, group=False)
        code, text = pod.run("check", *CONFIG)
        assert code == 1 and "ermission denied" in text, f"root's files cannot be read: {text}"
    pod.write_secrets(mode=0o644)
    code, text = pod.run("check", "--strict", *CONFIG)
    assert code == 1 and text.count("secret_readable") == 2, f"the default mode of Kubernetes is too wide: {text}"
    pod.write_secrets()


def the_probes(gateway):
    for path in ["/livez", "/readyz"]:
        for host in ["10.244.1.7:9900", "[fd00::7]:9900", "localhost:9900"]:
            assert probe(gateway, path, host)[0] == 200, (path, host)
        # A Host from httpHeaders of a probe, which [server] admin_hosts does not name.
        assert probe(gateway, path, "portcullis.gateway.svc:9900")[0] == 403, path


def the_state(pod):
    made = pod.state / "state"
    assert made.stat().st_mode & 0o777 == 0o700 and made.stat().st_uid == USER
    files = [path for path in made.rglob("*") if path.is_file()]
    assert files and all(path.stat().st_mode & 0o077 == 0 for path in files), files
    if USER:
        others = subprocess.run(["find", pod.root, "-user", str(USER), "-not", "-path", f"{pod.state}/*"], capture_output=True)
        assert others.stdout == b"", f"the gateway wrote outside of its volume: {others.stdout}"


def two_pods(pod, one, other, trusted):
    """Accounts, sessions and signing keys are those of the fleet."""
    code, text = pod.run(
        "user", "add", "ada", "--role", "clerk", "--password-stdin", *CONFIG, text="correct horse battery staple\n"
    )
    assert code == 0, text
    token = log_in(one.ports["https"], trusted)
    for gateway in [one, other]:
        status, body, _ = Client(gateway.ports["https"], trusted).ask("GET", "/orders/7", token)
        assert (status, body) == (200, "ada"), body
        assert Client(gateway.ports["https"], trusted).ask("GET", "/billing/7", token)[0] == 403
    Client(one.ports["https"], trusted).ask("POST", "/auth/logout", token)

    def is_refused():
        try:
            return Client(other.ports["https"], trusted).ask("GET", "/orders/7", token)[0] == 401
        except http.client.IncompleteRead:
            # An answer in progress ends with its session.
            return False

    until("a logout at one pod ends the session at the other", is_refused)


def a_changed_config_map(pod, gateway, policy, trusted):
    token = log_in(gateway.ports["https"], trusted)
    assert Client(gateway.ports["https"], trusted).ask("GET", "/billing/7", token)[0] == 403
    loads = lambda: sample(gateway, 'portcullis_policy_reloads_total{outcome="reloaded"}')
    pod.write_policy(policy + "\n[[route]]\npath = 7\n")
    until("the fault is seen", lambda: sample(gateway, "portcullis_policy_last_reload_ok") == 0)
    before = loads()
    assert probe(gateway, "/readyz", "10.244.1.7:9900")[0] == 200, "the previous policy is in force"
    wider = policy.replace('roles = ["admin"]\nrate_limits', 'roles = ["admin", "clerk"]\nrate_limits')
    start = wider.index('[[test]]\nname    = "a clerk reads no bill"')
    wider = wider[:start] + wider[wider.index("[[test]]", start + 1) :]
    assert wider != policy
    pod.write_policy(wider)
    until("the policy is loaded", lambda: loads() == before + 1)
    assert sample(gateway, "portcullis_policy_last_reload_ok") == 1
    assert Client(gateway.ports["https"], trusted).ask("GET", "/billing/7", token)[0] == 200
    pod.write_policy(policy)
    until("the first policy is loaded again", lambda: loads() == before + 2)


def the_end(gateway, trusted, grace):
    """A request in progress and new connections are served after SIGTERM, and the process ends within the grace period."""
    token = log_in(gateway.ports["https"], trusted)
    slow, kept = Client(gateway.ports["https"], trusted), Client(gateway.ports["https"], trusted)
    slow.send("GET", "/orders/slow", token)
    assert Service.asked.wait(30)
    assert kept.ask("GET", "/orders/7", token)[2] is None
    began = time.monotonic()
    gateway.process.send_signal(signal.SIGTERM)
    until("not ready", lambda: probe(gateway, "/readyz", "10.244.1.7:9900")[0] == 503)
    assert probe(gateway, "/livez", "10.244.1.7:9900")[0] == 200, "the kubelet must not restart a pod that ends"
    assert sample(gateway, "portcullis_ready") == 0
    # The endpoints of the Service still name this pod, so there are new connections.
    for client in [kept, Client(gateway.ports["https"], trusted)]:
        status, _, connection = client.ask("GET", "/orders/7", token)
        assert (status, connection) == (200, "close")

    def is_closed():
        try:
            socket.create_connection(("127.0.0.1", gateway.ports["https"]), timeout=5).close()
        except ConnectionRefusedError:
            return True

    until("the listeners are closed", is_closed)
    assert time.monotonic() - began >= DELAY - 0.5
    Service.go.set()
    assert slow.answer()[:2] == (200, "ada"), "a request in progress is finished"
    assert gateway.process.wait(30) == 0
    assert time.monotonic() - began < grace


def the_group_of_a_claim(pod):
    """Why the chart sets fsGroupChangePolicy: the default opens the signing keys to a group, and the gateway refuses them."""
    group = pod.spec["securityContext"]["fsGroup"]
    modes = lambda: {path: path.stat().st_mode for path in pod.state.rglob("*")}
    before = modes()
    own_volume(pod.state, group, pod.spec["securityContext"]["fsGroupChangePolicy"])
    assert modes() == before
    own_volume(pod.state, group, "Always")
    code, text = pod.run(*pod.container["args"])
    assert code != 0 and "mode 2770" in text, text
    for path, mode in before.items():
        path.chmod(mode & 0o7777)


def main():
    program, store, authority = sys.argv[1:]
    service = Service.start()
    # The rest of the policy is exactly that of the ConfigMap.
    release = objects(values("helm/fleet.yaml", drain={"delay": DELAY, "requests": REQUESTS}))
    (mapped,) = [thing["data"]["gateway.toml"] for thing in release if thing["kind"] == "ConfigMap"]
    assert mapped == POLICY
    policy = re.sub(r"(http://(?:orders|billing)):8080", rf"\1:{service}", mapped)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        pair = certificate(folder)
        trusted = pair["tls.crt"]
        secrets = {
            "gateway-tls": pair,
            "gateway-store": {"url": store, "ca.crt": pathlib.Path(authority).read_text()},
        }
        pod = Pod(pathlib.Path(folder, "pod"), program, release, secrets, policy)
        running = []
        try:
            the_modes_of_secrets(pod)
            running.append(pod.serve())
            one = running[0]
            the_probes(one)
            # The second pod has the same volume, so it has the same files.
            running.append(pod.serve())
            two_pods(pod, one, running[1], trusted)
            the_state(pod)
            a_changed_config_map(pod, one, policy, trusted)
            running[1].process.terminate()
            the_end(one, trusted, pod.spec["terminationGracePeriodSeconds"])
            assert running[1].process.wait(30) == 0
            the_group_of_a_claim(pod)
            running.append(pod.serve())
        except BaseException:
            for gateway in running:
                sys.stderr.write("".join(gateway.lines[-40:]))
            raise
        finally:
            for gateway in running:
                gateway.process.kill()


main()
