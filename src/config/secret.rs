//! A reference to a secret, or the secret itself.

use super::reading::{ValueError, from_text};
use super::stable_file;
use super::units::ByteSize;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

from_text!(Secret);

/// A reference to a secret, `env:NAME` or `file:PATH`, or the secret itself.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The secret is in the environment variable of this name.
    Environment(String),
    /// The secret is in the file at this path.
    File(String),
    /// This text is the secret.
    Literal(String),
}

/// Maximum size of a file that contains a secret or key.
const SECRET_FILE_MAX: ByteSize = ByteSize::bytes(1 << 20);

impl Secret {
    /// Returns whether the policy contains the secret itself instead of a reference.
    pub const fn is_literal(&self) -> bool {
        matches!(self, Self::Literal(_))
    }

    /// Returns the secret. A relative path starts at `base`. One line break at the end of a file is removed.
    ///
    /// # Errors
    /// Returns a message that names the reference and never contains the secret.
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
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = |found: &str| ValueError::new(found, "\"env:NAME\" or \"file:PATH\"");
        match (text.strip_prefix("env:"), text.strip_prefix("file:")) {
            (Some(""), _) => Err(error("env: without a name")),
            (_, Some("")) => Err(error("file: without a path")),
            // Messages name the variable, and must not repeat a URL with a password that an operator wrote there.
            (Some(name), _) if !name.bytes().all(is_of_variable) => {
                Err(error("not the name of an environment variable (not shown)"))
            }
            (Some(name), _) => Ok(Self::Environment(name.to_owned())),
            (_, Some(path)) => Ok(Self::File(path.to_owned())),
            (None, None) if text.is_empty() => Err(error("empty")),
            // As literals, `Env:NAME` and `$NAME` would be secrets that anybody could guess.
            (None, None) if looks_like_a_reference(text) => {
                Err(error("a reference in another system's syntax"))
            }
            (None, None) => Ok(Self::Literal(text.to_owned())),
        }
    }
}

/// Returns whether names of environment variables have this character. Container platforms allow `-` and `.`, too.
pub(super) const fn is_of_variable(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// Returns whether a text looks like a misspelt reference.
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
    /// Writes the reference. A literal secret is replaced by a fixed text.
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
    use super::super::reading::assert_rejected;
    use super::*;
    use proptest::prelude::*;

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
        assert_rejected::<Secret>(&[
            "",
            "env:",
            "file:",
            "env:A=B",
            "env:postgres://user:password@host",
            "env:A B",
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
        fn no_text_makes_a_parser_panic(text in ".*") {
            let _ = text.parse::<Secret>();
        }
    }
}
