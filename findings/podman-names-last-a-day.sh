#!/usr/bin/env bash
# Podman's nameserver gives the addresses of containers a TTL of a day.
#
# Version: aardvark-dns 1.4.0 (Debian 12), the nameserver of Podman's networks.
#
# Containers find each other by name. A container that is replaced, as for each new version of a service, gets another address
# from the network. RFC 1035 section 3.2.1: TTL is the time for which the source of the record need not be asked again.
#
# Expected: a TTL of seconds, as cluster DNS has it. Seen: 86400. A client that keeps addresses for the whole TTL, as a proxy or a
# caching resolver should, sends requests to an address without a container, or with another one, until tomorrow.
#
# Portcullis resolves a name at least each minute, and every five seconds while one of its servers is down.
set -euo pipefail
folder=$(mktemp -d); trap 'kill "$(cat "$folder/networks/aardvark.pid")" || true; rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq aardvark-dns=1.4.0-3 2>/dev/null
dpkg -x aardvark-dns_*.deb root
mkdir networks
printf '127.0.0.1\n0123456789ab 10.88.0.5  orders\n' >networks/podman
port=$(python3 -c 'import socket; server = socket.create_server(("127.0.0.1", 0)); print(server.getsockname()[1])')
root/usr/lib/podman/aardvark-dns --config "$folder/networks" --port "$port" run >log 2>&1 &
python3 - "$port" <<'PYTHON'
import socket, struct, sys, time

question = struct.pack(">6H", 1, 0x0100, 1, 0, 0, 0) + b"\6orders\3dns\6podman\0" + struct.pack(">2H", 1, 1)
deadline = time.monotonic() + 20
while True:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        try:
            client.connect(("127.0.0.1", int(sys.argv[1])))
            client.send(question)
            answer = client.recv(512)
            break
        except OSError:
            assert time.monotonic() < deadline, "no answer"
            time.sleep(0.1)
record = answer[len(question):]
_, kind, _, ttl, length = struct.unpack(">3HIH", record[:12])
print(f"orders.dns.podman: {socket.inet_ntoa(record[12:16])}, TTL {ttl} s")
assert (kind, length, socket.inet_ntoa(record[12:16])) == (1, 4, "10.88.0.5")
assert ttl == 86400, "the behaviour has changed"
PYTHON
