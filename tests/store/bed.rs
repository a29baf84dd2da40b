//! Gives each store test an empty store, and helpers for its operations.

use crate::dir::Dir;
use crate::postgres::Postgres;
use portcullis::authenticate::Thumbprint;
use portcullis::authority::password_hash;
use portcullis::store::{
    Account, Added, Mark, NewAccount, PasswordHash, Rotation, RotationRequest, Session, SessionStart, Store,
    StoreError, Successor,
};
use sqlx::any::AnyRow;
use sqlx::{AnyPool, AssertSqlSafe, Row};
use std::future::Future;

/// The time at which the tests begin. Its value does not matter.
pub const NOW: i64 = 1_800_000_000_000;
pub const SECOND: i64 = 1000;
pub const DAY: i64 = 86_400_000;
/// The lifetimes of a session and of its tokens.
pub const SESSION: i64 = 30 * DAY;
pub const TOKEN: i64 = 7 * DAY;
pub const GRACE: i64 = 10 * SECOND;
/// The expiry of access tokens, where a test needs one.
pub const UNTIL: i64 = NOW + 400 * DAY;

/// A store, and its location.
pub struct Bed {
    pub store: Store,
    pub url: String,
    pub dir: Dir,
}

pub fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

/// Runs a test on SQLite and on PostgreSQL.
#[track_caller]
pub fn on_both(test: impl AsyncFn(Bed)) {
    on_file(&test);
    on_server(&test);
}

#[track_caller]
pub fn on_file(test: impl AsyncFn(Bed)) {
    on("sqlite:state/portcullis.db".to_owned(), test);
}

#[track_caller]
pub fn on_server(test: impl AsyncFn(Bed)) {
    // Many servers sort by language, so a query must request byte order if it needs it.
    let english = "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en'";
    on(Postgres::shared().database_with(english), test);
}

#[track_caller]
fn on(url: String, test: impl AsyncFn(Bed)) {
    println!("on {url}");
    run(async {
        let dir = Dir::new();
        let store = Store::open(&url, dir.path()).await.unwrap();
        test(Bed { store, url, dir }).await;
    });
}

impl Bed {
    /// Opens the same store again, as another process would.
    pub async fn another(&self) -> Result<Store, StoreError> {
        Store::open(&self.url, self.dir.path()).await
    }

    /// Executes a statement directly on the database, bypassing the store.
    pub async fn sql(&self, statement: &str) -> Vec<AnyRow> {
        sql(&self.url, &self.dir, statement).await
    }

    /// Returns the number that a statement selects.
    pub async fn number(&self, statement: &str) -> i64 {
        self.sql(statement).await[0].try_get(0).unwrap()
    }

    /// Adds an account with this name, the same id, and one role.
    pub async fn account(&self, name: &str) -> Account {
        assert_eq!(self.store.add(&[new(name)], NOW).await.unwrap(), [Added::Added]);
        self.store.account_by_name(name).await.unwrap().unwrap()
    }

    /// Begins a session with this id. Its first token is `sid/0`.
    pub async fn begin(&self, account: &str, sid: &str, now: i64) -> Vec<Mark> {
        self.begin_keeping(account, sid, now, 100).await
    }

    pub async fn begin_keeping(&self, account: &str, sid: &str, now: i64, keep: u32) -> Vec<Mark> {
        match try_begin(&self.store, &session(account, sid, now), keep, now).await {
            SessionStart::Started(marks) => marks,
            refused => panic!("{refused:?}"),
        }
    }

    /// Presents a token. The number of its successor is one higher.
    pub async fn rotate(&self, token: &str, now: i64) -> What {
        rotate(&self.store, token, now, Window::default()).await
    }

    pub async fn rotate_in(&self, token: &str, now: i64, window: Window) -> What {
        rotate(&self.store, token, now, window).await
    }

    /// Presents a token with a proof by this key.
    pub async fn rotate_by(&self, key: Option<Thumbprint>, token: &str, now: i64) -> What {
        rotate_by(&self.store, key, token, now, Window::default()).await
    }

    /// Begins a session whose tokens are bound to this key.
    pub async fn begin_bound(&self, account: &str, sid: &str, key: Option<Thumbprint>, now: i64) {
        let session = Session { key, ..session(account, sid, now) };
        assert!(matches!(try_begin(&self.store, &session, 100, now).await, SessionStart::Started(_)));
    }

    /// Returns all marks.
    pub async fn marks(&self) -> Vec<Mark> {
        self.store.marks(0).await.unwrap().into_iter().map(|marked| marked.mark).collect()
    }

    /// Returns the reason with which a session ended.
    pub async fn ended(&self, first_token: &str) -> Option<String> {
        self.store.session_of_token(&hash(first_token)).await.unwrap().unwrap().ended
    }
}

/// Connects to the database of a bed directly, without the store.
pub async fn pool(bed: &Bed) -> AnyPool {
    connect(&bed.url, &bed.dir).await
}

async fn connect(url: &str, dir: &Dir) -> AnyPool {
    sqlx::any::install_default_drivers();
    let url = match url.strip_prefix("sqlite:") {
        Some(path) => format!("sqlite:{}", dir.path().join(path).display()),
        None => url.to_owned(),
    };
    AnyPool::connect(&url).await.unwrap()
}

pub async fn sql(url: &str, dir: &Dir, statement: &str) -> Vec<AnyRow> {
    let pool = connect(url, dir).await;
    let rows = sqlx::query(AssertSqlSafe(statement.to_owned())).fetch_all(&pool).await.unwrap();
    pool.close().await;
    rows
}

/// Returns a password hash as a command would store it.
pub fn password(encoded: &str) -> PasswordHash {
    password_hash(encoded.to_owned())
}

pub fn new(name: &str) -> NewAccount {
    NewAccount {
        id: name.to_owned(),
        name: name.to_owned(),
        roles: vec!["clerk".to_owned()],
        ..NewAccount::default()
    }
}

pub fn session(account: &str, sid: &str, now: i64) -> Session {
    Session {
        id: sid.to_owned(),
        account: account.to_owned(),
        created: now,
        used: now,
        expires: now + SESSION,
        authenticated: now,
        address: "192.0.2.1".to_owned(),
        agent: "a browser".to_owned(),
        csrf: None,
        key: None,
        ended: None,
    }
}

pub async fn try_begin(store: &Store, session: &Session, keep: u32, now: i64) -> SessionStart {
    let token = hash(&format!("{}/0", session.id));
    {
        let generation =
            store.account(&session.account).await.unwrap().map_or(0, |account| account.generation);
        store.begin_session(session, generation, (&token, now + TOKEN), keep, now)
    }
    .await
    .unwrap()
}

/// Returns the hash of a token: its padded name, because the tests need no real hash function.
pub fn hash(token: &str) -> [u8; 32] {
    let mut hash = [b'.'; 32];
    hash[..token.len()].copy_from_slice(token.as_bytes());
    hash
}

/// The conditions under which a spent token gets its successor again.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub grace: i64,
    pub boot: i64,
    pub alive_before_boot: i64,
}

impl Default for Window {
    /// Returns the conditions in a process that has run for a long time.
    fn default() -> Self {
        Self { grace: GRACE, boot: NOW - DAY, alive_before_boot: NOW - DAY }
    }
}

/// The result of a rotation, reduced to what the tests compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The nonce, and the expiry of the successor.
    Rotated([u8; 32], i64),
    Repeated([u8; 32], i64),
    Reused,
    Unproven,
    Expired,
    Ended,
    Disabled,
    Unknown,
}

impl What {
    pub fn is_rotated(&self) -> bool {
        matches!(self, Self::Rotated(..))
    }

    pub fn is_repeated(&self) -> bool {
        matches!(self, Self::Repeated(..))
    }
}

/// Returns the token after this one, for any nonce.
pub fn successor(token: &str) -> String {
    let (sid, number) = token.split_once('/').unwrap();
    format!("{sid}/{}", number.parse::<u32>().unwrap() + 1)
}

pub async fn rotate(store: &Store, token: &str, now: i64, window: Window) -> What {
    rotate_by(store, None, token, now, window).await
}

pub async fn rotate_by(
    store: &Store,
    key: Option<Thumbprint>,
    token: &str,
    now: i64,
    window: Window,
) -> What {
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let mut nonce = [7; 32];
    nonce[..8].copy_from_slice(&COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_be_bytes());
    let next = hash(&successor(token));
    let spend = RotationRequest {
        token: &hash(token),
        key,
        nonce,
        successor: &|_| next,
        now,
        expires: now + TOKEN,
        grace: window.grace,
        outage_over: window.boot,
        alive_before_outage: window.alive_before_boot,
    };
    let short = |renewed: Box<Successor>| {
        let Successor { session, account, nonce, expires } = *renewed;
        assert_eq!(session.account, account.id);
        (nonce, expires)
    };
    match store.rotate(&spend).await.unwrap() {
        Rotation::Rotated(renewed) => {
            assert_eq!(renewed.session.used, now);
            let (used, expires) = short(renewed);
            assert_eq!(used, nonce);
            What::Rotated(used, expires)
        }
        Rotation::Repeated(renewed) => {
            let (nonce, expires) = short(renewed);
            What::Repeated(nonce, expires)
        }
        Rotation::Reused { session, account } => {
            assert!(!session.is_empty() && !account.is_empty());
            What::Reused
        }
        Rotation::Unproven => What::Unproven,
        Rotation::Expired => What::Expired,
        Rotation::Ended => What::Ended,
        Rotation::Disabled => What::Disabled,
        Rotation::Unknown => What::Unknown,
    }
}
