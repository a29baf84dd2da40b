//! Reads the head of an answer.

use super::framing::{Framing, FramingFields};
use super::known::{KnownHead, ReadHead};
use super::{AnswerFault, fault};
use bytes::{Buf, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use httparse::{ParserConfig, Response, Status};
use std::mem::MaybeUninit;

/// The maximum size of the heads before the body: those of interim answers and that of the final answer.
const HEAD_MAX: usize = 256 * 1024;
/// The maximum number of fields of a head.
const FIELDS_MAX: usize = 256;
/// The maximum number of interim answers before the final one.
const INTERIM_MAX: u32 = 16;

/// The head of a final answer.
#[derive(Debug)]
pub struct AnswerHead {
    /// The status.
    pub status: StatusCode,
    /// The end of the body.
    pub framing: Framing,
    /// The announced length. The length of an answer without a body is that of another answer (RFC 9110 section 8.6).
    pub length: Option<u64>,
    /// Whether another request may use the connection.
    pub keep_alive: bool,
}

/// Reads the head of the answer to one request, from the bytes that have arrived so far.
#[derive(Debug)]
pub struct HeadReader {
    /// Whether the method is HEAD, whose answer has no body.
    is_head: bool,
    interim: u32,
    /// Whether one of the interim answers was `100 Continue`.
    is_continued: bool,
    /// The number of bytes of all interim answers.
    skipped: usize,
    /// The number of bytes in which no complete head was found. A head is parsed again only if an empty line follows.
    searched: usize,
}

impl HeadReader {
    /// Creates the reader of the answer to a request with this method.
    pub fn new(method: &Method) -> Self {
        Self { is_head: *method == Method::HEAD, interim: 0, is_continued: false, skipped: 0, searched: 0 }
    }

    /// Removes the head from the front of `buffer`, and adds its fields to `headers`, except for those that apply to
    /// this connection alone: `Content-Length`, `Transfer-Encoding`, and a `Connection` of only `keep-alive` or `close`.
    /// Returns `None` if the head is not complete yet. Interim answers are skipped (RFC 9110 section 15.2).
    ///
    /// `known` is the head of the connection's last answer.
    ///
    /// # Errors
    /// Returns the reason if the bytes are not the head of an answer with a certain end. The caller must then close
    /// the connection.
    pub fn read(
        &mut self,
        buffer: &mut BytesMut,
        headers: &mut HeaderMap,
        known: &mut KnownHead,
    ) -> Result<Option<AnswerHead>, AnswerFault> {
        loop {
            let parsed = if self.may_be_complete(buffer) {
                parse(buffer, headers, known, self.is_head)?
            } else {
                None
            };
            let Some((length, head)) = parsed else {
                self.searched = buffer.len();
                let is_bounded = self.skipped + buffer.len() < HEAD_MAX;
                return if is_bounded { Ok(None) } else { Err(AnswerFault::TooLarge) };
            };
            if self.skipped + length > HEAD_MAX {
                return Err(AnswerFault::TooLarge);
            }
            buffer.advance(length);
            // 101 is final: HTTP/1.1 ends with it. The caller checks it.
            if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(Some(head));
            }
            headers.clear();
            self.is_continued |= head.status == StatusCode::CONTINUE;
            self.interim += 1;
            self.skipped += length;
            self.searched = 0;
            if self.interim > INTERIM_MAX {
                return Err(AnswerFault::TooManyInterim);
            }
        }
    }

    /// Returns whether the server has asked for the body of a request that announced `Expect: 100-continue`.
    pub fn is_continued(&self) -> bool {
        self.is_continued
    }

    /// Whether an empty line may have arrived. Without this check, a server that sends one byte at a time would make
    /// the gateway parse its head once for each byte.
    fn may_be_complete(&self, buffer: &[u8]) -> bool {
        match self.searched {
            0 => !buffer.is_empty(),
            searched => {
                let new = &buffer[searched.saturating_sub(3)..];
                new.windows(2).any(|pair| pair == b"\n\n") || new.windows(3).any(|three| three == b"\n\r\n")
            }
        }
    }
}

/// Reads one head. Returns its length too, or `None` if it is incomplete. `headers` must be empty.
fn parse(
    bytes: &[u8],
    headers: &mut HeaderMap,
    known: &mut KnownHead,
    is_head: bool,
) -> Result<Option<(usize, AnswerHead)>, AnswerFault> {
    if let Some(ReadHead { length, status, version, framing: fields }) = known.read(bytes, headers) {
        if let Ok(framing) = fields.framing(status, is_head, version) {
            return Ok(Some((length, AnswerHead::new(status, version, framing, fields))));
        }
        // The parser names the fault.
        headers.clear();
    }
    parse_unknown(bytes, headers, known, is_head)
}

/// Parses one head, and remembers it.
#[inline(never)]
fn parse_unknown(
    bytes: &[u8],
    headers: &mut HeaderMap,
    known: &mut KnownHead,
    is_head: bool,
) -> Result<Option<(usize, AnswerHead)>, AnswerFault> {
    // The parser would skip empty lines before the status line, which RFC 9112 allows only before a request line.
    if bytes.first() != Some(&b'H') {
        return Err(AnswerFault::Head(fault::text(httparse::Error::Version)));
    }
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = Response::new(&mut []);
    // A proxy removes white space before a colon (RFC 9112 section 5.1). Folded lines are refused.
    let mut config = ParserConfig::default();
    config.allow_spaces_after_header_name_in_responses(true);
    let length = match config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(AnswerFault::TooLarge),
        Err(error) => return Err(AnswerFault::Head(fault::text(error))),
    };
    if !ends_lines_with_crlf(&bytes[..length], parsed.headers) {
        return Err(AnswerFault::Head("a line that ends without CR"));
    }
    let status = StatusCode::from_u16(parsed.code.unwrap_or_default());
    let status = status.map_err(|_| AnswerFault::Head("an invalid status"))?;
    let version = parsed.version.unwrap_or_default();
    let mut framing_fields = FramingFields::default();
    for (position, field) in parsed.headers.iter().enumerate() {
        let is_kept = framing_fields.add(field.name, field.value);
        let (name, value) = match known.get(position, field) {
            Some(field) => field,
            None => {
                let name = HeaderName::from_bytes(field.name.as_bytes());
                let name = name.map_err(|_| AnswerFault::Head("an invalid field name"))?;
                let value = HeaderValue::from_bytes(field.value);
                let value = value.map_err(|_| AnswerFault::Head("an invalid field value"))?;
                known.set(position, field.name, &name, &value);
                (name, value)
            }
        };
        if is_kept {
            headers.append(name, value);
        }
    }
    let framing = framing_fields.framing(status, is_head, version);
    let framing = framing.map_err(|fault| fault.with_values(parsed.headers))?;
    if !status.is_informational() {
        known.complete(bytes, status, version, parsed.headers.len());
    }
    Ok(Some((length, AnswerHead::new(status, version, framing, framing_fields))))
}

impl AnswerHead {
    fn new(status: StatusCode, version: u8, framing: Framing, fields: FramingFields) -> Self {
        let keep_alive = framing != Framing::UntilClose && fields.keeps_alive(status, version);
        Self { status, framing, length: fields.length(), keep_alive }
    }
}

/// Whether each line of a head or of a trailer section ends with CRLF. The parser also accepts a bare LF, which a
/// stricter reader takes as part of a line (RFC 9112 section 2.2).
pub(super) fn ends_lines_with_crlf(section: &[u8], fields: &[httparse::Header<'_>]) -> bool {
    let start = section.as_ptr() as usize;
    let follows_crlf = |field: &httparse::Header<'_>| match field.name.as_ptr() as usize - start {
        0 => true,
        at => section[..at].ends_with(b"\r\n"),
    };
    let is_end_right = if fields.is_empty() {
        section == b"\r\n" || section.ends_with(b"\r\n\r\n")
    } else {
        section.ends_with(b"\r\n\r\n")
    };
    is_end_right && fields.iter().all(follows_crlf)
}
