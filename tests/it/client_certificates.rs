//! Client certificates: who must have one, who is accepted, whom a certificate identifies, and tokens that are bound to
//! a certificate (RFC 8705).

use crate::kit::pki::{Authority, Identity};
use crate::kit::portcullis::{Builder, command, write_policy};
use crate::kit::tls::{Options, connect};
use crate::kit::upstream::After;
use crate::kit::websocket::{accepting, close, echoed, handshake, service};
use crate::kit::{Answer, Connection, ISSUER, Portcullis, Request, Upstream, eventually, token};
use crate::policy;
use rustls::version::{TLS12, TLS13};
use serde_json::json;
use std::time::Duration;

const ROUTES: &str = "
[server]
https = \"127.0.0.1:0\"

[client_certificates.partners]
hosts = [\"partner.test\", \"*.partner.test\"]
ca    = \"ca.pem\"
crl   = \"ca.crl\"
roles = { \"*\" = [\"partner\"], \"spiffe://test/billing\" = [\"biller\"] }

[client_certificates.staff]
hosts   = [\"staff.test\"]
mode    = \"optional\"
ca      = \"staff.pem\"
subject = \"email\"

[[route]]
path     = \"/certificate\"
upstream = \"app\"
sources  = [\"client_certificate\"]

[[route]]
path     = \"/billing\"
upstream = \"app\"
sources  = [\"client_certificate\"]
issuers  = [\"urn:portcullis:client-certificate:partners\"]
roles    = [\"biller\"]

[[route]]
path     = \"/either\"
upstream = \"app\"
sources  = [\"header\", \"client_certificate\"]
require_bound = true

[[route]]
path     = \"/token\"
upstream = \"app\"

[[route]]
path     = \"/public\"
upstream = \"app\"
access   = \"public\"
";

const SOCKET: &str = "
[[route]]
path      = \"/socket\"
upstream  = \"app\"
sources   = [\"client_certificate\"]
websocket = true
";

struct World {
    upstream: Upstream,
    partners: Authority,
    staff: Authority,
}

impl World {
    fn new() -> Self {
        Self {
            upstream: Upstream::start(),
            partners: Authority::new("partners"),
            staff: Authority::new("staff"),
        }
    }

    fn builder(&self) -> Builder {
        self.with(&policy(&self.upstream, &format!("{ROUTES}{SOCKET}")))
    }

    fn with(&self, text: &str) -> Builder {
        Portcullis::with(text)
            .file("ca.pem", &self.partners.pem)
            .file("ca.crl", self.partners.revoke(&[], 2046))
            .file("staff.pem", &self.staff.pem)
    }

    fn billing(&self) -> Identity {
        self.partners.issue(&["spiffe://test/billing"])
    }
}

fn opened(gateway: &Portcullis, name: &'static str, identity: Option<&Identity>) -> Connection {
    let options = Options { name: Some(name), identity: identity.cloned(), ..Options::default() };
    Connection::over(connect(gateway.https(), &options).expect("the handshake succeeds"))
}

fn ask(gateway: &Portcullis, host: &'static str, identity: Option<&Identity>, request: Request) -> Answer {
    request.host(host).over(&mut opened(gateway, host, identity))
}

/// Returns whether the gateway refuses a client with this certificate. In TLS 1.3, a client learns this only after its
/// own part of the handshake (RFC 8446 section 4.4.2.4).
fn is_refused(gateway: &Portcullis, options: &Options) -> bool {
    use std::io::{Read, Write};
    let Ok(mut stream) = connect(gateway.https(), options) else { return true };
    let request = Request::get("/public").host(options.name.unwrap()).bytes();
    stream.write_all(&request).is_err() || stream.read(&mut [0; 1]).map_or(true, |count| count == 0)
}

#[test]
fn a_test_and_an_explanation_state_the_demand_for_a_certificate() {
    let world = World::new();
    let dir = crate::kit::dir::Dir::new();
    dir.write("ca.pem", &world.partners.pem);
    dir.write("ca.crl", world.partners.revoke(&[], 2046));
    dir.write("staff.pem", &world.staff.pem);
    for (host, demand, line) in [
        ("a.partner.test", "required", Some("client certificate required by client_certificates.partners")),
        ("staff.test", "optional", Some("client certificate optional by client_certificates.staff")),
        ("other.test", "none", None),
    ] {
        for expected in ["required", "optional", "none"] {
            let test = format!(
                "[[test]]\nname = \"t\"\nrequest = \"https://{host}/public\"\n\
                 expect = {{ client_certificate = \"{expected}\" }}\n"
            );
            write_policy(&dir, &policy(&world.upstream, &format!("{ROUTES}{test}")));
            let run = command(&dir, &["check"]);
            assert_eq!(run.code, Some(i32::from(expected != demand)), "{host}: {}", run.text());
        }
        let explained = command(&dir, &["explain", &format!("https://{host}/public")]).text();
        assert_eq!(explained.contains("client certificate "), line.is_some(), "{explained}");
        assert!(line.is_none_or(|line| explained.contains(line)), "{explained}");
    }
}

#[test]
fn a_host_may_require_a_certificate_of_its_authority() {
    let world = World::new();
    let gateway = world.builder().start();
    let (ours, theirs) = (world.billing(), world.staff.issue(&["ada@example.com"]));
    let expired = world.partners.issue_until(&["spiffe://test/billing"], 2020);
    for version in [&TLS12, &TLS13] {
        for (name, identity, accepted) in [
            ("partner.test", Some(&ours), true),
            ("a.b.partner.test", Some(&ours), true),
            ("partner.test", None, false),
            ("partner.test", Some(&theirs), false),
            ("partner.test", Some(&expired), false),
            ("a.partner.test", None, false),
            ("staff.test", None, true),
            ("staff.test", Some(&theirs), true),
            ("staff.test", Some(&ours), false),
            ("other.test", None, true),
            ("other.test", Some(&expired), true),
        ] {
            let options = Options {
                versions: vec![version],
                name: Some(name),
                identity: identity.cloned(),
                ..Options::default()
            };
            assert_eq!(is_refused(&gateway, &options), !accepted, "{version:?} {name} {identity:?}");
        }
    }
    for (reason, count) in [("no_client_certificate", 4), ("client_certificate", 6)] {
        let sample = format!("portcullis_tls_failures_total{{reason=\"{reason}\"}}");
        eventually(reason, || gateway.metric(&sample) == Some(count));
    }
}

#[test]
fn the_log_names_the_version_of_an_old_certificate() {
    let world = World::new();
    let gateway = world.builder().start();
    let identity = Some(world.billing().of_version_1());
    let options = Options { name: Some("partner.test"), identity, ..Options::default() };
    assert!(is_refused(&gateway, &options));
    let log = gateway.stop();
    let detail = "the client's certificate has X.509 version 1; expected version 3";
    assert!(log.contains(detail) && !log.contains("Other("), "{log}");
}

/// A client chooses SNI and `Host` separately, and a browser uses one connection for several hosts.
#[test]
fn a_connection_of_one_host_never_stands_for_another_host() {
    let world = World::new();
    let gateway = world.builder().start();
    let (ours, theirs) = (world.billing(), world.staff.issue(&["ada@example.com"]));
    for (name, identity, host, status) in [
        ("other.test", None, "other.test", 200),
        ("other.test", None, "partner.test", 421),
        ("other.test", None, "x.partner.test:443", 421),
        ("other.test", None, "PARTNER.TEST.", 421),
        ("other.test", None, "staff.test", 421),
        ("staff.test", None, "partner.test", 421),
        ("staff.test", Some(&theirs), "partner.test", 421),
        ("partner.test", Some(&ours), "staff.test", 421),
        ("partner.test", Some(&ours), "other.test", 421),
        ("partner.test", Some(&ours), "x.partner.test", 200),
    ] {
        let mut connection = opened(&gateway, name, identity);
        let answer = Request::get("/public").host(host).over(&mut connection);
        assert_eq!(answer.status, status, "{name} {host}: {answer:#?}");
        if status == 421 {
            answer.is_refusal(421, "misdirected_request");
        }
    }
    let nameless = Options { name: None, ..Options::default() };
    let mut connection = Connection::over(connect(gateway.https(), &nameless).unwrap());
    Request::get("/public").host("partner.test").over(&mut connection).is_refusal(421, "misdirected_request");
}

#[test]
fn cleartext_never_stands_for_a_host_that_requires_a_certificate() {
    let world = World::new();
    let plain = ROUTES.replace("[server]\n", "[server]\nplain = \"serve\"\n");
    let gateway = Portcullis::with(&policy(&world.upstream, &plain))
        .file("ca.pem", &world.partners.pem)
        .file("ca.crl", world.partners.revoke(&[], 2046))
        .file("staff.pem", &world.staff.pem)
        .start();
    Request::get("/public").host("other.test").to(gateway.http()).is(200);
    Request::get("/public").host("staff.test").to(gateway.http()).is(200);
    Request::get("/public").host("partner.test").to(gateway.http()).is_refusal(421, "misdirected_request");
}

#[test]
fn a_certificate_identifies_its_holder_with_the_roles_of_the_table() {
    let world = World::new();
    let gateway = world.builder().start();
    let (billing, other) = (world.billing(), world.partners.issue(&["spiffe://test/other"]));
    let ada = world.staff.issue(&["ada@example.com"]);
    let two = world.partners.issue(&["spiffe://test/billing", "spiffe://test/other"]);
    ask(&gateway, "partner.test", Some(&billing), Request::get("/billing")).is(200);
    let seen = world.upstream.last_request();
    assert_eq!(seen.header("x-auth-subject"), Some("spiffe://test/billing"));
    assert_eq!(seen.header("x-auth-roles"), Some("partner,biller"), "{seen:?}");
    assert_eq!(seen.header("x-auth-issuer"), Some("urn:portcullis:client-certificate:partners"));
    for (host, identity, path, code) in [
        ("partner.test", &other, "/billing", "insufficient_role"),
        ("partner.test", &two, "/certificate", "malformed_token"),
        ("partner.test", &other, "/token", "missing_token"),
        ("staff.test", &ada, "/billing", "unknown_issuer"),
        ("partner.test", &other, "/certificate", ""),
        ("partner.test", &other, "/either", ""),
        ("staff.test", &ada, "/certificate", ""),
    ] {
        let answer = ask(&gateway, host, Some(identity), Request::get(path));
        let found = if answer.status == 200 { String::new() } else { answer.code() };
        assert_eq!(found, code, "{host} {identity:?} {path}");
    }
    ask(&gateway, "staff.test", None, Request::get("/certificate")).is_refusal(401, "missing_token");
    ask(&gateway, "other.test", None, Request::get("/certificate")).is_refusal(401, "missing_token");
}

/// A request cannot claim a certificate: only the handshake counts.
#[test]
fn a_token_counts_before_the_certificate() {
    let world = World::new();
    let gateway = world.builder().start();
    let bound = token("ada").claim("cnf", json!({ "x5t#S256": world.billing().thumbprint() }));
    let mut connection = opened(&gateway, "partner.test", Some(&world.billing()));
    let request = |path: &str| Request::get(path).host("partner.test");
    request("/token").bearer(token("ada")).over(&mut connection).is(200);
    assert_eq!(world.upstream.last_request().header("x-auth-subject"), Some("ada"));
    request("/either").bearer(token("ada")).over(&mut connection).is_refusal(401, "unbound_token");
    request("/either").bearer(bound).over(&mut connection).is_refusal(401, "wrong_client_certificate");
    request("/certificate").bearer(token("ada")).over(&mut connection).is(200);
    let seen = world.upstream.last_request();
    assert_eq!(seen.header("x-auth-subject"), Some("spiffe://test/billing"), "the route takes no tokens");
}

/// RFC 8705 section 3.
#[test]
fn a_bound_token_is_accepted_only_on_a_connection_with_its_certificate() {
    let world = World::new();
    let gateway = world.builder().start();
    let (ours, stolen) = (world.billing(), world.billing());
    let ada = world.staff.issue(&["ada@example.com"]);
    let bound = |identity: &Identity| token("ada").claim("cnf", json!({ "x5t#S256": identity.thumbprint() }));
    for (host, identity, bearer, code) in [
        ("partner.test", Some(&ours), bound(&ours), ""),
        ("partner.test", Some(&stolen), bound(&ours), "wrong_client_certificate"),
        ("staff.test", Some(&ada), bound(&ada), ""),
        ("staff.test", Some(&ada), bound(&ours), "wrong_client_certificate"),
        ("staff.test", None, bound(&ada), "wrong_client_certificate"),
        ("other.test", None, bound(&ours), "wrong_client_certificate"),
        ("other.test", Some(&ours), bound(&ours), "wrong_client_certificate"),
        (
            "partner.test",
            Some(&ours),
            token("ada").claim("cnf", json!({ "x5t": ours.thumbprint() })),
            "wrong_type",
        ),
    ] {
        for path in ["/token", "/either"] {
            // Twice, because the second time the token comes from the cache.
            for _ in 0..2 {
                let answer = ask(&gateway, host, identity, Request::get(path).bearer(&bearer));
                let found = if answer.status == 200 { String::new() } else { answer.code() };
                assert_eq!(found, code, "{host} {identity:?} {path}");
                if code == "wrong_client_certificate" {
                    let challenge = answer.header("www-authenticate").unwrap_or_default();
                    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
                }
            }
        }
    }
    let scheme = format!("DPoP {}", bound(&ours));
    let request = Request::get("/token").header("authorization", &scheme);
    ask(&gateway, "partner.test", Some(&ours), request).is_refusal(401, "unbound_token");
    Request::get("/token")
        .bearer(bound(&ours))
        .host("other.test")
        .to(gateway.http())
        .is_refusal(401, "wrong_client_certificate");
}

#[test]
fn a_revoked_certificate_is_refused_at_once_also_on_an_open_connection() {
    let world = World::new();
    let gateway = world.builder().start();
    let (revoked, other) = (world.billing(), world.partners.issue(&["spiffe://test/other"]));
    let mut open = opened(&gateway, "partner.test", Some(&revoked));
    let mut innocent = opened(&gateway, "partner.test", Some(&other));
    let request = Request::get("/certificate").host("partner.test");
    request.over(&mut open).is(200);
    gateway.dir().replace("ca.crl", world.partners.revoke(&[&revoked], 2046));
    eventually("the open connection carries no more requests", || request.over(&mut open).status == 421);
    request.over(&mut innocent).is(200);
    let options = |identity: &Identity| Options {
        name: Some("partner.test"),
        identity: Some(identity.clone()),
        ..Options::default()
    };
    assert!(is_refused(&gateway, &options(&revoked)) && !is_refused(&gateway, &options(&other)));
    // A list that expired may lack the newest revocations.
    gateway.dir().replace("ca.crl", world.partners.revoke(&[], 2025));
    eventually("nobody is accepted", || is_refused(&gateway, &options(&other)));
    let sample = "portcullis_client_crl_expiry_timestamp_seconds{client_certificates=\"partners\"}";
    assert_eq!(gateway.metric(sample), Some(1_735_689_600));
    // A file that cannot be read changes nothing.
    gateway.dir().replace("ca.crl", world.partners.revoke(&[], 2046));
    eventually("they are accepted again", || !is_refused(&gateway, &options(&other)));
    gateway.dir().replace("ca.pem", "nothing");
    gateway.wait_log("it is logged", |line| {
        line["message"] == "the authorities and revocation lists for client certificates were not replaced; the current ones stay in use"
    });
    assert!(!is_refused(&gateway, &options(&other)));
}

/// The gateway reads a list only when its file changes.
#[test]
fn an_expired_revocation_list_ends_open_connections_too() {
    let world = World::new();
    let list = world.partners.revoke_none_for(Duration::from_secs(4));
    let gateway = world.builder().file("ca.crl", list).start();
    let mut open = opened(&gateway, "partner.test", Some(&world.billing()));
    let request = Request::get("/certificate").host("partner.test");
    request.over(&mut open).is(200);
    eventually("the open connection carries no more requests", || request.over(&mut open).status == 421);
}

#[test]
fn a_revoked_certificate_ends_its_websockets() {
    let service = service();
    let world = World { upstream: service, ..World::new() };
    let gateway = world.builder().start();
    let (revoked, other) = (world.billing(), world.partners.issue(&["spiffe://test/other"]));
    let mut sockets = [&revoked, &other].map(|identity| opened(&gateway, "partner.test", Some(identity)));
    for socket in &mut sockets {
        handshake("/socket").host("partner.test").over(socket).is(101);
        assert_eq!(echoed(socket, "hello"), "hello");
    }
    gateway.dir().replace("ca.crl", world.partners.revoke(&[&revoked], 2046));
    let [ended, open] = &mut sockets;
    assert_eq!(ended.rest(), close(1008, "token_revoked"));
    assert_eq!(echoed(open, "again"), "again");
}

/// A host that requires certificates may rely on them alone.
#[test]
fn a_revoked_certificate_ends_streams_of_public_routes_too() {
    let service = Upstream::with(|seen, wire| {
        match seen.header("sec-websocket-key") {
            Some(key) => wire.send(accepting(key, "")),
            None => wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        }
        wire.peer_left();
        After::Close
    });
    let world = World { upstream: service, ..World::new() };
    let sockets = "
[[route]]
path      = \"/open\"
upstream  = \"app\"
access    = \"public\"
websocket = true
";
    let gateway = world.with(&policy(&world.upstream, &format!("{ROUTES}{sockets}"))).start();
    let revoked = world.billing();
    let mut socket = opened(&gateway, "partner.test", Some(&revoked));
    handshake("/open").host("partner.test").over(&mut socket).is(101);
    let mut answer = opened(&gateway, "partner.test", Some(&revoked));
    answer.send(Request::get("/public").host("partner.test").bytes());
    assert_eq!(answer.read_head().unwrap().status, 200);
    gateway.dir().replace("ca.crl", world.partners.revoke(&[&revoked], 2046));
    assert_eq!(socket.rest(), close(1008, "token_revoked"));
    assert!(!answer.rest().ends_with(b"0\r\n\r\n"), "the answer is not complete");
}

/// A browser sends the certificate of its user with requests from the pages of all sites, as it does with cookies.
#[test]
fn a_page_of_another_site_cannot_use_the_certificate_of_its_visitor() {
    let world = World::new();
    let gateway = world.builder().start();
    let identity = world.billing();
    let ask = |request: Request| {
        ask(&gateway, "partner.test", Some(&identity), request.header("Accept", "application/json"))
    };
    let origin = "https://partner.test";
    let post = || Request::post("/certificate", "pay");
    ask(post()).is(200);
    ask(post().header("Origin", origin).header("Sec-Fetch-Site", "same-origin")).is(200);
    for site in
        [&[("Origin", "https://evil.test")][..], &[("Sec-Fetch-Site", "cross-site")], &[("Origin", "null")]]
    {
        let with = |request: Request| {
            site.iter().fold(request, |request, (name, value)| request.header(name, value))
        };
        ask(with(post())).is_refusal(403, "csrf_mismatch");
        ask(with(Request::get("/certificate"))).is(200);
        ask(with(handshake("/socket"))).is_refusal(403, "csrf_mismatch");
    }
}

/// The certificate of a connection is that of the proxy.
#[test]
fn a_client_behind_a_trusted_proxy_does_not_have_the_certificate_of_the_proxy() {
    let world = World::new();
    let text = policy(&world.upstream, ROUTES)
        .replace("[server]\n", "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n");
    let gateway = world.with(&text).start();
    let identity = world.billing();
    let ask = |request: Request| ask(&gateway, "partner.test", Some(&identity), request);
    ask(Request::get("/certificate")).is(200);
    let relayed = |path: &str| Request::get(path).header("X-Forwarded-For", "192.0.2.7");
    ask(relayed("/certificate")).is_refusal(401, "missing_token");
    let bound = token("ada").claim("cnf", json!({ "x5t#S256": identity.thumbprint() }));
    ask(relayed("/token").bearer(&bound)).is_refusal(401, "wrong_client_certificate");
    ask(Request::get("/token").bearer(&bound)).is(200);
}

/// A connection that is older than the rule has no certificate.
#[test]
fn a_rule_that_a_reload_adds_counts_for_open_connections() {
    let world = World::new();
    let without: String = {
        let (before, rest) = ROUTES.split_once("[client_certificates.partners]").unwrap();
        let routes = "[[route]]\npath = \"/public\"\nupstream = \"app\"\naccess = \"public\"\n";
        assert!(rest.contains("[[route]]"));
        policy(&world.upstream, &format!("{before}{routes}"))
    };
    let gateway = world.with(&without).start();
    let mut old = opened(&gateway, "partner.test", None);
    let request = Request::get("/public").host("partner.test");
    request.over(&mut old).is(200);
    write_policy(gateway.dir(), &policy(&world.upstream, ROUTES));
    crate::reload::reload(&gateway).is(200);
    request.over(&mut old).is_refusal(421, "misdirected_request");
    Request::get("/public").host("other.test").over(&mut old).is(200);
    request.over(&mut opened(&gateway, "partner.test", Some(&world.billing()))).is(200);
}

#[test]
fn explanations_and_tests_know_callers_with_certificates() {
    let world = World::new();
    let dir = crate::kit::dir::Dir::new();
    dir.write("ca.pem", &world.partners.pem);
    dir.write("ca.crl", world.partners.revoke(&[], 2046));
    dir.write("staff.pem", &world.staff.pem);
    let tests = "
[[test]]
name    = \"a biller bills\"
request = \"GET https://partner.test/billing\"
claims  = { iss = \"urn:portcullis:client-certificate:partners\", sub = \"spiffe://test/billing\" }
expect  = { allow = true, headers = { X-Auth-Roles = \"partner,biller\" } }

[[test]]
name    = \"another does not bill\"
request = \"GET https://partner.test/billing\"
claims  = { iss = \"urn:portcullis:client-certificate:partners\", sub = \"spiffe://test/other\" }
expect  = { deny = \"insufficient_role\" }

[[test]]
name    = \"staff are no partners\"
request = \"GET https://staff.test/billing\"
claims  = { iss = \"urn:portcullis:client-certificate:staff\", sub = \"ada@example.com\" }
expect  = { deny = \"unknown_issuer\" }

[[test]]
name    = \"nobody is refused\"
request = \"GET https://partner.test/certificate\"
expect  = { deny = \"missing_token\" }

[[test]]
name    = \"a bound token is assumed to be sent by its owner\"
request = \"GET https://partner.test/token\"
claims  = { sub = \"ada\", cnf = { \"x5t#S256\" = \"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I\" } }
expect  = { allow = true }
";
    write_policy(&dir, &format!("{ISSUER}\n[upstream.app]\nbuiltin = \"echo\"\n{ROUTES}{tests}"));
    let run = command(&dir, &["check"]);
    assert_eq!(run.code, Some(0), "{}", run.text());
    let matrix = command(&dir, &["routes", "--matrix"]);
    assert_eq!(matrix.code, Some(0), "{}", matrix.text());
}

#[test]
fn mistakes_in_the_tables_are_found() {
    let world = World::new();
    let dir = crate::kit::dir::Dir::new();
    dir.write("ca.pem", &world.partners.pem);
    dir.write("ca.crl", world.partners.revoke(&[], 2046));
    dir.write("broken.crl", "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n");
    dir.write("staff.pem", &world.staff.pem);
    let policy = |routes: &str| format!("{ISSUER}\n[upstream.app]\nbuiltin = \"echo\"\n{routes}");
    for (from, to, id, key) in [
        ("ca    = \"ca.pem\"\n", "", "missing_key", "client_certificates.partners.ca"),
        ("\"ca.pem\"", "\"ca.crl\"", "bad_file", "client_certificates.partners.ca"),
        ("\"ca.crl\"", "\"absent\"", "bad_file", "client_certificates.partners.crl[0]"),
        ("\"ca.crl\"", "\"ca.pem\"", "bad_file", "client_certificates.partners.crl[0]"),
        ("\"ca.crl\"", "\"broken.crl\"", "bad_file", "client_certificates.partners.crl[0]"),
        ("\"staff.test\"", "\"*.partner.test\"", "same_host", "client_certificates.staff.hosts"),
        ("\"staff.test\"", "\"10.0.0.1\"", "bad_host", "client_certificates.staff.hosts[0]"),
        ("certificate:partners\"]", "certificate:partner\"]", "unknown_name", "route[1].issuers[0]"),
        ("client_certificates.staff", "client_certificates.\"st aff\"", "bad_name", "client_certificates"),
    ] {
        assert!(ROUTES.contains(from), "{from}");
        write_policy(&dir, &policy(&ROUTES.replace(from, to)));
        let run = command(&dir, &["check"]);
        assert_eq!(run.code, Some(1), "{from}: {}", run.text());
        assert!(run.text().contains(&format!("[portcullis help {id}]")), "{from}: {}", run.text());
        assert!(run.text().contains(key), "{from}: {}", run.text());
    }
    let none = "[[route]]\npath = \"/\"\nupstream = \"app\"\nsources = [\"client_certificate\"]\n";
    write_policy(&dir, &policy(none));
    let run = command(&dir, &["check"]);
    assert!(run.text().contains("the policy has no [client_certificates]"), "{}", run.text());
}
