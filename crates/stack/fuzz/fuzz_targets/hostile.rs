//! Scripts of frames, calls and times against a listening stack with connections in every state.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../tests/common/craft.rs"]
mod craft;
#[allow(dead_code)]
#[path = "../../tests/common/craft6.rs"]
mod craft6;
#[path = "../../tests/common/hostile/mod.rs"]
mod hostile;

fuzz_target!(|script: &[u8]| hostile::run(script));
