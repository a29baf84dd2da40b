//! Begins a WebSocket once its handshake is answered. The record of the request is written when the WebSocket ends.

use super::record::Record;
use crate::forward::Tunnel;
use crate::peer::{ClientStream, Connection, Session, Takeover};
use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

/// Begins the WebSocket: over HTTP/2 on the stream that `upgrade` provides, over HTTP/1.1 on the whole connection, as
/// soon as its response is sent.
pub(super) fn begin(
    connection: &Connection,
    upgrade: Option<OnUpgrade>,
    tunnel: Box<Tunnel>,
    mut record: Box<Record>,
) {
    record.open(tunnel.stream.clone());
    match upgrade {
        Some(upgrade) => {
            tokio::task::spawn_local(async move {
                // The client may reset the stream before the response.
                if let Ok(client) = upgrade.await {
                    session(tunnel, record, Box::new(TokioIo::new(client)), Bytes::new()).await;
                }
            });
        }
        None => connection
            .takeover
            .set(Some(Takeover::new(|client, early| session(tunnel, record, client, early)))),
    }
}

fn session(tunnel: Box<Tunnel>, mut record: Box<Record>, client: ClientStream, early: Bytes) -> Session {
    record.unpin();
    Box::pin(async move {
        if tunnel.run(client, early).await.close_code().is_none() {
            record.completed();
        }
    })
}
