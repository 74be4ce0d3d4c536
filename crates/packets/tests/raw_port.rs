//! Batches in and out over a wire in memory, and over capture files.

use millrace_frames::{Arena, ArenaConfig, Hugepages};
use millrace_packets::{Batch, RawPort, SharedArena, flags};
use millrace_port::memory::{WireConfig, wire};
use millrace_port::pcap::{ByteOrder, FileFormat, PcapPort, PcapWriter};

fn arena(frames: u32) -> SharedArena {
    let config = ArenaConfig { frames, frame_size: 2048, hugepages: Hugepages::Never };
    SharedArena::new(Arena::new(config).unwrap())
}

/// Two ends of a wire, each with an arena of so many frames.
fn pair(frames: u32) -> (RawPort, RawPort) {
    pair_on(arena(frames), arena(frames))
}

fn pair_on(left: SharedArena, right: SharedArena) -> (RawPort, RawPort) {
    let (a, b) = wire(WireConfig::by_name(9000));
    (RawPort::new(Box::new(a), left, Vec::new()), RawPort::new(Box::new(b), right, Vec::new()))
}

/// A frame that says its number.
fn frame(number: usize, len: usize) -> Vec<u8> {
    let mut frame = vec![number as u8; len];
    frame[..2].copy_from_slice(&(number as u16).to_be_bytes());
    frame
}

fn send(port: &mut RawPort, frames: &[Vec<u8>]) -> usize {
    port.send_bytes(frames.iter().map(Vec::as_slice)).unwrap()
}

fn packets(batch: &Batch) -> Vec<Vec<u8>> {
    batch.packets().map(<[u8]>::to_vec).collect()
}

fn free(port: &RawPort) -> usize {
    let mut arena = port.arena().lock();
    arena.collect_held();
    arena.free()
}

#[test]
fn a_batch_has_what_was_sent_where_it_came_in() {
    let (mut left, mut right) = pair(512);
    let sent: Vec<_> = (0..100).map(|number| frame(number, 60 + number)).collect();
    assert_eq!(send(&mut left, &sent), 100);
    let first = right.receive(64).unwrap().unwrap();
    let rest = right.receive(64).unwrap().unwrap();
    assert_eq!((first.len(), rest.len()), (64, 36));
    assert!(right.receive(64).unwrap().is_none());
    assert_eq!(packets(&first), sent[..64]);
    assert_eq!(packets(&rest), sent[64..]);
    assert!(!first.is_copied() && right.counters().rx_copied == 0);
    assert_eq!(first.columns().length[3], 63);
    assert_eq!(first.columns().original, first.columns().length);
    let now = millrace_port::clock::wall().as_nanos() as i64;
    let age = now - first.columns().timestamp[0];
    assert!((0..60_000_000_000).contains(&age), "{age} ns");
}

#[test]
fn a_burst_is_given_in_batches_as_small_as_asked_for() {
    let (mut left, mut right) = pair(512);
    let sent: Vec<_> = (0..10).map(|number| frame(number, 60)).collect();
    send(&mut left, &sent);
    for wanted in &sent {
        assert_eq!(packets(&right.receive(1).unwrap().unwrap()), std::slice::from_ref(wanted));
    }
    assert!(right.receive(1).unwrap().is_none());
}

#[test]
fn a_batch_gathers_several_bursts() {
    let (mut left, mut right) = pair(4096);
    let sent: Vec<_> = (0..300).map(|number| frame(number, 60)).collect();
    send(&mut left, &sent);
    assert_eq!(right.gather(200).unwrap(), 200);
    assert_eq!(right.gather(250).unwrap(), 250);
    assert_eq!(packets(&right.take().unwrap()), sent[..250]);
    assert!(right.take().is_none());
    assert_eq!(packets(&right.receive(250).unwrap().unwrap()), sent[250..]);
}

#[test]
fn parts_of_a_batch_keep_its_frames_and_the_last_one_gives_them_back() {
    let (mut left, mut right) = pair(512);
    let sent: Vec<_> = (0..8).map(|number| frame(number, 60)).collect();
    send(&mut left, &sent);
    let batch = right.receive(8).unwrap().unwrap();
    let odd = batch.select([1usize, 3, 3].into_iter());
    drop(batch);
    assert_eq!(free(&right), 504);
    // What comes now lies elsewhere.
    send(&mut left, &sent);
    let later = right.receive(8).unwrap().unwrap();
    assert_eq!(packets(&odd), [frame(1, 60), frame(3, 60), frame(3, 60)]);
    drop((odd, later));
    assert_eq!(free(&right), 512);
}

#[test]
fn who_keeps_batches_gets_copies_before_the_frames_run_out() {
    let (mut left, mut right) = pair(256);
    let mut kept = Vec::new();
    for round in 0..50usize {
        let sent: Vec<_> = (0..16).map(|number| frame(round * 16 + number, 60)).collect();
        assert_eq!(send(&mut left, &sent), 16);
        kept.push((sent, right.receive(16).unwrap().unwrap()));
    }
    assert!(!kept[0].1.is_copied() && kept[49].1.is_copied());
    assert_eq!(right.statistics().dropped(), 0);
    for (sent, batch) in &kept {
        assert_eq!(&packets(batch), sent);
    }
    assert_eq!(right.counters().rx_copied % 16, 0);
    assert!(right.counters().rx_copied >= 30 * 16);
    drop(kept);
    assert_eq!(free(&right), 256);
}

#[test]
fn a_packet_of_several_frames_is_given_in_one_piece() {
    let (mut left, mut right) = pair(512);
    let sent = [frame(1, 60), frame(2, 9000), frame(3, 2048)];
    assert_eq!(send(&mut left, &sent), 3);
    let batch = right.receive(64).unwrap().unwrap();
    assert_eq!(packets(&batch), sent);
    assert!(batch.is_copied());
    assert_eq!(free(&right), 512);
}

#[test]
fn a_batch_outlives_the_port_and_its_arena() {
    let (mut left, mut right) = pair(512);
    send(&mut left, &[frame(5, 70)]);
    let batch = right.receive(1).unwrap().unwrap();
    right.close().unwrap();
    drop(right);
    assert_eq!(packets(&batch), [frame(5, 70)]);
}

#[test]
fn what_was_received_is_sent_on_without_a_copy_where_the_frames_are_shared() {
    let shared = arena(512);
    let (mut left, first) = pair_on(arena(512), shared.clone());
    let (second, mut right) = pair_on(shared, arena(512));
    let (mut first, mut second) = (first, second);
    let sent: Vec<_> = (0..64).map(|number| frame(number, 60)).collect();
    send(&mut left, &sent);
    let batch = first.receive(64).unwrap().unwrap();
    assert_eq!(second.send(&batch).unwrap(), 64);
    assert_eq!(second.counters().tx_copied, 0);
    assert_eq!(packets(&right.receive(64).unwrap().unwrap()), sent);
    // The same frames again, and one of them twice.
    let twice = batch.select([0usize, 1, 1, 0].into_iter());
    assert_eq!(second.send(&twice).unwrap(), 4);
    assert_eq!(second.counters().tx_copied, 0);
    assert_eq!(right.receive(64).unwrap().unwrap().len(), 4);
    drop((batch, twice));
    assert_eq!(free(&first), 512);
}

#[test]
fn a_batch_of_other_frames_is_copied_and_counted() {
    let (mut left, mut right) = pair(512);
    send(&mut left, &[frame(1, 60)]);
    let batch = right.receive(1).unwrap().unwrap();
    assert_eq!(left.send(&batch).unwrap(), 1);
    assert_eq!(left.counters().tx_copied, 2);
    assert_eq!(packets(&right.receive(1).unwrap().unwrap()), [frame(1, 60)]);
}

#[test]
fn frames_that_are_kept_to_be_sent_are_copied_once() {
    let (mut left, mut right) = pair(512);
    let sent: Vec<_> = (0..100).map(|number| frame(number, 60)).collect();
    let kept = left.keep(sent.iter().map(Vec::as_slice)).unwrap();
    for _ in 0..3 {
        assert_eq!(left.send(&kept).unwrap(), 100);
        assert_eq!(packets(&right.receive(100).unwrap().unwrap()), sent);
    }
    assert_eq!(left.counters().tx_copied, 0);
    assert_eq!(free(&left), 412);
    drop(kept);
    assert_eq!(free(&left), 512);
}

#[test]
fn what_does_not_fit_is_not_kept_and_leaves_nothing_behind() {
    let (mut left, _right) = pair(64);
    let many: Vec<_> = (0..64).map(|number| frame(number, 60)).collect();
    assert!(left.keep(many.iter().map(Vec::as_slice)).is_none());
    assert!(left.keep([frame(0, 3000)].iter().map(Vec::as_slice)).is_none());
    assert_eq!(free(&left), 64);
}

#[test]
fn sending_stops_where_frames_run_out_and_goes_on_later() {
    let (mut left, mut right) = pair(64);
    let kept = left.keep((0..50).map(|_| &[9u8; 60][..])).unwrap();
    let sent: Vec<_> = (0..20).map(|number| frame(number, 60)).collect();
    // 14 are free, and eight of 64 are kept for what is received; the wire in memory is done with
    // a frame at once.
    assert_eq!(send(&mut left, &sent), 20);
    assert_eq!(packets(&right.receive(64).unwrap().unwrap()), sent);
    let more = left.keep((0..6).map(|_| &[9u8; 60][..])).unwrap();
    assert_eq!(send(&mut left, &sent), 0);
    assert_eq!(left.counters().tx_no_frame, 1);
    drop((kept, more));
    assert_eq!(send(&mut left, &sent), 20);
}

#[test]
fn what_can_never_be_sent_is_named_with_its_size() {
    let (left, _right) = pair(64);
    let long = [vec![0; 60], vec![0; 9015]];
    let refusal = left.refuse(long.iter().map(Vec::as_slice)).unwrap();
    assert_eq!((refusal.index, refusal.length, refusal.longest), (1, 9015, 9014));
    let text = refusal.to_string();
    assert!(text.contains("packet 1 has 9015 bytes"), "{text}");
    assert!(left.refuse([vec![0; 9014]].iter().map(Vec::as_slice)).is_none());
    let mut tagged = vec![0; 9018];
    tagged[12] = 0x81;
    assert!(left.refuse([tagged].iter().map(Vec::as_slice)).is_none());
}

#[test]
fn a_cut_packet_of_a_file_says_how_long_it_was() {
    let mut file = Vec::new();
    let mut writer =
        PcapWriter::new(&mut file, "it", "eth0", FileFormat::PcapNg, ByteOrder::Little).unwrap();
    let at = |nanos| millrace_frames::Instant::from_nanos(nanos);
    writer.write(0, at(1_700_000_000_123_456_789), &frame(1, 60)).unwrap();
    writer.write_with(0, at(5), 1514, 20, |to| to.fill(7)).unwrap();
    writer.write(0, at(6), &[]).unwrap();
    writer.flush().unwrap();
    drop(writer);
    let input = Box::new(std::io::Cursor::new(file));
    let port = PcapPort::new(Some(("it".to_owned(), input)), None).unwrap();
    let mut port = RawPort::new(Box::new(port), arena(64), Vec::new());
    let batch = port.receive(64).unwrap().unwrap();
    assert_eq!(batch.columns().length, [60, 20, 0]);
    assert_eq!(batch.columns().original, [60, 1514, 0]);
    assert_eq!(batch.columns().flags, [0, flags::CUT, 0]);
    assert_eq!(batch.columns().timestamp, [1_700_000_000_123_456_789, 5, 6]);
    assert_eq!(batch.headers()[1].length, 1514);
    assert!(port.receive(64).unwrap().is_none() && port.exhausted());
}

/// A file waits: whoever holds everything gets copies, and nothing of it is lost.
#[test]
fn nothing_of_a_file_is_lost_for_want_of_frames() {
    let mut file = Vec::new();
    let mut writer =
        PcapWriter::new(&mut file, "it", "eth0", FileFormat::PcapNanos, ByteOrder::Big).unwrap();
    for number in 0..500 {
        let len = if number % 50 == 49 { 60_000 } else { 60 };
        writer.write(0, millrace_frames::Instant::ZERO, &frame(number, len)).unwrap();
    }
    writer.flush().unwrap();
    drop(writer);
    let input = Box::new(std::io::Cursor::new(file));
    let port = PcapPort::new(Some(("it".to_owned(), input)), None).unwrap();
    let mut port = RawPort::new(Box::new(port), arena(128), Vec::new());
    let mut kept = Vec::new();
    while let Some(batch) = port.receive(32).unwrap() {
        kept.push(batch);
    }
    let mut number = 0;
    for batch in &kept {
        for packet in batch.packets() {
            assert_eq!(packet[..2], (number as u16).to_be_bytes());
            number += 1;
        }
    }
    assert_eq!(number, 500);
    assert_eq!(port.statistics().dropped(), 0);
}

#[test]
fn packets_that_came_before_a_files_damage_are_given_first() {
    let mut file = Vec::new();
    let mut writer =
        PcapWriter::new(&mut file, "it", "eth0", FileFormat::PcapNanos, ByteOrder::Little).unwrap();
    for number in 0..3 {
        writer.write(0, millrace_frames::Instant::ZERO, &frame(number, 60)).unwrap();
    }
    writer.flush().unwrap();
    drop(writer);
    file.truncate(file.len() - 7);
    let input = Box::new(std::io::Cursor::new(file));
    let port = PcapPort::new(Some(("it".to_owned(), input)), None).unwrap();
    let mut port = RawPort::new(Box::new(port), arena(64), Vec::new());
    assert_eq!(port.receive(64).unwrap().unwrap().len(), 2);
    let error = port.receive(64).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    assert!(error.to_string().contains("it: byte"), "{error}");
}
