//! User names and passwords have one canonical form, which is bounded and visible.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::authority::{
    NAME_BYTES_MAX, PASSWORD_BYTES_MAX, UserName, check_hash, prepare_new_password, prepare_password, scheme,
};

fuzz_target!(|text: &str| {
    if let Ok(name) = UserName::parse(text) {
        assert!((1..=NAME_BYTES_MAX).contains(&name.as_str().len()));
        assert!(!name.as_str().contains(|c: char| c.is_whitespace() || c.is_control()));
        // A canonical name, and another case of the same text, are the same name.
        for same in [name.as_str(), &text.to_lowercase()] {
            assert_eq!(UserName::parse(same).as_ref(), Ok(&name), "{same:?}");
        }
    }
    if let Ok(password) = prepare_password(text) {
        assert!((1..=PASSWORD_BYTES_MAX).contains(&password.len()));
        assert!(!password.contains(char::is_control));
        assert_eq!(prepare_password(&password).as_deref(), Ok(&*password));
        if let Ok(new) = prepare_new_password(text) {
            assert_eq!(*new, *password);
        }
    }
    // The hash of an imported account.
    if check_hash(text).is_ok() {
        let _ = scheme(text);
        assert!(text.is_ascii() && text.len() < 1024);
    }
});
