#!/usr/bin/env bash
# tower-http's ServeDir answers a range request whose If-Range names another version of the file with 206.
#
# Version: tower-http 0.7.1.
#
# RFC 9110 section 13.1.5: if the validator in If-Range does not match the file, the server must ignore the Range field and
# send the whole file. Clients that resume a download rely on it: the answer 200 makes them begin again.
#
# Seen: the service evaluates If-Modified-Since, If-Unmodified-Since, If-None-Match and If-Match, and does not read If-Range. A
# client that resumes a download after the file has changed appends the end of the new file to the beginning of the old one. The
# length is right, so no client notices.
#
# Portcullis compares If-Range itself, and removes Range before the library sees the request unless the validator is strong and
# equal.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src" "$folder/files"
cat >"$folder/Cargo.toml" <<'TOML'
[package]
name = "seen"
version = "0.0.0"
edition = "2024"

[dependencies]
bytes = "=1.12.2"
http = "=1.5.0"
http-body-util = "=0.1.5"
tokio = { version = "=1.54.1", features = ["macros", "rt"] }
tower = { version = "=0.5.3", features = ["util"] }
tower-http = { version = "=0.7.1", default-features = false, features = ["fs"] }
TOML
cat >"$folder/src/main.rs" <<'RUST'
use http::Request;
use http_body_util::{BodyExt, Empty};
use tower::ServiceExt;
use tower_http::services::ServeDir;

async fn ask(fields: &[(&str, &str)]) -> (u16, http::HeaderMap, Vec<u8>) {
    let mut request = Request::get("/file");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
    let (head, body) = ServeDir::new("files").oneshot(request).await.unwrap().into_parts();
    (head.status.as_u16(), head.headers, body.collect().await.unwrap().to_bytes().to_vec())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    std::fs::write("files/file", "old old old").unwrap();
    let (status, _, _) = ask(&[]).await;
    assert_eq!(status, 200);
    std::fs::write("files/file", "new new new").unwrap();
    for stale in ["\"a-tag-of-the-old-file\"", "Thu, 01 Jan 2015 00:00:00 GMT"] {
        let (status, _, body) = ask(&[("range", "bytes=4-"), ("if-range", stale)]).await;
        println!("If-Range: {stale}: {status}, {}", String::from_utf8(body).unwrap());
    }
}
RUST
cd "$folder"
cargo build --quiet
seen=$(target/debug/seen)
printf '%s\n' "$seen"
[ "$(grep -c ': 206, new new$' <<<"$seen")" = 2 ] || { echo "the behaviour has changed"; exit 1; }
