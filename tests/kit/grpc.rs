//! A gRPC service and a gRPC client on tonic. Each message is a string of bytes, so that no code is generated.

use bytes::{Buf, BufMut, Bytes};
use http_body::{Body, Frame};
use http_body_util::BodyDataStream;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use tower_service::Service as TowerService;

/// A message that a client sends.
pub type Sent = Result<Bytes, Infallible>;

/// The codec for messages of the type `E`.
struct Raw<E>(PhantomData<fn(E)>);

impl<E> Default for Raw<E> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// A message that can be sent.
trait Message: Send + 'static {
    fn bytes(self) -> Bytes;
}

impl Message for Bytes {
    fn bytes(self) -> Bytes {
        self
    }
}

impl Message for Sent {
    fn bytes(self) -> Bytes {
        let Ok(bytes) = self;
        bytes
    }
}

impl<E: Message> Codec for Raw<E> {
    type Encode = E;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<E: Message> Encoder for Raw<E> {
    type Item = E;
    type Error = Status;

    fn encode(&mut self, item: E, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item.bytes());
        Ok(())
    }
}

impl<E> Decoder for Raw<E> {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// The messages of one direction of a stream.
struct Feed<E>(mpsc::UnboundedReceiver<Result<Bytes, E>>);

impl<E> Body for Feed<E> {
    type Data = Bytes;
    type Error = E;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        self.0.poll_recv(cx).map(|message| message.map(|message| message.map(Frame::data)))
    }
}

type Messages<E> = BodyDataStream<Feed<E>>;

fn feed<E>() -> (mpsc::UnboundedSender<Result<Bytes, E>>, Messages<E>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, BodyDataStream::new(Feed(receiver)))
}

/// A handler of one method.
struct Handler<F>(F);

impl<F, R, T, A> TowerService<R> for Handler<F>
where
    F: FnMut(R) -> A,
    A: Future<Output = Result<T, Status>>,
{
    type Response = T;
    type Error = Status;
    type Future = A;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> A {
        (self.0)(request)
    }
}

/// The service `test.Calls`, which behaves as `tests/grpc/service.py`.
#[derive(Clone)]
struct Calls;

impl tonic::server::NamedService for Calls {
    const NAME: &'static str = "test.Calls";
}

impl TowerService<http::Request<tonic::body::Body>> for Calls {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let mut grpc = tonic::server::Grpc::new(Raw::<Bytes>::default());
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            Ok(match path.trim_start_matches("/test.Calls/") {
                "Unary" => grpc.unary(Handler(unary), request).await,
                "Upload" => grpc.client_streaming(Handler(upload), request).await,
                "Download" => grpc.server_streaming(Handler(download), request).await,
                "Talk" => grpc.streaming(Handler(talk), request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

/// Returns the message, with the metadata that it was sent with, or a status that the metadata ask for.
async fn unary(request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
    let asked = request.metadata().get("x-own-status").and_then(|status| status.to_str().ok()?.parse().ok());
    if let Some(code @ 1..) = asked {
        return Err(Status::with_details(Code::from(code), format!("status {code} é"), DETAILS.into()));
    }
    let (metadata, _, message) = request.into_parts();
    let mut response = Response::new(message);
    for (name, value) in metadata.into_headers() {
        if let Some(name) = name.filter(|name| name.as_str().starts_with("x-")) {
            let seen =
                tonic::metadata::AsciiMetadataKey::from_bytes(format!("seen-{name}").as_bytes()).unwrap();
            response.metadata_mut().insert(seen, value.to_str().unwrap().parse().unwrap());
        }
    }
    let sum = tonic::metadata::BinaryMetadataValue::from_bytes(DETAILS);
    response.metadata_mut().insert_bin("sum-bin", sum);
    Ok(response)
}

/// Binary metadata and details of the service.
pub const DETAILS: &[u8] = b"\x00\xff";

async fn upload(request: Request<Streaming<Bytes>>) -> Result<Response<Bytes>, Status> {
    let (mut messages, mut bytes) = (request.into_inner(), 0);
    while let Some(message) = messages.message().await? {
        bytes += message.len();
    }
    Ok(Response::new(bytes.to_string().into()))
}

async fn download(request: Request<Bytes>) -> Result<Response<Messages<Status>>, Status> {
    let numbers = String::from_utf8_lossy(request.get_ref()).into_owned();
    let mut numbers = numbers.split(' ').map(|number| number.parse::<usize>().unwrap());
    let (count, size) = (numbers.next().unwrap(), numbers.next().unwrap());
    let (sender, messages) = feed();
    for number in 0..count {
        let _ = sender.send(Ok(vec![(number % 256) as u8; size].into()));
    }
    Ok(Response::new(messages))
}

async fn talk(request: Request<Streaming<Bytes>>) -> Result<Response<Messages<Status>>, Status> {
    let mut heard = request.into_inner();
    let (sender, messages) = feed();
    tokio::spawn(async move {
        while let Ok(Some(message)) = heard.message().await {
            if &message[..] == b"abort" {
                let _ = sender.send(Err(Status::data_loss("as asked")));
                return;
            }
            let _ = sender.send(Ok(message));
        }
    });
    Ok(Response::new(messages))
}

/// A running service, which ends with the test.
#[derive(Debug)]
pub struct Service {
    address: SocketAddr,
}

impl Service {
    /// Starts the service `test.Calls` on a thread of its own.
    pub fn start() -> Self {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            runtime().block_on(async move {
                let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
                sender.send(incoming.local_addr().unwrap()).unwrap();
                let served = Server::builder().add_service(Calls).serve_with_incoming(incoming);
                let _ = served.await;
            });
        });
        Self { address: receiver.recv().unwrap() }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.address)
    }
}

/// Returns a runtime for a client.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A client of the service `test.Calls`.
#[derive(Debug)]
pub struct Client {
    grpc: tonic::client::Grpc<Channel>,
    fields: Vec<(&'static str, String)>,
}

impl Client {
    /// Connects, for calls with this metadata.
    ///
    /// # Errors
    /// If nothing listens at the address.
    pub async fn connect(
        address: SocketAddr,
        fields: &[(&'static str, &str)],
    ) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = endpoint.connect().await?;
        let fields = fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Ok(Self { grpc: tonic::client::Grpc::new(channel), fields })
    }

    /// Adds or replaces metadata of the next calls.
    pub fn set(&mut self, name: &'static str, value: impl ToString) {
        self.fields.retain(|(known, _)| *known != name);
        self.fields.push((name, value.to_string()));
    }

    async fn request<T>(
        &mut self,
        method: &str,
        message: T,
    ) -> Result<(Request<T>, http::uri::PathAndQuery), Status> {
        self.grpc.ready().await.map_err(|error| Status::unknown(format!("{error:?}")))?;
        let mut request = Request::new(message);
        for (name, value) in &self.fields {
            request.metadata_mut().insert(*name, value.parse().unwrap());
        }
        Ok((request, format!("/test.Calls/{method}").parse().unwrap()))
    }

    /// Sends a message and returns the answer.
    ///
    /// # Errors
    /// The status with which the call ended.
    pub async fn unary(&mut self, method: &str, message: &[u8]) -> Result<Response<Bytes>, Status> {
        let (request, path) = self.request(method, Ok(Bytes::copy_from_slice(message))).await?;
        self.grpc.unary(request, path, Raw::<Sent>::default()).await
    }

    /// Begins to send messages, and returns the answer to all of them.
    ///
    /// # Errors
    /// The status with which the call ended.
    pub async fn upload(
        &mut self,
        send: impl FnOnce(mpsc::UnboundedSender<Sent>),
    ) -> Result<Response<Bytes>, Status> {
        let (sender, messages) = feed();
        send(sender);
        let (request, path) = self.request("Upload", messages).await?;
        self.grpc.client_streaming(request, path, Raw::<Sent>::default()).await
    }

    /// Asks for this number of messages of this size.
    ///
    /// # Errors
    /// The status with which the call ended.
    pub async fn download(&mut self, count: usize, size: usize) -> Result<Streaming<Bytes>, Status> {
        let (request, path) = self.request("Download", Ok(format!("{count} {size}").into())).await?;
        let response = self.grpc.server_streaming(request, path, Raw::<Sent>::default()).await?;
        Ok(response.into_inner())
    }

    /// Begins a call in which both ends send messages. The first message is sent at once.
    ///
    /// # Errors
    /// The status with which the call ended.
    pub async fn talk(
        &mut self,
        first: &[u8],
    ) -> Result<(mpsc::UnboundedSender<Sent>, Streaming<Bytes>), Status> {
        let (sender, messages) = feed();
        sender.send(Ok(Bytes::copy_from_slice(first))).unwrap();
        let (request, path) = self.request("Talk", messages).await?;
        let response = self.grpc.streaming(request, path, Raw::<Sent>::default()).await?;
        Ok((sender, response.into_inner()))
    }
}
