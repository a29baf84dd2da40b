#!/usr/bin/env python3
"""Counts what each operation of a fleet costs Redis, PostgreSQL and the gateways.

    cargo build --release
    benches/fleet/costs.py [--times 300] [--marks 200000] [--portcullis target/release/portcullis]

Starts PostgreSQL with pg_stat_statements, Redis, three gateways and HAProxy as run.py does (Debian: postgresql, redis-server, haproxy), and
does each operation `--times` times at the first gateway, one after the other. Counts do not depend on the load of the machine; the times
do. What the fleet does without requests is measured first and subtracted.

- statements: what PostgreSQL executes, with BEGIN, SET and COMMIT. Each is a round trip.
- commits: those of the statements that are COMMIT. WAL: bytes written to its log.
- Redis commands: those of all three gateways. out: bytes that Redis sends.
- CPU: of PostgreSQL, Redis, and all three gateways together.

Then it revokes 2,000 tokens and prints what a mark takes in Redis and PostgreSQL. At last it writes `--marks` marks into PostgreSQL, and
prints what a mark takes of a gateway's memory, and how long gateways need to read them: while they run, and at a start.

With `--readers 100`, it instead measures Redis alone while that many connections read a stream of marks as gateways do (XREAD, then
XRANGE to see whether the last entry is still there), at several rates of marks.
"""

import argparse
import re
import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path

from parts import PASSWORD, ROOT, Client, Fleet, Folder, Network, at, children, metrics, needs, redis, wait_for
from rates import BASIC, token_of

STATEMENTS = "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat%'"
COMMITS = "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE query ILIKE 'COMMIT'"
WAL = "SELECT pg_current_wal_insert_lsn() - '0/0'"
MARKS = "SELECT count(*), pg_table_size('marks'), pg_indexes_size('marks') FROM marks"


def sql(fleet, *statements):
    """Returns the rows of statements."""
    commands = [word for statement in statements for word in ("-c", statement)]
    done = subprocess.run([*fleet.postgres.psql, *commands], capture_output=True, text=True, check=True)
    return [line.split("|") for line in done.stdout.splitlines()]


def redis_says(fleet, *words):
    return ask_redis(fleet.redis, *words)


def ask_redis(part, *words):
    """Returns the answer of Redis to a command."""
    with socket.create_connection(part.address, 5) as stream:
        stream.sendall((" ".join(words) + "\r\nQUIT\r\n").encode())
        return b"".join(iter(lambda: stream.recv(65536), b"")).decode()


def cpu(part):
    """Returns the CPU seconds of a part, with the resolution of the scheduler."""
    total = 0
    for pid in [part.process.pid, *children(part.process.pid)]:
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total += int(path.read_text().split()[0])
            except OSError:
                pass
    return total / 1e9


class Counts:
    """All counters at one moment."""

    def __init__(self, fleet):
        self.time = time.monotonic()
        stats = redis_says(fleet, "INFO", "commandstats")
        self.values = {f"redis {name}": int(calls) for name, calls in re.findall(r"cmdstat_([\w|]+):calls=(\d+)", stats)}
        for name in ("info", "quit"):
            self.values.pop(f"redis {name}", None)
        self.values["out"] = int(re.search(r"total_net_output_bytes:(\d+)", redis_says(fleet, "INFO", "stats"))[1])
        statements, commits, wal = (float(row[0]) for row in sql(fleet, STATEMENTS, COMMITS, WAL))
        self.values |= {"statements": statements, "commits": commits, "wal": wal}
        self.values |= {"cpu postgres": cpu(fleet.postgres), "cpu redis": cpu(fleet.redis)}
        self.values["cpu gateways"] = sum(cpu(gateway) for gateway in fleet.gateways)

    def since(self, before):
        """Returns the differences, and the time between the two readings."""
        return {name: value - before.values.get(name, 0) for name, value in self.values.items()}, self.time - before.time


def operations(fleet, times):
    """Yields the name of each operation and its action. An action gets a number below `times`."""
    client = Client(fleet.gateways[0].address, 10)

    def ask(status, *arguments, **named):
        answer = client.ask(*arguments, **named)
        if answer.status != status:
            raise SystemExit(f"{arguments}: {answer.status} {answer.body}")
        return answer

    pairs = []

    def login(number):
        body = {"username": f"user-{number % 8}", "password": PASSWORD}
        pairs.append(ask(200, "POST", "/auth/login", body=body).json())

    def refresh(number):
        body = {"refresh_token": pairs[number]["refresh_token"]}
        pairs[number] = ask(200, "POST", "/auth/refresh", body=body).json()

    def request(number):
        ask(200, "GET", "/any", token=pairs[number]["access_token"])

    def logout(number):
        pair = pairs[number]
        ask(204, "POST", "/auth/logout", token=pair["access_token"], body={"refresh_token": pair["refresh_token"]})

    tokens = []

    def service(number):
        tokens.append(token_of(client))

    def revoke(number):
        ask(200, "POST", "/auth/revoke", form=f"token={tokens[number]}", basic=BASIC)

    yield "login", login
    yield "refresh", refresh
    yield "request with a token", request
    yield "logout", logout
    yield "token of a service", service
    yield "revocation of an access token", revoke


def table(fleet, times):
    before = Counts(fleet)
    time.sleep(10)
    idle, seconds = Counts(fleet).since(before)
    idle = {name: value / seconds for name, value in idle.items()}
    shown = ", ".join(f"{name[6:]} {value:.1f}" for name, value in sorted(idle.items()) if name.startswith("redis ") and value > 0.05)
    print(f"without requests, a second: {idle['statements']:.1f} statements, Redis: {shown}; {idle['out']:.0f} bytes out")
    print("\n| operation | statements | commits | WAL, bytes | Redis commands | out, bytes | CPU: PostgreSQL, Redis, gateways, us |")
    print("| --- | ---: | ---: | ---: | --- | ---: | ---: |")
    for name, action in operations(fleet, times):
        before = Counts(fleet)
        for number in range(times):
            action(number)
        # The gateways still exchange what was done.
        time.sleep(1)
        found, seconds = Counts(fleet).since(before)
        each = {key: (value - idle.get(key, 0) * seconds) / times for key, value in found.items()}
        commands = ", ".join(f"{key[6:]} {value:.2f}" for key, value in sorted(each.items()) if key.startswith("redis ") and value > 0.05)
        used = ", ".join(f"{each[f'cpu {part}'] * 1e6:.0f}" for part in ("postgres", "redis", "gateways"))
        print(
            f"| {name} | {each['statements']:.1f} | {each['commits']:.1f} | {each['wal']:.0f} | {commands or 'none'} | {each['out']:.0f} | {used} |",
            flush=True,
        )


def command(*words):
    parts = [f"${len(word)}\r\n{word}\r\n" for word in map(str, words)]
    return f"*{len(parts)}\r\n{''.join(parts)}".encode()


class Reader:
    """A connection that reads the stream as a gateway does."""

    def __init__(self, address, key):
        self.stream, self.key, self.last, self.received = socket.create_connection(address), key, "$", 0
        self.buffer, self.times = b"", []
        self.wait()

    def wait(self):
        self.waits = True
        self.stream.sendall(command("XREAD", "COUNT", 1000, "BLOCK", 500, "STREAMS", self.key, self.last))

    def read(self):
        self.buffer += self.stream.recv(1 << 20)
        # The last line of an answer is the text of the last entry, or `*-1` if there is none.
        if not (self.buffer.endswith(b"mark\r\n") or self.buffer == b"*-1\r\n"):
            return
        found = re.findall(rb"(\d+-\d+)\r\n", self.buffer)
        self.buffer = b""
        if self.waits and found:
            now = time.time() * 1000
            self.times += [now - int(position.split(b"-")[0]) for position in found]
            self.last, self.received, self.waits = found[-1].decode(), self.received + len(found), False
            self.stream.sendall(command("XRANGE", self.key, self.last, self.last, "COUNT", 1))
        else:
            self.wait()


def readers(folder, count, seconds):
    part, _ = redis(folder, Network(False).host())
    part.started()
    try:
        print("| readers | marks/s | CPU of Redis | us for each mark | XREAD for each reader and mark | read after: p50, p99, ms |")
        print("| ---: | ---: | ---: | ---: | ---: | ---: |")
        for number, rate in enumerate((10, 70, 300, 1000)):
            selector, key = selectors.DefaultSelector(), f"stream{number}"
            writer = socket.create_connection(part.address)
            all_of_them = [Reader(part.address, key) for _ in range(count)]
            for reader in all_of_them:
                selector.register(reader.stream, selectors.EVENT_READ, reader)
            time.sleep(0.2)
            # The size of an entry is about that of a revoked token.
            text = "t" * 80 + "mark"
            begin, sent, used = time.monotonic(), 0, cpu(part)
            calls = lambda: int((re.search(r"cmdstat_xread:calls=(\d+)", ask_redis(part, "INFO", "commandstats")) or [0, 0])[1])
            before = calls()
            while time.monotonic() < begin + seconds:
                while begin + sent / rate <= time.monotonic() and sent < rate * seconds:
                    writer.sendall(command("XADD", key, "*", "mark", text))
                    sent += 1
                for event, _ in selector.select(0.001):
                    event.data.read()
            used, asked = cpu(part) - used, calls() - before
            times = sorted(one for reader in all_of_them for one in reader.times)
            got = sum(reader.received for reader in all_of_them) / count
            print(
                f"| {count} | {sent / seconds:.0f} | {used / seconds * 100:.0f} % | {used / sent * 1e6:.0f} | {asked / count / got:.2f} |"
                f" {at(times, 0.5):.1f}, {at(times, 0.99):.1f} |",
                flush=True,
            )
            for reader in all_of_them:
                reader.stream.close()
    finally:
        part.kill()


def memory(part):
    rollup = Path(f"/proc/{part.process.pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024


def revoked(fleet, count):
    client = Client(fleet.gateways[0].address, 10)

    def sizes():
        time.sleep(2)
        used = int(re.search(r"used_memory:(\d+)", redis_says(fleet, "INFO", "memory"))[1])
        return [used, *(int(value) for value in sql(fleet, MARKS)[0])]

    before = sizes()
    for _ in range(count):
        token = token_of(client)
        if client.ask("POST", "/auth/revoke", form=f"token={token}", basic=BASIC).status != 200:
            raise SystemExit("a revocation failed")
    found = [now - then for now, then in zip(sizes(), before)]
    redis, table, indexes = (found[at] / found[1] for at in (0, 2, 3))
    print(f"\na mark, of {found[1]}: {redis:.0f} bytes of Redis, {table:.0f} + {indexes:.0f} bytes of PostgreSQL (table, indexes)")


def marks(fleet, count):
    gateway = fleet.gateways[2]
    known = lambda: metrics(gateway)["portcullis_revocation_marks"]
    before, were = memory(gateway), known()
    began = time.monotonic()
    kept = int((time.time() + 86_400) * 1000)
    columns = "INSERT INTO marks (kind, value, generation, kept, made)"
    sql(fleet, f"{columns} SELECT 'session', md5('mark' || n), 0, {kept}, 0 FROM generate_series(1, {count}) n")
    written = time.monotonic()
    wait_for("the gateways read the marks", lambda: known() >= were + count, 300)
    read = time.monotonic()
    each = (memory(gateway) - before) / count
    gateway.kill()
    start = time.monotonic()
    gateway.started()
    print(f"{count} marks: written in {written - began:.1f} s and read {read - written:.1f} s later; {each:.0f} bytes of a gateway's memory each")
    if known() < were + count:
        raise SystemExit("a gateway is ready and does not know all marks")
    print(f"a gateway that starts with them is ready after {time.monotonic() - start:.2f} s")


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--times", type=int, default=300, help="how often each operation happens")
    options.add_argument("--marks", type=int, default=200_000)
    options.add_argument("--readers", type=int, default=0)
    options.add_argument("--portcullis", type=Path, default=ROOT / "target/release/portcullis")
    options = options.parse_args()
    if options.readers:
        with Folder("costs") as folder:
            return readers(folder.path, options.readers, 5)
    program = options.portcullis.resolve()
    needs(program, "redis-server", "haproxy")
    fleet = None
    with Folder("costs") as folder:
        try:
            loaded = ["shared_preload_libraries=pg_stat_statements", "pg_stat_statements.track=all"]
            fleet = Fleet(folder.path, Network(False), 1000, 1000, loaded)
            fleet.start(program)
            sql(fleet, "CREATE EXTENSION pg_stat_statements")
            table(fleet, options.times)
            revoked(fleet, 2000)
            marks(fleet, options.marks)
        finally:
            if fleet is not None:
                fleet.stop()


if __name__ == "__main__":
    sys.exit(main())
