//! Serves the admin listener: `/livez`, `/readyz`, `/metrics`, `/keys`, `/decisions`, `/explain`, `/reload`.
//!
//! The other listeners never answer health checks, regardless of the path, host or user agent.

use super::reload::{ReloadRequest, ReloadStatus, Report};
use super::timed_writes::TimedWrites;
use super::{acme, guard, introspection, key_report, metrics_page, queries, shared, upstream_checks};
use crate::journal::Level;
use crate::metrics;
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

/// Maximum number of open admin connections. Scrapers and probes need only a few.
const CONNECTIONS: usize = 64;

#[derive(Debug)]
pub(crate) struct Admin {
    /// The bound sockets of the admin listener.
    pub(crate) listeners: Vec<TcpListener>,
    /// The generation of the current policy, and the outcomes of reloads.
    pub(crate) status: Arc<ReloadStatus>,
}

/// The state of the admin listener.
#[derive(Debug)]
pub(crate) struct AdminState {
    shared: Arc<Shared>,
    status: Arc<ReloadStatus>,
    reload: mpsc::Sender<ReloadRequest>,
    draining: Cell<bool>,
    open: Cell<usize>,
}

impl AdminState {
    /// Returns whether `/readyz` responds with 503.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Makes `/readyz` respond with 503.
    pub(crate) fn begin_draining(&self) {
        self.draining.set(true);
    }
}

impl Admin {
    /// Serves the listeners in background tasks of the current runtime.
    ///
    /// # Errors
    /// Returns an error if a socket cannot be used.
    pub(crate) fn serve(
        self,
        shared: Arc<Shared>,
        reload: mpsc::Sender<ReloadRequest>,
    ) -> io::Result<Rc<AdminState>> {
        let Self { listeners, status } = self;
        let (draining, open) = (Cell::new(false), Cell::new(0));
        let state = Rc::new(AdminState { shared, status, reload, draining, open });
        for listener in listeners {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::task::spawn_local(accept(listener, state.clone()));
        }
        Ok(state)
    }
}

async fn accept(listener: tokio::net::TcpListener, state: Rc<AdminState>) {
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
                .serve_connection(TokioIo::new(TimedWrites::new(stream)), service);
            // An error on an admin connection affects only its client.
            let _ = connection.await;
            state.open.set(state.open.get() - 1);
        });
    }
}

async fn answer(state: &AdminState, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let admitted =
        guard::admit(request.uri(), request.headers(), &state.shared.policy.load().front.admin_hosts);
    if let Err((status, why)) = admitted {
        return text(status, why);
    }
    match request.uri().path() {
        "/reload" => return reload(state, &request).await,
        "/explain" => return explain(state, request).await,
        _ => {}
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed\n".into());
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "alive\n".into()),
        "/readyz" => readiness(state, request.uri().query() == Some("verbose")),
        "/metrics" => {
            let mut response = text(
                StatusCode::OK,
                metrics_page::render(&state.shared, &state.status, state.draining.get()),
            );
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
            response
        }
        "/keys" => {
            let keys = key_report::json(&state.shared.policy.load());
            typed(queries::JSON, format!("{keys:#}\n").into_bytes())
        }
        "/decisions" => match queries::decisions(&state.shared) {
            Ok(lines) => typed(queries::JSON_LINES, lines),
            Err((status, why)) => text(status, why),
        },
        _ => {
            let known = "available: /livez, /readyz, /metrics, /keys and /decisions; with POST, /explain and /reload\n";
            text(StatusCode::NOT_FOUND, known.into())
        }
    }
}

/// Answers `/readyz`: why the gateway is not ready, or a line for each part of it.
fn readiness(state: &AdminState, is_verbose: bool) -> Response<Full<Bytes>> {
    if state.draining.get() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "draining\n".into());
    }
    let policy = state.shared.policy.load();
    if let Some(why) = shared::unready(&policy) {
        return text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"));
    }
    let mut lines = "ready\n".to_owned();
    if is_verbose {
        lines.push_str(&state.status.lines());
        lines.push_str(&key_report::lines(&policy));
        lines.push_str(&introspection::lines(&policy.trust));
        lines.push_str(&acme::line(&state.shared));
        lines.push_str(&upstream_checks::lines(&policy.upstreams));
        lines.push_str(&shared::lines(&policy));
        if let Some(authority) = &policy.authority {
            lines.push_str(&authority.store_line());
        }
    }
    text(StatusCode::OK, lines)
}

/// Explains how the current policy would decide a request.
async fn explain(state: &AdminState, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if *request.method() != Method::POST {
        return only_post();
    }
    let (parts, body) = request.into_parts();
    let explained = queries::question(&parts.headers, body)
        .await
        .and_then(|question| queries::explanation(&state.shared.policy.load(), &question));
    match explained {
        Ok(json) => typed(queries::JSON, (json + "\n").into_bytes()),
        Err((status, why)) => text(status, why),
    }
}

/// Reloads the policy and reports the result: 200, or 422 if the file does not load.
async fn reload(state: &AdminState, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if *request.method() != Method::POST {
        return only_post();
    }
    let (reply, report) = oneshot::channel();
    let report = match state.reload.try_send(ReloadRequest::Asked(Some(reply))) {
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
    let mut response = typed(queries::JSON, (body + "\n").into_bytes());
    *response.status_mut() = status;
    response
}

fn only_post() -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only POST is allowed\n".into());
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
