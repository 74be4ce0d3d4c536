//! ICMPv6 messages and the packets they quote.
#![no_main]

use libfuzzer_sys::fuzz_target;

// Some of it serves other targets.
#[allow(dead_code)]
#[path = "../../tests/headers/touch.rs"]
mod touch;

fuzz_target!(|bytes: &[u8]| touch::icmpv6(bytes));
