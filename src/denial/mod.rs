//! Defines the reasons for refusing a request, with one variant per documented code.
//!
//! A denial contains only facts of the gateway, such as the wait of a limit or the required scopes. It never contains
//! text from a client, so it needs no escaping. The table has one entry per denial, with its fixed properties.

mod reasons;
mod spec;
mod table;

pub use reasons::{BodyFault, HandshakeFault, Malformed, ProofFault, RequiredClaim, TokenPart};
pub use spec::{Challenge, Fault, Grpc, Spec};
pub use table::Denial;

use http::StatusCode;

// The hot path returns denials in `Result`s, so their size is bounded.
const _: () = assert!(size_of::<Denial>() <= 24);

impl Denial {
    /// Returns the denial's entry in the table.
    pub const fn spec(&self) -> &'static Spec {
        &Self::SPECS[self.index()]
    }

    /// Returns the code for the body, the log, the metrics and the challenge.
    pub const fn code(&self) -> &'static str {
        self.spec().code
    }

    /// Returns the status of the response.
    pub const fn status(&self) -> StatusCode {
        self.spec().status
    }

    /// Returns the party that is at fault.
    pub const fn fault(&self) -> Fault {
        self.spec().fault
    }

    /// Returns the `WWW-Authenticate` challenge of the response.
    pub fn challenge(&self) -> Challenge<'_> {
        if let Self::FreshTokenRequired { max_age } = self {
            Challenge::StaleLogin(*max_age)
        } else if let Self::InsufficientScope(scopes) = self {
            Challenge::InsufficientScope(Some(scopes))
        } else {
            self.spec().challenge
        }
    }

    /// Returns a sentence for the client. It is a fixed text that does not help an attacker.
    pub const fn detail(&self) -> &'static str {
        if let Self::InvalidBody(fault) = self {
            fault.detail()
        } else if let Self::BadRequest(Malformed::WebSocket) = self {
            "WebSockets are not forwarded here."
        } else if let Self::BadRequest(Malformed::Handshake(_)) = self {
            "The WebSocket handshake is not valid."
        } else {
            self.spec().detail
        }
    }

    /// Returns a fixed text for the operator that is more specific than the code. If the refusing stage reports the
    /// actual values, they take precedence.
    pub const fn finer(&self) -> Option<&'static str> {
        if let Self::BadRequest(malformed) = self {
            Some(malformed.reason())
        } else if let Self::MalformedToken(part) = self {
            Some(part.reason())
        } else if let Self::MissingClaim(claim) = self {
            Some(claim.reason())
        } else if let Self::InvalidProof(fault) = self {
            Some(fault.reason())
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_a_distinct_word() {
        let codes: Vec<_> = Denial::every().iter().map(Denial::code).collect();
        let mut distinct = codes.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), codes.len());
        assert!(codes.iter().all(|c| c.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }

    #[test]
    fn a_401_always_carries_a_challenge() {
        // RFC 9110 section 15.5.2: a server generating a 401 MUST send WWW-Authenticate.
        for denial in Denial::every() {
            if denial.status() == StatusCode::UNAUTHORIZED {
                assert_ne!(denial.challenge(), Challenge::None, "{}", denial.code());
            }
        }
    }
}
