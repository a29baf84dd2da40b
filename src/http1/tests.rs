//! Every way to frame an answer, however its bytes arrive.

use super::*;
use bytes::BytesMut;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use proptest::prelude::*;

/// A whole answer as a reader sees it, and the bytes that were left after it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) keep_alive: bool,
    pub(super) length: Option<u64>,
    pub(super) rest: Vec<u8>,
}

/// Reads an answer whose bytes arrive in these pieces, and then the end of the connection.
pub(super) fn read<'p>(
    method: &Method,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> Result<Whole, AnswerFault> {
    let pieces: Vec<&[u8]> = pieces.into_iter().collect();
    let mut known = KnownHead::default();
    let first = read_with(&mut known, method, &pieces);
    // The same answer as the last one means the same.
    assert_eq!(format!("{:?}", read_with(&mut known, method, &pieces)), format!("{first:?}"));
    first
}

fn read_with(known: &mut KnownHead, method: &Method, pieces: &[&[u8]]) -> Result<Whole, AnswerFault> {
    let (mut buffer, mut headers) = (BytesMut::new(), HeaderMap::new());
    let mut pieces = pieces.iter().filter(|piece| !piece.is_empty());
    let mut reader = HeadReader::new(method);
    let head = loop {
        if let Some(head) = reader.read(&mut buffer, &mut headers, known)? {
            break head;
        }
        buffer.extend_from_slice(pieces.next().ok_or(AnswerFault::Incomplete)?);
    };
    let mut reader = BodyReader::new(head.framing);
    let (mut body, mut trailers) = (Vec::new(), None);
    loop {
        match reader.read(&mut buffer)? {
            Some(Piece::Data(data)) => {
                assert!(!data.is_empty());
                body.extend_from_slice(&data);
            }
            Some(Piece::Trailers(fields)) => assert!(trailers.replace(fields).is_none()),
            None if reader.is_ended() => break,
            None => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => reader.close()?,
            },
        }
    }
    pieces.for_each(|piece| buffer.extend_from_slice(piece));
    let AnswerHead { status, length, keep_alive, .. } = head;
    Ok(Whole { status, headers, body, trailers, keep_alive, length, rest: buffer.to_vec() })
}

fn get(answer: &[u8]) -> Result<Whole, AnswerFault> {
    read(&Method::GET, [answer])
}

fn ok(fields_and_body: &str) -> Result<Whole, AnswerFault> {
    get(format!("HTTP/1.1 200 OK\r\n{fields_and_body}").as_bytes())
}

/// Each row: the section of RFC 9112 (of RFC 9110 where it begins with a 9110), why a lenient reader could be misled, the
/// answer after its status line, and the expected reason.
#[test]
fn ambiguous_framing_is_refused() {
    const TE: &str = "Transfer-Encoding: chunked\r\n";
    let rows: [(&str, &str, &str); 58] = [
        ("9110 8.6", "unequal lengths", "Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc"),
        ("9110 8.6", "a list of unequal lengths", "Content-Length: 2, 3\r\n\r\nabc"),
        ("9110 8.6", "an empty member", "Content-Length: 2,\r\n\r\nab"),
        ("9110 8.6", "an empty length", "Content-Length: \r\n\r\n"),
        ("9110 8.6", "a plus sign", "Content-Length: +2\r\n\r\nab"),
        ("9110 8.6", "a minus sign", "Content-Length: -2\r\n\r\nab"),
        ("9110 8.6", "a space inside", "Content-Length: 2 2\r\n\r\nab"),
        ("9110 8.6", "hexadecimal", "Content-Length: 0x2\r\n\r\nab"),
        ("9110 8.6", "a fraction", "Content-Length: 2.0\r\n\r\nab"),
        ("9110 8.6", "an underscore", "Content-Length: 1_0\r\n\r\n0123456789"),
        ("9110 8.6", "digits of another script", "Content-Length: ２\r\n\r\nab"),
        ("9110 8.6", "2 to the power of 64, plus 2", "Content-Length: 18446744073709551618\r\n\r\nab"),
        ("9110 8.6", "more than 18 digits", "Content-Length: 1000000000000000000\r\n\r\n"),
        ("6.1", "a coding before chunked", "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("6.1", "a coding after chunked", "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
        ("6.1", "chunked twice", "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
        (
            "6.1",
            "chunked in two fields",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "6.1",
            "a coding in another field",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        ),
        ("6.1", "no coding", "Transfer-Encoding: \r\nContent-Length: 2\r\n\r\nab"),
        ("6.1", "identity", "Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nab"),
        ("6.1", "a coding that only resembles chunked", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ("6.1", "chunked in quotes", "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
        ("6.1", "chunked with a parameter", "Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n"),
        ("6.1", "chunked after a vertical tab", "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
        ("5.2", "a folded line", "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
        ("5.2", "a folded line with a tab", "X-A: b\r\n\tContent-Length: 2\r\n\r\nab"),
        ("5.2", "a field line that begins with a space", " Content-Length: 2\r\n\r\nab"),
        ("2.2", "a bare line feed after a field", "X-A: b\nContent-Length: 2\r\n\r\nab"),
        ("2.2", "a bare line feed after the last field", "Content-Length: 2\n\r\nab"),
        ("2.2", "a bare line feed as the empty line", "Content-Length: 2\r\n\nab"),
        ("2.2", "only bare line feeds", "Content-Length: 2\n\nab"),
        ("2.2", "a bare carriage return in a value", "X-A: b\rContent-Length: 2\r\n\r\nab"),
        (
            "2.2",
            "a bare carriage return before the line feed's own",
            "X-A: b\r\r\nContent-Length: 2\r\n\r\nab",
        ),
        ("9110 5.5", "NUL in a value", "X-A: b\0\r\nContent-Length: 2\r\n\r\nab"),
        ("9110 5.5", "another control character in a value", "X-A: \x01\r\nContent-Length: 2\r\n\r\nab"),
        ("9110 5.5", "DEL in a value", "X-A: \x7f\r\nContent-Length: 2\r\n\r\nab"),
        ("9110 5.1", "NUL in a name", "X\0A: b\r\nContent-Length: 2\r\n\r\nab"),
        ("9110 5.1", "a space in a name", "X A: b\r\nContent-Length: 2\r\n\r\nab"),
        ("9110 5.1", "an empty name", ": b\r\nContent-Length: 2\r\n\r\nab"),
        ("5", "a line without a colon", "Content-Length\r\n\r\n"),
        ("7.1", "no size", "TE\r\n\r\n"),
        ("7.1", "a sign before the size", "TE+2\r\nab\r\n0\r\n\r\n"),
        ("7.1", "white space before the size", "TE 2\r\nab\r\n0\r\n\r\n"),
        ("7.1", "white space after the size", "TE2 \r\nab\r\n0\r\n\r\n"),
        ("7.1", "a prefix of hexadecimal numbers", "TE0x2\r\nab\r\n0\r\n\r\n"),
        ("7.1", "an underscore in the size", "TE1_0\r\n0123456789abcdef\r\n0\r\n\r\n"),
        ("7.1", "a size of more than 64 bits", "TE10000000000000002\r\nab\r\n0\r\n\r\n"),
        ("7.1", "a size with many leading zeros", "TE00000000000000002\r\nab\r\n0\r\n\r\n"),
        ("7.1", "a size that ends with a bare line feed", "TE2\nab\r\n0\r\n\r\n"),
        ("7.1", "data that ends with a bare line feed", "TE2\r\nab\n0\r\n\r\n"),
        ("7.1", "data that is longer than its size", "TE2\r\nabc\r\n0\r\n\r\n"),
        ("7.1", "data that is shorter than its size", "TE3\r\nab\r\n0\r\n\r\n"),
        ("7.1.1", "a bare line feed in an extension", "TE2;a\nb\r\nab\r\n0\r\n\r\n"),
        ("7.1.1", "a bare carriage return in an extension", "TE2;a\rb\r\nab\r\n0\r\n\r\n"),
        ("7.1.1", "NUL in an extension", "TE2;\0\r\nab\r\n0\r\n\r\n"),
        ("7.1.2", "a trailer section without its end", "TE0\r\nX-A: b\r\n"),
        ("7.1.2", "a folded trailer", "TE0\r\nX-A: b\r\n c\r\n\r\n"),
        ("7.1.2", "a bare line feed in the trailer section", "TE0\r\nX-A: b\n\r\n"),
    ];
    for (section, name, answer) in rows {
        let answer = match answer.strip_prefix("TE") {
            Some(chunks) => format!("{TE}\r\n{chunks}"),
            None => answer.to_owned(),
        };
        let read = ok(&answer);
        assert!(read.is_err(), "RFC {section}, {name}: {read:?}");
    }
    for (name, answer) in [
        (
            "RFC 9112 6.1: HTTP/1.0 has no codings",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "RFC 9112 2.2: an empty line before the status line",
            "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        ("RFC 9112 2.3: another major version", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("RFC 9112 2.3: a minor version that does not exist", "HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("RFC 9112 2.3: the name in lower case", "http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("RFC 9112 4: a status line with two spaces", "HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("RFC 9112 4: a status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
        ("RFC 9112 4: a status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"),
        ("RFC 9112 4: a status below 100", "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n"),
        (
            "RFC 9112 4: a control character in the reason phrase",
            "HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n",
        ),
        ("RFC 9112 2.2: a status line with a bare line feed", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n"),
        ("RFC 9112 2.2: the same without fields", "HTTP/1.1 204 No Content\n\r\n"),
        ("something else than HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    ] {
        let read = get(answer.as_bytes());
        assert!(matches!(read, Err(ref fault) if *fault != AnswerFault::Incomplete), "{name}: {read:?}");
    }
}

/// The neighbours of the rows above that have one reading only.
#[test]
fn unambiguous_framing_is_accepted() {
    let rows: [(&str, &str, &str, bool); 20] = [
        ("a length", "Content-Length: 2\r\n\r\nab", "ab", true),
        ("the same length twice", "Content-Length: 2\r\nContent-Length: 2\r\n\r\nab", "ab", true),
        ("a list of one length", "Content-Length: 2, 2\r\n\r\nab", "ab", true),
        ("leading zeros", "Content-Length: 0000000000000000000002\r\n\r\nab", "ab", true),
        ("white space around a length", "Content-Length: \t2\t \r\n\r\nab", "ab", true),
        (
            "RFC 9112 6.3 (3): chunks beside a length",
            "Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
            "ab",
            false,
        ),
        ("capitals", "TRANSFER-ENCODING: CHUNKED\r\n\r\n2\r\nab\r\n0\r\n\r\n", "ab", true),
        ("RFC 9112 5.1: white space before a colon", "Content-Length : 2\r\n\r\nab", "ab", true),
        ("an empty value", "X-A:\r\nContent-Length: 2\r\n\r\nab", "ab", true),
        ("obs-text in a value", "X-A: é\r\nContent-Length: 2\r\n\r\nab", "ab", true),
        ("16 digits", "Transfer-Encoding: chunked\r\n\r\n0000000000000002\r\nab\r\n0\r\n\r\n", "ab", true),
        (
            "a size in capitals",
            "Transfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
            "0123456789",
            true,
        ),
        (
            "an extension",
            "Transfer-Encoding: chunked\r\n\r\n2;a=b;c=\"d e\"\r\nab\r\n0;x\r\n\r\n",
            "ab",
            true,
        ),
        (
            "white space before an extension",
            "Transfer-Encoding: chunked\r\n\r\n2 \t;a\r\nab\r\n0\r\n\r\n",
            "ab",
            true,
        ),
        ("many zeros at the end", "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0000\r\n\r\n", "ab", true),
        ("until the end", "\r\nab", "ab", false),
        ("RFC 9112 9.6: close", "Connection: close\r\nContent-Length: 2\r\n\r\nab", "ab", false),
        ("close in a list", "Connection: x, Close\r\nContent-Length: 2\r\n\r\nab", "ab", false),
        (
            "close in a second field",
            "Connection: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            "",
            false,
        ),
        ("an option that only resembles close", "Connection: closed\r\nContent-Length: 0\r\n\r\n", "", true),
    ];
    for (name, answer, body, keep_alive) in rows {
        let whole = ok(answer).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        assert_eq!((&*whole.body, whole.keep_alive), (body.as_bytes(), keep_alive), "{name}");
        assert!(whole.rest.is_empty(), "{name}");
    }
    for status_line in ["HTTP/1.1 200 OK", "HTTP/1.1 200 ", "HTTP/1.1 200", "HTTP/1.1 999 \u{e9}t\u{e9}"] {
        let whole = get(format!("{status_line}\r\nContent-Length: 2\r\n\r\nab").as_bytes());
        assert_eq!(whole.map(|whole| whole.body), Ok(b"ab".to_vec()), "{status_line}");
    }
    // A proxy may close a connection of HTTP/1.0 although the server offers to keep it alive (RFC 9112 section 9.3).
    let old = get(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nab").unwrap();
    assert!(!old.keep_alive);
}

/// The expected framing for the client, and whether the connection is used again.
#[test]
fn an_answer_keeps_its_connection_only_if_its_fields_agree() {
    const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";
    const FIVE: &str = "Content-Length: 5\r\n";
    const ZERO: &str = "Content-Length: 0\r\n";
    type Row = (&'static str, &'static str, &'static str, Framing, Option<u64>, bool);
    let rows: [Row; 22] = [
        ("200", "GET", FIVE, Framing::Length(5), Some(5), true),
        ("200", "GET", ZERO, Framing::Length(0), Some(0), true),
        ("205", "GET", ZERO, Framing::Length(0), Some(0), true),
        ("999", "GET", FIVE, Framing::Length(5), Some(5), true),
        ("200", "GET", "", Framing::UntilClose, None, false),
        ("200", "GET", CHUNKED, Framing::Chunked, None, true),
        (
            "200",
            "GET",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            Framing::Chunked,
            Some(5),
            false,
        ),
        (
            "200",
            "GET",
            "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
            Framing::Chunked,
            Some(0),
            false,
        ),
        ("204", "GET", "", Framing::Empty, None, true),
        ("204", "GET", ZERO, Framing::Empty, Some(0), true),
        ("204", "GET", FIVE, Framing::Empty, Some(5), false),
        ("204", "GET", "Content-Length: x\r\n", Framing::Empty, None, false),
        ("204", "GET", CHUNKED, Framing::Empty, None, false),
        ("204", "HEAD", ZERO, Framing::Empty, Some(0), true),
        ("304", "GET", FIVE, Framing::Empty, Some(5), true),
        ("304", "GET", "Content-Length: 5\r\nContent-Length: 6\r\n", Framing::Empty, None, true),
        ("304", "GET", CHUNKED, Framing::Empty, None, true),
        ("200", "HEAD", FIVE, Framing::Empty, Some(5), true),
        ("200", "HEAD", "Content-Length: 5, 5\r\n", Framing::Empty, Some(5), true),
        ("200", "HEAD", "Content-Length: 5, 6\r\n", Framing::Empty, None, true),
        ("200", "HEAD", "Transfer-Encoding: gzip, chunked\r\n", Framing::Empty, None, true),
        (
            "200",
            "HEAD",
            "Transfer-Encoding: chunked\r\nContent-Length: 7\r\n",
            Framing::Empty,
            Some(7),
            false,
        ),
    ];
    for (status, method, fields, framing, length, keep_alive) in rows {
        let answer = format!("HTTP/1.1 {status} X\r\n{fields}\r\n");
        let (mut buffer, mut headers) = (BytesMut::from(&*answer), HeaderMap::new());
        let head = HeadReader::new(&method.parse().unwrap()).read(
            &mut buffer,
            &mut headers,
            &mut KnownHead::default(),
        );
        let head = head.unwrap().expect("the head is complete");
        let found = (head.framing, head.length, head.keep_alive);
        assert_eq!(found, (framing, length, keep_alive), "{status} {method} {fields}");
        assert!(headers.is_empty(), "the client's connection gets its own framing");
    }
    for (fields, detail) in [
        ("Content-Length: 2\r\nContent-Length: 3\r\n", "Content-Length: 2, 3"),
        ("Transfer-Encoding: gzip\r\ntransfer-encoding: chunked\r\n", "Transfer-Encoding: gzip, chunked"),
    ] {
        let fault = ok(&format!("{fields}\r\n")).unwrap_err().to_string();
        assert!(fault.contains(detail), "{fault}");
    }
    let long = ok(&format!("Content-Length: {}\r\n\r\n", "\u{e9}".repeat(300))).unwrap_err().to_string();
    assert!(long.len() < 400, "{long}");
}

#[test]
fn an_answer_without_a_body_ends_with_its_head() {
    for (method, status) in [("GET", "204 No Content"), ("GET", "304 Not Modified"), ("HEAD", "200 OK")] {
        for fields in ["", "Content-Length: 5\r\n", "Content-Length: x\r\n", "Transfer-Encoding: gzip\r\n"] {
            let answer = format!("HTTP/1.1 {status}\r\n{fields}\r\nHTTP/1.1");
            let whole = read(&method.parse().unwrap(), [answer.as_bytes()]).unwrap();
            assert_eq!((&*whole.body, &*whole.rest), (&b""[..], &b"HTTP/1.1"[..]), "{method} {status}");
        }
    }
}

#[test]
fn bytes_after_an_answer_are_no_part_of_it() {
    for answer in ["Content-Length: 2\r\n\r\nab", "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"] {
        let whole = ok(&format!("{answer}HTTP/1.1 200 OK\r\n\r\n")).unwrap();
        assert_eq!((&*whole.body, &*whole.rest), (&b"ab"[..], &b"HTTP/1.1 200 OK\r\n\r\n"[..]));
    }
}

#[test]
fn interim_answers_are_skipped_up_to_a_bound() {
    let answer = |count: usize| {
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 5\r\n\r\n".repeat(count);
        get(format!("{interim}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab").as_bytes())
    };
    for count in [0, 1, 16] {
        let whole = answer(count).unwrap();
        assert_eq!((whole.status, &*whole.body), (StatusCode::OK, &b"ab"[..]));
        assert!(
            !whole.headers.contains_key(header::LINK),
            "fields of an interim answer are not the final one's"
        );
    }
    assert_eq!(answer(17), Err(AnswerFault::TooManyInterim));
    let switched = get(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nraw").unwrap();
    assert_eq!((switched.status, &*switched.rest), (StatusCode::SWITCHING_PROTOCOLS, &b"raw"[..]));
}

#[test]
fn everything_that_a_server_can_make_grow_is_bounded() {
    let fields = |count: usize| format!("{}Content-Length: 0\r\n\r\n", "X-A: b\r\n".repeat(count));
    assert!(ok(&fields(255)).is_ok());
    assert_eq!(ok(&fields(256)), Err(AnswerFault::TooLarge));
    let value = |size: usize| format!("X-A: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(size));
    assert!(ok(&value(250 * 1024)).is_ok());
    assert_eq!(ok(&value(256 * 1024)), Err(AnswerFault::TooLarge));
    let interim = format!("HTTP/1.1 103 X\r\nX-A: {}\r\n\r\n", "x".repeat(40 * 1024)).repeat(7);
    assert_eq!(get(interim.as_bytes()), Err(AnswerFault::TooLarge), "interim answers share one bound");
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (name, chunks) in [
        ("a size line", format!("1;{}", "x".repeat(2000))),
        ("all extensions", format!("1;{}\r\na\r\n", "x".repeat(1000)).repeat(17)),
        ("a trailer section", format!("0\r\nX-A: {}\r\n\r\n", "x".repeat(16 * 1024))),
        ("a trailer section without end", format!("0\r\nX-A: {}", "x".repeat(16 * 1024))),
        ("trailer fields", format!("0\r\n{}\r\n", "X-A: b\r\n".repeat(65))),
    ] {
        let read = get(format!("{head}{chunks}").as_bytes());
        assert!(matches!(read, Err(AnswerFault::Chunk(_))), "{name}: {read:?}");
    }
}

#[test]
fn trailers_are_read_apart_from_the_head() {
    let whole = ok("Transfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\nX-Sum: 2\r\n\r\n").unwrap();
    let trailers = whole.trailers.unwrap();
    assert_eq!(trailers.get_all("x-sum").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert!(!whole.headers.contains_key("x-sum"));
}

#[test]
fn a_request_has_one_framing_whatever_its_fields_say() {
    let fields = [("content-length", "7"), ("transfer-encoding", "gzip"), ("x-a", "b"), ("x-a", "c")];
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(name, HeaderValue::from_static(value));
    }
    for (framing, expected) in [
        (RequestFraming::None, "content-length: 0\r\n"),
        (RequestFraming::Length(2), "content-length: 2\r\n"),
        (RequestFraming::Chunked, "transfer-encoding: chunked\r\n"),
    ] {
        let mut head = Vec::new();
        write_request_line(&mut head, &Method::PUT, &PathAndQuery::from_static("/a?b"));
        write_fields(&mut head, &headers, framing, |_| true);
        write_host(&mut head, &HeaderValue::from_static("h:1"));
        let expected = format!("PUT /a?b HTTP/1.1\r\nx-a: b\r\nx-a: c\r\n{expected}host: h:1\r\n\r\n");
        assert_eq!(String::from_utf8(head).unwrap(), expected);
    }
    let mut head = Vec::new();
    write_fields(&mut head, &HeaderMap::new(), RequestFraming::None, |_| true);
    assert!(head.is_empty(), "a request without a body announces none");
}

/// Answers that are mostly good, with pieces that no answer may have.
pub(super) fn answers() -> impl Strategy<Value = Vec<u8>> {
    let status = prop::sample::select(vec![
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 204 No Content\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200\r\n",
        "HTTP/1.0 404 Not Found\r\n",
        "HTTP/1.1 304 \r\n",
    ]);
    let field = prop::sample::select(vec![
        "Content-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length : 05\r\n",
        "Content-Length: 6\r\n",
        "Content-Length: +5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "transfer-encoding:\tChunked \r\n",
        "Connection: close\r\n",
        "X-A: b\r\n",
        "X-A: b\n",
        " folded\r\n",
        "X-\0: b\r\n",
    ]);
    let body = prop::sample::select(vec![
        "hello",
        "5\r\nhello\r\n0\r\n\r\n",
        "2;ext\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 1\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
        "5\r\nhelloo\r\n0\r\n\r\n",
        "hellorest",
        "",
    ]);
    (status, prop::collection::vec(field, 0..4), body)
        .prop_map(|(status, fields, body)| format!("{status}{}\r\n{body}", fields.concat()).into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The result does not depend on how the bytes arrive.
    #[test]
    fn an_answer_means_the_same_wherever_it_is_split(
        answer in answers(),
        cuts in prop::collection::vec(0_usize..200, 0..6),
        is_head in any::<bool>(),
    ) {
        let method = if is_head { Method::HEAD } else { Method::GET };
        let whole = read(&method, [&answer[..]]);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(answer.len())).collect();
        cuts.extend([0, answer.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|pair| &answer[pair[0]..pair[1]]);
        let split = read(&method, pieces);
        let single = read(&method, answer.chunks(1));
        prop_assert_eq!(whole.is_ok(), split.is_ok(), "{:?} {:?}", whole, split);
        prop_assert_eq!(whole.is_ok(), single.is_ok());
        if let Ok(whole) = whole {
            prop_assert_eq!(&whole, &split?);
            prop_assert_eq!(&whole, &single?);
        }
    }

    /// An answer means the same after any other answers on its connection.
    #[test]
    fn the_last_answer_changes_nothing(
        others in prop::collection::vec(answers(), 1..4),
        answer in answers(),
        size in 1_usize..60,
        is_head in any::<bool>(),
    ) {
        let method = if is_head { Method::HEAD } else { Method::GET };
        let mut known = KnownHead::default();
        for other in &others {
            let _ = read_with(&mut known, &method, &other.chunks(size).collect::<Vec<_>>());
        }
        let pieces: Vec<_> = answer.chunks(size).collect();
        let after = read_with(&mut known, &method, &pieces);
        let alone = read_with(&mut KnownHead::default(), &method, &pieces);
        prop_assert_eq!(format!("{:?}", after), format!("{:?}", alone));
    }

    #[test]
    fn no_bytes_make_a_reader_panic(answer in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = get(&answer);
        let _ = ok(&String::from_utf8_lossy(&answer));
        let chunked = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &answer[..]].concat();
        let _ = get(&chunked);
    }
}
