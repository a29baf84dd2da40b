//! Anybody who can write to Redis may have written an entry of the stream of marks. An entry of another authority marks
//! nothing, and a mark is read as it is written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::authenticate::Mark;
use portcullis::shared::{FoundMark, read_mark, write_mark};

fuzz_target!(|text: &str| {
    let (ours, other) = ([7; 16], [8; 16]);
    match read_mark(text, Some(&ours)) {
        FoundMark::Mark(mark, until) => {
            assert!(text.len() <= 4096);
            let written = write_mark(&mark, until, Some(&ours)).expect("a mark can be written");
            assert_eq!(read_mark(&written, Some(&ours)), FoundMark::Mark(mark.clone(), until));
            let elsewhere = match mark {
                Mark::Signal(_) => FoundMark::Mark(mark, until),
                Mark::Token(_) | Mark::Session(_) | Mark::Account { .. } => FoundMark::Foreign,
            };
            assert_eq!(read_mark(text, Some(&other)), elsewhere);
            assert_eq!(read_mark(text, None), elsewhere);
        }
        FoundMark::Foreign => assert_eq!(read_mark(text, None), FoundMark::Foreign),
        FoundMark::Unreadable => assert_eq!(read_mark(text, Some(&other)), FoundMark::Unreadable),
    }
});
