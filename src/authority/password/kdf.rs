//! The password hash functions. Their parameters are bounded, because an imported hash could otherwise take an hour or
//! all of the memory.

use super::Busy;
use super::work::{Work, WorkUnit};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::pbkdf2;
use std::fmt;
use std::num::NonZeroU32;
use zeroize::Zeroizing;

/// Memory of the gateway's own hashes, in KiB. OWASP's Password Storage Cheat Sheet recommends m=19456, t=2, p=1, which
/// also meets RFC 9106.
pub(super) const MEMORY: u32 = 19 * 1024;
/// Number of passes over the memory.
pub(super) const PASSES: u32 = 2;

/// Maximum memory of a stored hash, in KiB.
const MEMORY_MAX: u32 = 128 * 1024;
/// Maximum product of the memory (in KiB) and the passes of an Argon2 hash: three passes over the maximum memory. It is
/// twice the default of argon2-cffi.
const ARGON2_WORK_MAX: u64 = 3 * MEMORY_MAX as u64;
/// Maximum number of lanes. They are computed in sequence, so more lanes do not cost more.
const LANES_MAX: u32 = 64;
/// The accepted costs of bcrypt. The maximum, 2^14 rounds, takes about a second.
const BCRYPT_COST: std::ops::RangeInclusive<u32> = 4..=14;
/// Maximum product of N, r and p of a scrypt hash: twice OWASP's most expensive recommendation.
const SCRYPT_WORK_MAX: u64 = 1 << 21;
/// Maximum number of iterations of PBKDF2: twice Werkzeug's default. With SHA-256, they take half a second.
const ITERATIONS_MAX: u32 = 2_000_000;
/// The iterations of a PBKDF2 hash that does not state them: the default of Werkzeug 3.1.
const ITERATIONS_UNSAID: u32 = 1_000_000;
/// bcrypt reads only this number of bytes of a password.
pub(super) const BCRYPT_BYTES: usize = 72;

/// Memory that consecutive hashes reuse. With new memory from the system, a hash takes 22 ms instead of 14 ms.
#[derive(Default)]
pub(super) struct Arena(Vec<Block>);

impl Arena {
    /// Returns `count` blocks of 1 KiB. Allocates only the missing blocks.
    fn blocks(&mut self, count: usize) -> Result<&mut [Block], Busy> {
        if self.0.len() < count {
            self.0.try_reserve_exact(count - self.0.len()).map_err(|_| Busy)?;
            self.0.resize(count, Block::new());
        }
        Ok(&mut self.0[..count])
    }

    /// Frees the memory beyond the need of the gateway's own hashes.
    fn shrink(&mut self) {
        if self.0.len() > MEMORY as usize {
            self.0.truncate(MEMORY as usize);
            self.0.shrink_to_fit();
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parameters {
    Argon2id { memory: u32, passes: u32, lanes: u32 },
    Bcrypt { cost: u32 },
    Scrypt { log_n: u8, r: u32, p: u32 },
    Pbkdf2 { digest: Digest, iterations: u32 },
}

/// The hash function of PBKDF2. Old releases of Werkzeug used SHA-1, whose known weaknesses do not affect PBKDF2.
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

    pub(super) fn bytes(self) -> usize {
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

/// The reason why a text is rejected as a password hash. The fault does not show the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashFault {
    /// The kind of hash is unknown.
    Unknown,
    /// The kind is known, but the format is invalid.
    Malformed(&'static str),
    /// A check would cost too much.
    TooExpensive(&'static str),
}

impl fmt::Display for HashFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str(
                "unknown kind of password hash; known: $argon2id$, bcrypt ($2a$, $2b$, $2y$), scrypt:N:r:p$ and \
                 pbkdf2:sha256:ITERATIONS$ (sha1, sha512)",
            ),
            Self::Malformed(what) => write!(f, "malformed password hash: {what}"),
            Self::TooExpensive(what) => write!(f, "password hash too costly to check: {what}"),
        }
    }
}

impl std::error::Error for HashFault {}

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
    /// Parses the output of [`scheme`].
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

    pub(super) fn argon2id(memory: u32, passes: u32, lanes: u32) -> Result<Self, HashFault> {
        if memory > MEMORY_MAX || u64::from(memory) * u64::from(passes) > ARGON2_WORK_MAX || lanes > LANES_MAX
        {
            return Err(HashFault::TooExpensive("Argon2 with at most m=131072, m times t=393216, p=64"));
        }
        if lanes == 0 || passes == 0 || memory < 8 * lanes {
            return Err(HashFault::Malformed(
                "Argon2 takes t and p of at least 1, and m of at least 8 times p",
            ));
        }
        Ok(Self::Argon2id { memory, passes, lanes })
    }

    pub(super) fn bcrypt(cost: u32) -> Result<Self, HashFault> {
        match cost {
            cost if BCRYPT_COST.contains(&cost) => Ok(Self::Bcrypt { cost }),
            15..=31 => Err(HashFault::TooExpensive("bcrypt of cost 14 at most")),
            _ => Err(HashFault::Malformed("bcrypt has a cost of 4 to 31")),
        }
    }

    pub(super) fn scrypt(parameters: &[&str]) -> Result<Self, HashFault> {
        // If the hash states no parameters, Werkzeug's defaults apply.
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
            return Err(HashFault::TooExpensive(
                "scrypt with at most 128 MiB (128 times N times r), and N times r times p of 2097152",
            ));
        }
        Ok(Self::Scrypt { log_n: n.trailing_zeros() as u8, r: r as u32, p: p as u32 })
    }

    pub(super) fn pbkdf2(parameters: &[&str]) -> Result<Self, HashFault> {
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
            _ => Err(HashFault::TooExpensive("PBKDF2 of 2000000 iterations at most")),
        }
    }

    pub(super) fn work(self) -> Work {
        match self {
            Self::Argon2id { memory, passes, .. } => {
                Work::of(WorkUnit::Argon2, u64::from(memory) * u64::from(passes))
            }
            Self::Bcrypt { cost } => Work::of(WorkUnit::Bcrypt, 1 << cost),
            Self::Scrypt { log_n, r, p } => {
                Work::of(WorkUnit::Scrypt, (u64::from(r) * u64::from(p)) << log_n)
            }
            Self::Pbkdf2 { digest: Digest::Sha1, iterations } => Work::of(WorkUnit::Sha1, iterations.into()),
            Self::Pbkdf2 { digest: Digest::Sha256, iterations } => {
                Work::of(WorkUnit::Sha256, iterations.into())
            }
            Self::Pbkdf2 { digest: Digest::Sha512, iterations } => {
                Work::of(WorkUnit::Sha512, iterations.into())
            }
        }
    }

    /// Writes the hash of the password into `output`.
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
                // The parser has checked all parameters, so only an allocation can fail.
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
                // The key includes the terminating zero if there is room for it.
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

/// Parses a decimal number without a sign. A number above `u32::MAX` becomes `u32::MAX`.
pub(super) fn number(text: &str) -> Result<u32, HashFault> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits {
        return Err(HashFault::Malformed("its parameters are numbers"));
    }
    // A number that exceeds `u32` also exceeds every bound.
    Ok(text.parse().unwrap_or(u32::MAX))
}
