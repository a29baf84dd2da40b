//! The route table.

/// What an entry covers.
#[derive(Clone, Debug)]
pub struct Matcher;
/// At most one entry for a head.
#[derive(Debug)]
pub struct RouteTable<T>(Vec<T>);
