//! Compiles `[tls] hsts`, the value of `Strict-Transport-Security` (RFC 6797 section 6.1).

use http::HeaderValue;

/// Returns the value as it is sent.
///
/// # Errors
/// Returns why browsers would ignore it: a browser ignores the whole field if one directive is malformed, occurs twice or
/// if `max-age` is missing, and says nothing.
pub(super) fn parse(text: &str) -> Result<HeaderValue, String> {
    let value = HeaderValue::from_str(text).map_err(|_| "not a header value".to_owned())?;
    let mut names: Vec<String> = Vec::new();
    let mut max_age = None;
    // The grammar allows empty directives.
    for directive in text.split(';').map(str::trim).filter(|directive| !directive.is_empty()) {
        let (name, value) = match directive.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(value.trim_start())),
            None => (directive, None),
        };
        let is_valid = is_token(name) && value.is_none_or(|value| is_token(unquoted(value)));
        if !is_valid {
            return Err(format!("\"{directive}\" is not a directive"));
        }
        let name = name.to_ascii_lowercase();
        if names.contains(&name) {
            return Err(format!("the directive {name} appears twice"));
        }
        if name == "max-age" {
            max_age = Some(unquoted(value.unwrap_or_default()));
        }
        names.push(name);
    }
    match max_age {
        None => Err("max-age is missing".to_owned()),
        Some(seconds) if !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok(value)
        }
        Some(seconds) => Err(format!("max-age is \"{seconds}\", not a number of seconds")),
    }
}

/// Returns whether the value turns HSTS off in browsers that know the host.
pub(crate) fn is_off(text: &str) -> bool {
    let seconds = text.split(';').find_map(|directive| {
        let (name, value) = directive.split_once('=')?;
        name.trim().eq_ignore_ascii_case("max-age").then(|| unquoted(value.trim()))
    });
    text.is_empty() || seconds.is_some_and(|seconds| seconds.bytes().all(|byte| byte == b'0'))
}

/// Returns the text without one pair of quotes around it.
fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text)
}

/// Returns whether the text is a token (RFC 9110 section 5.6.2).
fn is_token(text: &str) -> bool {
    let is_sign = |byte| b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || is_sign(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_value_that_browsers_ignore_is_rejected() {
        for good in [
            "max-age=31536000",
            "Max-Age=31536000; includeSubDomains",
            "max-age=31536000 ; includeSubDomains; preload",
            "preload;;max-age = \"0\";",
        ] {
            assert_eq!(parse(good).unwrap(), good);
        }
        for (bad, why) in [
            ("includeSubDomains", "max-age is missing"),
            (";", "max-age is missing"),
            ("max-age", "max-age is \"\", not a number of seconds"),
            ("max-age=", "\"max-age=\" is not a directive"),
            ("max-age=1y", "max-age is \"1y\", not a number of seconds"),
            ("max-age=-1", "max-age is \"-1\", not a number of seconds"),
            ("max-age=1, includeSubDomains", "\"max-age=1, includeSubDomains\" is not a directive"),
            ("max-age=1; max-age=1", "the directive max-age appears twice"),
            ("max-age=1; preload; Preload", "the directive preload appears twice"),
            ("max-age=1; include SubDomains", "\"include SubDomains\" is not a directive"),
            ("max-age:1", "\"max-age:1\" is not a directive"),
            ("max-age=1\n", "not a header value"),
        ] {
            assert_eq!(parse(bad), Err(why.to_owned()), "{bad}");
        }
    }

    #[test]
    fn a_lifetime_of_zero_turns_it_off() {
        for off in ["", "max-age=0", "includeSubDomains; MAX-AGE = \"00\""] {
            assert!(is_off(off), "{off}");
        }
        for on in ["max-age=1", "max-age=10; preload"] {
            assert!(!is_off(on), "{on}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_value_has_one_lifetime(text in "(max-age|preload|x)?(=|;|,| |\"|[0-9]){0,4}(max-age=[0-9\"]{0,3};?){0,2}") {
            if parse(&text).is_ok() {
                let names = text.split(';').map(|directive| directive.split('=').next().unwrap_or_default().trim());
                prop_assert_eq!(names.filter(|name| *name == "max-age").count(), 1);
                prop_assert!(text.bytes().any(|byte| byte.is_ascii_digit()));
            }
        }
    }
}
