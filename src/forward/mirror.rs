//! Sends copies of permitted requests to another upstream. No request waits for its copy, and the answer to a copy is
//! discarded.

use super::body::request_body::RequestBody;
use super::body::tee::{CopyEnd, Reserved, Tee};
use super::connection::pool::Pools;
use super::delivery::Mirror;
use super::head::outgoing::{self, ForwardContext, WrittenHead};
use super::http1::attempts::{Outbound, send};
use super::http1::response_body::ResponseBody;
use super::http1::upload::Upload;
use super::notes::Notes;
use super::request::PermittedRequest;
use super::upstream::Upstream;
use super::upstream::balance::{KeyFacts, draw};
use crate::http1::{BodyReader, RequestFraming, write_field};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body::Body;
use http_body_util::BodyExt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// The maximum number of copies of one core that have no answer yet.
const IN_FLIGHT_MAX: usize = 100;
/// The largest answer that is read to its end, so that its connection can be used again.
const ANSWER_MAX: usize = 64 * 1024;
/// The field that marks a copy. Its prefix is reserved, so no client can send it.
const MARK: &str = "x-auth-mirror";

/// A copy, until its end. Counts the outcome.
struct Copied {
    pools: Rc<Pools>,
    upstream: Arc<Upstream>,
    outcome: Outcome,
    /// Whether the copy has one of the [`IN_FLIGHT_MAX`] places.
    has_place: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    Failed,
    Dropped,
}

impl Copied {
    fn begin(pools: &Rc<Pools>, upstream: &Arc<Upstream>) -> Self {
        let (pools, upstream) = (pools.clone(), upstream.clone());
        Self { pools, upstream, outcome: Outcome::Failed, has_place: false }
    }

    /// Takes a place for a copy that can be sent. If no place is free, drops the copy and returns false.
    fn take_place(&mut self) -> bool {
        let count = self.pools.mirrored.get();
        self.has_place = count < IN_FLIGHT_MAX;
        match self.has_place {
            true => self.pools.mirrored.set(count + 1),
            false => self.outcome = Outcome::Dropped,
        }
        self.has_place
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        if self.has_place {
            self.pools.mirrored.set(self.pools.mirrored.get() - 1);
        }
        if let Some(counts) = self.upstream.counters.of(self.pools.core) {
            let counter = match self.outcome {
                Outcome::Answered => &counts.mirror_answered,
                Outcome::Failed => &counts.mirror_failed,
                Outcome::Dropped => &counts.mirror_dropped,
            };
            counter.add(1);
        }
    }
}

/// The body of a copy.
enum CopiedBody {
    Ready(Bytes, Reserved),
    /// The body arrives.
    Coming(Rc<Tee>),
}

impl Mirror {
    /// Whether requests with this method may be copied.
    pub(crate) fn covers(&self, method: &Method, has_body: bool) -> bool {
        self.percent > 0 && (self.body > 0 || (!has_body && method.is_safe()))
    }

    /// Copies a request, if it is one of those that are copied. The copy is sent once its body is in memory.
    #[cold]
    pub(super) fn copy(
        &self,
        pools: &Rc<Pools>,
        request: &mut PermittedRequest<'_>,
        context: &ForwardContext<'_>,
    ) {
        if request.handshake.is_some() || draw(&context.id.trace_id()) >= u64::from(self.percent) {
            return;
        }
        let has_body = !matches!(request.body, RequestBody::Empty);
        if !self.covers(&request.parts.method, has_body) {
            return;
        }
        if request.body.size_hint().lower() > self.body as u64 {
            return;
        }
        let mut copied = Copied::begin(pools, &self.upstream);
        // A copy whose body comes later needs no place until then, so a slow client keeps none.
        if !matches!(request.body, RequestBody::Streamed(_)) && !copied.take_place() {
            return;
        }
        let permit = &request.permit;
        let key = self.upstream.balance.key(KeyFacts {
            principal: permit.principal().map(|principal| &**principal),
            headers: &request.parts.headers,
            address: context.caller.address,
        });
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = request.parts.method.clone();
        parts.version = request.parts.version;
        parts.headers = request.parts.headers.clone();
        // The length of the copy is written once its body is whole.
        parts.headers.remove(header::CONTENT_LENGTH);
        let none = RequestFraming::None;
        let written =
            outgoing::write(&mut parts, &request.target, none, None, permit, &self.audience, context);
        let (WrittenHead { bytes: mut head, .. }, _) = written;
        write_field(&mut head, MARK, b"1");
        let is_named = request.target.authority.is_some() || context.host.is_some();
        let in_memory = match &request.body {
            RequestBody::Whole(bytes) => bytes.len(),
            RequestBody::Empty | RequestBody::Streamed(_) => 0,
        };
        let Some(reserved) = pools.copy_memory.reserve(head.len() + in_memory) else {
            copied.outcome = Outcome::Dropped;
            return;
        };
        let body = match &mut request.body {
            RequestBody::Empty => CopiedBody::Ready(Bytes::new(), reserved),
            RequestBody::Whole(bytes) => CopiedBody::Ready(bytes.clone(), reserved),
            RequestBody::Streamed(streamed) => {
                let tee = Tee::new(self.body, reserved);
                streamed.copy_to(tee.clone());
                CopiedBody::Coming(tee)
            }
        };
        let (pools, upstream, method) = (pools.clone(), self.upstream.clone(), parts.method);
        tokio::task::spawn_local(async move {
            let mut copied = copied;
            let (body, _reserved) = match body {
                CopiedBody::Ready(body, reserved) => (body, reserved),
                CopiedBody::Coming(tee) => {
                    let whole = tokio::time::timeout(upstream.timeout, tee.whole()).await;
                    match whole {
                        Ok(Ok(whole)) if copied.take_place() => whole,
                        Ok(Ok(_)) => return,
                        Ok(Err(end)) => {
                            if end == CopyEnd::NoMemory {
                                copied.outcome = Outcome::Dropped;
                            }
                            return;
                        }
                        Err(_elapsed) => {
                            tee.end(CopyEnd::Incomplete);
                            return;
                        }
                    }
                }
            };
            if has_body {
                let mut length = itoa::Buffer::new();
                write_field(&mut head, "content-length", length.format(body.len()).as_bytes());
            }
            let mut upload = Upload::new(method, head, none, RequestBody::Whole(body), is_named);
            let mut headers = HeaderMap::new();
            let request = Outbound { upload: &mut upload, headers: &mut headers, inflow: None, key };
            let (timeout, mut notes) = (upstream.timeout, Notes::default());
            let sent = send(&pools, &upstream, timeout, request, Instant::now(), &mut notes).await;
            let Ok((answered, lease)) = sent else { return };
            copied.outcome = Outcome::Answered;
            let keep = answered.head.keep_alive && answered.is_sent && !answered.is_refused;
            if !keep || answered.head.status == StatusCode::SWITCHING_PROTOCOLS {
                return;
            }
            let reader = BodyReader::new(answered.head.framing);
            let mut body = ResponseBody::new(reader, lease, keep, timeout, None, None);
            let read = async {
                let mut length = 0;
                while let Some(Ok(frame)) = body.frame().await {
                    length += frame.data_ref().map_or(0, Bytes::len);
                    if length > ANSWER_MAX {
                        break;
                    }
                }
            };
            // A longer answer, or a slower one, costs its connection.
            let _ = tokio::time::timeout(timeout, read).await;
        });
    }
}
