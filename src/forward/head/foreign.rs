//! Lists the header fields with which a client could impersonate another client, another request or a proxy. Each entry
//! of the table names a product that writes or reads the field.
//!
//! The gateway removes these fields from requests, because a service that reads such a field would believe any client.
//! The gateway writes its own facts about the client ([`super::client`]). `[identity] pass` can name fields that a
//! trusted proxy may send.
//!
//! Forward-auth cannot remove fields. It refuses a request with a field that names another request or another caller
//! (`pipeline::forward_auth`).
//!
//! Names are compared *folded*: all characters other than letters and digits are equal. A CGI-style backend reads
//! `X_Real_IP` and `X.Real.IP` as `X-Real-IP`.

use Kind::{Address, Identity, Method, Proxy, Relay, Target};

/// The kind of false fact that a client could state in a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The request's way to the gateway: its scheme, host, port and proxies. The gateway states these facts itself.
    Relay,
    /// A method other than the method of the request.
    Method,
    /// A target other than the target of the request.
    Target,
    /// A proxy for the service's outgoing requests (httpoxy, CVE-2016-5385).
    Proxy,
    /// An address other than the client's address.
    Address,
    /// A caller other than the verified caller.
    Identity,
}

/// The name in lower case with dashes, the kind, and the product. A `*` at the end marks a prefix.
type Entry = (&'static str, Kind, &'static str);

/// The table, sorted by name. If several entries match a name, the longest entry applies.
const TABLE: [Entry; 107] = [
    ("base-url", Target, "Zend, Symfony"),
    ("cf-access-*", Identity, "Cloudflare Access"),
    ("cf-client-cert-*", Identity, "Cloudflare"),
    ("cf-connecting-*", Address, "Cloudflare"),
    ("cf-pseudo-ipv4", Address, "Cloudflare"),
    ("client-cert", Identity, "RFC 9440"),
    ("client-cert-chain", Identity, "RFC 9440"),
    ("client-ip", Address, "PHP frameworks"),
    ("forwarded*", Relay, "RFC 7239"),
    ("front-end-https", Relay, "Microsoft"),
    ("iv-creds", Identity, "IBM Security Verify Access"),
    ("iv-groups", Identity, "IBM Security Verify Access"),
    ("iv-remote-address", Address, "IBM Security Verify Access"),
    ("iv-user*", Identity, "IBM Security Verify Access"),
    ("mellon-*", Identity, "mod_auth_mellon"),
    ("oam-*", Identity, "Oracle Access Manager"),
    ("oidc-*", Identity, "mod_auth_openidc"),
    ("osso-*", Identity, "Oracle Single Sign-On"),
    ("path-info", Target, "gunicorn"),
    ("proxy*", Proxy, "CGI (httpoxy)"),
    ("remote-addr", Address, "CGI"),
    ("remote-email", Identity, "Authelia"),
    ("remote-group", Identity, "Authelia"),
    ("remote-groups", Identity, "Authelia"),
    ("remote-host", Address, "CGI"),
    ("remote-ip", Address, "various"),
    ("remote-name", Identity, "Authelia"),
    ("remote-user", Identity, "CGI, Authelia"),
    ("script-name", Target, "gunicorn"),
    ("shib-*", Identity, "Shibboleth"),
    ("sm-*", Identity, "SiteMinder"),
    ("ssl-client-*", Identity, "Apache, ingress-nginx"),
    ("tailscale-app-capabilities", Identity, "Tailscale Serve"),
    ("tailscale-user-*", Identity, "Tailscale Serve"),
    ("tls-client-*", Identity, "various"),
    ("true-client-ip", Address, "Akamai, Cloudflare"),
    ("wl-proxy-*", Identity, "WebLogic"),
    ("x-amzn-mtls-*", Identity, "AWS ALB"),
    ("x-amzn-oidc-*", Identity, "AWS ALB"),
    ("x-anonymous-consumer", Identity, "Kong"),
    ("x-apigateway-api-userinfo", Identity, "Google API Gateway"),
    ("x-appengine-*", Identity, "Google App Engine"),
    ("x-appengine-remote-addr", Address, "Google App Engine"),
    ("x-appengine-user-ip", Address, "Google App Engine"),
    ("x-arr-clientcert", Identity, "Azure App Service"),
    ("x-arr-ssl", Relay, "Azure App Service"),
    ("x-authenticated-*", Identity, "Kong"),
    ("x-authentik-*", Identity, "authentik"),
    ("x-azure-clientip", Address, "Azure Front Door"),
    ("x-azure-socketip", Address, "Azure Front Door"),
    ("x-client-addr*", Address, "various"),
    ("x-client-cert*", Identity, "HAProxy"),
    ("x-client-cn", Identity, "various"),
    ("x-client-dn", Identity, "various"),
    ("x-client-ip", Address, "various"),
    ("x-client-ssl-*", Identity, "various"),
    ("x-client-subject*", Identity, "various"),
    ("x-client-verify", Identity, "nginx"),
    ("x-cluster-client-*", Address, "Rackspace, Zeus"),
    ("x-consumer-*", Identity, "Kong"),
    ("x-credential-*", Identity, "Kong"),
    ("x-custom-ip-authorization", Address, "various"),
    ("x-endpoint-api-userinfo", Identity, "Google Cloud Endpoints"),
    ("x-envoy-external-address", Address, "Envoy"),
    ("x-envoy-internal", Address, "Envoy"),
    ("x-envoy-original-*", Target, "Envoy"),
    ("x-forwarded*", Relay, "de facto"),
    ("x-forwarded-access-token", Identity, "oauth2-proxy"),
    ("x-forwarded-client-cert*", Identity, "Envoy"),
    ("x-forwarded-email", Identity, "oauth2-proxy"),
    ("x-forwarded-groups", Identity, "oauth2-proxy"),
    ("x-forwarded-method", Target, "Traefik, Caddy"),
    ("x-forwarded-path", Target, "Kong"),
    ("x-forwarded-preferred-username", Identity, "oauth2-proxy"),
    ("x-forwarded-tls-client-cert*", Identity, "Traefik"),
    ("x-forwarded-uri", Target, "Traefik, Caddy"),
    ("x-forwarded-user", Identity, "oauth2-proxy"),
    ("x-goog-authenticated-user-*", Identity, "Google IAP"),
    ("x-goog-iap-*", Identity, "Google IAP"),
    ("x-host", Target, "various"),
    ("x-http-*", Target, "various"),
    ("x-http-method*", Method, "Google, Microsoft"),
    ("x-jwt-assertion", Identity, "WSO2"),
    ("x-method*", Method, "IBM, various"),
    ("x-ms-client-principal*", Identity, "Azure App Service"),
    ("x-ms-token-*", Identity, "Azure App Service"),
    ("x-original-*", Target, "IIS, ingress-nginx"),
    ("x-original-forwarded-for", Relay, "ingress-nginx"),
    ("x-originating-*", Address, "Microsoft"),
    ("x-override-*", Target, "various"),
    ("x-pomerium-*", Identity, "Pomerium"),
    ("x-proxyuser-ip", Address, "Google"),
    ("x-real-*", Address, "nginx"),
    ("x-remote-*", Identity, "Kubernetes"),
    ("x-remote-addr", Address, "various"),
    ("x-remote-ip", Address, "various"),
    ("x-request-id", Relay, "Heroku, Envoy"),
    ("x-rewrite-*", Target, "IIS, Zend"),
    ("x-scheme", Relay, "ingress-nginx"),
    ("x-script-name", Target, "WSGI"),
    ("x-ssl-*", Identity, "nginx, HAProxy"),
    ("x-tls-client-*", Identity, "various"),
    ("x-url-scheme", Relay, "various"),
    ("x-userinfo", Identity, "APISIX"),
    ("x-vercel-forwarded-for", Address, "Vercel"),
    ("x-vouch-*", Identity, "Vouch Proxy"),
    ("x-webauth-*", Identity, "Grafana"),
];

/// The name endings of other address fields, such as `Fastly-Client-IP` and `DO-Connecting-IP`.
const ADDRESS_ENDS: [&str; 2] = ["-client-ip", "-connecting-ip"];

/// The range of `TABLE` for each letter. `PLACES[0]` is indexed by the first letter of a name. `PLACES[1]` is for names
/// that begin with `x-`, and is indexed by the third letter.
static PLACES: [[(u8, u8); 26]; 2] = places();

const fn places() -> [[(u8, u8); 26]; 2] {
    let mut places = [[(0, 0); 26]; 2];
    let mut at = 0;
    while at < TABLE.len() {
        let Some((by_third, letter)) = key(TABLE[at].0.as_bytes()) else {
            panic!("a name begins with a letter")
        };
        let place = &mut places[by_third][letter];
        if place.1 == 0 {
            place.0 = at as u8;
        }
        place.1 = at as u8 + 1;
        at += 1;
    }
    places
}

/// Returns the two indexes of a name's range in `PLACES`.
const fn key(name: &[u8]) -> Option<(usize, usize)> {
    let (by_third, letter) = match name {
        [b'x', separator, third, ..] if !separator.is_ascii_alphanumeric() => (1, *third),
        [first, ..] => (0, *first),
        [] => return None,
    };
    if letter.is_ascii_lowercase() { Some((by_third, (letter - b'a') as usize)) } else { None }
}

/// Returns the kind of a field that a service could misread, and the name of its entry. `name` must be in lower case,
/// as in `http::HeaderName`.
pub(crate) fn classify(name: &str) -> Option<(Kind, &'static str)> {
    let bytes = name.as_bytes();
    match longest(bytes) {
        Some((pattern, kind, _)) => Some((*kind, pattern)),
        None if bytes.ends_with(b"ip") => {
            let ends = |end: &&str| {
                let start = bytes.len().checked_sub(end.len());
                start.is_some_and(|start| folds_to(end.as_bytes(), &bytes[start..]))
            };
            ADDRESS_ENDS.into_iter().find(ends).map(|end| (Address, end))
        }
        None => None,
    }
}

/// Returns the longest entry that matches a name.
fn longest(name: &[u8]) -> Option<&'static Entry> {
    let (by_third, letter) = key(name)?;
    let (start, end) = PLACES[by_third][letter];
    // This function runs for each field of each forwarded request. One more character of the name excludes nearly all
    // entries of the table.
    let next = 2 * by_third + 1;
    TABLE[usize::from(start)..usize::from(end)]
        .iter()
        .filter(|(pattern, ..)| pattern.as_bytes().get(next) == name.get(next) && covers(pattern, name))
        .max_by_key(|(pattern, ..)| pattern.len())
}

fn covers(pattern: &str, name: &[u8]) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.get(..prefix.len()).is_some_and(|start| folds_to(prefix.as_bytes(), start)),
        None => folds_to(pattern.as_bytes(), name),
    }
}

/// Returns whether a lower-case name equals a known name when folded.
fn folds_to(known: &[u8], name: &[u8]) -> bool {
    known.len() == name.len()
        && known
            .iter()
            .zip(name)
            .all(|(known, byte)| known == byte || (*known == b'-' && !byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &str) -> Option<Kind> {
        classify(name).map(|(kind, _)| kind)
    }

    #[test]
    fn the_table_is_sorted_and_holds_no_name_twice() {
        assert!(TABLE.is_sorted_by(|(one, ..), (other, ..)| one < other));
        for (pattern, kind, product) in TABLE {
            let name = pattern.replace('*', "x");
            assert_eq!(classify(&name), Some((kind, pattern)), "{pattern}");
            assert!(!product.is_empty() && name == name.to_lowercase(), "{pattern}");
        }
    }

    #[test]
    fn the_page_lists_the_table() {
        let page = include_str!("../../../docs/identity.md").to_lowercase();
        for (pattern, ..) in TABLE {
            assert!(page.contains(&format!("`{pattern}`")), "docs/identity.md does not list {pattern}");
        }
    }

    #[test]
    fn every_spelling_of_a_name_is_found() {
        // The names are from the products' documentation or from OWASP WSTG-INPV-17.
        for (names, expected) in [
            (
                &[
                    "x-http-method-override",
                    "x-http-method",
                    "x-method-override",
                    "x-method",
                    "x_http_method",
                ][..],
                Method,
            ),
            (
                &[
                    "x-original-url",
                    "x-original-uri",
                    "x-rewrite-url",
                    "x-override-url",
                    "x-http-path-override",
                    "x-envoy-original-path",
                    "base-url",
                    "x-host",
                    "x_original.url",
                    "script_name",
                    "path_info",
                ],
                Target,
            ),
            (&["proxy", "proxy-host"], Proxy),
            (
                &[
                    "x-real-ip",
                    "true-client-ip",
                    "cf-connecting-ip",
                    "cf-connecting-ipv6",
                    "client-ip",
                    "client_ip",
                    "x-client-ip",
                    "x-originating-ip",
                    "x-remote-ip",
                    "x-remote-addr",
                    "x-proxyuser-ip",
                    "x-azure-clientip",
                    "x-azure-socketip",
                    "x-appengine-user-ip",
                    "x-envoy-external-address",
                    "x-custom-ip-authorization",
                    "x-cluster-client-ip",
                    "fastly-client-ip",
                    "fastly_client.ip",
                    "do-connecting-ip",
                    "x-nf-client-connection-client-ip",
                ],
                Address,
            ),
            (
                &[
                    "remote-user",
                    "remote_user",
                    "remote-groups",
                    "remote-email",
                    "remote-name",
                    "x-remote-user",
                    "x-remote-group",
                    "x-webauth-user",
                    "x-webauth-role",
                    "x-forwarded-user",
                    "x-forwarded-groups",
                    "x-forwarded-email",
                    "x-forwarded-preferred-username",
                    "x-forwarded-client-cert",
                    "x-ssl-client-cert",
                    "x-ssl-client-verify",
                    "ssl-client-subject-dn",
                    "x-client-cert",
                    "client-cert",
                    "client-cert-chain",
                    "x-goog-authenticated-user-email",
                    "x-amzn-oidc-identity",
                    "cf-access-authenticated-user-email",
                    "x-pomerium-jwt-assertion",
                    "x-authentik-username",
                    "x-ms-client-principal",
                    "x-ms-client-principal-name",
                    "tailscale-user-login",
                    "x-vouch-user",
                    "x_vouch_user",
                    "sm_user",
                    "oidc_claim_sub",
                ],
                Identity,
            ),
            (
                &["forwarded", "x-forwarded-for", "x_forwarded_host", "x-forwarded-prefix", "x-request-id"],
                Relay,
            ),
        ] {
            for name in names {
                assert_eq!(kind(name), Some(expected), "{name}");
            }
        }
    }

    #[test]
    fn ordinary_fields_are_not_in_the_table() {
        for name in [
            "accept",
            "accept-encoding",
            "authorization",
            "baggage",
            "cache-control",
            "content-type",
            "cookie",
            "client-version",
            "dnt",
            "from",
            "forward",
            "host",
            "if-none-match",
            "origin",
            "priority",
            "pragma",
            "referer",
            "remote",
            "remotely",
            "sec-fetch-site",
            "te",
            "traceparent",
            "tracestate",
            "true-client",
            "upgrade-insecure-requests",
            "user-agent",
            "via",
            "x",
            "x-",
            "x-api-key",
            "x-client-id",
            "x-client-version",
            "x-csrf-token",
            "x-requested-with",
            "xremote-user",
            "x--",
            "x-azure-fdid",
            "ip",
        ] {
            assert_eq!(kind(name), None, "{name}");
        }
    }
}
