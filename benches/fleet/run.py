#!/usr/bin/env python3
"""Rehearses the failures of a fleet on this machine, and prints what clients saw.

    cargo build --release
    sudo benches/fleet/run.py [--seconds 4] [--portcullis target/release/portcullis] [--drills redis-killed,gateway-frozen]

Starts PostgreSQL, Redis, three gateways and HAProxy (Debian: postgresql, redis-server, haproxy, iproute2), and drives mixed traffic
through HAProxy: logins, refreshes, requests with good and with forged tokens, revocations, and a flood against a limit of the fleet.
Then each part fails in turn for `--seconds` and comes back:

- killed: SIGKILL, and a new start after the time.
- restarted: a clean stop (for gateways, with a `drain_delay`), and a new start at once.
- frozen: SIGSTOP. Connections stay open and silent.
- partitioned: its packets vanish in both directions. `deaf`: only those to it; `mute`: only those from it.
- gateway-without-redis, gateway-without-postgres: one gateway does not reach the server, and everybody else does. Revocations still
  have to reach it in time.
- gateway-isolated: a gateway reaches neither Redis nor PostgreSQL, but its clients reach it. It lasts 14 s, because a gateway may
  decide by its memory for 10 s and has to refuse tokens after that.

Partitions need root: each part then has a network namespace (parts.py). Without root, these drills are left out.

Each row of the table is one drill:

- failed: requests without an answer, and answers with a status from 500 to 599.
- latency: of answers to requests with a good token, and of the flood, through HAProxy.
- wrong: answers that no failure excuses: a forged token that passes, a good token that is refused (401 or 403), a revoked
  token that passes two seconds after the answer to its revocation, a gateway that comes back and accepts a token that was revoked
  meanwhile, and an isolated gateway that accepts a token after its time. The script exits with 1 if there is one.
- limit: admitted requests of the flood, compared with rate x time. The flood is endless, so the burst is used up. A gateway without
  Redis applies the whole limit alone, as the default of `[shared.on_error] limits` is.
- revoked after: the time from the answer to a revocation until all gateways that clients can reach refuse the token.
- recovery: the time from the end of the failure until a login, a refresh and a request pass at each gateway, and the limits are
  shared.
"""

import argparse
import collections
import random
import signal
import sys
import threading
import time
from pathlib import Path

from parts import PASSWORD, ROOT, USERS, Client, Fleet, Folder, Network, at, in_own_network, metrics, needs, wait_for

RATE, BURST = 200, 100
# A revocation that Redis does not carry is read from the store twice a second.
GRACE = 2.0
# The time for which a gateway accepts tokens without the store (docs/store.md), and the time in which it notices a silent server.
ISOLATED = 14
RECOVERY = 60
NAMES = "killed restarted frozen partitioned deaf mute"


class Seen:
    """What clients saw in one drill."""

    def __init__(self):
        self.lock = threading.Lock()
        self.requests = self.failed = self.admitted = 0
        self.wrong, self.delays, self.latencies = [], [], []
        # The last revoked tokens.
        self.revoked = collections.deque(maxlen=30)

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
        # The gateways that do not hear of revocations.
        self.down = set()
        kinds = [self.requests, self.requests, self.forgeries, self.sessions, self.sessions, self.flood, self.flood]
        self.threads = [threading.Thread(target=self.run, args=(kind, at), daemon=True) for at, kind in enumerate(kinds)]
        for thread in self.threads:
            thread.start()

    def run(self, kind, at):
        client = Client(self.fleet.address, 4.0)
        while not self.ended.is_set():
            try:
                kind(client, at)
            except OSError:
                time.sleep(0.01)

    def ask(self, client, *arguments, **named):
        """Sends a request. Counts a failure, and raises OSError for it."""
        seen, began = self.seen, time.monotonic()
        try:
            answer = client.ask(*arguments, **named)
        except OSError:
            seen.count(True)
            raise
        seen.count(answer.status >= 500)
        if answer.status >= 500:
            raise OSError(f"status {answer.status}")
        if arguments[0] == "GET":
            with seen.lock:
                seen.latencies.append(time.monotonic() - began)
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
        seen = self.seen
        left = [gateway for gateway in self.fleet.gateways if gateway not in self.down]
        while left and time.monotonic() < began + GRACE and not self.ended.is_set():
            left = [gateway for gateway in left if gateway not in self.down and passes(gateway, token)]
            time.sleep(0.002)
        # A gateway whose failure began meanwhile heard nothing.
        left = [gateway for gateway in left if gateway not in self.down]
        if left and not self.ended.is_set():
            seen.blame(f"a revoked token passes at {left[0].name}")
        elif not left:
            with seen.lock:
                seen.delays.append(time.monotonic() - began)
                seen.revoked.append(token)
        time.sleep(0.05)

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
            thread.join(10)


def passes(gateway, token, timeout=1.0):
    client = Client(gateway.address, timeout)
    try:
        return client.ask("GET", "/any", token=token).status == 200
    except OSError:
        return False
    finally:
        client.close()


def is_whole(fleet):
    """Whether each gateway serves a login, a refresh and a request, and shares its limits."""
    for gateway in fleet.gateways:
        client = Client(gateway.address, 1)
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
            if metrics(gateway).get("portcullis_shared_limits_up") != 1:
                return False
        finally:
            client.close()
    return Client(fleet.address, 1).ask("GET", "/limited").status in (200, 429)


def isolate(fleet, traffic, gateway):
    """Cuts a gateway off from Redis and PostgreSQL, and checks that it refuses tokens after its time."""
    pair = traffic.login(Client(gateway.address), 0)
    fleet.network.cut(gateway.host, [fleet.redis.host, fleet.postgres.host])
    time.sleep(ISOLATED)
    if passes(gateway, pair["access_token"]):
        traffic.seen.blame(f"a gateway accepts tokens {ISOLATED} s after it was isolated")


def fail(fleet, traffic, part, how, seconds):
    """Lets a part fail for a while. Returns when it is back, and the time at which that began."""
    if how == "restarted":
        part.stop()
        back = time.monotonic()
        part.started()
        return back
    if how == "isolated":
        isolate(fleet, traffic, part)
    elif how.startswith("without-"):
        fleet.network.cut(part.host, [fleet.parts()[how.removeprefix("without-")].host])
        time.sleep(seconds)
    elif how == "killed":
        part.kill()
        time.sleep(seconds)
    elif how == "frozen":
        part.signal(signal.SIGSTOP)
        time.sleep(seconds)
    else:
        fleet.network.cut(part.host, inbound=how != "mute", outbound=how != "deaf")
        time.sleep(seconds)
    back = time.monotonic()
    if how == "killed":
        part.started()
    fleet.repair()
    return back


def drill(fleet, traffic, part, how, seconds):
    began = time.monotonic()
    traffic.cut()
    if part is None:
        time.sleep(seconds)
        back = time.monotonic()
    else:
        if part in fleet.gateways and not how.startswith("without-"):
            traffic.down.add(part)
        back = fail(fleet, traffic, part, how, seconds)
        if part in fleet.gateways and how in ("killed", "restarted"):
            remembers(traffic, part, "ready")
    wait_for("the fleet recovers", lambda: is_whole(fleet), RECOVERY)
    recovery = time.monotonic() - back
    for gateway in fleet.gateways:
        remembers(traffic, gateway, "whole")
    traffic.down.clear()
    time.sleep(1)
    took = time.monotonic() - began
    return traffic.cut(), took, recovery


def remembers(traffic, gateway, when):
    """Checks that a gateway refuses all tokens that were revoked during the drill."""
    with traffic.seen.lock:
        revoked = list(traffic.seen.revoked)
    for token in revoked:
        if passes(gateway, token):
            return traffic.seen.blame(f"{gateway.name} is {when} and accepts a token that was revoked before")


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=4, help="how long each failure lasts")
    options.add_argument("--portcullis", type=Path, default=ROOT / "target/release/portcullis")
    options.add_argument("--drills", help="names of drills, separated by commas; all by default")
    options = options.parse_args()
    program = options.portcullis.resolve()
    needs(program, "redis-server", "haproxy")
    network = Network(in_own_network())
    if not network.is_own:
        print("without root and iproute2, nothing is partitioned", file=sys.stderr)
    fleet = traffic = None
    wrong, broken, all_delays = 0, [], []
    with Folder("fleet") as folder:
        try:
            fleet = Fleet(folder.path, network, RATE, BURST)
            fleet.start(program)
            hows = NAMES.split() if network.is_own else NAMES.split()[:3]
            names = ["none"] + [f"{part}-{how}" for part in fleet.parts() for how in hows]
            names += ["gateway-without-redis", "gateway-without-postgres", "gateway-isolated"] if network.is_own else []
            chosen = options.drills.split(",") if options.drills else names
            if set(chosen) - set(names):
                raise SystemExit(f"drills: {', '.join(names)}")
            traffic = Traffic(fleet)
            time.sleep(2)
            print("| drill | requests | failed | wrong | latency: p50, p99 | limit | revoked after: p50, p99, max | recovery |")
            print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
            for name in chosen:
                part, _, how = name.partition("-")
                try:
                    seen, took, recovery = drill(fleet, traffic, fleet.parts().get(part), how, options.seconds)
                except TimeoutError as error:
                    broken.append(name)
                    print(f"| {name} | {error} |", flush=True)
                    fleet.repair()
                    wait_for("the fleet recovers", lambda: is_whole(fleet), RECOVERY)
                    traffic.down.clear()
                    continue
                delays = "none"
                if seen.delays:
                    found = sorted(seen.delays)
                    all_delays += found
                    delays = f"{at(found, 0.5) * 1000:.0f}, {at(found, 0.99) * 1000:.0f}, {found[-1] * 1000:.0f} ms"
                wrong += len(seen.wrong)
                took_each = sorted(seen.latencies) or [0]
                latency = f"{at(took_each, 0.5) * 1000:.1f}, {at(took_each, 0.99) * 1000:.1f} ms"
                error = f"{(seen.admitted / (RATE * took) - 1) * 100:+.1f} %"
                print(
                    f"| {name} | {seen.requests} | {seen.failed} | {len(seen.wrong)} | {latency} | {error} |"
                    f" {delays} | {recovery:.2f} s |",
                    flush=True,
                )
                for what in sorted(set(seen.wrong)):
                    print(f"  wrong: {what}", flush=True)
            print(f"\n{wrong} wrong answers; {len(all_delays)} revocations; drills without recovery: {', '.join(broken) or 'none'}")
        finally:
            if traffic is not None:
                traffic.end()
            if fleet is not None:
                fleet.stop()
            folder.keep = wrong > 0 or bool(broken)
    return 1 if wrong or broken else 0


if __name__ == "__main__":
    sys.exit(main())
