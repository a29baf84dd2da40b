//! Decides whether an answer is compressed, and how.
//!
//! An attacker who can put text into an answer, and sees its compressed length, can guess a secret beside the text
//! (BREACH). Answers that may contain a secret are therefore not compressed, unless the operator says so for the route.

use super::accept::weight;
use crate::field_list::members;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_RANGE, CONTENT_TYPE, COOKIE, ETAG, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::fmt;

/// Shorter answers are not compressed, because the gain is smaller than the cost.
const LENGTH_MIN: u64 = 1024;
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Fields that state a digest or signature of the uncompressed bytes (RFC 9530, RFC 9421, RFC 1864).
const DIGESTS: [HeaderName; 6] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("signature"),
    HeaderName::from_static("signature-input"),
];
/// The media types that are compressed if the policy lists none. Most other types are compressed already.
const USUAL_TYPES: [&str; 16] = [
    "application/javascript",
    "application/json",
    "application/manifest+json",
    "application/problem+json",
    "application/ld+json",
    "application/rss+xml",
    "application/atom+xml",
    "application/wasm",
    "application/xml",
    "image/svg+xml",
    "text/css",
    "text/csv",
    "text/html",
    "text/javascript",
    "text/plain",
    "text/xml",
];

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Zstandard (RFC 8878).
    Zstd,
    /// Brotli (RFC 7932).
    Brotli,
    /// Gzip (RFC 1952).
    Gzip,
}

impl Coding {
    /// All codings, in the gateway's order of preference.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// Returns the name in `Accept-Encoding` and `Content-Encoding`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// Returns the memory of an encoder with the settings of the gateway, in bytes. A test measures it.
    pub(crate) const fn memory(self) -> u64 {
        match self {
            Self::Zstd => 2 << 20,
            Self::Brotli => 4 << 20,
            Self::Gzip => 1 << 19,
        }
    }

    fn is_named(self, name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(self.as_str().as_bytes())
            // RFC 9110 section 8.4.1.3.
            || (self == Self::Gzip && name.eq_ignore_ascii_case(b"x-gzip"))
    }
}

/// Returns the coding that the client prefers out of those that are offered (RFC 9110 section 12.5.3). If the client
/// has no preference, the first one wins. Returns `None` if the client accepts none, or prefers the plain answer.
pub fn negotiate(headers: &HeaderMap, offered: &[Coding]) -> Option<Coding> {
    let of = |is_named: &dyn Fn(&[u8]) -> bool| {
        members(headers, &ACCEPT_ENCODING).find_map(|member| {
            let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            is_named(parts.next().unwrap_or_default()).then(|| weight(parts))
        })
    };
    let any = of(&|name| name == b"*");
    let plain = of(&|name| name.eq_ignore_ascii_case(b"identity")).unwrap_or(0);
    let mut best: Option<(u16, Coding)> = None;
    for coding in offered {
        let weight = of(&|name| coding.is_named(name)).or(any).unwrap_or(0);
        if weight > best.map_or(0, |(best, _)| best) {
            best = Some((weight, *coding));
        }
    }
    best.filter(|(weight, _)| *weight >= plain).map(|(_, coding)| coding)
}

/// The compression of a route's answers.
#[derive(Clone, Debug)]
pub(crate) struct Compression {
    /// The codings, the preferred one first.
    pub(crate) codings: Box<[Coding]>,
    /// The media types, in lower case. The usual ones if empty.
    pub(crate) types: Box<[Box<str>]>,
    /// Whether answers to requests with credentials are compressed too.
    pub(crate) with_credentials: bool,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codings: Vec<_> = self.codings.iter().map(|coding| coding.as_str()).collect();
        f.write_str(&codings.join(" "))?;
        f.write_str(if self.with_credentials { ", also with credentials" } else { "" })
    }
}

/// The facts of a request that decide about the coding of its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    coding: Option<Coding>,
    is_head: bool,
}

impl Wish {
    /// Returns the coding for answers that may be compressed.
    pub(crate) fn coding(self) -> Option<Coding> {
        self.coding
    }
}

impl Compression {
    /// Reads a request. `has_caller` is true if a token, an API key or a certificate was verified.
    pub(crate) fn wish(&self, headers: &HeaderMap, is_head: bool, has_caller: bool) -> Wish {
        let has_credential =
            has_caller || headers.contains_key(COOKIE) || headers.contains_key(AUTHORIZATION);
        // Only the site itself may cause answers with secrets whose length an attacker could compare.
        let is_foreign =
            headers.get_all(SEC_FETCH_SITE).iter().any(|site| site != "same-origin" && site != "none");
        let may = !has_credential || (self.with_credentials && !is_foreign);
        let may = may && !forbids_transformation(headers);
        Wish { coding: if may { negotiate(headers, &self.codings) } else { None }, is_head }
    }

    /// Changes the fields of an answer, and returns the coding for its body. `length` is the length of the body, if it
    /// is known. `is_free` is asked last: it returns whether the core can compress one more answer.
    pub(crate) fn apply(
        &self,
        wish: Wish,
        status: StatusCode,
        headers: &mut HeaderMap,
        length: Option<u64>,
        is_free: impl FnOnce(Coding) -> bool,
    ) -> Option<Coding> {
        if status == StatusCode::NOT_MODIFIED {
            // The client may hold the compressed answer, whose validator is weak.
            weaken(headers);
            vary(headers);
            return None;
        }
        let length = length.filter(|_| !wish.is_head).or_else(|| announced(headers));
        if !self.may_compress(status, headers) || length.is_some_and(|length| length < LENGTH_MIN) {
            return None;
        }
        vary(headers);
        let coding = wish.coding.filter(|coding| wish.is_head || is_free(*coding))?;
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
        headers.remove(CONTENT_LENGTH);
        // A range would be one of the plain answer.
        headers.remove(ACCEPT_RANGES);
        weaken(headers);
        Some(coding).filter(|_| !wish.is_head)
    }

    fn may_compress(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let has_content = !status.is_informational()
            && !matches!(
                status,
                StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::PARTIAL_CONTENT
            );
        has_content
            && !headers.contains_key(CONTENT_ENCODING)
            && !headers.contains_key(CONTENT_RANGE)
            && !forbids_transformation(headers)
            && !DIGESTS.iter().any(|name| headers.contains_key(name))
            && self.is_listed(headers)
    }

    fn is_listed(&self, headers: &HeaderMap) -> bool {
        let mut kinds = headers.get_all(CONTENT_TYPE).iter();
        let (Some(kind), None) = (kinds.next(), kinds.next()) else { return false };
        let kind = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let is = |known: &str| kind.eq_ignore_ascii_case(known.as_bytes());
        if self.types.is_empty() {
            USUAL_TYPES.into_iter().any(is)
        } else {
            self.types.iter().any(|known| is(known))
        }
    }
}

/// Removes the digests of the uncompressed bytes from the trailers of a compressed answer.
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    for name in DIGESTS {
        trailers.remove(name);
    }
}

/// Whether a message must not be transformed (RFC 9111 sections 5.2.1.6 and 5.2.2.6).
fn forbids_transformation(headers: &HeaderMap) -> bool {
    members(headers, &CACHE_CONTROL).any(|directive| directive.eq_ignore_ascii_case(b"no-transform"))
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Makes the validator weak: the compressed bytes differ from those that the server validated (RFC 9110 section 8.8.3).
fn weaken(headers: &mut HeaderMap) {
    if let Some(tag) = headers.get(ETAG)
        && tag.as_bytes().starts_with(b"\"")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        headers.insert(ETAG, weak);
    }
}

/// Tells caches that the answer depends on `Accept-Encoding`.
fn vary(headers: &mut HeaderMap) {
    let is_known =
        |name: &[u8]| name == b"*" || name.eq_ignore_ascii_case(ACCEPT_ENCODING.as_str().as_bytes());
    if !members(headers, &VARY).any(is_known) {
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

#[cfg(test)]
mod tests;
