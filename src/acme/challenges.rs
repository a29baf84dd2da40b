//! The answers to the challenges of current orders: for TLS-ALPN-01 a certificate per domain, and for HTTP-01 a text
//! per token.

use super::Challenge;
use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The path below which HTTP-01 asks for tokens (RFC 8555 section 8.3).
const TOKENS_BELOW: &str = "/.well-known/acme-challenge/";
/// The only application protocol of a connection that validates TLS-ALPN-01 (RFC 8737 section 6.2).
const ALPN: &[u8] = b"acme-tls/1";
/// The maximum length of a token. The servers in use have 43 characters.
const TOKEN_MAX: usize = 256;

/// The answer to one challenge, as in the file that gateways share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) domain: String,
    pub(super) token: String,
    /// The token and the thumbprint of the account's key (RFC 8555 section 8.1).
    pub(super) authorization: String,
}

/// The answers in use. All cores read them.
#[derive(Debug, Default)]
pub(crate) struct Challenges {
    /// Whether there is an answer. Without one, a request and a handshake cost one relaxed load.
    is_pending: AtomicBool,
    answers: ArcSwap<Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    /// The key authorizations for HTTP-01, by token.
    by_token: HashMap<Box<str>, Arc<str>>,
    /// The configurations for TLS-ALPN-01, by domain in lower case.
    by_domain: HashMap<Box<str>, Arc<ServerConfig>>,
}

impl Challenges {
    /// Answers these challenges from now on, and no others.
    ///
    /// # Errors
    /// Returns a sentence if a certificate cannot be created.
    pub(super) fn publish(&self, challenge: Challenge, answers: &[Answer]) -> Result<(), String> {
        let mut published = Answers::default();
        for Answer { domain, token, authorization } in answers {
            match challenge {
                Challenge::Http01 if is_token(token) => {
                    published.by_token.insert(token.as_str().into(), authorization.as_str().into());
                }
                Challenge::Http01 => return Err("the server's token has characters of no token".to_owned()),
                Challenge::TlsAlpn01 => {
                    let config = configuration(domain, authorization).map_err(|error| error.to_string())?;
                    published.by_domain.insert(domain.to_ascii_lowercase().into(), Arc::new(config));
                }
            }
        }
        self.answers.store(Arc::new(published));
        self.is_pending.store(!answers.is_empty(), Ordering::Relaxed);
        Ok(())
    }

    /// Answers no challenge any more.
    pub(crate) fn clear(&self) {
        if self.is_pending.swap(false, Ordering::Relaxed) {
            self.answers.store(Arc::default());
        }
    }

    /// Returns whether there is an answer to any challenge.
    pub(crate) fn is_pending(&self) -> bool {
        self.is_pending.load(Ordering::Relaxed)
    }

    /// Returns the answer to a request with this path. Returns `None` if the path has no known token.
    pub(crate) fn text(&self, path: &str) -> Option<Arc<str>> {
        let token = path.strip_prefix(TOKENS_BELOW)?;
        self.answers.load().by_token.get(token).cloned()
    }

    /// Returns the configuration for a handshake that validates TLS-ALPN-01. Returns `None` for any other handshake:
    /// the server of the challenge offers one protocol only (RFC 8737 section 3).
    pub(crate) fn configuration(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        if !self.is_pending() || !hello.alpn()?.eq([ALPN]) {
            return None;
        }
        let domain = hello.server_name()?.to_ascii_lowercase();
        self.answers.load().by_domain.get(&*domain).cloned()
    }
}

/// Whether a text is a token: the alphabet of base64url (RFC 8555 section 8.3).
fn is_token(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=TOKEN_MAX).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// Returns the configuration that proves control of a domain. Its certificate is self-signed and contains the digest of
/// the key authorization (RFC 8737 section 3).
fn configuration(
    domain: &str,
    authorization: &str,
) -> Result<ServerConfig, Box<dyn std::error::Error + Send + Sync>> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new([domain.to_owned()])?;
    parameters.distinguished_name = DistinguishedName::new();
    let proof = digest(&SHA256, authorization.as_bytes());
    parameters.custom_extensions = vec![CustomExtension::new_acme_identifier(proof.as_ref())];
    let certificate = parameters.self_signed(&key)?.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(default_provider());
    let key = provider.key_provider.load_private_key(key)?;
    // `with_single_cert` would refuse the certificate, because it does not know its critical extension.
    let shown = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // No session of a validation is resumed as a session of a client.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(domain: &str, token: &str) -> Answer {
        Answer { domain: domain.into(), token: token.into(), authorization: format!("{token}.thumb") }
    }

    #[test]
    fn only_a_known_token_at_its_exact_path_is_answered() {
        let challenges = Challenges::default();
        challenges.publish(Challenge::Http01, &[answer("a.test", "tok_en-1")]).unwrap();
        let text = |path: &str| challenges.text(path);
        assert_eq!(text("/.well-known/acme-challenge/tok_en-1").as_deref(), Some("tok_en-1.thumb"));
        for path in [
            "/.well-known/acme-challenge/",
            "/.well-known/acme-challenge/tok_en-2",
            "/.well-known/acme-challenge/tok_en-1/",
            "/.well-known/acme-challenge//tok_en-1",
            "/.WELL-KNOWN/acme-challenge/tok_en-1",
            "/x/.well-known/acme-challenge/tok_en-1",
            "/.well-known/acme-challenge/tok%5Fen-1",
            "/",
        ] {
            assert_eq!(text(path), None, "{path}");
        }
        challenges.clear();
        assert_eq!((challenges.is_pending(), text("/.well-known/acme-challenge/tok_en-1")), (false, None));
    }

    #[test]
    fn a_token_with_other_characters_is_not_published() {
        for token in ["", "a/b", "..", "a b", "a%2f", &"a".repeat(TOKEN_MAX + 1)] {
            let challenges = Challenges::default();
            challenges.publish(Challenge::Http01, &[answer("a.test", token)]).unwrap_err();
            assert!(!challenges.is_pending(), "{token}");
        }
    }

    #[test]
    fn the_answers_of_one_challenge_are_no_answers_of_the_other() {
        let challenges = Challenges::default();
        challenges.publish(Challenge::TlsAlpn01, &[answer("A.test", "token")]).unwrap();
        assert!(challenges.answers.load().by_domain.contains_key("a.test"));
        assert_eq!(challenges.text("/.well-known/acme-challenge/token"), None);
    }
}
