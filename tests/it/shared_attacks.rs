//! Attacks on the shared state, and ways in which it must not change what a gateway accepts.

use crate::kit::redis::Redis;
use crate::kit::{Portcullis, eventually};
use crate::shared::{call, policy, revoke};
use std::io::Write;
use std::os::unix::net::UnixListener;

const STREAM: &str = "portcullis:marks:stream";

/// After an entry at the last possible position, Redis takes no more, so the gateways can send no revocation.
#[test]
fn a_stream_that_another_writer_has_ended_counts_as_unreadable() {
    let redis = Redis::start();
    let gateway = Portcullis::with(&policy(redis.url(), "")).start();
    call(gateway.http(), "ada").is(200);
    let last = format!("{0}-{0}", u64::MAX);
    redis.ask(&["XADD", STREAM, &last, "mark", "{}"]);
    let event = "cannot read the revocations of other gateways";
    let event = gateway.wait_log("the error", |line| line["message"] == event);
    assert!(event["error"].as_str().is_some_and(|why| why.contains("delete it")), "{event}");
    // Its removal is the remedy.
    redis.ask(&["DEL", STREAM]);
    revoke(gateway.http(), "ada").is(202);
    eventually("the mark is sent", || redis.marks() == 1);
}

#[test]
fn a_mark_of_another_writer_ends_within_the_longest_duration_of_a_policy() {
    let redis = Redis::start();
    let gateway = Portcullis::with(&policy(redis.url(), "")).start();
    let zeros = "00".repeat(16);
    let mark = format!(r#"{{"kind":"signal","id":"{zeros}","before":1,"until":{}}}"#, u32::MAX);
    redis.ask(&["XADD", STREAM, "*", "mark", &mark]);
    eventually("the mark is applied", || gateway.metric("portcullis_signal_marks") == Some(1));
    // A gateway writes the marks that it knows back.
    redis.ask(&["DEL", STREAM]);
    eventually("the mark is back", || redis.marks() == 1);
    let content = redis.ask(&["XRANGE", STREAM, "-", "+"]);
    assert!(!content.contains(&u32::MAX.to_string()), "{content}");
}

#[test]
fn a_server_that_sends_without_end_takes_no_memory() {
    let dir = crate::kit::dir::Dir::new();
    let path = dir.path().join("redis.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let piece = vec![b'x'; 1 << 20];
                let _ = stream.write_all(b"$500000000\r\n");
                while stream.write_all(&piece).is_ok() {}
            });
        }
    });
    let url = format!("unix:{}", path.display());
    let gateway = Portcullis::with(&policy(&url, "")).start();
    let failures = |reason: &str| {
        gateway
            .metric(&format!(r#"portcullis_shared_failures_total{{reason="{reason}"}}"#))
            .unwrap_or_default()
    };
    eventually("several calls have failed", || {
        ["connect", "late", "lost"].map(failures).iter().sum::<u64>() > 5
    });
    assert!(gateway.peak_memory() < 200 << 20, "{}", gateway.peak_memory());
    call(gateway.http(), "ada").is_refusal(503, "check_unavailable");
}
