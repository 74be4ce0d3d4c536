//! The conformance test on the ports that need nothing of the machine: memory and pcap.

#[macro_use]
mod common;

mod memory {
    use millrace_frames::Arena;
    use millrace_port::Port;
    use millrace_port::memory::{self, Impairment, WireConfig};

    use crate::common::{Fixture, Peer, PortPeer};

    struct Memory(WireConfig);

    impl Fixture for Memory {
        fn open(&mut self, _arena: &mut Arena) -> (Box<dyn Port>, Box<dyn Peer>) {
            let (port, peer) = memory::wire(self.0);
            (Box::new(port), Box::new(PortPeer::new(Box::new(peer))))
        }
    }

    mod plain {
        use super::*;
        conformance!(Ok(Memory(WireConfig::default())));
    }

    mod offloaded {
        use super::*;
        conformance!(Ok(Memory(WireConfig { gso: 65_535, ..WireConfig::default() })));
    }

    /// Harmless impairments: everything passes through the delay line.
    mod delayed {
        use super::*;
        use std::time::Duration;

        conformance!({
            let delay = Impairment {
                delay: Duration::from_micros(50),
                rate_bits_per_s: Some(10_000_000_000),
                queue_bytes: 1 << 20,
                ..Impairment::default()
            };
            let config =
                WireConfig { gso: 65_535, impairment: [delay; 2], ..WireConfig::default() };
            Ok(Memory(config))
        });
    }
}

mod pcap {
    use std::collections::VecDeque;
    use std::io::{self, Read, Write};
    use std::sync::{Arc, Mutex};

    use millrace_frames::{Arena, Instant};
    use millrace_port::Port;
    use millrace_port::pcap::{ByteOrder, FileFormat, PcapPort, PcapReader, PcapWriter};

    use crate::common::{Fixture, Peer, Received};

    /// A file that one side writes while the other reads it.
    #[derive(Clone, Default)]
    struct Growing(Arc<Mutex<VecDeque<u8>>>);

    impl Read for Growing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.lock().unwrap().read(buffer)
        }
    }

    impl Write for Growing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Pcap(FileFormat, ByteOrder);

    struct PcapPeer {
        writer: PcapWriter<Growing>,
        reader: PcapReader<Growing>,
    }

    impl Fixture for Pcap {
        fn open(&mut self, _arena: &mut Arena) -> (Box<dyn Port>, Box<dyn Peer>) {
            let (forth, back) = (Growing::default(), Growing::default());
            let writer = PcapWriter::new(back.clone(), "back", "test", self.0, self.1).unwrap();
            let port = PcapPort::new(
                Some(("back".into(), Box::new(back))),
                Some(("forth".into(), Box::new(forth.clone()), self.0)),
            );
            let reader = PcapReader::new(forth, "forth");
            let port = Box::new(port.unwrap());
            (port, Box::new(PcapPeer { writer, reader: reader.unwrap() }))
        }
    }

    impl Peer for PcapPeer {
        fn send(&mut self, frame: &[u8]) {
            self.writer.write(0, Instant::ZERO, frame).unwrap();
            self.writer.flush().unwrap();
        }

        fn receive(&mut self) -> Option<Received> {
            let packet = self.reader.next_packet().unwrap()?;
            Some(Received { bytes: packet.bytes.to_vec(), unfinished: Some(false) })
        }
    }

    mod microseconds_big_endian {
        use super::*;
        conformance!(Ok(Pcap(FileFormat::PcapMicros, ByteOrder::Big)));
    }

    mod nanoseconds_little_endian {
        use super::*;
        conformance!(Ok(Pcap(FileFormat::PcapNanos, ByteOrder::Little)));
    }

    mod ng_big_endian {
        use super::*;
        conformance!(Ok(Pcap(FileFormat::PcapNg, ByteOrder::Big)));
    }
}
