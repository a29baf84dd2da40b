//! Reads the facts of a certificate that rustls does not report: its validity and its names.

use crate::timestamp::rfc3339;
use rustls::pki_types::CertificateDer;
use std::fmt;
use std::net::IpAddr;
use yasna::models::ObjectIdentifier;
use yasna::tags::{TAG_IA5STRING, TAG_INTEGER, TAG_PRINTABLESTRING, TAG_UTCTIME, TAG_UTF8STRING};
use yasna::{ASN1Error, ASN1ErrorKind, ASN1Result, BERReader, BERReaderSeq, Tag};

/// `id-at-commonName` (RFC 5280 appendix A.1).
const COMMON_NAME: [u64; 4] = [2, 5, 4, 3];
/// `id-ce-subjectAltName` (RFC 5280 section 4.2.1.6).
const ALTERNATIVE_NAMES: [u64; 4] = [2, 5, 29, 17];

/// `id-ce-authorityKeyIdentifier` (RFC 5280 section 4.2.1.1).
const AUTHORITY_KEY: [u64; 4] = [2, 5, 29, 35];

/// The validity of a certificate, in seconds since 1970. Both ends are included (RFC 5280 section 4.1.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    /// The certificate's `notBefore`.
    pub(crate) begins: u64,
    /// The certificate's `notAfter`.
    pub(crate) ends: u64,
}

impl Validity {
    /// Parses the validity of a certificate. Returns `None` if it is malformed.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        Facts::of(certificate).map(|facts| facts.validity)
    }

    /// Returns why the certificate is not valid at `now` (seconds since 1970), or `None` if it is valid.
    pub(crate) fn fault(self, now: u64) -> Option<Invalid> {
        match () {
            () if now > self.ends => Some(Invalid::Expired(self.ends)),
            () if now < self.begins => Some(Invalid::NotYet(self.begins)),
            () => None,
        }
    }
}

/// The reason why a certificate is not valid. The value is the time at which its validity ended or will begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// The certificate has expired.
    Expired(u64),
    /// The certificate is not valid yet.
    NotYet(u64),
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired(ends) => write!(f, "expired on {}", rfc3339(*ends)),
            Self::NotYet(begins) => write!(f, "is not valid before {}", rfc3339(*begins)),
        }
    }
}

/// The names in a certificate, in the order of the certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The common names of the subject.
    pub common: Vec<Box<str>>,
    /// The alternative names that are host names, as written.
    pub dns: Vec<Box<str>>,
    /// The alternative names that are URIs.
    pub uris: Vec<Box<str>>,
    /// The alternative names that are email addresses.
    pub emails: Vec<Box<str>>,
    /// The alternative names that are addresses of hosts.
    pub addresses: Vec<IpAddr>,
}

/// The facts of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub(crate) serial: Vec<u8>,
    pub(crate) validity: Validity,
    /// The names.
    pub names: Names,
    /// The identifier of the key that signed the certificate.
    pub(crate) authority_key: Option<Vec<u8>>,
}

impl Facts {
    /// Parses the facts of a certificate. Returns `None` if it is malformed, or has two lists of alternative names: a
    /// certificate has each extension at most once (RFC 5280 section 4.2).
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let read = yasna::parse_der(certificate, |reader| {
            reader.read_sequence(|reader| {
                let facts = reader.next().read_sequence(to_be_signed)?;
                rest(reader)?;
                Ok(facts)
            })
        });
        read.ok()
    }
}

/// Returns the version of a certificate: 1 unless it states another (RFC 5280 section 4.1.2.1). Returns `None` if it is
/// malformed.
pub(crate) fn version(certificate: &CertificateDer<'_>) -> Option<u64> {
    let read = yasna::parse_der(certificate, |reader| {
        reader.read_sequence(|reader| {
            let version = reader.next().read_sequence(|reader| {
                let stated = reader
                    .read_optional(|reader| reader.read_tagged(Tag::context(0), |reader| reader.read_u8()))?;
                rest(reader)?;
                Ok(u64::from(stated.unwrap_or(0)) + 1)
            })?;
            rest(reader)?;
            Ok(version)
        })
    });
    read.ok()
}

/// Returns the end of a certificate revocation list's validity (`nextUpdate`) in seconds since 1970. Returns `None` if
/// the list is malformed or names no end.
pub fn next_update(list: &[u8]) -> Option<u64> {
    let read = yasna::parse_der(list, |reader| {
        reader.read_sequence(|reader| {
            let ends = reader.next().read_sequence(|reader| {
                reader.read_optional(|reader| match reader.lookahead_tag()? {
                    TAG_INTEGER => reader.read_der(),
                    _ => Err(ASN1Error::new(ASN1ErrorKind::Invalid)),
                })?;
                let (_algorithm, _issuer) = (reader.next().read_der()?, reader.next().read_der()?);
                let _this_update = moment(reader.next())?;
                let ends = reader.read_optional(moment)?;
                rest(reader)?;
                Ok(ends)
            })?;
            rest(reader)?;
            Ok(ends)
        })
    });
    read.ok().flatten().map(unsigned)
}

/// The part of an OCSP response that matters for stapling (RFC 6960 section 4.2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OcspAnswer {
    /// The serial number of the certificate that the response is about.
    pub(crate) serial: Vec<u8>,
    /// Whether the certificate is not revoked.
    pub(crate) is_good: bool,
    /// The time until which clients accept the response, in seconds since 1970.
    pub(crate) ends: Option<u64>,
}

impl OcspAnswer {
    /// Parses a successful response about one certificate. Its signature is not verified: the clients do that.
    pub fn of(response: &[u8]) -> Option<Self> {
        let basic = yasna::parse_der(response, |reader| {
            reader.read_sequence(|reader| {
                if reader.next().read_enum()? != 0 {
                    return Err(ASN1Error::new(ASN1ErrorKind::Invalid));
                }
                reader.next().read_tagged(Tag::context(0), |reader| {
                    reader.read_sequence(|reader| {
                        let _kind = reader.next().read_oid()?;
                        reader.next().read_bytes()
                    })
                })
            })
        });
        let read = yasna::parse_der(&basic.ok()?, |reader| {
            reader.read_sequence(|reader| {
                let answer = reader.next().read_sequence(|reader| {
                    reader.read_optional(|reader| {
                        reader.read_tagged(Tag::context(0), |reader| reader.read_der())
                    })?;
                    let (_responder, _produced) = (reader.next().read_der()?, moment(reader.next())?);
                    let mut answers = reader.next().collect_sequence_of(single_answer)?;
                    rest(reader)?;
                    match (answers.pop(), answers.is_empty()) {
                        (Some(answer), true) => Ok(answer),
                        _ => Err(ASN1Error::new(ASN1ErrorKind::Invalid)),
                    }
                })?;
                rest(reader)?;
                Ok(answer)
            })
        });
        read.ok()
    }
}

/// Reads a `SingleResponse`.
fn single_answer(reader: BERReader<'_, '_>) -> ASN1Result<OcspAnswer> {
    reader.read_sequence(|reader| {
        let serial = reader.next().read_sequence(|reader| {
            let (_algorithm, _name, _key) =
                (reader.next().read_der()?, reader.next().read_bytes()?, reader.next().read_bytes()?);
            reader.next().read_bigint_bytes()
        })?;
        let status = reader.next();
        let is_good = status.lookahead_tag()? == Tag::context(0);
        status.read_der()?;
        let _this_update = moment(reader.next())?;
        let ends = reader.read_optional(|reader| reader.read_tagged(Tag::context(0), moment))?;
        rest(reader)?;
        Ok(OcspAnswer { serial: serial.0, is_good, ends: ends.map(unsigned) })
    })
}

/// Reads a `TBSCertificate` (RFC 5280 section 4.1).
fn to_be_signed(reader: &mut BERReaderSeq<'_, '_>) -> ASN1Result<Facts> {
    reader.read_optional(|reader| reader.read_tagged(Tag::context(0), |reader| reader.read_der()))?;
    let (serial, _) = reader.next().read_bigint_bytes()?;
    let (_algorithm, _issuer) = (reader.next().read_der()?, reader.next().read_der()?);
    let (begins, ends) =
        reader.next().read_sequence(|reader| Ok((moment(reader.next())?, moment(reader.next())?)))?;
    let mut names = Names::default();
    reader.next().read_sequence_of(|reader| {
        reader.read_set_of(|reader| {
            reader.read_sequence(|reader| {
                if reader.next().read_oid()? != ObjectIdentifier::from_slice(&COMMON_NAME) {
                    reader.next().read_der()?;
                } else {
                    names.common.push(text(reader.next())?);
                }
                Ok(())
            })
        })
    })?;
    let _key = reader.next().read_der()?;
    for id in [1, 2] {
        reader.read_optional(|reader| {
            reader.read_tagged_implicit(Tag::context(id), |r| r.read_bitvec_bytes())
        })?;
    }
    let mut lists = 0;
    let mut authority_key = None;
    reader.read_optional(|reader| {
        reader.read_tagged(Tag::context(3), |reader| {
            reader.read_sequence_of(|reader| {
                reader.read_sequence(|reader| {
                    let id = reader.next().read_oid()?;
                    reader.read_default(false, |reader| reader.read_bool())?;
                    let value = reader.next().read_bytes()?;
                    if id == ObjectIdentifier::from_slice(&ALTERNATIVE_NAMES) {
                        lists += 1;
                        alternatives(&value, &mut names)?;
                    }
                    if id == ObjectIdentifier::from_slice(&AUTHORITY_KEY) {
                        // A malformed identifier is only missed by ACME renewal information.
                        authority_key = key_identifier(&value).ok().flatten();
                    }
                    Ok(())
                })
            })
        })
    })?;
    rest(reader)?;
    if lists > 1 {
        return Err(ASN1Error::new(ASN1ErrorKind::Invalid));
    }
    let validity = Validity { begins: unsigned(begins), ends: unsigned(ends) };
    Ok(Facts { serial, validity, names, authority_key })
}

/// Reads the key identifier of the extension `authorityKeyIdentifier`.
fn key_identifier(value: &[u8]) -> ASN1Result<Option<Vec<u8>>> {
    yasna::parse_der(value, |reader| {
        reader.read_sequence(|reader| {
            let id = reader.read_optional(|reader| {
                reader.read_tagged_implicit(Tag::context(0), |reader| reader.read_bytes())
            })?;
            rest(reader)?;
            Ok(id)
        })
    })
}

/// Reads the `GeneralNames` of the extension `subjectAltName`.
fn alternatives(value: &[u8], names: &mut Names) -> ASN1Result<()> {
    yasna::parse_der(value, |reader| {
        reader.read_sequence_of(|reader| {
            let tag = reader.lookahead_tag()?;
            let list = match () {
                () if tag == Tag::context(1) => &mut names.emails,
                () if tag == Tag::context(2) => &mut names.dns,
                () if tag == Tag::context(6) => &mut names.uris,
                () if tag == Tag::context(7) => {
                    let bytes = reader.read_tagged_implicit(tag, |reader| reader.read_bytes())?;
                    names.addresses.extend(address(&bytes));
                    return Ok(());
                }
                () => return reader.read_der().map(drop),
            };
            list.push(content(reader, tag)?);
            Ok(())
        })
    })
}

/// Reads an address. Returns `None` for any length but those of the two families.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4().or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

/// Reads a text of a name. Other types of text are not used by authorities any more, and become empty.
fn text(reader: BERReader<'_, '_>) -> ASN1Result<Box<str>> {
    match reader.lookahead_tag()? {
        tag @ (TAG_UTF8STRING | TAG_PRINTABLESTRING | TAG_IA5STRING) => content(reader, tag),
        _ => reader.read_der().map(|_| Box::default()),
    }
}

/// Reads the text of a value with this tag. Authorities put more characters into the types for ASCII than these allow.
/// A text that is not UTF-8 becomes empty, so that it stays a name of its kind and identifies nobody.
fn content(reader: BERReader<'_, '_>, tag: Tag) -> ASN1Result<Box<str>> {
    let bytes = reader.read_tagged_implicit(tag, |reader| reader.read_bytes())?;
    Ok(String::from_utf8(bytes).unwrap_or_default().into())
}

fn moment(reader: BERReader<'_, '_>) -> ASN1Result<i64> {
    Ok(if reader.lookahead_tag()? == TAG_UTCTIME {
        reader.read_utctime()?.datetime().unix_timestamp()
    } else {
        reader.read_generalized_time()?.datetime().unix_timestamp()
    })
}

/// Skips the rest of a sequence.
fn rest(reader: &mut BERReaderSeq<'_, '_>) -> ASN1Result<()> {
    while reader.read_optional(|reader| reader.read_der())?.is_some() {}
    Ok(())
}

/// Returns a time as seconds since 1970. A time before 1970 becomes 1970.
fn unsigned(moment: i64) -> u64 {
    u64::try_from(moment).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_bytes_make_reading_the_facts_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let _ = next_update(&bytes);
            let _ = Facts::of(&CertificateDer::from(bytes));
        }

        #[test]
        fn no_changed_byte_makes_reading_the_facts_panic(at in 0_usize..2000, byte in proptest::num::u8::ANY) {
            let mut bytes = certificate().to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Facts::of(&CertificateDer::from(bytes));
        }
    }

    fn certificate() -> CertificateDer<'static> {
        use rcgen::SanType;
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(
            ["a.example.com", "*.b.example.com", "127.0.0.1"].map(str::to_owned),
        )
        .unwrap();
        parameters.subject_alt_names.push(SanType::URI("spiffe://example.org/billing".try_into().unwrap()));
        parameters.subject_alt_names.push(SanType::Rfc822Name("ada@example.com".try_into().unwrap()));
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::OrganizationName, "Example");
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "billing");
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2060, 1, 1);
        parameters.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn the_validity_and_every_kind_of_name_are_read() {
        let facts = Facts::of(&certificate()).unwrap();
        assert_eq!(facts.validity, Validity { begins: 1_577_836_800, ends: 2_840_140_800 });
        let texts = |list: &[&str]| list.iter().map(|text| Box::from(*text)).collect::<Vec<Box<str>>>();
        let names = Names {
            common: texts(&["billing"]),
            dns: texts(&["a.example.com", "*.b.example.com"]),
            uris: texts(&["spiffe://example.org/billing"]),
            emails: texts(&["ada@example.com"]),
            addresses: vec![IpAddr::from([127, 0, 0, 1])],
        };
        assert_eq!(facts.names, names);
        let key = rcgen::KeyPair::generate().unwrap();
        let bare = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
        assert_eq!(Facts::of(bare.der()).unwrap().names.dns, texts(&[]));
    }

    #[test]
    fn a_name_that_cannot_be_read_is_an_empty_name_and_hides_no_other_fact() {
        let original = certificate();
        let is_name = |(_, bytes): &(usize, &[u8])| *bytes == b"billing";
        let places: Vec<_> =
            original.windows(7).enumerate().filter(is_name).map(|(place, _)| place).collect();
        let [_issuer, subject, uri] = places[..] else { panic!("{places:?}") };
        for (byte, common) in [(b'_', "b_lling"), (0xff, "")] {
            let mut changed = original.to_vec();
            changed[subject + 1] = byte;
            let facts = Facts::of(&CertificateDer::from(changed)).unwrap();
            assert_eq!(facts.names.common, [Box::from(common)]);
            assert_eq!(facts.names.uris.len(), 1);
        }
        let mut changed = original.to_vec();
        changed[uri] = 0xff;
        let names = Facts::of(&CertificateDer::from(changed)).unwrap().names;
        assert_eq!((&*names.uris, &*names.common), (&[Box::from("")][..], &[Box::from("billing")][..]));
    }

    #[test]
    fn the_key_of_the_authority_is_identified_as_its_certificate_says() {
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![7; 20]);
        let issuer = rcgen::Issuer::new(parameters, rcgen::KeyPair::generate().unwrap());
        let mut parameters = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let facts = |parameters: &rcgen::CertificateParams| {
            Facts::of(parameters.signed_by(&key, &issuer).unwrap().der()).unwrap()
        };
        assert_eq!(facts(&parameters).authority_key, None);
        parameters.use_authority_key_identifier_extension = true;
        // RFC 9773 section 4.1 uses the serial number as it is encoded, with a leading zero.
        parameters.serial_number = Some(rcgen::SerialNumber::from_slice(&[0x87, 0x65]));
        let facts = facts(&parameters);
        assert_eq!((facts.authority_key, facts.serial), (Some(vec![7; 20]), vec![0, 0x87, 0x65]));
    }

    #[test]
    fn a_certificate_holds_from_its_first_second_to_its_last() {
        // RFC 5280 section 4.1.2.5: the validity period includes both notBefore and notAfter.
        let validity = Validity { begins: 10, ends: 20 };
        for (now, fault) in
            [(9, Some(Invalid::NotYet(10))), (10, None), (20, None), (21, Some(Invalid::Expired(20)))]
        {
            assert_eq!(validity.fault(now), fault, "{now}");
        }
    }

    #[test]
    fn the_end_of_a_revocation_list_is_read() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2026, 1, 1),
            next_update: rcgen::date_time_ymd(2046, 1, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let issuer = rcgen::Issuer::new(parameters, key);
        assert_eq!(next_update(list.signed_by(&issuer).unwrap().der()), Some(2_398_377_600));
        assert_eq!(next_update(&certificate()), None, "a certificate is not a list");
    }
}
