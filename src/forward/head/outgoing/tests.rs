//! The fields that an upstream receives.

use super::*;
use crate::authenticate::Principal;
use crate::authorize::{RequestFacts, Rule, authorize};
use crate::peer::{PeerLines, Scheme};
use crate::route::Params;
use proptest::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// Fields that pass, that are removed, and that are replaced.
fn field() -> impl Strategy<Value = (&'static str, &'static str)> {
    prop::sample::select(vec![
        ("accept", "*/*"),
        ("x-a", "1"),
        ("x-a", "2"),
        ("user-agent", "test"),
        ("x-env", "test"),
        ("x_env", "test"),
        ("host", "other.example"),
        ("connection", "keep-alive"),
        ("connection", "close, x-a"),
        ("connection", "x-auth-subject"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("upgrade", "h2c"),
        ("expect", "100-continue"),
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
        ("authorization", "bearer abc"),
        ("dpop", "proof"),
        ("proxy-authorization", "Basic abc"),
        ("cookie", "a=b; __Host-portcullis=secret"),
        ("cookie", "c=d"),
        ("x-csrf-token", "token"),
        ("x-auth-subject", "forged"),
        ("x-auth-subject", "forged twice"),
        ("x_auth_roles", "forged"),
        ("x-auth-csrf", "forged"),
        ("forwarded", "for=1.1.1.1"),
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-port", "1"),
        ("x-forwarded-prefix", "/before"),
        ("x-real-ip", "1.1.1.1"),
        ("remote-user", "root"),
        ("x-request-id", "forged"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("traceparent", "invalid"),
        ("tracestate", "a=b"),
        ("x-tenant", "acme"),
    ])
}

/// Returns the fields of a map without those of the framing, sorted.
fn sorted<'m>(fields: impl Iterator<Item = (&'m str, &'m [u8])>) -> Vec<(String, String)> {
    let is_framing = |name: &str| matches!(name, "content-length" | "transfer-encoding");
    let fields = fields.filter(|(name, _)| !is_framing(name));
    let mut fields: Vec<_> =
        fields.map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value).into_owned())).collect();
    fields.sort();
    fields
}

proptest! {
    /// The echo and explanations show the map. Upstreams receive the bytes.
    #[test]
    fn the_map_and_the_bytes_have_the_same_fields(
        fields in prop::collection::vec(field(), 0..12),
        place in prop::sample::select(vec![None, Some(Place::Header), Some(Place::Cookie), Some(Place::Named)]),
        [is_http2, forward_token, pass_authorization, is_relayed, is_stripped, has_host, is_edited, is_renamed] in any::<[bool; 8]>(),
    ) {
        let mut request = http::Request::builder().uri("/app/orders");
        if is_http2 {
            request = request.version(Version::HTTP_2);
        }
        for (name, value) in &fields {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let identity = IdentityHeaders::default();
        let principal = Rc::new(Principal {
            headers: identity.render(&Principal::for_tests()).unwrap(),
            ..Principal::for_tests()
        });
        let caller = place.map(|place| (principal, place));
        let now = Now::at(1_000_000_000);
        let address = "192.0.2.1".parse().unwrap();
        let facts = Head {
            method: &parts.method,
            host: Some("a.example".into()),
            port: None,
            path: "/app/orders".into(),
            query: None,
            headers: &parts.headers,
        };
        let params = Params::default();
        let facts = RequestFacts { head: &facts, params: &params, now };
        let permit = authorize(&Rule::default(), caller, &facts).unwrap();
        let relayed = Relayed { port: Some(8443), ..Relayed::default() };
        let sources = Sources { others: Box::new([Source::ApiKey(HeaderName::from_static("x-tenant"))]), ..Sources::default() };
        let renamed = HeaderValue::from_static("inner.example");
        let field = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let edits = Edits {
            removed: Box::new([HeaderName::from_static("user-agent"), HeaderName::from_static("x-env")]),
            set: Box::new([field("x-env", "prod")]),
            added: Box::new([field("x-a", "3")]),
        };
        let pass = [HeaderName::from_static("x-real-ip"), X_FORWARDED_PREFIX];
        let context = ForwardContext {
            caller: Caller { address, scheme: Scheme::Http, by_trusted_proxy: is_relayed },
            relayed: is_relayed.then_some(&relayed),
            connection: ConnectionHeaders { lines: &RefCell::<PeerLines>::default(), address },
            id: RequestId::default(),
            id_header: &HeaderValue::from_static("an id"),
            identity: &identity,
            forward_token,
            pass_authorization,
            pass: &pass,
            cookies: Some(&CookieNames::default()),
            write_csrf: false,
            sources: &sources,
            host: is_renamed.then_some(&renamed),
            edits: is_edited.then_some(&edits),
            proofs: &Proofs::default(),
            now,
        };
        let audience = Audience::new(Arc::from("orders"), None);
        let target = || Target {
            path: PathAndQuery::from_static("/orders"),
            authority: has_host.then(|| HeaderValue::from_static("a.example")),
            prefix: is_stripped.then(|| HeaderValue::from_static("/app")),
        };

        let (map, removed) = head(&mut parts.clone(), target(), &permit, &audience, &context);
        let (written, also) = write(&mut parts.clone(), &target(), RequestFraming::None, None, &permit, &audience, &context);
        let bytes = String::from_utf8(written.bytes).unwrap();
        let lines = bytes.strip_prefix("GET /orders HTTP/1.1\r\n").unwrap();
        let lines = lines.split_terminator("\r\n").map(|line| line.split_once(": ").unwrap());
        let written = sorted(lines.map(|(name, value)| (name, value.as_bytes())));
        prop_assert_eq!(&written, &sorted(map.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))));
        prop_assert_eq!(removed.0, also.0);
        prop_assert!(!bytes.contains("forged") && !bytes.contains("secret") && !bytes.contains("evil"), "{}", bytes);
        let count = |name: &str, value: &str| written.iter().filter(|field| field.0 == name && (value.is_empty() || field.1 == value)).count();
        prop_assert_eq!(count("host", "inner.example"), usize::from(is_renamed), "{}", bytes);
        prop_assert_eq!(count("x-forwarded-host", "inner.example"), 0);
        if is_edited {
            prop_assert_eq!([count("x-env", ""), count("x-env", "prod"), count("x_env", ""), count("user-agent", ""), count("x-a", "3")], [1, 1, 0, 0, 1]);
        }
        for once in ["host", "x-auth-subject", "x-request-id", "x-forwarded-for", "forwarded"] {
            prop_assert!(written.iter().filter(|(name, _)| name == once).count() <= 1, "{} {}", once, bytes);
        }
    }
}
