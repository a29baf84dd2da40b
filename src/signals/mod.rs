//! Signals: security events (OpenID Shared Signals, CAEP and RISC) and back-channel logout from foreign issuers.
//!
//! A transmitter pushes signals to an endpoint of the gateway (RFC 8935), or the gateway polls for signals (RFC 8936).
//! Only its signature makes a signal trusted. A signal creates marks that revoke tokens of its issuer. The marks are
//! durable before the signal is confirmed. If the marks cannot be stored, the gateway answers with an error, so that
//! the transmitter repeats the signal.

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
pub use poll::{Poll, Poller};
pub use receiver::{Receiver, ReceiverState, SignalKind};
pub use recorder::{FileWriter, Recorder, Unrecorded, read_marks};
pub use subject::Opaque;
pub use token::{Signal, SignalError, Terms, read_event_token, read_logout_token};
