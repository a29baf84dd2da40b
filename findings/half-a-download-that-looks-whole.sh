#!/usr/bin/env bash
# Ruby, PHP, Java and Python take a part of a download for the whole one, unless its connection ends with a reset.
#
# Versions: Ruby 3.1.2 and PHP 8.2.36 (Debian 12), the system's JDK and Python (seen with OpenJDK 17.0.15 and 3.11.7, OpenSSL
# 3.0); for comparison the system's curl (seen with 7.88).
#
# A server or proxy announces `Content-Length: 20`, sends half of it, and closes the connection, since the service behind it
# crashed or was restarted. RFC 9112 section 8: the client MUST record the message as incomplete.
#
# Expected: an exception. Seen: Net::HTTP and open-uri of Ruby, `file_get_contents` of PHP, HttpURLConnection of Java, and
# `shutil.copyfileobj` from an answer of Python's urllib (the way of its documentation to save a file) return ten bytes and no
# error. If the server resets the connection, Ruby, Java and Python raise; PHP does not. In chunked coding, all but PHP raise in
# both cases. curl and `read()` of urllib always report the error. Over TLS, Python's ssl module returns a reset as the end of the
# stream, so `copyfileobj` has no error then.
#
# Portcullis resets the connection of an answer with a length that breaks off. docs/answers.md says what PHP and Python have to
# use.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq ruby3.1=3.1.7+really3.1.2-0+deb12u1 libruby3.1=3.1.7+really3.1.2-0+deb12u1 libyaml-0-2 \
    php8.2-cli=8.2.36-1~deb12u1 libargon2-1 libsodium23 libxml2 libicu72 2>/dev/null
for package in *.deb; do dpkg -x "$package" root; done
cat >Seen.java <<'JAVA'
import java.io.IOException;
import java.net.URI;

class Seen {
    public static void main(String[] arguments) throws IOException {
        System.out.print(new String(URI.create(arguments[0]).toURL().openConnection().getInputStream().readAllBytes()));
    }
}
JAVA
openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=seen.test -keyout key.pem -out cert.pem 2>/dev/null
cat >seen.py <<'PYTHON'
import os, pathlib, socket, ssl, struct, subprocess, sys, threading, time

HEADS = {"length": b"Content-Length: 20\r\n\r\n0123456789", "chunked": b"Transfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n"}

def serve(head, is_reset, scheme="http"):
    server = socket.create_server(("127.0.0.1", 0))

    def answer():
        while True:
            client, _ = server.accept()
            if scheme == "https":
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain("cert.pem", "key.pem")
                client = context.wrap_socket(client, server_side=True)
            request = b""
            while b"\r\n\r\n" not in request:
                request += client.recv(65536)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n" + head)
            time.sleep(0.2)
            if is_reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()

    threading.Thread(target=answer, daemon=True).start()
    return f"{scheme}://127.0.0.1:{server.getsockname()[1]}/"

root = pathlib.Path("root/usr").resolve()
(machine,) = (path for path in (root / "lib").iterdir() if path.name.endswith("-linux-gnu"))
here = dict(os.environ, LD_LIBRARY_PATH=str(machine), RUBYLIB=f"{root}/lib/ruby/3.1.0:{machine}/ruby/3.1.0")
ruby = [root / "bin/ruby3.1", "--disable-gems"]
urllib = ("import shutil, ssl, sys, urllib.request; "
          "answer = urllib.request.urlopen(sys.argv[1], context=ssl._create_unverified_context()); ")
CLIENTS = {
    "Net::HTTP": [*ruby, "-rnet/http", "-e", "print Net::HTTP.get(URI(ARGV[0]))"],
    "open-uri": [*ruby, "-ropen-uri", "-e", "print URI.open(ARGV[0]).read"],
    "file_get_contents": [root / "bin/php8.2", "-n", "-r", "$body = file_get_contents($argv[1]); print $body; exit($body === false ? 1 : 0);"],
    "HttpURLConnection": ["java", "Seen.java"],
    "copyfileobj": [sys.executable, "-c", urllib + "shutil.copyfileobj(answer, sys.stdout.buffer)"],
    "urllib read()": [sys.executable, "-c", urllib + "sys.stdout.buffer.write(answer.read())"],
    "curl": ["curl", "--silent"],
}
seen = {}
servers = {(framing, is_reset): serve(head, is_reset) for framing, head in HEADS.items() for is_reset in (False, True)}
for name, command in CLIENTS.items():
    verdicts = []
    for url in servers.values():
        done = subprocess.run([*command, url], env=here, capture_output=True, text=True, timeout=60)
        verdicts.append("error" if done.returncode else done.stdout)
    seen[name] = verdicts
    print(f"{name}: with a length {verdicts[0]}, with a reset {verdicts[1]}; in chunks {verdicts[2]}, with a reset {verdicts[3]}")
half = "0123456789"
secret = subprocess.run([*CLIENTS["copyfileobj"], serve(HEADS["length"], True, "https")], capture_output=True, text=True, timeout=60)
print(f"copyfileobj over TLS: with a length and a reset {'error' if secret.returncode else secret.stdout}")
assert (secret.returncode, secret.stdout) == (0, half), "the behaviour has changed"
assert all(seen[name] == [half, "error", "error", "error"] for name in ("Net::HTTP", "open-uri", "HttpURLConnection", "copyfileobj"))
assert seen["file_get_contents"] == [half] * 4, "the behaviour has changed"
assert all(seen[name] == ["error"] * 4 for name in ("urllib read()", "curl")), "the behaviour has changed"
PYTHON
python3 seen.py
