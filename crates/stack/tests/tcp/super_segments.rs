//! Several segments as one unit of work, out and in.

use core::time::Duration;

use millrace_frames::{ChecksumState, TxBatch};
use millrace_port::memory::WireConfig;
use millrace_stack::State;

use crate::common::net::Net;
use crate::common::peer::{ACK, Peer, pattern};

fn offloading() -> Peer {
    Peer::with(|config| {
        config.tx_gso = 65_535;
        config.tx_checksum = true;
        config.receive_buffer = 1 << 20;
    })
}

#[test]
fn what_the_window_takes_leaves_as_one() {
    let mut peer = offloading();
    let id = peer.accepted();
    peer.write(id, 0, 9600);
    let sent = peer.take();
    assert_eq!(sent[0].gso_size, 1000);
    assert!(sent.len() <= 2, "{} packets", sent.len());
    let bytes: Vec<u8> = sent.into_iter().flat_map(|segment| segment.payload).collect();
    assert_eq!(bytes, pattern(0, 9600));
}

#[test]
fn a_small_one_is_an_ordinary_segment() {
    let mut peer = offloading();
    let id = peer.accepted();
    peer.write(id, 0, 1000);
    let segment = peer.expect_data(1, 1000);
    assert_eq!(segment.gso_size, 0);
}

/// A segment is not made smaller for what the port would cut.
#[test]
fn a_port_that_cuts_less_than_a_segment_gets_segments() {
    let mut peer = Peer::with(|config| {
        config.tx_gso = 700;
        config.tx_checksum = true;
    });
    let id = peer.accepted();
    peer.write(id, 0, 2500);
    for (seq, len) in [(1, 1000), (1001, 1000)] {
        assert_eq!(peer.expect_data(seq, len).gso_size, 0);
    }
    peer.send(ACK, 1, 2001, &[]);
    assert_eq!(peer.expect_data(2001, 500).gso_size, 0);
}

/// And such a segment is one packet, though it lies in many frames. As with an MTU of 65,520: a
/// super-segment has room for more headers than a segment has.
#[test]
fn a_segment_that_is_larger_than_they_are_is_one_packet() {
    let mut peer = Peer::with(|config| {
        config.mtu = 65_520;
        config.tx_gso = 65_455;
        config.tx_checksum = true;
        config.send_buffer = 1 << 20;
    });
    let id = peer.accepted_with(Some(65_480), Some(3));
    peer.send(ACK, 1, 1, &[]);
    peer.stack.write(id, &pattern(0, 200_000)).unwrap();
    let mut batch = TxBatch::new();
    peer.stack.transmit(peer.now, &mut batch);
    let sizes: Vec<_> = batch.iter().map(|packet| packet.total).collect();
    // As much of a segment as whole frames have.
    batch.iter().for_each(|packet| peer.stack.arena_mut().transmitted(packet));
    assert_eq!(sizes.len(), 4, "{sizes:?}");
    assert!(sizes[..3].iter().all(|&size| size > 60_000), "{sizes:?}");
}

#[test]
fn it_never_exceeds_an_ip_packet() {
    // Small writes make frames of every length; together they must stay within 16 bits.
    let mut peer = Peer::with(|config| {
        config.tx_gso = 65_535;
        config.tx_checksum = true;
        config.initial_window = 200;
        config.send_buffer = 1 << 20;
    });
    let id = peer.accepted_with(Some(1460), Some(5));
    peer.send(ACK, 1, 1, &[]);
    peer.stack.set_no_delay(id, true).unwrap();
    let mut at = 0;
    for round in 0..300 {
        let len = 1 + (round * 577) % 1900;
        peer.stack.write(id, &pattern(at, len)).unwrap();
        at += len;
    }
    let sizes: Vec<usize> = peer.take().iter().map(|segment| segment.payload.len()).collect();
    assert!(sizes.iter().all(|&size| size <= 65_495), "{sizes:?}");
    assert!(sizes.iter().sum::<usize>() > 200_000, "{sizes:?}");
}

#[test]
fn one_packet_carries_nearly_64_kib() {
    let mut peer = Peer::with(|config| {
        config.tx_gso = 65_535;
        config.tx_checksum = true;
        config.initial_window = 100;
    });
    let id = peer.accepted_with(Some(1460), Some(2));
    peer.send(ACK, 1, 1, &[]);
    peer.write(id, 0, 64_000);
    let segment = peer.expect_data(1, 64_000);
    assert_eq!(segment.gso_size, 1460);
}

#[test]
fn a_part_of_it_that_is_lost_is_sent_again_alone() {
    let mut peer = offloading();
    let id = peer.accepted();
    peer.write(id, 0, 9600);
    peer.take();
    for _ in 0..3 {
        peer.send(ACK, 1, 3001, &[]);
    }
    // The first of these acknowledged something; one more makes three duplicates.
    peer.send(ACK, 1, 3001, &[]);
    let again = peer.expect(ACK);
    assert_eq!(again.seq, 3001);
    assert!(again.payload.len() <= 1000 && !again.payload.is_empty());
    assert_eq!(again.payload, pattern(3000, again.payload.len()));
    peer.send(ACK, 1, 9601, &[]);
    assert_eq!(peer.stack.info(id).unwrap().send_queue, 0);
}

#[test]
fn a_timeout_within_it_begins_with_one_segment() {
    let mut peer = offloading();
    let id = peer.accepted();
    peer.hold = true;
    peer.write(id, 0, 9600);
    peer.take();
    peer.send(ACK, 1, 2501, &[]);
    peer.wait();
    let mut at = 2501u32;
    for _ in 0..40 {
        for segment in peer.take() {
            if segment.seq == at {
                assert_eq!(segment.payload, pattern(at as usize - 1, segment.payload.len()));
                at += segment.payload.len() as u32;
            }
        }
        if at == 9601 {
            break;
        }
        peer.send(ACK, 1, at, &[]);
    }
    assert_eq!(at, 9601);
    peer.send(ACK, 1, 9601, &[]);
    assert_eq!(peer.stack.info(id).unwrap().send_queue, 0);
    assert_eq!(peer.state(id), State::Established);
}

#[test]
fn a_received_chain_is_read_whole() {
    let mut peer = offloading();
    let id = peer.accepted_with(Some(1460), Some(0));
    let free = peer.stack.arena().free();
    let payload = pattern(0, 60_000);
    let mut bytes = peer.segment(ACK, 1, 1, &payload).bytes();
    peer.inject(&bytes);
    assert_eq!(peer.read(id), payload);
    peer.expect_ack(60_001);
    // Its checksum spans the frames.
    bytes = peer.segment(ACK, 60_001, 1, &pattern(60_000, 5001)).bytes();
    *bytes.last_mut().unwrap() ^= 1;
    peer.inject(&bytes);
    assert_eq!(peer.stack.counters().drop_tcp_checksum, 1);
    assert_eq!(peer.stack.arena().free(), free);
}

#[test]
fn overlapping_chains_are_cut_to_fit() {
    let mut peer = offloading();
    let id = peer.accepted_with(Some(1460), Some(0));
    for (start, end) in [(20_000, 50_000), (5_000, 30_000), (0, 9_000), (45_000, 60_000)] {
        peer.send(ACK, 1 + start as u32, 1, &pattern(start, end - start));
    }
    assert_eq!(peer.read(id), pattern(0, 60_000));
}

#[test]
fn a_chain_that_claims_more_than_it_has_is_malformed() {
    let mut peer = offloading();
    peer.accepted();
    let bytes = peer.segment(ACK, 1, 1, &pattern(0, 5000)).bytes();
    peer.inject_with(&bytes[..4000], ChecksumState::Unfinished);
    assert_eq!(peer.stack.counters().drop_ip_malformed, 1);
}

#[test]
fn link_padding_in_frames_of_its_own_is_given_back() {
    let mut peer = offloading();
    let id = peer.accepted_with(Some(60_000), Some(0));
    let free = peer.stack.arena().free();
    // The segment fills the first frame to its last byte.
    let payload = pattern(0, 2048 - 2 - 54);
    let mut bytes = peer.segment(ACK, 1, 1, &payload).bytes();
    bytes.resize(bytes.len() + 3000, 0xee);
    peer.inject(&bytes);
    assert_eq!(peer.read(id), payload);
    assert_eq!(peer.stack.arena().free(), free);
}

#[test]
fn bulk_between_two_stacks_in_super_segments() {
    let wire = WireConfig { gso: 65_535, ..WireConfig::default() };
    let mut net = Net::new(wire, 2048, |_, config| config.receive_buffer = 1 << 20);
    let (client, server) = net.pair(80);
    let data = pattern(0, 2_000_000);
    let (mut sent, mut got) = (0, Vec::new());
    net.run(
        Duration::from_secs(100),
        |net| {
            let taken = net.hosts[0].stack.write(client, &data[sent..]).unwrap();
            sent += taken;
            let read = net.hosts[1].read(server);
            got.extend_from_slice(&read);
            taken + read.len() > 0
        },
        |_| false,
    );
    assert_eq!(got.len(), data.len());
    assert!(got == data);
    let segments = net.hosts[0].stack.counters().segments_out;
    assert!(segments < 200, "{segments} segments for 2 MB");
    net.hosts[0].stack.close(client);
    net.hosts[1].stack.close(server);
    net.idle(Duration::from_secs(200));
    net.assert_clean();
}
