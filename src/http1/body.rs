//! Reads the body of an answer.

use super::chunks::{ChunkReader, Piece};
use super::{AnswerFault, Framing};
use bytes::BytesMut;

/// Reads the body of one answer from the bytes that have arrived so far.
#[derive(Debug)]
pub struct BodyReader(State);

#[derive(Debug)]
enum State {
    /// The body has this many bytes more. 0 ends it.
    Length(u64),
    Chunked(ChunkReader),
    UntilClose,
}

impl BodyReader {
    /// Creates the reader of a body with this framing.
    pub fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::Empty => State::Length(0),
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunked(ChunkReader::default()),
            Framing::UntilClose => State::UntilClose,
        })
    }

    /// Whether the body is complete.
    pub fn is_ended(&self) -> bool {
        match &self.0 {
            State::Length(missing) => *missing == 0,
            State::Chunked(chunks) => chunks.is_ended(),
            State::UntilClose => false,
        }
    }

    /// Returns the number of bytes that are missing, if it is known.
    pub fn missing(&self) -> Option<u64> {
        match self.0 {
            State::Length(missing) => Some(missing),
            State::Chunked(_) | State::UntilClose => None,
        }
    }

    /// Removes the next piece of the body from the front of `buffer`. Returns `None` if the body is complete, or if
    /// more bytes are needed.
    ///
    /// # Errors
    /// Returns the reason if the framing is invalid. The caller must then close the connection.
    pub fn read(&mut self, buffer: &mut BytesMut) -> Result<Option<Piece>, AnswerFault> {
        match &mut self.0 {
            State::Chunked(chunks) => chunks.read(buffer),
            State::Length(missing) => {
                let count = usize::try_from(*missing).unwrap_or(usize::MAX).min(buffer.len());
                *missing -= count as u64;
                Ok((count > 0).then(|| Piece::Data(buffer.split_to(count).freeze())))
            }
            State::UntilClose if buffer.is_empty() => Ok(None),
            State::UntilClose => Ok(Some(Piece::Data(buffer.split().freeze()))),
        }
    }

    /// Ends the body because the server closed the connection.
    ///
    /// # Errors
    /// Returns an error if the body is incomplete.
    pub fn close(&mut self) -> Result<(), AnswerFault> {
        match self.0 {
            State::UntilClose => self.0 = State::Length(0),
            State::Length(0) => {}
            State::Length(_) | State::Chunked(_) if self.is_ended() => {}
            State::Length(_) | State::Chunked(_) => return Err(AnswerFault::Incomplete),
        }
        Ok(())
    }
}
