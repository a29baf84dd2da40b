//! A hundred reloads under full load, over cleartext, TLS and HTTP/2. No request fails, and one policy both decides and
//! forwards each request.

use crate::kit::upstream::{After, Gate, Seen, Wire};
use crate::kit::{Answer, Connection, ISSUER, Portcullis, Request, Upstream, eventually, http2, token};
use crate::reload::reload;
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

const RELOADS: usize = 100;
/// The number of requests per connection. New connections make handshakes part of the load.
const A_CONNECTION: usize = 40;
/// The number of pieces of a streamed answer, and the size of each in bytes.
const PIECES: usize = 8;
const PIECE: usize = 16 * 1024;
/// The size of an upload, and of each half of a slow upload, in bytes.
const UPLOAD: usize = 48 * 1024;

/// The two policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Colour {
    Red,
    Blue,
}

use Colour::{Blue, Red};

impl Colour {
    /// Returns the policy of this colour. The two policies differ in their routes, route names and order, upstreams,
    /// stripped prefixes, and names of identity fields.
    fn policy(self, one: &Upstream, two: &Upstream) -> String {
        let bounds =
            "[server]\nhttps = \"127.0.0.1:0\"\nworkers = 2\n[server.bounds]\nbody_timeout = \"5m\"\n";
        let upstreams = format!(
            "[upstream.one]\nservers = [\"{one}\"]\ntimeout = \"5m\"\n\
             [upstream.two]\nservers = [\"{two}\"]\ntimeout = \"5m\"\n"
        );
        let routes = match self {
            Red => {
                r#"
                [identity]
                subject = "X-Red-Subject"
                [[route]]
                name = "red orders"
                path = "/orders/{*rest}"
                strip_prefix = "/orders"
                upstream = "one"
                roles = ["clerk"]
                [[route]]
                name = "red swap"
                path = "/swap/{*rest}"
                strip_prefix = "/swap"
                upstream = "two"
                access = "public"
                [[route]]
                name = "red alone"
                path = "/alone"
                upstream = "one"
                access = "public"
                "#
            }
            Blue => {
                r#"
                [identity]
                subject = "X-Blue-Subject"
                [[route]]
                name = "blue swap"
                path = "/swap/{*rest}"
                upstream = "one"
                access = "public"
                [[route]]
                name = "blue orders"
                path = "/orders/{*rest}"
                upstream = "two"
                roles = ["clerk"]
                "#
            }
        };
        format!("{bounds}{ISSUER}{upstreams}{routes}")
    }

    fn name(self) -> &'static str {
        match self {
            Red => "red",
            Blue => "blue",
        }
    }
}

/// Starts an upstream whose answer names the upstream and the received identity in its first line.
fn telling(name: &'static str, gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::with(move |seen, wire| {
        if !wire.read_body() {
            return After::Close;
        }
        let reported = reported(name, seen);
        if seen.target.ends_with("/held") {
            stream(wire, &reported, || gate.wait());
        } else if seen.target.ends_with("/stream") {
            stream(wire, &reported, || {});
        } else {
            wire.answer("200 OK", "", reported);
        }
        After::Keep
    })
}

fn reported(name: &str, seen: &Seen) -> String {
    let subject = |header| seen.header(header).unwrap_or("-");
    let length = seen.header("content-length").unwrap_or("-");
    let (red, blue) = (subject("x-red-subject"), subject("x-blue-subject"));
    format!("{name} {} red={red} blue={blue} body={length}\n", seen.target)
}

fn stream(wire: &mut Wire, reported: &str, pause: impl Fn()) {
    wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    wire.send(format!("{:x}\r\n{reported}\r\n", reported.len()));
    pause();
    for _ in 0..PIECES {
        wire.send(format!("{PIECE:x}\r\n{}\r\n", "s".repeat(PIECE)));
    }
    wire.send("0\r\n\r\n");
}

/// A kind of request, with its expected outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Ask {
    /// A route of both policies, with the role that both require.
    Clerk,
    /// The route of `Clerk` with another role, which both policies refuse.
    Guest,
    /// The route of `Clerk` without a token, which both policies refuse.
    Nobody,
    /// A public route of both policies.
    Swap,
    /// A route of only one policy.
    Alone,
    /// An answer in pieces.
    Stream,
    /// A request with a body.
    Upload,
}

const ASKS: [Ask; 7] = [Ask::Clerk, Ask::Guest, Ask::Nobody, Ask::Swap, Ask::Alone, Ask::Stream, Ask::Upload];

/// The callers' tokens. Each is verified once, and then found in the caches.
#[derive(Clone, Debug)]
struct Tokens {
    clerk: String,
    guest: String,
}

impl Ask {
    fn path(self) -> &'static str {
        match self {
            Self::Clerk | Self::Guest | Self::Nobody | Self::Upload => "/orders/7",
            Self::Swap => "/swap/x",
            Self::Alone => "/alone",
            Self::Stream => "/orders/stream",
        }
    }

    fn token(self, tokens: &Tokens) -> Option<&str> {
        match self {
            Self::Clerk | Self::Stream | Self::Upload => Some(&tokens.clerk),
            Self::Guest => Some(&tokens.guest),
            Self::Nobody | Self::Swap | Self::Alone => None,
        }
    }

    fn over(self, connection: &mut Connection, tokens: &Tokens) -> Answer {
        let mut request = match self {
            Self::Upload => Request::post(self.path(), vec![b'u'; UPLOAD]),
            _ => Request::get(self.path()),
        };
        if let Some(token) = self.token(tokens) {
            request = request.bearer(token);
        }
        request.over(connection)
    }

    fn http2(self, tokens: &Tokens) -> http::Request<Bytes> {
        let (method, body) = match self {
            Self::Upload => ("POST", Bytes::from(vec![b'u'; UPLOAD])),
            _ => ("GET", Bytes::new()),
        };
        let mut request = http2::request(method, self.path());
        if let Some(token) = self.token(tokens) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.body(body).unwrap()
    }

    /// Returns the policy that decided an answer, or `None` if both policies give the same answer.
    ///
    /// # Panics
    /// If neither policy gives this answer.
    #[track_caller]
    fn answered_by(self, answer: &Answer) -> Option<Colour> {
        assert!(answer.complete, "{self:?}: the answer came whole: {answer:#?}");
        match self {
            Self::Guest => {
                answer.is_refusal(403, "insufficient_role");
                return None;
            }
            Self::Nobody => {
                answer.is_refusal(401, "missing_token");
                return None;
            }
            Self::Alone if answer.status == 404 => {
                answer.is_refusal(404, "no_route");
                return Some(Blue);
            }
            Self::Clerk | Self::Swap | Self::Alone | Self::Stream | Self::Upload => answer.is(200),
        };
        let text = answer.text();
        let (line, rest) = text.split_once('\n').unwrap_or((&text, ""));
        let (body, more) = match self {
            Self::Upload => (UPLOAD.to_string(), 0),
            Self::Stream => ("-".to_owned(), PIECES * PIECE),
            _ => ("-".to_owned(), 0),
        };
        assert_eq!(rest.len(), more, "{self:?}: {line}");
        let path = self.path();
        let (red, blue) = match self {
            Self::Swap => {
                (format!("two /x red=- blue=- body={body}"), format!("one {path} red=- blue=- body={body}"))
            }
            Self::Alone => (format!("one {path} red=- blue=- body={body}"), String::new()),
            _ => {
                let stripped = path.trim_start_matches("/orders");
                (
                    format!("one {stripped} red=ada blue=- body={body}"),
                    format!("two {path} red=- blue=ada body={body}"),
                )
            }
        };
        match line {
            _ if line == red => Some(Red),
            _ if line == blue => Some(Blue),
            _ => panic!("{self:?} was answered by neither policy, or by both: {line}"),
        }
    }
}

/// The observations of all clients.
#[derive(Debug, Default)]
struct Tally {
    turns: AtomicUsize,
    enough: AtomicBool,
    /// The number of answers by kind of request and policy.
    answered: Mutex<HashMap<(Ask, Option<Colour>), usize>>,
    /// The policy that answered each request, by request id.
    by_id: Mutex<HashMap<String, Colour>>,
}

impl Tally {
    fn next(&self) -> Option<Ask> {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        (!self.enough.load(Ordering::Relaxed)).then(|| ASKS[turn % ASKS.len()])
    }

    #[track_caller]
    fn take(&self, ask: Ask, answer: &Answer) {
        let by = ask.answered_by(answer);
        *self.answered.lock().unwrap().entry((ask, by)).or_default() += 1;
        if let (Some(by), 200, Some(id)) = (by, answer.status, answer.header("x-request-id")) {
            self.by_id.lock().unwrap().insert(id.to_owned(), by);
        }
    }

    /// Runs one HTTP/1.1 client until `enough` is set.
    fn load(&self, connect: impl Fn() -> Connection, tokens: &Tokens) {
        loop {
            let mut connection = connect();
            for _ in 0..A_CONNECTION {
                let Some(ask) = self.next() else { return };
                self.take(ask, &ask.over(&mut connection, tokens));
            }
        }
    }

    /// Runs one HTTP/2 client with several parallel streams until `enough` is set.
    fn load_http2(self: &Arc<Self>, address: SocketAddr, tokens: &Tokens) {
        while !self.enough.load(Ordering::Relaxed) {
            let left = Arc::new(AtomicUsize::new(2 * A_CONNECTION));
            let (asking, taking, tokens) = (self.clone(), self.clone(), tokens.clone());
            let next = move || {
                left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).ok()?;
                asking.next().map(|ask| (ask, ask.http2(&tokens)))
            };
            http2::crowd(address, 4, next, move |ask, answer| taking.take(ask, &answer));
        }
    }
}

/// Requests that begin before the first reload and end after the last one.
struct Held {
    /// Streamed answers whose heads have been read.
    streams: Vec<Connection>,
    /// Uploads that are half sent.
    uploads: Vec<Connection>,
}

impl Held {
    fn begin(connect: &[&dyn Fn() -> Connection], clerk: &str) -> Self {
        let mut held = Self { streams: Vec::new(), uploads: Vec::new() };
        for connect in connect {
            let mut stream = connect();
            stream.send(Request::get("/orders/held").bearer(clerk).bytes());
            held.streams.push(stream);
            let mut upload = connect();
            let whole = Request::post("/orders/7", vec![b'u'; UPLOAD]).bearer(clerk).bytes();
            upload.send(&whole[..whole.len() - UPLOAD / 2]);
            held.uploads.push(upload);
        }
        held
    }

    fn end(self) {
        for mut upload in self.uploads {
            upload.send(vec![b'u'; UPLOAD / 2]);
            assert_eq!(
                Ask::Upload.answered_by(&upload.answer()),
                Some(Red),
                "under the policy it began under"
            );
        }
        for mut stream in self.streams {
            is_the_held_stream(&stream.answer());
        }
    }
}

#[track_caller]
fn is_the_held_stream(answer: &Answer) {
    let text = answer.is(200).text();
    assert!(text.starts_with("one /held red=ada blue=- body=-\n"), "{}", &text[..60]);
    assert_eq!(text.len(), text.find('\n').unwrap() + 1 + PIECES * PIECE);
}

#[test]
fn a_hundred_reloads_under_full_load_fail_and_misroute_no_request() {
    let gate = Gate::new();
    let (one, two) = (telling("one", &gate), telling("two", &gate));
    let gateway = Portcullis::with(&Red.policy(&one, &two)).start();
    let (http, https) = (gateway.http(), gateway.https());
    let (plain, encrypted) = (move || Connection::open(http), move || Connection::tls(https));
    let tokens =
        Tokens { clerk: token("ada").role("clerk").sign(), guest: token("ada").role("guest").sign() };
    let tally = Arc::new(Tally::default());

    let held = Held::begin(&[&plain, &encrypted], &tokens.clerk);
    let bearer = format!("Bearer {}", tokens.clerk);
    let (give, second) = oneshot::channel();
    let request =
        http2::request("POST", "/orders/7").header("authorization", &bearer).header("content-length", UPLOAD);
    let slow = std::thread::spawn(move || {
        http2::upload(https, request, Bytes::from(vec![b'u'; UPLOAD / 2]), second)
    });
    let request = http2::request("GET", "/orders/held").header("authorization", &bearer);
    let (no_more, none) = oneshot::channel();
    let long = std::thread::spawn(move || http2::upload(https, request, Bytes::new(), none));
    no_more.send(Bytes::new()).unwrap();
    // All six requests are in progress under the first policy before the first reload.
    one.wait_for_requests(6);

    std::thread::scope(|scope| {
        for _ in 0..2 {
            let tally = &tally;
            scope.spawn(|| tally.load(plain, &tokens));
            scope.spawn(|| tally.load(encrypted, &tokens));
            scope.spawn(|| tally.load_http2(https, &tokens));
        }
        // Stops the other threads even if this thread panics.
        let _enough = Enough(&tally.enough);
        let (mut kept, mut kept_encrypted) = (plain(), encrypted());
        for round in 1..=RELOADS {
            let colour = if round % 2 == 1 { Blue } else { Red };
            let policy = crate::kit::portcullis::completed(&colour.policy(&one, &two));
            gateway.dir().replace("gateway.toml", policy);
            assert_eq!(reload(&gateway).is(200).json()["generation"], json!(round + 1));
            for connection in [&mut kept, &mut kept_encrypted, &mut plain()] {
                for ask in [Ask::Clerk, Ask::Swap, Ask::Alone] {
                    let by = ask.answered_by(&ask.over(connection, &tokens));
                    assert_eq!(by, Some(colour), "after reload {round} {ask:?} goes by the new policy");
                }
            }
        }
    });

    gate.open();
    held.end();
    give.send(Bytes::from(vec![b'u'; UPLOAD / 2])).expect("the upload waits for it");
    assert_eq!(Ask::Upload.answered_by(&slow.join().unwrap()), Some(Red));
    is_the_held_stream(&long.join().unwrap());

    let answered = tally.answered.lock().unwrap();
    for ask in ASKS {
        let counts = |colour| answered.get(&(ask, colour)).copied().unwrap_or(0);
        let (red, blue, alike) = (counts(Some(Red)), counts(Some(Blue)), counts(None));
        if matches!(ask, Ask::Guest | Ask::Nobody) {
            assert!(alike > 20, "{ask:?} {alike}");
        } else {
            assert!(red > 10 && blue > 10, "{ask:?}: both policies answered under load: {red}, {blue}");
        }
    }
    the_log_names_the_routes_that_answered(&gateway, &tally.by_id.lock().unwrap());
    eventually("no policy of before is kept when nothing goes on under it", || {
        let text = Request::get("/metrics").to(gateway.admin()).text();
        text.contains("\nportcullis_policies_before_in_use 0\n")
            && text
                .contains(&format!("\nportcullis_policy_reloads_total{{outcome=\"reloaded\"}} {RELOADS}\n"))
    });
}

/// Sets the flag when dropped.
struct Enough<'t>(&'t AtomicBool);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Checks that the route in each log line is a route of the policy that answered the request.
fn the_log_names_the_routes_that_answered(gateway: &Portcullis, by_id: &HashMap<String, Colour>) {
    let mut found = 0;
    for line in gateway.log() {
        let by = line["request_id"].as_str().and_then(|id| by_id.get(id));
        if let (Some(by), Value::String(route)) = (by, &line["route"]) {
            assert!(route.starts_with(by.name()), "{by:?} answered: {line}");
            found += 1;
        }
    }
    // A log that cannot keep up drops lines instead of delaying requests.
    assert!(found > by_id.len() / 10, "{found} of {}", by_id.len());
}
