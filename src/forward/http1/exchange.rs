//! Sends a request over one connection and reads the head of its answer.

use super::upload::Upload;
use crate::forward::body::sending::UploadError;
use crate::forward::connection::http1::Connection;
use crate::http1::{AnswerFault, AnswerHead, HeadReader};
use http::HeaderMap;
use std::fmt;
use std::io;
use std::task::{Context, Poll};

/// A request on one connection, until the head of its answer.
#[derive(Debug)]
pub(in crate::forward) struct Exchange<'e> {
    connection: &'e Connection,
    upload: &'e mut Upload,
    /// The fields of the answer.
    headers: &'e mut HeaderMap,
    reader: HeadReader,
    /// Whether the whole request is sent, or the connection accepts no more of it.
    is_sent: bool,
    /// The reason why the connection accepts no more of the request. The server may still have sent an answer.
    refused: Option<io::Error>,
    /// Whether the server has just asked for the body.
    is_asked: bool,
    /// The head of the answer that arrived together with `100 Continue`.
    answered: Option<AnswerHead>,
}

/// The reason why no answer arrived.
#[derive(Debug)]
pub(in crate::forward) enum ExchangeError {
    /// The connection broke before the answer.
    Broken(Option<io::Error>),
    /// The answer is malformed.
    Invalid(AnswerFault),
    /// The client's body failed.
    Upload,
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(None) => f.write_str("the connection closed before the answer"),
            Self::Broken(Some(error)) => write!(f, "the connection broke before the answer: {error}"),
            Self::Invalid(fault) => fault.fmt(f),
            Self::Upload => f.write_str("the body of the request was not sent to its end"),
        }
    }
}

/// The head of an answer, and whether its request is sent.
#[derive(Debug)]
pub(in crate::forward) struct Answered {
    pub(in crate::forward) head: AnswerHead,
    /// Whether the server's connection has accepted the whole request.
    pub(in crate::forward) is_sent: bool,
    /// Whether the connection has refused a part of the request.
    pub(in crate::forward) is_refused: bool,
}

impl<'e> Exchange<'e> {
    pub(in crate::forward) fn new(
        connection: &'e Connection,
        upload: &'e mut Upload,
        headers: &'e mut HeaderMap,
    ) -> Self {
        let reader = HeadReader::new(&upload.method);
        Self {
            connection,
            upload,
            headers,
            reader,
            is_sent: false,
            refused: None,
            is_asked: false,
            answered: None,
        }
    }

    /// Sends the request and reads the answer at the same time: a server may answer before it has read the request's
    /// body.
    pub(in crate::forward) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answered, ExchangeError>> {
        if !self.is_sent && self.refused.is_none() {
            match self.upload.poll(cx, self.connection) {
                Poll::Ready(Ok(())) => self.is_sent = true,
                Poll::Ready(Err(UploadError::Body)) => return Poll::Ready(Err(ExchangeError::Upload)),
                Poll::Ready(Err(UploadError::Connection(error))) if !self.upload.is_begun() => {
                    return Poll::Ready(Err(ExchangeError::Broken(Some(error))));
                }
                Poll::Ready(Err(UploadError::Connection(error))) => self.refused = Some(error),
                Poll::Pending => {}
            }
        }
        if std::mem::take(&mut self.is_asked) {
            // The body was polled. The HTTP library now asks the client for it, which it does only before the answer.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            let (reader, headers) = (&mut self.reader, &mut *self.headers);
            let head = match self.answered.take() {
                Some(head) => Some(head),
                None => self
                    .connection
                    .arrived_head(|buffer, known| reader.read(buffer, headers, known))
                    .map_err(ExchangeError::Invalid)?,
            };
            if self.reader.is_continued() && self.upload.release() {
                // The next poll sends the body.
                (self.is_asked, self.answered) = (true, head);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(head) = head {
                let (is_sent, is_refused) = (self.is_sent, self.refused.is_some());
                return Poll::Ready(Ok(Answered { head, is_sent, is_refused }));
            }
            let error = match std::task::ready!(self.connection.poll_fill(cx)) {
                Ok(0) => self.refused.take(),
                Ok(_) => continue,
                Err(error) => Some(error),
            };
            return Poll::Ready(Err(ExchangeError::Broken(error)));
        }
    }
}
