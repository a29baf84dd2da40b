//! The gateway's offer in a handshake: Mozilla's profile "intermediate", and key exchange that a quantum computer
//! cannot break later.

use crate::kit::pki::Authority;
use crate::kit::tls::{Options, anybody, connect};
use crate::kit::{Connection, ISSUER, Portcullis, Request};
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, NamedGroup, StreamOwned};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

fn policy(tables: &str) -> String {
    format!(
        "[server]\nhttps = \"127.0.0.1:0\"\n{tables}\n{ISSUER}\n[upstream.echo]\nbuiltin = \"echo\"\n\
         [[route]]\npath = \"/\"\nupstream = \"echo\"\naccess = \"public\"\n"
    )
}

fn gateway(tables: &str) -> Portcullis {
    Portcullis::with(&policy(tables)).start()
}

/// draft-ietf-tls-ecdhe-mlkem: recorded traffic stays secret even if X25519 is broken one day.
#[test]
fn the_hybrid_key_exchange_is_used_by_every_client_that_prefers_it() {
    let gateway = gateway("");
    let chosen = |groups: &[&'static dyn rustls::crypto::SupportedKxGroup]| {
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = groups.to_vec();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider));
        let builder = builder.with_protocol_versions(&[&TLS13]).unwrap().dangerous();
        let config = builder.with_custom_certificate_verifier(anybody()).with_no_client_auth();
        let client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let mut stream = StreamOwned::new(client, TcpStream::connect(gateway.https()).unwrap());
        stream.conn.complete_io(&mut stream.sock).unwrap();
        let group = stream.conn.negotiated_key_exchange_group().map(|group| group.name());
        Request::get("/").over(&mut Connection::over(stream)).is(200);
        group
    };
    assert_eq!(chosen(&[kx_group::X25519MLKEM768, kx_group::X25519]), Some(NamedGroup::X25519MLKEM768));
    assert_eq!(chosen(&[kx_group::X25519MLKEM768]), Some(NamedGroup::X25519MLKEM768));
    assert_eq!(chosen(&[kx_group::X25519]), Some(NamedGroup::X25519));
    assert_eq!(chosen(&[kx_group::SECP384R1]), Some(NamedGroup::secp384r1));
}

/// Returns whether OpenSSL completes a handshake with these options, and its output.
fn s_client(gateway: &Portcullis, options: &[&str]) -> (bool, String) {
    let address = gateway.https().to_string();
    let run = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-servername", "localhost"])
        .args(options)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    let is_done = run.status.success() && !text.contains("Cipher is (NONE)");
    (is_done, text + &String::from_utf8_lossy(&run.stderr))
}

/// <https://wiki.mozilla.org/Security/Server_Side_TLS>, "intermediate": TLS 1.2 and 1.3, only suites with ephemeral keys
/// and AEAD, no compression, no renegotiation.
#[test]
fn openssl_finds_the_intermediate_profile_and_nothing_weaker() {
    let gateway = gateway("");
    // Level 0 makes OpenSSL offer what it would not use itself.
    for (options, is_accepted) in [
        (&["-tls1_3"][..], true),
        (&["-tls1_2"], true),
        (&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], false),
        (&["-tls1", "-cipher", "ALL:@SECLEVEL=0"], false),
        (&["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"], true),
        (&["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"], true),
        (&["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"], true),
        (&["-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256"], false),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], true),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"], true),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"], true),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"], false),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0"], false),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-CCM:@SECLEVEL=0"], false),
        (&["-tls1_2", "-cipher", "kRSA:kDHE:PSK:aNULL:eNULL:@SECLEVEL=0"], false),
        (&["-tls1_2", "-curves", "P-521"], false),
        (&["-tls1_2", "-curves", "P-256"], true),
        (&["-tls1_2", "-sigalgs", "ECDSA+SHA1", "-cipher", "ALL:@SECLEVEL=0"], false),
    ] {
        let (accepted, text) = s_client(&gateway, options);
        assert_eq!(accepted, is_accepted, "{options:?}: {text}");
    }
    let (_, text) = s_client(&gateway, &["-tls1_2"]);
    for promise in ["Secure Renegotiation IS supported", "Compression: NONE", "Extended master secret: yes"] {
        assert!(text.contains(promise), "{promise}: {text}");
    }
}

#[test]
fn version_1_3_alone_can_be_required() {
    let gateway = gateway("[tls]\nmin_version = \"1.3\"\n");
    assert!(s_client(&gateway, &["-tls1_3"]).0);
    assert!(!s_client(&gateway, &["-tls1_2"]).0);
    let old = Options { versions: vec![&TLS12], ..Options::default() };
    assert!(connect(gateway.https(), &old).is_err());
}

/// SSLyze knows the profile, and the attacks on old implementations (CRIME, Heartbleed, ROBOT, CCS injection).
#[test]
fn sslyze_finds_nothing_but_a_certificate_that_nobody_signed() {
    let certificate = Authority::new("nobody").issue_for_days(&["localhost"], 80);
    let gateway = Portcullis::with(&policy("[tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n"))
        .file("cert.pem", &certificate.pem)
        .file("key.pem", &certificate.key)
        .start();
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tls-venv");
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut make = Command::new(tests.join("compat/venv.sh"));
    let made = make.arg(&environment).arg(tests.join("tls/requirements.txt")).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let run = Command::new(environment.join("bin/python"))
        .args(["-m", "sslyze", "--mozilla_config=intermediate"])
        .arg(format!("localhost:{}", gateway.https().port()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&run.stdout);
    let (_, verdict) = text.split_once("COMPLIANCE AGAINST TLS CONFIGURATION").expect("a verdict");
    let faults: Vec<_> = verdict.lines().filter(|line| line.trim_start().starts_with("* ")).collect();
    assert!(faults.len() == 1 && faults[0].contains("certificate_path_validation"), "{text}");
    for promise in
        ["Not vulnerable to Heartbleed", "Not vulnerable, RSA cipher suites", "Compression disabled"]
    {
        assert!(text.contains(promise), "{promise}: {text}");
    }
}
