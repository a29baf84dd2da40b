//! Opens any text as an encrypted signing key of the store, with any facts. Only a key that was encrypted with a secret of
//! the policy opens, with its own facts alone.
//!
//! The first four bytes are the number of the byte to change and the change; the text follows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::authenticate::Algorithm;
use portcullis::keyring::SealSecrets;
use portcullis::store::{SealedKey, StoredKey};

fuzz_target!(|data: &[u8]| {
    let Some((head, text)) = data.split_at_checked(4) else { return };
    let seals = SealSecrets::new(&[1; 32], Some(&[2; 32])).expect("two secrets");
    let stranger = SealSecrets::new(&[3; 32], None).expect("a secret");
    let key = StoredKey { id: "kid".to_owned(), signs_from: 1000, created: 400, sealed: None };
    let sealed = seals.seal(text, Algorithm::ES256, &key).expect("it is encrypted");
    assert_eq!(seals.open(&sealed, Algorithm::ES256, &key).expect("it opens").as_slice(), text);
    assert!(stranger.open(&sealed, Algorithm::ES256, &key).is_err());
    // Any text under the name of a known secret.
    let foreign = SealedKey { text: String::from_utf8_lossy(text).into_owned(), ..sealed.clone() };
    assert!(seals.open(&foreign, Algorithm::ES256, &key).is_err());
    // One changed character. Some changes of the last character change no bit of the key.
    let at = usize::from(u16::from_be_bytes([head[0], head[1]])) % sealed.text.len();
    let mut changed = sealed.clone();
    changed.text.replace_range(at..=at, if head[2].is_multiple_of(2) { "A" } else { "_" });
    if changed != sealed && at + 1 < sealed.text.len() {
        assert!(seals.open(&changed, Algorithm::ES256, &key).is_err(), "{at}");
    }
    // Other facts.
    let other = u64::from(head[3]);
    for key in [
        StoredKey { signs_from: 1001 + other, ..key.clone() },
        StoredKey { created: 401 + other, ..key.clone() },
        StoredKey { id: String::from_utf8_lossy(text).into_owned() + "x", ..key.clone() },
    ] {
        assert!(seals.open(&sealed, Algorithm::ES256, &key).is_err());
    }
    assert!(seals.open(&sealed, Algorithm::EdDSA, &key).is_err());
});
