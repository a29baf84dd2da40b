//! Revocation is final: no sequence of events makes a revoked token valid again.
//!
//! Two gateways with different settings and clocks share a store. The tests use the real authority and the real gate at
//! simulated times.

use crate::bed::{NOW, new, run, session};
use crate::dir::Dir;
use crate::postgres::Postgres;
use http::{HeaderMap, Method, header};
use portcullis::authenticate::{Place, claims_of, digest_of, examine, revocable};
use portcullis::authority::{
    AccessClaims, Authority, Endpoint, EndpointRequest, Fields, Holder, apply_marks, mint, record_long_token,
};
use portcullis::clock::Now;
use portcullis::denial::Denial;
use portcullis::journal::{Journal, Level, Style};
use portcullis::keyring::MissingKey;
use portcullis::peer::Scheme;
use portcullis::policy::Policy;
use portcullis::review;
use portcullis::store::{AccountChange, SessionStart, Store};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::time::Duration;

const HOUR: i64 = 3600;
const ACCOUNTS: [&str; 2] = ["ada", "bob"];
const SECRET: &str = "q7Zr1vT0pXw5sLk9dNf3hBm8cYj2gRe6";
const CLIENT: &str = "c4Jw8mQz1kVx7tRb5nHs0pLd3yGf9eUa";

#[derive(Clone, Debug)]
enum Step {
    /// A session begins.
    Begin {
        account: usize,
    },
    /// A gateway refreshes with the newest refresh token of a session.
    Refresh {
        gateway: usize,
        session: usize,
    },
    /// A gateway issues a service's own token.
    Service {
        gateway: usize,
    },
    /// `token mint` for an account.
    Mint {
        gateway: usize,
        account: usize,
        life: u64,
    },
    /// A logout with a refresh token.
    Logout {
        gateway: usize,
        session: usize,
    },
    /// A logout of all sessions with an access token.
    LogoutAll {
        gateway: usize,
        token: usize,
    },
    /// A revocation of an access token (RFC 7009).
    Revoke {
        gateway: usize,
        token: usize,
    },
    /// `user set-roles`, or `disable` followed by `enable`, with the clock of a gateway's machine.
    Roles {
        gateway: usize,
        account: usize,
    },
    Disable {
        gateway: usize,
        account: usize,
    },
    /// The policy is reloaded with another `access_expires`.
    Reload {
        gateway: usize,
        life: u64,
    },
    /// A gateway restarts with another `access_expires`.
    Restart {
        gateway: usize,
        life: u64,
    },
    /// A gateway's clock is set to be `off` seconds ahead.
    Clock {
        gateway: usize,
        off: i64,
    },
    /// A gateway deletes expired rows.
    Sweep {
        gateway: usize,
    },
    /// This many seconds pass.
    Pass(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let life = || prop_oneof![Just(10_u64), Just(600), Just(7200), Just(300_000)];
    let long = prop_oneof![Just(60_u64), Just(36_000), Just(400_000)];
    let step = prop_oneof![
        2 => (0..2_usize).prop_map(|account| Step::Begin { account }),
        6 => (0..2_usize, any::<usize>()).prop_map(|(gateway, session)| Step::Refresh { gateway, session }),
        1 => (0..2_usize).prop_map(|gateway| Step::Service { gateway }),
        2 => (0..2_usize, 0..2_usize, long)
            .prop_map(|(gateway, account, life)| Step::Mint { gateway, account, life }),
        2 => (0..2_usize, any::<usize>()).prop_map(|(gateway, session)| Step::Logout { gateway, session }),
        1 => (0..2_usize, any::<usize>()).prop_map(|(gateway, token)| Step::LogoutAll { gateway, token }),
        2 => (0..2_usize, any::<usize>()).prop_map(|(gateway, token)| Step::Revoke { gateway, token }),
        1 => (0..2_usize, 0..2_usize).prop_map(|(gateway, account)| Step::Roles { gateway, account }),
        1 => (0..2_usize, 0..2_usize).prop_map(|(gateway, account)| Step::Disable { gateway, account }),
        2 => (0..2_usize, life()).prop_map(|(gateway, life)| Step::Reload { gateway, life }),
        1 => (0..2_usize, life()).prop_map(|(gateway, life)| Step::Restart { gateway, life }),
        3 => (0..2_usize, -2 * HOUR..=2 * HOUR).prop_map(|(gateway, off)| Step::Clock { gateway, off }),
        4 => (0..2_usize).prop_map(|gateway| Step::Sweep { gateway }),
        3 => (0..400_i64).prop_map(Step::Pass),
        2 => prop_oneof![Just(HOUR), Just(3 * HOUR), Just(25 * HOUR), Just(100 * HOUR)].prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 5..40)
}

/// Returns the steps after each sequence. After each pause, both gateways sweep with clocks that are hours ahead, and
/// then get requests with clocks that are hours behind. After one pause, a gateway restarts.
fn aftermath() -> Vec<Step> {
    let strides = [30, 60, 300, HOUR, 2 * HOUR, 20 * HOUR, 4 * HOUR, 24 * HOUR, 60 * HOUR, 30 * HOUR];
    let after = |stride| {
        let of_each = |gateway| {
            [
                Step::Clock { gateway, off: 2 * HOUR },
                Step::Sweep { gateway },
                Step::Clock { gateway, off: -2 * HOUR },
            ]
        };
        let steps = [Step::Pass(stride)].into_iter().chain(of_each(0)).chain(of_each(1));
        steps.chain((stride == 24 * HOUR).then_some(Step::Restart { gateway: 0, life: 10 }))
    };
    strides.into_iter().flat_map(after).collect()
}

/// A gateway with its policy. `off` is how far its clock is ahead, in seconds.
struct Gateway {
    policy: Policy,
    off: i64,
}

impl Gateway {
    fn start(dir: &Dir, url: &str, name: usize, life: u64) -> Self {
        let mut policy = read(dir, url, name, life, None);
        let journal = Journal::start(Style::Json, Level::Error, Box::new(std::io::sink())).unwrap();
        policy.authority =
            Some(Authority::start(policy.issuer_settings.as_ref().unwrap(), 1, journal).unwrap());
        Self { policy, off: 0 }
    }

    /// Reloads the policy as the gateway does.
    fn reload(&mut self, dir: &Dir, url: &str, name: usize, life: u64) {
        let mut policy = read(dir, url, name, life, Some(&self.policy));
        policy.authority = self.policy.authority.clone();
        policy.authority.as_ref().unwrap().follow(policy.issuer_settings.clone().unwrap());
        self.policy = policy;
    }

    fn accepts(&self, token: &str, now: Now) -> Result<(), Denial> {
        examine(token.as_bytes(), &self.policy.trust, now).map(drop).map_err(|refused| refused.denial)
    }

    async fn ask(
        &self,
        endpoint: Endpoint,
        fields: &[(&str, &str)],
        shown: Shown<'_>,
        now: Now,
    ) -> Result<Value, Denial> {
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "application/x-www-form-urlencoded".parse().unwrap());
        let fields = Fields::read(&headers, fields.join("&").as_bytes())?;
        let principal = |token: &str| {
            examine(token.as_bytes(), &self.policy.trust, now).map_err(|refused| refused.denial)
        };
        let (caller, examined) = match shown {
            Shown::Nothing => (None, None),
            Shown::Bearer(token) => (Some(Holder::of(&principal(token)?, Place::Header)), None),
            Shown::About(token) => (None, revocable(token.as_bytes(), &self.policy.trust)),
        };
        let ask = EndpointRequest {
            endpoint,
            request_id: "of-this-test".to_owned(),
            settings: self.policy.issuer_settings.clone().unwrap(),
            method: Method::POST,
            address: [192, 0, 2, 1].into(),
            scheme: Scheme::Https,
            authority: "localhost".to_owned(),
            headers,
            query: None,
            id: None,
            fields,
            own_site: true,
            caller,
            proof: None,
            inspected: examined,
            now,
        };
        let answer = self.policy.authority.as_ref().unwrap().answer(ask).await?;
        if !answer.status().is_success() {
            return Err(Denial::UnauthorizedClient);
        }
        Ok(serde_json::from_slice(answer.body()).unwrap_or_default())
    }
}

/// The token of a request, and the place where the request presents it.
enum Shown<'a> {
    Nothing,
    Bearer(&'a str),
    About(&'a str),
}

fn read(dir: &Dir, url: &str, name: usize, life: u64, before: Option<&Policy>) -> Policy {
    let file = format!("gateway{name}.toml");
    let text = format!(
        "[authority]\nissuer = \"https://id.example.com\"\naudience = [\"a\"]\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\n\
         store = \"{url}\"\naccess_expires = \"{life}s\"\nrefresh_expires = \"90d\"\nsession_expires = \"90d\"\n\
         [authority.client.service]\nsecret = \"{CLIENT}\"\naudience = [\"elsewhere\"]\n\
         [upstream.echo]\nbuiltin = \"echo\"\n[[route]]\npath = \"/x\"\nupstream = \"echo\"\n"
    );
    dir.write(&file, text);
    review::read(&dir.path().join(file), MissingKey::Ephemeral, before).expect("a good policy").policy
}

/// An access token, and its origin.
struct Token {
    text: String,
    account: Option<usize>,
    session: Option<usize>,
    generation: i64,
    revoked: bool,
}

impl Token {
    fn of(text: &str, account: Option<usize>, session: Option<usize>) -> Self {
        let generation = claims_of(text).unwrap().get("gen").and_then(Value::as_i64).unwrap_or(0);
        Self { text: text.to_owned(), account, session, generation, revoked: false }
    }
}

struct World {
    dir: Dir,
    url: String,
    store: Store,
    gateways: [Gateway; 2],
    /// The seconds that have passed.
    passed: i64,
    /// Each session's account and newest refresh token.
    sessions: Vec<(usize, String)>,
    tokens: Vec<Token>,
}

impl World {
    async fn begin(url: Option<String>) -> Self {
        let dir = Dir::new();
        let url = url.unwrap_or_else(|| format!("sqlite:{}", dir.path().join("portcullis.db").display()));
        let store = Store::open(&url, dir.path()).await.unwrap();
        store.add(&ACCOUNTS.map(new), NOW).await.unwrap();
        let gateways = [Gateway::start(&dir, &url, 0, 600), Gateway::start(&dir, &url, 1, 10)];
        Self { dir, url, store, gateways, passed: 0, sessions: Vec::new(), tokens: Vec::new() }
    }

    fn now(&self, gateway: usize) -> Now {
        let unix = NOW / 1000 + 1000 * HOUR + self.passed + self.gateways[gateway].off;
        Now::at(unix.try_into().unwrap())
    }

    fn millis(&self, gateway: usize) -> i64 {
        i64::try_from(self.now(gateway).unix).unwrap() * 1000
    }

    /// Records tokens as revoked, and makes both gateways read the marks.
    async fn revoked(&mut self, is: impl Fn(&Token) -> bool) {
        self.tokens.iter_mut().filter(|token| is(token)).for_each(|token| token.revoked = true);
        for gateway in &self.gateways {
            apply_marks(&mut self.store.feed(), gateway.policy.trust.revoked(), 0).await.unwrap();
        }
    }

    async fn take(&mut self, step: &Step) {
        match *step {
            Step::Begin { account } => {
                // Begins a session like a login, but without a password.
                let token = format!("pcr_{:0>43}", self.sessions.len());
                let now = self.millis(0);
                let session = session(ACCOUNTS[account], &format!("s{}", self.sessions.len()), now);
                let generation = self.store.account(ACCOUNTS[account]).await.unwrap().unwrap().generation;
                let first = (&digest_of(token.as_bytes()), now + 1_000_000_000);
                let begun = self.store.begin_session(&session, generation, first, 100, now).await.unwrap();
                assert!(matches!(begun, SessionStart::Started(_) | SessionStart::AccountDisabled));
                self.sessions.push((account, token));
            }
            Step::Refresh { gateway, session } => {
                let Some(at) = session.checked_rem(self.sessions.len()) else { return };
                let (account, token) = self.sessions[at].clone();
                let now = self.now(gateway);
                let fields = [("refresh_token", &*token)];
                let Ok(pair) =
                    self.gateways[gateway].ask(Endpoint::Refresh, &fields, Shown::Nothing, now).await
                else {
                    return;
                };
                self.sessions[at].1 = pair["refresh_token"].as_str().unwrap().to_owned();
                self.issued(
                    gateway,
                    Token::of(pair["access_token"].as_str().unwrap(), Some(account), Some(at)),
                );
            }
            Step::Service { gateway } => {
                let fields = [
                    ("grant_type", "client_credentials"),
                    ("client_id", "service"),
                    ("client_secret", CLIENT),
                ];
                let now = self.now(gateway);
                let given =
                    self.gateways[gateway].ask(Endpoint::Token, &fields, Shown::Nothing, now).await.unwrap();
                self.issued(gateway, Token::of(given["access_token"].as_str().unwrap(), None, None));
            }
            Step::Mint { gateway, account, life } => {
                let (now, subject, life) = (self.now(gateway), ACCOUNTS[account], Duration::from_secs(life));
                let Ok(generation) = record_long_token(&self.store, subject, life, now).await else { return };
                let claims = AccessClaims {
                    issuer: "https://id.example.com".to_owned(),
                    audience: vec!["a".to_owned()],
                    subject: subject.to_owned(),
                    expires_in: life,
                    generation,
                    extra: Map::new(),
                    ..AccessClaims::default()
                };
                let settings = self.gateways[gateway].policy.issuer_settings.as_ref().unwrap();
                let token = mint(&settings.keyring, claims, now).unwrap();
                self.issued(gateway, Token::of(&token, Some(account), None));
            }
            Step::Logout { gateway, session } => {
                let Some(at) = session.checked_rem(self.sessions.len()) else { return };
                let (now, token) = (self.now(gateway), self.sessions[at].1.clone());
                let fields = [("refresh_token", &*token)];
                self.gateways[gateway].ask(Endpoint::Logout, &fields, Shown::Nothing, now).await.unwrap();
                self.revoked(|token| token.session == Some(at)).await;
            }
            Step::LogoutAll { gateway, token } => {
                let Some(at) = token.checked_rem(self.tokens.len()) else { return };
                let (now, text) = (self.now(gateway), self.tokens[at].text.clone());
                let shown = Shown::Bearer(&text);
                if self.gateways[gateway].ask(Endpoint::LogoutAll, &[], shown, now).await.is_ok() {
                    let account = self.tokens[at].account.unwrap();
                    self.below(account).await;
                }
            }
            Step::Revoke { gateway, token } => {
                let Some(at) = token.checked_rem(self.tokens.len()) else { return };
                let (now, text) = (self.now(gateway), self.tokens[at].text.clone());
                let fields = [("client_id", "service"), ("client_secret", CLIENT), ("token", &*text)];
                let shown = Shown::About(&text);
                if self.gateways[gateway].ask(Endpoint::Revoke, &fields, shown, now).await.is_ok() {
                    self.revoked(|token| token.text == text).await;
                }
            }
            Step::Roles { gateway, account } => {
                let generation = self.store.account(ACCOUNTS[account]).await.unwrap().unwrap().generation;
                let roles = Some(vec![format!("role{generation}")]);
                let change = AccountChange { roles, ..AccountChange::default() };
                self.store.change(ACCOUNTS[account], &change, self.millis(gateway)).await.unwrap();
                self.below(account).await;
            }
            Step::Disable { gateway, account } => {
                for disabled in [true, false] {
                    let change = AccountChange { disabled: Some(disabled), ..AccountChange::default() };
                    self.store.change(ACCOUNTS[account], &change, self.millis(gateway)).await.unwrap();
                }
                self.below(account).await;
            }
            Step::Reload { gateway, life } => {
                self.gateways[gateway].reload(&self.dir, &self.url, gateway, life);
            }
            Step::Restart { gateway, life } => {
                let off = self.gateways[gateway].off;
                self.gateways[gateway] =
                    Gateway { off, ..Gateway::start(&self.dir, &self.url, gateway, life) };
            }
            Step::Clock { gateway, off } => self.gateways[gateway].off = off,
            Step::Sweep { gateway } => {
                self.store.forget(self.millis(gateway)).await.unwrap();
                self.gateways[gateway].policy.trust.revoked().forget(self.now(gateway).unix);
            }
            Step::Pass(seconds) => self.passed += seconds,
        }
    }

    /// Checks that the issuing gateway accepts a new token, because the test would otherwise prove nothing.
    fn issued(&mut self, gateway: usize, token: Token) {
        let accepted = self.gateways[gateway].accepts(&token.text, self.now(gateway));
        assert_eq!(accepted, Ok(()), "it was issued at this moment");
        self.tokens.push(token);
    }

    /// Records all tokens of an account's older generations as revoked.
    async fn below(&mut self, account: usize) {
        let generation = self.store.account(ACCOUNTS[account]).await.unwrap().unwrap().generation;
        self.revoked(|token| token.account == Some(account) && token.generation < generation).await;
    }

    fn holds(&self, step: &Step) -> Result<(), TestCaseError> {
        for (number, token) in self.tokens.iter().enumerate().filter(|(_, token)| token.revoked) {
            for (place, gateway) in self.gateways.iter().enumerate() {
                let accepted = gateway.accepts(&token.text, self.now(place)).is_ok();
                prop_assert!(!accepted, "token {} is accepted by gateway {} after {:?}", number, place, step);
            }
        }
        Ok(())
    }
}

fn no_revoked_token_is_ever_accepted_again(cases: u32, url: impl Fn() -> Option<String>) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let outcome = TestRunner::new(config).run(&steps(), |steps| {
        run(async {
            let mut world = World::begin(url()).await;
            for step in steps.iter().chain(&aftermath()) {
                world.take(step).await;
                world.holds(step)?;
            }
            Ok(())
        })
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[test]
fn no_revoked_token_is_ever_accepted_again_on_a_file() {
    no_revoked_token_is_ever_accepted_again(40, || None);
}

#[test]
fn no_revoked_token_is_ever_accepted_again_on_a_server() {
    no_revoked_token_is_ever_accepted_again(12, || Some(Postgres::shared().database()));
}

#[test]
fn the_story_of_a_shorter_life_and_a_longer_token() {
    // (a) a reload with a shorter lifetime, (b) tokens of a command, (c) a gateway with a longer lifetime.
    for url in [None, Some(Postgres::shared().database())] {
        run(async {
            let mut world = World::begin(url).await;
            world.take(&Step::Reload { gateway: 0, life: 300_000 }).await;
            let begin = [Step::Begin { account: 0 }, Step::Begin { account: 1 }];
            let issue = [
                Step::Refresh { gateway: 0, session: 0 },
                Step::Refresh { gateway: 0, session: 1 },
                Step::Mint { gateway: 0, account: 0, life: 400_000 },
                Step::Service { gateway: 0 },
            ];
            let revoke = [
                Step::Reload { gateway: 0, life: 10 },
                Step::Revoke { gateway: 0, token: 3 },
                Step::Logout { gateway: 1, session: 1 },
                Step::Disable { gateway: 1, account: 0 },
            ];
            let mut wait = Vec::new();
            for _ in 0..7 {
                wait.extend([
                    Step::Pass(15 * HOUR),
                    Step::Clock { gateway: 1, off: 2 * HOUR },
                    Step::Sweep { gateway: 1 },
                    Step::Clock { gateway: 1, off: -2 * HOUR },
                    Step::Restart { gateway: 0, life: 10 },
                    Step::Sweep { gateway: 0 },
                ]);
            }
            wait.extend([
                Step::Pass(100 * HOUR),
                Step::Sweep { gateway: 0 },
                Step::Restart { gateway: 0, life: 10 },
            ]);
            for step in begin.iter().chain(&issue).chain(&revoke).chain(&wait) {
                world.take(step).await;
                world.holds(step).unwrap();
            }
            let revoked: HashMap<_, _> =
                world.tokens.iter().map(|token| (token.session.is_some(), token.revoked)).collect();
            assert_eq!((world.tokens.len(), revoked.values().all(|revoked| *revoked)), (4, true));
        });
    }
}
