//! Parses the body of a request to an endpoint: one JSON object or one form, in which each field occurs once.
//!
//! Rejects a body that two parsers may read differently: a repeated member, an invalid percent code, or bytes that are
//! not UTF-8. Values are wiped on drop, because a value may be a password.

use crate::authenticate::json;
use crate::denial::{BodyFault, Denial};
use http::{HeaderMap, header};
use serde_json::Value;
use zeroize::Zeroizing;

/// Maximum length of a body, in bytes.
pub const BODY_MAX: u64 = 64 * 1024;
/// Maximum number of fields, more than any endpoint defines.
const FIELDS_MAX: usize = 32;

/// The fields of a body.
#[derive(Default)]
pub struct Fields {
    fields: Vec<(String, Field)>,
    is_form: bool,
}

impl std::fmt::Debug for Fields {
    /// Writes only the names, because a value may be a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.fields.iter().map(|(name, _)| name)).finish()
    }
}

/// The media type of a body, as stated by `Content-Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// A JSON text.
    Json,
    /// A form (`application/x-www-form-urlencoded`).
    Form,
}

impl BodyKind {
    /// Returns the media type from `Content-Type` without its parameters (RFC 9110 section 8.3). Returns `None` for any
    /// other type, and for a missing or repeated header.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
        let (Some(kind), None) = (kinds.next(), kinds.next()) else { return None };
        let essence = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        if essence.eq_ignore_ascii_case(b"application/json") {
            Some(Self::Json)
        } else if essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
            Some(Self::Form)
        } else {
            None
        }
    }
}

enum Field {
    Text(Zeroizing<String>),
    /// A JSON value that is not a string.
    Other,
}

impl Fields {
    /// Reads a body. An empty body has no fields, whatever its media type.
    ///
    /// # Errors
    /// [`Denial::UnsupportedMediaType`], [`Denial::InvalidBody`].
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Denial> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        match BodyKind::of(headers) {
            Some(BodyKind::Json) => Self::json(body),
            Some(BodyKind::Form) => Self::form(body),
            None => Err(Denial::UnsupportedMediaType),
        }
    }

    fn json(body: &[u8]) -> Result<Self, Denial> {
        let object = json::object(body).map_err(|_| Denial::InvalidBody(BodyFault::Json))?;
        if object.len() > FIELDS_MAX {
            return Err(Denial::InvalidBody(BodyFault::Json));
        }
        let fields = object.into_iter().map(|(name, value)| match value {
            Value::String(text) => (name, Field::Text(Zeroizing::new(text))),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                (name, Field::Other)
            }
        });
        Ok(Self { fields: fields.collect(), is_form: false })
    }

    /// Reads a form (URL Standard, `application/x-www-form-urlencoded`). Unlike the standard, rejects pairs without
    /// `=`, repeated fields, invalid percent codes and bytes that are not UTF-8.
    ///
    /// # Errors
    /// [`Denial::InvalidBody`].
    pub fn form(body: &[u8]) -> Result<Self, Denial> {
        let wrong = Denial::InvalidBody(BodyFault::Form);
        let mut fields: Vec<(String, Field)> = Vec::new();
        for pair in body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let equals = pair.iter().position(|byte| *byte == b'=').ok_or_else(|| wrong.clone())?;
            let name = decoded(&pair[..equals]).ok_or_else(|| wrong.clone())?;
            let value = decoded(&pair[equals + 1..]).ok_or_else(|| wrong.clone())?;
            if fields.len() >= FIELDS_MAX || fields.iter().any(|(known, _)| *known == *name) {
                return Err(wrong);
            }
            fields.push((name.to_string(), Field::Text(value)));
        }
        Ok(Self { fields, is_form: true })
    }

    /// Returns the field `name` of a form that another application defines. Other fields are ignored, even if repeated
    /// or invalid. An empty field counts as absent.
    ///
    /// # Errors
    /// [`Denial::InvalidBody`] if the field is repeated or cannot be decoded.
    pub fn one_of_form(body: &[u8], name: &str) -> Result<Option<Zeroizing<String>>, Denial> {
        let wrong = || Denial::InvalidBody(BodyFault::Form);
        let mut found = None;
        for pair in body.split(|byte| *byte == b'&') {
            let equals = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            if decoded(&pair[..equals]).is_some_and(|known| *known == name) {
                let value = decoded(pair.get(equals + 1..).unwrap_or_default()).ok_or_else(wrong)?;
                if found.replace(value).is_some() {
                    return Err(wrong());
                }
            }
        }
        Ok(found.filter(|value| !value.is_empty()))
    }

    /// Whether the body was a form.
    pub fn is_form(&self) -> bool {
        self.is_form
    }

    /// Returns an optional field. An empty field counts as absent.
    ///
    /// # Errors
    /// [`Denial::InvalidBody`] if its value is not a string.
    pub fn optional(&self, name: &str) -> Result<Option<&str>, Denial> {
        match self.fields.iter().find(|(known, _)| known == name) {
            Some((_, Field::Text(text))) if !text.is_empty() => Ok(Some(text)),
            Some((_, Field::Text(_))) | None => Ok(None),
            Some((_, Field::Other)) => Err(Denial::InvalidBody(BodyFault::WrongType)),
        }
    }

    /// Returns a required field.
    ///
    /// # Errors
    /// [`Denial::InvalidBody`].
    pub fn required(&self, name: &str) -> Result<&str, Denial> {
        self.optional(name)?.ok_or(Denial::InvalidBody(BodyFault::Missing))
    }
}

/// Decodes a name or a value of a form. Returns `None` for an invalid percent code or invalid UTF-8.
pub(super) fn decoded(bytes: &[u8]) -> Option<Zeroizing<String>> {
    let mut out = Zeroizing::new(Vec::with_capacity(bytes.len()));
    let mut rest = bytes.iter();
    while let Some(byte) = rest.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(*digit).to_digit(16));
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => *byte,
        });
    }
    std::str::from_utf8(&out).ok().map(|text| Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, body: &str) -> Result<Fields, Denial> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
        Fields::read(&headers, body.as_bytes())
    }

    #[test]
    fn json_and_forms_say_the_same() {
        for (kind, body) in [
            ("application/json", r#"{"username":"ada l&=+%","password":"p","n":1}"#),
            ("Application/JSON; charset=utf-8", r#"{"username":"ada l&=+%","password":"p","n":[]}"#),
            ("application/x-www-form-urlencoded", "username=ada+l%26%3D%2B%25&password=p"),
            ("application/x-www-form-urlencoded;charset=UTF-8", "&username=ada%20l%26=%2b%25&&password=p&"),
        ] {
            let fields = read(kind, body).unwrap();
            assert_eq!(fields.required("username").unwrap(), "ada l&=+%", "{body}");
            assert_eq!(fields.required("password").unwrap(), "p");
            assert_eq!(fields.optional("x"), Ok(None));
            assert_eq!(fields.is_form(), kind.contains("form"));
        }
    }

    #[test]
    fn ambiguous_and_malformed_bodies_are_refused_by_name() {
        let json = Denial::InvalidBody(BodyFault::Json);
        let form = Denial::InvalidBody(BodyFault::Form);
        for body in ["[]", "{", "\"a\"", "{}{}", r#"{"a":"1","a":"2"}"#, "{\"a\":\"\\ud800\"}", "\u{feff}{}"]
        {
            assert_eq!(read("application/json", body).unwrap_err(), json, "{body}");
        }
        for body in ["a=1&a=2", "a=1&%61=2", "a=%", "a=%4", "a=%zz", "a=%ff", "a", "%=1"] {
            assert_eq!(read("application/x-www-form-urlencoded", body).unwrap_err(), form, "{body}");
        }
        for kind in ["text/plain", "multipart/form-data; boundary=x", "application/jsonx", ""] {
            assert_eq!(read(kind, "{}").unwrap_err(), Denial::UnsupportedMediaType, "{kind}");
        }
        let many: Vec<_> = (0..=FIELDS_MAX).map(|n| format!("f{n}=1")).collect();
        assert_eq!(read("application/x-www-form-urlencoded", &many.join("&")).unwrap_err(), form);
    }

    #[test]
    fn a_field_of_another_type_is_not_an_absent_one() {
        for value in ["1", "null", "true", "[\"a\"]", "{}"] {
            let fields = read("application/json", &format!("{{\"a\":{value}}}")).unwrap();
            assert_eq!(fields.optional("a"), Err(Denial::InvalidBody(BodyFault::WrongType)), "{value}");
        }
        let fields = read("application/json", r#"{"a":""}"#).unwrap();
        assert_eq!(fields.required("a"), Err(Denial::InvalidBody(BodyFault::Missing)));
    }

    #[test]
    fn one_field_of_a_form_is_read_whatever_the_others_are() {
        let wrong = Err(Denial::InvalidBody(BodyFault::Form));
        let one = |body: &str| Fields::one_of_form(body.as_bytes(), "t").map(|v| v.map(|v| v.to_string()));
        let many: Vec<_> = (0..100).map(|n| format!("tag={n}")).collect();
        for body in
            ["t=a%2Bb", "x=%ff&y&&x=1&t=a%2bb", "%74=a%2Bb&tt=1&T=2", &format!("{}&t=a%2Bb", many.join("&"))]
        {
            assert_eq!(one(body), Ok(Some("a+b".to_owned())), "{body}");
        }
        for body in ["", "t", "t=", "x=t=1", "tt=1", "t%20=1", "%t=1"] {
            assert_eq!(one(body), Ok(None), "{body}");
        }
        for body in ["t=1&t=1", "t=1&%74=2", "t=&t=1", "t&t=1", "t=%", "t=%ff"] {
            assert_eq!(one(body), wrong, "{body}");
        }
    }

    #[test]
    fn nothing_of_a_field_is_shown() {
        let fields = read("application/json", r#"{"password":"s3cret"}"#).unwrap();
        assert_eq!(format!("{fields:?}"), "[\"password\"]");
    }
}
