//! What is known of an account, and how that is written into a row.

use super::StoreError;
use super::text::{list_of, list_text, map_of, map_text};
use serde_json::{Map, Value};
use sqlx::Row;
use sqlx::any::AnyRow;
use std::fmt;

/// An account.
#[derive(Clone)]
pub struct Account {
    /// `sub` of its tokens.
    pub id: String,
    /// The user name in canonical form.
    pub name: String,
    /// The encoded hash of its password; empty: it has none.
    pub password: String,
    /// Its roles, in the operator's order.
    pub roles: Vec<String>,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// Attributes of the owner.
    pub attributes: Map<String, Value>,
    /// Whether its owner is kept out.
    pub disabled: bool,
    /// Grows with each change that ends its tokens.
    pub generation: i64,
    /// When it was made, milliseconds since 1970.
    pub created: i64,
}

/// The hash of a password, as an account gets it. The store keeps both parts and understands neither.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PasswordHash {
    /// The encoded hash; empty: there is no password.
    pub encoded: String,
    /// The kind and cost of the hash, for [`Store::schemes`](super::Store::schemes); empty if no login can use it.
    pub scheme: String,
}

/// An account that is to be made.
#[derive(Clone, Default)]
pub struct NewAccount {
    /// `sub` of its tokens.
    pub id: String,
    /// The user name in canonical form.
    pub name: String,
    /// Its password; empty: it has none.
    pub password: PasswordHash,
    /// Its roles.
    pub roles: Vec<String>,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// Attributes of the owner.
    pub attributes: Map<String, Value>,
    /// Whether its owner is kept out.
    pub disabled: bool,
}

/// The result of creating an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is there.
    Added,
    /// Another account has its name.
    NameTaken,
    /// Another account has its id.
    IdTaken,
    /// Its id belonged to an account that was removed.
    IdRetired,
}

/// The changes to an account. `None` keeps a value.
#[derive(Clone, Default)]
pub struct AccountChange {
    /// The roles.
    pub roles: Option<Vec<String>>,
    /// The scopes.
    pub scopes: Option<Vec<String>>,
    /// The attributes.
    pub attributes: Option<Map<String, Value>>,
    /// Whether the owner is kept out.
    pub disabled: Option<bool>,
    /// The password.
    pub password: Option<PasswordHash>,
    /// Whether all sessions are ended.
    pub end_sessions: bool,
}

// A hash lets its holder guess at the password, so it never appears in a log.
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

/// The facts about an account's owner, in the form of the store.
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

/// An account as it was written.
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
