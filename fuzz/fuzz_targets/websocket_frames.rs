//! The boundaries of WebSocket frames do not depend on how the bytes are cut, and are those that a simple parser of the
//! whole input finds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::websocket::FrameTracker;

/// Returns the ends of the whole frames at the start of the bytes.
fn ends(bytes: &[u8]) -> Vec<usize> {
    let (mut ends, mut at) = (Vec::new(), 0);
    loop {
        let Some(&[_, second]) = bytes.get(at..at + 2) else { return ends };
        let (extended, mask) = match second & 0x7f {
            126 => (2, second >> 7),
            127 => (8, second >> 7),
            _ => (0, second >> 7),
        };
        let head = at + 2 + extended + 4 * usize::from(mask);
        let Some(length) = bytes.get(at + 2..at + 2 + extended) else { return ends };
        let length = match extended {
            0 => u64::from(second & 0x7f),
            _ => length.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        let Some(end) = usize::try_from(length).ok().and_then(|length| head.checked_add(length)) else {
            return ends;
        };
        if length > u64::MAX / 2 || end > bytes.len() {
            return ends;
        }
        ends.push(end);
        at = end;
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((cuts, bytes)) = data.split_at_checked(4) else { return };
    let (mut tracker, mut found, mut at) = (FrameTracker::default(), Vec::new(), 0);
    let mut cuts = cuts.iter().cycle();
    while at < bytes.len() {
        let end = bytes.len().min(at + 1 + usize::from(*cuts.next().expect("there are four cuts")));
        while at < end {
            let step = tracker.advance_to_boundary(&bytes[at..end]);
            assert!(step > 0);
            at += step;
            if tracker.is_at_boundary() {
                found.push(at);
            }
        }
    }
    assert_eq!(found, ends(bytes));
});
