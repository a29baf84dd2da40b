//! Writes hexadecimal digits and percent codes, without `core::fmt`.

/// Returns the two hexadecimal digits of a byte, in lower case.
pub(crate) const fn digits(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[(byte >> 4) as usize], DIGITS[(byte & 15) as usize]]
}

/// Returns the hexadecimal digits of a number, in lower case and with leading zeros. All digits are computed at once.
pub(crate) const fn digits_of(number: u64) -> [u8; 16] {
    const ONES: u128 = 0x0101_0101_0101_0101_0101_0101_0101_0101;
    // Spreads the 16 half bytes over 16 bytes.
    let mut half = number as u128;
    half = (half | half << 32) & 0x0000_0000_ffff_ffff_0000_0000_ffff_ffff;
    half = (half | half << 16) & 0x0000_ffff_0000_ffff_0000_ffff_0000_ffff;
    half = (half | half << 8) & 0x00ff_00ff_00ff_00ff_00ff_00ff_00ff_00ff;
    half = (half | half << 4) & (ONES * 0x0f);
    // Adding 6 sets bit 4 of each half byte above 9: a letter, which is 39 above the digit's place in ASCII.
    let letters = ((half + ONES * 6) >> 4) & ONES;
    (half + ONES * (b'0' as u128) + letters * 39).to_be_bytes()
}

/// Returns the hexadecimal digits of all bytes, in lower case.
pub(crate) fn text(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| digits(*byte)).map(char::from).collect()
}

/// Parses exactly `N` bytes from lower-case hexadecimal digits.
pub(crate) fn read<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// Appends the percent code of a byte in upper case (RFC 3986 section 2.1).
pub(crate) fn push_percent_code(out: &mut String, byte: u8) {
    let [high, low] = digits(byte);
    out.push('%');
    out.push(char::from(high.to_ascii_uppercase()));
    out.push(char::from(low.to_ascii_uppercase()));
}

/// Percent-encodes all bytes except those that `is_plain` accepts. Accepted bytes must be ASCII.
pub(crate) fn percent_encoded(bytes: &[u8], is_plain: impl Fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            push_percent_code(&mut out, byte);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_the_digits_that_fmt_gives_it() {
        for byte in 0..=u8::MAX {
            assert_eq!(digits(byte).map(char::from).iter().collect::<String>(), format!("{byte:02x}"));
            assert_eq!(percent_encoded(&[byte], |_| false), format!("%{byte:02X}"));
        }
    }

    #[test]
    fn a_number_has_the_digits_that_fmt_gives_it() {
        for number in [0, 1, 0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210, 0x9a9a_9a9a_a9a9_a9a9, u64::MAX] {
            assert_eq!(String::from_utf8_lossy(&digits_of(number)), format!("{number:016x}"));
        }
    }

    #[test]
    fn digits_are_read_back_and_nothing_else_is() {
        let bytes = [0, 9, 10, 0xaf, 0xff];
        assert_eq!(read(&text(&bytes)), Some(bytes));
        for digits in ["", "00", "000", "0000", "00FF", "00 f", "00+f", "0g00"] {
            assert_eq!(read::<2>(digits), (digits == "0000").then_some([0, 0]), "{digits}");
        }
    }

    #[test]
    fn plain_bytes_stay_as_they_are() {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric();
        assert_eq!(percent_encoded("a/\u{fc}9".as_bytes(), is_plain), "a%2F%C3%BC9");
    }
}
