//! The certificates in use. They can be replaced while the gateway serves.

use super::clients::{ClientRule, Verifier};
use super::host_map::HostMap;
use super::session::TlsSession;
use super::shown::{Shown, Table, canonical_name};
use super::{Files, MinVersion, NamedFiles, TlsSettings};
use crate::clock::Now;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets};
use std::sync::{Arc, Mutex, PoisonError};

/// The certificates for clients, and the verifiers of clients' certificates. Clones are cheap and share one state.
///
/// A client that resumes a session receives no certificate. It relies on the certificate of its full handshake.
#[derive(Clone, Debug)]
pub(crate) struct Certificates(Arc<Served>);

#[derive(Debug)]
struct Served {
    min_version: MinVersion,
    /// Encrypts session tickets. All cores share it, so a session can be resumed on every core.
    tickets: Arc<dyn ProducesTickets>,
    settings: Mutex<TlsSettings>,
    state: ArcSwap<State>,
}

/// Everything that one handshake needs. A change of a file replaces the whole state.
#[derive(Debug)]
struct State {
    /// The number of the state, from 1.
    generation: u64,
    is_guarded: bool,
    table: Arc<Table>,
    /// The configuration of connections that ask for no certificate.
    open: Arc<ServerConfig>,
    /// The rules of hosts, by host.
    rules: HostMap<Arc<ClientRule>>,
    verifiers: Vec<(Verifier, Arc<ServerConfig>)>,
}

/// The result of reading the files again.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Followed {
    /// The name and the end of each certificate that was replaced.
    pub(crate) replaced: Vec<(Box<str>, Option<u64>)>,
    /// The names of the rules for clients whose files changed.
    pub(crate) verifiers: Vec<Arc<str>>,
    /// The reason why a certificate was not used. The previous one stays in use.
    pub(crate) faults: Vec<String>,
    /// The rules for clients whose files were not used, and why. The previous files stay in use.
    pub(crate) verifier_faults: Vec<(Arc<str>, String)>,
}

/// The gateway's next step in a handshake.
#[derive(Debug)]
pub(crate) struct Selected {
    /// The configuration.
    pub(crate) config: Arc<ServerConfig>,
    /// Whether there is a certificate for the client.
    pub(crate) has_certificate: bool,
    session: Option<SessionPlan>,
}

#[derive(Debug)]
struct SessionPlan {
    certificates: Certificates,
    has_name: bool,
    shown: Option<Arc<Shown>>,
    verifier: Option<Verifier>,
    generation: u64,
}

impl Selected {
    /// Returns the facts of the connection after its handshake. `chain` contains the client's certificates. Returns
    /// `None` if all hosts of the policy are served alike.
    pub(crate) fn session(self, chain: &[CertificateDer<'static>]) -> Option<TlsSession> {
        let SessionPlan { certificates, has_name, shown, verifier, generation } = self.session?;
        let verifier = verifier.as_ref();
        Some(TlsSession::new(certificates, has_name, shown, verifier, chain.to_vec(), generation))
    }
}

impl Followed {
    /// Returns whether a file could not be used.
    pub(crate) fn has_faults(&self) -> bool {
        !self.faults.is_empty() || !self.verifier_faults.is_empty()
    }
}

impl Certificates {
    /// Reads all files.
    ///
    /// # Errors
    /// Returns a sentence about the first faulty file, or about the system's random numbers.
    pub(crate) fn open(settings: TlsSettings, min_version: MinVersion) -> Result<Self, String> {
        let mut all = Vec::new();
        for (files, entry) in entries(&settings) {
            let shown = Shown::open(files, entry).map_err(|why| why.to_string())?;
            all.push((Arc::new(shown), entry));
        }
        let mut verifiers = Vec::new();
        for (rule, _) in &settings.clients {
            verifiers
                .push(Verifier::open(rule.clone()).map_err(|bad| format!("{}; {}", bad.found, bad.hint))?);
        }
        let tickets = aws_lc_rs::Ticketer::new().map_err(|error| error.to_string())?;
        let state = State::new(1, &settings, min_version, &tickets, Table::new(all), verifiers)?;
        let state = ArcSwap::from_pointee(state);
        Ok(Self(Arc::new(Served { min_version, tickets, settings: Mutex::new(settings), state })))
    }

    /// Chooses how to continue the handshake of a client.
    pub(crate) fn select(&self, hello: &ClientHello<'_>) -> Selected {
        let state = self.0.state.load();
        let host = canonical_name(hello);
        let shown = state.table.of(host.as_deref()).cloned();
        let has_certificate = shown.is_some();
        if !state.is_guarded {
            return Selected { config: state.open.clone(), has_certificate, session: None };
        }
        let verifier = state.rules.get(host.as_deref()).and_then(|rule| state.verifier(rule));
        let plan = SessionPlan {
            certificates: self.clone(),
            has_name: host.is_some(),
            shown,
            verifier: verifier.map(|(verifier, _)| verifier.clone()),
            generation: state.generation,
        };
        let config = verifier.map_or(&state.open, |(_, config)| config).clone();
        Selected { config, has_certificate, session: Some(plan) }
    }

    /// Returns the settings in use.
    pub(crate) fn settings(&self) -> TlsSettings {
        self.0.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the certificates in use, the default certificate first.
    pub(crate) fn all(&self) -> Vec<Arc<Shown>> {
        self.0.state.load().table.all.clone()
    }

    /// Returns the certificate in use that a pair of a new policy replaces.
    pub(crate) fn predecessor(&self, (files, entry): (&Files, Option<&NamedFiles>)) -> Option<Arc<Shown>> {
        self.0.state.load().table.predecessor(files, entry).cloned()
    }

    /// Returns the verifiers in use.
    pub(crate) fn verifiers(&self) -> Vec<Verifier> {
        self.0.state.load().verifiers.iter().map(|(verifier, _)| verifier.clone()).collect()
    }

    /// Returns the number of the state, which grows with each change.
    pub(super) fn generation(&self) -> u64 {
        self.0.state.load().generation
    }

    /// Returns the certificate of a host.
    pub(super) fn shown_for(&self, host: &str) -> Option<Arc<Shown>> {
        self.0.state.load().table.of(Some(host)).cloned()
    }

    /// Returns the verifier of a rule.
    pub(super) fn verifier(&self, rule: &ClientRule) -> Option<Verifier> {
        self.0.state.load().verifier(rule).map(|(verifier, _)| verifier.clone())
    }

    /// Reads all files of `settings` and uses these settings from now on. A faulty file is reported, and the previous
    /// file stays in use. A certificate that is not valid now does not replace a valid one.
    pub(crate) fn follow(&self, settings: TlsSettings) -> Followed {
        // The lock is held until the new state is in use, so that an older read cannot replace a newer one.
        let mut current = self.0.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.0.state.load_full();
        let now = Now::read().unix;
        let mut followed = Followed::default();
        let mut all = Vec::new();
        for (files, entry) in entries(&settings) {
            let before = state.table.predecessor(files, entry);
            let kept = match read_again(files, entry, before, now) {
                Ok(new) => {
                    if before.is_none_or(|before| !before.shows_like(&new)) {
                        let ends = new.validity.map(|validity| validity.ends);
                        followed.replaced.push((new.label.clone(), ends));
                    }
                    Arc::new(new)
                }
                Err(why) => {
                    followed.faults.push(why);
                    let Some(before) = before else { continue };
                    before.clone()
                }
            };
            all.push((kept, entry));
        }
        let mut verifiers = Vec::new();
        for (rule, _) in &settings.clients {
            let before = state.verifier(rule).map(|(verifier, _)| verifier);
            match Verifier::open(rule.clone()) {
                Ok(new) => {
                    if before.is_none_or(|before| before.digest != new.digest) {
                        followed.verifiers.push(rule.name.clone());
                    }
                    verifiers.push(new);
                }
                Err(bad) => {
                    followed
                        .verifier_faults
                        .push((rule.name.clone(), format!("{}; {}", bad.found, bad.hint)));
                    // Without a verifier, every request for the hosts of the rule is refused.
                    verifiers.extend(before.cloned());
                }
            }
        }
        // Files that cannot be used are read again and again. A new state would make each connection verify its client again.
        if followed.replaced.is_empty() && followed.verifiers.is_empty() && *current == settings {
            return followed;
        }
        let Served { min_version, tickets, .. } = &*self.0;
        let generation = state.generation + 1;
        match State::new(generation, &settings, *min_version, tickets, Table::new(all), verifiers) {
            Ok(state) => {
                self.0.state.store(Arc::new(state));
                *current = settings;
            }
            Err(why) => followed.faults.push(why),
        }
        followed
    }
}

/// Reads a pair, unless it is not valid at `now` and the pair before it is.
fn read_again(
    files: &Files,
    entry: Option<&NamedFiles>,
    before: Option<&Arc<Shown>>,
    now: u64,
) -> Result<Shown, String> {
    let new = Shown::open(files, entry).map_err(|why| why.to_string())?;
    match new.validity.and_then(|validity| validity.fault(now)) {
        Some(invalid) if before.is_some_and(|before| before.holds(now)) => {
            Err(format!("{}: {invalid}, and the certificate in use is valid", files.certificate.display()))
        }
        Some(_) | None => Ok(new),
    }
}

/// Returns all pairs of the policy with their entries, the default first.
fn entries(settings: &TlsSettings) -> impl Iterator<Item = (&Files, Option<&NamedFiles>)> {
    let default = settings.default.iter().map(|files| (files, None));
    default.chain(settings.named.iter().map(|named| (&named.files, Some(named))))
}

impl State {
    fn new(
        generation: u64,
        settings: &TlsSettings,
        min_version: MinVersion,
        tickets: &Arc<dyn ProducesTickets>,
        table: Table,
        verifiers: Vec<Verifier>,
    ) -> Result<Self, String> {
        let table = Arc::new(table);
        let config = |verifier: Option<&Verifier>| {
            let config = match min_version {
                MinVersion::Tls12 => builder(&[&rustls::version::TLS13, &rustls::version::TLS12])?,
                MinVersion::Tls13 => builder(&[&rustls::version::TLS13])?,
            };
            let config = match verifier {
                Some(known) => config.with_client_cert_verifier(known.verifier.clone()),
                None => config.with_no_client_auth(),
            };
            let mut config = config.with_cert_resolver(table.clone());
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), b"http/1.0".to_vec()];
            // Sessions are resumed by tickets instead of a session store. Resumption then works on every core without a
            // shared lock.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            match verifier {
                // A resumed session would keep a certificate that has been revoked since.
                Some(_) => config.send_tls13_tickets = 0,
                None => config.ticketer = tickets.clone(),
            }
            Ok::<_, String>(Arc::new(config))
        };
        let open = config(None)?;
        let verifiers = verifiers.into_iter().map(|verifier| {
            let config = config(Some(&verifier))?;
            Ok::<_, String>((verifier, config))
        });
        let verifiers = verifiers.collect::<Result<_, _>>()?;
        let (is_guarded, rules) = (settings.is_guarded(), settings.client_rules());
        Ok(Self { generation, is_guarded, table: table.clone(), open, rules, verifiers })
    }

    fn verifier(&self, rule: &ClientRule) -> Option<&(Verifier, Arc<ServerConfig>)> {
        self.verifiers.iter().find(|(verifier, _)| *verifier.rule == *rule)
    }
}

fn builder(
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Result<rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>, String> {
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// Creates a pair in `folder` that expires at the start of `year`.
    fn pair(folder: &Path, name: &str, year: i32) -> Files {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec![format!("{name}.test")]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
        let certificate = parameters.self_signed(&key).unwrap();
        fs::create_dir_all(folder).unwrap();
        let files = Files {
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}-key.pem")),
            ocsp: None,
        };
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    fn only(files: &Files) -> TlsSettings {
        TlsSettings { default: Some(files.clone()), ..TlsSettings::default() }
    }

    fn ends(certificates: &Certificates) -> Vec<u64> {
        certificates.all().iter().map(|shown| shown.validity.unwrap().ends).collect()
    }

    const NEW_YEAR_2046: u64 = 2_398_377_600;
    const NEW_YEAR_2060: u64 = 2_840_140_800;

    #[test]
    fn a_pair_that_does_not_match_leaves_the_old_certificate_in_use() {
        let folder = std::env::temp_dir().join(format!("portcullis-certificates-{}", std::process::id()));
        let (old, new) = (pair(&folder, "old", 2046), pair(&folder, "new", 2060));
        let certificates = Certificates::open(only(&old), MinVersion::Tls12).unwrap();
        assert_eq!(ends(&certificates), [NEW_YEAR_2046], "a UTCTime");
        for (certificate, key, says) in [
            (&old.certificate, &new.key, "is not the key of the certificate in"),
            (&new.key, &new.key, "holds a private key and no certificate"),
            (&new.certificate, &new.certificate, "holds a certificate and no private key"),
            (&folder.join("absent"), &new.key, "No such file"),
            (&folder, &new.key, "not a file"),
        ] {
            let files = Files { certificate: certificate.clone(), key: key.clone(), ocsp: None };
            let followed = certificates.follow(only(&files));
            assert!(followed.faults[0].contains(says), "{followed:?}");
            assert_eq!((followed.replaced.len(), ends(&certificates)), (0, vec![NEW_YEAR_2046]));
        }
        assert_eq!(certificates.follow(only(&old)), Followed::default(), "it is the same");
        let followed = certificates.follow(only(&new));
        assert_eq!(followed.replaced, [("default".into(), Some(NEW_YEAR_2060))], "a GeneralizedTime");
        assert_eq!((ends(&certificates), certificates.settings()), (vec![NEW_YEAR_2060], only(&new)));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_certificate_that_does_not_hold_never_replaces_one_that_does() {
        let folder = std::env::temp_dir().join(format!("portcullis-expired-{}", std::process::id()));
        let (valid, expired) = (pair(&folder, "valid", 2046), pair(&folder, "expired", 2020));
        let certificates = Certificates::open(only(&valid), MinVersion::Tls12).unwrap();
        let followed = certificates.follow(only(&expired));
        assert!(followed.faults[0].contains("expired.pem: expired on 2020-01-01T00:00:00Z"), "{followed:?}");
        assert_eq!(ends(&certificates), [NEW_YEAR_2046]);
        // An expired certificate may be replaced by any certificate, even by an expired one.
        let certificates = Certificates::open(only(&expired), MinVersion::Tls12).unwrap();
        let other = pair(&folder, "other", 2021);
        assert_eq!(certificates.follow(only(&other)).replaced.len(), 1);
        assert_eq!(certificates.follow(only(&valid)).replaced.len(), 1);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_broken_certificate_of_one_host_does_not_keep_another_host_from_its_new_one() {
        let folder = std::env::temp_dir().join(format!("portcullis-hosts-{}", std::process::id()));
        let (a, b) = (pair(&folder, "a", 2046), pair(&folder, "b", 2046));
        let named = |files: &Files| NamedFiles { files: files.clone(), hosts: Vec::new() };
        let settings = TlsSettings { named: vec![named(&a), named(&b)], ..TlsSettings::default() };
        let certificates = Certificates::open(settings.clone(), MinVersion::Tls12).unwrap();
        assert_eq!(certificates.shown_for("a.test").unwrap().files, a);
        assert_eq!(certificates.shown_for("b.test").unwrap().files, b);
        assert!(certificates.shown_for("c.test").is_none(), "there is no default");
        fs::write(&a.certificate, "").unwrap();
        assert_eq!(pair(&folder, "b", 2060), b);
        let followed = certificates.follow(settings);
        assert_eq!((followed.replaced.len(), followed.faults.len()), (1, 1), "{followed:?}");
        assert_eq!(ends(&certificates), [NEW_YEAR_2046, NEW_YEAR_2060]);
        fs::remove_dir_all(folder).unwrap();
    }
}
