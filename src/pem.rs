//! Describes files in PEM that cannot be parsed.

use rustls::pki_types::pem::Error;

/// The maximum length of the name of a block in a description. The names of certificates and keys are shorter.
const NAME_MAX: usize = 40;

/// Returns what is wrong with a file. The library would print the name of a block as a list of numbers.
pub(crate) fn fault(error: &Error) -> String {
    match error {
        Error::MissingSectionEnd { end_marker } => {
            let shown = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
            let name: String =
                end_marker.iter().copied().filter(shown).take(NAME_MAX).map(char::from).collect();
            format!("a block -----BEGIN {name}----- is not followed by -----END {name}-----")
        }
        Error::IllegalSectionStart { .. } => {
            "a line begins with -----BEGIN and does not end with -----".to_owned()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    #[test]
    fn a_block_is_named_in_letters() {
        for (text, fault_shown) in [
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n",
                "a block -----BEGIN CERTIFICATE----- is not followed by -----END CERTIFICATE-----",
            ),
            ("-----BEGIN CERTIFICATE\nAAAA\n", "a line begins with -----BEGIN and does not end with -----"),
        ] {
            assert_eq!(fault(&CertificateDer::from_pem_slice(text.as_bytes()).unwrap_err()), fault_shown);
        }
        let odd = Error::MissingSectionEnd { end_marker: b"A\x1b[2J\n".repeat(100) };
        let shown = fault(&odd);
        assert!(shown.len() < 200 && !shown.contains(['\x1b', '\n']), "{shown:?}");
    }
}
