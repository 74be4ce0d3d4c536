//! Any bytes as a capture file: packets come out or an error does, and what came out before the
//! error can be written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace_frames::Instant;
use millrace_port::pcap::{ByteOrder, FileFormat, PcapReader, PcapWriter};

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut reader) = PcapReader::new(bytes, "fuzz") else { return };
    let mut packets: Vec<Vec<u8>> = Vec::new();
    while let Ok(Some(packet)) = reader.next_packet() {
        assert!(packet.bytes.len() <= bytes.len());
        packets.push(packet.bytes.to_vec());
    }

    let mut file = Vec::new();
    let format = FileFormat::PcapNg;
    let mut writer = PcapWriter::new(&mut file, "again", "eth0", format, ByteOrder::Little)
        .expect("memory takes everything");
    for (index, packet) in packets.iter().enumerate() {
        let time = Instant::from_nanos(index as u64);
        writer.write(0, time, packet).expect("memory takes everything");
    }
    writer.flush().expect("memory takes everything");
    drop(writer);
    let mut reader = PcapReader::new(&file[..], "again").expect("what was written");
    for packet in &packets {
        let again = reader.next_packet().expect("what was written").expect("as many");
        assert_eq!(again.bytes, &packet[..]);
    }
});
