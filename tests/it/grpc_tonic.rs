//! gRPC calls through the gateway with tonic as client, and with tonic and grpcio as services.

use crate::grpc::{Running, policy};
use crate::kit::forge::now;
use crate::kit::grpc::{Client, DETAILS, Service, runtime};
use crate::kit::{PATIENCE, Portcullis, token};
use bytes::Bytes;
use serde_json::json;
use std::future::Future;
use tonic::Code;

/// Runs a client within the time limit of a test.
#[track_caller]
fn run(client: impl Future<Output = ()>) {
    runtime()
        .block_on(async { tokio::time::timeout(PATIENCE, client).await.expect("the calls end in time") });
}

async fn client(gateway: &Portcullis, token: &str) -> Client {
    let bearer = format!("Bearer {token}");
    let fields = [("authorization", &*bearer), ("x-own", "1"), ("x-auth-roles", "forged")];
    Client::connect(gateway.http(), &fields).await.expect("the gateway listens")
}

/// Makes the four kinds of call.
async fn kinds(client: &mut Client) {
    let large: Vec<u8> = (0..1 << 20).map(|at| (at % 251) as u8).collect();
    let answer = client.unary("Unary", &large).await.unwrap();
    assert!(answer.get_ref() == &large, "{} bytes", answer.get_ref().len());
    let seen = |name: &str| answer.metadata().get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(seen("seen-x-auth-subject").as_deref(), Some("ada"));
    assert_eq!(seen("seen-x-own").as_deref(), Some("1"));
    assert_eq!(seen("seen-x-auth-roles"), None, "the client may not state roles");
    assert_eq!(answer.metadata().get_bin("sum-bin").unwrap().to_bytes().unwrap(), DETAILS);
    assert_eq!(client.unary("Unary", b"").await.unwrap().get_ref(), &b""[..]);

    let uploaded = client.upload(|sender| {
        (0..300).for_each(|_| sender.send(Ok(Bytes::from_static(&[b'x'; 5000]))).unwrap());
    });
    assert_eq!(uploaded.await.unwrap().get_ref(), &b"1500000"[..]);

    let mut messages = client.download(300, 5000).await.unwrap();
    for number in 0..300 {
        let message = messages.message().await.unwrap().expect("300 messages");
        assert!(
            message.len() == 5000 && message.iter().all(|byte| *byte == (number % 256) as u8),
            "{number}"
        );
    }
    assert_eq!(messages.message().await.unwrap(), None);

    // Each message is answered before the next one is sent.
    let (sender, mut answers) = client.talk(b"one").await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap(), "one");
    for message in [&b"two"[..], b"", &large] {
        sender.send(Ok(Bytes::copy_from_slice(message))).unwrap();
        assert!(answers.message().await.unwrap().unwrap() == message);
    }
    drop(sender);
    assert_eq!(answers.message().await.unwrap(), None);
    // A service that sends no message before its status may send both in one head.
    let status = match client.talk(b"abort").await {
        Ok((_sender, mut answers)) => answers.message().await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!((status.code(), status.message()), (Code::DataLoss, "as asked"));
}

/// Lets the service end a call with each status. Returns the details that arrived.
async fn statuses(client: &mut Client) -> Vec<Vec<u8>> {
    let mut details = Vec::new();
    client.set("x-own-status", 0);
    client.unary("Unary", b"x").await.unwrap();
    for code in 1..=16 {
        client.set("x-own-status", code);
        let status = client.unary("Unary", b"x").await.unwrap_err();
        assert_eq!((status.code() as i32, status.message()), (code, &*format!("status {code} é")));
        details.push(status.details().to_vec());
    }
    details
}

#[test]
fn tonic_calls_tonic_in_all_four_kinds_and_with_all_statuses() {
    let service = Service::start();
    let gateway = Portcullis::with(&policy(&service.to_string(), "")).start();
    run(async {
        let mut client = client(&gateway, &token("ada").to_string()).await;
        kinds(&mut client).await;
        let details = statuses(&mut client).await;
        assert!(details.iter().all(|details| details == DETAILS), "{details:?}");
        let refused = client.unary("Admin", b"x").await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "insufficient_role"));
        let mut stranger = Client::connect(gateway.http(), &[]).await.unwrap();
        let refused = stranger.unary("Unary", b"x").await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, "missing_token"));
    });
}

#[test]
fn tonic_calls_grpcio_in_all_four_kinds_and_with_all_statuses() {
    let (_service, port) = Running::service(&[]);
    let gateway = Portcullis::with(&policy(&format!("http://127.0.0.1:{port}"), "")).start();
    run(async {
        let mut client = client(&gateway, &token("ada").to_string()).await;
        kinds(&mut client).await;
        statuses(&mut client).await;
    });
}

/// A call whose client still sends, and whose service has not answered, ends with the token, too.
#[test]
fn a_stream_of_a_client_ends_with_its_token() {
    let service = Service::start();
    let gateway = Portcullis::with(&policy(&service.to_string(), "")).start();
    let token = token("ada").claim("exp", json!(now() + 3)).to_string();
    run(async {
        let mut client = client(&gateway, &token).await;
        let mut kept = None;
        let uploaded = client.upload(|sender| {
            sender.send(Ok(Bytes::from_static(b"first"))).unwrap();
            kept = Some(sender);
        });
        let status = uploaded.await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "expired_token"));
        drop(kept);
    });
}
