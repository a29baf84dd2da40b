//! Tokens in cookies: how the gateway sets them, what a request with cookies requires, and which cookies an upstream
//! receives.

use crate::kit::account::{self, AUTHORITY, PASSWORD, Pair};
use crate::kit::forge::now;
use crate::kit::portcullis::{command, write_policy};
use crate::kit::upstream::After;
use crate::kit::{Answer, Connection, Portcullis, Request, Upstream, eventually, values};
use crate::reload::reload;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

const ROUTES: &str = "
[[route]]
name     = \"api\"
path     = \"/api/{*rest}\"
upstream = \"app\"

[[route]]
name       = \"app\"
path       = \"/app/{*rest}\"
upstream   = \"app\"
login      = \"page\"
csrf_field = \"token\"

[[route]]
name     = \"fresh\"
path     = \"/fresh\"
upstream = \"app\"
login    = \"page\"
fresh    = true

[[route]]
name     = \"public\"
path     = \"/public\"
upstream = \"app\"
access   = \"public\"
";

/// Browsers keep `Secure` cookies of this host even in cleartext, so most tests need no TLS.
const HERE: &str = "localhost";

/// Starts a gateway with cookies and an account `ada`. `more`: further keys of `[authority]`.
fn with(upstream: &Upstream, more: &str) -> Portcullis {
    let policy = format!("{AUTHORITY}cookies = true\n{more}\n{}", crate::policy(upstream, ROUTES));
    let gateway = Portcullis::with(&policy).start();
    account::add(gateway.dir(), "ada", &["clerk"]);
    gateway
}

#[test]
fn an_unknown_way_of_delivery_is_named_in_the_answer() {
    let upstream = Upstream::start();
    let gateway = with(&upstream, "");
    for way in ["cookies", "cookie", "Body"] {
        let body = json!({ "username": "ada", "password": PASSWORD, "deliver": way });
        let answer = account::post(gateway.http(), "/auth/login", &body);
        answer.is_refusal(400, "invalid_body");
        assert_eq!(answer.json()["detail"], "The field deliver may only have the value body.", "{way}");
    }
}

/// The cookies that a browser keeps.
#[derive(Clone, Debug, Default)]
struct Jar(BTreeMap<String, String>);

impl Jar {
    /// Stores and removes cookies as an answer requires.
    fn keep(&mut self, answer: &Answer) {
        for line in values(&answer.headers, "set-cookie") {
            let (pair, attributes) = line.split_once("; ").expect("attributes");
            let (name, value) = pair.split_once('=').expect("a name and a value");
            if attributes.starts_with("Max-Age=0;") {
                self.0.remove(name);
            } else {
                self.0.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    fn value(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}"))
    }

    fn csrf(&self) -> &str {
        self.value("__Host-portcullis-csrf")
    }

    fn without(&self, name: &str) -> Self {
        let mut jar = self.clone();
        assert!(jar.0.remove(name).is_some(), "{name}: {self:?}");
        jar
    }

    fn text(&self) -> String {
        self.0.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    /// Returns a request to this host with the jar's cookies.
    fn on(&self, request: Request) -> Request {
        let request = request.host(HERE);
        if self.0.is_empty() { request } else { request.header("cookie", &self.text()) }
    }
}

const HTML: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

fn html(target: &str) -> Request {
    Request::get(target).header(HTML.0, HTML.1)
}

fn form(target: &str, body: &str) -> Request {
    Request::post(target, body)
        .header(FORM.0, FORM.1)
        .header(HTML.0, HTML.1)
        .header("sec-fetch-site", "same-origin")
}

fn login_request(name: &str, password: &str) -> Request {
    account::posting("/auth/login", &json!({ "username": name, "password": password })).host(HERE)
}

/// Logs in, and returns the cookies.
#[track_caller]
fn login(address: SocketAddr) -> Jar {
    let mut jar = Jar::default();
    jar.keep(login_request("ada", PASSWORD).to(address).is(200));
    jar
}

#[track_caller]
fn leads_to(answer: &Answer, location: &str) {
    assert_eq!((answer.status, answer.header("location")), (303, Some(location)), "{answer:#?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[track_caller]
fn is_alive(address: SocketAddr, jar: &Jar) {
    jar.on(Request::get("/auth/me")).to(address).is(200);
}

#[test]
fn a_login_gives_cookies_that_live_as_long_as_their_tokens_and_nothing_else() {
    let upstream = Upstream::start();
    for (more, site) in [("", "Strict"), ("same_site = \"lax\"\n", "Lax")] {
        let lives = "access_expires = \"7m\"\nrefresh_expires = \"2h\"\nsession_expires = \"1h\"\n";
        let gateway = with(&upstream, &format!("{lives}{more}"));
        let begun = SystemTime::now();
        let answer = login_request("ada", PASSWORD).to(gateway.http());
        let ended = SystemTime::now();
        let body = answer.is(200).json();
        assert!(body.get("access_token").is_none() && body.get("refresh_token").is_none(), "{body}");
        let lines: Vec<_> = values(&answer.headers, "set-cookie").into_iter().map(str::to_owned).collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        let mut jar = Jar::default();
        jar.keep(&answer);
        let csrf = jar.csrf().to_owned();
        assert_eq!(body["csrf_token"], *csrf);
        assert_eq!(account::claims(jar.value("__Host-portcullis"))["csrf"], *csrf);
        // A refresh token expires with its session after 1 h, although its own lifetime is 2 h.
        for (line, name, seconds, http_only) in [
            (&lines[0], "__Host-portcullis", 420, "; HttpOnly"),
            (&lines[1], "__Host-portcullis-refresh", 3600, "; HttpOnly"),
            (&lines[2], "__Host-portcullis-csrf", 3600, ""),
        ] {
            let rest = format!("; Path=/; Secure{http_only}; SameSite={site}");
            let age = line.strip_prefix(&format!("{name}={}; Max-Age=", jar.value(name))).expect(line);
            // Java's HttpCookie returns a cookie without `Expires` in quotation marks.
            let (age, expires) = age.strip_suffix(&rest).expect(line).split_once("; Expires=").expect(line);
            let age: u64 = age.parse().unwrap();
            let set = httpdate::parse_http_date(expires).unwrap() - Duration::from_secs(age);
            // The field has no fractions of a second.
            assert!(begun - Duration::from_secs(1) <= set && set <= ended, "{line}");
            // One second may have passed since the login.
            assert!((seconds - 1..=seconds).contains(&age), "{line}");
        }
        is_alive(gateway.http(), &jar);
    }
}

#[test]
fn cookies_are_given_where_browsers_keep_them_and_refused_elsewhere() {
    let upstream = Upstream::start();
    let policy = format!(
        "{AUTHORITY}cookies = true\n{}\n[server]\nhttps = \"127.0.0.1:0\"\n",
        crate::policy(&upstream, ROUTES)
    );
    let gateway = Portcullis::with(&policy).start();
    account::add(gateway.dir(), "ada", &[]);
    let request = account::posting("/auth/login", &json!({ "username": "ada", "password": PASSWORD }));
    request.to(gateway.http()).is_refusal(403, "insecure_transport");
    let mut jar = Jar::default();
    jar.keep(request.over(&mut Connection::tls(gateway.https())).is(200));
    jar.csrf();
    let body = json!({ "username": "ada", "password": PASSWORD, "deliver": "body" });
    Pair::of(&account::post(gateway.http(), "/auth/login", &body));
    let page = html("/auth/login").to(gateway.http());
    assert_eq!((page.status, page.header("set-cookie")), (403, None));
    assert!(page.text().contains("not encrypted") && !page.text().contains("<form"), "{page:#?}");
    assert!(html("/auth/login").over(&mut Connection::tls(gateway.https())).is(200).text().contains("<form"));

    // Another proxy terminates TLS. `X-Forwarded-Proto` counts only if the policy trusts the proxy.
    let forwarded = request.header("x-forwarded-proto", "https");
    forwarded.to(gateway.http()).is_refusal(403, "insecure_transport");
    let policy = format!("{policy}trusted_proxies = [\"127.0.0.0/8\"]\n");
    let gateway = Portcullis::with(&policy).start();
    account::add(gateway.dir(), "ada", &[]);
    forwarded.to(gateway.http()).is(200);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Csrf {
    No,
    Wrong,
    OfAnother,
    Right,
}

const TOKENS: [Csrf; 4] = [Csrf::No, Csrf::Wrong, Csrf::OfAnother, Csrf::Right];
const ORIGINS: [Option<&str>; 4] = [None, Some("http://localhost"), Some("http://evil.test"), Some("null")];
const SITES: [Option<&str>; 5] =
    [None, Some("same-origin"), Some("none"), Some("same-site"), Some("cross-site")];

/// Returns the expected outcome of an unsafe request with a cookie.
fn verdict(csrf: Csrf, origin: Option<&str>, site: Option<&str>) -> Result<(), &'static str> {
    let foreign = match (origin, site) {
        (Some("http://evil.test"), _) | (_, Some("same-site" | "cross-site")) => true,
        (Some("null"), site) => site != Some("same-origin"),
        _ => false,
    };
    match csrf {
        _ if foreign => Err("csrf_mismatch"),
        Csrf::No => Err("csrf_missing"),
        Csrf::Wrong | Csrf::OfAnother => Err("csrf_mismatch"),
        Csrf::Right => Ok(()),
    }
}

fn showing(
    mut request: Request,
    csrf: Csrf,
    own: &Jar,
    other: &Jar,
    origin: Option<&str>,
    site: Option<&str>,
) -> Request {
    request = match csrf {
        Csrf::No => request,
        Csrf::Wrong => request.header("x-csrf-token", "AAAAAAAAAAAAAAAAAAAAAA"),
        Csrf::OfAnother => request.header("x-csrf-token", other.csrf()),
        Csrf::Right => request.header("x-csrf-token", own.csrf()),
    };
    if let Some(origin) = origin {
        request = request.header("origin", origin);
    }
    if let Some(site) = site {
        request = request.header("sec-fetch-site", site);
    }
    request
}

#[test]
fn csrf_on_routes_each_method_credential_token_origin_and_site() {
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let gateway = with(&upstream, "");
    let address = gateway.http();
    let (own, other) = (login(address), login(address));
    let body = json!({ "username": "ada", "password": PASSWORD, "deliver": "body" });
    let pair = Pair::of(&account::post(address, "/auth/login", &body));
    let mut connection = Connection::open(address);
    let (mut cases, mut passed) = (0, 0);
    for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "PURGE"] {
        for (by_cookie, path) in [(true, "/api/cookie"), (false, "/api/header")] {
            for csrf in TOKENS {
                for (origin, site) in
                    ORIGINS.iter().flat_map(|origin| SITES.iter().map(move |site| (*origin, *site)))
                {
                    let request = showing(Request::new(method, path), csrf, &own, &other, origin, site);
                    let request =
                        if by_cookie { own.on(request) } else { request.host(HERE).bearer(&pair.access) };
                    let answer = request.over(&mut connection);
                    let harmless = !by_cookie || matches!(method, "GET" | "HEAD" | "OPTIONS");
                    let outcome = if harmless { Ok(()) } else { verdict(csrf, origin, site) };
                    let case = format!("{method} by_cookie={by_cookie} {csrf:?} {origin:?} {site:?}");
                    match outcome {
                        Ok(()) => assert_eq!(answer.status, 200, "{case}: {answer:#?}"),
                        Err(code) => assert_eq!((answer.status, &*answer.code()), (403, code), "{case}"),
                    }
                    cases += 1;
                    passed += usize::from(outcome.is_ok());
                }
            }
        }
    }
    assert_eq!(cases, 8 * 2 * 4 * 4 * 5);
    let seen = upstream.requests();
    assert_eq!(seen.len(), passed, "what is refused does not reach the upstream");
    for request in &seen {
        assert!(!request.mentions("__Host-") && !request.mentions(&pair.access), "{request:?}");
        // A CSRF token that the gateway has checked is not forwarded. Without cookies, the token may be meant for the
        // upstream.
        assert_eq!(
            request.mentions(own.csrf()),
            request.target == "/api/header" && request.header("x-csrf-token") == Some(own.csrf())
        );
    }
}

#[test]
fn the_log_says_whether_the_token_or_the_site_is_wrong() {
    let upstream = Upstream::start();
    let gateway = with(&upstream, "");
    let (own, other) = (login(gateway.http()), login(gateway.http()));
    for (csrf, origin, words) in [
        (Csrf::Right, Some("http://evil.test"), "Origin is 'http://evil.test', Sec-Fetch-Site is absent"),
        (Csrf::Wrong, None, "a CSRF token that is not that of the session"),
        (Csrf::OfAnother, Some("http://localhost"), "a CSRF token that is not that of the session"),
    ] {
        let request = showing(Request::new("POST", "/api/cookie"), csrf, &own, &other, origin, None);
        let answer = own.on(request).to(gateway.http());
        answer.is_refusal(403, "csrf_mismatch");
        let line = gateway.access_line(&answer);
        let detail = line["detail"].as_str().unwrap_or_default();
        assert!(
            detail.contains(words) && !detail.contains(own.csrf()) && !detail.contains(other.csrf()),
            "{line}"
        );
    }
}

#[test]
fn the_log_says_whether_the_token_or_the_site_is_wrong_at_an_endpoint() {
    let upstream = Upstream::start();
    let gateway = with(&upstream, "");
    let (own, other) = (login(gateway.http()), login(gateway.http()));
    let (token, site) = ("a CSRF token that is not that of the session", "Origin is 'http://evil.test'");
    for (path, csrf, origin, words) in [
        ("/auth/refresh", Csrf::Right, Some("http://evil.test"), site),
        ("/auth/refresh", Csrf::OfAnother, None, token),
        ("/auth/logout", Csrf::Right, Some("http://evil.test"), site),
        ("/auth/logout", Csrf::Wrong, None, token),
    ] {
        let request = showing(Request::new("POST", path), csrf, &own, &other, origin, None);
        let answer = own.on(request).to(gateway.http());
        answer.is_refusal(403, "csrf_mismatch");
        let line = gateway.access_line(&answer);
        let detail = line["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(words) && !detail.contains(own.csrf()), "{path}: {line}");
    }
    let answer = login_request("ada", PASSWORD).header("origin", "http://evil.test").to(gateway.http());
    answer.is_refusal(403, "csrf_mismatch");
    let line = gateway.access_line(&answer);
    assert!(line["detail"].as_str().is_some_and(|it| it.contains(site)), "{line}");
}

#[test]
fn csrf_on_endpoints_each_token_origin_and_site() {
    let upstream = Upstream::start();
    let gateway = with(&upstream, "");
    let address = gateway.http();
    let other = login(address);
    let mut own = login(address);
    let session = account::claims(own.value("__Host-portcullis"))["sid"].as_str().unwrap().to_owned();
    let end = format!("/auth/sessions/{session}");
    let endpoints = [
        ("POST", "/auth/refresh"),
        ("POST", "/auth/logout"),
        ("POST", "/auth/logout-all"),
        ("DELETE", &*end),
    ];
    for (method, path) in endpoints {
        for csrf in TOKENS {
            for (origin, site) in
                ORIGINS.iter().flat_map(|origin| SITES.iter().map(move |site| (*origin, *site)))
            {
                let case = format!("{method} {path} {csrf:?} {origin:?} {site:?}");
                let request = own.on(showing(Request::new(method, path), csrf, &own, &other, origin, site));
                match verdict(csrf, origin, site) {
                    Err(code) => {
                        let answer = request.to(address);
                        assert_eq!((answer.status, &*answer.code()), (403, code), "{case}");
                        assert_eq!(
                            answer.header("set-cookie"),
                            None,
                            "{case}: nothing is taken from the browser"
                        );
                    }
                    // A permitted refresh changes the session. The other endpoints are tested with permitted requests
                    // below.
                    Ok(()) if path == "/auth/refresh" => {
                        let answer = request.to(address);
                        own.keep(answer.is(200));
                    }
                    Ok(()) => {}
                }
            }
        }
        // None of the refused requests had an effect.
        is_alive(address, &own);
        is_alive(address, &other);
    }
    let listed = own.on(Request::get("/auth/sessions")).header("sec-fetch-site", "cross-site").to(address);
    assert_eq!(listed.is(200).json()["sessions"].as_array().unwrap().len(), 2, "reading needs no token");

    // Each permitted request ends the session and removes all its cookies.
    for way in ["/auth/logout", "/auth/logout-all", "/auth/sessions/{id}"] {
        let mut jar = login(address);
        let old = jar.clone();
        let claims = account::claims(jar.value("__Host-portcullis"));
        let path = way.replace("{id}", claims["sid"].as_str().unwrap());
        let method = if way.contains("{id}") { "DELETE" } else { "POST" };
        let request = showing(Request::new(method, &path), Csrf::Right, &jar, &other, ORIGINS[1], SITES[1]);
        let answer = jar.on(request).to(address);
        jar.keep(answer.is(204));
        assert_eq!(values(&answer.headers, "set-cookie").len(), 3, "{answer:#?}");
        assert!(jar.0.is_empty(), "{way}: {jar:?}");
        old.on(Request::get("/auth/me")).to(address).is_refusal(401, "revoked_token");
        let refresh = showing(Request::new("POST", "/auth/refresh"), Csrf::Right, &old, &other, None, None);
        // A browser with the old cookies is refused, and its cookies are removed.
        let refused = old.on(refresh).to(address);
        refused.is_refusal(401, "revoked_token");
        let mut left = old;
        left.keep(&refused);
        assert!(left.0.is_empty(), "{way}: {left:?}");
    }
    // A form of another site has no cookies, and brings a refresh token of its own.
    let stranger = Jar::default();
    let invented = format!("refresh_token=pcr_{}", "A".repeat(43));
    for (origin, is_own) in [("https://evil.test", false), ("null", false), ("http://localhost", true)] {
        let request =
            Request::post("/auth/logout", &invented).header(FORM.0, FORM.1).header("origin", origin);
        let answer = stranger.on(request).to(address);
        let count = values(&answer.is(204).headers, "set-cookie").len();
        assert_eq!(count > 0, is_own, "{origin}: nothing is taken from the browser: {answer:#?}");
    }
    // Ending another session removes no cookies from this browser.
    let (here, there) = (login(address), login(address));
    let id = account::claims(there.value("__Host-portcullis"))["sid"].as_str().unwrap().to_owned();
    let request = showing(
        Request::new("DELETE", &format!("/auth/sessions/{id}")),
        Csrf::Right,
        &here,
        &other,
        None,
        None,
    );
    let answer = here.on(request).to(address);
    assert_eq!((answer.status, answer.header("set-cookie")), (204, None));
    is_alive(address, &here);
    there.on(Request::get("/auth/me")).to(address).is_refusal(401, "revoked_token");
}

#[test]
fn an_upstream_sees_no_cookie_of_ours_and_all_others_as_they_came() {
    let upstream = Upstream::start();
    let gateway = with(&upstream, "");
    let address = gateway.http();
    let jar = login(address);
    let ours = jar.text();
    for (path, cookie, left) in [
        ("/api/x", ours.clone(), None),
        ("/api/x", format!("a=\"b; {ours}; c\"; d=e=f;g"), Some("a=\"b; c\"; d=e=f;g")),
        ("/public", format!("x=1; {ours}"), Some("x=1")),
        // A Java client sends a service's cookie with `Max-Age` alone in this form.
        (
            "/api/x",
            format!("$Version=\"1\"; theme=\"dark\";$Path=\"/\"; {ours}"),
            Some("$Version=\"1\"; theme=\"dark\";$Path=\"/\""),
        ),
        ("/public", "x=1;  y=%20;".to_owned(), Some("x=1;  y=%20;")),
        ("/public", "__Host-portcullis = x; __Host-portcullis-login=y".to_owned(), None),
    ] {
        Request::get(path).host(HERE).header("cookie", &cookie).to(address).is(200);
        let seen = upstream.last_request();
        assert_eq!(seen.header("cookie"), left, "{path} {cookie}");
        assert!(!seen.mentions("portcullis="), "{seen:?}");
    }
    // Two cookies with the same name are ambiguous.
    let twice = format!("{ours}; __Host-portcullis=x");
    Request::get("/api/x")
        .host(HERE)
        .header("cookie", &twice)
        .to(address)
        .is_refusal(400, "ambiguous_credentials");
}

/// A login of the time before the change is still in the browser, and its refresh token is still accepted in a body.
#[test]
fn no_cookie_of_the_authority_reaches_an_upstream_after_the_policy_has_stopped_to_set_it() {
    const PUBLIC: &str =
        "[[route]]\nname = \"public\"\npath = \"/public\"\nupstream = \"app\"\naccess = \"public\"\n";
    const COMPAT: &str = "cookies = true\ncompat = \"flask-jwt-extended\"\n";
    let upstream = Upstream::start();
    let policy = |keys: &str| format!("{AUTHORITY}{keys}\n{}", crate::policy(&upstream, PUBLIC));
    let gateway = Portcullis::with(&policy("cookies = true\n")).start();
    account::add(gateway.dir(), "ada", &[]);
    let mut jars = Vec::new();
    for keys in ["cookies = true\n", COMPAT, "", "cookies = true\n"] {
        write_policy(gateway.dir(), &policy(keys));
        reload(&gateway).is(200);
        if !keys.is_empty() {
            let jar = login(gateway.http());
            let refresh = jar
                .0
                .iter()
                .find(|(name, _)| name.contains("refresh_token_cookie") || name.contains("-refresh"));
            jars.push((refresh.expect("a refresh token").1.clone(), jar));
        }
        for (refresh, jar) in &jars {
            let cookies = format!("{}; theme=dark", jar.text());
            Request::get("/public").host(HERE).header("cookie", &cookies).to(gateway.http()).is(200);
            let seen = upstream.last_request();
            assert!(seen.mentions("theme=dark"), "{seen:?}");
            assert!(!seen.mentions(refresh) && !seen.mentions("portcullis"), "{keys:?}: {seen:?}");
        }
    }
}

/// The token expires while the client sends the form that the gateway reads before its decision.
#[test]
fn a_form_that_takes_longer_than_its_token_lasts_is_refused() {
    let upstream = Upstream::start();
    let gateway = with(&upstream, "access_expires = \"2s\"");
    let jar = login(gateway.http());
    let body = format!("a=1&token={}", jar.csrf());
    let request = jar.on(Request::post("/app/x", &body).header(FORM.0, FORM.1)).bytes();
    let mut slow = Connection::open(gateway.http());
    slow.send(&request[..request.len() - 1]);
    eventually("the token expires", || jar.on(Request::get("/api/x")).to(gateway.http()).status == 401);
    slow.send(&request[request.len() - 1..]);
    slow.answer().is_refusal(401, "expired_token");
}

#[test]
fn a_refresh_token_that_expires_while_its_request_arrives_is_refused() {
    let upstream = Upstream::start();
    let gateway = with(&upstream, "access_expires = \"1s\"\nrefresh_expires = \"6s\"");
    let body = json!({ "username": "ada", "password": PASSWORD, "deliver": "body" });
    let (early, late) =
        [(); 2].map(|()| Pair::of(&account::posting("/auth/login", &body).to(gateway.http()))).into();
    let expires = now() + 7;
    account::refresh(gateway.http(), &early.refresh);
    let request = account::posting("/auth/refresh", &json!({ "refresh_token": late.refresh })).bytes();
    let mut slow = Connection::open(gateway.http());
    slow.send(&request[..request.len() - 1]);
    eventually("the token expires", || now() > expires);
    slow.send(&request[request.len() - 1..]);
    slow.answer().is_refusal(401, "expired_token");
}

#[test]
fn a_form_may_carry_the_token_where_the_route_says_so_and_reaches_the_upstream_byte_for_byte() {
    let upstream = Upstream::start();
    let gateway = with(&upstream, "");
    let address = gateway.http();
    let (jar, other) = (login(address), login(address));
    let post = |path: &str, body: &str| jar.on(form(path, body)).to(address);
    for body in [
        format!("token={}&item=a+b", jar.csrf()),
        format!("&&tag=1&tag=2&name=%e4%ff&%74oken={}&x", jar.csrf()),
        format!("{}&token={}", "a=b&".repeat(10_000), jar.csrf()),
    ] {
        post("/app/x", &body).is(200);
        let seen = upstream.last_request();
        assert_eq!((seen.body_bytes, seen.complete), (body.len() as u64, true));
        assert_eq!(String::from_utf8_lossy(&seen.body), body[..seen.body.len()]);
        assert_eq!(seen.header("content-length"), Some(&*body.len().to_string()));
        assert_eq!(seen.header("x-auth-csrf"), Some(jar.csrf()), "for the form of its next page");
    }
    let passed = upstream.requests().len();
    let right = format!("token={}", jar.csrf());
    for (answer, code) in [
        (post("/app/x", "item=1"), 403),
        (post("/app/x", "token="), 403),
        (post("/app/x", &format!("token={}", other.csrf())), 403),
        (post("/app/x", &format!("{right}&{right}")), 400),
        // Refused: the token under another name, on another route, in another type, in a body that is too large, or in
        // the query; a wrong header; a foreign origin.
        (post("/app/x", &format!("csrf_{right}")), 403),
        (post("/api/x", &right), 403),
        (jar.on(Request::post("/app/x", &right).header("content-type", "text/plain")).to(address), 403),
        (post("/app/x", &format!("{right}&a={}", "b".repeat(64 * 1024))), 403),
        (post(&format!("/app/x?{right}"), "a=b"), 403),
        (jar.on(form("/app/x", &right).header("x-csrf-token", "wrong")).to(address), 403),
        (jar.on(form("/app/x", &right).header("origin", "http://evil.test")).to(address), 403),
    ] {
        assert_eq!(answer.status, code, "{answer:#?}");
    }
    assert_eq!(upstream.requests().len(), passed, "none of them reached the upstream");

    // The upstream gets the CSRF token only if a cookie authenticates the request and the route reads forms. A client
    // cannot forge the field.
    let pair = Pair::of(&account::post(
        address,
        "/auth/login",
        &json!({ "username": "ada", "password": PASSWORD, "deliver": "body" }),
    ));
    let forged = |request: Request| request.header("x-auth-csrf", "forged").header("X_Auth_Csrf", "forged");
    for (request, reported) in [
        (jar.on(forged(Request::get("/app/x"))), Some(jar.csrf())),
        (jar.on(forged(Request::get("/api/x"))), None),
        (forged(Request::get("/app/x")).host(HERE).bearer(&pair.access), None),
    ] {
        request.to(address).is(200);
        let seen = upstream.last_request();
        assert_eq!(seen.header("x-auth-csrf"), reported, "{seen:?}");
        assert!(!seen.mentions("forged"), "{seen:?}");
    }
}

#[test]
fn a_person_is_led_to_the_login_page_and_back_and_a_program_is_refused() {
    let upstream = Upstream::start();
    let gateway = with(&upstream, "");
    let address = gateway.http();
    let mut jar = Jar::default();
    let to_page = "/auth/login?next=/app/a%3Fb%3Dc%26d%3D%2520";
    leads_to(&jar.on(html("/app/a?b=c&d=%20")).to(address), to_page);
    jar.on(Request::get("/app/a")).to(address).is_refusal(401, "missing_token");
    let long = html(&format!("/app/a?{}", "x".repeat(2048)));
    leads_to(&jar.on(long).to(address), "/auth/login");
    let posted = jar.on(form("/app/a", "x=1")).to(address);
    assert_eq!(
        (posted.status, posted.header("location")),
        (401, None),
        "a form cannot be sent again from there"
    );
    assert_eq!(jar.on(html("/api/a")).to(address).status, 401, "the route has no page");

    let page = jar.on(html(to_page)).to(address);
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "no-store"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(page.is(200).header(name), Some(value), "{name}");
    }
    let policy = page.header("content-security-policy").unwrap();
    for part in ["default-src 'none'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    jar.keep(&page);
    let visit = jar.value("__Host-portcullis-login").to_owned();
    let hidden = format!("name=\"csrf_token\" value=\"{visit}\"");
    assert!(
        page.text().contains(&hidden) && page.text().contains("value=\"/app/a?b=c&amp;d=%20\""),
        "{page:#?}"
    );
    // A second tab gets the same login token, so the forms in both tabs work.
    let again = jar.on(html("/auth/login")).to(address);
    assert!(again.text().contains(&hidden), "{again:#?}");
    let head = jar.on(Request::new("HEAD", to_page).header(HTML.0, HTML.1)).to(address);
    assert_eq!((head.status, head.body.len()), (200, 0));

    let fields = |password: &str, visit: &str| {
        let password = password.replace(' ', "+");
        format!("username=ada&password={password}&csrf_token={visit}&next=/app/a%3Fb%3Dc")
    };
    // An old browser sends no `Sec-Fetch-Site`, so it must send the login page's token in cookie and form.
    let old = |body: &str| Request::post("/auth/login", body).header(FORM.0, FORM.1).header(HTML.0, HTML.1);
    let wrong = jar.on(old(&fields("wrong", &visit))).to(address);
    assert!(
        wrong.status == 401
            && wrong.text().contains("role=\"alert\"")
            && wrong.text().contains("value=\"ada\"")
    );
    assert!(
        !wrong.text().contains("value=\"wrong\"") && wrong.header("www-authenticate").is_some(),
        "{wrong:#?}"
    );
    assert_eq!(gateway.access_line(&wrong)["reason"], "bad_credentials");
    for (request, jar) in [
        (old(&fields(PASSWORD, "AAAAAAAAAAAAAAAAAAAAAA")), &jar),
        (old(&fields(PASSWORD, &visit)), &Jar::default()),
        (old(&fields(PASSWORD, "")), &jar),
        (form("/auth/login", &fields(PASSWORD, &visit)), &Jar::default()),
        (old(&fields(PASSWORD, &visit)).header("origin", "http://evil.test"), &jar),
        (old(&fields(PASSWORD, &visit)).header("origin", "null"), &jar),
        (old(&fields(PASSWORD, &visit)).header("sec-fetch-site", "cross-site"), &jar),
        (old(&fields(PASSWORD, &visit)).header("sec-fetch-site", "same-site"), &jar),
    ] {
        let answer = jar.on(request).to(address);
        assert_eq!(answer.status, 403, "{answer:#?}");
        let given = values(&answer.headers, "set-cookie").join("\n");
        assert!(!given.contains("__Host-portcullis="), "nobody is logged in: {given}");
    }
    let entered = jar.on(old(&fields(PASSWORD, &visit))).to(address);
    leads_to(&entered, "/app/a?b=c");
    jar.keep(&entered);
    assert_eq!(jar.0.len(), 3, "the visit is over: {jar:?}");
    jar.on(html("/app/a?b=c")).to(address).is(200);
    assert_eq!(upstream.only_request().header("x-auth-subject"), Some("ada"));

    // A logged-in person is redirected to `next`. Without `next`, the page says who is logged in.
    leads_to(&jar.on(html("/auth/login?next=/app/b")).to(address), "/app/b");
    assert!(jar.on(html("/auth/login")).to(address).is(200).text().contains("As <strong>ada</strong>"));
    // A logout form redirects to the login page, even without cookies. A form of another site is refused.
    let out = jar.on(form("/auth/logout", &format!("csrf_token={}", jar.csrf()))).to(address);
    leads_to(&out, "/auth/login?logged_out=1");
    jar.keep(&out);
    assert!(jar.0.is_empty(), "{jar:?}");
    leads_to(&jar.on(form("/auth/logout", "csrf_token=x")).to(address), "/auth/login?logged_out=1");
    let foreign = Request::post("/auth/logout", "a=b").header(FORM.0, FORM.1).header(HTML.0, HTML.1);
    assert_eq!(jar.on(foreign.header("sec-fetch-site", "cross-site")).to(address).status, 401);
}

#[test]
fn nobody_is_led_to_another_host() {
    let upstream = Upstream::start();
    let gateway = with(&upstream, "");
    let address = gateway.http();
    let jar = login(address);
    for next in [
        "//evil.test",
        "https://evil.test",
        "/%5Cevil.test",
        "%5C%5Cevil.test",
        "/%09/evil.test",
        "javascript:alert(1)",
        "/%0D%0ASet-Cookie:x=y",
        "/app/..//evil.test",
        "/%252F..",
        "",
        "x",
    ] {
        let body = format!("username=ada&password={}&next={next}", PASSWORD.replace(' ', "+"));
        let entered = Jar::default().on(form("/auth/login", &body)).to(address);
        let location = entered.header("location").unwrap_or_default().to_owned();
        assert!(location == "/" || location == "/%252F..", "{next}: {entered:#?}");
        // A logged-in person is never redirected to another site.
        let page = jar.on(html(&format!("/auth/login?next={next}"))).to(address);
        assert!(page.status == 200 || page.header("location") == Some("/%252F.."), "{next}: {page:#?}");
    }
}

#[test]
fn a_live_refresh_cookie_is_spent_in_place_of_a_password_and_nobody_goes_in_circles() {
    let upstream = Upstream::start();
    let gateway = with(&upstream, "refresh_grace = \"0s\"\n");
    let address = gateway.http();
    let full = login(address);
    let mut jar = full.without("__Host-portcullis");
    let page = "/auth/login?next=/app/a";
    leads_to(&jar.on(html("/app/a")).to(address), page);
    // After a link on another site, the browser may withhold its cookies. The gateway therefore answers with a page
    // that reloads from the gateway's own site.
    let linked = jar.on(html(page).header("sec-fetch-site", "cross-site")).to(address);
    assert!(linked.is(200).text().contains("url=/auth/login?again=1&amp;next=/app/a\""), "{linked:#?}");
    assert_eq!(linked.header("set-cookie"), None);
    jar.on(Request::new("HEAD", page)).to(address).is(200);

    let renewed =
        jar.on(html("/auth/login?again=1&next=/app/a").header("sec-fetch-site", "same-origin")).to(address);
    leads_to(&renewed, "/app/a");
    jar.keep(&renewed);
    assert_eq!(jar.csrf(), full.csrf(), "what pages hold goes on working");
    assert_ne!(jar.value("__Host-portcullis-refresh"), full.value("__Host-portcullis-refresh"));
    jar.on(html("/app/a")).to(address).is(200);

    // If the browser discards the new access token's cookie, the page asks for the password and states the reason.
    let stuck = jar.without("__Host-portcullis");
    let reported = stuck.on(html(page)).to(address);
    assert!(reported.is(200).text().contains("did not keep the session"), "{reported:#?}");
    is_alive(address, &jar);

    // A route that requires a fresh login shows the login page. A refresh does not suffice, and there is no redirect
    // loop.
    leads_to(&jar.on(html("/fresh")).to(address), "/auth/login?next=/fresh&prompt=login");
    for jar in [&jar, &jar.without("__Host-portcullis-login"), &stuck.without("__Host-portcullis-login")] {
        let prompt = jar.on(html("/auth/login?next=/fresh&prompt=login")).to(address);
        assert!(prompt.is(200).text().contains("name=\"password\""), "{prompt:#?}");
        assert_eq!(values(&prompt.headers, "set-cookie").len(), 1, "no session is given: {prompt:#?}");
    }

    // With another session's CSRF token or a spent refresh token, the login page is shown and all cookies are removed.
    let other = login(address);
    let mut mixed = stuck.without("__Host-portcullis-login");
    mixed.0.insert("__Host-portcullis-csrf".into(), other.csrf().to_owned());
    let spent = full.without("__Host-portcullis");
    for mut jar in [mixed, spent] {
        let answer = jar.on(html(page)).to(address);
        assert!(answer.is(200).text().contains("name=\"password\""), "{answer:#?}");
        jar.keep(&answer);
        let left: Vec<_> = jar.0.keys().map(String::as_str).collect();
        assert_eq!(left, ["__Host-portcullis-login"]);
    }
    // The spent token was presented again, so its session has ended.
    jar.on(Request::get("/auth/me")).to(address).is_refusal(401, "revoked_token");
    is_alive(address, &other);
}

#[test]
fn a_login_takes_the_place_of_the_browsers_session_and_of_no_other() {
    let upstream = Upstream::start();
    let gateway = with(&upstream, "sessions = 3\n");
    let address = gateway.http();
    let phone = login(address);
    let mut laptop = login(address);
    for _ in 0..4 {
        let old = laptop.clone();
        let again =
            laptop.on(form("/auth/login", &format!("username=ada&password={}", PASSWORD.replace(' ', "+"))));
        let answer = again.to(address);
        leads_to(&answer, "/");
        laptop.keep(&answer);
        old.on(Request::get("/auth/me")).to(address).is_refusal(401, "revoked_token");
        is_alive(address, &laptop);
    }
    is_alive(address, &phone);
    let listed = phone.on(Request::get("/auth/sessions")).to(address).is(200).json();
    assert_eq!(listed["sessions"].as_array().unwrap().len(), 2, "{listed}");
    // A login with a wrong password ends no session.
    laptop.on(form("/auth/login", "username=ada&password=wrong")).to(address);
    is_alive(address, &laptop);
}

#[test]
fn a_person_who_guesses_sees_how_long_to_wait() {
    let upstream = Upstream::start();
    let gateway = with(&upstream, "");
    let address = gateway.http();
    let guess =
        || Jar::default().on(form("/auth/login", "username=ada&password=guess&next=/app/a")).to(address);
    let throttled = (0..50).map(|_| guess()).find(|answer| answer.status != 401).expect("guessing ends");
    assert_eq!(throttled.status, 429, "{throttled:#?}");
    let wait: u32 = throttled.header("retry-after").unwrap().parse().unwrap();
    assert!(wait > 0 && throttled.text().contains("Try again in "), "{throttled:#?}");
    assert!(throttled.text().contains("role=\"alert\"") && throttled.text().contains("value=\"/app/a\""));
    assert_eq!(gateway.access_line(&throttled)["reason"], "too_many_attempts");
}

#[test]
fn a_policy_that_would_lead_in_circles_is_refused() {
    let upstream = Upstream::with(|_, _| After::Close);
    let routes = ROUTES.replace("login    = \"page\"", "login    = \"page\"\nsources  = [\"header\"]");
    let policy = format!("{AUTHORITY}cookies = true\n{}", crate::policy(&upstream, &routes));
    let dir = crate::kit::dir::Dir::new();
    write_policy(&dir, &policy);
    let checked = command(&dir, &["check", "--config", "gateway.toml"]);
    assert_ne!(checked.code, Some(0));
    assert!(checked.text().contains("does not read cookies"), "{}", checked.text());
}
