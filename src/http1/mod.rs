//! The bytes of HTTP/1.1 between the gateway and an upstream (RFC 9112): writes the head of a request, and reads the
//! head and the body of its answer. Nothing here does I/O.
//!
//! Two readers that disagree about the end of an answer let one request receive the answer of another. The readers
//! here therefore accept one reading only: they refuse an answer that any other reader could frame differently, even
//! where RFC 9112 allows a recipient to repair it. The exceptions are in docs/answers.md.

mod answer;
mod body;
mod chunks;
#[cfg(test)]
mod differential;
mod fault;
mod framing;
mod known;
mod request;
#[cfg(test)]
mod tests;

pub use answer::{AnswerHead, HeadReader};
pub use body::BodyReader;
pub use chunks::Piece;
pub use fault::AnswerFault;
pub use framing::Framing;
pub use known::KnownHead;
pub use request::{
    RequestFraming, write_field, write_fields, write_host, write_last_chunk, write_request_line,
};
