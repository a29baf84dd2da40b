//! Claims: where they are in a token, and what they hold.

/// Which of the claims that a policy uses: an index into `Trust::claims`, and into `Principal::claims`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClaimId(pub u16);

/// A path to a claim: `tenant`, `realm_access.roles`, `"https://example.com/roles"`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimPath(Box<[Box<str>]>);

/// The value of a claim that a policy uses.
#[derive(Clone, Debug, PartialEq)]
pub enum ClaimValue {
    /// A JSON string.
    Text(Box<str>),
    /// A JSON number.
    Number(serde_json::Number),
    /// A JSON boolean.
    Bool(bool),
    /// A JSON array of such values.
    List(Box<[ClaimValue]>),
    /// An object or null: equal to nothing.
    Other,
}
