#!/usr/bin/env bash
# A Java client returns a cookie with Max-Age in quotation marks, and with fields that no server reads.
#
# Version: the system's JDK (seen with OpenJDK 17.0.15), java.net.http.HttpClient with a java.net.CookieManager.
#
# A server sets a cookie with `Max-Age`, which RFC 6265 section 5.3 prefers to `Expires`, and which all browsers know. The client
# returns it.
#
# Expected: `Cookie: sid=a.b-c`. Seen: HttpCookie guesses the version of a cookie from its attributes. One with `Max-Age` and
# without `Expires` has version 1 (RFC 2965, which RFC 6265 replaced in 2011), and the client sends `$Version="1";
# sid="a.b-c";$Path="/";$Domain="127.0.0.1"`. The marks have no meaning in RFC 6265, so a server that takes the value for a
# token refuses it. With both attributes, or with neither, the client sends `sid=a.b-c`. A cookie that works with browsers
# and curl fails with Java alone, once somebody replaces `Expires` by `Max-Age`.
#
# Portcullis sets both attributes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >Seen.java <<'JAVA'
import com.sun.net.httpserver.HttpServer;
import java.net.CookieManager;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

public class Seen {
    public static void main(String[] arguments) throws Exception {
        var plain = List.of("sid=a.b-c");
        var expected = new LinkedHashMap<String, List<String>>(Map.of());
        expected.put("sid=a.b-c; Path=/", plain);
        expected.put("sid=a.b-c; Path=/; Expires=Fri, 31 Dec 2100 00:00:00 GMT", plain);
        expected.put("sid=a.b-c; Path=/; Max-Age=900; Expires=Fri, 31 Dec 2100 00:00:00 GMT", plain);
        expected.put("sid=a.b-c; Path=/; Max-Age=900; HttpOnly; SameSite=Strict",
            List.of("$Version=\"1\"; sid=\"a.b-c\";$Path=\"/\";$Domain=\"127.0.0.1\""));
        for (var cookie : expected.entrySet()) {
            var sent = sent(cookie.getKey());
            System.out.println("Set-Cookie: " + cookie.getKey() + "\n    Cookie: " + sent);
            if (!sent.equals(cookie.getValue())) {
                System.err.println("the behaviour has changed");
                System.exit(1);
            }
        }
    }

    /** Returns the fields `Cookie` of the request after the one whose answer sets the cookie. */
    static List<String> sent(String cookie) throws Exception {
        List<String>[] seen = new List[1];
        var server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        server.createContext("/", exchange -> {
            seen[0] = exchange.getRequestHeaders().get("Cookie");
            exchange.getResponseHeaders().add("Set-Cookie", cookie);
            exchange.sendResponseHeaders(204, -1);
            exchange.close();
        });
        server.start();
        var client = HttpClient.newBuilder().cookieHandler(new CookieManager()).build();
        var request = HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + server.getAddress().getPort() + "/"));
        client.send(request.build(), BodyHandlers.discarding());
        client.send(request.build(), BodyHandlers.discarding());
        server.stop(0);
        return seen[0];
    }
}
JAVA
java Seen.java 2>&1 | grep -v '^Note: '
