//! Opens connections to Redis.
//!
//! The gateway opens the streams itself, with its own TLS settings and deadlines. It bounds the answers of each server,
//! also of the nodes of a cluster.

use super::settings::{Login, Servers, SharedSettings};
use super::{Address, refusals};
use crate::tls::describe_handshake;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::{ClusterConnection, Connect};
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ErrorKind, IntoConnectionInfo, Pipeline, RedisConnectionInfo,
    RedisError, RedisFuture, RedisResult, ServerErrorKind, Value, cmd,
};
use rustls::pki_types::ServerName;
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

/// The maximum number of calls in flight.
pub(super) const CALLS_MAX: usize = 1024;
/// The maximum number of bytes that a server sends without a new question. A page of marks has up to 4 MB.
const ANSWERS_MAX: usize = 16 << 20;
/// The maximum number of lines among these bytes. A page of marks has about 10,000. The library needs up to 100 bytes of
/// memory for an element, which takes one line of a few bytes.
const LINES_MAX: usize = 1 << 17;

/// The maximum length of the name of a host that a Sentinel names.
const HOST_MAX: usize = 255;

/// A connection to Redis, which many calls share. Clones are cheap.
#[derive(Clone)]
pub enum Connection {
    /// To one server.
    One(MultiplexedConnection),
    /// To the nodes of a cluster, with the host of the first one of the policy.
    Cluster(ClusterConnection<Node>, Arc<str>),
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::One(_) => "Connection::One",
            Self::Cluster(..) => "Connection::Cluster",
        })
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(command),
            Self::Cluster(connection, host) => Box::pin(async move {
                let answer = connection.req_packed_command(command).await;
                match node_of_redirect(&answer, host) {
                    Some(node) => {
                        connection.route_command(command.clone(), RoutingInfo::SingleNode(node)).await
                    }
                    None => answer,
                }
            }),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(connection) => connection.req_packed_commands(commands, offset, count),
            Self::Cluster(connection, host) => Box::pin(async move {
                let answers = connection.req_packed_commands(commands, offset, count).await;
                match node_of_redirect(&answers, host) {
                    Some(node) => connection.route_pipeline(commands.clone(), offset, count, node).await,
                    None => answers,
                }
            }),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(connection) => connection.get_db(),
            Self::Cluster(connection, _) => connection.get_db(),
        }
    }
}

/// Returns the node to which an answer redirects, if the answer has its port and no host. The host is then the one that was
/// asked (Redis Cluster specification, MOVED redirection). redis 1.8 does not follow such a redirect in
/// its one retry.
fn node_of_redirect<T>(answer: &RedisResult<T>, host: &str) -> Option<SingleNodeRoutingInfo> {
    let error = answer.as_ref().err()?;
    let has_moved = error.kind() == ErrorKind::Server(ServerErrorKind::Moved);
    let (node, _slot) = error.redirect_node().filter(|_| has_moved)?;
    let port = node.strip_prefix(':')?.parse().ok()?;
    Some(SingleNodeRoutingInfo::ByAddress { host: host.to_owned(), port })
}

/// An open connection. Its task ends with this value, even if a call still holds a clone of the connection.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) connection: Connection,
    /// The reason why the first Sentinels of the list were passed over; `None` if the first one was followed.
    pub(super) passed_over: Option<String>,
    /// Ends the task of the connection.
    _driver: Option<Driver>,
    /// The settings of a cluster, with which the library opens connections to its nodes.
    _cluster: Option<Arc<SharedSettings>>,
}

/// The task of a connection. It ends with this value.
#[derive(Debug)]
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The reason why no connection was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unopened {
    /// The label in the metrics: `connect`, `tls`, `login` or `late`.
    pub(super) reason: &'static str,
    pub(super) why: String,
}

impl Unopened {
    fn new(reason: &'static str, why: impl Into<String>) -> Self {
        Self { reason, why: why.into() }
    }

    /// Reads an error of the library's. A server may repeat the login in its error, so passwords are removed.
    fn of(error: &RedisError, settings: &SharedSettings) -> Self {
        let reason = match error.kind() {
            ErrorKind::AuthenticationFailed => "login",
            _ if matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => "login",
            _ => "connect",
        };
        let text = settings.without_passwords(refusals::whole_text(error));
        let hint = match reason {
            "login" if error.code() == Some("NOPERM") => "; the ACL of the user must allow this command",
            "login" => "; check user and password of [shared]",
            _ => "",
        };
        Self::new(reason, refusals::shortened(&text) + hint)
    }
}

/// Opens a connection that answers, within the deadline of the settings. `patience`: how long one call may take; `None` if the
/// caller of each call sets a deadline of its own.
pub(super) async fn open(settings: &SharedSettings, patience: Option<Duration>) -> Result<Opened, Unopened> {
    let answering = async {
        let opened = try_open(settings, patience).await?;
        // The kernel accepts connections for a frozen process, and without a login nothing has been asked yet.
        let mut connection = opened.connection.clone();
        let ping: Result<Value, RedisError> = cmd("PING").query_async(&mut connection).await;
        match ping {
            // This server still answers questions, and refuses writes and pings.
            Err(error) if error.code() == Some("MISCONF") => Ok(opened),
            Err(error) => Err(Unopened::of(&error, settings)),
            Ok(_) => Ok(opened),
        }
    };
    match timeout(settings.connect_timeout, answering).await {
        Ok(opened) => opened,
        Err(_) => {
            let millis = settings.connect_timeout.as_millis();
            Err(Unopened::new("late", format!("no connection within {millis} ms")))
        }
    }
}

async fn try_open(settings: &SharedSettings, patience: Option<Duration>) -> Result<Opened, Unopened> {
    match &settings.servers {
        Servers::One { address, database } => {
            let opened = open_one(settings, address, &settings.login, *database).await?;
            check_role(settings, &opened, address, false).await?;
            Ok(opened)
        }
        Servers::Sentinel { sentinels, master, database } => {
            open_by_sentinels(settings, sentinels, master, *database).await
        }
        Servers::Cluster(nodes) => open_cluster(settings, nodes, patience).await,
    }
}

/// Connects to the master that the first usable Sentinel names. A Sentinel whose view is old may name a server that is a
/// replica by now, or is gone.
async fn open_by_sentinels(
    settings: &SharedSettings,
    sentinels: &[Address],
    master: &str,
    database: u16,
) -> Result<Opened, Unopened> {
    // The rest of the time is for the question whether the server answers.
    let end = Instant::now() + settings.connect_timeout * 9 / 10;
    let (mut passed_over, mut reason) = (String::new(), "connect");
    for (sentinel, left) in sentinels.iter().zip((1..=sentinels.len()).rev()) {
        // A Sentinel or a server that does not answer must not use up the time of the others.
        let rest = end.saturating_duration_since(Instant::now());
        let within = rest / u32::try_from(left).unwrap_or(u32::MAX);
        let opening = async {
            let address = locate(settings, sentinel, master).await?;
            let opened = open_one(settings, &address, &settings.login, database).await?;
            check_role(settings, &opened, &address, true).await?;
            Ok(opened)
        };
        let unopened = match timeout(within, opening).await {
            Ok(Ok(mut opened)) => {
                opened.passed_over = (!passed_over.is_empty()).then_some(passed_over);
                return Ok(opened);
            }
            Ok(Err(unopened)) => unopened,
            Err(_) => Unopened::new("late", "no answer in time"),
        };
        reason = unopened.reason;
        let separator = if passed_over.is_empty() { "" } else { "; " };
        passed_over += &format!("{separator}by the Sentinel {sentinel}: {}", unopened.why);
    }
    Err(Unopened::new(reason, passed_over))
}

/// Asks a Sentinel for the address of the master.
async fn locate(settings: &SharedSettings, sentinel: &Address, master: &str) -> Result<Address, Unopened> {
    let opened = open_one(settings, sentinel, &settings.sentinel_login, 0).await?;
    let mut connection = opened.connection.clone();
    let question = cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master).to_owned();
    let answer: Option<(String, String)> =
        question.query_async(&mut connection).await.map_err(|error| Unopened::of(&error, settings))?;
    let Some((host, port)) = answer else {
        return Err(Unopened::new("connect", format!("it knows no master {master:?}")));
    };
    // The library would cut a number off that is no port.
    let Some(port) = port.parse().ok().filter(|_| host.len() <= HOST_MAX) else {
        return Err(Unopened::new("connect", "it names no host and port"));
    };
    Ok(Address::Tcp { host: host.into(), port, is_tls: sentinel.is_tls() })
}

/// Checks that a server is a master: a replica accepts no revocation and no count. `must_know`: whether a server that does
/// not state its role is refused.
async fn check_role(
    settings: &SharedSettings,
    opened: &Opened,
    address: &Address,
    must_know: bool,
) -> Result<(), Unopened> {
    let mut connection = opened.connection.clone();
    let answer: Result<Vec<Value>, RedisError> = cmd("ROLE").query_async(&mut connection).await;
    let role = match &answer {
        Ok(role) => role.first().and_then(|role| redis::from_redis_value_ref::<String>(role).ok()),
        // The user may not ask, or a proxy does not know the command.
        Err(error) if !must_know && error.clone().into_server_errors().is_some() => return Ok(()),
        Err(error) => return Err(Unopened::of(error, settings)),
    };
    let role = match role.as_deref() {
        Some("master") => return Ok(()),
        Some("slave") => "a replica",
        Some("sentinel") => "a Sentinel",
        Some(_) | None => "no server of a known role",
    };
    Err(Unopened::new("connect", format!("{address} is {role}, not the master")))
}

async fn open_one(
    settings: &SharedSettings,
    address: &Address,
    login: &Login,
    database: u16,
) -> Result<Opened, Unopened> {
    let stream = stream_to(settings, address).await?;
    // Each caller has a deadline of its own.
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_connection_timeout(None)
        .set_pipeline_buffer_size(CALLS_MAX);
    let (connection, driver) =
        log_in(stream, login, database, config).await.map_err(|error| Unopened::of(&error, settings))?;
    Ok(Opened {
        connection: Connection::One(connection),
        passed_over: None,
        _driver: Some(driver),
        _cluster: None,
    })
}

/// Opens a stream to a server, with TLS if the address says so.
async fn stream_to(settings: &SharedSettings, address: &Address) -> Result<Bounded<Box<dyn Wire>>, Unopened> {
    let cannot = |error: std::io::Error| Unopened::new("connect", format!("{address}: {error}"));
    let stream: Box<dyn Wire> = match address {
        Address::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(cannot)?),
        Address::Tcp { host, port, is_tls } => {
            let stream = TcpStream::connect((&**host, *port)).await.map_err(cannot)?;
            stream.set_nodelay(true).map_err(cannot)?;
            match (is_tls, &settings.trusted) {
                (false, _) => Box::new(stream),
                (true, None) => return Err(Unopened::new("tls", "no authorities")),
                (true, Some(trusted)) => {
                    let bad = |error: String| Unopened::new("tls", format!("{address}: {error}"));
                    let name =
                        ServerName::try_from(host.to_string()).map_err(|error| bad(error.to_string()))?;
                    let secured = trusted.connector.connect(name, stream).await;
                    Box::new(secured.map_err(|error| bad(describe_handshake(&error)))?)
                }
            }
        }
    };
    Ok(Bounded { stream, unasked: 0, lines: 0 })
}

/// Logs in over a stream. Returns the connection, and the task that serves it.
async fn log_in(
    stream: Bounded<Box<dyn Wire>>,
    login: &Login,
    database: u16,
    config: AsyncConnectionConfig,
) -> Result<(MultiplexedConnection, Driver), RedisError> {
    let mut info = RedisConnectionInfo::default()
        .set_db(i64::from(database))
        // An ACL user then needs no permission for CLIENT SETINFO.
        .set_skip_set_lib_name();
    if let Some(user) = &login.user {
        info = info.set_username(user);
    }
    if let Some(password) = &login.password {
        info = info.set_password(password.as_str());
    }
    let (connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config).await?;
    #[expect(
        clippy::disallowed_methods,
        reason = "the runtime of the shared state, on which nothing is bound to a thread"
    )]
    let driver = tokio::spawn(driver).abort_handle();
    Ok((connection, Driver(driver)))
}

async fn open_cluster(
    settings: &SharedSettings,
    nodes: &[Address],
    patience: Option<Duration>,
) -> Result<Opened, Unopened> {
    let host = nodes.iter().find_map(|node| match node {
        Address::Tcp { host, .. } => Some(Arc::from(&**host)),
        Address::Unix(_) => None,
    });
    let host = host.unwrap_or_default();
    let infos = nodes.iter().map(|node| match node {
        Address::Tcp { host, port, is_tls: false } => ConnectionAddr::Tcp(host.to_string(), *port),
        Address::Tcp { host, port, is_tls: true } => {
            ConnectionAddr::TcpTls { host: host.to_string(), port: *port, insecure: false, tls_params: None }
        }
        Address::Unix(path) => ConnectionAddr::Unix(path.clone()),
    });
    let infos: Result<Vec<_>, RedisError> = infos.map(IntoConnectionInfo::into_connection_info).collect();
    let infos = infos.map_err(|error| Unopened::of(&error, settings))?;
    let settings = Arc::new(settings.clone());
    let client = ClusterClient::builder(infos)
        .username(register(&settings))
        .connection_timeout(settings.connect_timeout)
        .response_timeout(patience.unwrap_or(settings.answer_timeout))
        .retries(1)
        .connection_concurrency_limit(CALLS_MAX)
        .build()
        .map_err(|error| Unopened::of(&error, &settings))?;
    let connection = client
        .get_async_generic_connection::<Node>()
        .await
        .map_err(|error| Unopened::of(&error, &settings))?;
    Ok(Opened {
        connection: Connection::Cluster(connection, host),
        passed_over: None,
        _driver: None,
        _cluster: Some(settings),
    })
}

thread_local! {
    /// The settings of the clusters to which the link of this thread connects, by a number. The library opens the
    /// connections to the nodes, on the same thread, and hands no settings on but a user name. The number takes its place,
    /// so that a cluster never gets the login of the next one, which a reload names.
    static CLUSTERS: RefCell<Clusters> = const { RefCell::new(Clusters { known: Vec::new(), next: 0 }) };
}

struct Clusters {
    known: Vec<(u64, Weak<SharedSettings>)>,
    next: u64,
}

/// Keeps the settings of a cluster for its nodes until the connection to the cluster is dropped. Returns their number.
fn register(settings: &Arc<SharedSettings>) -> String {
    CLUSTERS.with_borrow_mut(|clusters| {
        clusters.known.retain(|(_, known)| known.strong_count() > 0);
        let number = clusters.next;
        clusters.next += 1;
        clusters.known.push((number, Arc::downgrade(settings)));
        number.to_string()
    })
}

/// Returns the settings with this number.
fn registered(number: Option<&str>) -> Option<Arc<SharedSettings>> {
    let number: u64 = number?.parse().ok()?;
    CLUSTERS.with_borrow(|clusters| {
        let (_, settings) = clusters.known.iter().find(|(known, _)| *known == number)?;
        settings.upgrade()
    })
}

/// A connection to a node of a cluster. The gateway opens its stream as it does to a single server.
#[derive(Clone, Debug)]
pub struct Node {
    connection: MultiplexedConnection,
    /// Ends the task of the connection with the last clone.
    _driver: Arc<Driver>,
}

impl Connect for Node {
    fn connect_with_config<'a, T>(info: T, config: AsyncConnectionConfig) -> RedisFuture<'a, Self>
    where
        T: IntoConnectionInfo + Send + 'a,
    {
        Box::pin(async move {
            let info = info.into_connection_info()?;
            let Some(settings) = registered(info.redis_settings().username()) else {
                return Err(io::Error::other("the connection to the cluster has ended").into());
            };
            let address = match info.addr() {
                ConnectionAddr::Tcp(host, port) => {
                    Address::Tcp { host: host.as_str().into(), port: *port, is_tls: false }
                }
                ConnectionAddr::TcpTls { host, port, .. } => {
                    Address::Tcp { host: host.as_str().into(), port: *port, is_tls: true }
                }
                _ => return Err(io::Error::other("a node of a cluster has a host and a port").into()),
            };
            let opening = async {
                let stream = stream_to(&settings, &address)
                    .await
                    .map_err(|unopened| io::Error::other(unopened.why))?;
                log_in(stream, &settings.login, 0, config).await
            };
            let (connection, driver) = timeout(settings.connect_timeout, opening)
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            Ok(Self { connection, _driver: Arc::new(driver) })
        })
    }
}

impl ConnectionLike for Node {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        self.connection.req_packed_command(command)
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.connection.req_packed_commands(commands, offset, count)
    }

    fn get_db(&self) -> i64 {
        self.connection.get_db()
    }
}

/// A stream that fails if a server sends more than a page of marks can have. The library keeps a whole answer in memory.
struct Bounded<S> {
    stream: S,
    /// The number of bytes that were read since the last question.
    unasked: usize,
    /// The number of lines among these bytes.
    lines: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        let read = &buffer.filled()[before..];
        this.unasked = this.unasked.saturating_add(read.len());
        this.lines = this.lines.saturating_add(read.iter().filter(|byte| **byte == b'\n').count());
        Poll::Ready(match (this.unasked, this.lines) {
            (..=ANSWERS_MAX, ..=LINES_MAX) => Ok(()),
            _ => {
                let bound = format!("{} MiB or {LINES_MAX} lines", ANSWERS_MAX >> 20);
                Err(io::Error::other(format!("an answer of more than {bound}")))
            }
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        (this.unasked, this.lines) = (0, 0);
        Pin::new(&mut this.stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// A stream of bytes to a server.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire for S {}
