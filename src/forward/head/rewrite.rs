//! Changes the path and the host of a request for its upstream.

use super::pattern::Pattern;
use crate::denial::Malformed;
use http::HeaderValue;
use std::borrow::Cow;

/// The longest prefix to add, in bytes.
pub(crate) const PREFIX_BYTES_MAX: usize = 1024;

/// The compiled changes of a route. Both prefixes are literal segments in canonical spelling, so the result of a
/// canonical path is canonical: no segment changes, joins another or becomes a dot segment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rewrite {
    /// The prefix to remove, without a slash at its end.
    pub(crate) strip: Option<Box<str>>,
    /// The prefix to add, without a slash at its end.
    pub(crate) add: Option<Box<str>>,
    /// The pattern of the new path. It excludes both prefixes.
    pub(crate) pattern: Option<Pattern>,
    /// The value of `Host` for the upstream.
    pub(crate) host: Option<HeaderValue>,
}

impl Rewrite {
    /// Returns the path for the upstream. Two paths below the removed prefix never become the same path, except that
    /// without an added prefix the removed prefix itself becomes `/`.
    ///
    /// # Errors
    /// Returns the error of [`Pattern::path`].
    pub(crate) fn path<'p>(&self, path: &'p str) -> Result<Cow<'p, str>, Malformed> {
        if let Some(pattern) = &self.pattern {
            return pattern.path(path);
        }
        let rest = self.rest(path).unwrap_or(path);
        Ok(match (&self.add, rest) {
            (Some(add), rest) => Cow::Owned([add, rest].concat()),
            (None, "") => Cow::Borrowed("/"),
            (None, rest) => Cow::Borrowed(rest),
        })
    }

    /// Returns the prefix that is removed from a path.
    pub(crate) fn stripped(&self, path: &str) -> Option<HeaderValue> {
        let prefix = self.strip.as_deref().filter(|_| self.rest(path).is_some())?;
        HeaderValue::from_str(prefix).ok()
    }

    /// Returns a path that becomes `sent` for the upstream. Returns `None` for a pattern, which has no general inverse.
    pub(crate) fn source(&self, sent: &str) -> Option<String> {
        if self.pattern.is_some() {
            return None;
        }
        let rest = match self.add.as_deref() {
            Some(add) => below(sent, add)?,
            None => sent,
        };
        Some(format!("{}{rest}", self.strip.as_deref().unwrap_or_default())).filter(|path| !path.is_empty())
    }

    /// Returns the part of a path after the removed prefix: nothing, or a slash and more.
    fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        below(path, self.strip.as_deref()?)
    }
}

/// Returns the rest of a path after a prefix that ends at the end of a segment.
fn below<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::path::canonical;
    use proptest::prelude::*;

    fn rewrite(strip: &str, add: &str) -> Rewrite {
        let text = |text: &str| (!text.is_empty()).then(|| text.into());
        Rewrite { strip: text(strip), add: text(add), pattern: None, host: None }
    }

    #[test]
    fn a_prefix_is_removed_at_the_end_of_a_segment_only() {
        for (path, strip, add, sent) in [
            ("/api/orders", "/api", "", "/orders"),
            ("/api/api/orders", "/api", "", "/api/orders"),
            ("/api", "/api", "", "/"),
            ("/api/", "/api", "", "/"),
            ("/apix", "/api", "", "/apix"),
            ("/orders", "", "/v2", "/v2/orders"),
            ("/", "", "/v2", "/v2/"),
            ("/api/orders", "/api", "/v2/shop", "/v2/shop/orders"),
            ("/api", "/api", "/v2", "/v2"),
            ("/api/", "/api", "/v2", "/v2/"),
        ] {
            assert_eq!(rewrite(strip, add).path(path).unwrap(), sent, "{path} {strip} {add}");
        }
    }

    fn prefix() -> impl Strategy<Value = String> {
        prop_oneof![1 => Just(String::new()), 4 => "(/([a-c]|%20|%C3%A9|[.]{3}|a;b)){1,3}"]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        /// The segments that the policy authorized reach the upstream unchanged, after the segments that the policy
        /// adds.
        #[test]
        fn a_rewritten_path_is_canonical_and_has_the_authorized_segments(
            strip in prefix(),
            add in prefix(),
            raw in "(/([a-c]|%2e|%2E%2e|\\.|\\.\\.|%2f|%5C|;|%3b|\\.;x|%61|%20|%252e|\\\\)+){0,5}/?",
        ) {
            let Ok(rest) = canonical(&raw) else { return Ok(()) };
            let rewrite = rewrite(&strip, &add);
            let path = format!("{strip}{rest}");
            let sent = rewrite.path(&path).unwrap().into_owned();
            prop_assert_eq!(&sent, &format!("{add}{rest}"));
            prop_assert!(matches!(canonical(&sent), Ok(Cow::Borrowed(same)) if same == sent), "{}", sent);
            prop_assert_eq!(rewrite.source(&sent), Some(path));
            let named = rewrite.stripped(&format!("{strip}{rest}"));
            prop_assert_eq!(named.is_some(), !strip.is_empty());
        }
    }
}
