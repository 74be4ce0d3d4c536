//! Messages and options of neighbour discovery.
#![no_main]

use libfuzzer_sys::fuzz_target;

// Some of it serves other targets.
#[allow(dead_code)]
#[path = "../../tests/headers/touch.rs"]
mod touch;

fuzz_target!(|bytes: &[u8]| touch::ndp(bytes));
