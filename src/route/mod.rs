//! Which route covers a request: one canonical reading of it, and a table to find that in.

pub mod head;
pub mod path;
pub mod pattern;
pub mod table;

pub use head::Head;
pub use pattern::{HostPattern, Methods, Params, PathPattern};
pub use table::{Matcher, RouteTable};
