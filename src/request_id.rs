//! The name of one request, the same in the answer, the log, the upstream's headers and the trace.

use aws_lc_rs::rand;
use http::HeaderValue;
use std::cell::Cell;

/// 128 bits that no other request has. It identifies, it does not authorize: it is unique, not secret.
///
/// The default one is no request's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestId(u128);

impl RequestId {
    /// 32 hexadecimal digits: the value of `X-Request-Id`.
    pub fn header(self) -> HeaderValue {
        HeaderValue::from_bytes(&self.hex()).expect("hexadecimal digits are a field value")
    }

    /// The value of `traceparent` for a trace that starts here (W3C Trace Context level 1, section 3.2.2).
    ///
    /// The trace id is the request id, so that a trace can be found from a log line. It says "sampled", which is
    /// what a service would decide by itself had we sent none (the default sampler of OpenTelemetry's SDKs); "not
    /// sampled" would silence every tracer behind us.
    pub fn traceparent(self) -> HeaderValue {
        let hex = self.hex();
        let mut value = *b"00-00000000000000000000000000000000-0000000000000000-01";
        value[3..35].copy_from_slice(&hex);
        value[36..52].copy_from_slice(&hex[16..]);
        HeaderValue::from_bytes(&value).expect("hexadecimal digits and dashes are a field value")
    }

    fn hex(self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut out = [0; 32];
        for (pair, byte) in out.chunks_exact_mut(2).zip(self.0.to_be_bytes()) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        out
    }
}

/// One core's source of request ids: seeded once from the system, then counting, so that no request costs a
/// system call.
#[derive(Debug)]
pub struct RequestIds {
    high: Cell<u64>,
    low: Cell<u64>,
}

impl RequestIds {
    /// A source seeded from the system's random numbers.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn seeded() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut seed = [0; 16];
        rand::fill(&mut seed)?;
        let seed = u128::from_le_bytes(seed);
        Ok(Self { high: Cell::new((seed >> 64) as u64), low: Cell::new(seed as u64) })
    }

    /// The next one. A trace id and its last half may not be zero (W3C Trace Context): the last bit is set.
    pub fn next(&self) -> RequestId {
        let high = splitmix(&self.high);
        let low = splitmix(&self.low) | 1;
        RequestId(u128::from(high) << 64 | u128::from(low))
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): a bijection of a counter, so within its half it does not repeat.
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
    fn a_trace_that_starts_here_has_the_form_of_the_recommendation() {
        let id = RequestIds::seeded().unwrap().next();
        let value = id.traceparent();
        let parts: Vec<_> = value.to_str().unwrap().split('-').collect();
        assert_eq!(parts.iter().map(|p| p.len()).collect::<Vec<_>>(), [2, 32, 16, 2]);
        assert_eq!(parts[1], id.header().to_str().unwrap());
        assert_ne!(parts[2], "0000000000000000");
    }
}
