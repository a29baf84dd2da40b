"""A service, its callers, and the certificate between them."""

import http.client
import http.server
import pathlib
import re
import socket
import ssl
import subprocess
import threading

HOST = "gateway.example.com"


class Service(http.server.BaseHTTPRequestHandler):
    """A service: answers with the caller's identity, and to /orders/slow only when the test lets it."""

    go = threading.Event()
    asked = threading.Event()
    last = None
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self):
        type(self).last = self.headers
        if self.path == "/orders/slow":
            self.asked.set()
            self.go.wait(60)
        body = self.headers.get("X-Auth-Subject", "nobody").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

    @classmethod
    def start(cls):
        """Starts the service, and returns its port."""
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), cls)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_port


def certificate(folder):
    key, cert = pathlib.Path(folder, "tls.key"), pathlib.Path(folder, "tls.crt")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90"]
        + ["-subj", "/CN=gateway", "-addext", f"subjectAltName=DNS:{HOST}", "-keyout", key, "-out", cert],
        check=True,
        capture_output=True,
    )
    return {"tls.key": key.read_text(), "tls.crt": cert.read_text()}


class Client:
    """One TLS connection to the gateway, which trusts the gateway's certificate alone."""

    def __init__(self, port, trusted):
        context = ssl.create_default_context(cadata=trusted)
        plain = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.connection = http.client.HTTPConnection(HOST)
        self.connection.sock = context.wrap_socket(plain, server_hostname=HOST)

    def send(self, method, path, token=None, form=None, fields={}):
        headers = {**fields, "Authorization": f"Bearer {token}"} if token else dict(fields)
        if form:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        self.connection.request(method, path, body=form, headers=headers)

    def answer(self):
        answer = self.connection.getresponse()
        return answer.status, answer.read().decode(), answer.getheader("Connection")

    def ask(self, *arguments, **more):
        self.send(*arguments, **more)
        return self.answer()


def log_in(port, trusted):
    """Logs in as ada, and returns the access token."""
    status, body, _ = Client(port, trusted).ask(
        "POST", "/auth/login", form="username=ada&password=correct+horse+battery+staple&deliver=body"
    )
    assert status == 200, body
    return re.search(r'"access_token":"([^"]+)"', body)[1]
