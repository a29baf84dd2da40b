#!/usr/bin/env bash
# A revocation list that `openssl ca -gencrl` writes with a plain configuration is unusable for rustls, and usable for
# OpenSSL.
#
# Versions: rustls 0.23.46 (rustls-webpki 0.103), and the system's OpenSSL (seen with 3.0).
#
# RFC 5280 section 5 profiles version 2 of revocation lists, and section 5.1 also describes version 1. OpenSSL writes
# version 1 unless the configuration of the authority has `crl_extensions`, also where it would write no other
# extension. Instructions for an own authority often leave the line out.
#
# Seen: the builder of rustls's verifier for client certificates fails with InvalidCrl(ParseError) for the list of
# version 1, so a server that reads the list at its start does not start. The message names neither the version nor the
# remedy. `openssl verify -crl_check` accepts the same list, and finds the certificate revoked. After one line in the
# configuration, rustls accepts the list too.
#
# Portcullis reports the list at start and when it changes, with the remedy (docs/tls.md).
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
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file("ca.pem")?)?;
    let list = CertificateRevocationListDer::from_pem_file(std::env::args().nth(1).ok_or("no list")?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).with_crls([list]).build();
    match verifier {
        Ok(_) => println!("usable"),
        Err(error) => println!("{error:?}"),
    }
    Ok(())
}
RUST
cd "$folder"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=client -keyout client.key -out client.csr 2>/dev/null
: >index.txt
echo 01 >serial
cat >plain.cnf <<'CNF'
[ca]
default_ca = own
[own]
database      = index.txt
serial        = serial
new_certs_dir = .
certificate   = ca.pem
private_key   = ca.key
default_md    = sha256
default_days  = 2
default_crl_days = 2
policy        = any
[any]
commonName = supplied
CNF
sed '/^policy/a crl_extensions = extensions' plain.cnf >extended.cnf
printf '[extensions]\nauthorityKeyIdentifier = keyid\n' >>extended.cnf
echo 01 >crlnumber
sed -i '/^\[own\]/a crlnumber = crlnumber' extended.cnf
openssl ca -batch -config plain.cnf -in client.csr -out client.pem 2>/dev/null
openssl ca -config plain.cnf -revoke client.pem 2>/dev/null
openssl ca -config plain.cnf -gencrl -out plain.crl 2>/dev/null
openssl ca -config extended.cnf -gencrl -out extended.crl 2>/dev/null
cargo build --quiet
failed=0
expect() {
    if [ "$2" = "$3" ]; then echo "$1: $2"; else echo "$1: $2; it was: $3"; failed=1; fi
}
version() { openssl crl -in "$1" -noout -text | sed -n 's/^ *Version \([0-9]\).*/\1/p'; }
openssl_says() { openssl verify -crl_check -CAfile ca.pem -CRLfile "$1" client.pem 2>&1 | grep -o 'certificate revoked' || true; }
expect "version without crl_extensions" "$(version plain.crl)" 1
expect "rustls" "$(target/debug/seen plain.crl)" 'InvalidCrl(ParseError)'
expect "OpenSSL" "$(openssl_says plain.crl)" 'certificate revoked'
expect "version with crl_extensions" "$(version extended.crl)" 2
expect "rustls" "$(target/debug/seen extended.crl)" usable
exit $failed
