#!/usr/bin/env python3
"""Rehearses the failures of a fleet on this machine, and prints what clients saw.

    cargo build --release
    benches/fleet/run.py [--seconds 4] [--portcullis target/release/portcullis] [--drills redis-killed,gateway-frozen]

Starts PostgreSQL, Redis, three gateways and HAProxy (Debian: postgresql, redis-server, haproxy), and drives mixed traffic through
HAProxy: logins, refreshes, requests with good and with forged tokens, revocations, and a flood against a limit of the fleet. Then
it kills, freezes (SIGSTOP) and restarts each part in turn. A frozen part is a partition: its connections stay open and silent.

Each row of the table is one drill: the part fails for `--seconds`, and comes back.

- failed: requests without an answer, and answers with a status from 500 to 599.
- wrong: answers that no failure excuses: a forged token that passes, a good token that is refused (401 or 403), or a revoked
  token that passes two seconds after the answer to its revocation. The script exits with 1 if there is one.
- limit: admitted requests of the flood, compared with rate x time. The flood is endless, so the burst is used up.
- revoked after: the time from the answer to a revocation until all running gateways refuse the token; median and largest.
- recovery: the time from the restart until a login, a refresh and a request pass at each gateway, and the limits are shared.
"""

import argparse
import http.client
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PASSWORD = "correct horse battery staple"
USERS = 8
RATE, BURST = 200, 100
# A revocation that Redis does not carry is read from the store twice a second.
GRACE = 2.0


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def wait_for(what, condition, seconds=30):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise SystemExit(f"timed out: {what}")


def is_open(port):
    with socket.create_connection(("127.0.0.1", port), 0.2):
        return True


class Answer:
    def __init__(self, status, body):
        self.status, self.body = status, body

    def json(self):
        return json.loads(self.body)


class Client:
    """A client with one connection, which it opens again after an error."""

    def __init__(self, port, timeout=2.0):
        self.port, self.timeout, self.open = port, timeout, None

    def ask(self, method, path, token=None, body=None):
        """Returns the answer. Raises OSError if there is none."""
        headers = {"host": f"127.0.0.1:{self.port}"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        if body is not None:
            body = json.dumps(body)
            headers["content-type"] = "application/json"
        try:
            if self.open is None:
                self.open = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.timeout)
            self.open.request(method, path, body, headers)
            answer = self.open.getresponse()
            return Answer(answer.status, answer.read())
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise OSError(str(error)) from error

    def close(self):
        if self.open is not None:
            self.open.close()
        self.open = None


class Part:
    """A process that drills kill, freeze and start again."""

    def __init__(self, name, command, folder, is_ready):
        self.name, self.command, self.folder, self.is_ready = name, command, folder, is_ready
        self.process = None

    def start(self):
        log = open(self.folder / f"{self.name}.log", "ab")
        self.process = subprocess.Popen(self.command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True)
        log.close()

    def started(self):
        self.start()
        wait_for(f"{self.name} starts (see {self.folder}/{self.name}.log)", self.is_ready)

    def signal(self, number):
        # The processes of PostgreSQL have groups of their own, so each is found by its parent.
        for pid in [self.process.pid, *children(self.process.pid)]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def kill(self):
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()


def children(parent):
    found = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False).stdout.split()
    own = [int(pid) for pid in found]
    return own + [pid for child in own for pid in children(child)]


def programs_of_postgres():
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    folders += [Path(folder) for folder in os.environ.get("PATH", "").split(":")]
    for folder in folders:
        if all((folder / name).exists() for name in ("postgres", "initdb", "psql")):
            return folder
    raise SystemExit("PostgreSQL is not installed (Debian: postgresql)")


def postgres(folder):
    programs, port, data = programs_of_postgres(), free_port(), folder / "postgres"
    data.mkdir(mode=0o700)
    # PostgreSQL refuses to run as root.
    as_user = []
    if os.getuid() == 0:
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        shutil.chown(data, "postgres", "postgres")
        folder.chmod(0o755)
    made = [*as_user, programs / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8"]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL, cwd="/")
    options = ["-c", "listen_addresses=127.0.0.1", "-c", f"port={port}", "-c", f"unix_socket_directories={data}"]
    command = [*as_user, programs / "postgres", "-D", data, *options]

    def is_ready():
        asked = [programs / "psql", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-c", "SELECT 1"]
        return subprocess.run(asked, capture_output=True, timeout=5, check=False).returncode == 0

    return Part("postgres", command, folder, is_ready), f"postgres://postgres@127.0.0.1:{port}/postgres"


def policy(http_port, admin_port, store, redis):
    return f"""
[server]
https = []
plain = "serve"
http  = "127.0.0.1:{http_port}"
admin = "127.0.0.1:{admin_port}"
workers = 1

[authority]
issuer   = "https://gateway.test"
audience = ["fleet"]
store    = "{store}"
limits   = {{ login = [], refresh = [], logout = [] }}

[shared]
url = "redis://127.0.0.1:{redis}"

[upstream.echo]
builtin = "echo"

[rate_limit.fleet]
by    = "route"
rate  = "{RATE}/s"
burst = {BURST}

[[route]]
path     = "/any"
upstream = "echo"

[[route]]
path        = "/limited"
upstream    = "echo"
access      = "public"
rate_limits = "fleet"
"""


HAPROXY = """
global
    stats socket {folder}/haproxy.sock
defaults
    mode http
    retries 2
    option redispatch
    retry-on conn-failure
    timeout connect 300ms
    timeout client 10s
    timeout server 2s
frontend all
    bind 127.0.0.1:{port}
    default_backend gateways
backend gateways
    balance roundrobin
    option httpchk GET /readyz
    default-server check inter 200ms fastinter 100ms fall 2 rise 1 on-marked-down shutdown-sessions
"""


class Fleet:
    def __init__(self, folder):
        self.folder = folder
        self.gateways, self.postgres, self.redis, self.haproxy = [], None, None, None

    def start(self, program):
        folder = self.folder
        self.postgres, store = postgres(folder)
        redis = free_port()
        command = ["redis-server", "--port", str(redis), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        self.redis = Part("redis", command, folder, lambda: is_open(redis))
        self.postgres.started()
        self.redis.started()
        for number in range(3):
            port, admin = free_port(), free_port()
            # All gateways sign with the keys of one state folder, which is beside their policies.
            path = folder / f"gateway-{number}.toml"
            path.write_text(policy(port, admin, store, redis))
            if number == 0:
                for user in range(USERS):
                    added = [program, "user", "add", f"user-{user}", "--password-stdin", "--config", path]
                    subprocess.run(added, input=PASSWORD + "\n", text=True, check=True, capture_output=True)

            def is_ready(admin=admin):
                return Client(admin, 1).ask("GET", "/readyz").status == 200

            part = Part(f"gateway-{number}", [program, "run", "--config", path], folder, is_ready)
            part.port, part.admin = port, admin
            self.gateways.append(part)
            part.started()
        self.port = free_port()
        lines = [HAPROXY.format(folder=folder, port=self.port)]
        lines += [f"    server g{n} 127.0.0.1:{g.port} check port {g.admin}\n" for n, g in enumerate(self.gateways)]
        (folder / "haproxy.cfg").write_text("".join(lines))
        command = ["haproxy", "-db", "-f", folder / "haproxy.cfg"]
        self.haproxy = Part("haproxy", command, folder, lambda: is_open(self.port))
        self.haproxy.started()

    def parts(self):
        return {"redis": self.redis, "postgres": self.postgres, "gateway": self.gateways[1], "haproxy": self.haproxy}

    def stop(self):
        for part in [self.haproxy, *self.gateways, self.redis, self.postgres]:
            if part is not None and part.process is not None:
                part.signal(signal.SIGCONT)
                part.kill()


class Seen:
    """What clients saw in one drill."""

    def __init__(self):
        self.lock = threading.Lock()
        self.requests = self.failed = self.admitted = 0
        self.wrong, self.delays = [], []

    def count(self, is_failed):
        with self.lock:
            self.requests += 1
            self.failed += is_failed

    def blame(self, what):
        with self.lock:
            self.wrong.append(what)


class Traffic:
    def __init__(self, fleet):
        self.fleet, self.seen, self.ended = fleet, Seen(), threading.Event()
        self.down = set()
        kinds = [self.requests, self.requests, self.forgeries, self.sessions, self.sessions, self.flood, self.flood]
        self.threads = [threading.Thread(target=self.run, args=(kind, at)) for at, kind in enumerate(kinds)]
        for thread in self.threads:
            thread.start()

    def run(self, kind, at):
        client = Client(self.fleet.port, 4.0)
        while not self.ended.is_set():
            try:
                kind(client, at)
            except OSError:
                time.sleep(0.01)

    def ask(self, client, *arguments, **named):
        """Sends a request. Counts a failure, and raises OSError for it."""
        seen = self.seen
        try:
            answer = client.ask(*arguments, **named)
        except OSError:
            seen.count(True)
            raise
        seen.count(answer.status >= 500)
        if answer.status >= 500:
            raise OSError(f"status {answer.status}")
        return answer

    def login(self, client, at):
        body = {"username": f"user-{at % USERS}", "password": PASSWORD}
        answer = self.ask(client, "POST", "/auth/login", body=body)
        if answer.status != 200:
            raise OSError(f"login: {answer.status}")
        return answer.json()

    def requests(self, client, at):
        pair = self.login(client, at)
        for _ in range(200):
            answer = self.ask(client, "GET", "/any", token=pair["access_token"])
            if answer.status != 200:
                self.seen.blame(f"a good token: {answer.status}")
            if self.ended.is_set():
                return
            time.sleep(0.005)

    def forgeries(self, client, at):
        token = self.login(client, at)["access_token"]
        head, payload, signature = token.split(".")
        for _ in range(100):
            forged = ".".join([head, payload, signature[:10] + random.choice("ABCD") * 4 + signature[14:]])
            if forged != token and self.ask(client, "GET", "/any", token=forged).status != 401:
                self.seen.blame("a forged token passed")
            if self.ended.is_set():
                return
            time.sleep(0.01)

    def sessions(self, client, at):
        """A login, two refreshes, and the revocation of all of it."""
        pair = self.login(client, at)
        for _ in range(2):
            answer = self.ask(client, "POST", "/auth/refresh", body={"refresh_token": pair["refresh_token"]})
            if answer.status != 200:
                # The answer to the refresh before may have been lost.
                return
            pair = answer.json()
        token = pair["access_token"]
        if self.ask(client, "GET", "/any", token=token).status != 200:
            self.seen.blame("a token was refused before its revocation")
        answer = self.ask(client, "POST", "/auth/logout", token=token, body={"refresh_token": pair["refresh_token"]})
        if answer.status >= 300:
            return
        began = time.monotonic()
        left = [gateway for gateway in self.fleet.gateways if gateway not in self.down]
        while left and time.monotonic() < began + GRACE and not self.ended.is_set():
            left = [gateway for gateway in left if gateway not in self.down and self.passes(gateway, token)]
            time.sleep(0.002)
        if left and not self.ended.is_set():
            self.seen.blame(f"a revoked token passes at {left[0].name}")
        elif not left:
            with self.seen.lock:
                self.seen.delays.append(time.monotonic() - began)
        time.sleep(0.05)

    def passes(self, gateway, token):
        client = Client(gateway.port, 1.0)
        try:
            return client.ask("GET", "/any", token=token).status == 200
        except OSError:
            return False
        finally:
            client.close()

    def flood(self, client, at):
        answer = self.ask(client, "GET", "/limited")
        if answer.status == 200:
            with self.seen.lock:
                self.seen.admitted += 1
        time.sleep(0.002)

    def cut(self):
        """Begins a new count, and returns the one before."""
        before, self.seen = self.seen, Seen()
        return before

    def end(self):
        self.ended.set()
        for thread in self.threads:
            thread.join()


def metric(gateway, name):
    client = Client(gateway.admin, 1)
    try:
        lines = client.ask("GET", "/metrics").body.decode().splitlines()
    finally:
        client.close()
    return next((float(line.split()[-1]) for line in lines if line.startswith(name + " ")), None)


def is_whole(fleet):
    """Whether each gateway serves a login, a refresh and a request, and shares its limits."""
    for gateway in fleet.gateways:
        client = Client(gateway.port, 1)
        try:
            answer = client.ask("POST", "/auth/login", body={"username": "user-0", "password": PASSWORD})
            if answer.status != 200:
                return False
            pair = answer.json()
            body = {"refresh_token": pair["refresh_token"]}
            if client.ask("POST", "/auth/refresh", body=body).status != 200:
                return False
            if client.ask("GET", "/any", token=pair["access_token"]).status != 200:
                return False
            if metric(gateway, "portcullis_shared_limits_up") != 1:
                return False
        finally:
            client.close()
    return Client(fleet.port, 1).ask("GET", "/limited").status in (200, 429)


def drill(fleet, traffic, part, how, seconds):
    began = time.monotonic()
    traffic.cut()
    if part is not None:
        traffic.down.add(part)
        if how == "killed":
            part.kill()
            time.sleep(seconds)
            back = time.monotonic()
            part.started()
        else:
            part.signal(signal.SIGSTOP)
            time.sleep(seconds)
            back = time.monotonic()
            part.signal(signal.SIGCONT)
    else:
        time.sleep(seconds)
        back = time.monotonic()
    wait_for("the fleet recovers", lambda: is_whole(fleet), 60)
    recovery = time.monotonic() - back
    traffic.down.clear()
    time.sleep(1)
    seen = traffic.cut()
    return seen, time.monotonic() - began, recovery


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=4, help="how long each failure lasts")
    options.add_argument("--portcullis", type=Path, default=ROOT / "target/release/portcullis")
    options.add_argument("--drills", help="names of drills, separated by commas; all by default")
    options = options.parse_args()
    program = options.portcullis.resolve()
    for needed in (program, "redis-server", "haproxy"):
        if shutil.which(needed) is None:
            raise SystemExit(f"{needed} is missing")
    folder = Path(tempfile.mkdtemp(prefix="portcullis-fleet-"))
    fleet, traffic, wrong = None, None, 0
    try:
        fleet = Fleet(folder)
        fleet.start(program)
        names = ["none"] + [f"{part}-{how}" for part in fleet.parts() for how in ("killed", "frozen")]
        chosen = options.drills.split(",") if options.drills else names
        traffic = Traffic(fleet)
        time.sleep(2)
        print("drill            | requests | failed | wrong | limit   | revoked after (median, max) | recovery")
        print("-----------------|---------:|-------:|------:|--------:|----------------------------:|--------:")
        for name in chosen:
            part, _, how = name.partition("-")
            seen, took, recovery = drill(fleet, traffic, fleet.parts().get(part), how, options.seconds)
            allowed = RATE * took
            delays = "none"
            if seen.delays:
                delays = f"{statistics.median(seen.delays) * 1000:.0f} ms, {max(seen.delays) * 1000:.0f} ms"
            wrong += len(seen.wrong)
            print(
                f"{name:16} | {seen.requests:8} | {seen.failed:6} | {len(seen.wrong):5} |"
                f" {(seen.admitted / allowed - 1) * 100:+6.1f}% | {delays:>27} | {recovery:6.2f} s",
                flush=True,
            )
            for what in sorted(set(seen.wrong)):
                print(f"  wrong: {what}", flush=True)
    finally:
        if traffic is not None:
            traffic.end()
        if fleet is not None:
            fleet.stop()
        if wrong == 0 and sys.exc_info()[0] is None:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"logs: {folder}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
