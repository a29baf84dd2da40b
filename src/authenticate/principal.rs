//! The verified identity of a caller.

use super::Confirmation;
use super::claims::{ClaimId, ClaimValue};
use super::digest::Digest;
use super::identity_fields::IdentityFields;
use super::keys::Key;
use super::mark::Signalled;
use http::{HeaderName, HeaderValue};
use std::cell::{Cell, OnceCell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;
use std::sync::{Arc, LazyLock};

/// The allocator's approximate overhead for one allocation, in bytes.
const ALLOCATION: usize = 16;

/// The size of a line of the processor's cache in bytes, on the architectures that run servers.
const CACHE_LINE: usize = 64;

/// A caller whose token this process verified. A principal contains only the parts of the token that the policy uses.
///
/// The fields that each request reads come first and stay in this order: the principals of many callers do not fit into
/// the processor's cache, and each further line of memory takes longer than the check that reads it.
#[derive(Debug)]
#[repr(C)]
pub struct Principal {
    /// The start of validity in seconds since 1970, less the tolerated difference of clocks.
    pub not_before: u64,
    /// The end of validity (exclusive) in seconds since 1970, with the issuer's leeway added.
    pub expires: u64,
    /// The hash of issuer and subject, computed when it is first needed.
    pub caller_hash: OnceCell<u64>,
    /// The roles at the issuer's `roles` path.
    pub roles: Box<[Box<str>]>,
    /// The scopes at the issuer's `scopes` path.
    pub scopes: Box<[Box<str>]>,
    /// The facts that only tokens of the local authority have.
    pub local: Option<Box<Local>>,
    /// The token's claims that security events can name in order to revoke the token; `None` if the issuer sends no
    /// security events.
    pub signalled: Option<Box<Signalled>>,
    /// Whether the cache returned the principal since its CLOCK hand last passed it.
    pub is_used: Cell<bool>,
    /// Whether the token was issued at the login itself and not by a refresh.
    pub fresh: bool,
    /// The proof that the sender must provide; `None` for a bearer token.
    pub confirmation: Option<Confirmation>,
    /// The identity headers for upstreams, built once.
    pub headers: IdentityFields,
    /// The token's `iss`, or the issuer's name if the token has no `iss`.
    pub issuer: Arc<str>,
    /// The subject: the token's `sub`, or the claim that the issuer uses instead.
    pub subject: Box<str>,
    /// The token's `jti`, if present.
    pub token_id: Option<Box<str>>,
    /// The types of the values at the paths of roles and scopes.
    pub shapes: Shapes,
    /// The other claims that the policy uses, indexed by [`ClaimId`].
    pub claims: Box<[Option<ClaimValue>]>,
    /// The time of the user's login in seconds since 1970, from `auth_time` (RFC 9068 section 2.2.1).
    pub authenticated: Option<u64>,
    /// The number of seconds by which `authenticated` may lie in the future.
    pub lead_max: u64,
    /// The digest of the API key, if the credential is one.
    pub api_key: Option<Box<Digest>>,
    /// Assertions of this identity that were made for upstreams and can be reused.
    pub proofs: RefCell<Vec<Proven>>,
    /// The key that verified the token; `None` if no key of an issuer did.
    pub key: Option<Arc<Key>>,
    /// The epoch of the trust in which the key and its issuer were last found.
    pub trusted_at: Cell<u64>,
}

/// The JSON type of the value from which roles or scopes are read. It explains to the operator why a token has fewer
/// names than expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// The claim is missing.
    #[default]
    Absent,
    /// A string.
    Text,
    /// A list of strings.
    List,
    /// An object whose members are the names.
    Names,
    /// A list with elements that are not strings, or an object with members that are not names.
    Mixed,
    /// An object that is not read as names.
    Object,
    /// A number, a boolean or null.
    Other,
}

/// The shapes of a token's roles and scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shapes {
    /// The shape of the value at the `roles` path.
    pub roles: Shape,
    /// The shape of the value at the `scopes` path.
    pub scopes: Shape,
}

impl Shape {
    /// Returns a note for the operator if the value yields fewer names than it seems to contain.
    pub const fn remark(self) -> Option<&'static str> {
        match self {
            Self::Absent => Some("the claim is missing"),
            Self::Text | Self::List | Self::Names => None,
            Self::Mixed => Some("elements of the list that are not text are ignored"),
            Self::Object => Some("the claim is an object, and its names are ignored"),
            Self::Other => Some("the claim is neither text nor a list"),
        }
    }
}

/// A signed assertion of the identity, made for one upstream.
#[derive(Clone, Debug)]
pub struct Proven {
    /// The upstream's audience.
    pub audience: Arc<str>,
    /// The value of the header field that carries the assertion.
    pub value: HeaderValue,
    /// The start of the assertion's validity in seconds since 1970.
    pub made: u64,
    /// The time until which the assertion is reused, in seconds since 1970.
    pub until: u64,
}

/// The facts that only tokens of the local authority have.
#[derive(Debug)]
pub struct Local {
    /// The session, from `sid`.
    pub session: Option<Box<str>>,
    /// The account's generation when the token was issued, from `gen`.
    pub generation: i64,
    /// The token's `exp` in seconds since 1970, without leeway.
    pub ends: u64,
    /// The value that a request with the token in a cookie must repeat, from `csrf`.
    pub csrf: Option<Box<str>>,
    /// Whether the token was issued to a service for itself (RFC 6749 section 4.4). The subject is then a client, even
    /// if an account has the same name.
    pub service: bool,
    /// The epoch of the revocations at which the token was last found valid.
    pub(super) unmarked_at: Cell<Option<u64>>,
}

impl Local {
    /// Creates the facts of a token that has not yet been checked for revocation.
    pub fn new(session: Option<Box<str>>, generation: i64, csrf: Option<Box<str>>) -> Self {
        Self { session, generation, ends: u64::MAX, csrf, service: false, unmarked_at: Cell::new(None) }
    }

    /// Sets the token's `exp`.
    #[must_use]
    pub fn ending(self, ends: u64) -> Self {
        Self { ends, ..self }
    }

    /// Sets whether the token was issued to a service for itself.
    #[must_use]
    pub fn of_service(self, service: bool) -> Self {
        Self { service, ..self }
    }
}

impl Principal {
    /// Reads a byte of each line of memory that the request needs later: roles, scopes, and identity headers. These reads
    /// do not depend on each other, so the processor waits for them side by side. Each later stage would wait for its own.
    #[inline]
    pub(super) fn preload(&self) {
        let first = |names: &[Box<str>]| names.first().and_then(|name| name.as_bytes().first().copied());
        black_box((first(&self.roles), first(&self.scopes)));
        for line in self.headers.lines().chunks(CACHE_LINE) {
            black_box(line.first().copied());
        }
    }

    /// Returns a principal for tests and benchmarks: `ada` of `https://id.example.com`, without roles, scopes and
    /// claims, valid at any time. Callers replace the fields that matter to them.
    #[doc(hidden)]
    pub fn for_tests() -> Self {
        Self { issuer: Arc::from("https://id.example.com"), subject: "ada".into(), ..Self::nobody() }
    }

    /// Returns a principal without any fact, valid at any time. Callers set the facts that they have verified.
    pub(super) fn nobody() -> Self {
        Self {
            issuer: Arc::from(""),
            subject: "".into(),
            token_id: None,
            roles: Box::default(),
            scopes: Box::default(),
            shapes: Shapes::default(),
            claims: Box::default(),
            not_before: 0,
            expires: u64::MAX,
            authenticated: None,
            lead_max: 0,
            fresh: false,
            confirmation: None,
            local: None,
            api_key: None,
            signalled: None,
            proofs: RefCell::default(),
            headers: IdentityFields::default(),
            caller_hash: OnceCell::new(),
            is_used: Cell::new(false),
            key: None,
            trusted_at: Cell::new(0),
        }
    }

    /// Returns the value of a claim that the policy uses; `None` if the token lacks it.
    pub fn claim(&self, id: ClaimId) -> Option<&ClaimValue> {
        self.claims.get(usize::from(id.0)).and_then(Option::as_ref)
    }

    /// Returns a hash of issuer and subject. Its secret is the process's, so a client cannot choose hashes.
    pub fn caller_hash(&self) -> u64 {
        static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        *self.caller_hash.get_or_init(|| SECRET.hash_one((&self.issuer, &self.subject)))
    }

    /// Returns the approximate memory of the principal in bytes, without its proofs.
    pub fn bytes(&self) -> usize {
        let text = |text: Option<&str>| text.map_or(0, |text| text.len() + ALLOCATION);
        let names = |names: &[Box<str>]| -> usize {
            names.iter().map(|name| size_of::<Box<str>>() + text(Some(name))).sum::<usize>() + ALLOCATION
        };
        let local = self.local.as_deref().map_or(0, |local| {
            size_of::<Local>() + ALLOCATION + text(local.session.as_deref()) + text(local.csrf.as_deref())
        });
        let headers = self
            .headers
            .iter()
            .map(|(_, value)| size_of::<(HeaderName, HeaderValue)>() + value.len() + ALLOCATION);
        size_of::<Self>()
            + text(Some(&self.subject))
            + text(self.token_id.as_deref())
            + names(&self.roles)
            + names(&self.scopes)
            + self.claims.iter().map(|claim| claim.as_ref().map_or(0, ClaimValue::bytes)).sum::<usize>()
            + local
            + self.api_key.as_ref().map_or(0, |_| size_of::<Digest>() + ALLOCATION)
            + self.signalled.as_ref().map_or(0, |_| size_of::<Signalled>() + ALLOCATION)
            + headers.sum::<usize>()
            + self.headers.lines().len()
    }

    /// Removes expired proofs. Returns the approximate memory of the remaining ones in bytes.
    pub(super) fn weigh_proofs(&self, now: u64) -> usize {
        let mut proofs = self.proofs.borrow_mut();
        proofs.retain(|proof| now < proof.until);
        proofs.iter().map(|proof| size_of::<Proven>() + proof.value.len() + ALLOCATION).sum()
    }
}
