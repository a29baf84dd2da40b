//! Compares the readers with those of hyper's client, which the gateway used before. Each answer that the gateway
//! accepts must mean the same to hyper. `is_known` lists the answers that only hyper accepts.

use super::tests::{Whole, answers, read};
use super::*;
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Reads an answer with hyper's client. The connection ends after its bytes.
async fn hyper_reads(method: &Method, answer: Vec<u8>) -> Option<Whole> {
    let (ours, mut theirs) = tokio::io::duplex(1 << 20);
    let mut settings = http1::Builder::new();
    settings.allow_spaces_after_header_name_in_responses(true).max_headers(256).max_buf_size(256 * 1024);
    let (mut sender, connection) = settings.handshake(TokioIo::new(ours)).await.ok()?;
    let answer = async move {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(theirs.read_u8().await.expect("the request comes"));
        }
        theirs.write_all(&answer).await.expect("the pipe has room");
        drop(theirs);
    };
    let ask = async {
        let request = Request::builder().method(method).uri("/").body(Empty::<bytes::Bytes>::new());
        let response = sender.send_request(request.expect("a request")).await.ok()?;
        let (parts, body) = response.into_parts();
        let collected = body.collect().await.ok()?;
        let trailers = collected.trailers().cloned();
        Some(Whole {
            status: parts.status,
            headers: parts.headers,
            body: collected.to_bytes().to_vec(),
            trailers,
            keep_alive: false,
            length: None,
            rest: Vec::new(),
        })
    };
    let local = tokio::task::LocalSet::new();
    local.spawn_local(connection);
    local.spawn_local(answer);
    local.run_until(ask).await
}

/// Whether the gateway refuses an answer for a reason that hyper does not know, although hyper accepts it.
fn is_known(answer: &[u8], fault: &AnswerFault) -> bool {
    let text = String::from_utf8_lossy(answer);
    match fault {
        // RFC 9112 section 2.2: hyper accepts lines of a head or a trailer section that end with a bare LF.
        AnswerFault::Head("a line that ends without CR")
        | AnswerFault::Chunk("an invalid trailer section") => text.replace("\r\n", "").contains('\n'),
        // RFC 9112 section 6.1: hyper reads an answer with any other coding until its connection closes.
        AnswerFault::Codings(_) => !text.starts_with("HTTP/1.0"),
        // RFC 9112 section 7.1: hyper accepts white space after the size of a chunk.
        AnswerFault::Chunk("an invalid size") => text.split("\r\n").any(|line| {
            let size = line.trim_end_matches([' ', '\t']);
            size != line && size.bytes().all(|byte| byte.is_ascii_hexdigit())
        }),
        // RFC 9112 section 7.1.1: hyper accepts control characters in a chunk extension.
        AnswerFault::Chunk("an invalid extension") => text.contains(|char: char| char.is_ascii_control()),
        AnswerFault::Head(_)
        | AnswerFault::Chunk(_)
        | AnswerFault::Length(_)
        | AnswerFault::TooLarge
        | AnswerFault::TooManyInterim
        | AnswerFault::Incomplete => false,
    }
}

/// Compares both readings of one answer.
fn compare(method: &Method, answer: &[u8]) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let hyper = runtime.block_on(hyper_reads(method, answer.to_vec()));
    let text = String::from_utf8_lossy(answer).into_owned();
    match (read(method, [answer]), hyper) {
        (Ok(ours), Some(mut hyper)) => {
            hyper.headers.remove(header::CONTENT_LENGTH);
            hyper.headers.remove(header::TRANSFER_ENCODING);
            if let http::header::Entry::Occupied(connection) = hyper.headers.entry(header::CONNECTION) {
                let (name, values) = connection.remove_entry_mult();
                let is = |value: &HeaderValue, text: &[u8]| value.as_bytes().eq_ignore_ascii_case(text);
                let of_client = |value: &HeaderValue| !is(value, b"keep-alive") && !is(value, b"close");
                let left: Vec<_> = values.filter(of_client).collect();
                for value in left {
                    hyper.headers.append(&name, value);
                }
            }
            prop_assert_eq!(
                (ours.status, &ours.headers, &ours.body, &ours.trailers),
                (hyper.status, &hyper.headers, &hyper.body, &hyper.trailers),
                "{}",
                text
            );
        }
        (Ok(ours), None) => prop_assert!(false, "hyper refuses {text:?}, which reads as {ours:?}"),
        (Err(fault), Some(_)) => {
            prop_assert!(is_known(answer, &fault), "only hyper accepts {text:?}: {fault}")
        }
        (Err(_), None) => {}
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_answer_means_something_else_than_to_hyper(answer in answers(), is_head in any::<bool>()) {
        compare(if is_head { &Method::HEAD } else { &Method::GET }, &answer)?;
    }

    /// Answers that differ in one byte from a good one.
    #[test]
    fn no_byte_makes_an_answer_mean_something_else_than_to_hyper(
        answer in prop::sample::select(vec![
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;e=f\r\nhel\r\n2\r\nlo\r\n0\r\nX-S: 1\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        ]),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut answer = answer.as_bytes().to_vec();
        let at = at.index(answer.len());
        answer[at] = byte;
        compare(&Method::GET, &answer)?;
    }
}
