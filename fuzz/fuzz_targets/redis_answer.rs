//! Reads any bytes as Redis' answer to a limit's order, and as a page of the stream of marks. Nobody who answers for Redis
//! leases more tokens than were asked for, or closes a bucket for longer than the limit can. The entries of a page come
//! after the last position, in order, so that no gateway reads entries again and again.
//!
//! The first byte is the number of tokens that are asked for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::limit::read_lease;
use portcullis::shared::read_page;

const AHEAD_MAX: u64 = 5_000_000;
const LAST: &str = "1700000000000-5";

fn position(id: &str) -> (u64, u64) {
    let (millis, number) = id.split_once('-').expect("a position");
    (millis.parse().expect("a time"), number.parse().expect("a number"))
}

fuzz_target!(|data: &[u8]| {
    let Some((want, answer)) = data.split_first() else { return };
    let want = u32::from(*want);
    if let Some((tokens, ahead)) = read_lease(answer, want, AHEAD_MAX) {
        assert!(tokens <= want && ahead <= AHEAD_MAX, "{tokens} {ahead}");
    }
    let mut last = position(LAST);
    for (id, _mark) in read_page(answer, LAST).unwrap_or_default() {
        let at = position(&id);
        assert!(at > last, "{id}");
        last = at;
    }
});
