//! Finds the frame boundaries in an HTTP/2 byte stream, and the frames that carry request heads.
//!
//! The HTTP library does not report when a head begins. Only HEADERS and CONTINUATION frames carry a head (RFC 9113
//! section 4.3). Other frames, such as an acknowledgement of a PING, must not start the deadline of a head on an idle
//! connection. The HTTP library parses the contents of all frames.

/// Length of a frame header, in bytes (RFC 9113 section 4.1).
const HEADER: usize = 9;
/// Length of the connection preface, in bytes (RFC 9113 section 3.4).
const PREFACE: u64 = 24;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// A frame boundary that affects a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameEvent {
    /// The frame header of a head's first frame is complete.
    HeadBegins,
    /// A frame is complete. `ends_head` is true for the last frame of a head.
    FrameEnds { ends_head: bool },
}

#[derive(Debug)]
pub(super) struct FrameScanner {
    header: [u8; HEADER],
    /// Number of bytes of `header` that have been received.
    filled: usize,
    /// Number of missing bytes of the preface or of the current payload.
    remaining: u64,
    in_frame: bool,
    in_head: bool,
    ends_head: bool,
}

impl FrameScanner {
    /// Creates a scanner for a stream that starts with the preface.
    pub(super) fn new() -> Self {
        Self {
            header: [0; HEADER],
            filled: 0,
            remaining: PREFACE,
            in_frame: false,
            in_head: false,
            ends_head: false,
        }
    }

    /// Scans the next bytes, and calls `on_event` for each event in them.
    pub(super) fn scan(&mut self, mut bytes: &[u8], mut on_event: impl FnMut(FrameEvent)) {
        loop {
            if self.remaining > 0 {
                if bytes.is_empty() {
                    return;
                }
                let step = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(bytes.len());
                bytes = &bytes[step..];
                self.remaining -= step as u64;
                if self.remaining > 0 {
                    return;
                }
            }
            if std::mem::take(&mut self.in_frame) {
                let ends_head = std::mem::take(&mut self.ends_head);
                self.in_head &= !ends_head;
                on_event(FrameEvent::FrameEnds { ends_head });
            }
            if bytes.is_empty() {
                return;
            }
            let step = (HEADER - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + step].copy_from_slice(&bytes[..step]);
            bytes = &bytes[step..];
            self.filled += step;
            if self.filled < HEADER {
                return;
            }
            self.filled = 0;
            self.in_frame = true;
            let [a, b, c, kind, flags, ..] = self.header;
            self.remaining = u64::from(u32::from_be_bytes([0, a, b, c]));
            if kind == HEADERS || kind == CONTINUATION {
                if !std::mem::replace(&mut self.in_head, true) {
                    on_event(FrameEvent::HeadBegins);
                }
                self.ends_head = flags & END_HEADERS != 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut bytes = u32::try_from(length).unwrap().to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        // The payload looks like the headers of HEADERS frames. The scanner must skip it.
        bytes.extend([0, 0, 1, HEADERS, END_HEADERS, 0, 0, 0, 1].iter().cycle().take(length));
        bytes
    }

    fn scan(bytes: &[u8], cuts: &[usize]) -> Vec<FrameEvent> {
        let (mut scanner, mut events) = (FrameScanner::new(), Vec::new());
        let (mut bytes, mut cuts) = (bytes, cuts.iter().cycle());
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at((*cuts.next().unwrap()).clamp(1, bytes.len()));
            scanner.scan(piece, |event| events.push(event));
            bytes = rest;
        }
        events
    }

    #[test]
    fn only_headers_and_continuation_frames_carry_a_head() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let mut expected = Vec::new();
        for kind in [4, 6, 8, 2, 0, 3, 7, 200] {
            bytes.extend(frame(kind, 0xff, usize::from(kind) % 19));
            expected.push(FrameEvent::FrameEnds { ends_head: false });
        }
        bytes.extend(frame(HEADERS, END_HEADERS, 30));
        bytes.extend(frame(HEADERS, 0, 30));
        bytes.extend(frame(CONTINUATION, 0, 0));
        bytes.extend(frame(CONTINUATION, END_HEADERS, 9));
        expected.extend([FrameEvent::HeadBegins, FrameEvent::FrameEnds { ends_head: true }]);
        expected.extend([
            FrameEvent::HeadBegins,
            FrameEvent::FrameEnds { ends_head: false },
            FrameEvent::FrameEnds { ends_head: false },
            FrameEvent::FrameEnds { ends_head: true },
        ]);
        assert_eq!(scan(&bytes, &[bytes.len()]), expected);
        assert_eq!(scan(&bytes, &[1]), expected);
    }

    proptest! {
        #[test]
        fn splitting_the_input_does_not_change_the_events(
            frames in prop::collection::vec((0_u8..12, any::<u8>(), 0_usize..40), 0..12),
            cuts in prop::collection::vec(1_usize..30, 1..8),
        ) {
            let mut bytes = vec![b'P'; 24];
            bytes.extend(frames.iter().flat_map(|(kind, flags, length)| frame(*kind, *flags, *length)));
            let whole = scan(&bytes, &[bytes.len()]);
            let ends = whole.iter().filter(|event| matches!(event, FrameEvent::FrameEnds { .. })).count();
            prop_assert_eq!(ends, frames.len());
            prop_assert_eq!(scan(&bytes, &cuts), whole);
        }
    }
}
