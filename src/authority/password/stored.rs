//! A hash as an account has it: ours, or one that came along with an imported account. Parsing bounds what checking it
//! may cost, so that an import cannot bring a hash that takes an hour or all of the memory.

use super::Busy;
use super::work::{Kind, Work};
use crate::store::PasswordHash;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{pbkdf2, rand};
use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, STANDARD_NO_PAD};
use std::fmt;
use std::num::NonZeroU32;
use zeroize::Zeroizing;

/// Memory of our own hashes in KiB, and passes over it: the second of the five equal choices of OWASP's Password
/// Storage Cheat Sheet (m=19456, t=2, p=1), within what RFC 9106 calls for and small enough for a gateway.
pub(super) const MEMORY: u32 = 19 * 1024;
/// See [`MEMORY`].
pub(super) const PASSES: u32 = 2;

/// Memory that a stored hash may take, in KiB.
const MEMORY_MAX: u32 = 128 * 1024;
/// KiB times passes of an Argon2 hash: three times over the memory bound. argon2-cffi's default is half of it.
const ARGON2_WORK_MAX: u64 = 3 * MEMORY_MAX as u64;
/// Lanes are worked off one after the other here, so they cost nothing more; a bound all the same.
const LANES_MAX: u32 = 64;
/// 2^14 rounds take about a second.
const BCRYPT_COST: std::ops::RangeInclusive<u32> = 4..=14;
/// N times r times p of a scrypt hash: twice the dearest choice of OWASP's.
const SCRYPT_WORK_MAX: u64 = 1 << 21;
/// Half a second of SHA-256. Werkzeug's default is half of it.
const ITERATIONS_MAX: u32 = 2_000_000;
/// What Werkzeug takes where a hash does not say (its 3.1).
const ITERATIONS_UNSAID: u32 = 1_000_000;
/// What bcrypt knows of a password, in bytes.
const BCRYPT_BYTES: usize = 72;
/// Salts are 8 to 22 characters wherever they come from.
const SALT_MAX: usize = 64;

/// bcrypt's own alphabet; spare bits of the last character are ignored, as bcrypt itself does.
const BCRYPT64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::BCRYPT, NO_PAD.with_decode_allow_trailing_bits(true));

/// Memory that is used for one hash after the other: with fresh memory from the system for each, a hash takes 22 ms
/// instead of 14.
#[derive(Default)]
pub(super) struct Arena(Vec<Block>);

impl Arena {
    /// So many KiB, without asking the system again for what is there.
    fn blocks(&mut self, count: usize) -> Result<&mut [Block], Busy> {
        if self.0.len() < count {
            self.0.try_reserve_exact(count - self.0.len()).map_err(|_| Busy)?;
            self.0.resize(count, Block::new());
        }
        Ok(&mut self.0[..count])
    }

    /// Gives back what only a stranger's hash needed.
    fn shrink(&mut self) {
        if self.0.len() > MEMORY as usize {
            self.0.truncate(MEMORY as usize);
            self.0.shrink_to_fit();
        }
    }
}

/// A hash, parsed.
pub(super) struct Stored {
    parameters: Parameters,
    salt: Vec<u8>,
    output: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parameters {
    Argon2id { memory: u32, passes: u32, lanes: u32 },
    Bcrypt { cost: u32 },
    Scrypt { log_n: u8, r: u32, p: u32 },
    Pbkdf2 { digest: Digest, iterations: u32 },
}

/// The hash function under PBKDF2. SHA-1 is what old releases of Werkzeug used; that it is broken elsewhere does not
/// break this, and at the first login it is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Digest {
    Sha1,
    Sha256,
    Sha512,
}

impl Digest {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "sha1" => Some(Self::Sha1),
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn algorithm(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }
}

/// Why a text is no hash that an account may have. Shows nothing of the hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashFault {
    /// It is of no kind that is known here.
    Unknown,
    /// It is of a known kind, but not written as one of that kind is.
    Malformed(&'static str),
    /// To check it would cost too much.
    TooDear(&'static str),
}

impl fmt::Display for HashFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str(
                "unknown kind of password hash; known: $argon2id$, bcrypt ($2a$, $2b$, $2y$), scrypt:N:r:p$ and \
                 pbkdf2:sha256:ITERATIONS$ (sha1, sha512)",
            ),
            Self::Malformed(what) => write!(f, "malformed password hash: {what}"),
            Self::TooDear(what) => write!(f, "password hash too costly to check: {what}"),
        }
    }
}

impl std::error::Error for HashFault {}

/// Whether an account may have this as its password hash.
///
/// # Errors
/// Why not.
pub fn check_stored(encoded: &str) -> Result<(), HashFault> {
    Stored::parse(encoded).map(|_| ())
}

/// The kind of a hash and its cost, such as `bcrypt:12`: all that tells how long a check of it takes. None: no hash
/// that an account may have.
pub fn scheme(encoded: &str) -> Option<String> {
    Stored::parse(encoded).ok().map(|stored| stored.parameters.to_string())
}

/// A hash and its scheme, as the store takes them.
pub fn password_hash(encoded: String) -> PasswordHash {
    let scheme = scheme(&encoded).unwrap_or_default();
    PasswordHash { encoded, scheme }
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argon2id { memory, passes, .. } => write!(f, "argon2id:{memory}:{passes}"),
            Self::Bcrypt { cost } => write!(f, "bcrypt:{cost}"),
            Self::Scrypt { log_n, r, p } => write!(f, "scrypt:{}:{r}:{p}", 1_u64 << log_n),
            Self::Pbkdf2 { digest, iterations } => write!(f, "pbkdf2:{}:{iterations}", digest.as_str()),
        }
    }
}

impl Parameters {
    /// What [`scheme`] wrote.
    pub(super) fn of_scheme(scheme: &str) -> Option<Self> {
        let mut parts = scheme.split(':');
        let kind = parts.next()?;
        let rest: Vec<&str> = parts.collect();
        match (kind, &*rest) {
            ("argon2id", [memory, passes]) => {
                Self::argon2id(number(memory).ok()?, number(passes).ok()?, 1).ok()
            }
            ("bcrypt", [cost]) => Self::bcrypt(number(cost).ok()?).ok(),
            ("scrypt", parameters) => Self::scrypt(parameters).ok(),
            ("pbkdf2", parameters) => Self::pbkdf2(parameters).ok(),
            _ => None,
        }
    }

    fn argon2id(memory: u32, passes: u32, lanes: u32) -> Result<Self, HashFault> {
        if memory > MEMORY_MAX || u64::from(memory) * u64::from(passes) > ARGON2_WORK_MAX || lanes > LANES_MAX
        {
            return Err(HashFault::TooDear("Argon2 with at most m=131072, m times t=393216, p=64"));
        }
        if lanes == 0 || passes == 0 || memory < 8 * lanes {
            return Err(HashFault::Malformed(
                "Argon2 takes t and p of at least 1, and m of at least 8 times p",
            ));
        }
        Ok(Self::Argon2id { memory, passes, lanes })
    }

    fn bcrypt(cost: u32) -> Result<Self, HashFault> {
        match cost {
            cost if BCRYPT_COST.contains(&cost) => Ok(Self::Bcrypt { cost }),
            15..=31 => Err(HashFault::TooDear("bcrypt of cost 14 at most")),
            _ => Err(HashFault::Malformed("bcrypt has a cost of 4 to 31")),
        }
    }

    fn scrypt(parameters: &[&str]) -> Result<Self, HashFault> {
        // Werkzeug takes these where a hash does not say.
        let (n, r, p) = match parameters {
            [] => (1 << 15, 8, 1),
            [n, r, p] => (number(n)?, number(r)?, number(p)?),
            _ => return Err(HashFault::Malformed("scrypt has three parameters, scrypt:N:r:p")),
        };
        if n < 2 || !n.is_power_of_two() || r == 0 || p == 0 {
            return Err(HashFault::Malformed("scrypt takes a power of two for N, and r and p of at least 1"));
        }
        let (n, r, p) = (u64::from(n), u64::from(r), u64::from(p));
        let memory = n.saturating_mul(r).saturating_mul(128) / 1024;
        if memory > MEMORY_MAX.into() || n.saturating_mul(r).saturating_mul(p) > SCRYPT_WORK_MAX {
            return Err(HashFault::TooDear(
                "scrypt with at most 128 MiB (128 times N times r), and N times r times p of 2097152",
            ));
        }
        Ok(Self::Scrypt { log_n: n.trailing_zeros() as u8, r: r as u32, p: p as u32 })
    }

    fn pbkdf2(parameters: &[&str]) -> Result<Self, HashFault> {
        let (digest, iterations) = match parameters {
            [] => ("sha256", ITERATIONS_UNSAID),
            [digest] => (*digest, ITERATIONS_UNSAID),
            [digest, iterations] => (*digest, number(iterations)?),
            _ => return Err(HashFault::Malformed("PBKDF2 has two parameters, pbkdf2:HASH:ITERATIONS")),
        };
        let digest =
            Digest::parse(digest).ok_or(HashFault::Malformed("PBKDF2 with sha1, sha256 or sha512"))?;
        match iterations {
            0 => Err(HashFault::Malformed("PBKDF2 has at least one iteration")),
            1..=ITERATIONS_MAX => Ok(Self::Pbkdf2 { digest, iterations }),
            _ => Err(HashFault::TooDear("PBKDF2 of 2000000 iterations at most")),
        }
    }

    pub(super) fn work(self) -> Work {
        match self {
            Self::Argon2id { memory, passes, .. } => {
                Work::of(Kind::Argon2, u64::from(memory) * u64::from(passes))
            }
            Self::Bcrypt { cost } => Work::of(Kind::Bcrypt, 1 << cost),
            Self::Scrypt { log_n, r, p } => Work::of(Kind::Scrypt, (u64::from(r) * u64::from(p)) << log_n),
            Self::Pbkdf2 { digest: Digest::Sha1, iterations } => Work::of(Kind::Sha1, iterations.into()),
            Self::Pbkdf2 { digest: Digest::Sha256, iterations } => Work::of(Kind::Sha256, iterations.into()),
            Self::Pbkdf2 { digest: Digest::Sha512, iterations } => Work::of(Kind::Sha512, iterations.into()),
        }
    }

    /// What the password hashes to.
    pub(super) fn derive(
        self,
        password: &str,
        salt: &[u8],
        output: &mut [u8],
        arena: &mut Arena,
    ) -> Result<(), Busy> {
        let password = password.as_bytes();
        match self {
            Self::Argon2id { memory, passes, lanes } => {
                // Parsing has bounded all of them, so only memory can fail.
                let params = Params::new(memory, passes, lanes, None).map_err(|_| Busy)?;
                let blocks = arena.blocks(params.block_count())?;
                let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                let derived = argon2.hash_password_into_with_memory(password, salt, output, blocks);
                arena.shrink();
                derived.map_err(|_| Busy)
            }
            Self::Bcrypt { cost } => {
                let mut key = Zeroizing::new([0; BCRYPT_BYTES]);
                let known = password.len().min(BCRYPT_BYTES);
                key[..known].copy_from_slice(&password[..known]);
                // With the zero at its end, where there is room for it.
                let length = (known + 1).min(BCRYPT_BYTES);
                let mut raw = [0; 16];
                let bytes = salt.len().min(raw.len());
                raw[..bytes].copy_from_slice(&salt[..bytes]);
                let derived = bcrypt::bcrypt(cost, raw, &key[..length]);
                let bytes = output.len().min(derived.len());
                output[..bytes].copy_from_slice(&derived[..bytes]);
                Ok(())
            }
            Self::Scrypt { log_n, r, p } => {
                let params = scrypt::Params::new(log_n, r, p).map_err(|_| Busy)?;
                scrypt::scrypt(password, salt, &params, output).map_err(|_| Busy)
            }
            Self::Pbkdf2 { digest, iterations } => {
                let iterations = NonZeroU32::new(iterations).ok_or(Busy)?;
                pbkdf2::derive(digest.algorithm(), iterations, salt, password, output);
                Ok(())
            }
        }
    }
}

impl Stored {
    /// Reads a hash.
    pub(super) fn parse(encoded: &str) -> Result<Self, HashFault> {
        match encoded.as_bytes() {
            [b'$', b'2', ..] => Self::bcrypt(encoded),
            [b'$', ..] => Self::argon2id(encoded),
            _ => Self::werkzeug(encoded),
        }
    }

    /// `$argon2id$v=19$m=19456,t=2,p=1$SALT$OUTPUT`, a PHC string.
    fn argon2id(encoded: &str) -> Result<Self, HashFault> {
        const SHAPE: HashFault = HashFault::Malformed("$argon2id$v=19$m=MEMORY,t=PASSES,p=LANES$SALT$HASH");
        let mut parts = encoded.split('$').skip(1);
        match parts.next() {
            Some("argon2id") => {}
            Some("argon2i" | "argon2d") => {
                return Err(HashFault::Malformed("of Argon2 only argon2id (RFC 9106 section 4)"));
            }
            _ => return Err(HashFault::Unknown),
        }
        let (version, parameters, salt, output) = (parts.next(), parts.next(), parts.next(), parts.next());
        if version != Some("v=19") || parts.next().is_some() {
            return Err(SHAPE);
        }
        let values: Vec<&str> = parameters.unwrap_or_default().split(',').collect();
        let [memory, passes, lanes] = &*values else { return Err(SHAPE) };
        let value = |text: &str, name| text.strip_prefix(name).ok_or(SHAPE).and_then(number);
        let parameters =
            Parameters::argon2id(value(memory, "m=")?, value(passes, "t=")?, value(lanes, "p=")?)?;
        let decode = |text: Option<&str>| {
            text.and_then(|text| STANDARD_NO_PAD.decode(text).ok())
                .ok_or(HashFault::Malformed("SALT and HASH are base64 without padding"))
        };
        let (salt, output) = (decode(salt)?, decode(output)?);
        if !(8..=SALT_MAX).contains(&salt.len()) || !(16..=64).contains(&output.len()) {
            return Err(HashFault::Malformed(
                "Argon2 with a salt of 8 to 64 bytes and an output of 16 to 64",
            ));
        }
        Ok(Self { parameters, salt, output })
    }

    /// `$2b$12$` and 22 characters of salt, 31 of hash.
    fn bcrypt(encoded: &str) -> Result<Self, HashFault> {
        let rest = ["$2a$", "$2b$", "$2y$"].iter().find_map(|prefix| encoded.strip_prefix(prefix));
        // $2x$ is for hashes of a faulty implementation, which read letters beyond ASCII wrongly.
        let rest = rest.ok_or(HashFault::Malformed("of bcrypt only $2a$, $2b$ and $2y$"))?;
        const SHAPE: HashFault = HashFault::Malformed("bcrypt has 60 characters: $2b$COST$, salt and hash");
        let (cost, rest) = rest.split_once('$').ok_or(SHAPE)?;
        if cost.len() != 2 || rest.len() != 53 || !rest.is_ascii() {
            return Err(SHAPE);
        }
        let parameters = Parameters::bcrypt(number(cost)?)?;
        let (salt, output) = rest.split_at(22);
        let salt = BCRYPT64.decode(salt).map_err(|_| SHAPE)?;
        let output = BCRYPT64.decode(output).map_err(|_| SHAPE)?;
        Ok(Self { parameters, salt, output })
    }

    /// `scrypt:32768:8:1$SALT$HEX` and `pbkdf2:sha256:1000000$SALT$HEX`.
    fn werkzeug(encoded: &str) -> Result<Self, HashFault> {
        let mut parts = encoded.split('$');
        let method: Vec<&str> = parts.next().unwrap_or_default().split(':').collect();
        let parameters = match &*method {
            ["scrypt", parameters @ ..] => Parameters::scrypt(parameters)?,
            ["pbkdf2", parameters @ ..] => Parameters::pbkdf2(parameters)?,
            _ => return Err(HashFault::Unknown),
        };
        let (Some(salt), Some(output), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(HashFault::Malformed("METHOD$SALT$HEX"));
        };
        let bytes = match parameters {
            Parameters::Pbkdf2 { digest, .. } => digest.bytes(),
            Parameters::Argon2id { .. } | Parameters::Bcrypt { .. } | Parameters::Scrypt { .. } => 64,
        };
        let output = hex(output).filter(|output| output.len() == bytes);
        let output = output
            .ok_or(HashFault::Malformed("the hash after the salt is hexadecimal, of its method's length"))?;
        if !(1..=SALT_MAX).contains(&salt.len()) {
            return Err(HashFault::Malformed("a salt of 1 to 64 bytes"));
        }
        Ok(Self { parameters, salt: salt.as_bytes().to_vec(), output })
    }

    /// What a check of it costs.
    pub(super) fn work(&self) -> Work {
        self.parameters.work()
    }

    /// Whether it is of this password. Takes the same time whether it is or not.
    pub(super) fn is_of(&self, password: &str, arena: &mut Arena) -> Result<bool, Busy> {
        let mut derived = Zeroizing::new(vec![0; self.output.len()]);
        self.parameters.derive(password, &self.salt, &mut derived, arena)?;
        let equal = verify_slices_are_equal(&derived, &self.output).is_ok();
        // bcrypt takes a zero for the end of the password, and begins again with it: "a" would be "a\0a".
        let ambiguous = matches!(self.parameters, Parameters::Bcrypt { .. }) && password.contains('\0');
        Ok(equal && !ambiguous)
    }

    /// Whether this password, which it is of, is to be hashed anew: it is of another kind than ours or costs less.
    ///
    /// bcrypt knows the first 72 bytes of a password, and so do its hashes: what comes after them was never checked, and
    /// may be mistyped. Hashed anew with it, the password could be another one than its owner's from then on.
    pub(super) fn is_to_be_upgraded(&self, password: &str) -> bool {
        match self.parameters {
            Parameters::Argon2id { memory, passes, .. } => memory < MEMORY || passes < PASSES,
            Parameters::Bcrypt { .. } => password.len() <= BCRYPT_BYTES,
            Parameters::Scrypt { .. } | Parameters::Pbkdf2 { .. } => true,
        }
    }
}

/// The hash of a password at the cost of today, as a PHC string.
pub(super) fn hash(password: &str, arena: &mut Arena) -> Result<String, Busy> {
    let mut salt = [0; 16];
    rand::fill(&mut salt).map_err(|_| Busy)?;
    let mut output = [0; 32];
    let parameters = Parameters::Argon2id { memory: MEMORY, passes: PASSES, lanes: 1 };
    parameters.derive(password, &salt, &mut output, arena)?;
    let (salt, output) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(output));
    Ok(format!("$argon2id$v=19$m={MEMORY},t={PASSES},p=1${salt}${output}"))
}

/// A decimal number as all of these write it: digits, and not more than could matter.
fn number(text: &str) -> Result<u32, HashFault> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits {
        return Err(HashFault::Malformed("its parameters are numbers"));
    }
    // A number too large to be read is too large to be accepted.
    Ok(text.parse().unwrap_or(u32::MAX))
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| (b as char).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| if let [high, low] = pair { Some(digit(*high)? << 4 | digit(*low)?) } else { None })
        .collect()
}
