//! Upstreams that fail, send invalid answers, stall or close, and clients that do the same.

use crate::kit::upstream::{After, ClosedPort, Gate};
use crate::kit::{Answer, Connection, ISSUER, Portcullis, Request, Upstream, eventually, tls};
use crate::{PUBLIC, gateway};

/// Starts a gateway with several servers.
#[track_caller]
fn before(servers: &[String], more: &str) -> Portcullis {
    let servers = servers.iter().map(|server| format!("\"{server}\"")).collect::<Vec<_>>().join(", ");
    Portcullis::with(&format!("{ISSUER}\n[upstream.app]\nservers = [{servers}]\n{more}\n{PUBLIC}")).start()
}

#[test]
fn connections_to_an_upstream_are_kept_and_used_again() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, PUBLIC);
    let mut connection = Connection::open(gateway.http());
    for _ in 0..20 {
        Request::get("/").over(&mut connection).is(200);
    }
    assert_eq!(upstream.connections(), 1, "one client, one core, one connection");
    for _ in 0..20 {
        Request::get("/").to(gateway.http()).is(200);
    }
    assert_eq!(upstream.connections(), 1, "another client's requests find it idle");
    assert_eq!(upstream.requests().len(), 40);
}

#[test]
fn a_connection_that_the_upstream_closed_meanwhile_is_noticed() {
    let upstream = Upstream::with(|_, wire| {
        wire.read_body();
        wire.answer("200 OK", "", "once");
        After::Close
    });
    let gateway = gateway(&upstream, PUBLIC);
    for _ in 0..20 {
        Request::get("/").to(gateway.http()).is(200);
    }
    assert_eq!(upstream.requests().len(), 20, "each reached it once");
}

#[test]
fn an_unsafe_request_is_not_repeated() {
    let upstream = Upstream::with(|seen, wire| {
        wire.read_body();
        if seen.method == "POST" {
            return After::Close;
        }
        wire.answer("200 OK", "", "fine");
        After::Keep
    });
    let gateway = gateway(&upstream, PUBLIC);
    Request::get("/").to(gateway.http()).is(200);
    Request::post("/", "pay").to(gateway.http()).is_refusal(502, "upstream_failed");
    let posts = upstream.requests().iter().filter(|seen| seen.method == "POST").count();
    assert_eq!(posts, 1);
}

#[test]
fn bytes_after_an_answer_are_never_taken_for_another() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\npoisoned",
    );
    let gateway = gateway(&upstream, PUBLIC);
    for _ in 0..10 {
        let answer = Request::get("/").to(gateway.http());
        assert!(answer.status == 200 || answer.status == 502, "{answer:#?}");
        assert!(!answer.text().contains("poisoned"), "{answer:#?}");
    }
}

#[test]
fn an_upstream_that_is_down_is_unavailable_and_comes_back() {
    let port = ClosedPort::new();
    let gateway = before(&[port.to_string()], "");
    let answer = Request::get("/").to(gateway.http());
    answer.is_refusal(503, "upstream_unavailable");
    answer.header("retry-after").unwrap().parse::<u32>().expect("whole seconds");
    let line = gateway.access_line(&answer);
    assert!(line["detail"].as_str().is_some_and(|detail| detail.contains("connect")), "{line}");
    assert!(!answer.text().contains("127.0.0.1"), "where it is concerns operators alone");
    let upstream = port.listen();
    // The server had failed, but it is the only server, so it gets the request.
    Request::get("/").to(gateway.http()).is(200);
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn a_server_that_fails_is_set_aside_and_the_other_serves() {
    let (good, port) = (Upstream::start(), ClosedPort::new());
    let gateway = before(&[port.to_string(), good.to_string()], "");
    for _ in 0..10 {
        Request::get("/").to(gateway.http()).is(200);
    }
    assert_eq!(good.requests().len(), 10);
}

#[test]
fn servers_take_turns_and_one_that_goes_down_is_left_out() {
    let (one, other) = (Upstream::start(), Upstream::start());
    let gateway = before(&[one.to_string(), other.to_string()], "");
    for _ in 0..20 {
        Request::get("/").to(gateway.http()).is(200);
    }
    assert_eq!((one.requests().len(), other.requests().len()), (10, 10));
    one.stop();
    for _ in 0..10 {
        Request::get("/").to(gateway.http()).is(200);
    }
    assert_eq!(other.requests().len(), 20);
}

#[test]
fn an_upstream_over_tls_is_believed_when_the_policys_authority_vouches_for_it() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = |name: &str| {
        let parameters = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        parameters.self_signed(&key).unwrap()
    };
    let stranger = rcgen::CertificateParams::new(["localhost".to_owned()])
        .unwrap()
        .self_signed(&rcgen::KeyPair::generate().unwrap())
        .unwrap();
    for (name, shown, trusted, believed) in [
        ("its own", certificate("localhost"), None, true),
        ("for another name", certificate("elsewhere.test"), None, false),
        ("of another authority", certificate("localhost"), Some(stranger.pem()), false),
    ] {
        let trusted = trusted.unwrap_or_else(|| shown.pem());
        let server = tls::Server::start(shown.der(), &key);
        let gateway = Portcullis::with(&format!(
            "{ISSUER}\n[upstream.app]\nservers = [\"https://localhost:{}\"]\nca = \"ca.pem\"\n{PUBLIC}",
            server.port()
        ))
        .file("ca.pem", trusted)
        .start();
        let answer = Request::get("/").to(gateway.http());
        if believed {
            assert_eq!(answer.is(200).text(), "encrypted", "{name}");
        } else {
            answer.is_refusal(503, "upstream_unavailable");
            assert_eq!(server.requests(), 0, "{name}: nothing is said to a server that is not believed");
        }
    }
}

#[test]
fn an_answer_that_is_not_http_is_a_bad_gateway() {
    for garbage in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 999999 OK\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad name: x\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1x\r\n\r\na",
        "\x16\x03\x01\x02\x00\x01\x00",
    ] {
        let upstream = Upstream::with(move |_, wire| {
            wire.read_body();
            wire.send(garbage);
            After::Close
        });
        let gateway = gateway(&upstream, PUBLIC);
        let answer = Request::get("/").to(gateway.http());
        assert_eq!((answer.status, &*answer.code()), (502, "upstream_failed"), "{garbage:?}: {answer:#?}");
        assert!(!answer.text().contains("nonsense"));
    }
}

#[test]
fn an_answer_whose_head_never_ends_is_a_bad_gateway() {
    let upstream = Upstream::with(|_, wire| {
        wire.read_body();
        wire.send("HTTP/1.1 200 OK\r\n");
        for n in 0..20_000 {
            wire.send(format!("x-{n}: {}\r\n", "y".repeat(50)));
        }
        wire.send("\r\n");
        After::Close
    });
    let gateway = gateway(&upstream, PUBLIC);
    Request::get("/").to(gateway.http()).is_refusal(502, "upstream_failed");
}

#[test]
fn an_upstream_that_closes_without_a_word_has_failed() {
    for reset in [false, true] {
        let upstream = Upstream::with(move |_, wire| {
            wire.read_body();
            if reset {
                wire.reset();
            }
            After::Close
        });
        let gateway = gateway(&upstream, PUBLIC);
        Request::get("/").to(gateway.http()).is_refusal(502, "upstream_failed");
        Request::get("/").to(gateway.http()).is_refusal(502, "upstream_failed");
    }
}

#[test]
fn an_upstream_that_does_not_answer_in_time_has_timed_out() {
    let gate = Gate::new();
    let closed = gate.clone();
    let upstream = Upstream::with(move |_, wire| {
        wire.read_body();
        closed.wait();
        After::Close
    });
    let gateway = Portcullis::with(&format!(
        "{ISSUER}\n[upstream.app]\nservers = [\"{upstream}\"]\ntimeout = \"30s\"\n\
         [[route]]\npath = \"/\"\nupstream = \"app\"\naccess = \"public\"\ntimeout = \"300ms\"\n"
    ))
    .start();
    Request::get("/").to(gateway.http()).is_refusal(504, "upstream_timeout");
    gate.open();
}

#[test]
fn a_switch_of_protocols_that_nobody_asked_for_is_a_bad_gateway() {
    let upstream = Upstream::answering(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nraw bytes",
    );
    let gateway = gateway(&upstream, PUBLIC);
    for request in [
        Request::get("/"),
        Request::get("/").header("Connection", "Upgrade, HTTP2-Settings").header("Upgrade", "h2c"),
    ] {
        let mut connection = Connection::open(gateway.http());
        let answer = request.over(&mut connection);
        answer.is_refusal(502, "upstream_failed");
        assert!(!answer.text().contains("raw bytes"));
    }
    assert!(upstream.requests().iter().all(|seen| seen.header("upgrade").is_none()));
}

#[test]
fn interim_answers_do_not_confuse_what_comes_after() {
    let upstream = Upstream::answering(
        "HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
         HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfinal",
    );
    let gateway = gateway(&upstream, PUBLIC);
    let mut connection = Connection::open(gateway.http());
    for _ in 0..3 {
        assert_eq!(Request::get("/").over(&mut connection).is(200).text(), "final");
    }
}

#[test]
fn an_answer_that_is_cut_looks_cut() {
    for (framing, sent) in [
        ("content-length: 10\r\n\r\n", "half "),
        ("transfer-encoding: chunked\r\n\r\n", "5\r\nhalf \r\n"),
        ("transfer-encoding: chunked\r\n\r\n", "a\r\nhalf "),
        ("transfer-encoding: chunked\r\n\r\n", "5\r\nhalf \r\nzz\r\n"),
    ] {
        let upstream = Upstream::with(move |_, wire| {
            wire.read_body();
            wire.send(format!("HTTP/1.1 200 OK\r\n{framing}{sent}"));
            After::Close
        });
        let gateway = gateway(&upstream, PUBLIC);
        let mut connection = Connection::open(gateway.http());
        connection.send(Request::get("/").bytes());
        let answer: Option<Answer> = connection.try_answer("GET");
        assert!(answer.is_none_or(|answer| !answer.complete), "{framing:?} {sent:?}");
        connection.is_closed();
    }
}

#[test]
fn an_answer_that_ends_with_its_connection_passes_whole() {
    let upstream = Upstream::with(|_, wire| {
        wire.read_body();
        wire.send("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end");
        After::Close
    });
    let gateway = gateway(&upstream, PUBLIC);
    for _ in 0..2 {
        let answer = Request::get("/").to(gateway.http());
        assert_eq!(answer.is(200).text(), "until the end");
    }
}

#[test]
fn an_answer_that_stops_coming_is_cut_in_time() {
    let gate = Gate::new();
    let closed = gate.clone();
    let upstream = Upstream::with(move |_, wire| {
        wire.read_body();
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf ");
        closed.wait();
        After::Close
    });
    let gateway = before(&[upstream.to_string()], "timeout = \"500ms\"");
    let answer = Request::get("/").to(gateway.http());
    assert_eq!((answer.status, answer.complete), (200, false), "{answer:#?}");
    gate.open();
}

#[test]
fn a_client_that_leaves_takes_its_request_back() {
    let upstream = Upstream::with(|_, wire| {
        wire.read_body();
        wire.peer_left();
        After::Close
    });
    let gateway = gateway(&upstream, PUBLIC);
    let mut connection = Connection::open(gateway.http());
    connection.send(Request::get("/").bytes());
    upstream.wait_for_requests(1);
    drop(connection);
    upstream.wait_for_departure();
    let line = gateway.wait_log("the request of a client that left", |line| line["status"] == 499);
    assert_eq!(line["route"], "public", "{line}");
}

#[test]
fn a_client_that_leaves_in_the_middle_of_an_answer_ends_it() {
    let upstream = Upstream::with(|_, wire| {
        wire.read_body();
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbeginning");
        wire.peer_left();
        After::Close
    });
    let gateway = gateway(&upstream, PUBLIC);
    let mut connection = Connection::open(gateway.http());
    connection.send(Request::get("/").bytes());
    assert!(connection.read_head().is_some());
    drop(connection);
    upstream.wait_for_departure();
}

#[test]
fn pieces_of_an_answer_pass_as_they_come() {
    let gate = Gate::new();
    let closed = gate.clone();
    let upstream = Upstream::with(move |_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        wire.send("7\r\ndata: 1\r\n");
        closed.wait();
        wire.send("7\r\ndata: 2\r\n0\r\n\r\n");
        After::Keep
    });
    let gateway = gateway(&upstream, PUBLIC);
    let mut connection = Connection::open(gateway.http());
    connection.send(Request::get("/events").bytes());
    assert!(connection.read_head().is_some());
    assert!(connection.skip(7) >= 7, "the first piece comes before the second is made");
    gate.open();
    eventually("the second piece comes", || connection.skip(7) > 0);
}

#[test]
fn an_answer_before_the_whole_request_was_read_reaches_the_client() {
    let upstream = Upstream::with(|_, wire| {
        wire.answer("403 Forbidden", "connection: close\r\n", "no need for the rest");
        After::Close
    });
    let gateway = gateway(&upstream, PUBLIC);
    let mut connection = Connection::open(gateway.http());
    connection.send("POST / HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 1000\r\n\r\nbeginning");
    let answer = connection.answer();
    assert_eq!((answer.status, &*answer.text()), (403, "no need for the rest"), "{answer:#?}");
    // The rest of the body is not read as the next request.
    let _ = connection.try_send(Request::get("/smuggled").bytes());
    drop(connection);
    Request::get("/").to(gateway.http());
    assert!(upstream.requests().iter().all(|seen| seen.target == "/"));
}
