#!/usr/bin/env bash
# redis-rs cuts off the integers of a server: -1 becomes 4294967295.
#
# Version: redis 1.8.1.
#
# `from_redis_value` and `query` convert an answer into the type that the caller names. For a string such as "-1" they
# parse it, and return an error if the type has no such value. For an integer (RESP `:-1`) they convert with `as`.
#
# Expected: an error, as for the string. Seen: `u32` from -1 is 4294967295, `u8` from 256 is 0, and `u16` from 65537 is
# 1. TTL and PTTL answer -1 for a key without an end and -2 for no key, so `let seconds: u64 = connection.ttl(key)` reads
# 18446744073709551615 s and no error. A limit whose script answers -1 reads four billion tokens.
#
# Portcullis reads every integer as `i64`, and converts it with `try_from`.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat >"$folder/Cargo.toml" <<'TOML'
[package]
name = "seen"
version = "0.0.0"
edition = "2024"

[dependencies]
redis = { version = "=1.8.1", default-features = false }
TOML
cat >"$folder/src/main.rs" <<'RUST'
use redis::{FromRedisValue, Value, from_redis_value, parse_redis_value};
use std::fmt::Display;

fn read<T: FromRedisValue + Display>(kind: &str, answer: &str) {
    let value: Value = parse_redis_value(answer.as_bytes()).expect("valid RESP");
    let shown = from_redis_value::<T>(value).map_or_else(|_| "an error".to_owned(), |number| number.to_string());
    println!("{kind} from {answer:?}: {shown}");
}

fn main() {
    read::<u32>("u32", "$2\r\n-1\r\n");
    read::<u32>("u32", ":-1\r\n");
    read::<u64>("u64", ":-2\r\n");
    read::<u8>("u8", ":256\r\n");
    read::<u16>("u16", ":65537\r\n");
}
RUST
(cd "$folder" && cargo run --quiet) | tee "$folder/seen"
diff - "$folder/seen" <<'TEXT'
u32 from "$2\r\n-1\r\n": an error
u32 from ":-1\r\n": 4294967295
u64 from ":-2\r\n": 18446744073709551614
u8 from ":256\r\n": 0
u16 from ":65537\r\n": 1
TEXT
