//! Refusals as pages: redirects to the login page, the text of the pages, and their links.

use crate::browser::LOOK;
use crate::kit::account::{self, AUTHORITY, PASSWORD};
use crate::kit::browser::{Browser, Scripts};
use crate::kit::{Answer, Connection, Portcullis, Request, Upstream, eventually, values};
use serde_json::json;

const ROUTES: &str = "
[server]
https = \"127.0.0.1:0\"

[rate_limit.one]
by    = \"route\"
rate  = \"1/m\"
burst = 1

[[route]]
name     = \"app\"
path     = \"/app/{*rest}\"
upstream = \"app\"
login    = \"page\"

[[route]]
name     = \"staff\"
path     = \"/staff/{*rest}\"
upstream = \"app\"
roles    = [\"admin\"]

[[route]]
name     = \"news\"
path     = \"/news\"
upstream = \"app\"
access   = \"optional\"

[[route]]
name        = \"limited\"
path        = \"/limited\"
upstream    = \"app\"
access      = \"public\"
rate_limits = [\"one\"]

[upstream.gone]
servers = [\"http://127.0.0.1:1\"]

[[route]]
name     = \"gone\"
path     = \"/gone\"
upstream = \"gone\"
access   = \"public\"
";

const HTML: &str = "text/html,application/xhtml+xml,*/*;q=0.8";

/// Starts a gateway with cookies and an account `ada` without a role.
fn gateway(upstream: &Upstream) -> Portcullis {
    let policy = format!("{AUTHORITY}cookies = true\n{}", crate::policy(upstream, ROUTES));
    let gateway = Portcullis::with(&policy).start();
    account::add(gateway.dir(), "ada", &[]);
    gateway
}

fn html(target: &str) -> Request {
    Request::get(target).host("localhost").header("Accept", HTML)
}

/// Logs in with cookies. Returns the value of the `Cookie` field, and the CSRF token.
fn log_in(gateway: &Portcullis) -> (String, String) {
    let login = account::posting("/auth/login", &json!({ "username": "ada", "password": PASSWORD }));
    let answer = login.host("localhost").to(gateway.http());
    let csrf = answer.is(200).json()["csrf_token"].as_str().unwrap().to_owned();
    let pairs = values(&answer.headers, "set-cookie").into_iter();
    (pairs.map(|line| line.split(';').next().unwrap()).collect::<Vec<_>>().join("; "), csrf)
}

/// Returns the address and text of each link of a page.
fn links(page: &Answer) -> Vec<(String, String)> {
    let text = page.text();
    let links = text.split("<a ").skip(1).map(|link| {
        let address = link.split_once("href=\"").unwrap().1.split_once('"').unwrap().0.replace("&amp;", "&");
        (address, link.split_once('>').unwrap().1.split_once('<').unwrap().0.to_owned())
    });
    links.collect()
}

fn led(page: &Answer) -> Vec<(String, String)> {
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"), "{page:#?}");
    links(page)
}

fn link(address: &str, words: &str) -> (String, String) {
    (address.to_owned(), words.to_owned())
}

/// Fetch Metadata, section 2.3, and docs/browsers.md; RFC 9110 section 12.5.1.
#[test]
fn only_a_person_who_waits_for_a_page_is_sent_to_log_in() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    for (method, accept, fields, status) in [
        ("GET", HTML, &[][..], 303),
        ("HEAD", HTML, &[], 303),
        ("GET", HTML, &[("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")], 303),
        ("GET", "application/json;q=0.5,text/html", &[], 303),
        ("GET", "TEXT/HTML", &[], 303),
        ("GET", HTML, &[("Sec-Fetch-Mode", "cors"), ("Sec-Fetch-Dest", "empty")], 401),
        ("GET", HTML, &[("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Dest", "image")], 401),
        ("GET", HTML, &[("X-Requested-With", "XMLHttpRequest")], 401),
        ("OPTIONS", HTML, &[], 401),
        ("POST", HTML, &[], 401),
        ("GET", "application/json, text/html;q=0.1", &[], 401),
        ("GET", "text/html;q=0", &[], 401),
        ("GET", "text/html;q=0.5, */*", &[], 401),
        ("GET", "*/*", &[], 401),
    ] {
        let mut request = Request::new(method, "/app/x").host("localhost").header("Accept", accept);
        for (name, value) in fields {
            request = request.header(name, value);
        }
        let answer = request.to(gateway.http());
        assert_eq!(answer.status, status, "{method} {accept} {fields:?}: {answer:#?}");
        assert_eq!(answer.header("location").is_some(), status == 303, "{answer:#?}");
    }
    upstream.saw_nothing();
}

#[test]
fn each_page_leads_on() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let (cookie, _) = log_in(&gateway);
    html("/limited").to(gateway.http()).is(200);
    let home = link("/", "Go to the start page");
    let login = "/auth/login?next=/staff/list%3Fa%3Db";

    // The page of a 401 links to the login page, which redirects to the requested page.
    let page = html("/staff/list?a=b").to(gateway.http());
    assert_eq!((page.status, led(&page)), (401, vec![link(login, "Log in"), home.clone()]));
    assert!(page.header("www-authenticate").is_some() && page.text().contains("Log in to continue"));
    // A POST cannot be repeated after the login, so the link has no destination.
    let posted = Request::post("/staff/list", "").host("localhost").header("Accept", HTML).to(gateway.http());
    assert_eq!((posted.status, led(&posted)), (401, vec![link("/auth/login", "Log in"), home.clone()]));

    // The page of a 403 names the account, and links to another login and to the logout.
    let page = html("/staff/list?a=b").header("Cookie", &cookie).to(gateway.http());
    let other = link(&format!("{login}&prompt=login"), "Use another account");
    assert_eq!(
        (page.status, led(&page)),
        (403, vec![other.clone(), link("/auth/login", "Log out"), home.clone()])
    );
    assert!(page.text().contains("Logged in as <strong>ada</strong>"), "{page:#?}");
    let form = html(&other.0).header("Cookie", &cookie).to(gateway.http());
    assert!(form.is(200).text().contains("type=\"password\""), "another account can log in: {form:#?}");
    let out = html("/auth/login").header("Cookie", &cookie).to(gateway.http());
    assert!(out.is(200).text().contains("action=\"/auth/logout\""), "{out:#?}");
    // No page contains a session's secret, because the address may put an attacker's text into the page.
    for secret in cookie.split("; ").map(|pair| pair.split_once('=').unwrap().1) {
        assert!(!page.text().contains(secret), "{page:#?}");
    }

    for (request, status, words, links) in [
        (html("/nothing"), 404, "There is nothing at this address.", vec![home.clone()]),
        (html("/"), 404, "There is nothing at this address.", vec![]),
        (html("//x"), 400, "has no clear meaning", vec![home.clone()]),
        (html("/limited"), 429, "Try again in ", vec![link("", "Try again"), home.clone()]),
        (html("/gone"), 503, "cannot be reached", vec![link("", "Try again"), home.clone()]),
    ] {
        let page = request.to(gateway.http());
        assert_eq!((page.status, led(&page)), (status, links), "{page:#?}");
        assert!(page.text().contains(words), "{words}: {page:#?}");
        assert!(page.text().contains(page.header("x-request-id").unwrap()), "{page:#?}");
        let policy = page.header("content-security-policy").unwrap();
        for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"]
        {
            assert!(policy.contains(part), "{policy}");
        }
        assert_eq!(page.header("x-frame-options"), Some("DENY"));
    }
}

/// A cookie that the browser sends automatically must not lock a person out of a public page. A token that the client
/// sends on purpose is never ignored.
#[test]
fn a_browser_forgets_a_session_that_is_over_where_a_page_needs_none() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let (cookie, csrf) = log_in(&gateway);
    let with_cookie = |request: Request| request.header("Cookie", &cookie).to(gateway.http());
    with_cookie(html("/news")).is(200);
    with_cookie(Request::post("/auth/logout", "").host("localhost").header("X-CSRF-Token", &csrf)).is(204);

    let page = with_cookie(html("/news"));
    assert_eq!((page.status, page.text().contains("Your session has ended")), (401, true), "{page:#?}");
    assert_eq!(
        led(&page),
        [
            link("/auth/login?next=/news", "Log in"),
            link("", "Continue without logging in"),
            link("/", "Go to the start page")
        ]
    );
    let taken = values(&page.headers, "set-cookie");
    assert_eq!(
        taken,
        ["__Host-portcullis=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/; Secure; HttpOnly; \
             SameSite=Strict"],
        "the access token alone: a session whose refresh token is good goes on"
    );

    // On other routes, the page does not offer to continue without a login.
    let page = with_cookie(html("/staff/x"));
    assert_eq!((page.status, led(&page).len()), (401, 2), "{page:#?}");
    // A refusal of a script's request removes no cookies, because another request may already have refreshed them.
    for request in [
        Request::get("/news").host("localhost"),
        html("/news").header("Sec-Fetch-Mode", "cors"),
        html("/news").header("X-Requested-With", "XMLHttpRequest"),
        Request::post("/news", "").host("localhost").header("Accept", HTML),
    ] {
        let refused = with_cookie(request);
        assert_eq!((refused.status, values(&refused.headers, "set-cookie").len()), (401, 0), "{refused:#?}");
    }
    let token = cookie.split_once('=').unwrap().1.split_once(';').unwrap().0;
    let sent = html("/news").bearer(token).to(gateway.http());
    assert_eq!((sent.status, values(&sent.headers, "set-cookie").len()), (401, 0), "{sent:#?}");
    assert!(!sent.text().contains("Continue without"), "{sent:#?}");
}

/// If a proxy asks for a verdict, the page names the full address of the login page. The client sees the page under the
/// proxy's host, and Traefik resolves a bare path in `Location` against the gateway.
#[test]
fn a_page_for_the_client_of_another_proxy_leads_on_by_full_addresses() {
    let upstream = Upstream::start();
    let trusting = ROUTES.replace("[server]", "[server]\ntrusted_proxies = [\"127.0.0.1\"]");
    let policy = format!("{AUTHORITY}cookies = true\n{}", crate::policy(&upstream, &trusting));
    let gateway = Portcullis::with(&policy).start();
    account::add(gateway.dir(), "ada", &[]);
    let (cookie, _) = log_in(&gateway);
    let ask = Request::get("/auth/verify")
        .header("Accept", HTML)
        .header("X-Forwarded-Method", "GET")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "shop.test")
        .header("X-Forwarded-Uri", "/staff/list?a=b");
    let login = "https://shop.test/auth/login";
    let page = ask.clone().to(gateway.http());
    let back = format!("{login}?next=/staff/list%3Fa%3Db");
    assert_eq!(
        (page.status, led(&page)),
        (401, vec![link(&back, "Log in"), link("/", "Go to the start page")])
    );
    let page = ask.header("Cookie", &cookie).to(gateway.http());
    let links = vec![
        link(&format!("{back}&prompt=login"), "Use another account"),
        link(login, "Log out"),
        link("/", "Go to the start page"),
    ];
    assert_eq!((page.status, led(&page)), (403, links));
}

#[test]
fn an_answer_in_json_ends_its_line() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let pair = account::posting(
        "/auth/login",
        &json!({ "username": "ada", "password": PASSWORD, "deliver": "body" }),
    )
    .to(gateway.http());
    let token = pair.is(200).json()["access_token"].as_str().unwrap().to_owned();
    for answer in [
        pair,
        Request::get("/auth/me").bearer(token).to(gateway.http()),
        Request::get("/auth/me").to(gateway.http()),
        Request::get("/nothing").to(gateway.http()),
        Request::get("/.well-known/jwks.json").to(gateway.http()),
        Request::get("/.well-known/oauth-authorization-server").to(gateway.http()),
        Request::post("/auth/token", "").to(gateway.http()),
    ] {
        assert!(answer.text().ends_with("}\n"), "{answer:#?}");
    }
}

/// A newcomer's first login from the command line.
#[test]
fn a_form_from_no_browser_logs_in_for_the_tokens_and_one_from_a_browser_is_guarded_as_ever() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let body = format!("username=ada&password={}", PASSWORD.replace(' ', "+"));
    let form = || {
        Request::post("/auth/login", &body)
            .host("localhost")
            .header("Content-Type", "application/x-www-form-urlencoded")
    };
    let curl = form().header("User-Agent", "curl/7.88.1").header("Accept", "*/*").to(gateway.http());
    let pair = curl.is(200).json();
    assert!(pair["access_token"].is_string() && pair["refresh_token"].is_string(), "{pair}");
    assert!(values(&curl.headers, "set-cookie").is_empty(), "nothing is put into a browser: {curl:#?}");
    for (fields, code) in [
        (&[("Cookie", "a=b")][..], "csrf_missing"),
        (&[("Origin", "https://evil.example")], "csrf_mismatch"),
        (&[("Origin", "null")], "csrf_mismatch"),
        (&[("Sec-Fetch-Site", "cross-site")], "csrf_mismatch"),
    ] {
        let request = fields.iter().fold(form(), |request, (name, value)| request.header(name, value));
        let refused = request.to(gateway.http());
        refused.is_refusal(403, code);
        if code == "csrf_missing" {
            let line = gateway.access_line(&refused);
            assert!(line["detail"].as_str().is_some_and(|detail| detail.contains("deliver=body")), "{line}");
        }
    }
    let page = form().header("Accept", HTML).to(gateway.http());
    assert_eq!((page.status, page.text().contains("<form")), (403, true), "{page:#?}");
    // A login in cleartext to another machine is refused by default.
    form().host("shop.test").to(gateway.http()).is_refusal(403, "insecure_transport");
}

#[test]
fn a_person_gets_on_from_a_refusal_without_scripts() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let browser = Browser::start(Scripts::Off);
    let at = |path: &str| format!("https://localhost:{}{path}", gateway.https().port());
    browser.go(&at("/staff/list"));
    assert_eq!(browser.title(), "Log in to continue");
    browser.click("a.go");
    eventually("the login page", || browser.shows("#password"));
    browser.fill("#username", "ada");
    browser.fill("#password", PASSWORD);
    browser.click("button");
    eventually("the refusal", || browser.title() == "No access");
    assert_eq!(
        (browser.address(), browser.text(".note")),
        (at("/staff/list"), "Logged in as ada".to_owned())
    );
    browser.click("a.go");
    eventually("the login page, though there is a session", || browser.shows("#password"));
    browser.go(&at("/staff/list"));
    browser.click("a[href='/auth/login']");
    eventually("the page to log out", || browser.title() == "Logged in");
    browser.click("button");
    eventually("logged out", || browser.shows("[role=status]"));
    assert_eq!(browser.text("[role=status]"), "You are logged out.");
}

#[test]
fn refusal_pages_are_readable_in_the_light_in_the_dark_and_on_a_phone() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let browser = Browser::start(Scripts::On);
    let at = |path: &str| format!("https://localhost:{}{path}", gateway.https().port());
    let login = at("/auth/login");
    browser.go(&login);
    browser.fill("#username", "ada");
    browser.fill("#password", PASSWORD);
    browser.click("button");
    eventually("logged in", || browser.address() != login);
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        browser.command("Emulation.setEmulatedMedia", &json!({ "features": features }));
        for width in [1000, 320] {
            let metrics = json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false });
            browser.command("Emulation.setDeviceMetricsOverride", &metrics);
            for path in ["/staff/list", "/nothing", "/gone"] {
                browser.go(&at(path));
                let look = browser.script(LOOK);
                assert!(look["text"].as_f64().unwrap() >= 4.5, "{scheme} {width} {path}: {look}");
                assert_eq!(look["wide"], json!(false), "{scheme} {width} {path}: {look}");
                grounds.push(look["ground"].clone());
                if let Some(dir) = std::env::var_os("SCREENSHOTS") {
                    let shot = browser.command("Page.captureScreenshot", &json!({}));
                    let name = format!("{scheme}-{width}{}.b64", path.replace('/', "-"));
                    let file = std::path::Path::new(&dir).join(name);
                    std::fs::write(file, shot["data"].as_str().unwrap()).unwrap();
                }
            }
        }
    }
    assert_ne!(grounds[0], grounds[6], "the dark is dark");
}

/// Follows the first steps of the README, with the shipped policy.
#[test]
fn the_shipped_policy_lets_a_newcomer_log_in_and_call() {
    let gateway = Portcullis::with(include_str!("../../gateway.toml"))
        .env("PORTCULLIS_SERVER__HTTPS", "127.0.0.1:0")
        .env("PORTCULLIS_SERVER__HTTP", "127.0.0.1:0")
        .env("PORTCULLIS_SERVER__ADMIN", "127.0.0.1:0")
        .start();
    account::add(gateway.dir(), "ada", &["clerk"]);
    let over = |request: Request| request.host("localhost").over(&mut Connection::tls(gateway.https()));
    let form = format!("username=ada&password={PASSWORD}");
    let login = Request::post("/auth/login", form)
        .header("User-Agent", "curl/7.88.1")
        .header("Accept", "*/*")
        .header("Content-Type", "application/x-www-form-urlencoded");
    let pair = account::Pair::of(&over(login));
    assert_eq!(
        over(Request::get("/me").bearer(&pair.access)).is(200).json()["headers"]["x-auth-subject"],
        "ada"
    );
    over(Request::new("DELETE", "/orders/7").bearer(&pair.access)).is_refusal(403, "insufficient_role");
}
