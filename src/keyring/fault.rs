//! The errors of reading and changing the signing keys, as types.

use crate::authenticate::Algorithm;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The reason why the keyring cannot be opened, read or changed. `Display` writes one sentence for the operator.
///
/// Errors of the operating system are stored as text, so that two faults can be compared: the watcher reports a fault
/// only once while it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyringFault {
    /// An HMAC algorithm, such as HS256, is configured without a secret.
    SecretMissing,
    /// The secret for an HMAC algorithm cannot be used.
    Secret(String),
    /// An HMAC algorithm signs with a secret from the configuration, which key commands cannot change.
    SecretInPolicy,
    /// No key has been created yet.
    NoKeyYet,
    /// Every key in the folder is revoked.
    NoUsableKey,
    /// No key has this id.
    UnknownKey(String),
    /// The folder already contains the maximum number of keys.
    Full {
        /// The maximum number of keys.
        max: usize,
    },
    /// The folder contains more than the maximum number of keys.
    TooMany {
        /// The state folder.
        path: PathBuf,
        /// The maximum number of keys.
        max: usize,
    },
    /// Users other than the owner can write to the state folder.
    FolderWritable {
        /// The state folder.
        path: PathBuf,
        /// The folder's mode.
        mode: u32,
    },
    /// Another process holds the lock on the folder.
    Locked,
    /// The state folder or its lock cannot be used.
    Io {
        /// The folder or file.
        path: PathBuf,
        /// The system's error.
        error: String,
    },
    /// A key file cannot be used.
    File {
        /// The path of the file.
        path: PathBuf,
        /// The reason why the file cannot be used.
        fault: FileFault,
    },
    /// The store of the keys cannot be used. The text is a sentence that names the store.
    Store(String),
    /// A key in the store is encrypted with a secret that the policy does not have.
    UnknownSeal(String),
    /// A key in the store cannot be decrypted, because it is damaged or somebody changed it.
    Changed(String),
    /// Only keys in the store are encrypted.
    NotSealed,
    /// Two files contain the same key.
    SameKey([PathBuf; 2]),
    /// A file cannot be written. The text is a sentence that names the file.
    Write(String),
    /// A new key disappeared before it could be read.
    Vanished,
    /// No signing key can be read from the folder. Keys in memory remain in use unless they were revoked.
    NothingLeft,
    /// The system's random number generator failed.
    Random,
    /// A key that this process generated, or a key set that it wrote, cannot be parsed.
    Internal(String),
}

/// The reason why a key file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileFault {
    /// The file cannot be read.
    Io(String),
    /// The file cannot be removed.
    Remove(String),
    /// The file's name is not a valid name for a key file.
    Name,
    /// The path does not name a regular file.
    NotAFile,
    /// Users other than the owner can read the file.
    Readable {
        /// The file's mode.
        mode: u32,
    },
    /// The file does not contain a private key in PKCS#8 PEM.
    NotPem(String),
    /// The file does not contain a key for this algorithm.
    WrongAlgorithm(Algorithm),
}

impl KeyringFault {
    pub(super) fn io(path: &Path, error: &io::Error) -> Self {
        Self::Io { path: path.to_owned(), error: error.to_string() }
    }

    pub(super) fn file(path: &Path, fault: FileFault) -> Self {
        Self::File { path: path.to_owned(), fault }
    }
}

impl fmt::Display for KeyringFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SecretMissing => f.write_str("HS256 needs a secret"),
            Self::Secret(why) | Self::Write(why) | Self::Store(why) => f.write_str(why),
            Self::SecretInPolicy => {
                f.write_str("HS256 signs with [authority] secret: change the key in the configuration")
            }
            Self::NoKeyYet => f.write_str("there is no key yet: run portcullis key generate"),
            Self::NoUsableKey => {
                f.write_str("every signing key is revoked: run portcullis key generate")
            }
            Self::UnknownKey(id) => {
                write!(f, "unknown key \"{}\": run portcullis key list for the known ones", id.escape_debug())
            }
            Self::Full { max } => write!(
                f,
                "there are {max} keys already, which is the maximum: a running gateway removes each key a day after \
                 its last token has expired"
            ),
            Self::TooMany { path, max } => write!(f, "{}: more than {max} signing keys", path.display()),
            Self::FolderWritable { path, mode } => write!(
                f,
                "{}: writable by users other than its owner (mode {mode:o}): chmod 700 it; or, if the system sets \
                 the mode (a volume with fsGroup), set [state] dir to a folder below it, which the gateway creates, \
                 and fsGroupChangePolicy to OnRootMismatch",
                path.display()
            ),
            Self::Locked => f.write_str("another process holds the lock on the signing keys: try again later"),
            Self::Io { path, error } => write!(f, "{}: {error}", path.display()),
            Self::File { path, fault } => write!(f, "{}: {fault}", path.display()),
            Self::UnknownSeal(id) => write!(
                f,
                "the signing key {} in the store is encrypted with another secret: set [authority] \
                 other_signing_keys_secret to it, or revoke the key with portcullis key revoke",
                id.escape_debug()
            ),
            Self::Changed(id) => write!(
                f,
                "the signing key {} in the store cannot be decrypted: it is damaged, or somebody changed it",
                id.escape_debug()
            ),
            Self::NotSealed => f.write_str(
                "the signing keys are files: only keys in the store ([authority] signing_keys = \"store\") are encrypted",
            ),
            Self::SameKey([one, other]) => {
                write!(f, "{} and {} hold the same key: remove one of them", one.display(), other.display())
            }
            Self::Vanished => f.write_str("the new key disappeared before it could be read"),
            Self::NothingLeft => f.write_str(
                "no signing key is left; keys in memory stay in use unless they were revoked: run \
                 portcullis key generate",
            ),
            Self::Random => f.write_str("the system's random number generator failed"),
            Self::Internal(why) => write!(f, "internal error: {why}"),
        }
    }
}

impl std::error::Error for KeyringFault {}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => f.write_str(error),
            Self::Remove(error) => write!(f, "cannot be removed: {error}"),
            Self::Name => f.write_str(
                "not a signing-key file name: expected signing-key.YYYYMMDDTHHMMSSZ.pem, with the time from which the \
                 key signs",
            ),
            Self::NotAFile => f.write_str("not a file"),
            Self::Readable { mode } => write!(
                f,
                "readable by users other than its owner (mode {mode:o}): chmod 600 it, and revoke the key if others \
                 may have read it"
            ),
            Self::NotPem(error) => write!(f, "not a private key in PKCS#8 PEM: {error}"),
            Self::WrongAlgorithm(algorithm) => write!(
                f,
                "not a key for {algorithm}: set [authority] algorithm to the one that the key was created for, or move \
                 the file away so that a new key is created"
            ),
        }
    }
}
