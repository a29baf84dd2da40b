//! Converts values to and from text, and bounds the size of that text. Both databases store and compare text in the
//! same way.

use super::StoreError;
use serde_json::{Map, Value};
use sqlx::Row;
use sqlx::any::AnyRow;

/// Maximum length of an id or a name, in bytes: enough for a user name (at most 128), an id from another system, or a
/// `jti`.
pub(super) const NAME_MAX: usize = 255;
/// Maximum length of an encoded password hash, in bytes. The longest hash that the gateway can check has about 200
/// bytes.
pub(super) const PASSWORD_MAX: usize = 1024;
/// Maximum length of a list of roles or scopes as JSON, in bytes. A token with a longer list would not fit into a
/// request header (8 KiB).
pub(super) const LIST_MAX: usize = 8 * 1024;
/// Maximum length of an account's attributes as JSON, in bytes.
pub(super) const ATTRIBUTES_MAX: usize = 16 * 1024;
/// Maximum length of a client's user agent, in characters. The rest is cut off.
pub(super) const AGENT_MAX: usize = 200;

/// Whether both databases can store this text. If not, no row can contain the text, so a lookup returns no result
/// without a query.
pub(super) fn is_text(text: &str) -> bool {
    !text.contains('\0')
}

/// Rejects a text that is longer than `max` bytes or has a NUL character.
pub(super) fn fit(what: &str, text: &str, max: usize) -> Result<(), StoreError> {
    if text.len() > max {
        return Err(StoreError::Unfit(format!("{what}: {} bytes; at most {max} are kept", text.len())));
    }
    if !is_text(text) {
        return Err(StoreError::Unfit(format!("{what}: has a NUL character")));
    }
    Ok(())
}

/// Returns the first `max` characters of a text that a client chose, without control characters.
pub(super) fn shown(text: &str, max: usize) -> String {
    text.chars().filter(|character| !character.is_control()).take(max).collect()
}

/// Encodes a list of names for storage. Rejects a list that is too long.
pub(super) fn list_text(what: &str, list: &[String]) -> Result<String, StoreError> {
    let text = Value::from(list).to_string();
    fit(what, &text, LIST_MAX)?;
    Ok(text)
}

/// Decodes a stored list of names.
pub(super) fn list_of(row: &AnyRow, column: &str) -> Result<Vec<String>, StoreError> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|_| StoreError::Broken(format!("{column} that are no list of names")))
}

/// Encodes attributes for storage. Rejects attributes that are too long.
pub(super) fn map_text(what: &str, map: &Map<String, Value>) -> Result<String, StoreError> {
    let text = Value::Object(map.clone()).to_string();
    fit(what, &text, ATTRIBUTES_MAX)?;
    Ok(text)
}

/// Decodes stored attributes.
pub(super) fn map_of(row: &AnyRow, column: &str) -> Result<Map<String, Value>, StoreError> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|_| StoreError::Broken(format!("{column} that are no JSON object")))
}

/// Encodes 32 bytes for storage, as lowercase hex.
pub(super) fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().flat_map(|byte| crate::hex::digits(*byte)).map(char::from).collect()
}

/// Decodes 32 stored bytes.
pub(super) fn bytes_of(text: &str) -> Result<[u8; 32], StoreError> {
    let broken = || StoreError::Broken("a hash or nonce that is none".to_owned());
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(broken());
    }
    let mut out = [0; 32];
    for (byte, at) in out.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| broken())?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_come_back_as_they_were(bytes: [u8; 32]) {
            let text = hex(&bytes);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase()));
            prop_assert_eq!(bytes_of(&text).unwrap(), bytes);
        }

        #[test]
        fn displayed_text_is_bounded_and_has_no_control_characters(text: String, max in 0_usize..300) {
            let shown = shown(&text, max);
            prop_assert!(shown.chars().count() <= max && !shown.contains(char::is_control));
        }
    }

    #[test]
    fn an_invalid_hash_is_a_broken_store() {
        for text in ["", "zz", "+1", &"g".repeat(64), &"a".repeat(63), &"+a".repeat(32), &"\u{e4}".repeat(32)]
        {
            assert!(matches!(bytes_of(text), Err(StoreError::Broken(_))), "{text}");
        }
    }

    #[test]
    fn a_text_is_kept_up_to_its_bound_and_without_nul() {
        assert!(fit("id", &"a".repeat(NAME_MAX), NAME_MAX).is_ok());
        assert!(matches!(fit("id", &"a".repeat(NAME_MAX + 1), NAME_MAX), Err(StoreError::Unfit(_))));
        assert!(matches!(fit("id", "a\0", NAME_MAX), Err(StoreError::Unfit(_))));
    }
}
