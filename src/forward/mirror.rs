//! Sends copies of permitted requests to another upstream. No request waits for its copy, and the answer to a copy is
//! discarded.

use super::attempts::{Outbound, send};
use super::balance::{KeyFacts, draw};
use super::outgoing::{self, ForwardContext, WrittenHead};
use super::request_body::RequestBody;
use super::response_body::ResponseBody;
use super::upload::Upload;
use super::{Audience, Notes, PermittedRequest, Pools, Upstream};
use crate::http1::{BodyReader, RequestFraming, write_field};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body::Body;
use http_body_util::BodyExt;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// The maximum number of copies of one core that have no answer yet.
const IN_FLIGHT_MAX: usize = 100;
/// The largest answer that is read to its end, so that its connection can be used again.
const ANSWER_MAX: usize = 64 * 1024;
/// The field that marks a copy. Its prefix is reserved, so no client can send it.
const MARK: &str = "x-auth-mirror";

/// The copies of a route's requests.
#[derive(Clone, Debug)]
pub(crate) struct Mirror {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) audience: Arc<Audience>,
    /// The percentage of the requests that are copied.
    pub(crate) percent: u16,
    /// The largest body that is copied, in bytes. If 0, only requests with a safe method and without a body are copied.
    pub(crate) body: usize,
}

/// A copy that has no answer yet.
#[derive(Debug)]
struct InFlight {
    pools: Rc<Pools>,
    upstream: Arc<Upstream>,
    is_answered: bool,
}

impl InFlight {
    /// Returns `None` and counts the copy if too many are in flight.
    fn begin(pools: &Rc<Pools>, upstream: &Arc<Upstream>) -> Option<Self> {
        let count = pools.mirrored.get();
        if count >= IN_FLIGHT_MAX {
            upstream.counters.of(pools.core).inspect(|counts| counts.mirror_dropped.add(1));
            return None;
        }
        pools.mirrored.set(count + 1);
        Some(Self { pools: pools.clone(), upstream: upstream.clone(), is_answered: false })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.pools.mirrored.set(self.pools.mirrored.get() - 1);
        if let Some(counts) = self.upstream.counters.of(self.pools.core) {
            let counter = if self.is_answered { &counts.mirror_answered } else { &counts.mirror_failed };
            counter.add(1);
        }
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} %)", self.upstream.name, self.percent)
    }
}

impl Mirror {
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
        if self.body == 0 && (has_body || !request.parts.method.is_safe()) {
            return;
        }
        if request.body.size_hint().lower() > self.body as u64 {
            return;
        }
        let Some(in_flight) = InFlight::begin(pools, &self.upstream) else { return };
        let body = match &mut request.body {
            RequestBody::Empty => Ok(Bytes::new()),
            RequestBody::Whole(bytes) => Ok(bytes.clone()),
            RequestBody::Streamed(streamed) => Err(streamed.tee(self.body)),
        };
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
        let (pools, upstream) = (pools.clone(), self.upstream.clone());
        tokio::task::spawn_local(async move {
            let mut in_flight = in_flight;
            let body = match body {
                Ok(bytes) => bytes,
                Err(tee) => match tee.whole().await {
                    Some(bytes) => bytes,
                    None => return,
                },
            };
            if has_body {
                let mut length = itoa::Buffer::new();
                write_field(&mut head, "content-length", length.format(body.len()).as_bytes());
            }
            let mut upload = Upload::new(parts.method, head, none, RequestBody::Whole(body), is_named);
            let mut headers = HeaderMap::new();
            let request = Outbound { upload: &mut upload, headers: &mut headers, inflow: None, key };
            let (timeout, mut notes) = (upstream.timeout, Notes::default());
            let sent = send(&pools, &upstream, timeout, request, Instant::now(), &mut notes).await;
            let Ok((answered, lease)) = sent else { return };
            in_flight.is_answered = true;
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
