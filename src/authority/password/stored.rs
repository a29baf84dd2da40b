//! The stored password hash of an account: one of the gateway's own hashes, or an imported hash. The parser bounds the
//! time and the memory of a check.

use super::Busy;
use super::kdf::{Arena, BCRYPT_BYTES, HashFault, MEMORY, PASSES, Parameters, number};
use super::work::Work;
use crate::store::PasswordHash;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand;
use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, STANDARD_NO_PAD};
use zeroize::Zeroizing;

/// Maximum length of a salt, in bytes. Known libraries use 8 to 22 characters.
const SALT_MAX: usize = 64;

/// bcrypt's base64 variant. Like bcrypt, it ignores the unused bits of the last character.
const BCRYPT64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::BCRYPT, NO_PAD.with_decode_allow_trailing_bits(true));

/// A parsed hash.
pub(super) struct StoredHash {
    parameters: Parameters,
    salt: Vec<u8>,
    output: Vec<u8>,
}

/// Checks whether an account may have this text as its password hash.
///
/// # Errors
/// The reason why the text is rejected.
pub fn check_hash(encoded: &str) -> Result<(), HashFault> {
    StoredHash::parse(encoded).map(|_| ())
}

/// Returns the scheme of a hash, such as `bcrypt:12`: its kind and cost. Returns `None` for a hash that `check_hash`
/// rejects.
pub fn scheme(encoded: &str) -> Option<String> {
    StoredHash::parse(encoded).ok().map(|stored| stored.parameters.to_string())
}

/// Pairs a hash with its scheme, for the store.
pub fn password_hash(encoded: String) -> PasswordHash {
    let scheme = scheme(&encoded).unwrap_or_default();
    PasswordHash { encoded, scheme }
}

impl StoredHash {
    /// Parses an encoded hash.
    pub(super) fn parse(encoded: &str) -> Result<Self, HashFault> {
        match encoded.as_bytes() {
            [b'$', b'2', ..] => Self::bcrypt(encoded),
            [b'$', ..] => Self::argon2id(encoded),
            _ => Self::werkzeug(encoded),
        }
    }

    /// Parses a PHC string, `$argon2id$v=19$m=19456,t=2,p=1$SALT$OUTPUT`.
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

    /// Parses a bcrypt hash: `$2b$12$`, 22 characters of salt and 31 characters of hash.
    fn bcrypt(encoded: &str) -> Result<Self, HashFault> {
        let rest = ["$2a$", "$2b$", "$2y$"].iter().find_map(|prefix| encoded.strip_prefix(prefix));
        // `$2x$` marks hashes of a faulty implementation that misread non-ASCII characters.
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

    /// Parses Werkzeug's `scrypt:32768:8:1$SALT$HEX` and `pbkdf2:sha256:1000000$SALT$HEX`.
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
        if !(1..=SALT_MAX).contains(&salt.len()) || !salt.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(HashFault::Malformed("a salt of 1 to 64 visible ASCII characters"));
        }
        Ok(Self { parameters, salt: salt.as_bytes().to_vec(), output })
    }

    /// Returns the cost of checking a password against the hash.
    pub(super) fn work(&self) -> Work {
        self.parameters.work()
    }

    /// Whether `password` matches the hash. Compares in constant time.
    pub(super) fn matches(&self, password: &str, arena: &mut Arena) -> Result<bool, Busy> {
        let mut derived = Zeroizing::new(vec![0; self.output.len()]);
        self.parameters.derive(password, &self.salt, &mut derived, arena)?;
        let equal = verify_slices_are_equal(&derived, &self.output).is_ok();
        // bcrypt repeats the password and a zero byte until it has 72 bytes, so the hash of "a" would match "a\0a".
        let ambiguous = matches!(self.parameters, Parameters::Bcrypt { .. }) && password.contains('\0');
        Ok(equal && !ambiguous)
    }

    /// Whether to replace the hash after `password` has matched, because the hash is of another kind or has a lower
    /// cost than the gateway's own hashes.
    ///
    /// A bcrypt hash is kept if the password is longer than 72 bytes. bcrypt ignores the rest of the password, so the
    /// owner may have mistyped it. A new hash would include the rest and could lock the owner out.
    pub(super) fn needs_upgrade(&self, password: &str) -> bool {
        match self.parameters {
            Parameters::Argon2id { memory, passes, .. } => memory < MEMORY || passes < PASSES,
            Parameters::Bcrypt { .. } => password.len() <= BCRYPT_BYTES,
            Parameters::Scrypt { .. } | Parameters::Pbkdf2 { .. } => true,
        }
    }
}

/// Hashes a password at the current cost, as a PHC string.
pub(super) fn hash(password: &str, arena: &mut Arena) -> Result<String, Busy> {
    let mut salt = [0; 16];
    rand::fill(&mut salt).map_err(|_| Busy)?;
    let mut output = [0; 32];
    let parameters = Parameters::Argon2id { memory: MEMORY, passes: PASSES, lanes: 1 };
    parameters.derive(password, &salt, &mut output, arena)?;
    let (salt, output) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(output));
    Ok(format!("$argon2id$v=19$m={MEMORY},t={PASSES},p=1${salt}${output}"))
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| (b as char).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| if let [high, low] = pair { Some(digit(*high)? << 4 | digit(*low)?) } else { None })
        .collect()
}
