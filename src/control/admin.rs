//! The admin listener: `/livez`, `/readyz`, `/metrics`, `/decisions`, `/explain`, `/reload`. Health is answered here and
//! nowhere else, whatever the path, host or user agent of a request to the other listeners says.

use super::reload::{Asked, Report, Standing};
use super::{ask, guard};
use crate::authenticate::Trust;
use crate::authenticate::seen::{AGES, SIZES};
use crate::authority::{Authority, ByOutcome, Counters};
use crate::clock::Now;
use crate::journal::Level;
use crate::keyring::{KeyState, Keyring};
use crate::metrics::{self, Exposition, Kind};
use crate::tls::Certificates;
use crate::worker::Shared;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How many admin connections may be open: scrapers and probes are few.
const CONNECTIONS: usize = 64;

/// The admin listener's sockets.
#[derive(Debug)]
pub(crate) struct Admin {
    /// Already bound.
    pub(crate) listeners: Vec<TcpListener>,
    /// How the policy in force came to be.
    pub(crate) standing: Arc<Standing>,
}

/// What the admin listener answers from.
#[derive(Debug)]
pub(crate) struct State {
    shared: Arc<Shared>,
    standing: Arc<Standing>,
    reload: mpsc::Sender<Option<Asked>>,
    draining: Cell<bool>,
    open: Cell<usize>,
}

impl State {
    /// From now on the gateway is not ready.
    pub(crate) fn begin_draining(&self) {
        self.draining.set(true);
    }
}

impl Admin {
    /// Serves in the background of the current runtime.
    ///
    /// # Errors
    /// When a socket cannot be used.
    pub(crate) fn serve(
        self,
        shared: Arc<Shared>,
        reload: mpsc::Sender<Option<Asked>>,
    ) -> io::Result<Rc<State>> {
        let Self { listeners, standing } = self;
        let (draining, open) = (Cell::new(false), Cell::new(0));
        let state = Rc::new(State { shared, standing, reload, draining, open });
        for listener in listeners {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::task::spawn_local(accept(listener, state.clone()));
        }
        Ok(state)
    }
}

async fn accept(listener: tokio::net::TcpListener, state: Rc<State>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) if state.open.get() < CONNECTIONS => stream,
            Ok(_) => continue,
            Err(error) => {
                state.shared.journal.event(
                    Level::Warn,
                    "the admin listener cannot accept",
                    &[("error", &error.to_string())],
                );
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        state.open.set(state.open.get() + 1);
        let state = state.clone();
        tokio::task::spawn_local(async move {
            let service = {
                let state = state.clone();
                service_fn(move |request| {
                    let state = state.clone();
                    async move { Ok::<_, Infallible>(answer(&state, request).await) }
                })
            };
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(30))
                .max_headers(64)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            // A broken admin connection is its client's affair.
            let _ = connection.await;
            state.open.set(state.open.get() - 1);
        });
    }
}

async fn answer(state: &State, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let admitted =
        guard::admit(request.uri(), request.headers(), &state.shared.policy.load().front.admin_hosts);
    if let Err((status, why)) = admitted {
        return text(status, why);
    }
    match request.uri().path() {
        "/reload" => return reload(state, &request).await,
        "/explain" => return explained(state, request).await,
        _ => {}
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "alive\n".into()),
        "/readyz" if state.draining.get() => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n".into()),
        "/readyz" if request.uri().query() == Some("verbose") => {
            let mut lines = format!("ready\n{}", state.standing.lines());
            if let Some(authority) = &state.shared.policy.load().authority {
                lines.push_str(&authority.health().line());
            }
            text(StatusCode::OK, lines)
        }
        "/readyz" => text(StatusCode::OK, "ready\n".into()),
        "/metrics" => {
            let mut response = text(StatusCode::OK, tell(state));
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
            response
        }
        "/decisions" => match ask::decisions(&state.shared) {
            Ok(lines) => typed(ask::JSON_LINES, lines),
            Err((status, why)) => text(status, why),
        },
        _ => {
            let known =
                "here are /livez, /readyz, /metrics, /decisions and, for POST, /explain and /reload\n";
            text(StatusCode::NOT_FOUND, known.into())
        }
    }
}

/// Says what would become of a request, by the policy in force.
async fn explained(state: &State, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if *request.method() != Method::POST {
        return only_post();
    }
    let (parts, body) = request.into_parts();
    let explained = ask::question(&parts.headers, body)
        .await
        .and_then(|question| ask::explained(&state.shared.policy.load(), &question));
    match explained {
        Ok(json) => typed(ask::JSON, (json + "\n").into_bytes()),
        Err((status, why)) => text(status, why),
    }
}

/// Reads the policy again, and says what came of it: 200, or 422 where the file does not load.
async fn reload(state: &State, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if *request.method() != Method::POST {
        return only_post();
    }
    let (reply, report) = oneshot::channel();
    let report = match state.reload.try_send(Some(reply)) {
        Ok(()) => report.await.ok(),
        Err(_) => None,
    };
    let Some(report) = report else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "too many reloads at once\n".into());
    };
    let status = match report {
        Report::Reloaded { .. } => StatusCode::OK,
        Report::Refused { .. } => StatusCode::UNPROCESSABLE_ENTITY,
    };
    let body = serde_json::to_string_pretty(&report).unwrap_or_default();
    let mut response = typed(ask::JSON, (body + "\n").into_bytes());
    *response.status_mut() = status;
    response
}

/// All counts, and what is true now, in Prometheus's text format.
fn tell(state: &State) -> String {
    let policy = state.shared.policy.load();
    let mut out = Exposition::new();
    let routes: Vec<_> = policy.routes.iter().map(|route| route.counters.clone()).collect();
    metrics::render(&mut out, &routes, &state.shared.counters, &policy.limits, &policy.upstreams);

    out.family("portcullis_log_lines_dropped_total", "Log lines that were lost.", Kind::Counter);
    out.sample(&[], state.shared.journal.dropped());
    tell_tokens(&mut out, &policy.trust);
    state.standing.tell(&mut out);
    if let Some(ends) = state.shared.certificates.as_ref().and_then(Certificates::ends) {
        let help = "Expiry of the certificate in use, in seconds since 1970.";
        // The older name does not follow the Prometheus convention; it stays for alerts that use it.
        for name in
            ["portcullis_certificate_expires_seconds", "portcullis_certificate_expiry_timestamp_seconds"]
        {
            out.family(name, help, Kind::Gauge);
            out.sample(&[], ends);
        }
    }
    if let Some(terms) = &policy.terms {
        tell_signing(&mut out, &terms.keyring);
    }
    if let Some(authority) = &policy.authority {
        tell_authority(&mut out, authority.counters(), &policy.trust);
        tell_store(&mut out, authority);
    }
    out.family("portcullis_ready", "Whether the gateway takes new requests.", Kind::Gauge);
    out.sample(&[], u64::from(!state.draining.get()));
    out.family("portcullis_build_info", "The version that runs.", Kind::Gauge);
    out.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    out.finish()
}

/// What was seen of tokens when they were verified. Names of issuers stand in the policy.
fn tell_tokens(out: &mut Exposition, trust: &Trust) {
    let help = "Tokens that were verified and found good, by issuer and algorithm. A token seen again is not verified again.";
    out.family("portcullis_tokens_verified_total", help, Kind::Counter);
    for (issuer, seen) in trust.seen() {
        for (algorithm, count) in seen.algorithms().filter(|(_, count)| *count > 0) {
            out.sample(&[("issuer", issuer), ("algorithm", algorithm.as_str())], count);
        }
    }
    let help = "How old tokens were when they were verified, in seconds since iat.";
    out.family("portcullis_token_age_seconds", help, Kind::Histogram);
    for (issuer, seen) in trust.seen() {
        let (counts, sum) = seen.ages();
        out.spread(&[("issuer", issuer)], &AGES, &counts, sum);
    }
    out.family("portcullis_token_size_bytes", "How large tokens were.", Kind::Histogram);
    for (issuer, seen) in trust.seen() {
        let (counts, sum) = seen.sizes();
        out.spread(&[("issuer", issuer)], &SIZES, &counts, sum);
    }
}

/// What the local authority did.
fn tell_authority(out: &mut Exposition, counters: &Counters, trust: &Trust) {
    fn tell<const N: usize>(
        out: &mut Exposition,
        name: &'static str,
        help: &'static str,
        label: &str,
        counts: &ByOutcome<N>,
    ) {
        out.family(name, help, Kind::Counter);
        for (outcome, count) in counts.iter() {
            out.sample(&[(label, outcome)], count);
        }
    }
    let name = "portcullis_logins_total";
    tell(out, name, "Logins with a password, by how they ended.", "outcome", &counters.logins);
    let name = "portcullis_refreshes_total";
    let help = "Refresh tokens that were presented. grace: the successor was given once more; reuse: the session was ended.";
    tell(out, name, help, "outcome", &counters.refreshes);
    let name = "portcullis_revocations_total";
    tell(out, name, "What this gateway's endpoints revoked, by what made them.", "by", &counters.revocations);
    let name = "portcullis_tokens_issued_total";
    tell(out, name, "Access tokens that were issued, by size.", "size", &counters.tokens);
    let name = "portcullis_tokens_trimmed_total";
    tell(out, name, "Access tokens that left something out to stay small.", "of", &counters.trimmed);
    let name = "portcullis_service_tokens_total";
    tell(out, name, "Access tokens that services asked for themselves.", "outcome", &counters.services);
    out.family("portcullis_revocation_marks", "What is marked as revoked now.", Kind::Gauge);
    out.sample(&[], u64::try_from(trust.revoked().len()).unwrap_or(u64::MAX));
}

/// The state of the store, and the requests that wait for the authority.
fn tell_store(out: &mut Exposition, authority: &Authority) {
    let health = authority.health();
    let help = "Whether the store of accounts and sessions answered at its last use (1) or not (0).";
    out.family("portcullis_store_up", help, Kind::Gauge);
    out.sample(&[], u64::from(health.is_up()));
    out.family("portcullis_store_failures_total", "Failures of the store, by reason.", Kind::Counter);
    for (reason, count) in health.failures() {
        out.sample(&[("reason", reason)], count);
    }
    let help = "Connections to the store closed because a transaction on them did not end cleanly.";
    out.family("portcullis_store_connections_replaced_total", help, Kind::Counter);
    out.sample(&[], authority.connections_replaced());
    let help = "Requests in progress at the authority or waiting for it.";
    out.family("portcullis_authority_waiting", help, Kind::Gauge);
    out.sample(&[], u64::try_from(authority.queue().waiting()).unwrap_or(u64::MAX));
    let help = "Requests refused because too many were waiting for the authority.";
    out.family("portcullis_authority_shed_total", help, Kind::Counter);
    out.sample(&[], authority.queue().shed());
}

fn tell_signing(out: &mut Exposition, keyring: &Keyring) {
    let help = "Signing keys of the local authority by what they are for now.";
    out.family("portcullis_signing_keys", help, Kind::Gauge);
    let listed = keyring.list(Now::read());
    for state in KeyState::ALL {
        let count = listed.iter().filter(|key| key.state == state).count();
        out.sample(&[("state", state.as_str())], u64::try_from(count).unwrap_or(u64::MAX));
    }
    let help = "How often something was wrong with the files of the signing keys.";
    out.family("portcullis_signing_key_faults_total", help, Kind::Counter);
    out.sample(&[], keyring.faults());
}

fn only_post() -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only POST\n".into());
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

fn typed(kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::OK, String::new());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    *response.body_mut() = Full::new(Bytes::from(body));
    response
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
