//! Portcullis, a reverse-proxy auth gateway.
#![forbid(unsafe_code)]

pub mod accept;
pub mod answer;
pub mod authenticate;
pub mod authority;
pub mod authorize;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod decision;
pub mod denial;
pub mod diagnostic;
pub mod forward;
pub mod journal;
pub mod limit;
pub mod peer;
pub mod pipeline;
pub mod policy;
pub mod record;
pub mod request_id;
pub mod respond;
pub mod route;
pub mod worker;
