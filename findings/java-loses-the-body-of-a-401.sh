#!/usr/bin/env bash
# Java's HttpURLConnection has no body for a 401, once it streams the body of the request.
#
# Version: the system's JDK (seen with OpenJDK 17.0.15), java.net.HttpURLConnection.
#
# A client sends a POST with its own `Authorization: Bearer` and with `setFixedLengthStreamingMode` or
# `setChunkedStreamingMode`, the usual way to upload without a copy in memory. It has no Authenticator. The server reads the request,
# and answers with a challenge for bearer tokens and a document that states the reason.
#
# Expected: `getErrorStream` has the document, as for 403, and as without streaming. Seen: for 401 and 407 it returns null, and
# `getInputStream` throws HttpRetryException, "cannot retry due to server authentication, in streaming mode": the class thinks
# that it should log in itself. Status and header fields are there. Code that reads the reason from the body throws a
# NullPointerException where the token has expired, and works for each other refusal.
#
# Portcullis has the code of a refusal in `WWW-Authenticate`, too. docs/refusals.md says so.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >Seen.java <<'JAVA'
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.HttpURLConnection;
import java.net.InetSocketAddress;
import java.net.URI;

public class Seen {
    public static void main(String[] arguments) throws Exception {
        var server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        server.createContext("/", exchange -> {
            exchange.getRequestBody().readAllBytes();
            exchange.getResponseHeaders().add("WWW-Authenticate", "Bearer error=\"invalid_token\"");
            var body = "reason".getBytes();
            exchange.sendResponseHeaders(Integer.parseInt(exchange.getRequestURI().getPath().substring(1)), body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
        for (var status : new int[] {401, 403, 407}) {
            for (var mode : new String[] {"buffered", "fixed", "chunked"}) {
                var url = URI.create("http://127.0.0.1:" + server.getAddress().getPort() + "/" + status).toURL();
                var connection = (HttpURLConnection) url.openConnection();
                connection.setDoOutput(true);
                connection.setRequestProperty("Authorization", "Bearer token");
                if (mode.equals("fixed")) {
                    connection.setFixedLengthStreamingMode(6);
                } else if (mode.equals("chunked")) {
                    connection.setChunkedStreamingMode(0);
                }
                try (var body = connection.getOutputStream()) {
                    body.write("upload".getBytes());
                }
                var thrown = "nothing";
                try {
                    connection.getInputStream();
                } catch (IOException error) {
                    thrown = error.getClass().getSimpleName();
                }
                var body = connection.getErrorStream();
                System.out.printf("%s, %s: status %d, challenge %s, body %s, %s%n", status, mode, connection.getResponseCode(),
                    connection.getHeaderField("WWW-Authenticate") != null ? "there" : "lost",
                    body == null ? "lost" : new String(body.readAllBytes()), thrown);
            }
        }
        server.stop(0);
    }
}
JAVA
seen=$(java Seen.java)
echo "$seen"
whole() { echo "$1, $2: status $1, challenge there, body reason, IOException"; }
lost() { echo "$1, $2: status $1, challenge there, body lost, HttpRetryException"; }
[ "$seen" = "$(whole 401 buffered; lost 401 fixed; lost 401 chunked; whole 403 buffered; whole 403 fixed; whole 403 chunked
    whole 407 buffered; lost 407 fixed; lost 407 chunked)" ] || { echo "the behaviour has changed"; exit 1; }
