//! Accounts. An id is given once and for all: what is removed leaves its id behind, so that nobody ever inherits what
//! services keep under it.

use super::sessions::end_all;
use super::text::{NAME_MAX, PASSWORD_MAX, fit, is_text, list_of, list_text, map_of, map_text};
use super::{Store, StoreError, Writing, for_update};
use crate::authenticate::Mark;
use crate::authority::scheme;
use serde_json::{Map, Value};
use sqlx::Row;
use sqlx::any::AnyRow;
use std::fmt;

/// An account.
#[derive(Clone)]
pub struct Account {
    /// `sub` of its tokens.
    pub id: String,
    /// What its owner logs in with, in canonical form.
    pub name: String,
    /// The encoded hash of its password; empty: it has none.
    pub password: String,
    /// Its roles, in the operator's order.
    pub roles: Vec<String>,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// What else is known of its owner.
    pub attributes: Map<String, Value>,
    /// Whether its owner is kept out.
    pub disabled: bool,
    /// Grows with each change that ends its tokens.
    pub generation: i64,
    /// When it was made, milliseconds since 1970.
    pub created: i64,
}

/// An account that is to be made.
#[derive(Clone, Default)]
pub struct NewAccount {
    /// `sub` of its tokens.
    pub id: String,
    /// What its owner logs in with, in canonical form.
    pub name: String,
    /// The encoded hash of its password; empty: it has none.
    pub password: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// What else is known of its owner.
    pub attributes: Map<String, Value>,
    /// Whether its owner is kept out.
    pub disabled: bool,
}

/// What became of an account that was to be made.
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

/// What is to be changed; what is none stays.
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
    /// The encoded hash of the password.
    pub password: Option<String>,
    /// Whether all sessions are ended.
    pub end_sessions: bool,
}

/// A statement that reads accounts.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, password, roles, scopes, attributes, disabled, generation, created FROM accounts ",
            $rest
        )
    };
}

// A hash is no password, but whoever has it can guess at it: none gets into a log.
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

/// What an account says of its owner, as it is kept.
struct Written {
    password: String,
    scheme: String,
    roles: String,
    scopes: String,
    attributes: String,
}

impl Written {
    fn of(
        name: &str,
        password: &str,
        roles: &[String],
        scopes: &[String],
        attributes: &Map<String, Value>,
    ) -> Result<Self, StoreError> {
        fit(&format!("{name}: password hash"), password, PASSWORD_MAX)?;
        Ok(Self {
            password: password.to_owned(),
            scheme: scheme(password).unwrap_or_default(),
            roles: list_text(&format!("{name}: roles"), roles)?,
            scopes: list_text(&format!("{name}: scopes"), scopes)?,
            attributes: map_text(&format!("{name}: attributes"), attributes)?,
        })
    }
}

impl Store {
    /// Makes accounts, all in one transaction; one whose name or id is taken stops no other.
    ///
    /// # Errors
    /// When the store cannot be used, or one of them is larger than what is kept; then none is made.
    pub async fn add(&self, accounts: &[NewAccount], now: i64) -> Result<Vec<Added>, StoreError> {
        let mut transaction = self.begin().await?;
        let mut outcomes = Vec::with_capacity(accounts.len());
        for account in accounts {
            outcomes.push(insert(&mut transaction, account, now).await?);
        }
        transaction.commit().await?;
        Ok(outcomes)
    }

    /// The account of this id.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn account(&self, id: &str) -> Result<Option<Account>, StoreError> {
        if !is_text(id) {
            return Ok(None);
        }
        let row = sqlx::query(select!("WHERE id = $1 AND removed IS NULL"))
            .bind(id)
            .fetch_optional(&self.reads)
            .await?;
        row.as_ref().map(account_of).transpose()
    }

    /// The account of this name.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn account_by_name(&self, name: &str) -> Result<Option<Account>, StoreError> {
        if !is_text(name) {
            return Ok(None);
        }
        let row = sqlx::query(select!("WHERE name = $1")).bind(name).fetch_optional(&self.reads).await?;
        row.as_ref().map(account_of).transpose()
    }

    /// The accounts whose names come behind this one, in the order of their bytes, at most so many.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn accounts(&self, after_name: &str, limit: u32) -> Result<Vec<Account>, StoreError> {
        let rows = sqlx::query(select!("WHERE name > $1 ORDER BY name LIMIT $2"))
            .bind(after_name)
            .bind(i64::from(limit))
            .fetch_all(&self.reads)
            .await?;
        rows.iter().map(account_of).collect()
    }

    /// Changes the account of this name. Where the change ends its tokens (other roles, scopes or attributes; another
    /// password; disabled; asked for), its generation grows and a mark is put, until a moment when all of them are dead.
    /// Another password and disabling end its sessions too.
    ///
    /// # Errors
    /// When the store cannot be used, or the change is larger than what is kept; then nothing is changed.
    pub async fn change(
        &self,
        name: &str,
        change: &AccountChange,
        now: i64,
        until: i64,
    ) -> Result<Option<(Account, Vec<Mark>)>, StoreError> {
        let mut transaction = self.begin().await?;
        let Some(before) = self.lock_by_name(&mut transaction, name).await? else { return Ok(None) };
        let mut account = before.clone();
        let AccountChange { roles, scopes, attributes, disabled, password, end_sessions } = change.clone();
        let why_ended = match () {
            () if disabled == Some(true) => Some("disabled"),
            () if password.is_some() => Some("password"),
            () if end_sessions => Some("changed"),
            () => None,
        };
        account.roles = roles.unwrap_or(account.roles);
        account.scopes = scopes.unwrap_or(account.scopes);
        account.attributes = attributes.unwrap_or(account.attributes);
        account.disabled = disabled.unwrap_or(account.disabled);
        account.password = password.unwrap_or(account.password);
        let claims =
            |account: &Account| (account.roles.clone(), account.scopes.clone(), account.attributes.clone());
        let mut marks = Vec::new();
        if why_ended.is_some() || claims(&account) != claims(&before) {
            account.generation += 1;
            marks.push(Mark::Account { id: account.id.clone(), generation: account.generation });
        }
        let written =
            Written::of(name, &account.password, &account.roles, &account.scopes, &account.attributes)?;
        sqlx::query(
            "UPDATE accounts SET password = $1, scheme = $2, roles = $3, scopes = $4, attributes = $5, disabled = $6,
             generation = $7 WHERE id = $8",
        )
        .bind(written.password)
        .bind(written.scheme)
        .bind(written.roles)
        .bind(written.scopes)
        .bind(written.attributes)
        .bind(i64::from(account.disabled))
        .bind(account.generation)
        .bind(&account.id)
        .execute(&mut *transaction)
        .await?;
        if let Some(why) = why_ended {
            end_all(&mut transaction, &account.id, why, now).await?;
        }
        self.commit_marked(transaction, &marks, now, until).await?;
        Ok(Some((account, marks)))
    }

    /// Removes the account of this name and what is known of its owner; its id is never given again.
    ///
    /// # Errors
    /// When the store cannot be used; then it is still there.
    pub async fn remove(
        &self,
        name: &str,
        now: i64,
        until: i64,
    ) -> Result<Option<(Account, Vec<Mark>)>, StoreError> {
        let mut transaction = self.begin().await?;
        let Some(mut account) = self.lock_by_name(&mut transaction, name).await? else { return Ok(None) };
        account.generation += 1;
        sqlx::query(
            "UPDATE accounts SET name = NULL, password = '', scheme = '', roles = '[]', scopes = '[]',
             attributes = '{}', disabled = 1, generation = $1, removed = $2 WHERE id = $3",
        )
        .bind(account.generation)
        .bind(now)
        .bind(&account.id)
        .execute(&mut *transaction)
        .await?;
        end_all(&mut transaction, &account.id, "removed", now).await?;
        sqlx::query("DELETE FROM addresses WHERE account = $1")
            .bind(&account.id)
            .execute(&mut *transaction)
            .await?;
        let marks = vec![Mark::Account { id: account.id.clone(), generation: account.generation }];
        self.commit_marked(transaction, &marks, now, until).await?;
        Ok(Some((account, marks)))
    }

    /// Replaces the hash of a password by another one of the same password, if it is still that one. No token ends.
    ///
    /// # Errors
    /// When the store cannot be used, or the hash is longer than any of ours.
    pub async fn upgrade_password(&self, id: &str, old: &str, new: &str) -> Result<bool, StoreError> {
        fit("password hash", new, PASSWORD_MAX)?;
        let done = sqlx::query(
            "UPDATE accounts SET password = $1, scheme = $2 WHERE id = $3 AND password = $4 AND removed IS NULL",
        )
        .bind(new)
        .bind(scheme(new).unwrap_or_default())
        .bind(id)
        .bind(old)
        .execute(&self.writes)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// How the passwords of all accounts are hashed, each kind and cost once, as [`scheme`] names them.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn schemes(&self) -> Result<Vec<String>, StoreError> {
        // From one to the next by the index, rather than through all accounts: there are a few among millions.
        let rows = sqlx::query(
            "WITH RECURSIVE known (scheme) AS (
                 SELECT MIN(scheme) FROM accounts WHERE scheme > ''
                 UNION ALL
                 SELECT (SELECT MIN(a.scheme) FROM accounts a WHERE a.scheme > known.scheme)
                 FROM known WHERE known.scheme IS NOT NULL
             )
             SELECT scheme FROM known WHERE scheme IS NOT NULL",
        )
        .fetch_all(&self.reads)
        .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// An account that nobody else changes until the transaction ends.
    async fn lock_by_name(
        &self,
        transaction: &mut Writing,
        name: &str,
    ) -> Result<Option<Account>, StoreError> {
        if !is_text(name) {
            return Ok(None);
        }
        let row = sqlx::query(for_update!(self.dialect, select!("WHERE name = $1")))
            .bind(name)
            .fetch_optional(&mut **transaction)
            .await?;
        row.as_ref().map(account_of).transpose()
    }

    /// The same by its id.
    pub(super) async fn lock_by_id(
        &self,
        transaction: &mut Writing,
        id: &str,
    ) -> Result<Option<Account>, StoreError> {
        let row = sqlx::query(for_update!(self.dialect, select!("WHERE id = $1 AND removed IS NULL")))
            .bind(id)
            .fetch_optional(&mut **transaction)
            .await?;
        row.as_ref().map(account_of).transpose()
    }
}

async fn insert(transaction: &mut Writing, account: &NewAccount, now: i64) -> Result<Added, StoreError> {
    let NewAccount { id, name, password, roles, scopes, attributes, disabled } = account;
    fit("account id", id, NAME_MAX)?;
    fit("account name", name, NAME_MAX)?;
    let written = Written::of(name, password, roles, scopes, attributes)?;
    let made = sqlx::query(
        "INSERT INTO accounts (id, name, password, scheme, roles, scopes, attributes, disabled, generation, created)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9) ON CONFLICT DO NOTHING",
    )
    .bind(id)
    .bind(name)
    .bind(written.password)
    .bind(written.scheme)
    .bind(written.roles)
    .bind(written.scopes)
    .bind(written.attributes)
    .bind(i64::from(*disabled))
    .bind(now)
    .execute(&mut **transaction)
    .await?;
    if made.rows_affected() == 1 {
        return Ok(Added::Added);
    }
    let holder = sqlx::query("SELECT name, removed FROM accounts WHERE id = $1")
        .bind(id)
        .fetch_optional(&mut **transaction)
        .await?;
    let Some(holder) = holder else { return Ok(Added::NameTaken) };
    if holder.try_get::<Option<i64>, _>("removed")?.is_some() {
        return Ok(Added::IdRetired);
    }
    let same_name = holder.try_get::<Option<String>, _>("name")?.as_ref() == Some(name);
    Ok(if same_name { Added::NameTaken } else { Added::IdTaken })
}

/// The account of this id, as a transaction sees it.
pub(super) async fn by_id(transaction: &mut Writing, id: &str) -> Result<Option<Account>, StoreError> {
    let row = sqlx::query(select!("WHERE id = $1 AND removed IS NULL"))
        .bind(id)
        .fetch_optional(&mut **transaction)
        .await?;
    row.as_ref().map(account_of).transpose()
}

fn account_of(row: &AnyRow) -> Result<Account, StoreError> {
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
