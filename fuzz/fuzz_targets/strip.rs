//! No field that a client can write reaches the upstream if it states an identity in any spelling, is hop-by-hop, or is
//! named by `Connection`. The other fields reach it unchanged and in order.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use portcullis::authenticate::IdentityHeaders;
use portcullis::forward::strip::{self, Filter, Verdict};
use std::collections::BTreeSet;

const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Returns a name as a CGI-style backend reads it.
fn folded(name: &str) -> String {
    name.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b.to_ascii_uppercase()) } else { '_' })
        .collect()
}

// The first byte selects the settings. Each line is a field.
fuzz_target!(|data: &[u8]| {
    let Some((settings, lines)) = data.split_first() else { return };
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n').take(32) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    let identity = IdentityHeaders::default().reserving(&HeaderName::from_static("remote-user"));
    let pass = [HeaderName::from_static("x-real-ip"), header::FORWARDED];
    let pass = if settings & 1 == 0 { &pass[..] } else { &[] };
    let filter =
        Filter { identity: &identity, pass, authorization: settings & 2 == 0, proof: settings & 4 == 0 };
    let named: BTreeSet<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|name| String::from_utf8_lossy(name).trim_ascii().to_ascii_lowercase())
        .collect();
    let mut left = headers.clone();
    let forged = strip::request(&mut left, &filter);
    for name in left.keys() {
        let read = folded(name.as_str());
        assert!(!read.starts_with("X_AUTH_") && read != "REMOTE_USER", "{name}");
        assert!(!read.starts_with("PROXY"), "{name}");
        assert!(read != "X_FORWARDED_FOR" && (settings & 1 == 0 || read != "FORWARDED"), "{name}");
        assert!(!HOP_BY_HOP.contains(&name.as_str()), "{name}");
        assert!(!named.contains(name.as_str()), "{name} is an option of Connection");
        assert!(settings & 2 == 0 || name != header::AUTHORIZATION);
    }
    let mut states_identity = 0;
    for name in headers.keys() {
        let verdict = filter.verdict(name);
        let is_named = named.contains(name.as_str());
        states_identity += u64::from(verdict == Verdict::Forged && !is_named);
        if verdict == Verdict::Keep && !is_named {
            assert!(left.get_all(name).iter().eq(headers.get_all(name)), "{name}");
        } else {
            assert!(!left.contains_key(name), "{name}");
        }
    }
    assert_eq!(forged, states_identity);
    let mut again = left.clone();
    assert_eq!((strip::request(&mut again, &filter), again), (0, left));
});
