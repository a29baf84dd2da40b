#!/usr/bin/env bash
# curl returns a Secure cookie to http://localhost, and requests, httpx, aiohttp and wget silently do not.
#
# Versions: requests 2.34.2, httpx 0.28.1, aiohttp 3.14.5, tough-cookie 6.1.0 (npm); the system's curl and wget (seen with 7.88
# and 1.21).
#
# During development a server on http://localhost sets a session cookie with `Secure` and the prefix `__Host-`. Chromium and
# Firefox treat loopback addresses as secure, so a login in the browser works. The developer writes a test of the login with
# a client that has a cookie jar.
#
# Expected: the clients agree, and one that does not want the cookie says so. Seen: curl and tough-cookie return the cookie, to
# localhost and to 127.0.0.1. The Python clients and wget store it without a warning, and leave it out of the next request,
# which gets a 401 as if the login had failed. Other cookies of the same answer are returned.
#
# Portcullis sets such cookies over http on loopback. docs/browsers.md says which clients need TLS or the tokens in the answer.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check requests==2.34.2 httpx==0.28.1 aiohttp==3.14.5
npm install --silent --no-audit --no-fund --ignore-scripts tough-cookie@6.1.0
cat >seen.cjs <<'NODE'
const http = require("node:http");
const { CookieJar } = require("tough-cookie");
const [url] = process.argv.slice(2);
async function ask(jar) {
    const cookie = await jar.getCookieString(url);
    const answer = await new Promise((take) => http.get(url, { headers: cookie ? { cookie } : {} }, take));
    for (const line of answer.headers["set-cookie"]) await jar.setCookie(line, url);
    answer.resume();
}
const jar = new CookieJar(undefined, { prefixSecurity: "strict" });
ask(jar).then(() => ask(jar));
NODE
cat >seen.py <<'PYTHON'
import asyncio, http.server, pathlib, subprocess, threading
import aiohttp, httpx, requests

class Login(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append(self.headers.get("Cookie", ""))
        self.send_response(200)
        self.send_header("Set-Cookie", "__Host-session=1; Path=/; Secure; HttpOnly; SameSite=Strict")
        self.send_header("Set-Cookie", "theme=dark; Path=/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Login)
threading.Thread(target=server.serve_forever, daemon=True).start()
jar = pathlib.Path("jar")

def by_session(session):
    def ask(url):
        with session() as client:
            client.get(url), client.get(url)
    return ask

def by_aiohttp(url):
    async def ask():
        # By default, this jar stores no cookie of an address.
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
            for _ in range(2):
                async with client.get(url):
                    pass
    asyncio.run(ask())

def by_command(*command):
    def ask(url):
        jar.unlink(missing_ok=True)
        jar.touch()
        for _ in range(2):
            subprocess.run([*command, url], check=True)
    return ask

CLIENTS = {
    "curl": by_command("curl", "-sS", "-b", "jar", "-c", "jar"),
    "tough-cookie": lambda url: subprocess.run(["node", "seen.cjs", url], check=True),
    "requests": by_session(requests.Session),
    "httpx": by_session(httpx.Client),
    "aiohttp": by_aiohttp,
    "wget": by_command("wget", "-q", "-O", "/dev/null", "--keep-session-cookies", "--load-cookies", "jar", "--save-cookies", "jar"),
}
seen = {}
for name, ask in CLIENTS.items():
    for host in ("localhost", "127.0.0.1"):
        server.seen = []
        ask(f"http://{host}:{server.server_port}/")
        assert server.seen[0] == "" and "theme=dark" in server.seen[1], server.seen
        seen.setdefault(name, []).append("__Host-session=1" in server.seen[1])
    print(f"{name}: " + ", ".join("returned" if returned else "left out" for returned in seen[name]))
expected = {name: [name in ("curl", "tough-cookie")] * 2 for name in CLIENTS}
assert seen == expected, "the behaviour has changed"
PYTHON
venv/bin/python seen.py
