//! Sends one request and returns the whole answer, within bounds on time and size.

use super::address::Networks;
use super::connector::{Connector, Opened};
use super::error::{Error, quoted};
use super::url::Url;
use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};
use std::error::Error as _;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_rustls::TlsConnector;

/// The maximum time for opening a connection, including the TLS handshake.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// The maximum size of an answer's head in bytes. `FIELDS_MAX` is the maximum number of its fields.
const HEAD_MAX: usize = 32 * 1024;
const FIELDS_MAX: usize = 100;
/// The time that an unused connection stays open.
const IDLE: Duration = Duration::from_secs(30);

/// The settings of a client.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The certificate authorities that the client accepts.
    pub roots: Arc<RootCertStore>,
    /// The networks that the client may reach besides the public Internet.
    pub networks: Networks,
    /// Whether the client may send requests in cleartext.
    pub allows_http: bool,
    /// The number of unused connections that the client keeps for each origin.
    pub idle: usize,
}

/// The bounds on one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The maximum time of the whole exchange, from the resolution of the name to the last byte of the answer.
    pub time: Duration,
    /// The maximum size of the answer's body in bytes.
    pub body: usize,
}

/// A complete answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// Returns the answer if its status is 200.
    ///
    /// # Errors
    /// Returns [`Error::Redirect`] or [`Error::Status`] for any other status.
    pub fn ok(self) -> Result<Self, Error> {
        match self.status {
            StatusCode::OK => Ok(self),
            status if status.is_redirection() && self.headers.contains_key(header::LOCATION) => {
                let target = self.headers.get(header::LOCATION).map_or(&[][..], HeaderValue::as_bytes);
                // A query may hold a secret.
                let target = target.split(|byte| *byte == b'?').next().unwrap_or_default();
                Err(Error::Redirect(status, quoted(target)))
            }
            status => Err(Error::Status(status)),
        }
    }
}

/// A client for HTTP/1.1 over TLS. Clones share their connections. All requests are sent from one runtime.
#[derive(Clone)]
pub struct Client(legacy::Client<Connector, Full<Bytes>>);

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Creates a client. It opens no connection yet.
    ///
    /// # Errors
    /// Returns an error if the TLS library rejects the gateway's TLS settings.
    pub fn new(settings: Settings) -> Result<Self, String> {
        let Settings { roots, networks, allows_http, idle } = settings;
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let connector = Connector {
            tls: TlsConnector::from(Arc::new(config)),
            networks: Arc::new(networks),
            allows_http,
            timeout: CONNECT_MAX,
        };
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(idle)
            .http1_max_buf_size(HEAD_MAX)
            .http1_max_headers(FIELDS_MAX)
            .build(connector);
        Ok(Self(client))
    }

    /// Fetches a document.
    ///
    /// # Errors
    /// Returns the same errors as [`send`](Self::send).
    pub async fn get(&self, url: &Url, headers: HeaderMap, bounds: Bounds) -> Result<Answer, Error> {
        self.send(Method::GET, url, headers, Bytes::new(), bounds).await
    }

    /// Sends a body with POST. The caller sets `Content-Type`.
    ///
    /// # Errors
    /// Returns the same errors as [`send`](Self::send).
    pub async fn post(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
        bounds: Bounds,
    ) -> Result<Answer, Error> {
        self.send(Method::POST, url, headers, body, bounds).await
    }

    /// Sends a request and reads the whole answer. Redirects are returned and not followed. The server of a redirect's
    /// target would receive the request's credentials, and a redirect could choose the address that the gateway
    /// connects to.
    ///
    /// # Errors
    /// Returns an error if a bound is exceeded, the address is not allowed, or the exchange fails. An answer is
    /// returned regardless of its status.
    pub async fn send(
        &self,
        method: Method,
        url: &Url,
        mut headers: HeaderMap,
        body: Bytes,
        bounds: Bounds,
    ) -> Result<Answer, Error> {
        let agent = HeaderValue::from_static(concat!("portcullis/", env!("CARGO_PKG_VERSION")));
        headers.entry(header::USER_AGENT).or_insert(agent);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = url.uri().clone();
        *request.headers_mut() = headers;
        match tokio::time::timeout(bounds.time, self.exchange(request, bounds.body)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(Error::Timeout(bounds.time)),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>, body_max: usize) -> Result<Answer, Error> {
        let (again, begun) = (request.clone(), Instant::now());
        let answered = match self.0.request(request).await {
            // A server may close a kept connection while a request is on its way. All requests of this client are
            // questions, which a server may answer twice.
            Err(error) if is_broken(&error) && was_kept(&error, begun) => self.0.request(again).await,
            answered => answered,
        };
        let (head, body) = answered.map_err(|error| failure(&error))?.into_parts();
        let codings = head.headers.get_all(header::CONTENT_ENCODING).iter();
        // A compressed body could grow beyond the bound when it is inflated.
        if codings.into_iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Error::Encoded);
        }
        let body = Limited::new(body, body_max).collect().await.map_err(|error| match error {
            error if error.is::<LengthLimitError>() => Error::TooLarge(body_max),
            error => Error::Protocol(reason(&*error)),
        })?;
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
    }
}

/// Returns whether the request was sent over a connection that is older than the request.
fn was_kept(error: &legacy::Error, begun: Instant) -> bool {
    let mut facts = Extensions::new();
    if let Some(connected) = error.connect_info() {
        connected.get_extras(&mut facts);
    }
    facts.get::<Opened>().is_some_and(|opened| opened.0 < begun)
}

/// Returns whether an open connection ended before the answer.
fn is_broken(error: &legacy::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    if error.is_connect() {
        return false;
    }
    let mut source = error.source();
    while let Some(inner) = source {
        let is_cut = inner.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message);
        let kind = inner.downcast_ref::<io::Error>().map(io::Error::kind);
        if is_cut || matches!(kind, Some(BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected)) {
            return true;
        }
        source = inner.source();
    }
    false
}

/// Returns the error of `Connector` if the library's error contains one. Otherwise, returns a description of the
/// library's error.
fn failure(error: &legacy::Error) -> Error {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(own) = inner.downcast_ref::<Error>() {
            return own.clone();
        }
        source = inner.source();
    }
    Error::Protocol(reason(error))
}

/// Returns the description of the innermost cause, which is the most specific one.
fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut reason = error;
    while let Some(inner) = reason.source() {
        reason = inner;
    }
    quoted(reason.to_string().as_bytes())
}
