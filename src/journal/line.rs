//! Writes a log line for a terminal or as JSON.
//!
//! A value stays inside its field, regardless of its bytes. It cannot end the line, start another field, break the
//! JSON, send a control byte to a terminal or change the text direction. Its length is bounded.

use crate::hex;

/// Maximum length of a value, in bytes before escaping. A longer value is truncated and ends with `CUT`.
pub(crate) const VALUE_MAX: usize = 1024;

pub(crate) const CUT: &str = "…";

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `key=value` text for people on a terminal.
    Human,
    /// One JSON object per line.
    Json,
}

/// The severity of a line, in ascending order. A journal at [`Level::Info`] omits [`Level::Debug`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Details for troubleshooting.
    Debug,
    /// Normal events.
    Info,
    /// Something is wrong, but the gateway continues as before.
    Warn,
    /// Something does not work.
    Error,
}

impl Level {
    /// Returns the level's name for the policy and for JSON lines.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    /// Returns the level's name for a terminal, padded to a fixed width.
    const fn column(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO ",
            Self::Warn => "WARN ",
            Self::Error => "ERROR",
        }
    }
}

/// Writes one line, field by field. Keys are constants that need no escaping.
pub(crate) struct LineWriter<'o> {
    style: Style,
    out: &'o mut Vec<u8>,
}

impl<'o> LineWriter<'o> {
    /// Begins a line with the time and the level. The time is given in seconds since 1970 and nanoseconds.
    pub(crate) fn begin(style: Style, out: &'o mut Vec<u8>, unix: u64, nanos: u32, level: Level) -> Self {
        match style {
            Style::Json => {
                out.extend_from_slice(b"{\"time\":\"");
                timestamp(out, unix, nanos);
                out.extend_from_slice(b"\",\"level\":\"");
                out.extend_from_slice(level.as_str().as_bytes());
                out.push(b'"');
            }
            Style::Human => {
                timestamp(out, unix, nanos);
                out.push(b' ');
                out.extend_from_slice(level.column().as_bytes());
            }
        }
        Self { style, out }
    }

    /// Writes a field with text, which may contain any bytes.
    pub(crate) fn text(&mut self, key: &str, value: &[u8]) {
        self.key(key);
        match self.style {
            Style::Json => quoted(self.out, value),
            Style::Human if value.is_empty() || !value.iter().all(|b| is_bare(*b)) => quoted(self.out, value),
            Style::Human => within_bound(self.out, value),
        }
    }

    /// Writes a field like [`LineWriter::text`], if the value is present.
    pub(crate) fn maybe(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value.as_bytes());
        }
    }

    pub(crate) fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    pub(crate) fn flag(&mut self, key: &str, value: bool) {
        self.key(key);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// Writes a word without a key, for the terminal. Percent-encodes spaces, double quotes, backslashes, control bytes
    /// and bytes outside ASCII.
    pub(crate) fn bare(&mut self, value: &[u8]) {
        self.out.push(b' ');
        self.bare_part(value);
    }

    /// Appends to the word begun by [`LineWriter::bare`].
    pub(crate) fn bare_part(&mut self, value: &[u8]) {
        let (kept, cut) = bounded(value);
        for byte in kept {
            if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\') {
                self.out.push(*byte);
            } else {
                let [high, low] = hex::digits(*byte);
                self.out.extend_from_slice(&[b'%', high, low]);
            }
        }
        if cut {
            self.out.extend_from_slice(CUT.as_bytes());
        }
    }

    /// Writes the message of an event. On a terminal, it has no key.
    pub(crate) fn message(&mut self, text: &str) {
        match self.style {
            Style::Json => self.text("message", text.as_bytes()),
            Style::Human => {
                self.out.push(b' ');
                escaped(self.out, text.as_bytes());
            }
        }
    }

    pub(crate) fn end(self) {
        self.out.extend_from_slice(match self.style {
            Style::Json => b"}\n",
            Style::Human => b"\n",
        });
    }

    fn key(&mut self, key: &str) {
        match self.style {
            Style::Json => {
                self.out.extend_from_slice(b",\"");
                escaped(self.out, key.as_bytes());
                self.out.extend_from_slice(b"\":");
            }
            Style::Human => {
                self.bare(key.as_bytes());
                self.out.push(b'=');
            }
        }
    }
}

/// Writes a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD.
pub(crate) fn quoted(out: &mut Vec<u8>, value: &[u8]) {
    out.push(b'"');
    escaped(out, value);
    out.push(b'"');
}

/// Writes the content of a JSON string, truncated to [`VALUE_MAX`].
///
/// Escapes every character except printable ASCII and the letters and digits of other scripts. This includes the C1
/// controls, which terminals obey, and the characters that change the text direction. Either kind could make a value
/// look like other fields.
fn escaped(out: &mut Vec<u8>, value: &[u8]) {
    let (kept, cut) = bounded(value);
    for chunk in kept.utf8_chunks() {
        let valid = chunk.valid();
        let mut from = 0;
        for (at, c) in valid.char_indices() {
            if is_plain(c) {
                continue;
            }
            out.extend_from_slice(&valid.as_bytes()[from..at]);
            escape(out, c);
            from = at + c.len_utf8();
        }
        out.extend_from_slice(&valid.as_bytes()[from..]);
        if !chunk.invalid().is_empty() {
            escape(out, char::REPLACEMENT_CHARACTER);
        }
    }
    if cut {
        out.extend_from_slice(CUT.as_bytes());
    }
}

fn is_plain(c: char) -> bool {
    if c.is_ascii() { (' '..='~').contains(&c) && c != '"' && c != '\\' } else { c.is_alphanumeric() }
}

/// Returns whether a byte may appear in a value without quotes.
fn is_bare(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'=')
}

fn escape(out: &mut Vec<u8>, c: char) {
    match c {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        c => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.extend_from_slice(b"\\u");
                out.extend(unit.to_be_bytes().map(hex::digits).as_flattened());
            }
        }
    }
}

fn within_bound(out: &mut Vec<u8>, value: &[u8]) {
    let (kept, cut) = bounded(value);
    out.extend_from_slice(kept);
    if cut {
        out.extend_from_slice(CUT.as_bytes());
    }
}

/// Returns the part of a value to write, and whether the rest was cut off. Does not split a UTF-8 character.
fn bounded(value: &[u8]) -> (&[u8], bool) {
    if value.len() <= VALUE_MAX {
        return (value, false);
    }
    // A UTF-8 character has at most three continuation bytes (0b10xxxxxx).
    let begins = |at: &usize| value[*at] & 0b1100_0000 != 0b1000_0000;
    let end = (VALUE_MAX - 3..=VALUE_MAX).rev().find(begins).unwrap_or(VALUE_MAX);
    (&value[..end], true)
}

/// The last second of the year 9999, in seconds since 1970.
const END_OF_9999: u64 = 253_402_300_799;

/// Writes a time as `2026-01-31T23:59:59.999Z` (RFC 3339, UTC, milliseconds). A time after the year 9999 becomes its
/// last second.
pub(crate) fn timestamp(out: &mut Vec<u8>, unix: u64, nanos: u32) {
    let unix = unix.min(END_OF_9999);
    let (year, month, day) = civil(unix / 86_400);
    let second = unix % 86_400;
    digits(out, year, 4);
    out.push(b'-');
    digits(out, month, 2);
    out.push(b'-');
    digits(out, day, 2);
    out.push(b'T');
    digits(out, second / 3600, 2);
    out.push(b':');
    digits(out, second / 60 % 60, 2);
    out.push(b':');
    digits(out, second % 60, 2);
    out.push(b'.');
    digits(out, u64::from(nanos.min(999_999_999) / 1_000_000), 3);
    out.push(b'Z');
}

/// Returns the year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
///
/// Counts from 0000-03-01 internally. The leap day is then the last day of the year and shifts no month. The lengths of
/// the months repeat every five months (153 days).
const fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097; // Days in 400 years.
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + (month <= 2) as u64;
    (year, month, day)
}

/// Writes the last `width` decimal digits of a number.
fn digits(out: &mut Vec<u8>, number: u64, width: u32) {
    for place in (0..width).rev() {
        // A digit is below 10, so the cast does not truncate.
        out.push(b'0' + (number / 10_u64.pow(place) % 10) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time(unix: u64, nanos: u32) -> String {
        let mut out = Vec::new();
        timestamp(&mut out, unix, nanos);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn known_dates_are_written_as_the_calendar_has_them() {
        assert_eq!(time(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(951_782_399, 999_999_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(time(951_782_400, 0), "2000-02-29T00:00:00.000Z");
        assert_eq!(time(951_868_800, 0), "2000-03-01T00:00:00.000Z");
        assert_eq!(time(1_078_012_800, 1_000_000), "2004-02-29T00:00:00.001Z");
        assert_eq!(time(1_234_567_890, 123_456_789), "2009-02-13T23:31:30.123Z");
        assert_eq!(time(1_767_225_599, 0), "2025-12-31T23:59:59.000Z");
        assert_eq!(time(1_767_225_600, 0), "2026-01-01T00:00:00.000Z");
        // 2100 is not a leap year.
        assert_eq!(time(4_107_542_399, 0), "2100-02-28T23:59:59.000Z");
        assert_eq!(time(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
        assert_eq!(time(END_OF_9999, 0), "9999-12-31T23:59:59.000Z");
        assert_eq!(time(u64::MAX, u32::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn each_day_follows_the_one_before_it() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for number in 0..200_000 {
            assert_eq!(civil(number), (year, month, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    fn line(style: Style, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut line = LineWriter::begin(style, &mut out, 0, 0, Level::Info);
        line.text("value", value);
        line.flag("after", true);
        line.end();
        out
    }

    #[test]
    fn values_that_need_no_quotes_have_none_on_a_terminal() {
        let human = |value: &str| String::from_utf8(line(Style::Human, value.as_bytes())).unwrap();
        assert_eq!(human("a/b"), "1970-01-01T00:00:00.000Z INFO  value=a/b after=true\n");
        assert_eq!(human("a b"), "1970-01-01T00:00:00.000Z INFO  value=\"a b\" after=true\n");
        assert_eq!(human(""), "1970-01-01T00:00:00.000Z INFO  value=\"\" after=true\n");
        assert_eq!(human("a=b"), "1970-01-01T00:00:00.000Z INFO  value=\"a=b\" after=true\n");
    }

    #[test]
    fn terminal_commands_and_turned_text_are_escaped_and_letters_are_not() {
        for style in [Style::Human, Style::Json] {
            let shown = line(style, "é\u{1b}[2J\u{9b}2J\u{202e}\u{2028}🙂\u{7f}\n".as_bytes());
            let shown = String::from_utf8(shown).unwrap();
            let inside = r#""é\u001b[2J\u009b2J\u202e\u2028\ud83d\ude42\u007f\n""#;
            assert!(shown.contains(inside), "{shown}");
        }
    }

    #[test]
    fn a_long_value_is_cut_between_characters_and_marked() {
        for lead in 0..4 {
            let value = "x".repeat(lead) + &"🙂".repeat(1_000);
            let shown = line(Style::Json, value.as_bytes());
            let json: serde_json::Value = serde_json::from_slice(&shown).unwrap();
            let kept = json["value"].as_str().unwrap().strip_suffix(CUT).unwrap();
            assert!(value.starts_with(kept) && kept.len() > VALUE_MAX - 4 && kept.len() <= VALUE_MAX);
        }
        let whole = "x".repeat(VALUE_MAX);
        let json: serde_json::Value = serde_json::from_slice(&line(Style::Json, whole.as_bytes())).unwrap();
        assert_eq!(json["value"], whole);
    }

    #[test]
    fn a_word_without_a_key_cannot_hold_what_would_end_it() {
        let mut out = Vec::new();
        let mut line = LineWriter::begin(Style::Human, &mut out, 0, 0, Level::Warn);
        line.bare(b"/a b\"\n\x1b\xff");
        line.end();
        assert_eq!(out, b"1970-01-01T00:00:00.000Z WARN  /a%20b%22%0a%1b%ff\n");
    }

    proptest! {
        /// A value never ends the line, breaks the JSON or sends a control character to a terminal.
        #[test]
        fn any_bytes_stay_in_their_field(value in prop::collection::vec(any::<u8>(), 0..1500)) {
            let json = line(Style::Json, &value);
            let parsed: serde_json::Value = serde_json::from_slice(&json).unwrap();
            prop_assert_eq!(parsed.as_object().unwrap().len(), 4);
            let (kept, cut) = bounded(&value);
            let expected = String::from_utf8_lossy(kept).into_owned() + if cut { CUT } else { "" };
            prop_assert_eq!(parsed["value"].as_str().unwrap(), expected);
            for shown in [json, line(Style::Human, &value)] {
                let shown = String::from_utf8(shown).unwrap();
                prop_assert_eq!(shown.matches('\n').count(), 1);
                prop_assert!(shown.ends_with('\n'));
                prop_assert!(!shown.trim_end_matches('\n').chars().any(char::is_control));
            }
        }
    }
}
