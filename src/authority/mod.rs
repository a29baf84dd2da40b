//! The local issuer: it turns proven credentials into signed tokens, keeps sessions, and revokes.
//!
//! Its tokens are verified like those of any other issuer; request handling knows only its keys and its revocations.
//! Slow work (the store, and signatures) runs on a thread of its own, and passwords are hashed on threads of the lowest
//! priority. A core only waits for the response, and serves other requests in the meantime.
//!
//! A request of an endpoint meets the files in this order: `endpoint` (which, and what it asks), `ask` (the request,
//! read), `login`, `refresh`, `session`, `service` (what is done), `page` (for whom a browser speaks), `grant` and
//! `cookie` (what is given).

mod cookie;
mod counters;
mod dispatch;
mod endpoint;
mod feed;
mod fields;
mod grant;
mod health;
mod login;
mod minted;
mod page;
mod password;
mod queue;
mod refresh;
mod request;
mod response;
mod runtime;
mod service;
mod session;
mod settings;
mod start;
mod sweeps;
mod throttle;
mod token;
mod username;

pub use cookie::{expire_access_cookie, expire_session_cookies};
pub use counters::{ByOutcome, Counters, Outcome};
pub use dispatch::refused;
pub use endpoint::{Endpoint, EndpointSpec};
pub use feed::apply_marks;
pub use fields::{BODY_MAX, BodyKind, Fields};
pub use health::StoreHealth;
pub use minted::record_long_token;
pub use page::{NEXT_MAX, PROMPT, PROMPT_LOGIN, encoded};
pub use password::{
    Busy, HashFault, Hashers, PasswordCheck, check_hash, hash_password, password_hash, scheme,
};
pub use queue::Queue;
pub use request::{EndpointRequest, Holder, InspectedToken};
pub use response::Refused;
pub use runtime::Authority;
pub use service::document;
pub use settings::{Client, ClientSecret, Compat, Cookies, IssuerSettings, StoreLocation};
pub use throttle::Throttle;
pub use token::{AccessClaims, RESERVED_CLAIMS, mint, sign};
pub use username::{
    NAME_BYTES_MAX, NameFault, PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN, PasswordFault, UserName,
    prepare_new_password, prepare_password,
};
