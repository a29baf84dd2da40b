//! Metadata of protected resources (RFC 9728). It tells a client without a token which issuer to use.

use crate::kit::{Portcullis, Request, Upstream, token};
use crate::policy;
use serde_json::{Value, json};

const RESOURCES: &str = r#"
[resource.orders]
identifier    = "https://api.test/orders"
name          = "Orders"
documentation = "https://docs.test/orders"

[resource.all]
identifier = "https://api.test"
scopes     = ["everything"]

[[route]]
name     = "orders"
host     = "api.test"
path     = "/orders/{*rest}"
upstream = "app"
scopes   = ["orders:read", "orders:list"]

[[route]]
name     = "rest"
path     = "/{*rest}"
upstream = "app"
"#;

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

fn gateway() -> (Upstream, Portcullis) {
    let upstream = Upstream::start();
    let gateway = Portcullis::with(&policy(&upstream, RESOURCES)).start();
    (upstream, gateway)
}

#[test]
fn the_metadata_names_the_issuer_and_the_scopes_of_the_routes() {
    let (upstream, gateway) = gateway();
    let read = |path: &str| -> Value {
        let answer = Request::get(path).host("api.test").to(gateway.http());
        let answer = answer.is(200);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        serde_json::from_str(&answer.text()).unwrap()
    };
    // RFC 9728 sections 2 and 3.1: the well-known path is followed by the path of the resource.
    assert_eq!(
        read("/.well-known/oauth-protected-resource/orders"),
        json!({
            "resource": "https://api.test/orders",
            "authorization_servers": ["https://id.test/"],
            "scopes_supported": ["orders:list", "orders:read"],
            "bearer_methods_supported": ["header"],
            "resource_name": "Orders",
            "resource_documentation": "https://docs.test/orders",
        })
    );
    assert_eq!(read(WELL_KNOWN)["scopes_supported"], json!(["everything"]));
    // The metadata exists only on the host of the resource. On another host, its path is an ordinary path.
    let other =
        Request::get("/.well-known/oauth-protected-resource/orders").host("other.test").to(gateway.http());
    other.is_refusal(401, "missing_token");
    upstream.saw_nothing();
}

#[test]
fn a_browser_may_read_the_metadata_with_fields_of_its_own() {
    let (_upstream, gateway) = gateway();
    let preflight = Request::new("OPTIONS", "/.well-known/oauth-protected-resource/orders")
        .host("api.test")
        .header("origin", "https://client.test")
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", "mcp-protocol-version")
        .to(gateway.http());
    let preflight = preflight.is(204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
    assert_eq!(preflight.header("access-control-allow-headers"), Some("*"));
    assert_eq!(preflight.header("access-control-allow-credentials"), None);
}

#[test]
fn a_refusal_names_the_metadata_of_the_most_specific_resource_and_the_missing_scopes() {
    let (_upstream, gateway) = gateway();
    let challenge = |path: &str, host: &str, bearer: Option<String>| {
        let request = Request::get(path).host(host);
        let request = match bearer {
            Some(bearer) => request.bearer(bearer),
            None => request,
        };
        let answer = request.to(gateway.http());
        (answer.status, answer.header("www-authenticate").unwrap().to_owned())
    };
    let orders = format!("resource_metadata=\"https://api.test{WELL_KNOWN}/orders\"");
    let all = format!("resource_metadata=\"https://api.test{WELL_KNOWN}\"");
    let scope = "scope=\"orders:read orders:list\"";

    let (status, text) = challenge("/orders/7", "api.test", None);
    assert_eq!((status, text), (401, format!("Bearer realm=\"portcullis\", {scope}, {orders}")));
    let (status, text) = challenge("/orders/7", "api.test", Some(token("ada").scope("orders:read").sign()));
    assert_eq!(status, 403);
    assert!(text.contains("error=\"insufficient_scope\"") && text.ends_with(&orders), "{text}");
    assert_eq!(text.matches("scope=\"").count(), 1, "{text}");
    let (status, text) = challenge("/orders/7", "api.test", Some(token("ada").expired().sign()));
    assert_eq!(status, 401);
    assert!(
        text.contains("error=\"invalid_token\"") && text.contains(scope) && text.ends_with(&orders),
        "{text}"
    );
    let (_, text) = challenge("/ordersx", "api.test", None);
    assert!(text.ends_with(&all) && !text.contains("scope="), "{text}");
    let (_, text) = challenge("/orders/7", "other.test", None);
    assert!(!text.contains("resource_metadata"), "{text}");
}
