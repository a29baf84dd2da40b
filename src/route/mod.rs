//! Finds the route that covers a request, using one canonical reading of its host, path and method.
//!
//! # What wins
//!
//! Candidates are the routes whose host and path cover the request. The most specific wins, regardless of the order
//! of the routes in the file:
//!
//! 1. **Host first.** An exact host before a wildcard, a longer wildcard before a shorter one, a route without
//!    host last. When no path of the more specific host covers the request, the next host is tried: a route
//!    without host covers any host.
//! 2. **Then the path, segment by segment**: a literal before `{param}`, `{param}` before `{*rest}`. `/a/{x}/c`
//!    wins over `/a/b/{*rest}` only where the latter does not cover the path.
//! 3. **The method last; it never changes which place wins.** A method that the most specific host and path do not list
//!    is rejected with 405 and `Allow`. The request never falls through to a laxer route. Routes with the same host and
//!    path shape but different methods share one place, and `Allow` is their union.
//!
//! Building the table fails if two routes have the same host and path shape (parameter names aside) and share a
//! method.
//!
//! A literal covers every encoding of itself (`/@me` covers `/%40me`), since an upstream that decodes sees the same
//! path.

pub mod head;
pub mod host;
pub(crate) mod lenient;
pub(crate) mod methods;
pub mod path;
pub(crate) mod pattern;
pub(crate) mod table;
pub(crate) mod upgrade;

pub use head::{Head, HeadBounds};
pub use host::HostPattern;
pub use methods::Methods;
pub(crate) use methods::known_methods;
pub use path::Slashes;
pub use pattern::{Params, PathPattern, PatternFault};
pub(crate) use table::Guard;
pub use table::{Conflict, Found, Matcher, RouteTable};
