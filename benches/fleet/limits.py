#!/usr/bin/env python3
"""Compares the cost of a request under a limit of the fleet with that under a limit of one gateway.

    cargo build --release
    benches/fleet/limits.py [--portcullis target/release/portcullis] [--cpu] [--rounds 9] [--seconds 2]

Needs redis-server, nginx, valgrind, wrk and h2load (Debian: redis-server, nginx, valgrind, wrk, nghttp2-client).

Two gateways differ only in `shared = false` of the limit. A route verifies a token, checks a role, charges the limit by subject, and
forwards to nginx. Both gateways are connected to the same Redis.

Without `--cpu`, it counts user-space instructions with callgrind, so a busy machine does not matter. Each gateway runs twice, with few
and with many requests, and only the difference counts. The counts are those of each thread: the worker's per request, and those of the
thread that reports to Redis per report about a key. valgrind slows a gateway down about fifty times, and reports depend on time: at most
one every 2 ms. Therefore the script adds them for stated rates. A second run of the fleet's gateway has 2,000 keys in turn: a gateway
reports about each of them, many in one batch.

With `--cpu`, it compares the CPU time of both processes in turns, each with wrk over 64 connections: `--rounds` rounds of `--seconds`.

Exits with 1 if the ratio is above 1.05.
"""

import argparse
import base64
import hmac
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from parts import ROOT, Client, Folder, Network, Part, free_port, is_open, needs, redis, wait_for

FEW, MANY, CLIENTS = 2000, 6000, 8
KEYS, SECONDS_OF_KEYS = 2000, 8
# A gateway reports about a key at most once in this time, in seconds.
PERIOD = 0.002
POLICY = """
[server]
https = []
plain = "serve"
http  = "127.0.0.1:{http}"
admin = "127.0.0.1:{admin}"
workers = 1

[log]
access = "off"

[authority]
issuer    = "https://localhost"
audience  = ["measure"]
algorithm = "RS256"

[[issuer]]
issuer     = "https://id.example.com/"
audience   = "measure"
algorithms = "HS256"
secret     = "{secret}"

[shared]
url = "{redis}"

[upstream.app]
servers = ["http://127.0.0.1:{upstream}"]

[rate_limit.callers]
by     = "subject"
rate   = "1000000/s"
shared = {shared}

[[route]]
path        = "/orders/{{id}}"
upstream    = "app"
roles       = ["clerk"]
rate_limits = ["callers"]
"""
SECRET = "0123456789abcdef0123456789abcdef"
NGINX = """
daemon off; pid nginx.pid; error_log stderr error; worker_processes 1;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; server {{ listen 127.0.0.1:{port}; location / {{ return 200 "an answer\\n"; }} }} }}
"""


def gateway(folder, network, program, shared, url, upstream, prefix=()):
    """Returns a gateway whose limit is shared or not."""
    name = "fleet" if shared else "local"
    path, http, admin = folder / f"{name}.toml", free_port(), free_port()
    path.write_text(POLICY.format(http=http, admin=admin, redis=url, upstream=upstream, secret=SECRET, shared=str(shared).lower()))
    part = Part(name, network.host(), [*prefix, program, "run", "--config", path], folder, lambda: is_open(("127.0.0.1", http)))
    part.http, part.admin = http, ("127.0.0.1", admin)
    return part


def serve(part, shared):
    part.started()
    if shared:
        # The metrics of a gateway read the vDSO, which ends it under valgrind.
        ready = lambda: b"shared: limits of " in Client(part.admin, 5).ask("GET", "/readyz?verbose").body
        wait_for("the limit is shared", ready)


def reports_of(server):
    """Returns the number of reports that Redis has answered."""
    with socket.create_connection(server.address, 5) as stream:
        stream.sendall(b"INFO commandstats\r\nQUIT\r\n")
        text = b"".join(iter(lambda: stream.recv(65536), b""))
    found = re.search(rb"cmdstat_evalsha:calls=(\d+)", text)
    return int(found[1]) if found else 0


def token_of(subject):
    """Returns a token of the policy's other issuer."""
    now = int(time.time())
    claims = {"iss": "https://id.example.com/", "aud": "measure", "sub": subject, "iat": now, "exp": now + 3600, "roles": ["clerk"]}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "HS256"}, claims)]
    parts.append(base64.urlsafe_b64encode(hmac.digest(SECRET.encode(), b".".join(parts), "sha256")).rstrip(b"="))
    return b".".join(parts).decode()


def counted(make, token, count, shared, folder, server):
    """Runs a gateway under callgrind. Returns the instructions of each thread, and the numbers of requests and of reports.

    Without a token, it sends those of many callers in turn.
    """
    for old in folder.glob("callgrind.*"):
        old.unlink()
    part = make(shared, ["valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={folder}/callgrind.%p"])
    serve(part, shared)
    before = reports_of(server)
    url = f"http://127.0.0.1:{part.http}/orders/7"
    if token:
        command = ["h2load", "--h1", f"-c{CLIENTS}", f"-n{count}", "-H", f"Authorization: Bearer {token}", url]
    else:
        in_turn = ROOT / "benches/compare/tokens.lua"
        (folder / "tokens").write_text("\n".join(token_of(f"caller-{number}") for number in range(KEYS)))
        command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{SECONDS_OF_KEYS}s", "-s", in_turn, url, "--", folder / "tokens"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if (f"{count} 2xx" not in text) if token else ("Non-2xx" in text):
        raise SystemExit(f"not all answers are 200:\n{text}")
    done = count if token else int(re.search(r"(\d+) requests in", text)[1])
    # A gateway gives back what it leased.
    time.sleep(1)
    reports = reports_of(server) - before
    part.process.send_signal(signal.SIGTERM)
    part.process.wait(60)
    threads = {}
    for file in folder.glob("callgrind.*"):
        content = file.read_text()
        thread = re.search(r"^thread: (\d+)", content, re.M)
        total = re.search(r"^(?:totals|summary): (\d+)", content, re.M)
        if thread and total:
            threads[int(thread[1])] = threads.get(int(thread[1]), 0) + int(total[1])
    if not threads:
        raise SystemExit(f"callgrind wrote nothing: {(folder / (part.name + '.log')).read_text()[-2000:]}")
    return threads, done, reports


def instructions(make, token, folder, server):
    costs = {}
    for shared in (False, True):
        (few, _, reports_few), (many, _, reports_many) = (counted(make, token, count, shared, folder, server) for count in (FEW, MANY))
        grown = {thread: total - few.get(thread, 0) for thread, total in many.items()}
        worker = max(grown, key=grown.get)
        others = sum(total for thread, total in grown.items() if thread != worker)
        start = sum(total for thread, total in few.items() if thread != worker)
        costs[shared] = (grown[worker] / (MANY - FEW), others, reports_many - reports_few)
        print(
            f"{'fleet' if shared else 'local'}: {costs[shared][0]:.0f} instructions of the worker for each request; all other threads:"
            f" {others / 1e6:.1f} million during {MANY - FEW} requests, with {costs[shared][2]:.0f} reports",
            flush=True,
        )
    local, fleet = costs[False][0], costs[True][0]
    report = max(0, costs[True][1] - costs[False][1]) / max(1, costs[True][2])
    print(f"a report about one busy key: {report:.0f} instructions")
    print("| requests/s of one key at one gateway | reports for each request | fleet / local |")
    print("| ---: | ---: | ---: |")
    for rate in (500, 1000, 5000, 10_000, 20_000, 40_000):
        share = min(1, 1 / PERIOD / rate)
        print(f"| {rate} | {share:.4f} | {(fleet + report * share) / local:.3f} |")
    threads, done, reports = counted(make, None, 0, True, folder, server)
    # The start of the gateway is that of the run before.
    others = sum(total for thread, total in threads.items() if thread != worker) - start
    reports -= reports_few
    each = f"{reports / done:.2f} reports for each of {done} requests, {others / reports:.0f} instructions for each report"
    print(f"{KEYS} keys in turn: {each}")
    print(f"request path alone, fleet / local: {fleet / local:.3f}")
    return fleet / local


def cpu(make, token, rounds, seconds, server):
    """Returns the median ratio of the CPU time of a request."""
    parts = [make(shared, ["taskset", "-c", "0"]) for shared in (False, True)]
    try:
        for part, shared in zip(parts, (False, True)):
            serve(part, shared)
        found = []
        for number in range(rounds + 1):
            used = []
            for part in parts:
                before, reports = cpu_of(part.process.pid), reports_of(server)
                command = ["taskset", "-c", "1", "wrk", "-t1", "-c64", f"-d{seconds}s", "-H", f"Authorization: Bearer {token}"]
                command += [f"http://127.0.0.1:{part.http}/orders/7"]
                text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                if "Non-2xx" in text or "Socket errors" in text:
                    raise SystemExit(text)
                done = int(re.search(r"(\d+) requests in", text)[1])
                used.append(((cpu_of(part.process.pid) - before) / done * 1e6, done, reports_of(server) - reports))
            # The first round warms up.
            if number:
                found.append(used)
        for at, name in enumerate(["local", "fleet"]):
            time_used = statistics.median(one[at][0] for one in found)
            rate = statistics.median(one[at][1] for one in found) / seconds
            reports = statistics.median(one[at][2] / one[at][1] for one in found)
            print(f"{name}: {time_used:.1f} us of CPU for each request at {rate:.0f}/s, {reports:.4f} reports for each request")
        ratios = sorted(one[1][0] / one[0][0] for one in found)
        print(f"fleet / local: {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}, {rounds} rounds of {seconds} s)")
        return statistics.median(ratios)
    finally:
        for part in parts:
            part.kill()


def cpu_of(pid):
    """Returns the CPU seconds of all threads that run, with the resolution of the scheduler."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--portcullis", type=Path, default=ROOT / "target/release/portcullis")
    options.add_argument("--cpu", action="store_true", help="compare CPU time in turns; needs a quiet machine")
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--seconds", type=int, default=2)
    options = options.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    program = options.portcullis.resolve()
    needs(program, "redis-server", "nginx", "h2load", "wrk", "taskset" if options.cpu else "valgrind")
    network, started = Network(False), []
    with Folder("limits") as folder:
        try:
            server, url = redis(folder.path, network.host())
            upstream = free_port()
            (folder.path / "nginx.conf").write_text(NGINX.format(port=upstream))
            command = ["taskset", "-c", "1", "nginx", "-p", folder.path, "-c", "nginx.conf"]
            nginx = Part("nginx", network.host(), command, folder.path, lambda: is_open(("127.0.0.1", upstream)))
            for part in server, nginx:
                started.append(part)
                part.started()

            def make(shared, prefix):
                part = gateway(folder.path, network, program, shared, url, upstream, prefix)
                started.append(part)
                return part

            path = folder.path / "mint.toml"
            path.write_text(POLICY.format(http=1, admin=2, redis=url, upstream=upstream, secret=SECRET, shared="true"))
            mint = [program, "token", "mint", "--config", path, "--sub", "ada", "--role", "clerk"]
            token = subprocess.run(mint, capture_output=True, text=True, check=True, cwd=folder.path).stdout.strip()
            if options.cpu:
                ratio = cpu(make, token, options.rounds, options.seconds, server)
            else:
                ratio = instructions(make, token, folder.path, server)
        finally:
            for part in started:
                if part.is_running():
                    part.signal(signal.SIGTERM if part.name == "nginx" else signal.SIGKILL)
                    part.process.wait()
    return 0 if ratio <= 1.05 else 1


if __name__ == "__main__":
    sys.exit(main())
