#!/usr/bin/env bash
# The usual way to give rustls a certificate refuses the certificate of an ACME challenge; another way accepts it.
#
# Versions: rustls 0.23.46 (rustls-webpki 0.103), and the system's OpenSSL (seen with 3.0).
#
# RFC 8737 section 3: a server proves that it controls a domain with a certificate that has the extension acmeIdentifier,
# which must be critical. Only the ACME server reads the certificate.
#
# Seen: `with_single_cert` fails with UnsupportedCriticalExtension, because it compares the
# certificate with the key by a parser that knows only the extensions of ordinary certificates. A `SingleCertAndKey`
# resolver with the same certificate and key serves it. An OpenSSL server serves it without a special setting.
#
# Portcullis shows challenge certificates by a resolver.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
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
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use std::sync::Arc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let certificate = vec![CertificateDer::from_pem_file("cert.pem")?];
    let key = || PrivateKeyDer::from_pem_file("key.pem");
    let server = || -> Result<_, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        Ok(builder.with_no_client_auth())
    };
    match server()?.with_single_cert(certificate.clone(), key()?) {
        Ok(_) => println!("with_single_cert: usable"),
        Err(error) => println!("with_single_cert: {error:?}"),
    }
    let certified = CertifiedKey::new(certificate, provider.key_provider.load_private_key(key()?)?);
    let mut config = server()?.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    // A client without roots refuses the certificate, but only after the server has sent it.
    let mut client = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    client.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    let mut server = ServerConnection::new(Arc::new(config))?;
    let mut client = ClientConnection::new(Arc::new(client), "a.test".try_into()?)?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello)?;
    server.read_tls(&mut &hello[..])?;
    let answered = server.process_new_packets();
    println!("SingleCertAndKey: {}", if answered.is_ok() && server.wants_write() { "served" } else { "not served" });
    Ok(())
}
RUST
cd "$folder"
# The digest of a key authorization: an octet string of 32 bytes in the extension.
cat >challenge.cnf <<'CNF'
[req]
distinguished_name = name
[name]
[extensions]
subjectAltName        = DNS:a.test
1.3.6.1.5.5.7.1.31    = critical,DER:04:20:00:01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0f:10:11:12:13:14:15:16:17:18:19:1a:1b:1c:1d:1e:1f
CNF
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=a.test -config challenge.cnf \
    -extensions extensions -keyout key.pem -out cert.pem 2>/dev/null
cargo build --quiet
found=$(target/debug/seen)
free=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
openssl s_server -quiet -accept "127.0.0.1:$free" -cert cert.pem -key key.pem -alpn acme-tls/1 >/dev/null 2>&1 &
server=$!
for _ in $(seq 100); do
    shown=$(openssl s_client -connect "127.0.0.1:$free" -servername a.test -alpn acme-tls/1 </dev/null 2>/dev/null || true)
    case "$shown" in *'BEGIN CERTIFICATE'*) break ;; esac
    sleep 0.1
done
kill "$server"
case "$shown" in *'ALPN protocol: acme-tls/1'*) found="$found"$'\n'"OpenSSL: served" ;; esac
echo "$found"
[ "$found" = 'with_single_cert: InvalidCertificate(Other(OtherError(UnsupportedCriticalExtension)))
SingleCertAndKey: served
OpenSSL: served' ]
