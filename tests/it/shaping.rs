//! Changes that a route makes to requests and answers: path, host and header fields.

use crate::kit::portcullis::{command, completed};
use crate::kit::{Portcullis, Request, Upstream, token, values};
use crate::reload::reload;
use crate::{gateway, policy};

const PUBLIC: &str = "[[route]]\npath = \"/api/{*rest}\"\nupstream = \"app\"\naccess = \"public\"\n";

#[test]
fn prefix_and_host_are_rewritten_after_the_match_and_the_client_s_remain_known() {
    let upstream = Upstream::start();
    let rewrite =
        "strip_prefix = \"/api\"\nadd_prefix = \"/v2/shop\"\nrewrite_host = \"Shop.Internal:8080\"\n";
    let route = format!("{PUBLIC}{rewrite}");
    let gateway = gateway(&upstream, &route);
    for (sent, forwarded) in [
        ("/api/orders?x=/api", "/v2/shop/orders?x=/api"),
        ("/api/api/orders", "/v2/shop/api/orders"),
        ("/%61pi/x/../orders/%7e", "/v2/shop/orders/~"),
    ] {
        let request = Request::get(sent).header("X-Forwarded-Prefix", "/f0rged");
        request.header("X-Forwarded-Host", "f0rged.test").to(gateway.http()).is(200);
        let seen = upstream.last_request();
        assert_eq!(seen.target, forwarded, "{sent}");
        assert_eq!(seen.header("x-forwarded-prefix"), Some("/api"), "{seen:#?}");
        assert_eq!(seen.header("host"), Some("shop.internal:8080"), "{seen:#?}");
        let asked = seen.header("x-forwarded-host").unwrap().to_owned();
        assert!(asked != "shop.internal:8080" && !seen.mentions("f0rged"), "{seen:#?}");
        assert!(seen.header("forwarded").unwrap().contains(&asked), "{seen:#?}");
    }
    let count = upstream.requests().len();
    for sent in ["/api/../admin", "/api/..%2fadmin", "/api/.%2e/admin", "/api/..;/admin", "/api//admin"] {
        assert!(Request::get(sent).to(gateway.http()).status >= 400, "{sent}");
    }
    assert_eq!(upstream.requests().len(), count);
    // A trusted proxy's host stays in X-Forwarded-Host.
    let trusted = format!("[server]\ntrusted_proxies = [\"127.0.0.1\"]\n{route}");
    let gateway = crate::gateway(&upstream, &trusted);
    Request::get("/api/x").header("X-Forwarded-Host", "public.test").to(gateway.http()).is(200);
    let seen = upstream.last_request();
    assert_eq!(seen.header("host"), Some("shop.internal:8080"), "{seen:#?}");
    assert_eq!(seen.header("x-forwarded-host"), Some("public.test"), "{seen:#?}");
}

#[test]
fn fields_of_requests_are_set_added_and_removed_in_every_spelling() {
    let upstream = Upstream::start();
    let route = "[[route]]\npath = \"/{*rest}\"\nupstream = \"app\"\n\
        set_request_headers = { \"X-Env\" = \"prod\" }\nadd_request_headers = { \"X-Hop\" = \"edge\" }\n\
        remove_request_headers = [\"X-Debug\", \"Cookie\"]\n";
    let gateway = gateway(&upstream, route);
    let request = Request::get("/x").bearer(token("ada")).header("X-Env", "f0rged").header("x_env", "f0rged");
    let request = request.header("X-Hop", "client").header("X-Debug", "f0rged").header("X.Debug", "f0rged");
    request.header("Cookie", "f0rged=1").header("Connection", "X-Env").to(gateway.http()).is(200);
    let seen = upstream.last_request();
    assert!(!seen.mentions("f0rged"), "{seen:#?}");
    assert_eq!(values(&seen.headers, "x-env"), ["prod"], "{seen:#?}");
    let mut hops = values(&seen.headers, "x-hop");
    hops.sort_unstable();
    assert_eq!(hops, ["client", "edge"], "{seen:#?}");
    assert_eq!(seen.header("x-auth-subject"), Some("ada"), "{seen:#?}");
}

#[test]
fn fields_of_the_upstream_s_answers_are_changed_and_the_gateway_s_own_answers_are_not() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\nserver: app/1\r\nx-env: test\r\nvary: accept\r\nx-content-type-options: off\r\n\
         content-security-policy: default-src 'self'\r\ncontent-length: 0\r\n\r\n",
    );
    let route = |path: &str, rest: &str| {
        format!("[[route]]\npath = \"{path}\"\nupstream = \"app\"\naccess = \"public\"\n{rest}\n")
    };
    let edited = "set_response_headers = { \"X-Env\" = \"prod\" }\n\
        add_response_headers = { Vary = \"x-tenant\" }\nremove_response_headers = [\"Server\"]";
    let tables = [
        "[policy]\nsecurity_headers = \"add\"\n".to_owned(),
        route("/edited", edited),
        route("/forced", "security_headers = \"force\""),
        route("/off", "security_headers = \"off\""),
        "[[route]]\npath = \"/guarded\"\nupstream = \"app\"\nset_response_headers = { \"X-Env\" = \"prod\" }\n"
            .to_owned(),
    ];
    let gateway = Portcullis::with(&policy(&upstream, &tables.concat())).start();
    let answer = Request::get("/edited").to(gateway.http());
    assert_eq!(values(&answer.headers, "x-env"), ["prod"], "{answer:#?}");
    assert_eq!(values(&answer.headers, "vary"), ["accept", "x-tenant"], "{answer:#?}");
    assert_eq!(answer.header("server"), None, "{answer:#?}");
    assert_eq!(values(&answer.headers, "x-content-type-options"), ["off"], "{answer:#?}");
    assert_eq!(answer.header("x-frame-options"), Some("SAMEORIGIN"), "{answer:#?}");
    let policies = values(&answer.headers, "content-security-policy");
    assert_eq!(policies, ["default-src 'self'", "frame-ancestors 'self'"], "{answer:#?}");
    let answer = Request::get("/forced").to(gateway.http());
    assert_eq!(values(&answer.headers, "x-content-type-options"), ["nosniff"], "{answer:#?}");
    let answer = Request::get("/off").to(gateway.http());
    assert_eq!(answer.header("x-frame-options"), None, "{answer:#?}");
    let refusal = Request::get("/guarded").to(gateway.http());
    assert_eq!((refusal.status, refusal.header("x-env")), (401, None), "{refusal:#?}");
}

#[test]
fn a_redirect_keeps_its_origin_and_loses_tokens() {
    let upstream = Upstream::start();
    let routes = "[[route]]\npath = \"/docs/{*rest}\"\nredirect = \"https://new.test/d/{*rest}\"\naccess = \"public\"\n\
        [[route]]\npath = \"/old/{id}\"\nredirect = \"/new/{id}\"\nredirect_status = 302\n\
        sources = [\"header\", { query = \"token\" }]\n";
    let gateway = gateway(&upstream, routes);
    for (path, location) in [
        ("/docs/a/b?x=1", "https://new.test/d/a/b?x=1"),
        ("/docs/@evil.test/", "https://new.test/d/@evil.test/"),
        ("/docs/https://evil.test", ""),
        ("/docs//evil.test", ""),
        ("/docs/a%0d%0aSet-Cookie:%20a=1", ""),
    ] {
        let answer = Request::get(path).to(gateway.http());
        let (status, expected) = if location.is_empty() { (400, None) } else { (308, Some(location)) };
        assert_eq!((answer.status, answer.header("location")), (status, expected), "{path}: {answer:#?}");
    }
    Request::get("/old/7").to(gateway.http()).is_refusal(401, "missing_token");
    let answer = Request::get(&format!("/old/7?a=1&token={}", token("ada").sign())).to(gateway.http());
    assert_eq!((answer.status, answer.header("location")), (302, Some("/new/7?a=1")), "{answer:#?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:#?}");
    upstream.saw_nothing();
    let explained = command(gateway.dir(), &["explain", "GET", "https://app.test/docs/a?x=1"]);
    let last = explained.stdout.lines().last();
    assert_eq!(last, Some("redirected with 308 to https://new.test/d/a?x=1"), "{}", explained.text());
}

#[test]
fn a_maintenance_begins_and_ends_with_a_reload() {
    let upstream = Upstream::start();
    let test = "[[test]]\nname = \"x\"\nrequest = \"GET https://app.test/x\"\nclaims = { sub = \"ada\" }\nexpect = { allow = true }\n";
    let routes = |rest: &str| {
        let route = format!("[[route]]\npath = \"/x\"\nupstream = \"app\"\n{rest}");
        completed(&policy(&upstream, &format!("{route}{test}")))
    };
    let gateway = gateway(&upstream, "[[route]]\npath = \"/x\"\nupstream = \"app\"\n");
    Request::get("/x").bearer(token("ada")).to(gateway.http()).is(200);
    gateway.dir().replace("gateway.toml", routes("maintenance = \"10m\"\n"));
    reload(&gateway).is(200);
    for request in [Request::get("/x"), Request::get("/x").bearer(token("ada"))] {
        let answer = request.to(gateway.http());
        assert_eq!(answer.header("retry-after"), Some("600"), "{answer:#?}");
        answer.is_refusal(503, "maintenance");
    }
    assert_eq!(upstream.requests().len(), 1);
    gateway.dir().replace("gateway.toml", routes(""));
    reload(&gateway).is(200);
    Request::get("/x").bearer(token("ada")).to(gateway.http()).is(200);
}
