//! Moments as people and programs write them: by RFC 3339, and as they stand in the names of key files,
//! `20260131T235959Z`, the basic format of ISO 8601 in UTC. Names of such files sort as the moments do.

use crate::journal::line::timestamp;

/// Writes a moment, given in seconds since 1970.
pub fn written(unix: u64) -> String {
    rfc3339(unix).chars().filter(|c| !matches!(c, '-' | ':')).collect()
}

/// Reads what [`written`] wrote, and nothing else.
pub fn read(text: &str) -> Option<u64> {
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
pub fn rfc3339(unix: u64) -> String {
    let mut out = Vec::with_capacity(24);
    timestamp(&mut out, unix, 0);
    String::from_utf8_lossy(&out).replace(".000Z", "Z")
}

/// Reads a moment by RFC 3339 section 5.6, to the second: with `Z` or an offset, not before 1970. A leap second is the
/// second before it.
pub fn from_rfc3339(text: &str) -> Option<u64> {
    let (date, rest) = text.split_at_checked(10)?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (time, mut rest) = rest.split_at_checked(8)?;
    if let Some(fraction) = rest.strip_prefix('.') {
        let end = fraction.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0)?;
        rest = &fraction[end..];
    }
    let is_written_so = |text: &str, pattern: &str| {
        text.len() == pattern.len()
            && text.bytes().zip(pattern.bytes()).all(|(ours, wanted)| match wanted {
                b'0' => ours.is_ascii_digit(),
                wanted => ours == wanted,
            })
    };
    if !is_written_so(date, "0000-00-00") || !is_written_so(time, "00:00:00") {
        return None;
    }
    let time = if time.ends_with(":60") { time.replace(":60", ":59") } else { time.to_owned() };
    let basic: String = format!("{date}T{time}Z").chars().filter(|c| !matches!(c, '-' | ':')).collect();
    let local = read(&basic)?;
    match rest {
        "Z" | "z" => Some(local),
        offset => {
            let (sign, offset) = offset.split_at_checked(1)?;
            let hours: u64 = offset.get(..2)?.parse().ok().filter(|hours| *hours < 24)?;
            let minutes: u64 = offset.get(3..)?.parse().ok().filter(|minutes| *minutes < 60)?;
            let seconds = hours * 3600 + minutes * 60;
            match sign {
                _ if !is_written_so(offset, "00:00") => None,
                "+" => local.checked_sub(seconds),
                "-" => local.checked_add(seconds),
                _ => None,
            }
        }
    }
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
    fn a_moment_is_read_as_rfc_3339_writes_it() {
        for text in [
            "2026-11-23T09:16:01Z",
            "2026-11-23t09:16:01z",
            "2026-11-23 09:16:01.999Z",
            "2026-11-23T10:16:01+01:00",
            "2026-11-22T23:46:01-09:30",
        ] {
            assert_eq!(from_rfc3339(text), Some(1_795_425_361), "{text}");
        }
        assert_eq!(from_rfc3339("2016-12-31T23:59:60Z"), from_rfc3339("2016-12-31T23:59:59Z"));
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
            "2026-11-23T09:16:01Zx",
            "1969-12-31T23:59:59Z",
            "20261123T091601Z",
        ] {
            assert_eq!(from_rfc3339(text), None, "{text}");
        }
    }

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
        fn what_is_written_by_rfc_3339_is_read_again(unix in 0_u64..253_402_300_800) {
            prop_assert_eq!(from_rfc3339(&rfc3339(unix)), Some(unix));
        }

        #[test]
        fn no_text_makes_reading_a_moment_panic(text in "\\PC{0,40}") {
            let _ = from_rfc3339(&text);
        }

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
