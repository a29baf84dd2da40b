//! Finds the route that covers a request.
//!
//! # The route that wins
//!
//! The most specific route that covers the request wins. The order of the routes in the file has no effect.
//!
//! 1. **Host.** An exact host wins over a wildcard, and a longer wildcard wins over a shorter one. A route without a
//!    host is tried last. If no route of a host covers the path, the next host is tried.
//! 2. **Path**, segment by segment. A literal wins over `{param}`, and `{param}` wins over `{*rest}`. For the path
//!    `/a/b/c`, `/a/b/{*rest}` wins over `/a/{x}/c`.
//! 3. **Method.** If the most specific host and path do not list the method, the request is rejected with 405 and
//!    `Allow`. It never falls through to a laxer route. Routes with the same host and path but different methods share
//!    one `Allow`.
//!
//! Two routes conflict if they have the same host, the same path (regardless of parameter names) and a common method.
//!
//! A literal covers all its encodings: `/@me` covers `/%40me`, because an upstream that decodes the path sees `/@me`.

pub(crate) mod field;
pub(crate) mod fields;
pub mod head;
pub mod host;
mod known_host;
pub(crate) mod lenient;
pub(crate) mod methods;
pub mod path;
pub(crate) mod pattern;
pub(crate) mod table;
pub(crate) mod upgrade;

pub use fields::Fields;
pub use head::{Head, HeadBounds};
pub use host::HostPattern;
pub(crate) use known_host::KnownHost;
pub use methods::Methods;
pub(crate) use methods::known_methods;
pub use path::Slashes;
pub use pattern::{Params, PathPattern, PatternFault};
pub(crate) use table::Guard;
pub use table::{Conflict, Found, Matcher, RouteTable};
