//! Follows the frames of one direction of a WebSocket, and writes close frames.

/// The opcode of a close frame (RFC 6455 section 5.5.1).
const CLOSE: u8 = 8;
/// The first byte of a close frame that is not fragmented.
const FINAL_CLOSE: u8 = 0x80 | CLOSE;
const MASKED: u8 = 0x80;
/// The maximum length of a control frame's payload (RFC 6455 section 5.5).
const CONTROL_MAX: usize = 125;

/// Follows the frame boundaries in one direction of a WebSocket (RFC 6455 section 5.2).
///
/// Control frames may stand between any two frames, even between those of one message (RFC 6455 section 5.4). A close
/// frame can therefore follow every boundary.
#[derive(Debug)]
pub struct FrameTracker {
    state: State,
    has_closed: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Between two frames.
    Boundary,
    /// The byte with the length follows.
    Length,
    /// `left` bytes of the extended length follow.
    Extended { left: u8, length: u64, is_masked: bool },
    /// `left` bytes of the mask follow.
    Mask { left: u8, length: u64 },
    /// `left` bytes of the payload follow.
    Payload { left: u64 },
    /// A frame's length has more than 63 bits, which RFC 6455 section 5.2 forbids. No boundary follows.
    Lost,
}

impl Default for FrameTracker {
    fn default() -> Self {
        Self { state: State::Boundary, has_closed: false }
    }
}

impl FrameTracker {
    /// Follows all of these bytes.
    pub fn advance(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = &rest[self.advance_to_boundary(rest)..];
        }
    }

    /// Follows these bytes to the end of the current frame. Between two frames, follows the next frame. Returns the
    /// number of bytes followed, which is 0 only if there are no bytes.
    pub fn advance_to_boundary(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            match &mut self.state {
                State::Payload { left } => {
                    let step = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    at += step;
                    *left -= step as u64;
                    if *left == 0 {
                        self.state = State::Boundary;
                    }
                }
                State::Lost => return bytes.len(),
                State::Boundary | State::Length | State::Extended { .. } | State::Mask { .. } => {
                    at += 1;
                    self.state = self.after(*byte);
                }
            }
            if self.is_at_boundary() {
                break;
            }
        }
        at
    }

    /// Returns whether the bytes so far end with a whole frame.
    pub fn is_at_boundary(&self) -> bool {
        matches!(self.state, State::Boundary)
    }

    /// Returns whether a close frame has begun, after which no other frame may follow (RFC 6455 section 5.5.1).
    pub fn has_closed(&self) -> bool {
        self.has_closed
    }

    /// Returns the state after a byte of a frame's head.
    fn after(&mut self, byte: u8) -> State {
        match self.state {
            State::Boundary => {
                self.has_closed |= byte & 0x0f == CLOSE;
                State::Length
            }
            State::Length => {
                let is_masked = byte & MASKED != 0;
                match byte & !MASKED {
                    126 => State::Extended { left: 2, length: 0, is_masked },
                    127 => State::Extended { left: 8, length: 0, is_masked },
                    length => with_length(u64::from(length), is_masked),
                }
            }
            State::Extended { left, length, is_masked } => {
                let length = length << 8 | u64::from(byte);
                match left - 1 {
                    0 if length > u64::MAX / 2 => State::Lost,
                    0 => with_length(length, is_masked),
                    left => State::Extended { left, length, is_masked },
                }
            }
            State::Mask { left: 1, length } => with_payload(length),
            State::Mask { left, length } => State::Mask { left: left - 1, length },
            state @ (State::Payload { .. } | State::Lost) => state,
        }
    }
}

fn with_length(length: u64, is_masked: bool) -> State {
    if is_masked { State::Mask { left: 4, length } } else { with_payload(length) }
}

fn with_payload(left: u64) -> State {
    if left == 0 { State::Boundary } else { State::Payload { left } }
}

/// Returns a server's close frame with this status code and reason (RFC 6455 section 5.5.1).
pub fn close_frame(code: u16, reason: &'static str) -> Vec<u8> {
    let payload = payload(code, reason);
    let mut frame = vec![FINAL_CLOSE, length(&payload)];
    frame.extend(payload);
    frame
}

/// Returns a client's close frame, which must be masked (RFC 6455 section 5.3). A mask hides the bytes that a script
/// chose from other proxies. The gateway chose these bytes, so the mask need not be secret.
pub fn masked_close_frame(code: u16, reason: &'static str, mask: [u8; 4]) -> Vec<u8> {
    let payload = payload(code, reason);
    let mut frame = vec![FINAL_CLOSE, MASKED | length(&payload)];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn payload(code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend(reason.bytes().take(CONTROL_MAX - 2));
    payload
}

/// Returns the length byte of a control frame's payload.
fn length(payload: &[u8]) -> u8 {
    u8::try_from(payload.len()).expect("the payload has at most 125 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns a frame with this first byte, with its length written in the shortest form or in a longer one.
    fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8], form: u8) -> Vec<u8> {
        let masked = if mask.is_some() { MASKED } else { 0 };
        let mut frame = vec![first];
        match (form, payload.len()) {
            (0, length @ 0..126) => frame.push(masked | length as u8),
            (0 | 1, length @ 0..65536) => {
                frame.push(masked | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            (_, length) => {
                frame.push(masked | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(mask.iter().flatten());
        frame.extend(payload);
        frame
    }

    /// Returns the boundaries that a tracker finds if the bytes arrive in pieces of these sizes.
    fn boundaries(bytes: &[u8], cuts: &[usize]) -> Vec<usize> {
        let (mut tracker, mut found, mut at) = (FrameTracker::default(), Vec::new(), 0);
        let mut cuts = cuts.iter().cycle();
        while at < bytes.len() {
            let end = bytes.len().min(at + cuts.next().unwrap().max(&1));
            while at < end {
                at += tracker.advance_to_boundary(&bytes[at..end]);
                if tracker.is_at_boundary() {
                    found.push(at);
                }
            }
        }
        found
    }

    #[test]
    fn examples_of_the_standard_end_where_they_end() {
        // RFC 6455 section 5.7.
        for (bytes, closes) in [
            (&[0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f][..], false),
            (&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58], false),
            (&[0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f], false),
            (&close_frame(1008, "token_expired"), true),
            (&masked_close_frame(1001, "", [1, 2, 3, 4]), true),
        ] {
            assert_eq!(boundaries(bytes, &[1]), [bytes.len()], "{bytes:?}");
            let mut tracker = FrameTracker::default();
            tracker.advance(bytes);
            assert_eq!((tracker.is_at_boundary(), tracker.has_closed()), (true, closes));
        }
        assert_eq!(close_frame(1001, ""), [0x88, 2, 0x03, 0xe9]);
        assert_eq!(masked_close_frame(1001, "", [1, 2, 3, 4]), [0x88, 0x82, 1, 2, 3, 4, 0x02, 0xeb]);
    }

    #[test]
    fn a_length_that_the_standard_forbids_has_no_end() {
        let mut tracker = FrameTracker::default();
        tracker.advance(&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        tracker.advance(&[0; 4096]);
        assert!(!tracker.is_at_boundary());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(15_625))]

        /// Each case cuts its bytes in 64 ways: a million random fragmentations take a few seconds.
        #[test]
        fn cuts_do_not_move_a_boundary(
            frames in prop::collection::vec(
                (any::<u8>(), any::<Option<[u8; 4]>>(), 0_usize..300, 0_u8..3), 1..6
            ),
            seed in any::<u64>(),
        ) {
            let (mut bytes, mut ends) = (Vec::new(), Vec::new());
            for (first, mask, length, form) in frames {
                // The payload looks like the heads of frames.
                let payload: Vec<u8> = [0x88, 0x7f, 0x81, 0x05].into_iter().cycle().take(length).collect();
                bytes.extend(frame(first, mask, &payload, form));
                ends.push(bytes.len());
            }
            let mut random = seed | 1;
            for _ in 0..64 {
                let cuts: Vec<usize> = (0..8).map(|_| {
                    // A xorshift generator is fast enough for a million cases.
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    1 + (random >> 33) as usize % 64
                }).collect();
                prop_assert_eq!(&boundaries(&bytes, &cuts), &ends);
            }
        }
    }
}
