//! Any bytes as a frame: its headers are read, and what they point at lies within it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace_packets::headers;

fuzz_target!(|frame: &[u8]| {
    let row = headers::parse(frame, frame.len() as u32, 0);
    assert!(row.payload_offset as usize + row.payload_length as usize <= frame.len());
    assert!(row.l4_offset as usize <= frame.len() && row.l3_offset as usize <= frame.len());
});
