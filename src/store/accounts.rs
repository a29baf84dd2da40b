//! Creates, reads, changes and removes accounts. An id is never reused: a removed account leaves its id behind, so that
//! no other account inherits the data that services keep under it.

use super::account::{Account, AccountChange, Added, NewAccount, PasswordHash, Written, account_of};
use super::sessions::end_all;
use super::text::{NAME_MAX, PASSWORD_MAX, fit, is_text};
use super::{Store, StoreError, Writing, for_update};
use crate::authenticate::Mark;
use sqlx::Row;

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
    /// Creates accounts in one transaction. An account whose name or id is taken does not stop the others.
    ///
    /// # Errors
    /// When the store cannot be used, or one of the accounts is too large to store. Then no account is created.
    pub async fn add(&self, accounts: &[NewAccount], now: i64) -> Result<Vec<Added>, StoreError> {
        let mut transaction = self.begin().await?;
        let mut outcomes = Vec::with_capacity(accounts.len());
        for account in accounts {
            outcomes.push(insert(&mut transaction, account, now).await?);
        }
        transaction.commit().await?;
        Ok(outcomes)
    }

    /// Returns the account with this id, unless it was removed.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn account(&self, id: &str) -> Result<Option<Account>, StoreError> {
        if !is_text(id) {
            return Ok(None);
        }
        let row = self.row(self.query(select!("WHERE id = $1 AND removed IS NULL")).bind(id)).await?;
        row.as_ref().map(account_of).transpose()
    }

    /// Returns the account with this name.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn account_by_name(&self, name: &str) -> Result<Option<Account>, StoreError> {
        if !is_text(name) {
            return Ok(None);
        }
        let row = self.row(self.query(select!("WHERE name = $1")).bind(name)).await?;
        row.as_ref().map(account_of).transpose()
    }

    /// Returns the accounts whose names come after `after_name` in byte order, `limit` at most.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn accounts(&self, after_name: &str, limit: u32) -> Result<Vec<Account>, StoreError> {
        let statement = self.query(select!("WHERE name > $1 ORDER BY name LIMIT $2"));
        let rows = self.rows(statement.bind(after_name).bind(i64::from(limit))).await?;
        rows.iter().map(account_of).collect()
    }

    /// Changes the account with this name. New roles, scopes or attributes, a new password, disabling and
    /// `end_sessions` end its tokens: its generation is incremented and a mark is written. A new password, disabling
    /// and `end_sessions` also end its sessions.
    ///
    /// # Errors
    /// When the store cannot be used, or the change is too large to store. Then nothing is changed.
    pub async fn change(
        &self,
        name: &str,
        change: &AccountChange,
        now: i64,
    ) -> Result<Option<(Account, Vec<Mark>)>, StoreError> {
        let mut transaction = self.begin().await?;
        let Some(before) = self.lock_by_name(&mut transaction, name).await? else {
            transaction.undo().await;
            return Ok(None);
        };
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
        let claims =
            |account: &Account| (account.roles.clone(), account.scopes.clone(), account.attributes.clone());
        let mut marks = Vec::new();
        if why_ended.is_some() || claims(&account) != claims(&before) {
            account.generation += 1;
            marks.push(Mark::Account { id: account.id.clone(), generation: account.generation });
        }
        if let Some(hash) = &password {
            fit(&format!("{name}: password hash"), &hash.encoded, PASSWORD_MAX)?;
            account.password.clone_from(&hash.encoded);
        }
        let written = Written::of(name, &account.roles, &account.scopes, &account.attributes)?;
        transaction.query(
            "UPDATE accounts SET password = $1, scheme = COALESCE($2, scheme), roles = $3, scopes = $4, attributes = $5, disabled = $6,
             generation = $7 WHERE id = $8",
        )
        .bind(&account.password)
        .bind(password.map(|hash| hash.scheme))
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
        self.commit_marked(transaction, &marks, now).await?;
        Ok(Some((account, marks)))
    }

    /// Removes the account with this name and the data about its owner. Its id is never reused.
    ///
    /// # Errors
    /// When the store cannot be used. Then the account still exists.
    pub async fn remove(&self, name: &str, now: i64) -> Result<Option<(Account, Vec<Mark>)>, StoreError> {
        let mut transaction = self.begin().await?;
        let Some(mut account) = self.lock_by_name(&mut transaction, name).await? else {
            transaction.undo().await;
            return Ok(None);
        };
        account.generation += 1;
        transaction
            .query(
                "UPDATE accounts SET name = NULL, password = '', scheme = '', roles = '[]', scopes = '[]',
             attributes = '{}', disabled = 1, generation = $1, removed = $2 WHERE id = $3",
            )
            .bind(account.generation)
            .bind(now)
            .bind(&account.id)
            .execute(&mut *transaction)
            .await?;
        end_all(&mut transaction, &account.id, "removed", now).await?;
        transaction
            .query("DELETE FROM addresses WHERE account = $1")
            .bind(&account.id)
            .execute(&mut *transaction)
            .await?;
        let marks = vec![Mark::Account { id: account.id.clone(), generation: account.generation }];
        self.commit_marked(transaction, &marks, now).await?;
        Ok(Some((account, marks)))
    }

    /// Replaces the hash `old` with another hash of the same password, if the account still has `old`. Returns whether
    /// it did. Tokens stay valid.
    ///
    /// # Errors
    /// When the store cannot be used, or the hash is too long to store.
    pub async fn upgrade_password(
        &self,
        id: &str,
        old: &str,
        new: &PasswordHash,
    ) -> Result<bool, StoreError> {
        fit("password hash", &new.encoded, PASSWORD_MAX)?;
        let mut transaction = self.begin().await?;
        let statement = transaction.query(
            "UPDATE accounts SET password = $1, scheme = $2 WHERE id = $3 AND password = $4 AND removed IS NULL",
        );
        let statement = statement.bind(&new.encoded).bind(&new.scheme).bind(id).bind(old);
        let done = statement.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Returns how the passwords of all accounts are hashed: each kind and cost once, as in [`PasswordHash::scheme`].
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn schemes(&self) -> Result<Vec<String>, StoreError> {
        // Steps from one scheme to the next by the index rather than scanning all accounts: a few schemes are spread
        // over millions of accounts.
        let statement = self.query(
            "WITH RECURSIVE known (scheme) AS (
                 SELECT MIN(scheme) FROM accounts WHERE scheme > ''
                 UNION ALL
                 SELECT (SELECT MIN(a.scheme) FROM accounts a WHERE a.scheme > known.scheme)
                 FROM known WHERE known.scheme IS NOT NULL
             )
             SELECT scheme FROM known WHERE scheme IS NOT NULL",
        );
        let rows = self.rows(statement).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Returns the account with this name, locked against changes until the transaction ends.
    async fn lock_by_name(
        &self,
        transaction: &mut Writing,
        name: &str,
    ) -> Result<Option<Account>, StoreError> {
        if !is_text(name) {
            return Ok(None);
        }
        let row = transaction
            .query(for_update!(self.dialect, select!("WHERE name = $1")))
            .bind(name)
            .fetch_optional(&mut **transaction)
            .await?;
        row.as_ref().map(account_of).transpose()
    }

    /// Returns the account with this id, locked against changes until the transaction ends.
    pub(super) async fn lock_by_id(
        &self,
        transaction: &mut Writing,
        id: &str,
    ) -> Result<Option<Account>, StoreError> {
        let row = transaction
            .query(for_update!(self.dialect, select!("WHERE id = $1 AND removed IS NULL")))
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
    fit(&format!("{name}: password hash"), &password.encoded, PASSWORD_MAX)?;
    let written = Written::of(name, roles, scopes, attributes)?;
    let made = transaction.query(
        "INSERT INTO accounts (id, name, password, scheme, roles, scopes, attributes, disabled, generation, created)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9) ON CONFLICT DO NOTHING",
    )
    .bind(id)
    .bind(name)
    .bind(&password.encoded)
    .bind(&password.scheme)
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
    let holder = transaction
        .query("SELECT name, removed FROM accounts WHERE id = $1")
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

/// Returns the account with this id, as seen by the transaction, without locking it.
pub(super) async fn by_id(transaction: &mut Writing, id: &str) -> Result<Option<Account>, StoreError> {
    let row = transaction
        .query(select!("WHERE id = $1 AND removed IS NULL"))
        .bind(id)
        .fetch_optional(&mut **transaction)
        .await?;
    row.as_ref().map(account_of).transpose()
}
