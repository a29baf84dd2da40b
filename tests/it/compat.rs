//! Clients of an application with Flask-JWT-Extended must not notice its move to the gateway.
//!
//! Each request is sent to an application with the real library, and to the gateway in front of the same application
//! without it (`tests/compat/app.py`). The answers must be identical, except for the documented [`DIFFERENCES`]
//! (`docs/moving-from-flask.md`).

use crate::kit::account::{self, PASSWORD, Pair, claims, posting};
use crate::kit::forge::{self, Algorithm, SECRET, Token};
use crate::kit::lines::Lines;
use crate::kit::portcullis::command;
use crate::kit::{Answer, Portcullis, Request, values};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// Intended differences: the request, the answer of the application with the library, and the gateway's answer. The
/// test fails if an entry does not occur.
const DIFFERENCES: [(&str, &str, &str); 14] = [
    (
        "`bearer` in lower case",
        "401 Missing 'Bearer' type in 'Authorization' header. Expected 'Authorization: Bearer <JWT>'",
        "200",
    ),
    ("a signature that is not base64url", "422 Invalid crypto padding", "422 Signature verification failed"),
    (
        "only `nbf` is in the future",
        "422 The token is not yet valid (nbf)",
        "422 The token is not yet valid (iat)",
    ),
    ("`fresh` is a time in the future", "200", "401 Fresh token required"),
    ("the role is missing", "403 Admins only!", "403 The caller's roles do not allow this."),
    (
        "another scheme on an optional route",
        "200",
        "422 Bad Authorization header. Expected 'Authorization: Bearer <JWT>'",
    ),
    ("`OPTIONS` without a token", "200", "401 Missing Authorization Header"),
    ("a login without a password", "401 Bad username or password", "400 Missing username, password or token"),
    ("a refresh token used a second time", "200", "401 Token has been revoked"),
    ("the refresh token after a logout", "200", "401 Token has been revoked"),
    ("the user was removed", "401 Error loading the user eve", "401 Token has been revoked"),
    (
        "no refresh cookie",
        "401 Missing cookie \"refresh_token_cookie\"",
        "401 Missing JWT in headers or cookies (Missing Authorization Header; Missing cookie \"refresh_token_cookie\")",
    ),
    ("the access token's CSRF value at a refresh", "401 CSRF double submit tokens do not match", "200"),
    (
        "a page of another site with all cookies and the CSRF value",
        "200",
        "401 CSRF double submit tokens do not match",
    ),
];

/// The applications, with their ports by name.
struct Flask {
    ports: Value,
    /// Ends when this process closes the child's standard input.
    _child: Child,
}

impl Flask {
    fn start() -> Self {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat");
        let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compat-venv");
        let made = Command::new(scripts.join("venv.sh")).arg(&environment).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut child = Command::new(environment.join("bin/python"))
            .arg(scripts.join("app.py"))
            .env("JWT_SECRET_KEY", SECRET)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let line = Lines::of(child.stdout.take().unwrap()).next_line();
        Self { ports: serde_json::from_str(&line).unwrap(), _child: child }
    }
}

/// Returns the address of the application with this setting.
fn flask(name: &str) -> SocketAddr {
    static FLASK: OnceLock<Flask> = OnceLock::new();
    let port = FLASK.get_or_init(Flask::start).ports[name].as_u64().expect("a setting of app.py");
    SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()))
}

/// The application with one setting, and the gateway that replaces it.
struct Both {
    before: SocketAddr,
    gateway: Portcullis,
}

impl Both {
    /// Starts the gateway for an application with this setting. `sources`: the token sources of the routes.
    fn start(setting: &str, cookies: bool, sources: &str) -> Self {
        let forms = if cookies { "csrf_field = \"csrf_token\"" } else { "" };
        let routes = [
            ("/protected", forms),
            ("/fresh", "fresh = true"),
            ("/optional", "access = \"optional\""),
            ("/tenant", "claims = { tenant = \"acme\" }"),
            ("/admin", "roles = [\"admin\"]"),
            ("/query", "sources = [{ query = \"jwt\" }]"),
        ];
        let routes = routes.map(|(path, more)| {
            let sources = if more.contains("sources") { "" } else { sources };
            format!("[[route]]\npath = \"{path}\"\nupstream = \"app\"\n{more}\n{sources}\n")
        });
        let policy = format!(
            "{AUTHORITY}cookies = {cookies}\n\n[upstream.app]\nservers = [\"http://{}\"]\n\n{}",
            flask("after"),
            routes.join("\n")
        );
        let gateway = Portcullis::with(&policy).start();
        for (name, roles) in [("ada", &["admin", "clerk"][..]), ("bob", &[]), ("eve", &[])] {
            account::add(gateway.dir(), name, roles);
        }
        Self { before: flask(setting), gateway }
    }

    /// Sends one request to both sides, and compares the answers.
    #[track_caller]
    fn ask(&self, what: &str, requests: [Request; 2]) -> [Answer; 2] {
        let [before, after] = requests;
        let answers =
            [before.host("localhost").to(self.before), after.host("localhost").to(self.gateway.http())];
        compare(what, &answers);
        answers
    }

    /// Sends the same request to both sides.
    #[track_caller]
    fn same(&self, what: &str, request: &Request) -> [Answer; 2] {
        self.ask(what, [request.clone(), request.clone()])
    }

    /// Logs in at both sides.
    #[track_caller]
    fn login(&self, name: &str) -> [Pair; 2] {
        let request = posting("/login", &json!({ "username": name, "password": PASSWORD }));
        [self.before, self.gateway.http()].map(|address| Pair::of(&request.to(address)))
    }
}

const ISSUER: &str = "https://localhost:8443";
const AUDIENCE: &str = "portcullis";

/// The authority that replaces the application's login, at the application's paths.
const AUTHORITY: &str = "
[authority]
issuer        = \"https://localhost:8443\"
audience      = [\"portcullis\"]
algorithm     = \"HS256\"
secret        = \"file:secret.txt\"
compat        = \"flask-jwt-extended\"
paths         = { login = \"/login\", refresh = \"/refresh\", logout = \"/logout\" }
refresh_grace = \"0s\"
";

#[track_caller]
fn compare(what: &str, answers: &[Answer; 2]) {
    let [before, after] = answers;
    let reported = |answer: &Answer| {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        match body["msg"].as_str() {
            Some(words) if answer.status != 200 => format!("{} {words}", answer.status),
            Some(_) | None => answer.status.to_string(),
        }
    };
    if let Some((_, theirs, ours)) = DIFFERENCES.iter().find(|(known, ..)| *known == what) {
        assert_eq!((&*reported(before), &*reported(after)), (*theirs, *ours), "{what}: {answers:#?}");
        return;
    }
    assert_eq!(before.status, after.status, "{what}: {answers:#?}");
    let bodies = [before.json(), after.json()];
    match (&bodies[0], &bodies[1]) {
        // The tokens differ in every answer. The gateway's answer also has more members.
        (Value::Object(theirs), Value::Object(ours)) if theirs.contains_key("access_token") => {
            let missing: Vec<_> = theirs.keys().filter(|key| !ours.contains_key(*key)).collect();
            assert!(missing.is_empty(), "{what}: {missing:?} in {answers:#?}");
        }
        (Value::Object(theirs), Value::Object(ours)) if ours.contains_key("csrf_token") => {
            assert_eq!(theirs["msg"], ours["msg"], "{what}: {answers:#?}");
        }
        (theirs, ours) => assert_eq!(theirs, ours, "{what}: {answers:#?}"),
    }
    assert_eq!(after.header("content-type"), Some("application/json"), "{what}: {after:#?}");
}

/// Returns a token that both sides accept, because they share the secret, issuer and audience.
fn token() -> Token {
    forge::token("ada")
        .algorithm(Algorithm::Hs256)
        .member("kid", Value::Null)
        .claim("iss", json!(ISSUER))
        .claim("aud", json!(AUDIENCE))
        .claim("type", json!("access"))
        .claim("fresh", json!(false))
        .claim("jti", json!("one"))
}

#[test]
fn each_error_of_the_library_has_its_status_and_its_words() {
    let both = Both::start("headers", false, "");
    let get = |token: &dyn std::fmt::Display| Request::get("/protected").bearer(token);
    let with = |field: &str| Request::get("/protected").header("Authorization", field);
    let good = token().sign();
    let (message, signature) = good.rsplit_once('.').unwrap();
    let head = message.split_once('.').unwrap().0;
    let ahead = forge::now() + 3600;
    let of_another = token().claim("sub", json!("bob")).sign();
    let of_another = of_another.rsplit_once('.').unwrap().1;

    both.same("a good token", &get(&good))[1].is(200);
    // The library raises `NoAuthorizationError`.
    both.same("no token", &Request::get("/protected"));
    both.same("another scheme", &with("Basic dTpw"));
    both.same("`bearer` in lower case", &with(&format!("bearer {good}")));
    // The library raises `InvalidHeaderError`.
    both.same("nothing behind the scheme", &with("Bearer"));
    both.same("two words behind the scheme", &with(&format!("Bearer {good} b")));
    // The library raises `DecodeError`.
    both.same("not three parts", &get(&"x"));
    both.same("a header that is no base64url", &get(&format!("a{}", &message[head.len()..])));
    both.same("claims that are no base64url", &get(&format!("{head}.a.{signature}")));
    both.same("a signature that is not base64url", &get(&format!("{message}.a")));
    both.same("a signature that is cut", &get(&format!("{message}.{}", &signature[..40])));
    both.same("the signature of another token", &get(&format!("{message}.{of_another}")));
    // The library raises `InvalidTokenError`.
    let unsigned = token().member("alg", json!("none")).sign();
    both.same("no algorithm", &get(&format!("{}.", unsigned.rsplit_once('.').unwrap().0)));
    both.same("another algorithm", &get(&token().algorithm(Algorithm::Es256)));
    both.same("issued in the future", &get(&token().claim("iat", json!(ahead)).claim("nbf", json!(ahead))));
    both.same("only `nbf` is in the future", &get(&token().claim("nbf", json!(ahead))));
    both.same("a subject that is a number", &get(&token().claim("sub", json!(7))));
    // The library raises `JWTDecodeError`.
    both.same("no subject", &get(&token().without("sub")));
    // The library raises `ExpiredSignatureError`.
    both.same("expired", &get(&token().expired()));
    // The library raises `InvalidAudienceError`, `InvalidIssuerError` and `MissingRequiredClaimError`.
    both.same("made for others", &get(&token().claim("aud", json!("billing"))));
    both.same("made by others", &get(&token().claim("iss", json!("https://evil.test"))));
    both.same("made for nobody", &get(&token().without("aud")));
    both.same("made by nobody", &get(&token().without("iss")));
    // The library raises `WrongTokenError`.
    both.same("a refresh token for a page", &get(&token().claim("type", json!("refresh"))));
    // The library raises `FreshTokenRequired`.
    let fresh = |value: Value| Request::get("/fresh").bearer(token().claim("fresh", value));
    both.same("fresh", &fresh(json!(true)))[1].is(200);
    both.same("not fresh", &fresh(json!(false)));
    both.same("`fresh` is a time in the future", &fresh(json!(ahead)));
    // The library raises `UserClaimsVerificationError`.
    let tenant = |name: &str| Request::get("/tenant").bearer(token().claim("tenant", json!(name)));
    both.same("the claim is as it should be", &tenant("acme"))[1].is(200);
    both.same("the claim is not as it should be", &tenant("other"));
    // The application itself checks these rules.
    both.same("the role is there", &Request::get("/admin").bearer(token().role("admin")))[1].is(200);
    both.same("the role is missing", &Request::get("/admin").bearer(token()));

    both.same("nobody on an optional route", &Request::get("/optional"));
    both.same("somebody on an optional route", &Request::get("/optional").bearer(&good));
    both.same("expired on an optional route", &Request::get("/optional").bearer(token().expired()));
    both.same("no token at all on an optional route", &Request::get("/optional").bearer("x"));
    let basic = Request::get("/optional").header("Authorization", "Basic dTpw");
    both.same("another scheme on an optional route", &basic);
    both.same("`OPTIONS` without a token", &Request::new("OPTIONS", "/protected"));

    let browser = Request::get("/protected").header("Accept", "text/html");
    let [_, answer] = both.same("no token, from a browser", &browser);
    assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"portcullis\""));
    assert!(answer.header("x-request-id").is_some());
}

#[test]
fn a_session_in_headers_goes_as_it_went() {
    let both = Both::start("headers", false, "");
    let login = |body: Value| posting("/login", &body);
    both.same("a wrong password", &login(json!({ "username": "ada", "password": "wrong" })));
    both.same("an unknown user", &login(json!({ "username": "nobody", "password": PASSWORD })));
    both.same("a login without a password", &login(json!({ "username": "ada" })));
    both.same("a login", &login(json!({ "username": "ada", "password": PASSWORD })));

    let first = both.login("ada");
    let said = first.clone().map(|pair| pair.claims());
    for claim in ["type", "fresh", "sub", "roles", "iss", "aud"] {
        assert_eq!(said[0][claim], said[1][claim], "{claim}: {said:?}");
    }
    let missing: Vec<_> =
        said[0].as_object().unwrap().keys().filter(|name| said[1].get(name).is_none()).collect();
    // A CSRF claim is only needed for cookies.
    assert_eq!(missing, ["csrf"], "{said:?}");

    let by = |path: &str, tokens: [&str; 2]| tokens.map(|token| Request::get(path).bearer(token));
    let post = |path: &str, tokens: [&str; 2]| tokens.map(|token| Request::post(path, "").bearer(token));
    fn access(pairs: &[Pair; 2]) -> [&str; 2] {
        [&pairs[0].access, &pairs[1].access]
    }
    fn refresh(pairs: &[Pair; 2]) -> [&str; 2] {
        [&pairs[0].refresh, &pairs[1].refresh]
    }
    both.ask("a page", by("/protected", access(&first)))[1].is(200);
    both.ask("a page for whoever just logged in", by("/fresh", access(&first)))[1].is(200);
    both.ask("a page for administrators", by("/admin", access(&first)))[1].is(200);
    both.ask("the refresh token for a page", by("/protected", refresh(&first)));

    both.ask("an access token for a refresh", post("/refresh", access(&first)));
    both.same("nothing for a refresh", &Request::post("/refresh", ""));
    both.same("no token for a refresh", &Request::post("/refresh", "").bearer("x"));
    let answers = both.ask("a refresh", post("/refresh", refresh(&first)));
    let second = answers.map(|answer| answer.is(200).json()["access_token"].as_str().unwrap().to_owned());
    let second = [&*second[0], &*second[1]];
    both.ask("a page after a refresh", by("/protected", second))[1].is(200);
    both.ask("a page for whoever just logged in, after a refresh", by("/fresh", second));
    both.ask("a refresh token used a second time", post("/refresh", refresh(&first)));

    // Services that verify with the library accept the gateway's tokens.
    let other = both.login("bob");
    let [theirs, ours] = access(&other);
    for token in [theirs, ours] {
        Request::get("/protected").bearer(token).to(both.before).is(200);
    }
    both.ask("the role is missing", by("/admin", access(&other)));

    let third = both.login("ada");
    let leave = |tokens: [&str; 2]| tokens.map(|token| Request::new("DELETE", "/logout").bearer(token));
    both.same("nothing for a logout", &Request::new("DELETE", "/logout"));
    both.ask("a logout", leave(access(&third)))[1].is(200);
    both.ask("a page after a logout", by("/protected", access(&third)));
    both.ask("the refresh token after a logout", post("/refresh", refresh(&third)));
    let fourth = both.login("ada");
    both.ask("a logout of the refresh token", leave(refresh(&fourth)))[1].is(200);
    both.ask("the refresh token after its logout", post("/refresh", refresh(&fourth)));
}

#[test]
fn a_user_who_is_gone_is_refused() {
    let both = Both::start("headers", false, "");
    let pairs = both.login("eve");
    let page = || [0, 1].map(|side: usize| Request::get("/protected").bearer(&pairs[side].access));
    both.ask("a page", page())[1].is(200);
    Request::new("DELETE", "/users/eve").to(both.before).is(204);
    let removed = command(both.gateway.dir(), &["user", "remove", "eve", "--yes"]);
    assert_eq!(removed.code, Some(0), "{removed:?}");
    crate::kit::eventually("the gateway has read of it", || {
        Request::get("/protected").bearer(&pairs[1].access).to(both.gateway.http()).status != 200
    });
    both.ask("the user was removed", page());
}

/// Cookies as a browser keeps them.
type Jar = BTreeMap<String, String>;

/// Returns the cookies that an answer sets: name, value, and attributes in lower case.
fn set(answer: &Answer) -> BTreeMap<&str, (&str, Vec<String>)> {
    values(&answer.headers, "set-cookie")
        .into_iter()
        .map(|line| {
            let mut parts = line.split(';').map(str::trim);
            let (name, value) = parts.next().unwrap().split_once('=').unwrap();
            (name, (value, parts.map(str::to_ascii_lowercase).collect()))
        })
        .collect()
}

fn keep(jar: &mut Jar, answer: &Answer) {
    for (name, (value, _)) in set(answer) {
        if value.is_empty() {
            jar.remove(name);
        } else {
            jar.insert(name.to_owned(), value.to_owned());
        }
    }
}

fn showing(request: Request, jar: &Jar) -> Request {
    let pairs: Vec<_> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
    request.header("Cookie", &pairs.join("; "))
}

#[test]
fn a_session_in_cookies_goes_as_it_went() {
    let both = Both::start("cookies", true, "sources = [\"cookie\"]");
    let mut jars: [Jar; 2] = Default::default();
    let login = posting("/login", &json!({ "username": "ada", "password": PASSWORD }));
    let answers = both.same("a login", &login);
    let cookies = [set(&answers[0]), set(&answers[1])];
    assert!(cookies[0].keys().eq(cookies[1].keys()), "{cookies:#?}");
    for (name, (_, theirs)) in &cookies[0] {
        let ours = &cookies[1][name].1;
        for attribute in ["httponly", "path=/"] {
            let has = |list: &[String]| list.iter().any(|known| known == attribute);
            assert_eq!(has(theirs), has(ours), "{name} {attribute}: {cookies:#?}");
        }
        // The gateway's cookies are safer than the library's defaults.
        assert!(!theirs.iter().any(|known| known == "secure" || known.starts_with("samesite")), "{theirs:?}");
        for attribute in ["secure", "samesite=strict"] {
            assert!(ours.iter().any(|known| known == attribute), "{name} {attribute}: {ours:?}");
        }
    }
    for (jar, answer) in jars.iter_mut().zip(&answers) {
        keep(jar, answer);
    }
    let with =
        |request: &Request, jars: &[Jar; 2]| [0, 1].map(|side: usize| showing(request.clone(), &jars[side]));
    let and = |requests: [Request; 2], jars: &[Jar; 2], name: &str| {
        let mut jars = jars.iter();
        requests.map(|request| request.header("X-CSRF-TOKEN", &jars.next().unwrap()[name]))
    };
    let form = |value: &str| {
        Request::post("/protected", format!("csrf_token={value}&amount=3"))
            .header("Content-Type", "application/x-www-form-urlencoded")
    };
    let change = Request::post("/protected", "");
    both.ask("reading", with(&Request::get("/protected"), &jars))[1].is(200);
    both.same("no cookie", &Request::get("/protected"));
    both.ask("a change without a CSRF value", with(&change, &jars));
    both.ask("a change with another CSRF value", with(&change.clone().header("X-CSRF-TOKEN", "x"), &jars));
    both.ask("a change", and(with(&change, &jars), &jars, "csrf_access_token"))[1].is(200);
    both.ask("a change by form with another CSRF value", with(&form("x"), &jars));
    let forms = [0, 1].map(|side: usize| showing(form(&jars[side]["csrf_access_token"]), &jars[side]));
    both.ask("a change by form", forms)[1].is(200);
    let elsewhere = with(&change.clone().header("Origin", "https://evil.test"), &jars);
    both.ask(
        "a page of another site with all cookies and the CSRF value",
        and(elsewhere, &jars, "csrf_access_token"),
    );

    let refresh = Request::post("/refresh", "");
    both.same("no refresh cookie", &refresh);
    both.ask("a refresh without a CSRF value", with(&refresh, &jars));
    both.ask("a refresh with another CSRF value", with(&refresh.clone().header("X-CSRF-TOKEN", "x"), &jars));
    let answers = both.ask("a refresh", and(with(&refresh, &jars), &jars, "csrf_refresh_token"));
    for (jar, answer) in jars.iter_mut().zip(&answers) {
        assert!(set(answer.is(200)).contains_key("access_token_cookie"), "{answer:#?}");
        keep(jar, answer);
    }
    both.ask("reading after a refresh", with(&Request::get("/protected"), &jars))[1].is(200);
    both.ask("a change after a refresh", and(with(&change, &jars), &jars, "csrf_access_token"))[1].is(200);
    let answers = both.ask(
        "the access token's CSRF value at a refresh",
        and(with(&refresh, &jars), &jars, "csrf_access_token"),
    );
    keep(&mut jars[1], &answers[1]);

    let leave = Request::post("/logout", "");
    both.ask("a logout without a CSRF value", with(&leave, &jars));
    let held = jars.clone();
    let answers = both.ask("a logout", and(with(&leave, &jars), &jars, "csrf_access_token"));
    let cleared = [set(&answers[0]), set(&answers[1])];
    for name in cookies[0].keys() {
        assert_eq!((cleared[0][name].0, cleared[1][name].0), ("", ""), "{name}: {cleared:#?}");
    }
    both.ask("reading with the cookies of before the logout", with(&Request::get("/protected"), &held));
}

#[test]
fn a_missing_token_is_reported_for_each_source() {
    let both = Both::start("both", true, "");
    both.same("no token in two places", &Request::get("/protected"));
    let basic = Request::get("/protected").header("Authorization", "Basic dTpw");
    both.same("another scheme, and no cookie", &basic);
    let query = Both { before: flask("query"), ..both };
    query.same("no token in the query", &Request::get("/query?a=1"));
    let good = token().sign();
    query.same("a token in the query", &Request::get(&format!("/query?jwt={good}&a=1")))[1].is(200);
}

#[test]
fn during_the_move_the_applications_own_access_tokens_pass_and_its_refresh_tokens_do_not() {
    let policy = format!(
        "
[authority]
issuer   = \"https://id.test:8443\"
audience = [\"{AUDIENCE}\"]
compat   = \"flask-jwt-extended\"

[[issuer]]
issuer     = \"{ISSUER}\"
audience   = [\"{AUDIENCE}\"]
algorithms = [\"HS256\"]
secret     = \"file:secret.txt\"

[upstream.app]
servers = [\"http://{}\"]

[[route]]
path     = \"/protected\"
upstream = \"app\"

[[route]]
path     = \"/admin\"
upstream = \"app\"
roles    = [\"admin\"]
",
        flask("after")
    );
    let gateway = Portcullis::with(&policy).start();
    let login = posting("/login", &json!({ "username": "ada", "password": PASSWORD }));
    let named = Pair::of(&login.to(flask("named")));
    let bare = Pair::of(&login.to(flask("bare")));
    let ask = |path: &str, token: &str| Request::get(path).bearer(token).to(gateway.http());
    for path in ["/protected", "/admin"] {
        ask(path, &named.access).is(200);
        let refused = ask(path, &named.refresh).is(422).json();
        assert_eq!(refused, json!({ "msg": "Only non-refresh tokens are allowed" }));
        // The token has no issuer and no audience, so any holder of the secret could have made it.
        let refused = ask(path, &bare.access).is(422).json();
        assert_eq!(refused, json!({ "msg": "Token is missing the \"iss\" claim" }));
    }
    assert_eq!(claims(&bare.refresh)["type"], "refresh");
    // The first step of the move must accept older tokens.
    for token in [&bare.access, &named.access] {
        Request::get("/protected").bearer(token).to(flask("named")).is(200);
    }
}

#[test]
fn other_proxies_that_ask_for_a_verdict_get_statuses_that_they_know() {
    let policy = format!(
        "[server]\ntrusted_proxies = [\"127.0.0.1/32\"]\n{AUTHORITY}\n[upstream.app]\nservers = [\"http://{}\"]\n
[[route]]\npath = \"/protected\"\nupstream = \"app\"\n",
        flask("after")
    );
    let gateway = Portcullis::with(&policy).start();
    let verdict = Request::get("/auth/verify")
        .header("X-Forwarded-Method", "GET")
        .header("X-Forwarded-Proto", "http")
        .header("X-Forwarded-Uri", "/protected")
        .header("X-Forwarded-Host", "localhost");
    // nginx treats any status other than 2xx, 401 and 403 as an error of the gateway.
    let answer = verdict.clone().bearer("x").to(gateway.http());
    answer.is_refusal(401, "malformed_token");
    verdict.bearer(token()).to(gateway.http()).is(200);
}

#[test]
fn the_differences_are_printed_for_a_migration() {
    let text = include_str!("../../docs/moving-from-flask.md");
    let cell = |words: &str| words.replace('|', "\\|");
    for (what, theirs, ours) in DIFFERENCES {
        let row = format!("| {} | {} | {} |", cell(what), cell(theirs), cell(ours));
        assert!(text.contains(&row), "docs/moving-from-flask.md lacks the row\n{row}");
    }
}
