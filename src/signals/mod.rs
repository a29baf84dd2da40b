//! Signals: security events (OpenID Shared Signals, CAEP and RISC) and back-channel logout from foreign issuers.
//!
//! A transmitter pushes signals to an endpoint of the gateway (RFC 8935), or the gateway polls them (RFC 8936). A
//! signal is trusted only because of its signature. The gateway converts a signal to marks, which revoke tokens of its
//! issuer. It confirms the signal after the marks are durable. If the marks cannot be stored, the gateway answers with
//! an error, and the transmitter sends the signal again.

mod event;
mod held;
mod keys;
mod mark_file;
mod poll;
mod receiver;
mod recorder;
mod subject;
mod token;

pub use event::{Effect, EventKind, SignalCounters, SignalOutcome};
pub use keys::{FetchedKeys, SignalKeys};
pub use poll::Poller;
pub use receiver::{Poll, Receiver, ReceiverState, SignalKind};
pub use recorder::{FileWriter, Recorder, Unrecorded, read_marks};
pub use subject::Opaque;
pub use token::{Signal, SignalError, Terms, read_event_token, read_logout_token};
