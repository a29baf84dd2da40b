//! A certificate authority.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

/// A certificate and its key.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// The certificate in PEM.
    pub pem: String,
    /// The key in PEM.
    pub key: String,
    serial: u64,
    key_der: Vec<u8>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("serial", &self.serial).finish_non_exhaustive()
    }
}

impl Identity {
    /// Returns the key for rustls.
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key_der.clone()).expect("a key that rcgen wrote")
    }

    /// Returns the identity with a certificate of version 1: without the version, the extensions and a right signature.
    pub fn of_version_1(&self) -> Self {
        let elements = |der: &[u8]| {
            yasna::parse_der(der, |reader| reader.collect_sequence_of(|reader| reader.read_der()))
                .expect("DER")
        };
        let sequence = |elements: &[Vec<u8>]| {
            yasna::construct_der(|writer| {
                writer.write_sequence(|writer| {
                    elements.iter().for_each(|element| writer.next().write_der(element))
                });
            })
        };
        let mut parts = elements(&self.certificate);
        let is_old = |element: &Vec<u8>| !matches!(element.first(), Some(0xa0 | 0xa3));
        parts[0] = sequence(&elements(&parts[0]).into_iter().filter(is_old).collect::<Vec<_>>());
        let certificate = CertificateDer::from(sequence(&parts));
        let text = STANDARD.encode(&certificate);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        Self { certificate, pem, ..self.clone() }
    }

    /// Returns the thumbprint of the certificate, as in `cnf.x5t#S256`.
    pub fn thumbprint(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.certificate);
        super::forge::base64url(digest)
    }
}

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The authority's own certificate in PEM.
    pub pem: String,
    /// The authority's key in PEM.
    pub key: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Creates an authority with this name.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name);
        let pem = parameters.self_signed(&key).unwrap().pem();
        let text = key.serialize_pem();
        Self { issuer: Issuer::new(parameters, key), pem, key: text }
    }

    /// Issues a certificate with these alternative names. A name with a scheme is a URI, one with `@` an email address,
    /// and any other is an address or a host. The common name is the first of them.
    pub fn issue(&self, names: &[&str]) -> Identity {
        self.issue_until(names, 2046)
    }

    /// Issues a certificate that expires at the beginning of this year.
    pub fn issue_until(&self, names: &[&str], year: i32) -> Identity {
        self.sign(names, |parameters| parameters.not_after = date_time_ymd(year, 1, 1))
    }

    /// Issues a certificate that is valid from yesterday and for this number of days.
    pub fn issue_for_days(&self, names: &[&str], days: u64) -> Identity {
        let day = std::time::Duration::from_secs(86_400);
        let yesterday = std::time::SystemTime::now() - day;
        self.sign(names, |parameters| {
            parameters.not_before = yesterday.into();
            parameters.not_after = (yesterday + day * u32::try_from(days).unwrap()).into();
        })
    }

    /// Issues the certificate of another authority, with these alternative names.
    pub fn issue_authority(&self, names: &[&str]) -> Identity {
        self.sign(names, |parameters| parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))
    }

    fn sign(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
        static SERIALS: AtomicU64 = AtomicU64::new(1000);
        let serial = SERIALS.fetch_add(1, Ordering::Relaxed);
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        for name in names {
            parameters.subject_alt_names.push(match *name {
                name if name.contains("://") => SanType::URI(name.try_into().unwrap()),
                name if name.contains('@') => SanType::Rfc822Name(name.try_into().unwrap()),
                name if name.parse::<IpAddr>().is_ok() => SanType::IpAddress(name.parse().unwrap()),
                name => SanType::DnsName(name.try_into().unwrap()),
            });
        }
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, names[0]);
        parameters.serial_number = Some(SerialNumber::from(serial));
        change(&mut parameters);
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        Identity {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            key: key.serialize_pem(),
            serial,
            key_der: key.serialize_der(),
        }
    }

    /// Returns the answer of the authority's OCSP responder about a certificate, in DER. The answer is by OpenSSL, and
    /// valid for a week.
    pub fn vouch(&self, identity: &Identity) -> Vec<u8> {
        let dir = super::dir::Dir::new();
        let entry = format!("V\t460101000000Z\t\t{:04X}\tunknown\t/CN=any\n", identity.serial);
        for (name, content) in
            [("ca.pem", &self.pem), ("ca.key", &self.key), ("cert.pem", &identity.pem), ("index.txt", &entry)]
        {
            dir.write(name, content);
        }
        for arguments in [
            "ocsp -issuer ca.pem -cert cert.pem -no_nonce -reqout request.der",
            "ocsp -index index.txt -CA ca.pem -rsigner ca.pem -rkey ca.key -ndays 7 -reqin request.der -respout answer.der",
        ] {
            let run = std::process::Command::new("openssl")
                .args(arguments.split(' '))
                .current_dir(dir.path())
                .output()
                .expect("openssl is installed");
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        }
        std::fs::read(dir.path().join("answer.der")).unwrap()
    }

    /// Returns a revocation list in PEM with these certificates, which is valid until the beginning of a year.
    pub fn revoke(&self, revoked: &[&Identity], year: i32) -> String {
        self.list(revoked, |list| list.next_update = date_time_ymd(year, 1, 1))
    }

    /// Returns an empty revocation list in PEM, which is valid for this time.
    pub fn revoke_none_for(&self, time: std::time::Duration) -> String {
        self.list(&[], |list| list.next_update = (std::time::SystemTime::now() + time).into())
    }

    fn list(
        &self,
        revoked: &[&Identity],
        change: impl FnOnce(&mut CertificateRevocationListParams),
    ) -> String {
        let revoked_certs = revoked.iter().map(|identity| RevokedCertParams {
            serial_number: SerialNumber::from(identity.serial),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let mut list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2046, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        change(&mut list);
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}
