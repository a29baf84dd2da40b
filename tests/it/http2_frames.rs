//! Frames that RFC 9113 forbids or tells receivers to ignore, from a client that writes each frame by hand. Each case
//! names the section of RFC 9113 that asks for the reaction.

use crate::kit::http2::{Frames, Verdict, block, frame};
use crate::kit::upstream::{After, Gate};
use crate::kit::{ISSUER, Portcullis, Request, Upstream};

const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const REFUSED_STREAM: u32 = 7;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "gateway.test"), (":path", "/open")];
/// A route whose upstream answers once the test opens the gate.
const HELD: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":authority", "gateway.test"), (":path", "/held")];

/// The reaction of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reaction {
    /// GOAWAY with this code.
    Connection(u32),
    /// RST_STREAM with this code.
    Stream(u32),
    /// The head of an answer.
    Answer,
    /// The connection closes without GOAWAY.
    Closed,
}

/// The reaction that a case requires.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// A connection error of this code.
    Connection(u32),
    /// A stream error of this code, or such a connection error. RFC 9113 section 5.4.2 lets a receiver treat every stream
    /// error as a connection error.
    Stream(u32),
    /// An error of this code. The HTTP library (h2 0.4) ends the connection with PROTOCOL_ERROR instead. It decodes a frame
    /// before it knows which error the frame is, and the gateway sees the bytes only on their way to the library. The
    /// connection ends in both cases, so only the code differs (docs/reading.md). Once the library sends the code, use
    /// [`Self::Connection`].
    Library(u32),
}

impl Rule {
    fn allows(self, reaction: Reaction) -> bool {
        match (self, reaction) {
            (Self::Connection(code) | Self::Stream(code), Reaction::Connection(found))
            | (Self::Stream(code), Reaction::Stream(found)) => found == code,
            (Self::Library(code), Reaction::Connection(found)) => found == PROTOCOL_ERROR && code != found,
            (_, Reaction::Stream(_) | Reaction::Answer | Reaction::Closed) => false,
        }
    }
}

/// Returns the next reaction that concerns the stream.
fn reaction(frames: &mut Frames, stream: u32) -> Reaction {
    loop {
        let Some(next) = frames.next() else { return Reaction::Closed };
        let code = |at: usize| {
            next.payload.get(at..at + 4).map_or(u32::MAX, |code| u32::from_be_bytes(code.try_into().unwrap()))
        };
        match next.kind {
            frame::GOAWAY if code(4) != NO_ERROR => return Reaction::Connection(code(4)),
            frame::RST_STREAM if next.stream == stream => return Reaction::Stream(code(0)),
            frame::HEADERS if next.stream == stream => return Reaction::Answer,
            _ => {}
        }
    }
}

struct Stage {
    upstream: Upstream,
    gateway: Portcullis,
    gate: Gate,
}

impl Stage {
    fn new() -> Self {
        Self::with("")
    }

    fn with(tables: &str) -> Self {
        let gate = Gate::new();
        let held = gate.clone();
        let upstream = Upstream::with(move |seen, wire| {
            if seen.target == "/held" {
                held.wait();
            }
            if !wire.read_body() {
                return After::Close;
            }
            wire.answer("200 OK", "", "upstream");
            After::Keep
        });
        let gateway = Portcullis::with(&format!(
            "{ISSUER}\n{tables}[upstream.app]\nservers = [\"{upstream}\"]\n\
             [[route]]\npath = \"/{{*rest}}\"\nupstream = \"app\"\naccess = \"public\"\n"
        ))
        .start();
        Self { upstream, gateway, gate }
    }

    fn open(&self) -> Frames {
        Frames::open(self.gateway.http())
    }

    /// Checks that the connection still works: it answers a PING and a request on this stream.
    #[track_caller]
    fn works(&self, frames: &mut Frames, stream: u32, name: &str) {
        frames.send(frame::PING, 0, 0, b"12345678").unwrap();
        loop {
            let next = frames.next().unwrap_or_else(|| panic!("{name}: the connection stays open"));
            assert!(next.kind != frame::GOAWAY, "{name}: {next:?}");
            if next.kind == frame::PING && next.flags & frame::ACK != 0 {
                assert_eq!(next.payload, b"12345678", "{name}");
                break;
            }
        }
        whole(frames, stream, &GET);
        assert_eq!(reaction(frames, stream), Reaction::Answer, "{name}");
    }
}

fn whole(frames: &mut Frames, stream: u32, fields: &[(&str, &str)]) {
    let _ = frames.send(frame::HEADERS, frame::END_STREAM | frame::END_HEADERS, stream, &block(fields));
}

fn begin(frames: &mut Frames, stream: u32, fields: &[(&str, &str)]) {
    let _ = frames.send(frame::HEADERS, frame::END_HEADERS, stream, &block(fields));
}

type Send = fn(&mut Frames);
type Case = (&'static str, &'static str, Send, u32, Rule);

/// Runs cases that begin no valid request. Nothing reaches the upstream.
fn run(cases: &[Case]) {
    let stage = Stage::new();
    try_all(&stage, cases);
    stage.upstream.saw_nothing();
    Request::get("/open").to(stage.gateway.http()).is(200);
}

fn try_all(stage: &Stage, cases: &[Case]) {
    let mut failed = Vec::new();
    for (section, name, send, stream, rule) in cases {
        let mut frames = stage.open();
        send(&mut frames);
        let reaction = reaction(&mut frames, *stream);
        if !rule.allows(reaction) {
            failed.push(format!("{section}, {name}: {reaction:?}"));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Sends one frame of a new connection.
macro_rules! first {
    ($kind:expr, $flags:expr, $stream:expr, $payload:expr) => {
        |frames| drop(frames.send($kind, $flags, $stream, $payload))
    };
}

const PRIORITY_OF_ROOT: [u8; 5] = [0, 0, 0, 0, 15];

#[test]
fn frames_of_the_wrong_size_end_the_connection() {
    let size = Rule::Library(FRAME_SIZE_ERROR);
    let large = Rule::Connection(FRAME_SIZE_ERROR);
    run(&[
        ("4.2", "HEADERS larger than the limit", first!(frame::HEADERS, 5, 1, &[0; 16_385]), 1, large),
        ("4.2", "SETTINGS larger than the limit", first!(frame::SETTINGS, 0, 0, &[0; 16_386]), 0, large),
        (
            "6.4",
            "RST_STREAM with three bytes",
            |frames| {
                begin(frames, 1, &[]);
                let _ = frames.send(frame::RST_STREAM, 0, 1, &[0; 3]);
            },
            0,
            size,
        ),
        ("6.5", "SETTINGS with five bytes", first!(frame::SETTINGS, 0, 0, &[0; 5]), 0, size),
        ("6.5", "an acknowledgement with a setting", first!(frame::SETTINGS, 1, 0, &[0; 6]), 0, size),
        ("6.7", "PING with seven bytes", first!(frame::PING, 0, 0, &[0; 7]), 0, size),
        ("6.7", "PING with nine bytes", first!(frame::PING, 0, 0, &[0; 9]), 0, size),
        ("6.9", "WINDOW_UPDATE with three bytes", first!(frame::WINDOW_UPDATE, 0, 0, &[0, 0, 1]), 0, size),
        (
            "6.9",
            "WINDOW_UPDATE with five bytes",
            first!(frame::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 0, 1]),
            0,
            size,
        ),
        ("6.3", "PRIORITY with four bytes", first!(frame::PRIORITY, 0, 1, &[0; 4]), 1, size),
    ]);
}

#[test]
fn frames_for_the_wrong_stream_end_the_connection() {
    let protocol = Rule::Connection(PROTOCOL_ERROR);
    run(&[
        ("6.1", "DATA for stream 0", first!(frame::DATA, 0, 0, b"x"), 0, protocol),
        ("6.2", "HEADERS for stream 0", |frames| whole(frames, 0, &GET), 0, protocol),
        ("6.3", "PRIORITY for stream 0", first!(frame::PRIORITY, 0, 0, &PRIORITY_OF_ROOT), 0, protocol),
        ("6.4", "RST_STREAM for stream 0", first!(frame::RST_STREAM, 0, 0, &[0; 4]), 0, protocol),
        ("6.5", "SETTINGS for a stream", first!(frame::SETTINGS, 0, 1, &[]), 0, protocol),
        ("6.7", "PING for a stream", first!(frame::PING, 0, 1, &[0; 8]), 0, protocol),
        ("6.8", "GOAWAY for a stream", first!(frame::GOAWAY, 0, 1, &[0; 8]), 0, protocol),
        ("6.10", "CONTINUATION for stream 0", first!(frame::CONTINUATION, 4, 0, &[]), 0, protocol),
        ("5.1.1", "a stream with an even number", |frames| whole(frames, 2, &GET), 2, protocol),
        ("5.1", "DATA for an idle stream", first!(frame::DATA, 1, 1, b"x"), 1, protocol),
        ("5.1", "RST_STREAM for an idle stream", first!(frame::RST_STREAM, 0, 1, &[0; 4]), 0, protocol),
        (
            "5.1",
            "WINDOW_UPDATE for an idle stream",
            first!(frame::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            0,
            protocol,
        ),
        ("5.1", "CONTINUATION for an idle stream", first!(frame::CONTINUATION, 4, 1, &[]), 0, protocol),
        ("8.4", "PUSH_PROMISE of a client", first!(frame::PUSH_PROMISE, 4, 1, &[0, 0, 0, 2]), 0, protocol),
    ]);
}

#[test]
fn settings_that_are_out_of_range_end_the_connection() {
    let (protocol, flow) = (Rule::Connection(PROTOCOL_ERROR), Rule::Library(FLOW_CONTROL_ERROR));
    run(&[
        ("6.5.2", "ENABLE_PUSH of 2", first!(frame::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]), 0, protocol),
        ("6.5.2", "a window of 2^31", first!(frame::SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]), 0, flow),
        (
            "6.5.2",
            "frames of 16,383 bytes",
            first!(frame::SETTINGS, 0, 0, &[0, 5, 0, 0, 0x3f, 0xff]),
            0,
            protocol,
        ),
        ("6.5.2", "frames of 2^24 bytes", first!(frame::SETTINGS, 0, 0, &[0, 5, 1, 0, 0, 0]), 0, protocol),
        (
            "RFC 8441 3",
            "ENABLE_CONNECT_PROTOCOL of 2",
            first!(frame::SETTINGS, 0, 0, &[0, 8, 0, 0, 0, 2]),
            0,
            protocol,
        ),
    ]);
}

#[test]
fn a_field_section_is_one_block_without_frames_between() {
    let protocol = Rule::Connection(PROTOCOL_ERROR);
    fn open(frames: &mut Frames) {
        let _ = frames.send(frame::HEADERS, frame::END_STREAM, 1, &block(&GET));
    }
    run(&[
        (
            "6.2",
            "DATA in a block",
            |frames| {
                open(frames);
                let _ = frames.send(frame::DATA, 0, 1, b"x");
            },
            1,
            protocol,
        ),
        (
            "6.2",
            "PING in a block",
            |frames| {
                open(frames);
                let _ = frames.send(frame::PING, 0, 0, &[0; 8]);
            },
            0,
            protocol,
        ),
        (
            "6.2",
            "another HEADERS in a block",
            |frames| {
                open(frames);
                whole(frames, 3, &GET);
            },
            0,
            protocol,
        ),
        (
            "6.10",
            "CONTINUATION of another stream",
            |frames| {
                open(frames);
                let _ = frames.send(frame::CONTINUATION, 4, 3, &[]);
            },
            0,
            protocol,
        ),
        (
            "5.5",
            "an unknown frame in a block",
            |frames| {
                open(frames);
                let _ = frames.send(0xfa, 0, 1, b"x");
            },
            0,
            protocol,
        ),
        (
            "4.3",
            "an index that no table has",
            first!(frame::HEADERS, 5, 1, &[0xff, 0xff, 0x7f]),
            0,
            Rule::Library(COMPRESSION_ERROR),
        ),
        (
            "4.3",
            "a truncated literal",
            first!(frame::HEADERS, 5, 1, &[0, 9, b'x']),
            0,
            Rule::Library(COMPRESSION_ERROR),
        ),
        (
            "4.3",
            "a table larger than the limit",
            first!(frame::HEADERS, 5, 1, &[0x3f, 0xe1, 0xff, 0x7f]),
            0,
            Rule::Library(COMPRESSION_ERROR),
        ),
        (
            "6.2",
            "padding longer than HEADERS",
            first!(frame::HEADERS, 5 | frame::PADDED, 1, &[9, 0x82]),
            0,
            protocol,
        ),
    ]);
}

/// The upstream may see the beginning of these requests, but never a whole one.
#[test]
fn frames_that_break_a_request_end_its_stream() {
    let protocol = Rule::Stream(PROTOCOL_ERROR);
    let closed = Rule::Library(STREAM_CLOSED);
    let cases: &[Case] = &[
        (
            "6.1",
            "padding longer than DATA",
            |frames| {
                begin(frames, 1, &HELD);
                let _ = frames.send(frame::DATA, frame::PADDED, 1, &[9, b'x']);
            },
            1,
            Rule::Connection(PROTOCOL_ERROR),
        ),
        (
            "4.2",
            "DATA larger than the limit",
            |frames| {
                begin(frames, 1, &HELD);
                let _ = frames.send(frame::DATA, 0, 1, &[0; 16_385]);
            },
            1,
            Rule::Stream(FRAME_SIZE_ERROR),
        ),
        (
            "6.9",
            "WINDOW_UPDATE of 0 for a stream",
            |frames| {
                begin(frames, 1, &HELD);
                let _ = frames.send(frame::WINDOW_UPDATE, 0, 1, &[0; 4]);
            },
            1,
            protocol,
        ),
        (
            "6.9",
            "WINDOW_UPDATE of 0 for the connection",
            |frames| {
                begin(frames, 1, &HELD);
                let _ = frames.send(frame::WINDOW_UPDATE, 0, 0, &[0; 4]);
            },
            1,
            Rule::Connection(PROTOCOL_ERROR),
        ),
        (
            "6.9.1",
            "a window of a stream above 2^31-1",
            |frames| {
                begin(frames, 1, &HELD);
                let _ = frames.send(frame::WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff]);
            },
            1,
            Rule::Stream(FLOW_CONTROL_ERROR),
        ),
        (
            "6.9.1",
            "a window of the connection above 2^31-1",
            |frames| {
                begin(frames, 1, &HELD);
                let _ = frames.send(frame::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]);
            },
            1,
            Rule::Connection(FLOW_CONTROL_ERROR),
        ),
        (
            "6.9.2",
            "a setting that lifts a window above 2^31-1",
            |frames| {
                begin(frames, 1, &HELD);
                let _ = frames.send(frame::WINDOW_UPDATE, 0, 1, &[0x40, 0, 0, 0]);
                let _ = frames.send(frame::SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
            },
            1,
            Rule::Connection(FLOW_CONTROL_ERROR),
        ),
        (
            "8.1",
            "trailers without END_STREAM",
            |frames| {
                begin(frames, 1, &HELD);
                begin(frames, 1, &[("x-sum", "1")]);
            },
            1,
            protocol,
        ),
        (
            "8.1.1",
            "less DATA than the length",
            |frames| {
                begin(frames, 1, &[HELD[0], HELD[1], HELD[2], HELD[3], ("content-length", "5")]);
                let _ = frames.send(frame::DATA, 1, 1, b"four");
            },
            1,
            protocol,
        ),
        (
            "8.1.1",
            "more DATA than the length",
            |frames| {
                begin(frames, 1, &[HELD[0], HELD[1], HELD[2], HELD[3], ("content-length", "3")]);
                let _ = frames.send(frame::DATA, 1, 1, b"four");
            },
            1,
            protocol,
        ),
        (
            "8.1.1",
            "trailers in place of the announced DATA",
            |frames| {
                begin(frames, 1, &[HELD[0], HELD[1], HELD[2], HELD[3], ("content-length", "3")]);
                whole(frames, 1, &[("x-sum", "1")]);
            },
            1,
            protocol,
        ),
        (
            "5.1",
            "DATA after END_STREAM",
            |frames| {
                whole(frames, 1, &HELD);
                let _ = frames.send(frame::DATA, 1, 1, b"x");
            },
            1,
            closed,
        ),
        (
            "5.1",
            "HEADERS after END_STREAM",
            |frames| {
                whole(frames, 1, &HELD);
                whole(frames, 1, &[("x-sum", "1")]);
            },
            1,
            closed,
        ),
    ];
    let stage = Stage::new();
    try_all(&stage, cases);
    stage.gate.open();
    Request::get("/open").to(stage.gateway.http()).is(200);
    for seen in stage.upstream.requests() {
        assert!(seen.target == "/open" || seen.body_bytes == 0 || !seen.complete, "{seen:#?}");
    }
}

#[test]
fn a_stream_that_has_ended_or_was_skipped_takes_no_frame() {
    let stage = Stage::new();
    // 5.1.1: the first use of a number closes all lower ones.
    let mut frames = stage.open();
    whole(&mut frames, 5, &GET);
    assert_eq!(reaction(&mut frames, 5), Reaction::Answer);
    whole(&mut frames, 3, &GET);
    assert_eq!(reaction(&mut frames, 3), Reaction::Connection(PROTOCOL_ERROR), "5.1.1");
    // 5.1: a client that has reset a stream sends nothing more on it.
    for (name, kind, flags, rule) in [
        ("DATA", frame::DATA, 1, Rule::Stream(STREAM_CLOSED)),
        ("HEADERS", frame::HEADERS, 5, Rule::Library(STREAM_CLOSED)),
    ] {
        let mut frames = stage.open();
        begin(&mut frames, 1, &HELD);
        frames.send(frame::RST_STREAM, 0, 1, &8u32.to_be_bytes()).unwrap();
        let _ =
            frames.send(kind, flags, 1, if kind == frame::HEADERS { &[0, 1, b'x', 1, b'y'] } else { b"x" });
        let reaction = reaction(&mut frames, 1);
        assert!(rule.allows(reaction), "5.1, {name}: {reaction:?}");
    }
    stage.gate.open();
}

#[test]
fn frames_that_a_receiver_ignores_change_nothing() {
    let stage = Stage::new();
    let cases: [(&str, &str, Send); 13] = [
        ("4.1", "a reserved bit", |frames| {
            frames.send(frame::WINDOW_UPDATE, 0, 1 << 31, &[0, 0, 0, 1]).unwrap()
        }),
        ("4.1", "an unknown flag", |frames| {
            frames.send(frame::WINDOW_UPDATE, 0xff, 0, &[0, 0, 0, 1]).unwrap();
        }),
        ("5.5", "an unknown type of frame", |frames| frames.send(0xfa, 0xff, 1, b"x").unwrap()),
        ("5.5", "an unknown type of frame for stream 0", |frames| frames.send(0xfa, 0, 0, &[]).unwrap()),
        ("6.3", "PRIORITY for an idle stream", |frames| {
            frames.send(frame::PRIORITY, 0, 101, &PRIORITY_OF_ROOT).unwrap();
        }),
        ("6.5.2", "an unknown setting", |frames| {
            frames.send(frame::SETTINGS, 0, 0, &[0xfa, 0xfa, 1, 2, 3, 4]).unwrap();
        }),
        // These limit pushes, and the gateway pushes nothing.
        ("6.5.2", "MAX_CONCURRENT_STREAMS of 0", |frames| {
            frames.send(frame::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 0]).unwrap();
        }),
        ("6.5.2", "MAX_CONCURRENT_STREAMS of 2^32-1", |frames| {
            frames.send(frame::SETTINGS, 0, 0, &[0, 3, 0xff, 0xff, 0xff, 0xff]).unwrap();
        }),
        ("6.5.3", "the same setting twice", |frames| {
            frames.send(frame::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1, 0, 4, 0, 0, 0xff, 0xff]).unwrap();
        }),
        ("6.7", "an acknowledgement of no PING", |frames| {
            frames.send(frame::PING, frame::ACK, 0, &[9; 8]).unwrap();
        }),
        ("6.9", "WINDOW_UPDATE after the answer", |frames| {
            whole(frames, 1, &GET);
            assert_eq!(reaction(frames, 1), Reaction::Answer);
            frames.send(frame::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]).unwrap();
        }),
        ("5.1", "RST_STREAM after the answer", |frames| {
            whole(frames, 1, &GET);
            assert_eq!(reaction(frames, 1), Reaction::Answer);
            frames.send(frame::RST_STREAM, 0, 1, &8u32.to_be_bytes()).unwrap();
        }),
        ("6.2", "padding and a priority", |frames| {
            let fields = block(&GET);
            let payload = [&[2][..], &PRIORITY_OF_ROOT, &fields, &[0; 2]].concat();
            frames.send(frame::HEADERS, 5 | frame::PADDED | 0x20, 1, &payload).unwrap();
            assert_eq!(reaction(frames, 1), Reaction::Answer);
        }),
    ];
    for (section, name, send) in cases {
        let mut frames = stage.open();
        send(&mut frames);
        stage.works(&mut frames, 7, &format!("{section}, {name}"));
    }
}

/// 8.1 calls such a request malformed. The HTTP library removes the pseudo-header, so it changes nothing.
#[test]
fn a_pseudo_header_in_trailers_changes_nothing() {
    let stage = Stage::new();
    let mut frames = stage.open();
    begin(&mut frames, 1, &[(":method", "POST"), GET[1], GET[2], GET[3]]);
    whole(&mut frames, 1, &[(":path", "/f0rged"), (":authority", "f0rged")]);
    let _ = reaction(&mut frames, 1);
    assert!(stage.upstream.requests().iter().all(|seen| !seen.mentions("f0rged")));
}

/// 6.9.1 and 6.9.2: the gateway sends no more than the client's window, and a setting may make the window negative.
#[test]
fn answers_stay_within_the_windows_of_the_client() {
    let stage = Stage::new();
    let mut frames = Frames::open_with(stage.gateway.http(), &[0, 4, 0, 0, 0, 3]);
    whole(&mut frames, 1, &GET);
    let mut body = Vec::new();
    let mut data = |frames: &mut Frames| loop {
        let next = frames.next().expect("the connection stays open");
        if next.kind == frame::DATA && next.stream == 1 {
            body.extend_from_slice(&next.payload);
            return (next.payload.len(), next.flags & frame::END_STREAM != 0);
        }
    };
    assert_eq!(data(&mut frames), (3, false), "6.9.1");
    // The window becomes -2, and then 1.
    frames.send(frame::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]).unwrap();
    frames.send(frame::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 3]).unwrap();
    assert_eq!(data(&mut frames), (1, false), "6.9.2");
    frames.send(frame::WINDOW_UPDATE, 0, 1, &[0, 0, 1, 0]).unwrap();
    assert_eq!(data(&mut frames), (4, true));
    assert_eq!(body, b"upstream");
}

/// 6.9.1: the upstream reads nothing, so the gateway grants no more windows once the buffers on the way are full.
#[test]
fn data_beyond_the_window_ends_the_connection_in_bounded_memory() {
    let stage = Stage::new();
    Request::get("/open").to(stage.gateway.http()).is(200);
    let before = stage.gateway.peak_memory();
    let mut frames = stage.open();
    begin(&mut frames, 1, &HELD);
    let mut writer = frames.writer();
    let writing = std::thread::spawn(move || {
        (0..8 << 10).all(|_| writer.send(frame::DATA, 0, 1, &[0; 16_384]).is_ok())
    });
    let reaction = reaction(&mut frames, 1);
    assert!(Rule::Stream(FLOW_CONTROL_ERROR).allows(reaction), "{reaction:?}");
    drop(frames);
    stage.gate.open();
    writing.join().unwrap();
    let growth = stage.gateway.peak_memory().saturating_sub(before);
    assert!(growth < 32 << 20, "{growth} bytes");
    Request::get("/open").to(stage.gateway.http()).is(200);
}

/// 8.2.1, 8.2.2, 8.3: heads that `http2.rs` does not have.
#[test]
fn malformed_heads_never_reach_the_upstream() {
    let stage = Stage::new();
    let with = |name: &'static str, value: &'static str| [&GET[..], &[(name, value)]].concat();
    for (section, fields) in [
        ("8.2.2", with("keep-alive", "timeout=5")),
        ("8.2.2", with("proxy-connection", "keep-alive")),
        ("8.2.2", with("upgrade", "websocket")),
        ("8.2.2", with("te", "gzip")),
        ("8.2.2", with("te", "trailers, gzip")),
        ("8.3.1", GET[..3].to_vec()),
        ("8.3.1", [GET[0], GET[2], GET[3]].to_vec()),
        ("8.3.1", [GET[0], GET[1], GET[1], GET[2], GET[3]].to_vec()),
        ("8.3", [&[("accept", "*/*")][..], &GET].concat()),
        ("8.5", [(":method", "CONNECT"), GET[1], GET[2], GET[3]].to_vec()),
        ("8.5", [(":method", "CONNECT")].to_vec()),
        ("8.2.1", with("x-a ", "b")),
        ("8.2.1", with(" x-a", "b")),
        ("8.2.1", with("x\ta", "b")),
        ("8.2.1", with("x\na", "b")),
        ("8.2.1", with("X-A", "b")),
        ("8.2.1", with("x:a", "b")),
        ("8.2.1", with("", "b")),
        ("8.2.1", with("x-a", " b")),
        ("8.2.1", with("x-a", "b ")),
        ("8.2.1", with("x-a", "\tb")),
        ("8.2.1", with("x-a", "b\t")),
        ("8.2.1", with("x-a", " ")),
        ("8.2.1", with("x-a", "b\nc")),
        ("8.2.1", with("x-a", "b\rc")),
        ("8.2.1", with("x-a", "b\0c")),
    ] {
        let mut frames = stage.open();
        whole(&mut frames, 1, &fields);
        let verdict = frames.verdict(1);
        assert_ne!(verdict, Verdict::Status(200), "{section}: {fields:?}");
        stage.upstream.saw_nothing();
    }
}

/// 8.2.1: white space within a value, and an empty value, are valid.
#[test]
fn white_space_within_a_value_passes() {
    let stage = Stage::new();
    for value in ["", "b c", "b\tc"] {
        let mut frames = stage.open();
        whole(&mut frames, 1, &[&GET[..], &[("x-a", value)]].concat());
        assert_eq!(frames.verdict(1), Verdict::Status(200), "{value:?}");
        assert_eq!(stage.upstream.last_request().header("x-a"), Some(value));
    }
}

/// 5.1.2: a stream above the announced MAX_CONCURRENT_STREAMS is refused, and the others go on.
#[test]
fn a_stream_above_the_announced_number_is_refused() {
    let stage = Stage::with("[server.bounds]\nstreams = 2\n");
    let mut frames = stage.open();
    let announced = loop {
        let next = frames.next().expect("the gateway sends its settings first");
        if next.kind == frame::SETTINGS && next.flags & frame::ACK == 0 {
            break next.payload;
        }
    };
    let settings: Vec<_> = announced.chunks(6).filter(|setting| setting[..2] == [0, 3]).collect();
    assert_eq!(settings, [[0, 3, 0, 0, 0, 2]]);
    for stream in [1, 3, 5] {
        whole(&mut frames, stream, &HELD);
    }
    let refused = reaction(&mut frames, 5);
    assert!(matches!(refused, Reaction::Stream(REFUSED_STREAM | PROTOCOL_ERROR)), "{refused:?}");
    stage.gate.open();
    let mut answered = [false; 2];
    while answered != [true; 2] {
        let next = frames.next().expect("the connection stays open");
        assert!(next.kind != frame::RST_STREAM && next.kind != frame::GOAWAY, "{next:?}");
        if next.kind == frame::HEADERS {
            answered[next.stream as usize / 2] = true;
        }
    }
    // A stream that has ended leaves its place to another one.
    stage.works(&mut frames, 7, "5.1.2");
    assert_eq!(stage.upstream.requests().iter().filter(|seen| seen.target == "/held").count(), 2);
}
