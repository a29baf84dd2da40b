//! Values with a unit or a form of their own: durations, sizes, rates, addresses, references to secrets.
//!
//! Each is parsed while the file is read, so that a bad one is reported at its key. A message of theirs has two
//! parts, `what was found; want what would be right`, which the reader takes apart.

use super::stable_file;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, IntoDeserializer, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::Path;
use std::str::FromStr;
use std::time;

/// Text, whatever TOML made of it: the environment's `123` is a number to the parser and a name to us.
struct Scalar<T>(fn(&str) -> Result<T, String>);

impl<T> Visitor<'_> for Scalar<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        (self.0)(&number.to_string()).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        (self.0)(&number.to_string()).map_err(E::custom)
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<T, E> {
        (self.0)(&flag.to_string()).map_err(E::custom)
    }
}

/// Reads text from any scalar.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_any(Scalar(|text| Ok(text.to_owned())))
}

/// Reads optional text from any scalar.
pub(super) fn optional_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    text(deserializer).map(Some)
}

macro_rules! from_text {
    ($($type:ty),*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Scalar(|text| text.parse()))
            }
        }
    )*};
}

from_text!(Duration, ByteSize, Rate, Cidr, Secret);

/// A span of time: `"500ms"`, `"30s"`, `"15m"`, `"1h"`, `"7d"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(time::Duration);

const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
/// Ten years: whatever is longer is a slip of the pen, and some clocks cannot add it.
const DURATION_MAX: u64 = 10 * 366 * 86_400_000;

impl Duration {
    /// A span of so many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(time::Duration::from_secs(seconds))
    }
}

impl From<Duration> for time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            |what: &str| format!("{text:?}: {what}; want a whole number and a unit: 500ms, 30s, 15m, 1h, 7d");
        if let Some((found, meant)) = slip(text, &DURATION_UNITS) {
            return Err(format!("{text:?}: {found}; want {meant}"));
        }
        let (number, unit) = split_unit(text).ok_or_else(|| wrong("no duration"))?;
        let (_, factor) = DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(|| {
            wrong(if unit.is_empty() { "a number without a unit" } else { "an unknown unit" })
        })?;
        let millis = number.checked_mul(*factor).filter(|millis| *millis <= DURATION_MAX);
        Ok(Self(time::Duration::from_millis(millis.ok_or_else(|| wrong("longer than ten years"))?)))
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
    /// So many bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// In bytes.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// In bytes, for sizes of memory.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!("{text:?}: {what}; want a whole number and a unit: 512B, 32KiB, 16MiB, 2GiB")
        };
        if let Some((found, meant)) = slip(text, &SIZE_UNITS) {
            return Err(format!("{text:?}: {found}; want {meant}"));
        }
        let (number, unit) = split_unit(text).ok_or_else(|| wrong("no size"))?;
        let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(|| {
            wrong(match unit {
                "" => "a number without a unit",
                "K" | "k" | "KB" | "kB" | "kb" | "M" | "MB" | "G" | "GB" => {
                    "a unit of 1000 to some and of 1024 to others"
                }
                _ => "an unknown unit",
            })
        })?;
        let bytes = number.checked_mul(*factor).filter(|bytes| *bytes <= 1 << 40);
        bytes.map(Self).ok_or_else(|| wrong("more than 1024GiB"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = SIZE_UNITS.iter().rev().find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor));
        let (unit, factor) = fits.copied().unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

/// A number with a fraction, or with a space before its unit: what was found, and how the same value is written.
fn slip(text: &str, units: &[(&str, u64)]) -> Option<(&'static str, String)> {
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',')?;
    let (number, rest) = trimmed.split_at(end);
    let unit = rest.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    if let Some((whole, fraction)) = number.split_once(['.', ',']) {
        // The largest unit in which the value is whole; more than nine digits are not a typo.
        let digits = u32::try_from(fraction.len()).ok().filter(|digits| (1..=9).contains(digits))?;
        let scale = 10_u128.pow(digits);
        let all: u128 = format!("{whole}{fraction}").parse().ok()?;
        let value = all.checked_mul(u128::from(*factor))?;
        let fits = |(_, factor): &&(&str, u64)| value.is_multiple_of(scale * u128::from(*factor));
        let meant = match units.iter().rev().find(fits) {
            Some((unit, factor)) => {
                format!("a whole number: {:?}", format!("{}{unit}", value / scale / u128::from(*factor)))
            }
            None => "a whole number of a smaller unit".to_owned(),
        };
        return Some(("a fraction", meant));
    }
    let is_spaced = trimmed.len() < text.len() || unit.len() < rest.len();
    let meant = format!("{number}{unit}");
    (is_spaced && !number.is_empty()).then(|| ("white space in it", format!("{meant:?}")))
}

/// `"30s"` into 30 and `s`.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit))
}

/// So many in a time: `"100/s"`, `"600/m"`, `"1000/h"`, `"10000/d"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: NonZeroU32,
    /// In how much time.
    pub per: time::Duration,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            |what: &str| format!("{text:?}: {what}; want so many in a time: 100/s, 600/m, 1000/h, 10000/d");
        if text.contains(char::is_whitespace) {
            let meant: String = text.split_whitespace().collect();
            return Err(match meant.parse::<Self>() {
                Ok(_) => format!("{text:?}: white space in it; want {meant:?}"),
                Err(_) => wrong("no rate"),
            });
        }
        let (count, unit) = text.split_once('/').ok_or_else(|| wrong("no rate"))?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return Err(wrong("an unknown unit of time")),
        };
        let digits = !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit());
        let count = if digits { count.parse::<u32>().ok() } else { None };
        let count = count.ok_or_else(|| wrong("no whole number below 4294967296"))?;
        let count = NonZeroU32::new(count).ok_or_else(|| wrong("0 would let nothing pass"))?;
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

/// A network: `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Whether the address is in the network. An IPv4 address mapped into IPv6 is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let host_bits = 32 - u32::from(self.prefix);
                (ours.to_bits() ^ theirs.to_bits()).checked_shr(host_bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let host_bits = 128 - u32::from(self.prefix);
                (ours.to_bits() ^ theirs.to_bits()).checked_shr(host_bits).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Whether every address of a family is in it.
    pub const fn is_everything(&self) -> bool {
        self.prefix == 0
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: String| {
            format!("{text:?}: {what}; want a network such as 10.0.0.0/8 or 2001:db8::/32, or one address")
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong("no address".to_owned()))?;
        let address = address.to_canonical();
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(prefix) => prefix
                .parse::<u8>()
                .ok()
                .filter(|n| *n <= bits && prefix.bytes().all(|b| b.is_ascii_digit()))
                .ok_or_else(|| wrong(format!("a prefix is 0 to {bits}")))?,
        };
        let network = mask(address, prefix);
        if network != address {
            return Err(format!(
                "{text:?}: bits of the address behind its prefix; want \"{network}/{prefix}\" for the network, or \"{address}\" for the one address"
            ));
        }
        Ok(Self { address, prefix })
    }
}

fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Addresses to listen on: one, several, or (`""`) none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listen(Vec<SocketAddr>);

impl Listen {
    /// The addresses.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.0
    }

    pub(super) fn on(address: &str) -> Self {
        Self(address.parse().into_iter().collect())
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let addresses = deserializer
            .deserialize_any(OneOrMany("an address with a port, or a list of them", PhantomData))?;
        Ok(Self(addresses.into_iter().filter_map(|Address(address)| address).collect()))
    }
}

/// An address to listen on, or the empty text.
struct Address(Option<SocketAddr>);

from_text!(Address);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let number = |port: &str| port.parse::<u16>().is_ok();
        text.parse().map(|address| Self(Some(address))).map_err(|_| match text.rsplit_once(':') {
            None if number(text) => {
                format!(
                    "{text:?}: a port without an address; want \"127.0.0.1:{text}\" or \"0.0.0.0:{text}\""
                )
            }
            Some(("" | "*", port)) if number(port) => {
                format!(
                    "{text:?}: a port without an address; want \"0.0.0.0:{port}\" or \"[::]:{port}\" for all"
                )
            }
            Some(("localhost", port)) if number(port) => {
                format!("{text:?}: a name, not an address; want \"127.0.0.1:{port}\"")
            }
            _ => format!(
                "{text:?}: no address with a port; want \"127.0.0.1:8443\", \"[::1]:8443\", or \"\" for none"
            ),
        })
    }
}

/// A list of what is written as text, or one that stands for a list of itself. Holds what is wanted, in words.
struct OneOrMany<T>(&'static str, PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMany<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
        T::deserialize(text.into_deserializer()).map(|one| vec![one])
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Vec<T>, E> {
        T::deserialize(number.into_deserializer()).map(|one| vec![one])
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Vec<T>, E> {
        T::deserialize(number.into_deserializer()).map(|one| vec![one])
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Vec<T>, E> {
        T::deserialize(flag.into_deserializer()).map(|one| vec![one])
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = list.next_element()? {
            all.push(one);
        }
        Ok(all)
    }
}

/// A name out of a number or text, as an element of a list. A truth value is not a name: `roles = true` is a mistake.
struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visited;

        impl Visitor<'_> for Visited {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Name, E> {
                Ok(Name(text.to_owned()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Name, E> {
                Ok(Name(number.to_string()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Name, E> {
                Ok(Name(number.to_string()))
            }
        }

        deserializer.deserialize_any(Visited)
    }
}

/// Text out of any scalar, as a value of a table of texts.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer).map(Self)
    }
}

/// Reads a list of texts, or one text.
pub(super) fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let texts = deserializer.deserialize_any(OneOrMany("text or a list of texts", PhantomData))?;
    Ok(texts.into_iter().map(|Name(text)| text).collect())
}

/// Reads a list of texts, or one text, which need not be there.
pub(super) fn optional_one_or_many<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    one_or_many(deserializer).map(Some)
}

/// Reads a list of networks, or one network.
pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Cidr>, D::Error> {
    deserializer.deserialize_any(OneOrMany("a network or a list of networks", PhantomData))
}

/// A table. Derived types take a list of values in the order of their fields too, which nobody means.
struct Table<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Table<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// Reads a table.
pub(super) fn table<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_map(Table(PhantomData))
}

/// Reads a table that need not be there.
pub(super) fn optional_table<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    table(deserializer).map(Some)
}

/// A table as an element of a list or of a table of names.
struct Element<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Element<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        table(deserializer).map(Self)
    }
}

/// Reads `[[tables]]`.
pub(super) fn tables<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let tables = Vec::<Element<T>>::deserialize(deserializer)?;
    Ok(tables.into_iter().map(|Element(table)| table).collect())
}

/// Reads `[table.NAME]`s.
pub(super) fn named_tables<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, T>, D::Error> {
    let tables = BTreeMap::<String, Element<T>>::deserialize(deserializer)?;
    Ok(tables.into_iter().map(|(name, Element(table))| (name, table)).collect())
}

/// Reads a table of texts.
pub(super) fn named_texts<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let texts = BTreeMap::<String, Text>::deserialize(deserializer)?;
    Ok(texts.into_iter().map(|(name, Text(text))| (name, text)).collect())
}

/// A list of texts, or one text, as an element of a table of names.
struct Texts(Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        one_or_many(deserializer).map(Self)
    }
}

/// Reads a table of lists of texts.
pub(super) fn named_lists<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Vec<String>>, D::Error> {
    let lists = BTreeMap::<String, Texts>::deserialize(deserializer)?;
    Ok(lists.into_iter().map(|(name, Texts(list))| (name, list)).collect())
}

/// Where a secret is: `env:NAME`, `file:PATH`, or the secret itself.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// In the environment variable of this name.
    Environment(String),
    /// In the file of this path.
    File(String),
    /// Here.
    Literal(String),
}

/// The largest secret or key that is read from a file.
const SECRET_FILE_MAX: ByteSize = ByteSize::bytes(1 << 20);

impl Secret {
    /// Whether the secret stands in the policy itself.
    pub const fn is_literal(&self) -> bool {
        matches!(self, Self::Literal(_))
    }

    /// The secret. Paths are relative to `base`; one newline at a file's end is not part of it.
    ///
    /// # Errors
    /// A sentence that names the place and never the secret.
    pub fn resolve(&self, base: &Path) -> Result<Vec<u8>, String> {
        let bytes = match self {
            Self::Literal(text) => text.clone().into_bytes(),
            Self::Environment(name) => match std::env::var_os(name) {
                Some(value) => value.into_encoded_bytes(),
                None => return Err(format!("the environment variable {name} is not set")),
            },
            Self::File(path) => {
                let path = base.join(path);
                let mut bytes = stable_file::read(&path, SECRET_FILE_MAX)
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                if bytes.ends_with(b"\n") {
                    bytes.pop();
                    if bytes.ends_with(b"\r") {
                        bytes.pop();
                    }
                }
                bytes
            }
        };
        if bytes.is_empty() { Err(format!("{self:?} is empty")) } else { Ok(bytes) }
    }
}

impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const WANT: &str = "; want \"env:NAME\" or \"file:PATH\"";
        match (text.strip_prefix("env:"), text.strip_prefix("file:")) {
            (Some(""), _) => Err(format!("env: without a name{WANT}")),
            (_, Some("")) => Err(format!("file: without a path{WANT}")),
            (Some(name), _) if name.contains(['=', '\0']) => Err(format!("no name of a variable{WANT}")),
            (Some(name), _) => Ok(Self::Environment(name.to_owned())),
            (_, Some(path)) => Ok(Self::File(path.to_owned())),
            (None, None) if text.is_empty() => Err(format!("nothing{WANT}")),
            // `Env:NAME` or `$NAME` as the secret itself would be a secret that everybody can guess.
            (None, None) if looks_like_a_reference(text) => {
                Err(format!("a reference in another system's spelling{WANT}"))
            }
            (None, None) => Ok(Self::Literal(text.to_owned())),
        }
    }
}

/// Whether a text was meant to say where a secret is.
fn looks_like_a_reference(text: &str) -> bool {
    let text = text.trim();
    let scheme = text.split_once(':').map(|(scheme, _)| scheme.trim_end().to_ascii_lowercase());
    let is_scheme =
        scheme.is_some_and(|scheme| matches!(scheme.as_str(), "env" | "file" | "environment" | "path"));
    let is_variable = text.strip_prefix('$').is_some_and(|name| {
        let name = name.trim_start_matches(['{', '(']).trim_end_matches(['}', ')']);
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    });
    is_scheme || is_variable
}

impl fmt::Debug for Secret {
    /// Names the place; a literal is never shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{path}"),
            Self::Literal(_) => f.write_str("(not shown)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused<T: FromStr<Err = String> + fmt::Debug>(texts: &[&str]) {
        for text in texts {
            let why = text.parse::<T>().expect_err(text);
            assert!(why.contains("; want "), "{text}: {why}");
        }
    }

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
        refused::<Duration>(&[
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
        refused::<ByteSize>(&[
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
        refused::<Rate>(&[
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

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        let holds = |network: &str, address: &str| {
            network.parse::<Cidr>().unwrap().contains(address.parse().unwrap())
        };
        assert!(holds("10.0.0.0/8", "10.255.255.255"));
        assert!(!holds("10.0.0.0/8", "11.0.0.0"));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(holds("192.0.2.1", "192.0.2.1"));
        assert!(!holds("192.0.2.1", "192.0.2.2"));
        assert!(holds("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(!holds("2001:db8::/32", "2001:db9::1"));
        assert!(holds("0.0.0.0/0", "203.0.113.9"));
        assert!(!holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("::/0", "2001:db8::1"));
        refused::<Cidr>(&[
            "",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "::/129",
            "host",
            "10.0.0.1/8",
            "10.0.0/8",
        ]);
        assert!("10.1.2.3/8".parse::<Cidr>().unwrap_err().contains("10.0.0.0/8"));
    }

    #[test]
    fn a_secret_is_found_where_the_policy_says_and_never_shown() {
        let dir = std::env::temp_dir().join(format!("portcullis-secret-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("s"), "hush\r\n").unwrap();
        let resolve = |text: &str| text.parse::<Secret>().unwrap().resolve(&dir);
        assert_eq!(resolve("file:s").unwrap(), b"hush");
        assert_eq!(resolve("hush").unwrap(), b"hush");
        assert!(resolve("file:none").unwrap_err().contains("none"));
        assert!(resolve("file:.").unwrap_err().contains("not a file"));
        assert!(resolve("env:PORTCULLIS_NO_SUCH_VARIABLE").unwrap_err().contains("is not set"));
        assert!(!format!("{:?}", "hush".parse::<Secret>().unwrap()).contains("hush"));
        refused::<Secret>(&[
            "",
            "env:",
            "file:",
            "env:A=B",
            "ENV:NAME",
            " env:NAME",
            "env :NAME",
            "File:s",
            "$NAME",
            "${JWT_SECRET}",
        ]);
        for literal in ["$2b$12$abc", "a:env:b", "-----BEGIN PUBLIC KEY-----"] {
            assert!(literal.parse::<Secret>().unwrap().is_literal(), "{literal}");
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(millis in 0..DURATION_MAX, bytes in 0..1_u64 << 40, count in 1..u32::MAX) {
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
        fn a_network_holds_exactly_what_agrees_with_its_prefix(bits in any::<u32>(), other in any::<u32>(), prefix in 0..=32_u8) {
            let network = Cidr { address: mask(IpAddr::V4(bits.into()), prefix), prefix };
            prop_assert_eq!(network.to_string().parse(), Ok(network));
            let agrees = (0..u32::from(prefix)).all(|i| (bits ^ other) >> (31 - i) & 1 == 0);
            prop_assert_eq!(network.contains(IpAddr::V4(other.into())), agrees);
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in ".*") {
            let _ = (text.parse::<Duration>(), text.parse::<ByteSize>(), text.parse::<Rate>(), text.parse::<Cidr>(), text.parse::<Secret>());
        }
    }
}
