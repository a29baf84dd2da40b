//! The WebSockets, long answers and long uploads that are open on one core. The core's sweep ends those whose token has
//! ended, so that no read or write checks it.

use crate::authenticate::Principal;
use crate::denial::Denial;
use crate::peer::{CoarseMillis, Connection};
use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Waker};

/// The reason why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// The client closed it, or the connection to the client broke.
    Client,
    /// The server closed it, or the connection to the server broke.
    Server,
    /// Neither end sent a byte for the route's `silence`.
    Silence,
    /// The client did not read.
    Reader,
    /// The caller's token expired.
    TokenExpired,
    /// The caller's token was revoked.
    TokenRevoked,
    /// The gateway cannot tell whether the token was revoked, because the store is unreadable.
    CheckUnavailable,
    /// The gateway stopped.
    Drain,
}

impl StreamEnd {
    pub(crate) const ALL: [Self; 8] = [
        Self::Client,
        Self::Server,
        Self::Silence,
        Self::Reader,
        Self::TokenExpired,
        Self::TokenRevoked,
        Self::CheckUnavailable,
        Self::Drain,
    ];

    /// Returns the name of the reason in the log, in metrics and in close frames.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Silence => "silence",
            Self::Reader => "reader",
            Self::TokenExpired => "token_expired",
            Self::TokenRevoked => "token_revoked",
            Self::CheckUnavailable => "check_unavailable",
            Self::Drain => "drain",
        }
    }

    /// Returns whether the caller is no longer admitted.
    pub(crate) const fn is_of_token(self) -> bool {
        matches!(self, Self::TokenExpired | Self::TokenRevoked | Self::CheckUnavailable)
    }

    /// Returns the status code of the close frame that the gateway sends (RFC 6455 section 7.4.1). Returns `None` if
    /// one of the two ends closed the WebSocket.
    pub(crate) const fn close_code(self) -> Option<u16> {
        match self {
            Self::Client | Self::Server => None,
            Self::Silence | Self::Drain => Some(1001),
            // Some clients never connect again after 1008 (findings/graphql-ws-after-close-1008.sh). A client that gets a new
            // token should. IANA's registry has 3000 as "Unauthorized".
            Self::TokenExpired => Some(3000),
            Self::Reader | Self::TokenRevoked => Some(1008),
            Self::CheckUnavailable => Some(1013),
        }
    }
}

/// The kind of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamKind {
    WebSocket,
    /// An answer whose body was not there at once.
    Answer,
    /// The body of a request, while its client sends it.
    Upload,
}

impl StreamKind {
    pub(crate) const ALL: [Self; 3] = [Self::WebSocket, Self::Answer, Self::Upload];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Answer => "answer",
            Self::Upload => "upload",
        }
    }
}

/// The bounds on a WebSocket, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamBounds {
    /// Maximum time without a byte in either direction.
    pub(crate) silence: CoarseMillis,
    /// Maximum time for which the client accepts no byte although some wait for it, and without a byte after one end has
    /// closed its side without a close frame.
    pub(crate) stall: CoarseMillis,
}

/// A stream that the core's sweep can end. The stream and the sweep share it.
pub(crate) struct OpenStream {
    pub(crate) kind: StreamKind,
    /// The caller whose token bounds the stream, if it is bounded.
    caller: Option<Rc<Principal>>,
    /// `None` if other deadlines apply.
    bounds: Option<StreamBounds>,
    pub(crate) bytes_in: Cell<u64>,
    pub(crate) bytes_out: Cell<u64>,
    /// Whether bytes wait for the client.
    pub(crate) is_unread: Cell<bool>,
    /// The end that closed its side of a WebSocket without a close frame.
    pub(crate) half_closed: Cell<Option<StreamEnd>>,
    /// The bytes in both directions, and those to the client, at the last sweep, each with the time of its last change.
    moved: Cell<(u64, CoarseMillis)>,
    read: Cell<(u64, CoarseMillis)>,
    end: Cell<Option<StreamEnd>>,
    /// The reason why the caller is no longer admitted.
    denial: OnceCell<Denial>,
    /// Whether the sweep counts the end, because the access line of the request is written already.
    is_counted_by_sweep: Cell<bool>,
    waker: Cell<Option<Waker>>,
    /// The connection whose client certificate must stay accepted.
    certified: OnceCell<Rc<Connection>>,
}

impl fmt::Debug for OpenStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenStream").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl OpenStream {
    /// Returns the reason why the stream has to end. Without one, registers the task of `cx` to be woken by the end.
    pub(crate) fn poll_end(&self, cx: &Context<'_>) -> Option<StreamEnd> {
        if self.end.get().is_none() {
            match self.waker.take() {
                Some(waker) if waker.will_wake(cx.waker()) => self.waker.set(Some(waker)),
                _ => self.waker.set(Some(cx.waker().clone())),
            }
        }
        self.end.get()
    }

    /// Ends the stream, too, when the client certificate of this connection is no longer accepted.
    pub(crate) fn require_certificate(&self, connection: &Rc<Connection>) {
        let _ = self.certified.set(connection.clone());
    }

    /// Returns the denial of a caller that is no longer admitted.
    pub(super) fn denial(&self) -> Option<Denial> {
        self.denial.get().cloned()
    }

    /// Lets the sweep count the end of this stream.
    pub(super) fn count_by_sweep(&self) {
        self.is_counted_by_sweep.set(true);
    }

    /// Returns the reason why the stream ended.
    pub(crate) fn end(&self) -> Option<StreamEnd> {
        self.end.get()
    }

    /// Ends the stream. The first reason stays.
    pub(crate) fn finish(&self, end: StreamEnd) {
        if self.end.get().is_none() {
            self.end.set(Some(end));
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Returns the bound that the stream has exceeded.
    fn exceeded(&self, now: CoarseMillis) -> Option<StreamEnd> {
        let bounds = self.bounds?;
        let since = |seen: &Cell<(u64, CoarseMillis)>, bytes: u64| {
            let (before, since) = seen.get();
            if before == bytes {
                return since;
            }
            seen.set((bytes, now));
            now
        };
        let out = self.bytes_out.get();
        let read = since(&self.read, if self.is_unread.get() { out } else { u64::MAX });
        let moved = since(&self.moved, out.wrapping_add(self.bytes_in.get()));
        if self.is_unread.get() && now.saturating_sub(read) >= bounds.stall {
            Some(StreamEnd::Reader)
        } else if let Some(end) = self.half_closed.get()
            && now.saturating_sub(moved) >= bounds.stall
        {
            Some(end)
        } else if now.saturating_sub(moved) >= bounds.silence {
            Some(StreamEnd::Silence)
        } else {
            None
        }
    }
}

/// The open streams of one core.
#[derive(Debug, Default)]
pub(crate) struct OpenStreams(RefCell<Vec<Rc<OpenStream>>>);

impl OpenStreams {
    /// Registers a stream until its last other owner drops it.
    pub(crate) fn open(
        &self,
        kind: StreamKind,
        caller: Option<Rc<Principal>>,
        bounds: Option<StreamBounds>,
        now: CoarseMillis,
    ) -> Rc<OpenStream> {
        let stream = Rc::new(OpenStream {
            kind,
            caller,
            bounds,
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            is_unread: Cell::new(false),
            half_closed: Cell::new(None),
            moved: Cell::new((0, now)),
            read: Cell::new((0, now)),
            end: Cell::new(None),
            denial: OnceCell::new(),
            is_counted_by_sweep: Cell::new(false),
            waker: Cell::new(None),
            certified: OnceCell::new(),
        });
        self.0.borrow_mut().push(stream.clone());
        stream
    }

    /// Registers a stream that ends only with the token of its caller.
    pub(crate) fn open_unbounded(&self, kind: StreamKind, caller: Option<Rc<Principal>>) -> Rc<OpenStream> {
        self.open(kind, caller, None, 0)
    }

    /// Ends the streams that have exceeded a bound, and those whose caller `admit` no longer accepts. Passes the streams
    /// to `count` that ended after their access line.
    pub(crate) fn sweep(
        &self,
        now: CoarseMillis,
        admit: impl Fn(Option<&Principal>, Option<&Connection>) -> Result<(), Denial>,
        count: impl Fn(StreamKind, Option<StreamEnd>),
    ) {
        self.0.borrow_mut().retain(|stream| {
            if Rc::strong_count(stream) == 1 {
                if stream.is_counted_by_sweep.get() {
                    count(stream.kind, stream.end());
                }
                return false;
            }
            if stream.end.get().is_none() {
                let client = stream.certified.get().map(|connection| &**connection);
                let caller = stream.caller.as_deref();
                let is_bound = caller.is_some() || client.is_some();
                if let Some(denial) = is_bound.then(|| admit(caller, client)).and_then(Result::err) {
                    let end = end_of(&denial);
                    let _ = stream.denial.set(denial);
                    stream.finish(end);
                } else if let Some(end) = stream.exceeded(now) {
                    stream.finish(end);
                }
            }
            true
        });
    }

    /// Ends all WebSockets because the gateway stops. Returns whether there are any.
    pub(crate) fn drain(&self) -> bool {
        let mut all = self.0.borrow_mut();
        all.retain(|stream| Rc::strong_count(stream) > 1);
        let mut any = false;
        for stream in all.iter().filter(|stream| stream.kind == StreamKind::WebSocket) {
            stream.finish(StreamEnd::Drain);
            any = true;
        }
        any
    }
}

/// Returns the end of a stream whose caller is refused.
fn end_of(denial: &Denial) -> StreamEnd {
    match denial {
        Denial::ExpiredToken => StreamEnd::TokenExpired,
        Denial::CheckUnavailable => StreamEnd::CheckUnavailable,
        _ => StreamEnd::TokenRevoked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: StreamBounds = StreamBounds { silence: 300_000, stall: 30_000 };

    fn open(streams: &OpenStreams) -> Rc<OpenStream> {
        streams.open(StreamKind::WebSocket, Some(Rc::new(Principal::for_tests())), Some(BOUNDS), 0)
    }

    fn swept(streams: &OpenStreams, stream: &OpenStream, now: CoarseMillis) -> Option<StreamEnd> {
        streams.sweep(now, |_, _| Ok(()), |_, _| unreachable!());
        stream.end()
    }

    #[test]
    fn bytes_of_either_end_break_the_silence() {
        let (streams, mut now) = (OpenStreams::default(), 0);
        let stream = open(&streams);
        for _ in 0..3 {
            now += 299_999;
            stream.bytes_in.set(stream.bytes_in.get() + 1);
            assert_eq!(swept(&streams, &stream, now), None);
            now += 299_999;
            stream.bytes_out.set(stream.bytes_out.get() + 1);
            assert_eq!(swept(&streams, &stream, now), None);
        }
        assert_eq!(swept(&streams, &stream, now + 299_999), None);
        assert_eq!(swept(&streams, &stream, now + 300_000), Some(StreamEnd::Silence));
    }

    #[test]
    fn a_client_that_reads_nothing_ends_its_stream_although_it_sends() {
        let streams = OpenStreams::default();
        let stream = open(&streams);
        assert_eq!(swept(&streams, &stream, 100_000), None, "nothing waits for the client");
        stream.is_unread.set(true);
        for second in 100..130 {
            stream.bytes_in.set(second);
            assert_eq!(swept(&streams, &stream, second * 1000), None, "{second}");
        }
        stream.bytes_out.set(1);
        assert_eq!(swept(&streams, &stream, 130_000), None, "the client has read");
        assert_eq!(swept(&streams, &stream, 159_999), None);
        assert_eq!(swept(&streams, &stream, 160_000), Some(StreamEnd::Reader));
    }

    #[test]
    fn a_refused_caller_ends_its_streams_and_the_first_reason_stays() {
        for (denial, end) in [
            (Denial::ExpiredToken, StreamEnd::TokenExpired),
            (Denial::RevokedToken, StreamEnd::TokenRevoked),
            (Denial::UnknownApiKey, StreamEnd::TokenRevoked),
            (Denial::CheckUnavailable, StreamEnd::CheckUnavailable),
        ] {
            let streams = OpenStreams::default();
            let stream = open(&streams);
            let open_ended = streams.open(StreamKind::Answer, None, None, 0);
            streams.sweep(1, |_, _| Err(denial.clone()), |_, _| unreachable!());
            assert_eq!((stream.end(), open_ended.end()), (Some(end), None));
            assert_eq!(stream.denial(), Some(denial));
            assert!(streams.drain());
            assert_eq!(
                (stream.end(), open_ended.end()),
                (Some(end), None),
                "an answer ends with its connection"
            );
        }
    }

    #[test]
    fn a_stream_that_has_ended_is_forgotten() {
        let streams = OpenStreams::default();
        drop(open(&streams));
        streams.sweep(1, |_, _| Ok(()), |_, _| unreachable!());
        assert!(streams.0.borrow().is_empty() && !streams.drain());
    }

    #[test]
    fn the_sweep_counts_the_end_of_a_stream_whose_access_line_is_written() {
        let (streams, counted) = (OpenStreams::default(), Cell::new(Vec::new()));
        let sweep = |now, refused: Result<(), Denial>| {
            streams.sweep(
                now,
                |_, _| refused.clone(),
                |kind, end| {
                    counted.set([counted.take(), vec![(kind, end)]].concat());
                },
            );
        };
        let stream = streams.open(StreamKind::Upload, Some(Rc::new(Principal::for_tests())), None, 0);
        sweep(1, Err(Denial::RevokedToken));
        assert_eq!(stream.end(), Some(StreamEnd::TokenRevoked));
        stream.count_by_sweep();
        sweep(2, Ok(()));
        assert_eq!(counted.take(), [], "its owner has not ended it yet");
        drop(stream);
        sweep(3, Ok(()));
        sweep(4, Ok(()));
        assert_eq!(counted.take(), [(StreamKind::Upload, Some(StreamEnd::TokenRevoked))]);
    }
}
