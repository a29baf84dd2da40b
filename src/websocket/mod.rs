//! WebSockets (RFC 6455) between a client and an upstream: the handshake, and the frames of each direction. Nothing
//! here does I/O.
//!
//! The gateway passes all bytes of a WebSocket unchanged. It follows the frames only so that it can end a WebSocket
//! between two of them.

mod frames;
mod handshake;

pub use frames::{FrameTracker, close_frame, masked_close_frame};
pub use handshake::{Handshake, from_http2};
