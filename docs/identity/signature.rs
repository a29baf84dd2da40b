//! Checks a request's X-Auth-Signature in a Rust service, with aws-lc-rs or with ring, which has the same `hmac`.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use std::collections::BTreeMap;

/// Returns the proven identity by header name, or `None`. `now` is in seconds since 1970.
pub fn identity<'h>(
    (method, target): (&str, &str),
    headers: &'h HeaderMap,
    secret: &[u8],
    now: u64,
) -> Option<BTreeMap<&'h str, &'h str>> {
    // A header that occurs twice has no single value.
    let one = |name: &str| -> Option<&'h str> {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none())?.to_str().ok()
    };
    let mut parts = one("x-auth-signature")?.split(';');
    let version = parts.next()?;
    let mut part = |label| parts.next()?.strip_prefix(label);
    let (made, names, tag) = (part("t=")?, part("h=")?, part("s=")?);
    if version != "v1" || made.parse::<u64>().ok()?.abs_diff(now) > 60 {
        return None;
    }
    let proven = names.split(',').map(|name| Some((name, one(name)?))).collect::<Option<Vec<_>>>()?;
    let mut signed = format!("v1\n{made}\n{method}\n{target}\n");
    for (name, value) in &proven {
        signed.push_str(&format!("{name}:{value}\n"));
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::verify(&key, signed.as_bytes(), &URL_SAFE_NO_PAD.decode(tag).ok()?).ok()?;
    Some(proven.into_iter().collect()) // and no other header is believed
}
