//! The pieces in which an answer arrives do not change its meaning. Its body is never longer than its framing allows.
//!
//! The first byte selects the method, and the second byte the size of the pieces.
#![no_main]

use bytes::BytesMut;
use http::{HeaderMap, Method};
use libfuzzer_sys::fuzz_target;
use portcullis::http1::{BodyReader, Framing, HeadReader, KnownHead, Piece};

/// The status, the fields, the body, whether it is complete, and what is left of the input.
type Answer = (u16, HeaderMap, Vec<u8>, bool, usize);

fn read<'p>(
    known: &mut KnownHead,
    method: &Method,
    mut pieces: impl Iterator<Item = &'p [u8]>,
) -> Option<Answer> {
    let (mut buffer, mut headers) = (BytesMut::new(), HeaderMap::new());
    let mut reader = HeadReader::new(method);
    let head = loop {
        match reader.read(&mut buffer, &mut headers, known) {
            Ok(Some(head)) => break head,
            Ok(None) => buffer.extend_from_slice(pieces.next()?),
            Err(_) => return None,
        }
    };
    let (framing, mut reader, mut body) = (head.framing, BodyReader::new(head.framing), Vec::new());
    loop {
        match reader.read(&mut buffer) {
            Ok(Some(Piece::Data(data))) => body.extend_from_slice(&data),
            Ok(Some(Piece::Trailers(trailers))) => assert!(!trailers.is_empty() && reader.is_ended()),
            Ok(None) if reader.is_ended() => break,
            Ok(None) => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => {
                    if reader.close().is_err() {
                        break;
                    }
                }
            },
            Err(_) => return None,
        }
    }
    match framing {
        Framing::Empty => assert!(body.is_empty()),
        Framing::Length(length) => assert!(body.len() as u64 <= length),
        Framing::Chunked | Framing::UntilClose => {}
    }
    let rest = buffer.len() + pieces.map(<[u8]>::len).sum::<usize>();
    Some((head.status.as_u16(), headers, body, reader.is_ended(), rest))
}

fuzz_target!(|input: &[u8]| {
    let [method, size, answer @ ..] = input else { return };
    let method = if method % 2 == 0 { Method::GET } else { Method::HEAD };
    // The fields of the last answer change nothing.
    let known = &mut KnownHead::default();
    let whole = read(known, &method, std::iter::once(answer));
    assert_eq!(whole, read(known, &method, answer.chunks(usize::from(*size).max(1))));
    assert_eq!(whole, read(&mut KnownHead::default(), &method, answer.chunks(1)));
});
