//! Reads a chunked body (RFC 9112 section 7.1), and nothing else than its grammar.

use super::AnswerFault;
use super::answer::ends_lines_with_crlf;
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use httparse::Status;

/// A piece of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// At least one byte of data.
    Data(Bytes),
    /// The trailer fields, which end the body.
    Trailers(HeaderMap),
}

/// The maximum size of a line with a chunk's size, its extensions included.
const LINE_MAX: usize = 1024;
/// The maximum size of all chunk extensions of a body.
const EXTENSIONS_MAX: usize = 16 * 1024;
/// The maximum size of the trailer section.
const TRAILERS_MAX: usize = 16 * 1024;
/// The maximum number of trailer fields.
const TRAILER_FIELDS_MAX: usize = 64;

/// Reads the chunks of one body.
#[derive(Debug, Default)]
pub(super) struct ChunkReader {
    next: Next,
    /// The number of bytes of the extensions so far.
    extensions: usize,
}

/// The part of a chunked body that contains the next byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    #[default]
    SizeLine,
    /// The data of a chunk, of which this many bytes are missing.
    Data(u64),
    /// The CRLF after the data.
    DataEnd,
    Trailers,
    /// Nothing: the body is complete.
    Nothing,
}

impl ChunkReader {
    /// Whether the body is complete.
    pub(super) fn is_ended(&self) -> bool {
        self.next == Next::Nothing
    }

    /// Removes the next piece of the body from the front of `buffer`. Returns `None` if more bytes are needed, or if
    /// the body is complete.
    pub(super) fn read(&mut self, buffer: &mut BytesMut) -> Result<Option<Piece>, AnswerFault> {
        loop {
            match self.next {
                Next::SizeLine => {
                    let Some(line) = line(buffer)? else { return Ok(None) };
                    let (size, extensions) = size(&buffer[..line])?;
                    self.extensions += extensions;
                    if self.extensions > EXTENSIONS_MAX {
                        return Err(AnswerFault::Chunk("too many extensions"));
                    }
                    buffer.advance(line + 2);
                    self.next = if size == 0 { Next::Trailers } else { Next::Data(size) };
                }
                Next::Data(missing) => {
                    if buffer.is_empty() {
                        return Ok(None);
                    }
                    let count = usize::try_from(missing).unwrap_or(usize::MAX).min(buffer.len());
                    let missing = missing - count as u64;
                    self.next = if missing == 0 { Next::DataEnd } else { Next::Data(missing) };
                    return Ok(Some(Piece::Data(buffer.split_to(count).freeze())));
                }
                Next::DataEnd => match buffer[..] {
                    [b'\r', b'\n', ..] => {
                        buffer.advance(2);
                        self.next = Next::SizeLine;
                    }
                    [] | [b'\r'] => return Ok(None),
                    _ => return Err(AnswerFault::Chunk("data that is longer than its chunk")),
                },
                Next::Trailers => {
                    let Some((length, trailers)) = trailers(buffer)? else { return Ok(None) };
                    buffer.advance(length);
                    self.next = Next::Nothing;
                    return Ok((!trailers.is_empty()).then_some(Piece::Trailers(trailers)));
                }
                Next::Nothing => return Ok(None),
            }
        }
    }
}

/// Returns the length of the line at the front, without its CRLF; `None` if the line is incomplete.
fn line(buffer: &[u8]) -> Result<Option<usize>, AnswerFault> {
    let searched = &buffer[..buffer.len().min(LINE_MAX)];
    let Some(end) = searched.iter().position(|byte| *byte == b'\n') else {
        // An invalid first character is refused even if its line never ends.
        if searched.first().is_some_and(|first| !first.is_ascii_hexdigit()) {
            return Err(AnswerFault::Chunk("no size"));
        }
        return if buffer.len() < LINE_MAX { Ok(None) } else { Err(AnswerFault::Chunk("a long size line")) };
    };
    match searched[..end].strip_suffix(b"\r") {
        Some(line) => Ok(Some(line.len())),
        None => Err(AnswerFault::Chunk("a line that ends without CR")),
    }
}

/// Returns a chunk's size and the number of bytes of its extensions.
fn size(line: &[u8]) -> Result<(u64, usize), AnswerFault> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    // 16 digits cannot overflow 64 bits. More digits are refused even if they begin with zeros.
    if digits == 0 || digits > 16 {
        return Err(AnswerFault::Chunk("an invalid size"));
    }
    let (digits, extensions) = line.split_at(digits);
    // White space may only introduce an extension. After a size without one, it is not part of the grammar.
    if !extensions.is_empty() && !extensions.trim_ascii_start().starts_with(b";") {
        return Err(AnswerFault::Chunk("an invalid size"));
    }
    if extensions.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(AnswerFault::Chunk("an invalid extension"));
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap_or_default();
    Ok((digits.iter().fold(0, |size, byte| size << 4 | u64::from(digit(byte))), extensions.len()))
}

/// Parses the trailer section at the front. Returns its length too, or `None` if it is incomplete.
fn trailers(buffer: &[u8]) -> Result<Option<(usize, HeaderMap)>, AnswerFault> {
    let mut fields = [httparse::EMPTY_HEADER; TRAILER_FIELDS_MAX];
    let invalid = AnswerFault::Chunk("an invalid trailer section");
    let (length, fields) = match httparse::parse_headers(buffer, &mut fields) {
        Ok(Status::Complete(parsed)) => parsed,
        Ok(Status::Partial) if buffer.len() < TRAILERS_MAX => return Ok(None),
        Ok(Status::Partial) | Err(_) => return Err(invalid),
    };
    if length > TRAILERS_MAX || !ends_lines_with_crlf(&buffer[..length], fields) {
        return Err(invalid);
    }
    let mut trailers = HeaderMap::new();
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        let (Ok(name), Ok(value)) = (name, value) else { return Err(invalid) };
        trailers.append(name, value);
    }
    Ok(Some((length, trailers)))
}
