//! Creates request ids. A request id appears in the response, the log, the upstream's header fields and the trace.

use crate::hex;
use aws_lc_rs::rand;
use http::HeaderValue;
use std::cell::Cell;

/// A unique id of 128 bits, as 32 hexadecimal digits. It is not secret. The default value identifies no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestId([u8; 32]);

impl Default for RequestId {
    fn default() -> Self {
        Self([b'0'; 32])
    }
}

impl RequestId {
    /// Returns the value of `X-Request-Id`: 32 hexadecimal digits.
    pub(crate) fn header(self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).expect("hexadecimal digits are a field value")
    }

    /// Returns a `traceparent` for a trace that starts at the gateway (W3C Trace Context level 1, section 3.2.2).
    ///
    /// The trace id is the request id, so a trace can be found from a log line. The flag is "sampled", as in
    /// OpenTelemetry's default sampler for a trace without a parent. The flag "not sampled" would disable every tracer
    /// behind the gateway.
    pub(crate) fn traceparent(self) -> HeaderValue {
        let line = self.traceparent_line();
        let value = line.trim_ascii_end().strip_prefix(b"traceparent: ").unwrap_or_default();
        HeaderValue::from_bytes(value).expect("hexadecimal digits and dashes are a field value")
    }

    /// Returns the field `traceparent` in the form in which it is sent.
    pub(crate) fn traceparent_line(self) -> [u8; 70] {
        let hex = self.0;
        let mut line = *b"traceparent: 00-00000000000000000000000000000000-0000000000000000-01\r\n";
        line[16..48].copy_from_slice(&hex);
        line[49..65].copy_from_slice(&hex[16..]);
        line
    }

    /// Returns the trace id of a trace that starts at the gateway.
    pub(crate) fn trace_id(self) -> [u8; 32] {
        self.0
    }
}

/// Returns the trace id of a valid `traceparent` (W3C Trace Context level 1, section 3.2).
///
/// A valid value is `00-`, 32 hexadecimal digits, `-`, 16 digits, `-` and 2 digits, in lower case. Neither id may be
/// zero. A higher version may have more fields after another dash.
pub(crate) fn trace_id_of(traceparent: &HeaderValue) -> Option<[u8; 32]> {
    let bytes = traceparent.as_bytes();
    let hex = |range: std::ops::Range<usize>| {
        bytes.get(range).is_some_and(|part| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    };
    let nonzero = |range: std::ops::Range<usize>| bytes[range].iter().any(|b| *b != b'0');
    let is_valid = bytes.len() >= 55
        && bytes.len() <= 256
        && (bytes.len() == 55 || (!bytes.starts_with(b"00") && bytes[55] == b'-'))
        && hex(0..2)
        && !bytes.starts_with(b"ff")
        && (bytes[2], bytes[35], bytes[52]) == (b'-', b'-', b'-')
        && hex(3..35)
        && hex(36..52)
        && hex(53..55)
        && nonzero(3..35)
        && nonzero(36..52);
    let id = bytes.get(3..).and_then(<[u8]>::first_chunk)?;
    is_valid.then_some(*id)
}

/// One core's source of request ids: a counter with a random start. No request needs a system call.
#[derive(Debug)]
pub(crate) struct RequestIds {
    high: Cell<u64>,
    low: Cell<u64>,
}

impl RequestIds {
    /// Creates a source with a random start.
    ///
    /// # Errors
    /// Returns an error if the system provides no random numbers.
    pub(crate) fn seeded() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut seed = [0; 16];
        rand::fill(&mut seed)?;
        let seed = u128::from_le_bytes(seed);
        Ok(Self { high: Cell::new((seed >> 64) as u64), low: Cell::new(seed as u64) })
    }

    /// Returns the next id. The last bit is always set. The id is used as the trace id, and its last half as the parent
    /// id. Neither may be zero (W3C Trace Context).
    pub(crate) fn next(&self) -> RequestId {
        let high = splitmix(&self.high);
        let low = splitmix(&self.low) | 1;
        let mut digits = [0; 32];
        digits[..16].copy_from_slice(&hex::digits_of(high));
        digits[16..].copy_from_slice(&hex::digits_of(low));
        RequestId(digits)
    }
}

/// Advances the counter and returns its SplitMix64 value (Steele, Lea and Flood, 2014). SplitMix64 is a bijection, so
/// no value repeats.
fn splitmix(state: &Cell<u64>) -> u64 {
    let counter = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    state.set(counter);
    let mixed = (counter ^ (counter >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_distinct_within_and_between_cores() {
        let (one, other) = (RequestIds::seeded().unwrap(), RequestIds::seeded().unwrap());
        let ids: HashSet<_> = (0..1000).flat_map(|_| [one.next().0, other.next().0]).collect();
        assert_eq!(ids.len(), 2000);
    }

    #[test]
    fn only_a_well_formed_traceparent_has_a_trace_id() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let id = *b"4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(trace_id_of(&good.parse().unwrap()), Some(id));
        assert_eq!(trace_id_of(&format!("01{}-more", &good[2..]).parse().unwrap()), Some(id));
        for bad in [
            "",
            "00",
            &good.to_uppercase(),
            &good[..54],
            &format!("{good}-more"),
            &format!("ff{}", &good[2..]),
            &good.replace("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"),
            &good.replace("00f067aa0ba902b7", "0000000000000000"),
            &good.replace('-', "_"),
        ] {
            assert_eq!(trace_id_of(&bad.parse().unwrap()), None, "{bad}");
        }
    }

    #[test]
    fn a_trace_that_starts_here_has_the_form_of_the_recommendation() {
        let id = RequestIds::seeded().unwrap().next();
        let value = id.traceparent();
        let parts: Vec<_> = value.to_str().unwrap().split('-').collect();
        assert_eq!(parts.iter().map(|p| p.len()).collect::<Vec<_>>(), [2, 32, 16, 2]);
        assert_eq!(parts[1], id.header().to_str().unwrap());
        assert_ne!(parts[2], "0000000000000000");
    }
}
