//! Portcullis, a reverse-proxy auth gateway.
#![forbid(unsafe_code)]

pub mod clock;
pub mod denial;
pub mod journal;
pub mod peer;

pub mod authenticate;
pub mod authorize;
pub mod config;
pub mod limit;
pub mod policy;
pub mod respond;
pub mod route;
