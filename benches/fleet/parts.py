"""The parts of a fleet on this machine: PostgreSQL, Redis, gateways and HAProxy, each a process that can fail.

As root, each part has a network namespace of its own, and a partition is possible. The namespaces are connected by a bridge, and the
script itself has another namespace, so no packet leaves the machine or reaches another program. A partition changes the hardware
addresses that namespaces have for each other: packets then go to nobody, and no program gets an error. Connections stay open and
silent, and new ones are neither accepted nor refused. Without root, all parts listen on the loopback address.
"""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PASSWORD = "correct horse battery staple"
USERS = 8
NOBODY = "02:00:00:00:ff:ff"


def in_own_network():
    """Restarts the script in a network namespace of its own if it is root's. Returns whether it has one."""
    if os.environ.get("PORTCULLIS_FLEET_NETWORK"):
        return True
    if os.getuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        return False
    # Named namespaces are mounts below /run/netns. These mounts end with the processes of the script.
    first = "mkdir -p /run/netns && mount -t tmpfs none /run/netns && ip link set lo up && exec \"$@\""
    command = ["unshare", "--net", "--mount", "sh", "-c", first, "sh", sys.executable, *sys.argv]
    os.environ["PORTCULLIS_FLEET_NETWORK"] = "1"
    sys.stdout.flush()
    os.execvp(command[0], command)


def ip(*arguments):
    subprocess.run(["ip", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


class Host:
    """The address of a part. In a network of its own, also its namespace."""

    def __init__(self, network, number):
        self.network, self.number, self.inside = network, number, []
        self.address = "127.0.0.1"
        if network.is_own:
            self.address, self.hardware = f"10.203.0.{number}", f"02:00:00:00:00:{number:02x}"

    def reaches(self, other, can):
        """Whether the packets to another host arrive."""
        hardware = other.hardware if can else NOBODY
        ip(*self.inside, "neigh", "replace", other.address, "lladdr", hardware, "dev", "net0", "nud", "permanent")

    def command(self, *command):
        """Returns the command that runs a program on this host."""
        return ["nsenter", f"--net=/run/netns/{self.inside[1]}", *command] if self.inside else list(command)


class Network:
    def __init__(self, is_own):
        self.is_own, self.hosts = is_own, []
        if is_own:
            ip("link", "add", "bridge0", "type", "bridge")
            ip("link", "set", "bridge0", "up")
        # The host of the clients.
        self.host()

    def host(self):
        host = Host(self, len(self.hosts) + 1)
        if self.is_own:
            inner, outer = f"inner{host.number}", f"outer{host.number}"
            ip("link", "add", inner, "type", "veth", "peer", "name", outer)
            ip("link", "set", outer, "master", "bridge0", "up")
            if self.hosts:
                name = f"part{host.number}"
                ip("netns", "add", name)
                ip("link", "set", inner, "netns", name)
                host.inside = ["-n", name]
                ip(*host.inside, "link", "set", "lo", "up")
            ip(*host.inside, "link", "set", inner, "name", "net0", "address", host.hardware)
            ip(*host.inside, "address", "add", f"{host.address}/24", "dev", "net0")
            ip(*host.inside, "link", "set", "net0", "up")
            for other in self.hosts:
                host.reaches(other, True)
                other.reaches(host, True)
        self.hosts.append(host)
        return host

    def cut(self, host, others=None, inbound=True, outbound=True):
        """Lets the packets to and from a host vanish, or those of one direction."""
        for other in others or self.hosts:
            if other is not host:
                if inbound:
                    other.reaches(host, False)
                if outbound:
                    host.reaches(other, False)

    def heal(self):
        for host in self.hosts if self.is_own else []:
            for other in self.hosts:
                if other is not host:
                    host.reaches(other, True)


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
    raise TimeoutError(f"timed out: {what}")


def is_open(address):
    with socket.create_connection(address, 0.2):
        return True


class Answer:
    def __init__(self, status, body):
        self.status, self.body = status, body

    def json(self):
        return json.loads(self.body)


class Client:
    """A client with one connection, which it opens again after an error."""

    def __init__(self, address, timeout=2.0):
        self.address, self.timeout, self.open = address, timeout, None

    def ask(self, method, path, token=None, body=None, form=None, basic=None):
        """Returns the answer. Raises OSError if there is none."""
        headers = {"host": f"{self.address[0]}:{self.address[1]}"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        if basic:
            headers["authorization"] = f"Basic {basic}"
        if body is not None:
            body = json.dumps(body)
            headers["content-type"] = "application/json"
        if form is not None:
            body = form
            headers["content-type"] = "application/x-www-form-urlencoded"
        try:
            if self.open is None:
                self.open = http.client.HTTPConnection(*self.address, timeout=self.timeout)
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
    """A process that drills stop, kill, freeze and start again."""

    def __init__(self, name, host, command, folder, is_ready):
        self.name, self.host, self.folder, self.is_ready = name, host, folder, is_ready
        self.command = host.command(*map(str, command))
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

    def stop(self):
        """Stops the part as a service manager does."""
        # PostgreSQL waits for its clients after SIGTERM, and ends their transactions after SIGINT.
        self.process.send_signal(signal.SIGINT if self.name == "postgres" else signal.SIGTERM)
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.kill()

    def is_running(self):
        return self.process is not None and self.process.poll() is None


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


def postgres(folder, host, options=()):
    """Returns the part and the URL of the database."""
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
    with open(data / "pg_hba.conf", "a") as rules:
        rules.write("host all all 10.203.0.0/24 trust\n")
    options = [f"listen_addresses={host.address}", f"port={port}", f"unix_socket_directories={data}", *options]
    command = [*as_user, programs / "postgres", "-D", data, *(word for option in options for word in ("-c", option))]

    def is_ready():
        asked = [programs / "psql", "-h", host.address, "-p", str(port), "-U", "postgres", "-c", "SELECT 1"]
        return subprocess.run(asked, capture_output=True, timeout=5, check=False).returncode == 0

    url = f"postgres://postgres@{host.address}:{port}/postgres?sslmode=disable"
    part = Part("postgres", host, command, folder, is_ready)
    part.psql = [programs / "psql", "-h", host.address, "-p", str(port), "-U", "postgres", "-X", "-A", "-t", "-q"]
    return part, url


def redis(folder, host):
    """Returns the part and its URL."""
    address = (host.address, free_port())
    command = ["redis-server", "--port", address[1], "--bind", address[0], "--protected-mode", "no", "--save", "", "--dir", folder]
    part = Part("redis", host, command, folder, lambda: is_open(address))
    part.address = address
    return part, f"redis://{address[0]}:{address[1]}"


POLICY = """
[server]
https = []
plain = "serve"
http  = "{address}:{http}"
admin = "{address}:{admin}"
workers = 1
# HAProxy notices within 400 ms that a gateway is about to stop.
drain_delay = "1s"

[log]
access = "off"

[authority]
issuer      = "https://gateway.test"
audience    = ["fleet"]
store       = "{store}"
rate_limits = []
limits      = {{ login = [], refresh = [], logout = [] }}

[authority.client.service]
secret = "{secret}"

[shared]
url = "{redis}"

[upstream.echo]
builtin = "echo"

[rate_limit.fleet]
by    = "route"
rate  = "{rate}/s"
burst = {burst}

[[route]]
path     = "/any"
upstream = "echo"

[[route]]
path        = "/limited"
upstream    = "echo"
access      = "public"
rate_limits = "fleet"
"""
SECRET = "0123456789abcdef0123456789abcdef"

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
    bind {address}:{port}
    default_backend gateways
backend gateways
    balance roundrobin
    option httpchk GET /readyz
    # Without on-marked-down shutdown-sessions, which would cut requests in progress at a gateway that is about to stop.
    default-server check inter 200ms fastinter 100ms fall 2 rise 1
"""


class Fleet:
    """PostgreSQL, Redis, three gateways, and HAProxy in front of them."""

    def __init__(self, folder, network, rate, burst, options=()):
        self.folder, self.network, self.rate, self.burst, self.options = folder, network, rate, burst, options
        self.gateways, self.postgres, self.redis, self.haproxy = [], None, None, None

    def start(self, program):
        folder, network = self.folder, self.network
        self.postgres, store = postgres(folder, network.host(), self.options)
        self.redis, shared = redis(folder, network.host())
        self.postgres.started()
        self.redis.started()
        for number in range(3):
            host, port, admin = network.host(), free_port(), free_port()
            # All gateways sign with the keys of one state folder, which is beside their policies.
            path = folder / f"gateway-{number}.toml"
            facts = dict(address=host.address, http=port, admin=admin, store=store, redis=shared, rate=self.rate)
            path.write_text(POLICY.format(**facts, burst=self.burst, secret=SECRET))
            if number == 0:
                for user in range(USERS):
                    added = [program, "user", "add", f"user-{user}", "--password-stdin", "--config", path]
                    done = subprocess.run(added, input=PASSWORD + "\n", text=True, capture_output=True, check=False)
                    if done.returncode:
                        raise SystemExit(f"{added}: {done.stderr}")

            def is_ready(admin=(host.address, admin)):
                return Client(admin, 1).ask("GET", "/readyz").status == 200

            part = Part(f"gateway-{number}", host, [program, "run", "--config", path], folder, is_ready)
            part.address, part.admin = (host.address, port), (host.address, admin)
            self.gateways.append(part)
            part.started()
        host = network.host()
        self.address = (host.address, free_port())
        lines = [HAPROXY.format(folder=folder, address=host.address, port=self.address[1])]
        for number, gateway in enumerate(self.gateways):
            address, port = gateway.address
            lines.append(f"    server g{number} {address}:{port} check port {gateway.admin[1]}\n")
        (folder / "haproxy.cfg").write_text("".join(lines))
        command = ["haproxy", "-db", "-f", folder / "haproxy.cfg"]
        self.haproxy = Part("haproxy", host, command, folder, lambda: is_open(self.address))
        self.haproxy.started()

    def parts(self):
        return {"redis": self.redis, "postgres": self.postgres, "gateway": self.gateways[1], "haproxy": self.haproxy}

    def repair(self):
        """Ends all failures of parts."""
        self.network.heal()
        for part in [self.postgres, self.redis, *self.gateways, self.haproxy]:
            if part.is_running():
                part.signal(signal.SIGCONT)
            else:
                part.start()

    def stop(self):
        for part in [self.haproxy, *self.gateways, self.redis, self.postgres]:
            if part is not None and part.process is not None:
                part.signal(signal.SIGCONT)
                part.kill()


def metrics(part):
    """Returns the metrics of a gateway by name with labels."""
    client = Client(part.admin, 2)
    try:
        lines = client.ask("GET", "/metrics").body.decode().splitlines()
    finally:
        client.close()
    pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def at(sorted_values, part):
    """Returns the value below which this part of the values is."""
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * part))]


def needs(*programs):
    for program in programs:
        if shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin") is None:
            raise SystemExit(f"{program} is missing")


class Folder:
    """A folder for the duration of a `with`. It stays, and its name is printed, if the block fails or `keep` is set."""

    def __init__(self, name):
        self.name, self.keep = name, False

    def __enter__(self):
        self.path = Path(tempfile.mkdtemp(prefix=f"portcullis-{self.name}-"))
        return self

    def __exit__(self, kind, error, trace):
        if kind is None and not self.keep:
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            print(f"logs: {self.path}", file=sys.stderr)
