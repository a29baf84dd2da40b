"""Runs the gateway as systemd does: passes listening sockets, keeps them over a restart, and reports notifications.

usage: service_manager.py KEYS COMMAND...    KEYS are keys of [server] that get a socket each, such as http,admin.
"-" is a socket for no key.

SIGHUP restarts the gateway. SIGTERM stops it and ends with its code. Notifications and signs of life are printed as lines
of the log.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading

keys, command = sys.argv[1].split(","), sys.argv[2:]
listeners = []
for key in keys:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    listeners.append(listener)
    if key != "-":
        os.environ["PORTCULLIS_SERVER__" + key.upper()] = "127.0.0.1:%d" % listener.getsockname()[1]
folder = tempfile.TemporaryDirectory()
notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notifications.bind(os.path.join(folder.name, "notify"))
os.environ["NOTIFY_SOCKET"] = notifications.getsockname()
os.environ["WATCHDOG_USEC"] = "1000000"
os.environ["LISTEN_FDS"] = str(len(listeners))
libc = ctypes.CDLL(None, use_errno=True)


def prepare():
    libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    for number, listener in enumerate(listeners):
        # High numbers first, so that no socket is overwritten before it is copied.
        os.dup2(listener.fileno(), 100 + number)
    for number in range(len(listeners)):
        os.dup2(100 + number, 3 + number, inheritable=True)
        os.close(100 + number)
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.execvp(command[0], command)


def start():
    return subprocess.Popen(["true"], preexec_fn=prepare, close_fds=False)


def log(message, **fields):
    sys.stdout.write(json.dumps({"message": message, **fields}) + "\n")
    sys.stdout.flush()


def report():
    while True:
        log("notification", state=notifications.recv(4096).decode())


orders = []
for number in (signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, lambda order, _frame: orders.append(order))
threading.Thread(target=report, daemon=True).start()
child = start()
while True:
    try:
        # A signal interrupts the wait. Python repeats the wait unless it has a deadline.
        code = child.wait(timeout=0.02)
    except subprocess.TimeoutExpired:
        code = None
    if code is not None:
        folder.cleanup()
        sys.exit(code)
    if orders:
        order = orders.pop(0)
        child.terminate()
        code = child.wait()
        log("gateway ended", code=code)
        if order == signal.SIGTERM or code != 0:
            folder.cleanup()
            sys.exit(code)
        child = start()
