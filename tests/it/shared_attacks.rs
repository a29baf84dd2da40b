//! Attacks on the shared state, and ways in which it must not change what a gateway accepts.

use crate::kit::portcullis::completed;
use crate::kit::redis::{FalseRedis, Redis};
use crate::kit::{Portcullis, Request, eventually};
use crate::shared::{call, policy, revoke};
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

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

/// The start does not wait for a stream that cannot be read, and says what it has waited for.
#[test]
fn a_start_does_not_wait_for_an_unreadable_stream() {
    let redis = Redis::start();
    redis.ask(&["SET", STREAM, "x"]);
    let begun = Instant::now();
    let gateway = Portcullis::with(&policy(redis.url(), "")).start();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let event = gateway.wait_log("the wait", |line| {
        line["message"] == "the start waits for the revocations of other gateways"
    });
    assert!(event["stream"] == STREAM && event["key"] == "shared.on_error.revocation", "{event}");
    let place = event["shared"].as_str().expect("the server").to_owned();
    let refuses = |line: &serde_json::Value| {
        line["message"]
            .as_str()
            .is_some_and(|event| event.starts_with("the revocations of other gateways are unknown"))
    };
    let event = gateway.wait_log("the refusal of tokens", refuses);
    assert!(event["error"].as_str().is_some_and(|why| why.contains("WRONGTYPE")), "{event}");
    call(gateway.http(), "ada").is_refusal(503, "check_unavailable");
    let ready = Request::get("/readyz").to(gateway.admin());
    let text = ready.text();
    for part in [STREAM, &place, "WRONGTYPE", "revocation = \"deny\""] {
        assert!(ready.status == 503 && text.contains(part), "{part}: {text}");
    }
    redis.ask(&["DEL", STREAM]);
    eventually("the gateway is ready", || Request::get("/readyz").to(gateway.admin()).status == 200);
    call(gateway.http(), "ada").is(200);
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

/// The gateway bounds the answers of every node, although the library opens the connections to the nodes of a cluster.
#[test]
fn a_node_of_a_cluster_that_sends_without_end_takes_no_memory() {
    let sent = Arc::new(AtomicUsize::new(0));
    let server = cluster_node({
        let sent = sent.clone();
        move |_, stream| {
            stream.write_all(b"$500000000\r\n")?;
            (0..400).try_for_each(|_| {
                stream.write_all(&[b'x'; 1 << 20])?;
                sent.fetch_add(1, Ordering::Relaxed);
                Ok(())
            })
        }
    });
    let text = cluster_policy(&server, "");
    let redis = Redis::start();
    let gateway = Portcullis::with(&policy(redis.url(), "")).start();
    reload(&gateway, &text);
    eventually("several answers were cut", || sent.load(Ordering::Relaxed) > 64);
    eventually("the marks are unknown", || call(gateway.http(), "ada").status == 503);
    assert!(gateway.peak_memory() < 200 << 20, "{} MiB", gateway.peak_memory() >> 20);
    // A single answer would have grown to 400 MiB.
    reload(&gateway, &policy(redis.url(), ""));
    eventually("the gateway knows the marks", || call(gateway.http(), "ada").status == 200);
}

/// A reload names another cluster while a call to the old one is in flight. The library connects to the old one again.
#[test]
fn a_cluster_never_gets_the_password_of_the_next_one() {
    let (passwords, reads) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let is_next_asked = Arc::new((Mutex::new(false), Condvar::new()));
    let old = cluster_node({
        let (passwords, is_next_asked) = (passwords.clone(), is_next_asked.clone());
        move |words, stream| {
            if words[0] == "AUTH" {
                passwords.lock().unwrap().extend(words.last().cloned());
                return stream.write_all(b"+OK\r\n");
            }
            let (is_asked, changed) = &*is_next_asked;
            drop(changed.wait_while(is_asked.lock().unwrap(), |is_asked| !*is_asked).unwrap());
            Err(io::ErrorKind::ConnectionReset.into())
        }
    });
    let next = cluster_node({
        let reads = reads.clone();
        move |words, stream| {
            if words[0] == "AUTH" {
                let (is_asked, changed) = &*is_next_asked;
                *is_asked.lock().unwrap() = true;
                changed.notify_all();
                return stream.write_all(b"+OK\r\n");
            }
            reads.fetch_add(usize::from(words[0].starts_with('X')), Ordering::Relaxed);
            stream.write_all(b"-ERR not now\r\n")
        }
    });
    let gateway = Portcullis::with(&cluster_policy(&old, "password = \"of the old one\"\n")).start();
    reload(&gateway, &cluster_policy(&next, "password = \"of the next one\"\n"));
    // The task that reads has then given the old cluster up.
    eventually("the next cluster is asked for marks", || reads.load(Ordering::Relaxed) > 0);
    let passwords = passwords.lock().unwrap();
    assert!(
        !passwords.is_empty() && passwords.iter().all(|known| known == "of the old one"),
        "{passwords:?}"
    );
}

/// Starts the only node of a cluster. `answer` gets the commands that the library does not send by itself.
fn cluster_node(
    answer: impl Fn(&[String], &mut TcpStream) -> io::Result<()> + Clone + Send + 'static,
) -> FalseRedis {
    FalseRedis::streaming(move |words, stream| match words[0].as_str() {
        "PING" => stream.write_all(b"+PONG\r\n"),
        "CLUSTER" => {
            let port = stream.local_addr()?.port();
            let slots = format!("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n");
            stream.write_all(slots.as_bytes())
        }
        _ => answer(words, stream),
    })
}

/// The policy of a gateway that shares its state in the cluster of this node.
fn cluster_policy(node: &FalseRedis, more: &str) -> String {
    let url = node.url();
    policy(url, more).replace(&format!("url = \"{url}\""), &format!("cluster = [\"{url}\"]"))
}

/// Gives a gateway another policy.
fn reload(gateway: &Portcullis, text: &str) {
    gateway.dir().write("gateway.toml", completed(text));
    Request::post("/reload", "").to(gateway.admin()).is(200);
}

/// Every answer is wrong in another way. The gateway keeps its memory and its work, and uses the next good server.
#[test]
fn a_server_with_wrong_answers_takes_no_memory_and_stops_no_task() {
    let deep = "*1\r\n".repeat(100_000);
    let attacks: Arc<[Vec<u8>]> = [
        b"+OK\r\n".to_vec(),
        b":-9223372036854775808\r\n".to_vec(),
        b"*3\r\n:4294967295\r\n:9223372036854775807\r\n:0\r\n".to_vec(),
        b"*3\r\n:1\r\n,nan\r\n,inf\r\n".to_vec(),
        b"*-1\r\n".to_vec(),
        b"$-2\r\n".to_vec(),
        b"*1000000000\r\n".to_vec(),
        b"%9223372036854775807\r\n".to_vec(),
        b"$9223372036854775807\r\n".to_vec(),
        b">2\r\n+message\r\n+x\r\n".to_vec(),
        b"-MOVED 1 127.0.0.1:1\r\n".to_vec(),
        [b"-ERR ".to_vec(), vec![b'x'; 1 << 20], b"\r\n".to_vec()].concat(),
        // More answers than questions.
        b"+PONG\r\n+PONG\r\n*1\r\n+master\r\n".to_vec(),
        [deep.as_bytes(), b":1\r\n"].concat(),
        // Small elements take more memory than bytes.
        [b"*3000000\r\n".to_vec(), b":1\r\n".repeat(3_000_000)].concat(),
    ]
    .into();
    let turn = Arc::new(AtomicUsize::new(0));
    let count = attacks.len();
    let server = FalseRedis::start({
        let (turn, attacks) = (turn.clone(), attacks.clone());
        move |words: &[String]| {
            let turn = turn.fetch_add(1, Ordering::Relaxed);
            match words[0].as_str() {
                // Half of the connections are opened, so that the other commands get their turn.
                "PING" if turn % 2 == 0 => b"+PONG\r\n".to_vec(),
                "ROLE" if turn % 2 == 0 => b"*1\r\n+master\r\n".to_vec(),
                _ => attacks[turn / 2 % attacks.len()].clone(),
            }
        }
    });
    let limit = "[rate_limit.x]\nrate = \"1000/s\"\nby = \"client_ip\"\n";
    let gateway = Portcullis::with(&policy(server.url(), limit)).start();
    eventually("each answer was sent", || {
        call(gateway.http(), "ada");
        revoke(gateway.http(), "bob");
        turn.load(Ordering::Relaxed) > 2 * count
    });
    assert!(gateway.peak_memory() < 200 << 20, "{} MiB", gateway.peak_memory() >> 20);
    assert!(!gateway.log().iter().any(|line| line.to_string().len() > 8192), "a line of the log is long");
    let redis = Redis::start();
    reload(&gateway, &policy(redis.url(), limit));
    revoke(gateway.http(), "ada").is(202);
    eventually("the mark is sent", || redis.marks() >= 1);
    eventually("the limits are up", || gateway.metric("portcullis_shared_limits_up") == Some(1));
    eventually("the gateway is ready", || call(gateway.http(), "eve").status == 200);
}

/// The positions in the stream are times of Redis. A gateway whose clock is far ahead would delete revocations that the
/// next gateway to start needs.
#[test]
fn a_gateway_deletes_no_entry_that_is_recent_by_the_clock_of_redis() {
    let added = (crate::kit::forge::now() - 30 * 86_400) * 1000;
    let zeros = "00".repeat(16);
    let mark = format!(r#"{{"kind":"signal","id":"{zeros}","before":1,"until":{}}}"#, added / 1000 + 60);
    let entry = format!("*1\r\n*2\r\n+{added}-0\r\n*2\r\n+mark\r\n${}\r\n{mark}\r\n", mark.len());
    let limits: Arc<Mutex<Vec<Option<i64>>>> = Arc::default();
    let server = FalseRedis::start({
        let limits = limits.clone();
        move |words: &[String]| match words[0].as_str() {
            "PING" => b"+PONG\r\n".to_vec(),
            "ROLE" => b"*1\r\n+master\r\n".to_vec(),
            "XRANGE" if words[2] == "(0-0" || words[2] == format!("{added}-0") => entry.clone().into(),
            "XRANGE" => b"*0\r\n".to_vec(),
            "XREAD" => {
                std::thread::sleep(Duration::from_millis(20));
                b"*-1\r\n".to_vec()
            }
            "XADD" => {
                let limit = words.iter().position(|word| word == "MINID");
                limits.lock().unwrap().push(limit.map(|at| words[at + 2].parse().unwrap()));
                format!("+{}-0\r\n", added + 1).into()
            }
            _ => b"-ERR no\r\n".to_vec(),
        }
    });
    let gateway = Portcullis::with(&policy(server.url(), "")).start();
    eventually("the marks are known", || call(gateway.http(), "ada").status == 200);
    revoke(gateway.http(), "ada").is(202);
    eventually("the mark is sent", || !limits.lock().unwrap().is_empty());
    let limits = limits.lock().unwrap();
    let hour = 3_600_000;
    assert!(
        limits.iter().all(|limit| limit.is_none_or(|limit| limit <= added - hour)),
        "{limits:?}: {added}"
    );
}

/// Somebody who answers for Redis names four billion gateways, whose debts would close a bucket for centuries. Clients that
/// send few requests are served again soon after.
#[test]
fn a_bucket_that_was_closed_by_a_wrong_answer_opens_once_the_answers_are_right() {
    let is_right = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let server = FalseRedis::start({
        let is_right = is_right.clone();
        move |words: &[String]| {
            let is_right = is_right.load(Ordering::Relaxed);
            match words[0].as_str() {
                "PING" => b"+PONG\r\n".to_vec(),
                "ROLE" => b"*1\r\n+master\r\n".to_vec(),
                "EVALSHA" if words[3].ends_with(":gateways") => {
                    format!(":{}\r\n", if is_right { 1 } else { u32::MAX }).into()
                }
                "EVALSHA" if is_right => format!("*3\r\n:{}\r\n:0\r\n:0\r\n", words[8]).into(),
                "EVALSHA" => format!("*3\r\n:0\r\n:{}\r\n:0\r\n", i64::MAX).into(),
                _ => b"-ERR no\r\n".to_vec(),
            }
        }
    });
    let text = format!(
        "[upstream.echo]\nbuiltin = \"echo\"\n[shared]\nurl = \"{}\"\n[rate_limit.fleet]\nby = \"client_ip\"\n\
         rate = \"10/s\"\n[[route]]\npath = \"/\"\nupstream = \"echo\"\naccess = \"public\"\nrate_limits = \"fleet\"\n",
        server.url()
    );
    let gateway = Portcullis::with(&text).start();
    eventually("the limits are up", || gateway.metric("portcullis_shared_limits_up") == Some(1));
    let status = || Request::get("/").to(gateway.http()).status;
    eventually("the bucket is closed", || status() == 429);
    is_right.store(true, Ordering::Relaxed);
    eventually("the gateway counts itself alone", || gateway.metric("portcullis_shared_gateways") == Some(1));
    let deadline = Instant::now() + Duration::from_secs(30);
    while status() != 200 {
        assert!(Instant::now() < deadline, "the bucket is still closed");
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn a_stream_without_end_keeps_no_gateway_from_the_next_server() {
    let sent = Arc::new(AtomicUsize::new(0));
    let server = FalseRedis::start({
        let sent = sent.clone();
        move |words: &[String]| match words[0].as_str() {
            "PING" => b"+PONG\r\n".to_vec(),
            "ROLE" => b"*1\r\n+master\r\n".to_vec(),
            "XRANGE" => {
                let first = sent.fetch_add(1000, Ordering::Relaxed) + 1;
                let entry = |id: usize| format!("*2\r\n+{id}-0\r\n*2\r\n+mark\r\n+x\r\n");
                ["*1000\r\n".to_owned()]
                    .into_iter()
                    .chain((first..first + 1000).map(entry))
                    .collect::<String>()
                    .into()
            }
            _ => b"-ERR no\r\n".to_vec(),
        }
    });
    // A start would wait for the marks.
    let redis = Redis::start();
    let gateway = Portcullis::with(&policy(redis.url(), "")).start();
    reload(&gateway, &policy(server.url(), ""));
    eventually("many pages were sent", || sent.load(Ordering::Relaxed) > 20_000);
    eventually("the marks are unknown", || call(gateway.http(), "ada").status == 503);
    reload(&gateway, &policy(redis.url(), ""));
    eventually("the gateway knows the marks", || call(gateway.http(), "ada").status == 200);
}

/// A node of a cluster that redirects each command to itself.
#[test]
fn a_cluster_that_redirects_without_end_gets_few_commands() {
    let commands = Arc::new(AtomicUsize::new(0));
    let server = cluster_node({
        let commands = commands.clone();
        move |_, stream| {
            let is_even = commands.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
            let word = if is_even { "MOVED" } else { "ASK" };
            let port = stream.local_addr()?.port();
            stream.write_all(format!("-{word} 1 127.0.0.1:{port}\r\n").as_bytes())
        }
    });
    let text = cluster_policy(&server, "");
    let redis = Redis::start();
    let gateway = Portcullis::with(&policy(redis.url(), "")).start();
    reload(&gateway, &text);
    let began = Instant::now();
    eventually("commands are redirected", || commands.load(Ordering::Relaxed) > 20);
    eventually("a second is over", || began.elapsed() > Duration::from_secs(1));
    let rate = commands.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    assert!(rate < 1_000.0, "{rate} commands a second");
    eventually("the marks are unknown", || call(gateway.http(), "ada").status == 503);
}
