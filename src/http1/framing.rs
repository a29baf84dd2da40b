//! Determines the end of a response from its head (RFC 9112 section 6.3).

use super::AnswerFault;
use http::{HeaderName, StatusCode, header};

/// The way in which the end of an answer's body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The answer has no body, whatever its fields say.
    Empty,
    /// The body has this many bytes.
    Length(u64),
    /// The body is chunked.
    Chunked,
    /// The body ends when the connection closes.
    UntilClose,
}

/// The fields of a head that concern its framing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FramingFields {
    length: Length,
    coding: Coding,
    /// Whether `Connection` has the option `close`.
    closes: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Length {
    #[default]
    Absent,
    /// One number. It may be repeated or listed (RFC 9110 section 8.6).
    One(u64),
    Invalid,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Coding {
    #[default]
    Absent,
    /// A single `chunked`.
    Chunked,
    /// Anything else. The gateway decodes only `chunked`, and `Transfer-Encoding` does not reach the client, so the
    /// client could not decode the body.
    Other,
}

impl FramingFields {
    /// Adds a field, if it concerns the framing. Returns whether the field also concerns others than the two ends of
    /// the connection.
    #[inline]
    pub(super) fn add(&mut self, name: &str, value: &[u8]) -> bool {
        let is = |known: HeaderName| name.eq_ignore_ascii_case(known.as_str());
        // The length alone rules out nearly all names.
        match name.len() {
            10 if is(header::CONNECTION) => {
                self.add_connection(value);
                !(value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close"))
            }
            14 if is(header::CONTENT_LENGTH) => {
                self.add_length(value);
                false
            }
            17 if is(header::TRANSFER_ENCODING) => {
                self.add_coding(value);
                false
            }
            _ => true,
        }
    }

    /// Adds a value of `Content-Length`.
    fn add_length(&mut self, value: &[u8]) {
        for member in value.split(|byte| *byte == b',') {
            self.length = match (self.length, number(member.trim_ascii())) {
                (Length::Absent, Some(length)) => Length::One(length),
                (Length::One(known), Some(length)) if known == length => Length::One(known),
                (Length::Absent | Length::One(_) | Length::Invalid, _) => Length::Invalid,
            };
        }
    }

    /// Adds a value of `Transfer-Encoding`.
    fn add_coding(&mut self, value: &[u8]) {
        let is_only = self.coding == Coding::Absent && value.eq_ignore_ascii_case(b"chunked");
        self.coding = if is_only { Coding::Chunked } else { Coding::Other };
    }

    /// Adds a value of `Connection`.
    fn add_connection(&mut self, value: &[u8]) {
        let mut options = value.split(|byte| *byte == b',');
        self.closes |= options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"));
    }

    /// Returns the length, if it is one number.
    pub(super) fn length(self) -> Option<u64> {
        match self.length {
            Length::One(length) => Some(length),
            Length::Absent | Length::Invalid => None,
        }
    }

    /// Returns the framing of an answer. `version` is the minor version of HTTP/1.
    pub(super) fn framing(
        self,
        status: StatusCode,
        is_head: bool,
        version: u8,
    ) -> Result<Framing, AnswerFault> {
        if is_head || is_empty(status) {
            return Ok(Framing::Empty);
        }
        match (self.coding, self.length) {
            // HTTP/1.0 has no transfer codings: the two sides may mean different things (RFC 9112 section 6.1).
            (Coding::Chunked, _) if version == 1 => Ok(Framing::Chunked),
            (Coding::Chunked | Coding::Other, _) => Err(AnswerFault::Codings(String::new())),
            (Coding::Absent, Length::One(length)) => Ok(Framing::Length(length)),
            (Coding::Absent, Length::Invalid) => Err(AnswerFault::Length(String::new())),
            (Coding::Absent, Length::Absent) => Ok(Framing::UntilClose),
        }
    }

    /// Whether another request may use the connection after the answer.
    pub(super) fn keeps_alive(self, status: StatusCode, version: u8) -> bool {
        // With both fields, or a body where none may be, the server may go on sending what it takes for the rest of the
        // answer (RFC 9112 section 6.3).
        let contradicts = match (self.coding, self.length) {
            (Coding::Absent, Length::Absent | Length::One(0)) => false,
            (Coding::Absent, Length::One(_) | Length::Invalid) => status == StatusCode::NO_CONTENT,
            (Coding::Chunked | Coding::Other, Length::Absent) => status == StatusCode::NO_CONTENT,
            (Coding::Chunked | Coding::Other, Length::One(_) | Length::Invalid) => true,
        };
        // RFC 9112 section 9.3 lets a client decide whether a connection of HTTP/1.0 persists.
        version == 1 && !self.closes && !contradicts
    }
}

/// Whether an answer with this status never has a body.
fn is_empty(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Returns a number of at most 18 digits after its leading zeros.
fn number(digits: &[u8]) -> Option<u64> {
    let mut number: u64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() || number >= 100_000_000_000_000_000 {
            return None;
        }
        number = number * 10 + u64::from(digit - b'0');
    }
    (!digits.is_empty()).then_some(number)
}
