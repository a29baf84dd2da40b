//! Tests that a change of any file that the policy names reloads the policy.

use crate::config::load_text;
use crate::keyring::MissingKey;
use crate::policy::compile;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

const REFERENCE: &str = include_str!("../../../docs/reference.md");

/// Keys with a path whose changes do not reload the policy.
const UNWATCHED: [&str; 13] = [
    // The gateway follows the files of TLS without a reload.
    "tls.certificate",
    "tls.key",
    "tls.ocsp",
    "tls.certificates.certificate",
    "tls.certificates.key",
    "tls.certificates.ocsp",
    "client_certificates.NAME.ca",
    // The gateway itself writes this folder.
    "state.dir",
    // The files are read for each request.
    "route.files",
    // Paths of requests.
    "route.strip_prefix",
    "route.add_prefix",
    "route.rewrite_to",
    "test.expect.path",
];

/// Each file has the name of its key.
const POLICY: &str = r#"
[server]
https  = "127.0.0.1:0"
reload = "watch"

[tls.acme]
domains              = ["own.test"]
ca                   = "tls.acme.ca"
external_account_id  = "g"
external_account_key = "file:tls.acme.external_account_key"

[[issuer]]
issuer     = "https://a.test/"
audience   = ["g"]
algorithms = ["ES256"]
jwks       = "issuer.jwks"

[[issuer]]
issuer     = "https://b.test/"
audience   = ["g"]
algorithms = ["HS256"]
secret     = "file:issuer.secret"

[[issuer]]
issuer     = "https://c.test/"
audience   = ["g"]
algorithms = ["ES256"]
public_key = "file:issuer.public_key"

[[issuer]]
issuer     = "https://d.test/"
audience   = ["g"]
algorithms = ["ES256"]
jwks       = "https://d.test/jwks"
ca         = "issuer.ca"

[issuer.introspection]
endpoint  = "https://d.test/introspect"
client_id = "g"
secret    = "file:issuer.introspection.secret"

[authority]
issuer    = "https://own.test"
audience  = ["g"]
algorithm = "HS256"
secret    = "file:authority.secret"
store     = "file:authority.store"

[authority.client.NAME]
secret = "file:authority.client.NAME.secret"

[signals.NAME]
issuer      = "https://a.test/"
audience    = ["g"]
jwks        = "signals.NAME.jwks"
push        = "/signals"
push_secret = "file:signals.NAME.push_secret"
poll        = "https://a.test/poll"
poll_secret = "file:signals.NAME.poll_secret"
ca          = "signals.NAME.ca"

[dpop]
nonce_secret          = "file:dpop.nonce_secret"
previous_nonce_secret = "file:dpop.previous_nonce_secret"

[shared]
sentinels         = ["rediss://a.test"]
master            = "main"
password          = "file:shared.password"
sentinel_password = "file:shared.sentinel_password"
keys_secret       = "file:shared.keys_secret"
other_keys_secret = "file:shared.other_keys_secret"
ca                = "shared.ca"

[upstream.NAME]
servers         = ["https://app.test"]
ca              = "upstream.NAME.ca"
identity_secret = "file:upstream.NAME.identity_secret"
tls             = { certificate = "upstream.NAME.tls.certificate", key = "upstream.NAME.tls.key" }

[[route]]
path     = "/"
upstream = "NAME"

[[test]]
name    = "one"
request = "GET https://h/"
token   = "file:test.token"
expect  = { allow = true }
"#;

/// A part of the policy, and its replacement in another policy, because no policy can have all keys.
const OTHERWISE: (&str, &str) = (
    "algorithm = \"HS256\"\nsecret    = \"file:authority.secret\"\n",
    "signing_keys              = \"store\"\nsigning_keys_secret       = \"file:authority.signing_keys_secret\"\n\
     other_signing_keys_secret = \"file:authority.other_signing_keys_secret\"\n",
);

/// Returns the keys of the reference that name a file.
fn keys_of_files() -> BTreeSet<&'static str> {
    let types = ["*path*", "*path or URL*", "*secret*", "*secret, or PEM text*", "*text or secret*"];
    let sections = REFERENCE.split("\n### `").skip(1).filter_map(|section| section.split_once('`'));
    let of_files = sections.filter(|(_, rest)| types.iter().any(|kind| rest.trim_start().starts_with(kind)));
    of_files.map(|(key, _)| key).filter(|key| !UNWATCHED.contains(key)).collect()
}

fn content(key: &str) -> String {
    static OWN: LazyLock<rcgen::KeyPair> = LazyLock::new(|| rcgen::KeyPair::generate().unwrap());
    let pair = || rcgen::KeyPair::generate().unwrap();
    match key {
        "upstream.NAME.tls.key" => OWN.serialize_pem(),
        "upstream.NAME.tls.certificate" => rcgen::CertificateParams::new(vec!["own.test".to_owned()])
            .unwrap()
            .self_signed(&*OWN)
            .unwrap()
            .pem(),
        "authority.store" => "sqlite:accounts.db".to_owned(),
        "tls.acme.external_account_key" => "a".repeat(64),
        "issuer.public_key" => pair().public_key_pem(),
        _ if key.ends_with(".ca") => {
            let authority = rcgen::CertificateParams::new(vec!["ca.test".to_owned()]).unwrap();
            authority.self_signed(&pair()).unwrap().pem()
        }
        // The key of RFC 7517 appendix A.1.
        _ if key.ends_with(".jwks") => r#"{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","kid":"1",
            "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#
            .to_owned(),
        _ => format!("k7Qz1k8Wv3Jq0ZpLmX2v5T9rY4uB6nHc{key}"),
    }
}

#[test]
fn every_file_that_the_policy_names_is_watched() {
    let folder = std::env::temp_dir().join(format!("portcullis-watched-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let keys = keys_of_files();
    for key in &keys {
        fs::write(folder.join(key), content(key)).unwrap();
    }
    assert!(POLICY.contains(OTHERWISE.0));
    let compiled = [POLICY.to_owned(), POLICY.replace(OTHERWISE.0, OTHERWISE.1)].map(|text| {
        let loaded = load_text("gateway.toml", text, folder.clone(), Vec::new()).unwrap();
        compile(&loaded, MissingKey::Ephemeral)
    });
    fs::remove_dir_all(&folder).unwrap();
    let watched = compiled.into_iter().flat_map(|compiled| compiled.unwrap().settings.watch.unwrap());
    let watched: BTreeSet<PathBuf> = watched.collect();
    assert_eq!(watched, keys.iter().map(|key| folder.join(key)).collect());
}
