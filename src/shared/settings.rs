//! The settings of the shared state, as the policy states them.

use super::Address;
use crate::config::file::OnError;
use crate::key_source::SetSecrets;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

/// The settings of `[shared]`.
#[derive(Clone, Debug)]
pub struct SharedSettings {
    /// The servers.
    pub servers: Servers,
    /// The login of the gateway at the servers.
    pub login: Login,
    /// The login of the gateway at the Sentinels.
    pub sentinel_login: Login,
    /// The trusted authorities; `None` if no address uses TLS.
    pub trusted: Option<Trusted>,
    /// The first part of every key.
    pub prefix: Box<str>,
    /// The time that opening a connection may take.
    pub connect_timeout: Duration,
    /// The time that a call waits for its answer.
    pub answer_timeout: Duration,
    /// Whether the gateways share the used DPoP proofs.
    pub replay: bool,
    /// The secrets that authenticate the key sets that gateways pass to each other; `None` if they pass none.
    pub keys: Option<Arc<SetSecrets>>,
    /// The behaviour of each use while the shared state does not answer.
    pub on_error: OnErrors,
}

impl SharedSettings {
    /// Returns whether a connection that was opened with `other` serves these settings too.
    pub fn shares_connection(&self, other: &Self) -> bool {
        self.servers == other.servers
            && self.login == other.login
            && self.sentinel_login == other.sentinel_login
            && self.trusted == other.trusted
    }
}

impl SharedSettings {
    /// Returns each use of the shared state, with its behaviour while the shared state does not answer. `has_store`:
    /// whether the gateway has an authority, with accounts that log in.
    pub fn uses(&self, has_store: bool) -> impl Iterator<Item = (&'static str, OnError)> {
        let OnErrors { limits, login, revocation, replay } = self.on_error;
        let login = has_store.then_some(("login", login));
        let replay = self.replay.then_some(("replay", replay));
        [("limits", limits)].into_iter().chain(login).chain([("revocation", revocation)]).chain(replay)
    }

    /// Removes the passwords from a text of a server.
    pub(super) fn without_passwords(&self, mut text: String) -> String {
        for login in [&self.login, &self.sentinel_login] {
            if let Some(password) = login.password.as_deref().filter(|password| !password.is_empty()) {
                text = text.replace(password.as_str(), "(password)");
            }
        }
        text
    }

    /// Describes the behaviour of each use for operators. `has_store`: whether the gateway reads revocations from a store
    /// too.
    pub fn without_answer(&self, has_store: bool) -> String {
        let word = |(name, on_error): (&str, OnError)| match (name, has_store) {
            ("revocation", true) => "revocation by the store".to_owned(),
            _ => format!("{name} {}", on_error.as_str()),
        };
        self.uses(has_store).map(word).collect::<Vec<_>>().join(", ")
    }
}

/// The servers of the shared state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Servers {
    /// One server.
    One {
        /// Its address.
        address: Address,
        /// The number of its database.
        database: u16,
    },
    /// A server that Sentinels choose.
    Sentinel {
        /// The Sentinels.
        sentinels: Box<[Address]>,
        /// The name that the Sentinels give to the server.
        master: Box<str>,
        /// The number of the server's database.
        database: u16,
    },
    /// A cluster, by some of its nodes.
    Cluster(Box<[Address]>),
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |all: &[Address]| all.iter().map(Address::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Self::One { address, .. } => write!(f, "{address}"),
            Self::Sentinel { sentinels, master, .. } => {
                write!(f, "{master} of the Sentinels {}", list(sentinels))
            }
            Self::Cluster(nodes) => write!(f, "the cluster of {}", list(nodes)),
        }
    }
}

/// A user and a password. Without a password, the gateway does not log in.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// The ACL user; `None` for the default user.
    pub user: Option<Box<str>>,
    /// The password.
    pub password: Option<Zeroizing<String>>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The authorities that the gateway trusts in the servers.
#[derive(Clone)]
pub struct Trusted {
    /// The connector with these authorities.
    pub connector: TlsConnector,
    /// The digest of the authorities.
    pub digest: [u8; 32],
}

impl PartialEq for Trusted {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl fmt::Debug for Trusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trusted").finish_non_exhaustive()
    }
}

/// The behaviour of each use while the shared state does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnErrors {
    /// Limits of the fleet.
    pub limits: OnError,
    /// Failed logins.
    pub login: OnError,
    /// Revocations, on gateways that read them from no store.
    pub revocation: OnError,
    /// The used DPoP proofs.
    pub replay: OnError,
}
