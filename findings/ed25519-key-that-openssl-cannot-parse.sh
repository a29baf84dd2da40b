#!/usr/bin/env bash
# OpenSSL, Node.js and Python cannot parse the Ed25519 key that ring and aws-lc-rs generate.
#
# Versions: ring 0.17.14, aws-lc-rs 1.19.0; cryptography 50.0.2, the system's OpenSSL and Node.js (seen with 3.0 and 20).
#
# PKCS#8 has two versions. Version 2 (RFC 5958) adds the public key, and RFC 8410 section 10.3 has an example of each for
# Ed25519. `Ed25519KeyPair::generate_pkcs8` of both crates returns version 2.
#
# Expected: a file in a standard format, from the usual function of the usual library, opens everywhere. Seen: `openssl
# pkey`, `crypto.createPrivateKey`, WebCrypto and `load_der_private_key` fail, with "unsupported", "wrong tag" or a hint at
# encryption or curves; none names the version. P-256 keys of the same crates are in version 1 and open. aws-lc-rs also has
# `generate_pkcs8v1`, whose key opens everywhere except in ring, which in turn refuses the keys of OpenSSL
# (VersionNotSupported).
#
# Portcullis generates signing keys in version 1, and parses both.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat >"$folder/Cargo.toml" <<'TOML'
[package]
name = "seen"
version = "0.0.0"
edition = "2024"

[dependencies]
aws-lc-rs = "=1.19.0"
ring = "=0.17.14"
TOML
cat >"$folder/src/main.rs" <<'RUST'
use aws_lc_rs::signature as aws;
use ring::signature as ring;
use std::fs::{read, write};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let random = aws_lc_rs::rand::SystemRandom::new();
    let other = ::ring::rand::SystemRandom::new();
    let failed = |_| "cannot generate a key";
    write("aws-lc-rs.der", aws::Ed25519KeyPair::generate_pkcs8(&random).map_err(|_| "cannot generate a key")?)?;
    write("aws-lc-rs-v1.der", aws::Ed25519KeyPair::generate_pkcs8v1(&random).map_err(|_| "cannot generate a key")?)?;
    write("ring.der", ring::Ed25519KeyPair::generate_pkcs8(&other).map_err(failed)?)?;
    let p256 = aws::EcdsaKeyPair::generate_pkcs8(&aws::ECDSA_P256_SHA256_FIXED_SIGNING, &random);
    write("p256.der", p256.map_err(|_| "cannot generate a key")?)?;
    for file in std::env::args().skip(1) {
        let key = read(&file)?;
        let of_ring = ring::Ed25519KeyPair::from_pkcs8(&key).map(|_| "parsed").map_err(|why| why.to_string());
        let of_aws = aws::Ed25519KeyPair::from_pkcs8(&key).map(|_| "parsed").map_err(|why| why.to_string());
        println!("{file}: ring {of_ring:?}, aws-lc-rs {of_aws:?}");
    }
    Ok(())
}
RUST
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check cryptography==50.0.2
openssl genpkey -algorithm ed25519 -outform DER -out openssl.der
cargo build --quiet
target/debug/seen openssl.der | tee rust
for name in aws-lc-rs ring aws-lc-rs-v1 p256; do
    openssl pkey -inform DER -in $name.der -noout 2>/dev/null && openssl=parsed || openssl=failed
    node=$(node -e 'try {
        require("crypto").createPrivateKey({ key: require("fs").readFileSync(process.argv[1]), format: "der", type: "pkcs8" });
        console.log("parsed");
    } catch (error) { console.log("failed"); }' $name.der)
    python=$(venv/bin/python -c 'import sys
from cryptography.hazmat.primitives.serialization import load_der_private_key
try:
    load_der_private_key(open(sys.argv[1], "rb").read(), None)
    print("parsed")
except ValueError:
    print("failed")' $name.der)
    echo "$name: OpenSSL $openssl, Node.js $node, cryptography $python"
done | tee others
diff - <(cat rust others) <<'TEXT'
openssl.der: ring Err("VersionNotSupported"), aws-lc-rs Ok("parsed")
aws-lc-rs: OpenSSL failed, Node.js failed, cryptography failed
ring: OpenSSL failed, Node.js failed, cryptography failed
aws-lc-rs-v1: OpenSSL parsed, Node.js parsed, cryptography parsed
p256: OpenSSL parsed, Node.js parsed, cryptography parsed
TEXT
