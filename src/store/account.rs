//! The types that describe an account, and their conversion to and from rows.

use super::StoreError;
use super::text::{list_of, list_text, map_of, map_text};
use serde_json::{Map, Value};
use sqlx::Row;
use sqlx::any::AnyRow;
use std::fmt;

/// An account.
#[derive(Clone)]
pub struct Account {
    /// The `sub` of the account's tokens.
    pub id: String,
    /// The login name, in canonical form.
    pub name: String,
    /// The encoded hash of the password; empty if the account has no password.
    pub password: String,
    /// The roles, in the operator's order.
    pub roles: Vec<String>,
    /// The scopes.
    pub scopes: Vec<String>,
    /// Further attributes of the account's owner.
    pub attributes: Map<String, Value>,
    /// Whether the account is disabled.
    pub disabled: bool,
    /// A counter that is incremented by each change that revokes the account's tokens.
    pub generation: i64,
    /// When the account was created, in milliseconds since 1970.
    pub created: i64,
}

/// The hash of a password, as stored with an account. The store does not interpret the hash or its scheme.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PasswordHash {
    /// The encoded hash, or empty if there is no password.
    pub encoded: String,
    /// The kind and cost of the hash, for [`Store::schemes`](super::Store::schemes). Empty if no login can use the
    /// hash.
    pub scheme: String,
}

/// An account to create.
#[derive(Clone, Default)]
pub struct NewAccount {
    /// The `sub` of the account's tokens.
    pub id: String,
    /// The login name, in canonical form.
    pub name: String,
    /// The password hash; empty if the account has no password.
    pub password: PasswordHash,
    /// The roles.
    pub roles: Vec<String>,
    /// The scopes.
    pub scopes: Vec<String>,
    /// Further attributes of the account's owner.
    pub attributes: Map<String, Value>,
    /// Whether the account is disabled.
    pub disabled: bool,
}

/// The outcome of creating an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// The account was created.
    Added,
    /// Another account has this name.
    NameTaken,
    /// Another account has this id.
    IdTaken,
    /// A removed account had this id.
    IdRetired,
}

/// The changes to make to an account. A field that is `None` leaves its value unchanged.
#[derive(Clone, Default)]
pub struct AccountChange {
    /// The roles.
    pub roles: Option<Vec<String>>,
    /// The scopes.
    pub scopes: Option<Vec<String>>,
    /// The attributes.
    pub attributes: Option<Map<String, Value>>,
    /// Whether the account is disabled.
    pub disabled: Option<bool>,
    /// The password.
    pub password: Option<PasswordHash>,
    /// Whether to end all sessions of the account.
    pub end_sessions: bool,
}

// `Debug` never prints a hash, because an attacker who has the hash can guess the password offline.
impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("disabled", &self.disabled)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordHash").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

impl fmt::Debug for NewAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewAccount").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for AccountChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountChange")
            .field("roles", &self.roles)
            .field("scopes", &self.scopes)
            .field("disabled", &self.disabled)
            .field("password", &self.password.is_some())
            .field("end_sessions", &self.end_sessions)
            .finish_non_exhaustive()
    }
}

/// An account's roles, scopes and attributes, encoded for storage.
pub(super) struct Written {
    pub(super) roles: String,
    pub(super) scopes: String,
    pub(super) attributes: String,
}

impl Written {
    pub(super) fn of(
        name: &str,
        roles: &[String],
        scopes: &[String],
        attributes: &Map<String, Value>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            roles: list_text(&format!("{name}: roles"), roles)?,
            scopes: list_text(&format!("{name}: scopes"), scopes)?,
            attributes: map_text(&format!("{name}: attributes"), attributes)?,
        })
    }
}

/// Decodes an account from its row.
pub(super) fn account_of(row: &AnyRow) -> Result<Account, StoreError> {
    Ok(Account {
        id: row.try_get("id")?,
        name: row.try_get::<Option<String>, _>("name")?.unwrap_or_default(),
        password: row.try_get("password")?,
        roles: list_of(row, "roles")?,
        scopes: list_of(row, "scopes")?,
        attributes: map_of(row, "attributes")?,
        disabled: row.try_get::<i64, _>("disabled")? != 0,
        generation: row.try_get("generation")?,
        created: row.try_get("created")?,
    })
}
