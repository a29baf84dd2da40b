//! Values with a unit: durations, sizes and rates.

use super::reading::{ValueError, from_text};
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time;

from_text!(Duration, ByteSize, Rate);

/// A span of time in whole milliseconds: `"500ms"`, `"30s"`, `"15m"`, `"1h"`, `"7d"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(time::Duration);

const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
/// The maximum duration, about ten years, in milliseconds. Some clocks cannot add a longer duration to the current
/// time.
const DURATION_MAX: u64 = 10 * 366 * 86_400_000;

impl Duration {
    /// Creates a duration of whole seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(time::Duration::from_secs(seconds))
    }

    /// Creates a duration of whole milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(time::Duration::from_millis(millis))
    }
}

impl From<Duration> for time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl FromStr for Duration {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = |what: &str| {
            let expected = "a whole number and a unit, such as 500ms, 30s, 15m, 1h or 7d";
            ValueError::new(format!("{text:?}: {what}"), expected)
        };
        if let Some(slip) = slip(text, &DURATION_UNITS) {
            return Err(slip);
        }
        let (number, unit) = split_unit(text).ok_or_else(|| error("not a duration"))?;
        let (_, factor) = DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(|| {
            error(if unit.is_empty() { "a number without a unit" } else { "an unknown unit" })
        })?;
        let millis = number.checked_mul(*factor).filter(|millis| *millis <= DURATION_MAX);
        Ok(Self(time::Duration::from_millis(millis.ok_or_else(|| error("longer than ten years"))?)))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let fits = DURATION_UNITS.iter().rev().find(|(_, factor)| millis.is_multiple_of(u128::from(*factor)));
        let (unit, factor) = fits.copied().filter(|_| millis > 0).unwrap_or(("s", 1));
        write!(f, "{}{unit}", millis / u128::from(factor))
    }
}

/// A number of bytes: `"512B"`, `"32KiB"`, `"16MiB"`, `"2GiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

const SIZE_UNITS: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

impl ByteSize {
    /// Creates a size.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Returns the number of bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Returns the number of bytes, or `usize::MAX` if the number does not fit.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = |what: &str| {
            let expected = "a whole number and a unit, such as 512B, 32KiB, 16MiB or 2GiB";
            ValueError::new(format!("{text:?}: {what}"), expected)
        };
        if let Some(slip) = slip(text, &SIZE_UNITS) {
            return Err(slip);
        }
        let (number, unit) = split_unit(text).ok_or_else(|| error("not a size"))?;
        let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(|| {
            error(match unit {
                "" => "a number without a unit",
                "K" | "k" | "KB" | "kB" | "kb" | "M" | "MB" | "G" | "GB" => {
                    "an ambiguous unit: some read it as 1000, others as 1024"
                }
                _ => "an unknown unit",
            })
        })?;
        let bytes = number.checked_mul(*factor).filter(|bytes| *bytes <= 1 << 40);
        bytes.map(Self).ok_or_else(|| error("more than 1024GiB"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = SIZE_UNITS.iter().rev().find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor));
        let (unit, factor) = fits.copied().unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

/// Returns the error for a number with a fraction, or with white space around it or before its unit. The error suggests
/// the correct form.
fn slip(text: &str, units: &[(&str, u64)]) -> Option<ValueError> {
    let error = |what: &str, expected| Some(ValueError::new(format!("{text:?}: {what}"), expected));
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',')?;
    let (number, rest) = trimmed.split_at(end);
    let unit = rest.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    if let Some((whole, fraction)) = number.split_once(['.', ',']) {
        // More than nine digits of a fraction are not a typo.
        let digits = u32::try_from(fraction.len()).ok().filter(|digits| (1..=9).contains(digits))?;
        let scale = 10_u128.pow(digits);
        let all: u128 = format!("{whole}{fraction}").parse().ok()?;
        let value = all.checked_mul(u128::from(*factor))?;
        // Selects the largest unit in which the value is a whole number.
        let fits = |(_, factor): &&(&str, u64)| value.is_multiple_of(scale * u128::from(*factor));
        let expected = match units.iter().rev().find(fits) {
            Some((unit, factor)) => {
                format!("a whole number: {:?}", format!("{}{unit}", value / scale / u128::from(*factor)))
            }
            None => "a whole number of a smaller unit".to_owned(),
        };
        return error("a fraction", expected);
    }
    let is_spaced = trimmed.len() < text.len() || unit.len() < rest.len();
    if is_spaced && !number.is_empty() {
        return error("contains white space", format!("{:?}", format!("{number}{unit}")));
    }
    None
}

/// Splits `"30s"` into 30 and `s`.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit))
}

/// A number of events per unit of time: `"100/s"`, `"600/m"`, `"1000/h"`, `"10000/d"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The number.
    pub count: NonZeroU32,
    /// The unit of time.
    pub per: time::Duration,
}

impl FromStr for Rate {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = |what: &str| {
            let expected = "a number per unit of time, such as 100/s, 600/m, 1000/h or 10000/d";
            ValueError::new(format!("{text:?}: {what}"), expected)
        };
        if text.contains(char::is_whitespace) {
            let joined: String = text.split_whitespace().collect();
            return Err(match joined.parse::<Self>() {
                Ok(_) => ValueError::new(format!("{text:?}: contains white space"), format!("{joined:?}")),
                Err(_) => error("not a rate"),
            });
        }
        let (count, unit) = text.split_once('/').ok_or_else(|| error("not a rate"))?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return Err(error("an unknown unit of time")),
        };
        let digits = !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit());
        let count = if digits { count.parse::<u32>().ok() } else { None };
        let count = count.ok_or_else(|| error("not a whole number below 4294967296"))?;
        let count = NonZeroU32::new(count).ok_or_else(|| error("0 would refuse every request"))?;
        Ok(Self { count, per: time::Duration::from_secs(seconds) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            3600 => "h",
            _ => "d",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::reading::assert_rejected;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("15m", 900_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
            ("0s", 0),
        ] {
            let duration: Duration = text.parse().unwrap();
            assert_eq!(time::Duration::from(duration).as_millis(), millis, "{text}");
        }
        assert_rejected::<Duration>(&[
            "",
            "30",
            "s",
            "30 s",
            "-1s",
            "1.5s",
            "30S",
            "30sec",
            "99999999d",
            "99999999999999999999s",
        ]);
    }

    #[test]
    fn sizes_have_a_unit_of_1024() {
        for (text, bytes) in [("512B", 512), ("32KiB", 32 << 10), ("16MiB", 16 << 20), ("2GiB", 2 << 30)] {
            assert_eq!(text.parse::<ByteSize>().unwrap().as_u64(), bytes, "{text}");
        }
        assert_rejected::<ByteSize>(&[
            "",
            "32",
            "32KB",
            "32K",
            "MiB",
            "1 MiB",
            "-1B",
            "99999999GiB",
            "18446744073709551616B",
        ]);
    }

    #[test]
    fn rates_are_a_count_in_a_time() {
        let rate: Rate = "600/m".parse().unwrap();
        assert_eq!((rate.count.get(), rate.per.as_secs()), (600, 60));
        assert_rejected::<Rate>(&[
            "",
            "100",
            "/s",
            "0/s",
            "100/",
            "100/min",
            "100 /s",
            "-1/s",
            "+1/s",
            "4294967296/s",
            "1.5/s",
        ]);
    }

    proptest! {
        #[test]
        fn a_written_value_parses_to_the_same_value(millis in 0..DURATION_MAX, bytes in 0..1_u64 << 40, count in 1..u32::MAX) {
            let duration = Duration(time::Duration::from_millis(millis));
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
            let size = ByteSize(bytes);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
            for per in [1, 60, 3600, 86_400] {
                let rate = Rate { count: count.try_into().unwrap(), per: time::Duration::from_secs(per) };
                prop_assert_eq!(rate.to_string().parse(), Ok(rate));
            }
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in ".*") {
            let _ = (text.parse::<Duration>(), text.parse::<ByteSize>(), text.parse::<Rate>());
        }
    }
}
