//! Formats and parses times: RFC 3339, and the basic format of ISO 8601 in UTC (`20260131T235959Z`) for the names of
//! key files. These names sort by time.
//!
//! The `time` crate parses times. The log's writer formats them, so all times in the gateway's output have one format.

use crate::journal::line;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Formats a time (seconds since 1970) as in RFC 3339: `2026-01-31T23:59:59Z`.
pub(crate) fn rfc3339(unix: u64) -> String {
    let mut out = Vec::with_capacity(24);
    line::timestamp(&mut out, unix, 0);
    String::from_utf8_lossy(&out).replace(".000Z", "Z")
}

/// Parses a time as in RFC 3339 section 5.6. Returns whole seconds since 1970, or `None` for an invalid time or a time
/// before 1970.
///
/// The separator of date and time is `T`, `t` or a space. A leap second counts as the second before it.
pub(crate) fn parse_rfc3339(text: &str) -> Option<u64> {
    // The `time` crate accepts any separator.
    let separator = text.as_bytes().get(10)?;
    let time = OffsetDateTime::parse(text, &Rfc3339).ok().filter(|_| b"Tt ".contains(separator))?;
    u64::try_from(time.unix_timestamp()).ok()
}

/// Formats a time (seconds since 1970) in the basic format: `20260131T235959Z`.
pub(crate) fn basic(unix: u64) -> String {
    rfc3339(unix).replace(['-', ':'], "")
}

/// Parses the format of [`basic`]. Rejects all other spellings.
pub(crate) fn parse_basic(text: &str) -> Option<u64> {
    let part = |from: usize, to: usize| text.get(from..to);
    let [year, month, day] = [part(0, 4)?, part(4, 6)?, part(6, 8)?];
    let [hour, minute, second] = [part(9, 11)?, part(11, 13)?, part(13, 15)?];
    let unix = parse_rfc3339(&format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z"))?;
    (basic(unix) == text).then_some(unix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_moment_is_read_as_rfc_3339_writes_it() {
        for text in [
            "2026-11-23T09:16:01Z",
            "2026-11-23t09:16:01z",
            "2026-11-23 09:16:01.999Z",
            "2026-11-23T10:16:01+01:00",
            "2026-11-22T23:46:01-09:30",
        ] {
            assert_eq!(parse_rfc3339(text), Some(1_795_425_361), "{text}");
        }
        assert_eq!(parse_rfc3339("2016-12-31T23:59:60Z"), parse_rfc3339("2016-12-31T23:59:59Z"));
        for text in [
            "",
            "2026-11-23",
            "2026-11-23T09:16:01",
            "2026-11-23T09:16Z",
            "2026-02-30T00:00:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T09:16:01.Z",
            "2026-11-23T09:16:01+0100",
            "2026-11-23T09:16:01+24:00",
            "2026-11-23T09:16:01+01:60",
            "2026-11-23X09:16:01Z",
            "2026-11-23T09:16:01Zx",
            "1969-12-31T23:59:59Z",
            "20261123T091601Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn only_what_is_written_so_is_a_moment() {
        assert_eq!(basic(0), "19700101T000000Z");
        assert_eq!(basic(1_795_425_361), "20261123T091601Z");
        assert_eq!(rfc3339(1_795_425_361), "2026-11-23T09:16:01Z");
        assert_eq!(parse_basic("20240229T235959Z"), Some(1_709_251_199));
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
            assert_eq!(parse_basic(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_formatted_rfc_3339_time_parses_to_the_same_time(unix in 0_u64..253_402_300_800) {
            prop_assert_eq!(parse_rfc3339(&rfc3339(unix)), Some(unix));
        }

        #[test]
        fn no_text_makes_reading_a_moment_panic(text in "\\PC{0,40}") {
            let _ = parse_rfc3339(&text);
        }

        #[test]
        fn every_moment_is_read_as_it_was_written(unix in 0..253_402_300_799_u64) {
            prop_assert_eq!(parse_basic(&basic(unix)), Some(unix));
        }

        #[test]
        fn names_sort_as_moments_do(a in 0..253_402_300_799_u64, b in 0..253_402_300_799_u64) {
            prop_assert_eq!(a.cmp(&b), basic(a).cmp(&basic(b)));
        }
    }
}
