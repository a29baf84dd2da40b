//! The body of a compressed answer. It compresses as the answer arrives, and never waits for more of the answer before it
//! passes on the bytes that it has.

use super::body::{Body, Source};
use crate::forward::ResponseError;
use crate::respond::coding::{self, Coding, Compression, Wish};
use crate::worker::Worker;
use async_compression::Level;
use async_compression::brotli::EncoderParams;
use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZstdEncoder};
use async_compression::zstd::CParameter;
use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::Frame;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use tokio::io::AsyncWrite;

/// The maximum number of answers that one core compresses at the same time, and the maximum memory of their encoders, in
/// bytes.
pub(super) const AT_ONCE_MAX: u64 = 100;
pub(super) const MEMORY_MAX: u64 = 128 << 20;
/// The number of bytes that are compressed at once, and before other requests get the core.
const PIECE: usize = 16 * 1024;
const TURN: usize = 4 * PIECE;
/// The number of compressed bytes that are passed on at once, if the answer does not pause.
const OUTPUT: usize = 8 * 1024;
/// The base-2 logarithm of the window. Larger windows take more memory for each answer.
const WINDOW_LOG: u32 = 18;

/// Compresses an answer, if the route and the request allow it.
#[cold]
pub(super) fn compress(
    worker: &Rc<Worker>,
    compression: &Compression,
    wish: Wish,
    response: Response<Body>,
) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let is_free = |coding| Body::can_compress(worker, coding);
    let body = match compression.apply(wish, parts.status, &mut parts.headers, body.length(), is_free) {
        Some(coding) => body.compress(coding, worker.clone()),
        None => body,
    };
    Response::from_parts(parts, body)
}

/// A compressed answer. Dropping it drops the answer of the upstream.
pub(super) struct Compressed {
    coding: Coding,
    source: Source,
    encoder: Encoder,
    /// The part of the answer that is not compressed yet.
    rest: Bytes,
    trailers: Option<HeaderMap>,
    /// Whether the encoder holds bytes that were not passed on.
    is_held: bool,
    is_ended: bool,
    worker: Rc<Worker>,
}

impl Compressed {
    pub(super) fn new(source: Source, coding: Coding, worker: Rc<Worker>) -> Self {
        let counters = worker.counters();
        counters.compressing.add(1);
        counters.compressed[coding as usize].add(1);
        worker.encoder_memory().set(worker.encoder_memory().get() + coding.memory());
        Self {
            coding,
            source,
            encoder: Encoder::new(coding),
            rest: Bytes::new(),
            trailers: None,
            is_held: false,
            is_ended: false,
            worker,
        }
    }

    /// Whether nothing follows.
    pub(super) fn is_end_stream(&self) -> bool {
        self.is_ended && !self.is_held && self.trailers.is_none()
    }

    /// Releases memory that the unread rest of the answer does not use. Returns false if the answer must be polled on.
    pub(super) fn pause(&mut self) -> bool {
        self.source.pause()
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let mut turn = 0;
        loop {
            if self.is_ended {
                return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            }
            if turn >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !self.rest.is_empty() {
                let piece = self.rest.split_to(self.rest.len().min(PIECE));
                turn += piece.len();
                self.worker.counters().compressed_bytes_in.add(piece.len() as u64);
                self.is_held = true;
                if let Err(error) = self.encoder.write(&piece) {
                    return Poll::Ready(Some(Err(ResponseError::Coding(error))));
                }
                if self.encoder.len() >= OUTPUT {
                    return Poll::Ready(Some(Ok(self.output())));
                }
                continue;
            }
            match self.source.poll_frame(cx) {
                Poll::Pending if self.is_held => {
                    if let Err(error) = self.encoder.flush() {
                        return Poll::Ready(Some(Err(ResponseError::Coding(error))));
                    }
                    self.is_held = false;
                    if self.encoder.len() > 0 {
                        return Poll::Ready(Some(Ok(self.output())));
                    }
                    return Poll::Pending;
                }
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        self.trailers.iter_mut().for_each(coding::clean_trailers);
                        return self.end();
                    }
                },
                Poll::Ready(None) => return self.end(),
            }
        }
    }

    /// Ends the compressed bytes. Called once.
    fn end(&mut self) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        if let Err(error) = self.encoder.finish() {
            return Poll::Ready(Some(Err(ResponseError::Coding(error))));
        }
        (self.is_ended, self.is_held) = (true, false);
        Poll::Ready(Some(Ok(self.output())))
    }

    fn output(&mut self) -> Frame<Bytes> {
        let bytes = self.encoder.take();
        self.worker.counters().compressed_bytes_out.add(bytes.len() as u64);
        Frame::data(bytes)
    }
}

impl Drop for Compressed {
    fn drop(&mut self) {
        self.worker.counters().compressing.sub(1);
        let memory = self.worker.encoder_memory();
        memory.set(memory.get() - self.coding.memory());
    }
}

impl fmt::Debug for Compressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressed").field("source", &self.source).finish_non_exhaustive()
    }
}

/// An encoder with moderate settings. It writes into memory, so it never waits.
enum Encoder {
    Zstd(ZstdEncoder<Vec<u8>>),
    Brotli(Box<BrotliEncoder<Vec<u8>>>),
    Gzip(GzipEncoder<Vec<u8>>),
}

impl Encoder {
    fn new(coding: Coding) -> Self {
        match coding {
            Coding::Zstd => Self::Zstd(ZstdEncoder::with_quality_and_params(
                Vec::new(),
                Level::Precise(3),
                &[CParameter::window_log(WINDOW_LOG)],
            )),
            Coding::Brotli => {
                let params = EncoderParams::default().quality(Level::Precise(4));
                let params = params.window_size(i32::try_from(WINDOW_LOG).unwrap_or_default());
                Self::Brotli(Box::new(BrotliEncoder::with_params(Vec::new(), params)))
            }
            Coding::Gzip => Self::Gzip(GzipEncoder::with_quality(Vec::new(), Level::Precise(5))),
        }
    }

    fn writer(&mut self) -> Pin<&mut (dyn AsyncWrite + Unpin)> {
        match self {
            Self::Zstd(encoder) => Pin::new(encoder),
            Self::Brotli(encoder) => Pin::new(&mut **encoder),
            Self::Gzip(encoder) => Pin::new(encoder),
        }
    }

    fn buffer(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Zstd(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Gzip(encoder) => encoder.get_mut(),
        }
    }

    fn write(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let written = ready(self.writer().poll_write(&mut context(), data))?;
            data = data.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        ready(self.writer().poll_flush(&mut context()))
    }

    fn finish(&mut self) -> io::Result<()> {
        ready(self.writer().poll_shutdown(&mut context()))
    }

    fn len(&mut self) -> usize {
        self.buffer().len()
    }

    fn take(&mut self) -> Bytes {
        std::mem::take(self.buffer()).into()
    }
}

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// Memory accepts bytes at once.
fn ready<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(done) => done,
        Poll::Pending => Err(io::Error::other("the encoder waits for memory")),
    }
}
