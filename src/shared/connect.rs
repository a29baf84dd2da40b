//! Opens connections to Redis.
//!
//! The gateway opens the streams itself, with its own TLS settings and deadlines, except those to a cluster.

use super::settings::{Login, Servers, SharedSettings};
use super::{Address, link::CALLS_MAX};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ErrorKind, IntoConnectionInfo, Pipeline, RedisConnectionInfo,
    RedisError, RedisFuture, TlsCertificates, Value, cmd,
};
use rustls::pki_types::ServerName;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// The maximum number of bytes that a server sends without a new question. A page of marks has up to 4 MB.
const ANSWERS_MAX: usize = 16 << 20;

/// A connection to Redis, which many calls share. Clones are cheap.
#[derive(Clone)]
pub enum Connection {
    /// To one server.
    One(MultiplexedConnection),
    /// To the nodes of a cluster.
    Cluster(ClusterConnection),
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::One(_) => "Connection::One",
            Self::Cluster(_) => "Connection::Cluster",
        })
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
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
            Self::Cluster(connection) => connection.req_packed_commands(commands, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

/// An open connection. Its task ends with this value, even if a call still holds a clone of the connection.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) connection: Connection,
    driver: Option<AbortHandle>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(driver) = &self.driver {
            driver.abort();
        }
    }
}

/// Why no connection was opened.
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

    /// Reads an error of the library's. Its text has no password.
    fn of(error: &RedisError) -> Self {
        let reason = match error.kind() {
            ErrorKind::AuthenticationFailed => "login",
            _ if matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => "login",
            _ => "connect",
        };
        Self::new(reason, error.to_string())
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
        ping.map_err(|error| Unopened::of(&error))?;
        Ok(opened)
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
        Servers::One { address, database } => open_one(settings, address, &settings.login, *database).await,
        Servers::Sentinel { sentinels, master, database } => {
            let mut last = Unopened::new("connect", "no Sentinel answers");
            for sentinel in sentinels {
                // One Sentinel that does not answer must not use up the time of the others.
                let within =
                    settings.connect_timeout / (1 + u32::try_from(sentinels.len()).unwrap_or(u32::MAX - 1));
                let found = timeout(within, locate(settings, sentinel, master)).await;
                last = match found {
                    Ok(Ok(address)) => {
                        return open_master(settings, &address, *database).await;
                    }
                    Ok(Err(why)) => why,
                    Err(_) => Unopened::new("late", format!("{sentinel}: no answer")),
                };
            }
            Err(last)
        }
        Servers::Cluster(nodes) => open_cluster(settings, nodes, patience).await,
    }
}

/// Asks a Sentinel for the address of the master.
async fn locate(settings: &SharedSettings, sentinel: &Address, master: &str) -> Result<Address, Unopened> {
    let opened = open_one(settings, sentinel, &settings.sentinel_login, 0).await?;
    let mut connection = opened.connection.clone();
    let question = cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master).to_owned();
    let answer: Option<(String, u16)> =
        question.query_async(&mut connection).await.map_err(|error| Unopened::of(&error))?;
    let Some((host, port)) = answer else {
        return Err(Unopened::new("connect", format!("{sentinel} knows no master {master:?}")));
    };
    Ok(Address::Tcp { host: host.into(), port, is_tls: sentinel.is_tls() })
}

/// Connects to the master, and checks that it is one: after a failover, a Sentinel may still name the old one.
async fn open_master(
    settings: &SharedSettings,
    address: &Address,
    database: u16,
) -> Result<Opened, Unopened> {
    let opened = open_one(settings, address, &settings.login, database).await?;
    let mut connection = opened.connection.clone();
    let role: Vec<Value> =
        cmd("ROLE").query_async(&mut connection).await.map_err(|error| Unopened::of(&error))?;
    match role.first().and_then(|role| redis::from_redis_value_ref::<String>(role).ok()).as_deref() {
        Some("master") => Ok(opened),
        Some(_) | None => Err(Unopened::new("connect", format!("{address} is not the master"))),
    }
}

async fn open_one(
    settings: &SharedSettings,
    address: &Address,
    login: &Login,
    database: u16,
) -> Result<Opened, Unopened> {
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
                    Box::new(secured.map_err(|error| bad(error.to_string()))?)
                }
            }
        }
    };
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
    let stream = Bounded { stream, unasked: 0 };
    // Each caller has a deadline of its own.
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_connection_timeout(None)
        .set_pipeline_buffer_size(CALLS_MAX);
    let (connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config)
        .await
        .map_err(|error| Unopened::of(&error))?;
    #[expect(
        clippy::disallowed_methods,
        reason = "the runtime of the shared state, on which nothing is bound to a thread"
    )]
    let driver = tokio::spawn(driver).abort_handle();
    Ok(Opened { connection: Connection::One(connection), driver: Some(driver) })
}

async fn open_cluster(
    settings: &SharedSettings,
    nodes: &[Address],
    patience: Option<Duration>,
) -> Result<Opened, Unopened> {
    let infos = nodes.iter().map(|node| match node {
        Address::Tcp { host, port, is_tls: false } => ConnectionAddr::Tcp(host.to_string(), *port),
        Address::Tcp { host, port, is_tls: true } => {
            ConnectionAddr::TcpTls { host: host.to_string(), port: *port, insecure: false, tls_params: None }
        }
        Address::Unix(path) => ConnectionAddr::Unix(path.clone()),
    });
    let infos: Result<Vec<_>, RedisError> = infos.map(IntoConnectionInfo::into_connection_info).collect();
    let infos = infos.map_err(|error| Unopened::of(&error))?;
    let client = cluster_client(settings, infos, patience).map_err(|error| Unopened::of(&error))?;
    let connection = client.get_async_connection().await.map_err(|error| Unopened::of(&error))?;
    Ok(Opened { connection: Connection::Cluster(connection), driver: None })
}

fn cluster_client(
    settings: &SharedSettings,
    nodes: Vec<redis::ConnectionInfo>,
    patience: Option<Duration>,
) -> Result<ClusterClient, RedisError> {
    let mut builder: ClusterClientBuilder = ClusterClient::builder(nodes)
        .connection_timeout(settings.connect_timeout)
        .response_timeout(patience.unwrap_or(settings.answer_timeout))
        .retries(1)
        .connection_concurrency_limit(CALLS_MAX);
    if let Some(user) = &settings.login.user {
        builder = builder.username(user);
    }
    if let Some(password) = &settings.login.password {
        builder = builder.password(password.as_str());
    }
    if let Some(Some(pem)) = settings.trusted.as_ref().map(|trusted| &trusted.pem) {
        builder = builder.certs(TlsCertificates { client_tls: None, root_cert: Some(pem.to_vec()) });
    }
    builder.build()
}

/// A stream that fails if a server sends more than a page of marks can have. The library keeps a whole answer in memory.
struct Bounded<S> {
    stream: S,
    /// The number of bytes that were read since the last question.
    unasked: usize,
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
        this.unasked = this.unasked.saturating_add(buffer.filled().len() - before);
        Poll::Ready(match this.unasked {
            ..=ANSWERS_MAX => Ok(()),
            _ => Err(io::Error::other(format!("an answer of more than {} MiB", ANSWERS_MAX >> 20))),
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.unasked = 0;
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
