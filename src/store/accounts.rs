//! Accounts. An id is given once and for all: what is removed leaves its id behind, so that nobody ever inherits what
//! services keep under it.

use super::marks::put;
use super::sessions::end_all;
use super::{Store, StoreError, list_of, list_text};
use crate::authenticate::Mark;
use serde_json::{Map, Value};
use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};

/// An account.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug, Default)]
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
#[derive(Clone, Debug, Default)]
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

impl Store {
    /// Makes accounts, all in one transaction; one that cannot be made stops no other.
    ///
    /// # Errors
    /// When the store cannot be used; then none is made.
    pub async fn add(&self, accounts: &[NewAccount], now: i64) -> Result<Vec<Added>, StoreError> {
        let mut transaction = self.begin().await?;
        let mut outcomes = Vec::with_capacity(accounts.len());
        for account in accounts {
            let known = sqlx::query("SELECT name, removed FROM accounts WHERE id = $1")
                .bind(&account.id)
                .fetch_optional(&mut *transaction)
                .await?;
            if let Some(row) = known {
                let removed: Option<i64> = row.try_get("removed")?;
                let name: Option<String> = row.try_get("name")?;
                outcomes.push(match removed {
                    Some(_) => Added::IdRetired,
                    None if name.as_deref() == Some(&account.name) => Added::NameTaken,
                    None => Added::IdTaken,
                });
                continue;
            }
            let made = sqlx::query(
                "INSERT INTO accounts (id, name, password, roles, scopes, attributes, disabled, generation, created)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8) ON CONFLICT DO NOTHING",
            )
            .bind(&account.id)
            .bind(&account.name)
            .bind(&account.password)
            .bind(list_text(&account.roles))
            .bind(list_text(&account.scopes))
            .bind(Value::Object(account.attributes.clone()).to_string())
            .bind(i64::from(account.disabled))
            .bind(now)
            .execute(&mut *transaction)
            .await?;
            outcomes.push(if made.rows_affected() == 1 { Added::Added } else { Added::NameTaken });
        }
        transaction.commit().await?;
        Ok(outcomes)
    }

    /// The account of this id.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn account(&self, id: &str) -> Result<Option<Account>, StoreError> {
        let row = sqlx::query(select!("WHERE id = $1 AND removed IS NULL"))
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(account_of).transpose()
    }

    /// The account of this name.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn account_by_name(&self, name: &str) -> Result<Option<Account>, StoreError> {
        let row = sqlx::query(select!("WHERE name = $1")).bind(name).fetch_optional(&self.pool).await?;
        row.as_ref().map(account_of).transpose()
    }

    /// The accounts whose names come behind this one, in order, at most so many.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn accounts(&self, after: &str, limit: u32) -> Result<Vec<Account>, StoreError> {
        let rows = sqlx::query(select!("WHERE name > $1 ORDER BY name LIMIT $2"))
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(account_of).collect()
    }

    /// Changes an account. Where the change ends its tokens, its generation grows and a mark is put, until a moment when all
    /// of them are dead (milliseconds since 1970).
    ///
    /// # Errors
    /// When the store cannot be used; then nothing is changed.
    pub async fn change(
        &self,
        name: &str,
        change: &AccountChange,
        now: i64,
        until: i64,
    ) -> Result<Option<(Account, Vec<Mark>)>, StoreError> {
        let mut transaction = self.begin().await?;
        let Some(mut account) = self.locked(&mut transaction, name).await? else { return Ok(None) };
        let AccountChange { roles, scopes, attributes, disabled, password, end_sessions } = change.clone();
        let ends_sessions = end_sessions || disabled == Some(true) || password.is_some();
        let before = account.clone();
        account.roles = roles.unwrap_or(account.roles);
        account.scopes = scopes.unwrap_or(account.scopes);
        account.attributes = attributes.unwrap_or(account.attributes);
        account.disabled = disabled.unwrap_or(account.disabled);
        account.password = password.unwrap_or(account.password);
        let other = (&account.roles, &account.scopes, &account.attributes)
            != (&before.roles, &before.scopes, &before.attributes);
        let mut marks = Vec::new();
        if other || ends_sessions {
            account.generation += 1;
            marks.push(Mark::Account { id: account.id.clone(), generation: account.generation });
        }
        if ends_sessions {
            end_all(&mut transaction, &account.id, "changed", now).await?;
        }
        sqlx::query(
            "UPDATE accounts SET password = $1, roles = $2, scopes = $3, attributes = $4, disabled = $5, generation = $6
             WHERE id = $7",
        )
        .bind(&account.password)
        .bind(list_text(&account.roles))
        .bind(list_text(&account.scopes))
        .bind(Value::Object(account.attributes.clone()).to_string())
        .bind(i64::from(account.disabled))
        .bind(account.generation)
        .bind(&account.id)
        .execute(&mut *transaction)
        .await?;
        for mark in &marks {
            put(&mut transaction, mark, now, until).await?;
        }
        transaction.commit().await?;
        Ok(Some((account, marks)))
    }

    /// Removes an account; its id is never given again.
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
        let Some(mut account) = self.locked(&mut transaction, name).await? else { return Ok(None) };
        account.generation += 1;
        end_all(&mut transaction, &account.id, "removed", now).await?;
        sqlx::query(
            "UPDATE accounts SET name = NULL, password = '', roles = '[]', scopes = '[]', attributes = '{}', disabled = 1,
             generation = $1, removed = $2 WHERE id = $3",
        )
        .bind(account.generation)
        .bind(now)
        .bind(&account.id)
        .execute(&mut *transaction)
        .await?;
        let mark = Mark::Account { id: account.id.clone(), generation: account.generation };
        put(&mut transaction, &mark, now, until).await?;
        transaction.commit().await?;
        Ok(Some((account, vec![mark])))
    }

    /// Replaces the hash of a password by another one of the same password, if it is still that one.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn upgrade_password(&self, id: &str, old: &str, new: &str) -> Result<bool, StoreError> {
        let done = sqlx::query("UPDATE accounts SET password = $1 WHERE id = $2 AND password = $3")
            .bind(new)
            .bind(id)
            .bind(old)
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// How the hashes of all accounts begin: up to the first `$` behind their first character.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn schemes(&self) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query("SELECT DISTINCT substr(password, 1, 24) FROM accounts WHERE password <> ''")
            .fetch_all(&self.pool)
            .await?;
        let mut schemes = Vec::new();
        for row in rows {
            let text: String = row.try_get(0)?;
            let rest = text.strip_prefix('$').unwrap_or(&text);
            let scheme = rest.split('$').next().unwrap_or_default().to_owned();
            if !schemes.contains(&scheme) {
                schemes.push(scheme);
            }
        }
        Ok(schemes)
    }

    /// An account that nobody else changes until the transaction ends.
    async fn locked(
        &self,
        transaction: &mut Transaction<'static, Any>,
        name: &str,
    ) -> Result<Option<Account>, StoreError> {
        if self.dialect == super::Dialect::Postgres {
            sqlx::query("SELECT id FROM accounts WHERE name = $1 FOR UPDATE")
                .bind(name)
                .execute(&mut **transaction)
                .await?;
        }
        let row =
            sqlx::query(select!("WHERE name = $1")).bind(name).fetch_optional(&mut **transaction).await?;
        row.as_ref().map(account_of).transpose()
    }
}

/// The account of this id, as a transaction sees it.
pub(super) async fn by_id(
    transaction: &mut Transaction<'static, Any>,
    id: &str,
) -> Result<Option<Account>, StoreError> {
    let row = sqlx::query(select!("WHERE id = $1 AND removed IS NULL"))
        .bind(id)
        .fetch_optional(&mut **transaction)
        .await?;
    row.as_ref().map(account_of).transpose()
}

fn account_of(row: &AnyRow) -> Result<Account, StoreError> {
    let attributes: String = row.try_get("attributes")?;
    let attributes = serde_json::from_str(&attributes)
        .map_err(|error| StoreError::Broken(format!("attributes: {error}")))?;
    Ok(Account {
        id: row.try_get("id")?,
        name: row.try_get::<Option<String>, _>("name")?.unwrap_or_default(),
        password: row.try_get("password")?,
        roles: list_of(row, "roles")?,
        scopes: list_of(row, "scopes")?,
        attributes,
        disabled: row.try_get::<i64, _>("disabled")? != 0,
        generation: row.try_get("generation")?,
        created: row.try_get("created")?,
    })
}
