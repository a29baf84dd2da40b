#!/usr/bin/env bash
# A TLS client that includes the port in the server name gets an alert from rustls and an answer from OpenSSL.
#
# Versions: rustls 0.23.46, and the system's OpenSSL (seen with 3.0); the client is OpenSSL's s_client.
#
# RFC 6066 section 3: the server name in a ClientHello is a host name without a port. Some load generators and
# hand-written clients send the authority of the URL instead: `localhost:8443`.
#
# Seen: rustls ends the handshake with the fatal alert illegal_parameter before it chooses a certificate, so no
# resolver, callback or log of the application sees the name. An OpenSSL server with the same certificate completes
# the handshake. A server that worked for such a client fails for all its connections once rustls terminates TLS.
#
# Portcullis counts and logs the failed handshake with its reason; it cannot answer.
set -euo pipefail
folder=$(mktemp -d); trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat >"$folder/Cargo.toml" <<'TOML'
[package]
name = "seen"
version = "0.0.0"
edition = "2024"

[dependencies]
rustls = { version = "=0.23.46", default-features = false, features = ["std", "ring", "tls12"] }
TOML
cat >"$folder/src/main.rs" <<'RUST'
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::net::TcpListener;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let certificates = CertificateDer::pem_file_iter("cert.pem")?.collect::<Result<Vec<_>, _>>()?;
    let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, PrivateKeyDer::from_pem_file("key.pem")?)?;
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    loop {
        let (mut stream, _) = listener.accept()?;
        let mut connection = rustls::ServerConnection::new(config.clone())?;
        while connection.is_handshaking() {
            if connection.complete_io(&mut stream).is_err() {
                break;
            }
        }
    }
}
RUST
cd "$folder"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem 2>/dev/null
cargo build --quiet
mkfifo ready
target/debug/seen >ready &
read -r rustls <ready
free=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
openssl s_server -quiet -accept "127.0.0.1:$free" -cert cert.pem -key key.pem >/dev/null 2>&1 &
ask() {
    local text
    for _ in $(seq 100); do
        text=$(openssl s_client -connect "127.0.0.1:$1" -servername "$2" </dev/null 2>&1 || true)
        case $text in *"Connection refused"*) sleep 0.1 ;; *) break ;; esac
    done
    case $text in *"alert illegal parameter"*) echo illegal_parameter ;; *"Cipher is TLS_"*) echo completed ;; *) echo "$text" ;; esac
}
seen="rustls: localhost $(ask "$rustls" localhost), localhost:8443 $(ask "$rustls" localhost:8443)
OpenSSL: localhost $(ask "$free" localhost), localhost:8443 $(ask "$free" localhost:8443)"
echo "$seen"
[ "$seen" = "rustls: localhost completed, localhost:8443 illegal_parameter
OpenSSL: localhost completed, localhost:8443 completed" ]
