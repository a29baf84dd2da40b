//! The local issuer: it checks credentials, issues signed tokens, keeps sessions, and revokes both.
//!
//! The gateway verifies the authority's tokens like the tokens of any other issuer.
//!
//! Store access and signing are slow, so they run on the authority's own thread. Passwords are hashed on threads of the
//! lowest priority. A core serves other requests while a request waits for the authority.
//!
//! A request passes through these modules in order:
//! - `endpoint`: the table of endpoints and their requirements.
//! - `request`: the parsed request.
//! - `login`, `refresh`, `session` or `service`: the work itself.
//! - `page`: responses for browsers.
//! - `grant` and `cookie`: the tokens in the response.

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
mod signals;
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
pub use minted::record_long_token;
pub use page::{NEXT_MAX, Next, PROMPT, PROMPT_LOGIN, encoded};
pub use password::{
    Busy, HashFault, Hashers, PasswordCheck, check_hash, hash_password, password_hash, scheme,
};
pub use queue::Queue;
pub use request::{EndpointRequest, Holder};
pub use response::Refused;
pub use runtime::Authority;
pub use service::{document, is_client_known};
pub use settings::{Client, ClientSecret, Compat, Cookies, IssuerSettings, StoreLocation};
pub(crate) use sweeps::Sweeps;
pub use throttle::Throttle;
pub use token::{AccessClaims, RESERVED_CLAIMS, mint, sign};
pub use username::{
    NAME_BYTES_MAX, NameFault, PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN, PasswordFault, UserName,
    prepare_new_password, prepare_password,
};
