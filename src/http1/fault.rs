//! The reasons for which an answer is refused.

use std::fmt;

/// The maximum number of characters of a field's values in a reason.
const VALUES_MAX: usize = 100;

/// The reason why the bytes of an upstream are not an answer whose end is certain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerFault {
    /// The status line or a field line is malformed.
    Head(&'static str),
    /// The head has more bytes or more fields than the bounds allow.
    TooLarge,
    /// More interim answers arrived than the bound allows.
    TooManyInterim,
    /// The transfer codings, which are not a single `chunked` of HTTP/1.1.
    Codings(String),
    /// The lengths, which are not one number.
    Length(String),
    /// A chunk or the trailer section is malformed.
    Chunk(&'static str),
    /// The connection closed before the end of the answer.
    Incomplete,
}

impl fmt::Display for AnswerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(why) => write!(f, "the head of the answer is malformed: {why}"),
            Self::TooLarge => f.write_str("the head of the answer is too large"),
            Self::TooManyInterim => f.write_str("too many interim answers"),
            Self::Codings(codings) => write!(
                f,
                "the upstream's answer has Transfer-Encoding: {codings}; only a single \"chunked\" of HTTP/1.1 can be passed on"
            ),
            Self::Length(lengths) => write!(f, "the upstream's answer has Content-Length: {lengths}"),
            Self::Chunk(why) => write!(f, "the chunked body is malformed: {why}"),
            Self::Incomplete => f.write_str("the connection closed before the end of the answer"),
        }
    }
}

impl std::error::Error for AnswerFault {}

impl AnswerFault {
    /// Adds the values of the field that is at fault, for the operator. Their text is shortened.
    #[cold]
    pub(super) fn with_values(mut self, fields: &[httparse::Header<'_>]) -> Self {
        let (name, text) = match &mut self {
            Self::Codings(text) => ("transfer-encoding", text),
            Self::Length(text) => ("content-length", text),
            Self::Head(_) | Self::TooLarge | Self::TooManyInterim | Self::Chunk(_) | Self::Incomplete => {
                return self;
            }
        };
        let named = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        let values: Vec<_> = named.map(|field| String::from_utf8_lossy(field.value)).collect();
        *text = values.join(", ").chars().take(VALUES_MAX).collect();
        self
    }
}

/// Returns an error's fixed text.
pub(super) fn text(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "an invalid field name",
        httparse::Error::HeaderValue => "an invalid field value",
        httparse::Error::NewLine => "an invalid line end",
        httparse::Error::Status => "an invalid status",
        httparse::Error::Version => "an unknown protocol or version",
        httparse::Error::Token | httparse::Error::TooManyHeaders => "an invalid character",
    }
}
