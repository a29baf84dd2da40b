#!/usr/bin/env bash
# The self-signed certificate that PostgreSQL's manual makes is usable for OpenSSL, and unusable for rustls.
#
# Versions: rustls 0.23.46 (rustls-webpki 0.103), and the system's OpenSSL (seen with 3.0).
#
# PostgreSQL's manual (section "Creating Certificates") makes a self-signed certificate with `openssl req -new -x509 -nodes -text
# -subj "/CN=dbhost.yourdomain.com"`, and instructions for Redis and other servers do the same. The client gets the same file as
# the authority that it trusts, and compares the name.
#
# Expected: the client trusts this very certificate, so the handshake completes, as in s_client with -verify_hostname. Seen:
# without other options, `openssl req -x509` sets CA:TRUE. rustls refuses such a certificate as that of a server, although it is
# among the trusted ones: "invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))". After
# `basicConstraints=critical,CA:FALSE` it misses the name, because it does not read CN. It accepts the certificate with both
# extensions. OpenSSL accepts all four.
#
# Portcullis reports the certificate with the remedy, and docs/tls.md has the command.
set -euo pipefail
folder=$(mktemp -d); trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat >"$folder/Cargo.toml" <<'TOML'
[package]
name = "seen"
version = "0.0.0"
edition = "2024"

[dependencies]
rustls = { version = "=0.23.46", default-features = false, features = ["std", "ring"] }
TOML
cat >"$folder/src/main.rs" <<'RUST'
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::net::TcpStream;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (file, port) = (arguments.next().ok_or("no file")?, arguments.next().ok_or("no port")?);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file)?)?;
    let config = ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut connection = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?;
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}"))?;
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(&mut stream) {
            println!("{error}");
            return Ok(());
        }
    }
    println!("accepted");
    Ok(())
}
RUST
cd "$folder"
cargo build --quiet
make() {
    local file=$1; shift
    openssl req -new -x509 -newkey rsa:2048 -days 365 -nodes -subj /CN=localhost -keyout "$file.key" -out "$file.pem" "$@" 2>/dev/null
}
make plain
make name -addext subjectAltName=DNS:localhost
make leaf -addext basicConstraints=critical,CA:FALSE
make both -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE
free() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
ask() {
    local port text; port=$(free)
    openssl s_server -accept "127.0.0.1:$port" -cert "$1.pem" -key "$1.key" -quiet </dev/null >server.log 2>&1 &
    local server=$!
    for _ in $(seq 100); do
        text=$(openssl s_client -connect "127.0.0.1:$port" -CAfile "$1.pem" -verify_hostname localhost -verify_return_error \
            </dev/null 2>&1 || true)
        case $text in *"Connection refused"*) sleep 0.1 ;; *) break ;; esac
    done
    case $text in *"Verify return code: 0 (ok)"*) text=accepted ;; esac
    echo "$1: OpenSSL: $text; rustls: $(target/debug/seen "$1.pem" "$port" | cut -d';' -f1)"
    kill $server
}
seen=$(for file in plain name leaf both; do ask $file; done)
echo "$seen"
authority="OpenSSL: accepted; rustls: invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))"
[ "$seen" = "plain: $authority
name: $authority
leaf: OpenSSL: accepted; rustls: invalid peer certificate: certificate not valid for name \"localhost\"
both: OpenSSL: accepted; rustls: accepted" ]
