//! What outlives the process: accounts, sessions, refresh tokens, revocations.
#![allow(missing_docs, clippy::unused_async)]

use serde_json::{Map, Value};
use std::fmt;
use std::path::Path;

pub use crate::authenticate::Mark;

#[derive(Clone, Debug)]
pub struct Store;

#[derive(Debug)]
pub enum StoreError {
    Unavailable(String),
    Broken(String),
}
impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(why) | Self::Broken(why) => f.write_str(why),
        }
    }
}
#[derive(Clone, Debug)]
pub struct Account {
    pub id: String,
    pub name: String,
    pub password: String,
    pub roles: Vec<String>,
    pub scopes: Vec<String>,
    pub attributes: Map<String, Value>,
    pub disabled: bool,
    pub generation: i64,
    pub created: i64,
}
#[derive(Clone, Debug)]
pub struct Session {
    pub id: String,
    pub account: String,
    pub created: i64,
    pub used: i64,
    pub expires: i64,
    pub authenticated: i64,
    pub address: String,
    pub agent: String,
    pub csrf: Option<[u8; 32]>,
    pub ended: Option<String>,
}
#[derive(Clone, Debug)]
pub struct Marked {
    pub seq: i64,
    pub mark: Mark,
    pub until: i64,
}
pub enum Begun {
    Begun(Vec<Mark>),
    AccountGone,
    AccountDisabled,
}
pub struct Spend<'a> {
    pub token: &'a [u8; 32],
    pub nonce: [u8; 32],
    pub successor: &'a (dyn Fn(&[u8; 32]) -> [u8; 32] + Sync),
    pub csrf: Option<[u8; 32]>,
    pub now: i64,
    pub expires: i64,
    pub grace: i64,
    pub boot: i64,
    pub alive_before_boot: i64,
    pub until: i64,
}
pub enum Rotation {
    Rotated(Box<Renewed>),
    Repeated(Box<Renewed>),
    Reused { session: String, account: String },
    Expired,
    Ended,
    Disabled,
    Unknown,
}
pub struct Renewed {
    pub session: Session,
    pub account: Account,
    pub nonce: [u8; 32],
    pub expires: i64,
}
type R<T> = Result<T, StoreError>;
fn no<T>() -> R<T> {
    Err(StoreError::Unavailable("not there".into()))
}
impl Store {
    pub async fn open(_url: &str, _base: &Path) -> R<Self> {
        Ok(Self)
    }
    pub async fn account_by_name(&self, _name: &str) -> R<Option<Account>> {
        no()
    }
    pub async fn upgrade_password(&self, _id: &str, _old: &str, _new: &str) -> R<bool> {
        no()
    }
    pub async fn schemes(&self) -> R<Vec<String>> {
        no()
    }
    pub async fn begin_session(
        &self,
        _session: &Session,
        _token: &[u8; 32],
        _token_expires: i64,
        _keep: u32,
        _now: i64,
        _until: i64,
    ) -> R<Begun> {
        no()
    }
    pub async fn rotate(&self, _spend: &Spend<'_>) -> R<Rotation> {
        no()
    }
    pub async fn session_of_token(&self, _token: &[u8; 32]) -> R<Option<Session>> {
        no()
    }
    pub async fn sessions(&self, _account: &str, _now: i64) -> R<Vec<Session>> {
        no()
    }
    pub async fn end_session(
        &self,
        _account: Option<&str>,
        _sid: &str,
        _why: &str,
        _now: i64,
        _until: i64,
    ) -> R<bool> {
        no()
    }
    pub async fn end_sessions(&self, _account: &str, _why: &str, _now: i64, _until: i64) -> R<Vec<Mark>> {
        no()
    }
    pub async fn revoke_token(&self, _jti: &str, _now: i64, _until: i64) -> R<()> {
        no()
    }
    pub async fn marks(&self, _after: i64, _now: i64) -> R<Vec<Marked>> {
        Ok(Vec::new())
    }
    pub async fn known_address(&self, _account: &str, _address: &str) -> R<bool> {
        no()
    }
    pub async fn alive_at(&self) -> R<i64> {
        Ok(0)
    }
    pub async fn touch_alive(&self, _now: i64) -> R<()> {
        Ok(())
    }
    pub async fn forget(&self, _now: i64) -> R<()> {
        Ok(())
    }
}
