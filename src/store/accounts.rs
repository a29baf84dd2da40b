//! Creates, reads, changes and removes accounts. The id of a removed account stays in the store and is never reused, so
//! that no other account inherits the data that services keep under that id.

use super::account::{Account, AccountChange, Added, NewAccount, PasswordHash, Written, account_of};
use super::sessions::end_all;
use super::text::{NAME_MAX, PASSWORD_MAX, fit, is_text};
use super::{Store, StoreError, Writing, for_update};
use crate::authenticate::Mark;
use sqlx::Row;

/// Returns a statement that reads accounts.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, password, roles, scopes, attributes, disabled, generation, created FROM accounts ",
            $rest
        )
    };
}

impl Store {
    /// Creates accounts in one transaction. If the name or id of an account is taken, the other accounts are still
    /// created. Returns the outcome for each account.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used, or one of the accounts is too large to store. In this case, no
    /// account is created.
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
    /// Returns an error if the store cannot be used.
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
    /// Returns an error if the store cannot be used.
    pub async fn account_by_name(&self, name: &str) -> Result<Option<Account>, StoreError> {
        if !is_text(name) {
            return Ok(None);
        }
        let row = self.row(self.query(select!("WHERE name = $1")).bind(name)).await?;
        row.as_ref().map(account_of).transpose()
    }

    /// Returns at most `limit` accounts, beginning with the first name after `after_name` in byte order.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used.
    pub async fn accounts(&self, after_name: &str, limit: u32) -> Result<Vec<Account>, StoreError> {
        let statement = self.query(select!("WHERE name > $1 ORDER BY name LIMIT $2"));
        let rows = self.rows(statement.bind(after_name).bind(i64::from(limit))).await?;
        rows.iter().map(account_of).collect()
    }

    /// Changes the account with this name. A change of the roles, scopes, attributes or password, the disabling of the
    /// account, and `end_sessions` revoke the account's access tokens: they increment the generation and write a mark.
    /// A new password, the disabling and `end_sessions` also end the account's sessions. Returns the changed account
    /// and the marks, or `None` if there is no such account.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used, or the change is too large to store. The account is then
    /// unchanged.
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

    /// Removes the account with this name and the data about its owner. The id of the account is never reused.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used. The account then still exists.
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

    /// Replaces the hash `old` with another hash of the same password, if `old` is still the account's hash. Returns
    /// whether the hash was replaced. Tokens stay valid.
    ///
    /// # Errors
    /// Returns an error if the store cannot be used, or the hash is too long to store.
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

    /// Returns the schemes of all accounts' password hashes, each of them once, as in [`PasswordHash::scheme`].
    ///
    /// # Errors
    /// Returns an error if the store cannot be used.
    pub async fn schemes(&self) -> Result<Vec<String>, StoreError> {
        // The query steps through the index from one scheme to the next instead of scanning all accounts, because
        // millions of accounts have only a few schemes.
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

/// Returns the account with this id, without locking it, in the state that the transaction sees.
pub(super) async fn by_id(transaction: &mut Writing, id: &str) -> Result<Option<Account>, StoreError> {
    let row = transaction
        .query(select!("WHERE id = $1 AND removed IS NULL"))
        .bind(id)
        .fetch_optional(&mut **transaction)
        .await?;
    row.as_ref().map(account_of).transpose()
}
