//! The parser of the PROXY header never panics, its header is within the bytes and the bound, and each proper beginning
//! of a header needs more bytes, so that a header in pieces is read like one at once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::peer::{PROXY_HEADER_MAX, ProxyHeader};

fuzz_target!(|data: &[u8]| {
    if let Ok(Some(header)) = ProxyHeader::read(data) {
        assert!(header.length <= data.len().min(PROXY_HEADER_MAX));
        for end in 0..header.length {
            assert_eq!(ProxyHeader::read(&data[..end]), Ok(None));
        }
        assert_eq!(ProxyHeader::read(&data[..header.length]), Ok(Some(header)));
    }
});
