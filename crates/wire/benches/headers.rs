//! What a packet costs to read: the parsers of the receive path, one by one and together.

use std::hint::black_box;
use std::net::Ipv4Addr;

use criterion::{Criterion, criterion_main};
use millrace_wire::ether::{self, EtherType};
use millrace_wire::tcp::{self, Flags, OptionWriter, Segment};
use millrace_wire::toeplitz::{self, Hasher};
use millrace_wire::{Flow, Mac, Seq, checksum, ipv4, protocol};

const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const DESTINATION: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

fn frame(options: &OptionWriter, payload: &[u8]) -> Vec<u8> {
    let header_len = tcp::HEADER_LEN + options.padded().len();
    let mut frame = vec![0; ether::HEADER_LEN + ipv4::HEADER_LEN + header_len];
    ether::emit(&mut frame, Mac([2; 6]), Mac([4; 6]), EtherType::IPV4);
    let ip = &mut frame[ether::HEADER_LEN..];
    ipv4::Header {
        source: SOURCE,
        destination: DESTINATION,
        protocol: protocol::TCP,
        ttl: 64,
        tos: 0,
        identification: 0,
        dont_fragment: true,
    }
    .emit(ip, header_len + payload.len());
    let segment = &mut ip[ipv4::HEADER_LEN..];
    tcp::Header {
        source_port: 40000,
        destination_port: 80,
        sequence: Seq(1),
        acknowledgement: Seq(2),
        flags: Flags::ACK | Flags::PSH,
        window: 500,
        urgent: 0,
    }
    .emit(segment, options.padded());
    let pseudo =
        checksum::pseudo_v4(SOURCE, DESTINATION, protocol::TCP, header_len + payload.len());
    tcp::fill_checksum(segment, pseudo, checksum::sum(payload));
    frame.extend(payload);
    frame
}

/// Reads all that a stack asks of a segment, its checksum left out.
fn read(frame: &[u8]) -> Option<u32> {
    let ethernet = ether::Frame::parse(frame).ok()?;
    let packet = ipv4::Packet::parse(ethernet.payload()).ok()?;
    if !packet.verify_checksum() || packet.protocol() != protocol::TCP {
        return None;
    }
    let segment = Segment::parse(packet.payload()).ok()?;
    let options = segment.options().ok()?;
    let (value, echo) = options.timestamps?;
    // One number that needs every field.
    Some(
        u32::from(segment.destination_port())
            ^ segment.sequence().0
            ^ segment.acknowledgement().0
            ^ u32::from(segment.window())
            ^ u32::from(segment.flags().0)
            ^ value
            ^ echo
            ^ segment.payload().len() as u32,
    )
}

fn headers(criterion: &mut Criterion) {
    let mut established = OptionWriter::new();
    established.timestamps(7, 8);
    let mut syn = OptionWriter::new();
    syn.mss(1460).sack_permitted().timestamps(7, 8).window_scale(7);

    let data = frame(&established, &[0x61; 100]);
    let handshake = frame(&syn, &[]);
    assert!(read(&data).is_some() && read(&handshake).is_some());
    criterion.bench_function("read/data", |bencher| bencher.iter(|| read(black_box(&data))));
    criterion.bench_function("read/syn", |bencher| bencher.iter(|| read(black_box(&handshake))));
    criterion.bench_function("flow", |bencher| bencher.iter(|| Flow::parse(black_box(&data))));

    let header = ipv4::Header {
        source: SOURCE,
        destination: DESTINATION,
        protocol: protocol::TCP,
        ttl: 64,
        tos: 0,
        identification: 0,
        dont_fragment: true,
    };
    let mut buf = [0; ipv4::HEADER_LEN];
    criterion.bench_function("emit/ipv4", |bencher| {
        bencher.iter(|| black_box(&header).emit(black_box(&mut buf), black_box(1000)));
    });

    let hasher = Box::new(Hasher::new(&toeplitz::MICROSOFT));
    criterion.bench_function("toeplitz/table", |bencher| {
        bencher.iter(|| black_box(&hasher).hash_v4(black_box(SOURCE), DESTINATION, 40000, 80));
    });
    criterion.bench_function("toeplitz/bitwise", |bencher| {
        bencher.iter(|| {
            toeplitz::hash_v4(&toeplitz::MICROSOFT, black_box(SOURCE), DESTINATION, 40000, 80)
        });
    });
}

// The macro makes a public function without documentation.
#[allow(missing_docs)]
mod group {
    use super::headers;

    criterion::criterion_group!(benches, headers);
}

criterion_main!(group::benches);
