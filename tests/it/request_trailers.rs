//! Trailers of requests: those that a route lists, and no other.

use crate::http2_upstreams::{call, echo_plain, map, serve};
use crate::kit::account::AUTHORITY;
use crate::kit::client::{self, Connection};
use crate::kit::dir::Dir;
use crate::kit::portcullis::command;
use crate::kit::{ISSUER, Portcullis, Upstream, values};
use http::HeaderMap;

/// A route for each version of HTTP of the upstream, and one without a list.
fn gateway(one: &impl std::fmt::Display, two: &impl std::fmt::Display) -> Portcullis {
    let list = "request_trailers = [\"X-Checksum\", \"x-sum\"]";
    let route = |path: &str, upstream: &str, more: &str| {
        format!("[[route]]\npath = \"{path}\"\nupstream = \"{upstream}\"\naccess = \"public\"\n{more}\n")
    };
    let [plain, both] = ["", list].map(str::to_owned);
    Portcullis::with(&format!(
        "{ISSUER}\n[upstream.one]\nservers = [\"{one}\"]\n[upstream.two]\nservers = [\"{two}\"]\n\
         protocol = \"http2\"\n{}{}{}{}",
        route("/one", "one", &both),
        route("/two", "two", &both),
        route("/none/one", "one", &plain),
        route("/pkg.Service/{method}", "one", &both),
    ))
    .start()
}

const SENT: &str = "X-Checksum: abc\r\nX-Sum: 1\r\nx-sum: 2\r\nX-Other: f0rged\r\nX-Auth-Subject: f0rged\r\n\
                    x_sum: f0rged\r\nContent-Length: 7\r\nAuthorization: f0rged\r\nHost: f0rged\r\n";

fn chunked(path: &str, more: &str, trailers: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: gateway.test\r\nTransfer-Encoding: chunked\r\n{more}\r\n\
         2\r\nhi\r\n0\r\n{trailers}\r\n"
    )
}

#[test]
fn listed_trailers_reach_an_upstream_of_either_version_and_no_other_does() {
    let one = Upstream::start();
    let two = serve(|_, call| echo_plain(call));
    let gateway = gateway(&one, &two);
    for more in ["", "Trailer: X-Checksum, X-Other\r\n"] {
        client::send(gateway.http(), chunked("/one", more, SENT)).is(200);
        let seen = one.last_request();
        assert!(seen.complete && seen.body == b"hi" && !seen.mentions("f0rged"), "{seen:#?}");
        assert_eq!(values(&seen.trailers, "x-checksum"), ["abc"]);
        assert_eq!(values(&seen.trailers, "x-sum"), ["1", "2"]);
        assert_eq!(seen.trailers.len(), 3, "{seen:#?}");
        // RFC 9110 section 6.6.2. A trailer never becomes a field of the head.
        assert_eq!(seen.header("trailer"), Some("x-checksum, x-sum"));
        assert_eq!((seen.header("x-sum"), seen.header("transfer-encoding")), (None, Some("chunked")));

        let answer = client::send(gateway.http(), chunked("/two", &format!("TE: trailers\r\n{more}"), SENT));
        answer.is(200);
        let seen = two.seen().pop().unwrap();
        assert_eq!(seen.headers["trailer"], "x-checksum, x-sum");
        assert!(!seen.headers.contains_key("x-sum"));
    }
    // The kept connection serves the next request.
    assert_eq!(one.connections(), 1);
}

#[test]
fn trailers_of_http2_clients_follow_the_same_list() {
    let one = Upstream::start();
    let gateway = gateway(&one, &one);
    let sent = map(&[("x-checksum", "abc"), ("x-other", "f0rged"), ("x-auth-subject", "f0rged")]);
    // Without a length, with one, and with one beside the announcement of a listed trailer.
    for (fields, framing, trailers) in [
        (&[][..], "chunked", 1),
        (&[("content-length", "2")][..], "", 0),
        (&[("content-length", "2"), ("trailer", "x-other")][..], "", 0),
        (&[("content-length", "2"), ("trailer", "x-other"), ("trailer", "X-Checksum")][..], "chunked", 1),
    ] {
        let answer = call(gateway.http(), fields, b"hi", sent.clone());
        assert_eq!(answer.head.status, 200, "{fields:?}");
        let seen = one.last_request();
        assert!(seen.complete && seen.body == b"hi" && !seen.mentions("f0rged"), "{seen:#?}");
        assert_eq!(seen.header("transfer-encoding").unwrap_or_default(), framing, "{fields:?}");
        assert_eq!(seen.trailers.len(), trailers, "{fields:?}: {seen:#?}");
        assert_eq!(seen.header("trailer").is_some(), trailers > 0, "{fields:?}");
    }
    // A length that is not that of the data stays a fault, although the upstream does not get it.
    let fields = [("content-length", "3"), ("trailer", "x-checksum")];
    let before = one.requests().len();
    let sent = std::panic::catch_unwind(|| call(gateway.http(), &fields, b"hi", HeaderMap::new()));
    assert!(sent.is_err() || sent.is_ok_and(|answer| answer.head.status != 200 || answer.reset.is_some()));
    // The fault may come before the gateway has sent the head. The upstream then sees no request.
    let seen = &one.requests()[before..];
    assert!(seen.iter().all(|seen| !seen.complete || seen.header("content-length").is_some()), "{seen:#?}");
}

#[test]
fn a_request_has_trailers_only_beside_a_body_and_only_on_its_route() {
    let one = Upstream::start();
    let gateway = gateway(&one, &one);
    for request in [
        // The gateway forwards this method without a body of unknown length.
        chunked("/one", "", SENT).replace("POST", "GET"),
        "POST /one HTTP/1.1\r\nHost: gateway.test\r\nTrailer: X-Sum\r\nContent-Length: 2\r\n\r\nhi"
            .to_owned(),
        "GET /one HTTP/1.1\r\nHost: gateway.test\r\nTrailer: X-Sum\r\n\r\n".to_owned(),
        chunked("/none/one", "Trailer: X-Sum\r\n", SENT),
    ] {
        client::send(gateway.http(), request.clone()).is(200);
        let seen = one.last_request();
        assert!(seen.complete && seen.trailers.is_empty(), "{request}: {seen:#?}");
        assert_eq!(seen.header("trailer"), None, "{request}");
    }
    // RFC 9110 section 7.6.1: `Connection` also names trailers that are not forwarded.
    client::send(gateway.http(), chunked("/one", "Connection: x-SUM\r\n", SENT)).is(200);
    let seen = one.last_request();
    assert_eq!(seen.trailers, [("x-checksum".to_owned(), "abc".to_owned())]);
    assert_eq!(seen.header("trailer"), Some("x-checksum"));
}

#[test]
fn trailers_are_bounded_in_number_and_size() {
    let one = Upstream::start();
    let two = serve(|_, call| echo_plain(call));
    let gateway = gateway(&one, &two);
    let many = |count: usize| "X-Sum: 1\r\n".repeat(count);
    let long = |length: usize| format!("X-Sum: {}\r\n", "x".repeat(length));
    for path in ["/one", "/two"] {
        for (trailers, status) in [(many(16), 200), (many(17), 431), (long(8000), 200), (long(8192), 431)] {
            let mut connection = Connection::open(gateway.http());
            connection.send(chunked(path, "", &trailers));
            let answer = connection.answer();
            assert_eq!(answer.status, status, "{path}, {} bytes: {answer:#?}", trailers.len());
            if status == 431 {
                answer.is_refusal(431, "headers_too_large");
                assert!(gateway.access_line(&answer)["detail"].as_str().unwrap().contains("trailers"));
            }
        }
    }
    // The upstream must not take a request without its trailers for a whole one.
    let seen = one.requests();
    assert_eq!(seen.iter().map(|seen| seen.complete).collect::<Vec<_>>(), [true, false, true, false]);
}

#[test]
fn names_that_affect_more_than_the_service_are_faults() {
    let dir = Dir::new();
    let policy = |names: &str| {
        format!(
            "[upstream.app]\nbuiltin = \"echo\"\n{AUTHORITY}cookies = true\n[[route]]\npath = \"/\"\n\
             upstream = \"app\"\n\
             request_trailers = [{names}]\nsources = [\"header\", {{ header = \"X-Token\" }}]\n\
             set_request_headers = {{ \"X-Env\" = \"prod\" }}\nremove_request_headers = [\"X-Debug\"]\n"
        )
    };
    dir.replace("gateway.toml", policy("\"X-Checksum\", \"Content-MD5\""));
    let checked = command(&dir, &["check"]);
    assert!(!checked.text().contains("request_trailers"), "{}", checked.text());
    for name in [
        // Identity, credentials, and what the route changes.
        "X-Auth-Subject",
        "x_auth.anything",
        "Authorization",
        "Cookie",
        "DPoP",
        "X-Token",
        "x_token",
        "X-CSRF-Token",
        "X-Env",
        "X-Debug",
        // Framing and connection.
        "Content-Length",
        "content_length",
        "Transfer-Encoding",
        "TE",
        "Trailer",
        "Connection",
        "Upgrade",
        "Keep-Alive",
        // Routing and facts about the request.
        "Host",
        "Forwarded",
        "X-Forwarded-For",
        "X-Request-Id",
        "traceparent",
        "Max-Forwards",
        "Origin",
        "Sec-Fetch-Site",
        // Controls, conditions, caching, and the meaning of the content.
        "Expect",
        "Range",
        "If-Match",
        "If-None-Match",
        "Cache-Control",
        "Pragma",
        "Vary",
        "Content-Type",
        "Content-Encoding",
        "Content-Range",
        "Accept",
        "Accept-Encoding",
        "Set-Cookie",
        "a b",
        "",
    ] {
        dir.replace("gateway.toml", policy(&format!("\"X-Sum\", \"{name}\"")));
        let checked = command(&dir, &["check"]);
        let text = checked.text();
        let is_named = text.contains("bad_header") && text.contains("route[0].request_trailers[1]");
        assert!(checked.code == Some(1) && is_named && text.contains("gateway.toml:11"), "{name}: {text}");
    }
    for (names, id) in [
        ("\"X-Sum\", \"x_sum\"".to_owned(), "same_header"),
        ((0..17).map(|number| format!("\"x-{number}\"")).collect::<Vec<_>>().join(", "), "too_many"),
    ] {
        dir.replace("gateway.toml", policy(&names));
        let checked = command(&dir, &["check"]);
        assert!(checked.code == Some(1) && checked.text().contains(id), "{names}: {}", checked.text());
    }
}
