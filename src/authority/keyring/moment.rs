//! Moments as they stand in the names of key files: `20260131T235959Z`, the basic format of ISO 8601, in UTC. Names of
//! such files sort as the moments do.

use crate::journal::line::timestamp;

/// Writes a moment, given in seconds since 1970.
pub(super) fn written(unix: u64) -> String {
    rfc3339(unix).chars().filter(|c| !matches!(c, '-' | ':')).collect()
}

/// Reads what [`written`] wrote, and nothing else.
pub(super) fn read(text: &str) -> Option<u64> {
    let part = |from: usize, to: usize| -> Option<u64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    };
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = (part(9, 11)?, part(11, 13)?, part(13, 15)?);
    let unix = days(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second;
    // 31 February and 25 o'clock are other moments when they are written again.
    (written(unix) == text).then_some(unix)
}

/// As operators and programs read it (RFC 3339).
pub(super) fn rfc3339(unix: u64) -> String {
    let mut out = Vec::with_capacity(24);
    timestamp(&mut out, unix, 0);
    String::from_utf8_lossy(&out).replace(".000Z", "Z")
}

/// How many days lie between 1970-01-01 and a date of the Gregorian calendar that is not before it. Years are counted
/// from March, so that the leap day is the last of its year.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    let (year, from_march) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let to_year = 365 * year + year / 4 - year / 100 + year / 400;
    (to_year + (153 * from_march + 2) / 5 + day).checked_sub(1 + 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_is_written_so_is_a_moment() {
        assert_eq!(written(0), "19700101T000000Z");
        assert_eq!(written(1_795_425_361), "20261123T091601Z");
        assert_eq!(rfc3339(1_795_425_361), "2026-11-23T09:16:01Z");
        assert_eq!(read("20240229T235959Z"), Some(1_709_251_199));
        for text in [
            "",
            "Z",
            "20230229T000000Z",
            "20260132T000000Z",
            "20261301T000000Z",
            "20260131T240000Z",
            "20260131T236000Z",
            "20260131T235959",
            "20260131t235959Z",
            "+0260131T235959Z",
            "20260131T235959Z ",
            "19691231T235959Z",
            "2026-01-31T23:59:59Z",
            "1769903999",
            "２０２６０１３１T235959Z",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_moment_is_read_as_it_was_written(unix in 0..253_402_300_799_u64) {
            prop_assert_eq!(read(&written(unix)), Some(unix));
        }

        #[test]
        fn names_sort_as_moments_do(a in 0..253_402_300_799_u64, b in 0..253_402_300_799_u64) {
            prop_assert_eq!(a.cmp(&b), written(a).cmp(&written(b)));
        }
    }
}
