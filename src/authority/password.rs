//! Stand-in.
use std::sync::Arc;
use zeroize::Zeroizing;
#[derive(Debug)]
pub(super) struct Hashers;
pub(super) struct Busy;
pub(super) enum Verdict {
    Right { upgraded: Option<String> },
    Wrong,
}
impl Hashers {
    pub(super) fn start(_threads: usize, _queue: usize) -> Self {
        Self
    }
    pub(super) async fn verify(
        &self,
        _p: Zeroizing<String>,
        s: Option<String>,
        _schemes: Arc<[String]>,
    ) -> Result<Verdict, Busy> {
        match s {
            Some(_) => Ok(Verdict::Right { upgraded: None }),
            None if false => Err(Busy),
            None => Ok(Verdict::Wrong),
        }
    }
}
