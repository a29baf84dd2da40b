//! Tests the login page and its cookies in a real browser, and attacks on them by other sites.

use crate::kit::account::{self, AUTHORITY, PASSWORD};
use crate::kit::browser::{Browser, Scripts, key};
use crate::kit::upstream::After;
use crate::kit::{Portcullis, Upstream, eventually};
use serde_json::json;

/// An application whose pages require a login, and two other sites. One site is on a sibling host, so browsers send
/// even `SameSite=Strict` cookies with its requests.
const ROUTES: &str = "
[server]
https = \"127.0.0.1:0\"

[[route]]
name       = \"app\"
host       = \"shop.test\"
path       = \"/app/{*rest}\"
upstream   = \"app\"
login      = \"page\"
csrf_field = \"csrf_token\"

[[route]]
name     = \"fresh\"
host     = \"shop.test\"
path     = \"/password\"
upstream = \"app\"
login    = \"page\"
fresh    = true

[[route]]
name     = \"another site\"
host     = \"evil.test\"
path     = \"/{*rest}\"
upstream = \"app\"
access   = \"public\"

[[route]]
name     = \"a sibling\"
host     = \"evil.shop.test\"
path     = \"/{*rest}\"
upstream = \"app\"
access   = \"public\"
";

/// Starts an application that renders its pages on the server. Its form contains the CSRF token from the gateway's
/// header.
fn application() -> Upstream {
    Upstream::with(|seen, wire| {
        if !wire.read_body() {
            return After::Close;
        }
        let subject = seen.header("x-auth-subject").unwrap_or("nobody");
        let csrf = seen.header("x-auth-csrf").unwrap_or("none");
        let page = format!(
            "<!doctype html><html lang=en><title>{} {}</title><p id=who>{subject}</p>\
             <form method=post action=/app/save><input type=hidden name=csrf_token value=\"{csrf}\">\
             <input name=item value=\"a b\"><button id=save>Save</button></form>\
             <form method=post action=/auth/logout><input type=hidden name=csrf_token value=\"{csrf}\">\
             <button id=leave>Leave</button></form>",
            seen.method, seen.target
        );
        // Express with Helmet sends this referrer policy. The browser then sends a form with `Origin: null`.
        wire.answer("200 OK", "content-type: text/html\r\nreferrer-policy: no-referrer\r\n", page);
        After::Keep
    })
}

struct Shop {
    gateway: Portcullis,
    application: Upstream,
    browser: Browser,
}

impl Shop {
    fn open(scripts: Scripts) -> Self {
        let application = application();
        let policy = format!("{AUTHORITY}cookies = true\n{}", crate::policy(&application, ROUTES));
        let gateway = Portcullis::with(&policy).start();
        account::add(gateway.dir(), "ada", &[]);
        Self { gateway, application, browser: Browser::start(scripts) }
    }

    fn at(&self, host: &str, path: &str) -> String {
        format!("https://{host}:{}{path}", self.gateway.https().port())
    }

    #[track_caller]
    fn go(&self, path: &str) {
        self.browser.go(&self.at("shop.test", path));
    }

    #[track_caller]
    fn is_at(&self, path: &str) {
        let expected = self.at("shop.test", path);
        eventually(&expected, || self.browser.address() == expected);
    }

    #[track_caller]
    fn is_asked_to_log_in(&self) {
        let page = self.at("shop.test", "/auth/login");
        eventually("the login page", || {
            self.browser.address().starts_with(&page) && self.browser.shows("#password")
        });
        assert_eq!(self.browser.title(), "Log in");
    }

    #[track_caller]
    fn log_in(&self, password: &str) {
        self.browser.fill("#password", password);
        self.browser.click("button");
    }

    /// Returns the number of requests with an unsafe method that reached the application.
    fn saved(&self) -> usize {
        self.application.requests().iter().filter(|seen| seen.method != "GET").count()
    }
}

#[test]
fn a_person_without_scripts_logs_in_comes_back_uses_forms_and_leaves() {
    let shop = Shop::open(Scripts::Off);
    let browser = &shop.browser;
    shop.go("/app/orders?sort=-date&q=a%20b");
    shop.is_asked_to_log_in();
    for (field, label) in [("#username", "User name"), ("#password", "Password")] {
        assert_eq!(
            (&*browser.computed("label", field), &*browser.computed("role", field)),
            (label, "textbox")
        );
    }

    browser.fill("#username", "ada");
    shop.log_in("wrong");
    eventually("the refusal", || browser.shows("[role=alert]"));
    assert_eq!(browser.text("[role=alert]"), "The user name or the password is wrong.");
    shop.application.saw_nothing();

    // The form keeps the user name and the requested address.
    shop.log_in(PASSWORD);
    shop.is_at("/app/orders?sort=-date&q=a%20b");
    assert_eq!(browser.text("#who"), "ada");

    browser.click("#save");
    eventually("the form is saved", || shop.saved() == 1);
    let seen = shop.application.last_request();
    assert!(String::from_utf8_lossy(&seen.body).ends_with("&item=a+b"), "{seen:?}");
    assert!(!seen.mentions("__Host-portcullis"), "{seen:?}");

    shop.go("/auth/login");
    assert_eq!(browser.text("h1"), "You are logged in");
    shop.go("/app/orders");
    browser.click("#leave");
    shop.is_asked_to_log_in();
    assert_eq!(browser.text("[role=status]"), "You are logged out.");
    let left: Vec<_> = browser.cookies().iter().map(|cookie| cookie["name"].clone()).collect();
    assert_eq!(left, ["__Host-portcullis-login"]);
    shop.go("/app/orders");
    shop.is_asked_to_log_in();
}

#[test]
fn a_session_lasts_without_being_asked_for_a_password_and_scripts_read_the_csrf_token_alone() {
    let shop = Shop::open(Scripts::On);
    let browser = &shop.browser;
    shop.go("/app/a");
    shop.is_asked_to_log_in();
    // Log in with the keyboard alone. The first field has the focus.
    browser.press(&format!("ada{}{PASSWORD}{}", key::TAB, key::ENTER));
    shop.is_at("/app/a");
    let access = browser.cookie("__Host-portcullis").expect("the access token");
    let csrf = browser.cookie("__Host-portcullis-csrf").expect("the CSRF token");
    for (name, script_reads_it) in
        [("__Host-portcullis", false), ("__Host-portcullis-refresh", false), ("__Host-portcullis-csrf", true)]
    {
        let cookie = browser.cookie(name).expect(name);
        assert_eq!(cookie["httpOnly"], json!(!script_reads_it), "{cookie}");
        assert_eq!((&cookie["secure"], &cookie["sameSite"]), (&json!(true), &json!("Strict")), "{cookie}");
        assert_eq!((&cookie["path"], &cookie["domain"]), (&json!("/"), &json!("shop.test")), "{cookie}");
    }
    let read = browser.script("arguments[0](document.cookie)");
    assert_eq!(read, json!(format!("__Host-portcullis-csrf={}", csrf["value"].as_str().unwrap())));

    // A script of the application sends the CSRF token. Without it, the request is refused.
    let fetch = |header: &str| {
        browser.script(&format!(
            "const token = document.cookie.split('=')[1]; const headers = {{ {header} }};
             fetch('/app/b', {{ method: 'PUT', headers }}).then(answer => arguments[0](answer.status))"
        ))
    };
    assert_eq!(
        (fetch("'X-CSRF-Token': token"), fetch(""), fetch("'X-CSRF-Token': 'x'")),
        (json!(200), json!(403), json!(403))
    );
    assert_eq!(shop.saved(), 1);

    // After the access token has expired, the browser gets a new one without a prompt and reaches the requested page.
    browser.forget("__Host-portcullis");
    shop.go("/app/b?c=d");
    shop.is_at("/app/b?c=d");
    assert_eq!(browser.text("#who"), "ada");
    let renewed = browser.cookie("__Host-portcullis").expect("a new access token");
    assert_ne!(renewed["value"], access["value"]);
    assert_eq!(browser.cookie("__Host-portcullis-csrf").unwrap()["value"], csrf["value"]);

    // A route that requires a fresh login shows the login page once.
    shop.go("/password");
    shop.is_asked_to_log_in();
    browser.fill("#username", "ada");
    shop.log_in(PASSWORD);
    shop.is_at("/password");

    // After a link on another site, the browser withholds its cookies at first. The person still reaches the page
    // without a prompt.
    for host in ["evil.test", "evil.shop.test"] {
        browser.go(&shop.at(host, "/"));
        browser.script(&format!(
            "const link = document.createElement('a'); link.href = '{}'; document.body.append(link); link.click();
             arguments[0]()",
            shop.at("shop.test", "/app/linked")
        ));
        shop.is_at("/app/linked");
        assert_eq!(browser.text("#who"), "ada");
    }

    // An ended session is not renewed.
    browser.forget("__Host-portcullis-refresh");
    browser.forget("__Host-portcullis");
    shop.go("/app/a");
    shop.is_asked_to_log_in();
}

#[test]
fn another_sites_page_changes_nothing_and_logs_nobody_in() {
    let shop = Shop::open(Scripts::On);
    let browser = &shop.browser;
    account::add(shop.gateway.dir(), "mallory", &[]);
    let is_ada = || {
        shop.go("/app/who");
        browser.address() == shop.at("shop.test", "/app/who") && browser.text("#who") == "ada"
    };
    shop.go("/app/a");
    browser.fill("#username", "ada");
    shop.log_in(PASSWORD);
    shop.is_at("/app/a");
    let csrf = browser.cookie("__Host-portcullis-csrf").unwrap()["value"].as_str().unwrap().to_owned();

    // The attackers: another site, a sibling subdomain, and another port of the same host.
    let neighbour = shop.application.to_string().replace("127.0.0.1", "shop.test");
    for site in [shop.at("evil.test", "/"), shop.at("evil.shop.test", "/"), format!("{neighbour}/")] {
        // Submits a form in a new document, even with the right token. The gateway rejects it because of the sender's
        // site.
        for (path, fields) in [
            ("/app/save", format!("{{ csrf_token: '{csrf}', item: '1' }}")),
            ("/app/save", "{ item: '1' }".to_owned()),
            ("/auth/logout", format!("{{ csrf_token: '{csrf}' }}")),
            ("/auth/logout-all", format!("{{ csrf_token: '{csrf}' }}")),
            ("/auth/refresh", format!("{{ csrf_token: '{csrf}' }}")),
            ("/auth/login", format!("{{ username: 'mallory', password: '{PASSWORD}' }}")),
        ] {
            browser.go(&site);
            browser.script(&format!(
                "const form = document.createElement('form'); form.method = 'post'; form.action = '{}';
                 for (const [name, value] of Object.entries({fields})) {{
                     const input = document.createElement('input');
                     input.name = name; input.value = value; form.append(input);
                 }}
                 document.body.append(form); arguments[0](); setTimeout(() => form.submit())",
                shop.at("shop.test", path)
            ));
            shop.is_at(path);
            assert!(
                browser.source().contains("site") || browser.source().contains("missing_token"),
                "{}",
                browser.source()
            );
            assert!(is_ada(), "{site} {path}");
        }
        // Background requests that need no preflight: the browser sends them, and the gateway refuses them.
        browser.go(&site);
        for (path, body) in [
            ("/app/save", format!("new URLSearchParams({{ csrf_token: '{csrf}' }})")),
            ("/app/save", "'text'".to_owned()),
            ("/auth/logout", format!("new URLSearchParams({{ csrf_token: '{csrf}' }})")),
            (
                "/auth/login",
                format!("new URLSearchParams({{ username: 'mallory', password: '{PASSWORD}' }})"),
            ),
        ] {
            let sent = browser.script(&format!(
                "fetch('{}', {{ method: 'POST', mode: 'no-cors', credentials: 'include', body: {body} }})
                     .then(answer => arguments[0](answer.type), error => arguments[0](String(error)))",
                shop.at("shop.test", path)
            ));
            assert_eq!(sent, json!("opaque"), "{path}");
        }
        // A header or JSON needs a preflight, and the gateway does not permit the request.
        for options in [
            "{ method: 'DELETE', credentials: 'include' }".to_owned(),
            format!("{{ method: 'POST', credentials: 'include', headers: {{ 'X-CSRF-Token': '{csrf}' }} }}"),
        ] {
            let address = shop.at("shop.test", "/app/save");
            let sent = browser.script(&format!(
                "fetch('{address}', {options}).then(() => arguments[0]('sent'), () => arguments[0]('blocked'))"
            ));
            assert_eq!(sent, json!("blocked"), "{options}");
        }
        // Other sites can neither frame the login page nor read an answer.
        let framed = browser.script(&format!(
            "const frame = document.createElement('iframe'); frame.src = '{}';
             frame.onload = () => {{
                 let seen = 'blocked'; try {{ seen = frame.contentDocument.title }} catch {{}} arguments[0](seen ?? 'blocked')
             }}; document.body.append(frame)",
            shop.at("shop.test", "/auth/login")
        ));
        assert_eq!(framed, json!("blocked"));
        assert!(is_ada(), "{site}");
    }
    // The sibling's requests have cookies, so the CSRF check refuses them.
    for path in ["/app/save", "/auth/logout", "/auth/logout-all", "/auth/refresh", "/auth/login"] {
        shop.gateway.wait_log(path, |line| line["path"] == path && line["reason"] == "csrf_mismatch");
    }
    let unsafe_ones: Vec<_> = shop.application.requests().into_iter().filter(|s| s.method != "GET").collect();
    assert!(
        unsafe_ones.iter().all(|seen| seen.method == "OPTIONS" && seen.body.is_empty()),
        "{unsafe_ones:#?}"
    );
}

/// Computes the contrast of two colours of the page (WCAG 2.2, relative luminance), and whether the page is wider than
/// its window.
pub const LOOK: &str = "
    const luminance = colour => {
        const parts = colour.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255);
        const [r, g, b] = parts.map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = element => {
        for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if (colour !== 'rgba(0, 0, 0, 0)') return colour;
        }
    };
    const contrast = (element, colour, ground) => {
        const [a, b] = [luminance(colour), luminance(ground)];
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    };
    const texts = [...document.querySelectorAll('h1, p, label, input:not([type=hidden]), button')];
    const fields = [...document.querySelectorAll('input:not([type=hidden])')];
    arguments[0]({
        text: Math.min(...texts.map(e => contrast(e, getComputedStyle(e).color, ground(e)))),
        border: Math.min(...fields.map(e => contrast(e, getComputedStyle(e).borderTopColor, ground(e.parentElement)))),
        wide: document.documentElement.scrollWidth > innerWidth,
        small: Math.min(...texts.map(e => parseFloat(getComputedStyle(e).fontSize))),
        ground: getComputedStyle(document.body).backgroundColor,
        low: Math.min(...[...fields, ...document.querySelectorAll('button')].map(e => e.offsetHeight)),
    });
";

#[test]
fn the_page_is_readable_in_the_light_in_the_dark_on_a_phone_and_enlarged() {
    let shop = Shop::open(Scripts::On);
    let browser = &shop.browser;
    shop.go("/app/a");
    browser.fill("#username", "ada");
    shop.log_in("wrong");
    eventually("the refusal", || browser.shows("[role=alert]"));
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        browser.command("Emulation.setEmulatedMedia", &json!({ "features": features }));
        // 320 px is a small phone. 640 px at 200 % is a window of 1280 px with letters twice as large.
        for (width, scale) in [(1000, 1), (320, 1), (640, 2)] {
            let metrics =
                json!({ "width": width / scale, "height": 800, "deviceScaleFactor": scale, "mobile": false });
            browser.command("Emulation.setDeviceMetricsOverride", &metrics);
            let look = browser.script(LOOK);
            let number = |name: &str| look[name].as_f64().unwrap();
            assert!(number("text") >= 4.5 && number("border") >= 3.0, "{scheme} {width}: {look}");
            assert!(number("small") >= 16.0 && number("low") >= 44.0, "{scheme} {width}: {look}");
            assert_eq!(look["wide"], json!(false), "{scheme} {width}: {look}");
            grounds.push(look["ground"].clone());
        }
    }
    assert_ne!(grounds[0], grounds[3], "the dark is dark");
}
