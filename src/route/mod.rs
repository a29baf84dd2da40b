//! Finds the route that covers a request, using one canonical reading of its host, path and method.
//!
//! # What wins
//!
//! Candidates are the routes whose host and path cover the request. The most specific wins, regardless of the order
//! of the routes in the file:
//!
//! 1. **The host comes first.** An exact host wins over a wildcard, a longer wildcard wins over a shorter one, and a
//!    route without host is the last. If no path of the more specific host covers the request, the next host is
//!    tried.
//! 2. **The path is next, segment by segment**: a literal wins over `{param}`, and `{param}` wins over `{*rest}`.
//!    `/a/{x}/c` wins over `/a/b/{*rest}` only if the latter does not cover the path.
//! 3. **The method is last, and never changes which place wins.** A method that the most specific host and path do
//!    not list is rejected with 405 and `Allow`. The request never falls through to a laxer route. Routes with the
//!    same host and path shape but different methods share one place, and `Allow` is the union of their methods.
//!
//! Building the table fails if two routes have the same host and path shape (parameter names aside) and share a
//! method.
//!
//! A literal covers every encoding of itself (`/@me` covers `/%40me`), because an upstream that decodes sees the same
//! path.

pub(crate) mod field;
pub(crate) mod fields;
pub mod head;
pub mod host;
pub(crate) mod lenient;
pub(crate) mod methods;
pub mod path;
pub(crate) mod pattern;
pub(crate) mod table;
pub(crate) mod upgrade;

pub use fields::Fields;
pub use head::{Head, HeadBounds};
pub use host::HostPattern;
pub use methods::Methods;
pub(crate) use methods::known_methods;
pub use path::Slashes;
pub use pattern::{Params, PathPattern, PatternFault};
pub(crate) use table::Guard;
pub use table::{Conflict, Found, Matcher, RouteTable};
