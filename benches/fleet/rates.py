#!/usr/bin/env python3
"""Measures a fleet of three gateways at a rate: revocations, and the accuracy of a limit under uneven load.

    cargo build --release
    benches/fleet/rates.py [--seconds 10] [--portcullis target/release/portcullis] [--only revocations,limit]

Starts PostgreSQL, Redis, three gateways and HAProxy as run.py does (Debian: postgresql, redis-server, haproxy, nghttp2-client).

- revocations: tokens of a service are revoked (`/auth/revoke`) at `--rate` a second (1,000 by default), in turn at the three gateways.
  For some of them, the script then asks all gateways until each refuses the token, and prints the time since the answer to the
  revocation: p50, p99, maximum. PostgreSQL commits one revocation after another, each with a flush of the disk, so a disk that needs
  3 ms carries about 340 a second. `--no-flush` lets PostgreSQL not wait for the disk, as on a machine with a fast one.
- limit: 3,000 requests a second meet a limit of 1,000 a second: 70 %, 25 % and 5 % of them at the three gateways, then 98, 1 and 1 %, then
  all at one gateway, which changes each second. Prints admitted requests compared with rate x time, in a period in which the burst is
  used up. The time is that between two readings of the gateways' counters.

Exits with 1 if a revoked token still passes after two seconds, if p99 is above 100 ms, if the rate is not reached, or if the error of a
limit is above 3 %. The CPU times include the questions about the sampled tokens.
"""

import argparse
import base64
import multiprocessing
import re
import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path

from parts import ROOT, SECRET, Client, Fleet, Folder, Network, at, in_own_network, metrics, needs

LIMIT, BURST = 1000, 1000
BASIC = base64.b64encode(f"service:{SECRET}".encode()).decode()
LANES = 24


def token_of(client):
    answer = client.ask("POST", "/auth/token", form="grant_type=client_credentials", basic=BASIC)
    if answer.status != 200:
        raise SystemExit(f"/auth/token: {answer.status} {answer.body}")
    return answer.json()["access_token"]


def tokens_of(addresses, count):
    client = [Client(address) for address in addresses]
    return [token_of(client[number % len(client)]) for number in range(count)]


def revoke_all(addresses, tokens, rate, begin, found):
    """Revokes tokens at a rate over some connections. Puts the number of revocations, and the time that they took, into a queue."""
    selector, lanes, free = selectors.DefaultSelector(), [], []
    for number in range(LANES):
        lane = socket.create_connection(addresses[number % len(addresses)], 5)
        lane.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(lane, selectors.EVENT_READ)
        lanes.append(lane)
    free = list(lanes)
    time.sleep(max(0, begin - time.monotonic()))
    sent = done = 0
    while done < len(tokens):
        while free and sent < len(tokens) and begin + sent / rate <= time.monotonic():
            body = f"token={tokens[sent]}"
            head = f"POST /auth/revoke HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Basic {BASIC}\r\n"
            head += f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
            free.pop(0).sendall((head + body).encode())
            sent += 1
        for key, _ in selector.select(0.001):
            answer = key.fileobj.recv(65536)
            if not answer.startswith(b"HTTP/1.1 200"):
                found.put((-1, answer[:300].decode(errors="replace")))
                return
            free.append(key.fileobj)
            done += 1
    found.put((done, time.monotonic() - begin))


def sample(addresses, tokens, begin, seconds, found):
    """Revokes a token, and asks all gateways until each refuses it; then the next one. Puts the delays into a queue."""
    clients = [Client(address) for address in addresses]
    delays, end, number = [], begin + seconds, 0
    time.sleep(max(0, begin - time.monotonic()))
    for token in tokens:
        if time.monotonic() > end:
            break
        if any(client.ask("GET", "/any", token=token).status != 200 for client in clients):
            found.put("a token was refused before its revocation")
            return
        number += 1
        if clients[number % len(clients)].ask("POST", "/auth/revoke", form=f"token={token}", basic=BASIC).status != 200:
            found.put("a revocation failed")
            return
        answered = time.monotonic()
        left = clients
        while left:
            left = [client for client in left if client.ask("GET", "/any", token=token).status == 200]
            # The questions cost CPU time too.
            time.sleep(0.001)
            if time.monotonic() > answered + 2:
                found.put("a revoked token passes after two seconds")
                return
        delays.append(time.monotonic() - answered)
        time.sleep(0.02)
    found.put(delays)


def revocations(fleet, rate, seconds):
    addresses = [gateway.address for gateway in fleet.gateways]
    tokens = tokens_of(addresses, int(rate * seconds))
    samples = [tokens_of(addresses, 40 * seconds) for _ in range(2)]
    context = multiprocessing.get_context("fork")
    totals, delays = context.Queue(), context.Queue()
    before, used = len(tokens), cpu(fleet)
    begin = time.monotonic() + 0.5
    workers = [context.Process(target=revoke_all, args=(addresses, tokens, rate, begin, totals))]
    workers += [context.Process(target=sample, args=(addresses, some, begin, seconds, delays)) for some in samples]
    for worker in workers:
        worker.start()
    found, wrong = [], 0
    for _ in samples:
        result = delays.get(timeout=seconds + 60)
        if isinstance(result, str):
            print(f"wrong: {result}")
            wrong += 1
        else:
            found += result
    done, took = totals.get(timeout=60)
    for worker in workers:
        worker.join()
    if done != before:
        raise SystemExit(f"revocations failed: {took}")
    used = [now - then for now, then in zip(cpu(fleet), used)]
    found.sort()
    all_of_them = done + len(found)
    print(f"{done / took:.0f} revocations/s for {took:.1f} s; refused by all gateways after, ms, {len(found)} samples:")
    print(f"p50 {at(found, 0.5) * 1000:.1f}, p99 {at(found, 0.99) * 1000:.1f}, maximum {found[-1] * 1000:.1f}")
    for name, seconds_used in zip(["each gateway", "PostgreSQL", "Redis"], used):
        print(f"{name}: {seconds_used / all_of_them * 1e6:.0f} us of CPU for each revocation")
    if done / took < 0.95 * rate:
        print(f"wrong: the machine does not carry {rate} revocations/s and their clients")
        wrong += 1
    return wrong == 0 and at(found, 0.99) <= 0.1


def cpu(fleet):
    """Returns the CPU seconds of a gateway (mean), PostgreSQL and Redis."""
    gateways = [cpu_of(gateway) for gateway in fleet.gateways]
    return [sum(gateways) / len(gateways), cpu_of(fleet.postgres), cpu_of(fleet.redis)]


def cpu_of(part):
    found = subprocess.run(["pgrep", "-P", str(part.process.pid)], capture_output=True, text=True, check=False).stdout.split()
    total = 0
    for pid in [part.process.pid, *found]:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / 100


def admitted(fleet):
    """Returns the number of admitted requests of all gateways, and the time of the reading."""
    begin = time.monotonic()
    total = 0
    for gateway in fleet.gateways:
        for name, value in metrics(gateway).items():
            if name.startswith("portcullis_requests_total{") and '"forwarded"' in name and "/limited" in name:
                total += value
    return total, (begin + time.monotonic()) / 2


def load(fleet, rates, seconds):
    """Starts a load generator for each gateway."""
    started = []
    for gateway, rate in zip(fleet.gateways, rates):
        if rate:
            clients = min(16, max(1, rate // 100))
            address, port = gateway.address
            command = ["h2load", "--h1", f"-c{clients}", f"--rps={rate / clients:g}", f"-n{int(rate * seconds)}"]
            started.append(subprocess.Popen([*command, f"http://{address}:{port}/limited"], stdout=subprocess.PIPE, text=True))
    return started


def ended(started):
    for one in started:
        text = one.communicate(timeout=120)[0]
        found = re.search(r"(\d+) 2xx, \d+ 3xx, (\d+) 4xx, (\d+) 5xx", text)
        if not found or int(found[3]):
            raise SystemExit(f"the load failed:\n{text}")


def limit(fleet, seconds):
    is_good = True
    for name, rates in [("70, 25, 5 %", (2100, 750, 150)), ("98, 1, 1 %", (2940, 30, 30)), ("one gateway at a time", None)]:
        # The burst and the begin of the load are not part of the measurement.
        if rates:
            running = load(fleet, rates, seconds + 4)
            time.sleep(2)
            first, began = admitted(fleet)
            time.sleep(seconds)
            last, end = admitted(fleet)
            ended(running)
        else:
            # The loads overlap, so that the fleet always has more requests than it may admit.
            running = load(fleet, (3000, 0, 0), 3)
            time.sleep(2)
            first, began = admitted(fleet)
            for second in range(seconds):
                turn = [0, 0, 0]
                turn[(second + 1) % 3] = 3000
                running += load(fleet, turn, 1.5)
                time.sleep(1)
            last, end = admitted(fleet)
            ended(running)
        error = (last - first) / (LIMIT * (end - began)) - 1
        print(f"limit of {LIMIT}/s, load at the gateways {name}: {error * 100:+.2f} % in {end - began:.1f} s")
        is_good &= abs(error) <= 0.03
        time.sleep(2)
    return is_good


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=int, default=10)
    options.add_argument("--rate", type=int, default=1000, help="revocations a second")
    options.add_argument("--no-flush", action="store_true", help="PostgreSQL does not wait for the disk")
    options.add_argument("--portcullis", type=Path, default=ROOT / "target/release/portcullis")
    options.add_argument("--only", default="revocations,limit")
    options = options.parse_args()
    program = options.portcullis.resolve()
    needs(program, "redis-server", "haproxy", "h2load")
    network = Network(in_own_network())
    fleet, is_good = None, True
    with Folder("rates") as folder:
        try:
            fleet = Fleet(folder.path, network, LIMIT, BURST, ["fsync=off"] if options.no_flush else [])
            fleet.start(program)
            if "revocations" in options.only:
                is_good &= revocations(fleet, options.rate, options.seconds)
            if "limit" in options.only:
                is_good &= limit(fleet, options.seconds)
        finally:
            if fleet is not None:
                fleet.stop()
            folder.keep = not is_good
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
