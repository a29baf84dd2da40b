#!/usr/bin/env python3
"""Compares the gateway with Flask-JWT-Extended and server-side sessions on this machine: latency, throughput and CPU time of a request
that its role allows. Prints the tables of docs/performance.md.

    cargo build --release
    benches/side-by-side/run.py [--seconds 3] [--rounds 3] [--binary target/release/portcullis]

Needs wrk, nginx, redis-server and python3-venv (Debian packages of those names). The server under test runs on one core; the load
generator, and nginx or Redis behind the server, run on another. The servers take turns in each round, and the figures are medians.

Latency is measured with one request at a time, sent a millisecond after the previous answer, so that no request waits for another.
Throughput and CPU time are measured with 32 connections that send as fast as they get answers. On a machine that also does other
work, --realtime (as root) keeps that work from interrupting the latency measurement.
"""

import argparse
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SERVER, OTHERS = "0", "1"
CALLERS = 1000
TICKS = os.sysconf("SC_CLK_TCK")

POLICY = """
[server]
http    = "127.0.0.1:{port}"
https   = ""
admin   = ""
plain   = "serve"
workers = 1

[log]
access = "off"
format = "json"

[state]
dir = "{folder}/state-{name}"

[[issuer]]
issuer     = "https://shop.example"
audience   = ["shop"]
algorithms = ["{algorithm}"]
{key}

[upstream.shop]
{upstream}

[[route]]
path     = "/orders"
upstream = "shop"
roles    = ["clerk"]
"""


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def on(core, command, **options):
    return subprocess.Popen(["taskset", "-c", core, *map(str, command)], **options)


def wait_for(port):
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing listens on {port}")


def family(pid):
    """A process and those that it started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return [pid, *(one for child in children for one in family(int(child)))]


def everybody(processes):
    return [one for process in processes for one in family(process.pid)]


def realtime(processes, begins):
    for one in everybody(processes):
        change = ["-r", "-p", "1"] if begins else ["-o", "-p", "0"]
        subprocess.run(["chrt", "-a", *change, str(one)], check=True)


def cpu_seconds(processes):
    total = 0
    for one in everybody(processes):
        fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


class Served:
    """A server under test, while it runs."""

    def __init__(self, name, credentials, start):
        self.name, self.credentials, self.start = name, credentials, start
        self.results = []

    def measure(self, asked, beside):
        seconds = asked.seconds
        port = free_port()
        processes = self.start(port)
        try:
            wait_for(port)
            credential = self.credentials.read_text().split("\n", 1)[0]
            check(self.name, port, credential)
            self.load(port, 8, 1)
            if asked.realtime:
                realtime([*processes, *beside], True)
            alone = self.load(port, 1, seconds, pause=1, first=["chrt", "-r", "1"] if asked.realtime else [])
            if asked.realtime:
                realtime([*processes, *beside], False)
            began = cpu_seconds(processes)
            full = self.load(port, 32, seconds)
            used = cpu_seconds(processes) - began
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()
        self.results.append(
            {
                "p50": alone["p50"],
                "p99": alone["p99"],
                "full_p99": full["p99"],
                "rate": full["requests"] / full["seconds"],
                "cpu": used / full["requests"] * 1e6,
            }
        )

    def load(self, port, connections, seconds, pause=None, first=()):
        environment = os.environ | ({"SIDE_BY_SIDE_PAUSE": str(pause)} if pause else {})
        command = [*first, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", HERE / "report.lua"]
        command += [f"http://127.0.0.1:{port}/orders", "--", self.credentials]
        output = on(OTHERS, command, stdout=subprocess.PIPE, text=True, env=environment).communicate()[0]
        line = next(line for line in output.splitlines() if line.startswith("JSON "))
        figures = json.loads(line[5:])
        if figures["refused"] or figures["errors"] or not figures["requests"]:
            sys.exit(f"{self.name}: {figures}")
        return figures

    def median(self, figure):
        return statistics.median(result[figure] for result in self.results)


def answer_of(port, headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/orders", headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status


def check(name, port, credential):
    """Makes sure that the server checks credentials: it answers a request with one and refuses a request without."""
    key, value = credential.split(": ", 1)
    allowed, refused = answer_of(port, {key: value}), answer_of(port, {})
    if allowed != 200 or (refused == 200) != ("no check" in name):
        sys.exit(f"{name}: {allowed} with the credential, {refused} without")


def prepare(folder):
    """Writes the keys, a thousand tokens of each kind, and the callers of a thousand sessions."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    (folder / "secret.txt").write_text(os.urandom(32).hex())
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    (folder / "private.pem").write_bytes(private)
    (folder / "public.pem").write_bytes(public)
    sys.path.insert(0, str(HERE))
    import app as application
    from flask_jwt_extended import create_access_token

    apps = {}
    for algorithm in ["HS256", "ES256"]:
        apps[algorithm] = made = application.with_jwt(algorithm)
        with made.app_context(), (folder / f"{algorithm}.txt").open("w") as out:
            for caller in range(CALLERS):
                claims = {"roles": ["user", "clerk"]}
                token = create_access_token(f"user{caller}", additional_claims=claims)
                print(f"Authorization: Bearer {token}", file=out)
    return application, apps


def log_in(folder, port):
    with (folder / "sessions.txt").open("w") as out:
        for caller in range(CALLERS):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            connection.request("POST", "/login", f"user=user{caller}", form)
            cookie = connection.getresponse().getheader("Set-Cookie").split(";")[0]
            connection.close()
            print(f"Cookie: {cookie}", file=out)


def main():
    asked = argparse.ArgumentParser()
    asked.add_argument("--seconds", type=int, default=3)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--binary", default=ROOT / "target/release/portcullis", type=Path)
    asked.add_argument("--realtime", action="store_true")
    asked = asked.parse_args()
    binary = asked.binary.resolve()
    missing = [name for name in ["wrk", "nginx", "redis-server", "taskset"] if not shutil.which(name)]
    if missing or not binary.exists():
        sys.exit(f"missing: {', '.join(missing) or binary}")
    folder = Path(tempfile.mkdtemp(prefix="side-by-side-"))
    os.environ["SIDE_BY_SIDE"] = str(folder)
    # Neither this process nor gunicorn leaves a folder of bytecode behind.
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.environ["SIDE_BY_SIDE_REDIS"] = str(folder / "redis.sock")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": (folder / "errors.txt").open("w")}
    application, apps = prepare(folder)
    running = []
    try:
        redis = ["redis-server", "--port", 0, "--unixsocket", folder / "redis.sock", "--save", "", "--dir", folder]
        running.append(on(OTHERS, redis, **quiet))
        upstream = free_port()
        (folder / "nginx.conf").write_text(
            f"daemon off; pid {folder}/nginx.pid; error_log stderr crit; worker_processes 1;\n"
            "events {} http { access_log off; keepalive_requests 1000000;\n"
            f"server {{ listen 127.0.0.1:{upstream}; location / {{ default_type application/json;\n"
            'return 200 \'{"orders":[{"id":7,"item":"lamp"}]}\\n\'; } } }\n'
        )
        running.append(on(OTHERS, ["nginx", "-p", folder, "-c", folder / "nginx.conf"], **quiet))
        wait_for(upstream)

        def gunicorn(factory, workers):
            command = [Path(sys.executable).parent / "gunicorn", "--chdir", HERE, "--log-level", "error"]
            command += ["--no-control-socket"]

            def start(port):
                bind = ["--bind", f"127.0.0.1:{port}"]
                return [on(SERVER, [*command, *bind, *workers, f"app:{factory}"], **quiet)]

            return start

        def portcullis(name, algorithm, upstream_of):
            key = 'secret = "file:secret.txt"' if algorithm == "HS256" else 'public_key = "file:public.pem"'

            def start(port):
                upstream, processes = upstream_of()
                path = folder / f"{name}.toml"
                policy = POLICY.format(
                    port=port, folder=folder, name=name, algorithm=algorithm, key=key, upstream=upstream
                )
                path.write_text(policy)
                gateway = on(SERVER, [binary, "run", "--config", path], cwd=folder, **quiet)
                return [gateway, *processes]

            return start

        def flask_behind():
            port = free_port()
            processes = gunicorn("behind()", best)(port)
            wait_for(port)
            return f'servers = ["http://127.0.0.1:{port}"]', processes

        tokens = {name: folder / f"{name}.txt" for name in ["HS256", "ES256"]}
        kinds = {
            "2 sync workers": ("--workers", "2"),
            "2 gthread workers of 8 threads": ("--workers", "2", "--worker-class", "gthread", "--threads", "8"),
            "1 gthread worker of 8 threads": ("--workers", "1", "--worker-class", "gthread", "--threads", "8"),
            "1 gevent worker": ("--workers", "1", "--worker-class", "gevent"),
        }
        tried = []
        for name, workers in kinds.items():
            tried.append(Served(name, tokens["HS256"], gunicorn("with_jwt('HS256')", workers)))
            tried[-1].measure(asked, [])
        print("Flask-JWT-Extended, HS256, by kind of gunicorn worker:\n")
        table(tried)
        best_name = max(tried, key=lambda one: one.median("rate")).name
        best = kinds[best_name]
        print(f"\nBelow, gunicorn has {best_name}.\n", flush=True)

        port = free_port()
        logging_in = gunicorn("with_sessions()", best)(port)[0]
        wait_for(port)
        log_in(folder, port)
        logging_in.terminate()
        logging_in.wait()

        def flask(factory):
            return gunicorn(factory, best)

        echo = lambda: ('builtin = "echo"', [])
        nginx = lambda: (f'servers = ["http://127.0.0.1:{upstream}"]', [])
        served = [
            Served("Flask, no check", tokens["HS256"], flask("unchecked()")),
            Served("Flask-JWT-Extended, HS256", tokens["HS256"], flask("with_jwt('HS256')")),
            Served("Flask-JWT-Extended, ES256", tokens["ES256"], flask("with_jwt('ES256')")),
            Served("Flask, session in Redis", folder / "sessions.txt", flask("with_sessions()")),
            Served("Portcullis, HS256, echo", tokens["HS256"], portcullis("hs256", "HS256", echo)),
            Served("Portcullis, ES256, echo", tokens["ES256"], portcullis("es256", "ES256", echo)),
            Served("Portcullis, ES256, nginx behind", tokens["ES256"], portcullis("nginx", "ES256", nginx)),
            Served("Portcullis, ES256, Flask behind", tokens["ES256"], portcullis("flask", "ES256", flask_behind)),
        ]
        for _ in range(asked.rounds):
            for one in served:
                one.measure(asked, running)
        table(served)
        print("\nVerifying a token and checking a role, without a server:\n\n| | µs |\n| --- | --- |")
        for algorithm, made in apps.items():
            token = tokens[algorithm].read_text().split("\n", 1)[0].split(" ", 2)[2]
            figures = [application.verify_alone(made, token, 1) for _ in range(asked.rounds)]
            print(f"| Flask-JWT-Extended, {algorithm} | {statistics.median(figures):.0f} |")
    except SystemExit:
        print((folder / "errors.txt").read_text(), file=sys.stderr)
        raise
    finally:
        for process in running:
            process.terminate()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def table(served):
    print("| | p50, µs | p99, µs | requests/s | p99 then, µs | CPU, µs a request |")
    print("| --- | --- | --- | --- | --- | --- |")
    for one in served:
        figures = [one.median(figure) for figure in ["p50", "p99", "rate", "full_p99", "cpu"]]
        print(f"| {one.name} | {' | '.join(f'{figure:,.0f}' for figure in figures)} |")


def in_environment():
    """Restarts the script with the Python of an environment that has the packages of requirements.txt."""
    environment = Path(os.environ.get("SIDE_BY_SIDE_VENV", ROOT / "target/side-by-side-venv")).absolute()
    if Path(sys.prefix) == environment:
        return
    wanted = (HERE / "requirements.txt").read_text()
    made_of = environment / "made-of.txt"
    if not made_of.exists() or made_of.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        install = ["-m", "pip", "install", "--quiet", "--requirement", HERE / "requirements.txt"]
        subprocess.run([environment / "bin/python", *install], check=True)
        made_of.write_text(wanted)
    os.execv(environment / "bin/python", [environment / "bin/python", *sys.argv])


in_environment()
main()
