//! Runs every fuzz target on its seeds, and on changed seeds. The targets compile with the product in this way, and their
//! properties hold for a few inputs of each kind. Coverage-guided fuzzing is described in `fuzz/README.md`.

#![allow(
    unused_attributes,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "the targets are crates of their own elsewhere, and a test may fail wherever it stands"
)]

// The targets import their macro from this crate, in place of the fuzzer's.
extern crate self as libfuzzer_sys;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Declares the targets as modules, and a test for each.
macro_rules! targets {
    ($($target:ident)*) => {
        #[path = "../fuzz/fuzz_targets"]
        mod targets {
            $(pub mod $target;)*
        }

        /// Runs the targets on their seeds and on changed seeds.
        mod properties_hold_for {
            $(#[test]
            fn $target() {
                super::examine(stringify!($target), super::targets::$target::run);
            })*
        }

        const TARGETS: &[&str] = &[$(stringify!($target)),*];
    };
}

targets! {
    account acme_answer api_key certificate claim_path claims cookie destination dpop fields forwarded handshake head
    introspection key_set mark negotiation path policy proxy_header redis_answer request sealed_key signal strip token
    upstream_answer websocket_frames
}

/// The maximum length of an input in bytes, as in `fuzz/run`.
const INPUT_MAX: usize = 8192;

/// The number of changed inputs for each target.
const CASES: u32 = 2000;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

/// One change of an input.
#[derive(Clone, Debug)]
enum Change {
    /// One byte becomes another.
    Replace(Index, u8),
    /// The bytes between two places are removed.
    Remove(Index, Index),
    /// The bytes between two places appear twice.
    Repeat(Index, Index),
    /// A piece that often has a meaning appears at a place.
    Insert(Index, &'static str),
    /// The rest is that of another seed.
    Splice(Index, Index, Index),
}

const PIECES: &[&str] = &[
    "\0",
    "\r\n",
    "\n",
    " ",
    "\t",
    "\"",
    "\\",
    "%",
    "%2e",
    "%00",
    "/",
    "//",
    "/../",
    ".",
    ";",
    ",",
    ":",
    "=",
    "@",
    "#",
    "?",
    "-1",
    "0",
    "18446744073709551616",
    "1e400",
    "null",
    "{}",
    "[",
    "é",
    "\u{202e}",
    "*",
];

fn change() -> impl Strategy<Value = Change> {
    let place = any::<Index>;
    prop_oneof![
        (place(), any::<u8>()).prop_map(|(at, byte)| Change::Replace(at, byte)),
        (place(), place()).prop_map(|(from, to)| Change::Remove(from, to)),
        (place(), place()).prop_map(|(from, to)| Change::Repeat(from, to)),
        (place(), proptest::sample::select(PIECES)).prop_map(|(at, piece)| Change::Insert(at, piece)),
        (place(), place(), place()).prop_map(|(at, seed, from)| Change::Splice(at, seed, from)),
    ]
}

fn changed(mut input: Vec<u8>, change: &Change, seeds: &[Vec<u8>]) -> Vec<u8> {
    let place = |at: &Index, length: usize| at.index(length + 1);
    let range = |from: &Index, to: &Index, length: usize| {
        let (from, to) = (place(from, length), place(to, length));
        from.min(to)..from.max(to)
    };
    match change {
        Change::Replace(at, byte) => {
            if !input.is_empty() {
                let at = at.index(input.len());
                input[at] = *byte;
            }
        }
        Change::Remove(from, to) => drop(input.drain(range(from, to, input.len()))),
        Change::Repeat(from, to) => {
            let range = range(from, to, input.len());
            let (end, piece) = (range.end, input[range].to_vec());
            input.splice(end..end, piece);
        }
        Change::Insert(at, piece) => {
            let at = place(at, input.len());
            input.splice(at..at, piece.bytes());
        }
        Change::Splice(at, seed, from) => {
            let other = &seeds[seed.index(seeds.len())];
            input.truncate(place(at, input.len()));
            input.extend(&other[place(from, other.len())..]);
        }
    }
    input.truncate(INPUT_MAX);
    input
}

/// Runs a target on no bytes, on each seed, and on seeds with up to six changes.
fn examine(name: &str, target: fn(&[u8])) {
    let mut seeds: Vec<(PathBuf, Vec<u8>)> = fs::read_dir(folder("seeds").join(name))
        .unwrap_or_else(|why| panic!("fuzz/seeds/{name}: {why}"))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    seeds.sort();
    target(b"");
    for (path, seed) in &seeds {
        println!("{}", path.display());
        target(seed);
    }
    let seeds: Vec<Vec<u8>> = seeds.into_iter().map(|(_, seed)| seed).collect();
    assert!(!seeds.is_empty(), "fuzz/seeds/{name} is empty");
    let inputs = (any::<Index>(), proptest::collection::vec(change(), 1..6)).prop_map(|(seed, changes)| {
        let seed = seeds[seed.index(seeds.len())].clone();
        changes.iter().fold(seed, |input, change| changed(input, change, &seeds))
    });
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    // The same inputs in each run. The fuzzer looks for new ones.
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let verdict = runner.run(&inputs, |input| {
        target(&input);
        Ok(())
    });
    verdict.unwrap_or_else(|failure| panic!("{name}: {failure}"));
}

#[test]
fn every_target_is_run_here_and_by_the_fuzzer() {
    let expected: BTreeSet<String> = TARGETS.iter().map(|name| (*name).to_owned()).collect();
    let files: BTreeSet<String> = fs::read_dir(folder("fuzz_targets"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(expected, files, "the files in fuzz/fuzz_targets");
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    let binaries: BTreeSet<String> = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\""))
        .map(str::to_owned)
        .collect();
    assert_eq!(expected, binaries, "the binaries of fuzz/Cargo.toml");
}

// At the end of the file, so that the targets need their import.
/// Makes a target a function of bytes. Like the fuzzer's macro, it skips bytes that are not UTF-8 if the target takes text.
macro_rules! fuzz_target {
    (|$input:ident: &str| $body:block) => {
        pub fn run(data: &[u8]) {
            let Ok($input) = std::str::from_utf8(data) else { return };
            $body
        }
    };
    (|$input:ident: &[u8]| $body:block) => {
        pub fn run($input: &[u8]) $body
    };
}
pub(crate) use fuzz_target;
