//! Stand-in.
use std::net::IpAddr;
use std::time::{Duration, Instant};
#[derive(Debug)]
pub(super) struct Throttle;
impl Throttle {
    pub(super) fn new() -> Self {
        Self
    }
    pub(super) fn ask(&self, _a: IpAddr, _n: &str, _k: bool, _now: Instant) -> Result<(), Duration> {
        Ok(())
    }
    pub(super) fn failed(&self, _a: IpAddr, _n: &str, _k: bool, _now: Instant) {}
    pub(super) fn succeeded(&self, _a: IpAddr, _n: &str, _k: bool) {}
}
