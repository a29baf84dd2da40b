"""Lays out the files of a pod as the kubelet does, and runs the pod's container in them as its user.

The container is a changed root without a shell, laid by docker-root.sh as in the Dockerfile. Root owns everything but the
volume of the state, so the container's user can write nothing else.
"""

import itertools
import json
import os
import pathlib
import shutil
import stat
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Without root this process is root of a user namespace, which knows no other user.
USER = int(os.environ.get("POD_USER", 65532))
PATIENCE = 30
stamps = itertools.count(1)


def until(what, condition):
    """Waits for a condition, and returns its value."""
    deadline = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        time.sleep(0.02)


def own(path, group):
    if USER:
        os.chown(path, 0, group)


def project(folder, files, mode, group):
    """Writes a ConfigMap or a Secret, also over an older version: a new folder, and one link that changes to it.

    With a group (fsGroup) the kubelet gives it the files, and adds its right to read them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = os.readlink(folder / "..data") if (folder / "..data").is_symlink() else None
    written = folder / f"..2026_11_29_09_00_00.{next(stamps)}"
    written.mkdir(mode=0o755)
    for name, content in files.items():
        (written / name).write_text(content)
        (written / name).chmod(mode | (0o440 if group else 0))
        own(written / name, group or 0)
    own(written, group or 0)
    if group:
        written.chmod(0o2755)
    os.symlink(written.name, folder / "..data_tmp")
    os.rename(folder / "..data_tmp", folder / "..data")
    for name in files:
        if not (folder / name).is_symlink():
            os.symlink(f"..data/{name}", folder / name)
    if before:
        shutil.rmtree(folder / before)


def own_volume(folder, group, policy):
    """What fsGroup does to a volume that can be written, when a pod starts."""
    root = folder.stat()
    fits = root.st_gid == group and root.st_mode & 0o2770 == 0o2770
    if policy == "OnRootMismatch" and fits:
        return
    for path in [folder, *folder.rglob("*")]:
        found = path.lstat()
        if not stat.S_ISLNK(found.st_mode):
            if USER:
                os.chown(path, found.st_uid, group)
            path.chmod(stat.S_IMODE(found.st_mode) | (0o2770 if path.is_dir() else 0o660))


class Pod:
    """The files of one pod, of which containers can be started."""

    def __init__(self, folder, program, objects, secrets, policy):
        (deployment,) = [thing for thing in objects if thing["kind"] == "Deployment"]
        self.root = pathlib.Path(folder)
        self.spec = deployment["spec"]["template"]["spec"]
        (self.container,) = self.spec["containers"]
        self.mounts = {mount["name"]: mount["mountPath"] for mount in self.container["volumeMounts"]}
        self.secrets = secrets
        subprocess.run([ROOT / "docker-root.sh", program, self.root], check=True)
        os.rename(self.root / pathlib.Path(program).name, self.root / "gateway")
        (self.root / "etc").mkdir(exist_ok=True)
        (self.root / "etc/hosts").write_text("127.0.0.1 localhost orders billing\n")
        self.state = self.at("state")
        self.state.mkdir(parents=True)
        own_volume(self.state, self.spec["securityContext"]["fsGroup"], "OnRootMismatch")
        self.write_policy(policy)
        self.write_secrets()

    def at(self, volume):
        return self.root / self.mounts[volume].lstrip("/")

    def write_policy(self, text):
        project(self.at("policy"), {"gateway.toml": text}, 0o644, self.spec["securityContext"]["fsGroup"])

    def write_secrets(self, mode=None, group=True):
        for volume in [volume for volume in self.spec["volumes"] if "secret" in volume]:
            source = volume["secret"]
            files = self.secrets[source["secretName"]]
            chosen = source["defaultMode"] if mode is None else mode
            shutil.rmtree(self.at(volume["name"]), ignore_errors=True)
            project(self.at(volume["name"]), files, chosen, self.spec["securityContext"]["fsGroup"] if group else None)

    def _start(self, arguments, environment={}, **streams):
        security = self.spec["securityContext"]
        given = {variable["name"]: variable["value"] for variable in self.container["env"]}

        def confine():
            os.chroot(self.root)
            os.chdir("/")
            if USER:
                # The kubelet makes fsGroup a supplementary group.
                os.setgroups([security["fsGroup"]])
                os.setgid(security["runAsGroup"])
                os.setuid(security["runAsUser"])

        return subprocess.Popen(
            ["/gateway", *arguments],
            env={**given, **environment},
            preexec_fn=confine,
            text=True,
            stderr=subprocess.STDOUT,
            **streams,
        )

    def run(self, *arguments, text=""):
        """Runs a command to its end, and returns its code and what it wrote."""
        process = self._start(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        output, _ = process.communicate(text, timeout=PATIENCE)
        return process.returncode, output

    def serve(self):
        # The ports of a test are free ones, and its log is for programs.
        free = {f"PORTCULLIS_SERVER__{name}": "127.0.0.1:0" for name in ["HTTPS", "HTTP", "ADMIN"]}
        environment = {**free, "PORTCULLIS_LOG__FORMAT": "json"}
        return Gateway(
            self._start(self.container["args"], environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        )


class Gateway:
    """A running container."""

    def __init__(self, process, listeners=("https", "http", "admin")):
        self.process = process
        self.lines = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        ready = until("ready", lambda: self._event("ready") or self._ended())
        address = lambda name: ready[name].split(",")[0].rsplit(":", 1)
        self.ports = {name: int(address(name)[1]) for name in listeners}

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)

    def _ended(self):
        assert self.process.poll() is None, "".join(self.lines)

    def _event(self, message):
        found = [json.loads(line) for line in list(self.lines) if line.startswith("{")]
        return next((event for event in found if event.get("message") == message), None)

    def logged(self, message):
        return until(message, lambda: self._event(message))
