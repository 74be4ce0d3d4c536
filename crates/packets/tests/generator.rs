//! Generated packets are what was asked for, arrive as they were sent, and are metered.

use std::sync::atomic::AtomicBool;

use millrace_frames::{Arena, ArenaConfig, Duration, Hugepages};
use millrace_packets::generator::template::Repair;
use millrace_packets::generator::{Field, Generator, Pace, Plan, Stamp, Template, Values};
use millrace_packets::meter::{Meter, Until};
use millrace_packets::{RawPort, SharedArena};
use millrace_port::Wait;
use millrace_port::impair::Impairment;
use millrace_port::memory::{WireConfig, wire};
use millrace_port::wait::Bell;
use millrace_wire::{checksum, ether, ipv4, ipv6, protocol, tcp, udp};
use proptest::prelude::*;

const REPAIR: Repair = Repair { lengths: true, checksums: true };

fn arena() -> SharedArena {
    let config = ArenaConfig { frames: 4096, frame_size: 2048, hugepages: Hugepages::Never };
    SharedArena::new(Arena::new(config).unwrap())
}

fn pair(config: WireConfig) -> (RawPort, RawPort) {
    let (a, b) = wire(config);
    (RawPort::new(Box::new(a), arena(), Vec::new()), RawPort::new(Box::new(b), arena(), Vec::new()))
}

/// Ethernet, with a tag if asked for, then IP of a version and a protocol, then what looks like
/// nothing in particular.
fn base(version: u8, protocol: u8, tagged: bool, len: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    if tagged {
        frame.extend([0x81, 0, 0, 5]);
    }
    if version == 4 {
        frame.extend([8, 0, 0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0xaa, 0xaa]);
        frame.extend([192, 0, 2, 1, 198, 51, 100, 2]);
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, protocol, 64]);
        frame.extend((0..32).map(|byte| byte * 7));
    }
    let transport = frame.len();
    frame.extend((0..).map(|at: usize| (at * 31) as u8).take(len.saturating_sub(transport)));
    if protocol == protocol::TCP && frame.len() > transport + 13 {
        frame[transport + 12] = 0x50;
    }
    frame
}

fn template(bytes: Vec<u8>, fields: Vec<Field>, stamp: Option<u16>) -> Template {
    let size = bytes.len() as u128;
    Template::new(bytes, Values::sequence(size, 1, 0), fields, REPAIR, stamp).unwrap()
}

fn render(template: &mut Template) -> Vec<u8> {
    let mut frame = vec![0; template.size()];
    template.render(&mut frame, 7);
    frame
}

/// Lengths and checksums of a frame as a receiver looks at them.
fn is_right(frame: &[u8]) -> bool {
    let link = ether::Frame::parse(frame).unwrap();
    let (pseudo, protocol, payload) = if link.ether_type() == ether::EtherType::IPV4 {
        let ip = ipv4::Packet::parse(link.payload()).unwrap();
        assert!(ip.verify_checksum());
        assert_eq!(ip.total_len(), link.payload().len());
        let len = ip.payload().len();
        let pseudo = checksum::pseudo_v4(ip.source(), ip.destination(), ip.protocol(), len);
        (pseudo, ip.protocol(), ip.payload().to_vec())
    } else {
        let ip = ipv6::Packet::parse(link.payload()).unwrap();
        let upper = ip.upper_layer().unwrap();
        assert_eq!(upper.offset + upper.payload.len(), link.payload().len());
        let len = upper.payload.len();
        let pseudo = checksum::pseudo_v6(ip.source(), ip.destination(), upper.protocol, len);
        (pseudo, upper.protocol, upper.payload.to_vec())
    };
    match protocol {
        protocol::UDP => {
            let datagram = udp::Datagram::parse(&payload).unwrap();
            assert_eq!(datagram.total_len(), payload.len());
            datagram.has_checksum() && datagram.verify_checksum(pseudo)
        }
        protocol::TCP => {
            tcp::Segment::parse(&payload).unwrap();
            checksum::add(pseudo, checksum::sum(&payload)) == 0xffff
        }
        protocol::ICMP => checksum::sum(&payload) == 0xffff,
        _ => checksum::add(pseudo, checksum::sum(&payload)) == 0xffff,
    }
}

proptest! {
    #[test]
    fn lengths_and_checksums_are_right(
        version in prop::sample::select(vec![4u8, 6]),
        kind in prop::sample::select(vec![protocol::UDP, protocol::TCP, 0]),
        tagged in any::<bool>(),
        len in 100usize..1500,
        shorter in 0usize..40,
        width in 1usize..9,
        at in 0usize..60,
        seed in any::<u64>(),
    ) {
        let kind = match (kind, version) {
            (0, 4) => protocol::ICMP,
            (0, _) => protocol::ICMPV6,
            (kind, _) => kind,
        };
        let bytes = base(version, kind, tagged, len);
        // Behind the headers, so that they stay what they are.
        let offset = 80 + at % (100 - 80 - width);
        let mask = (1u128 << (8 * width)) - 1;
        let values = Values::random(0, u64::try_from(mask).unwrap_or(u64::MAX), seed);
        let field = Field { offset, width, mask, values };
        let sizes = Values::random((len - shorter.min(len - 100)) as u128, 1, seed);
        let mut template = Template::new(bytes, sizes, vec![field], REPAIR, None).unwrap();
        for _ in 0..5 {
            prop_assert!(is_right(&render(&mut template)));
        }
    }

    /// Whatever the bytes are: no panic, and the same length.
    #[test]
    fn no_frame_does_harm(bytes in prop::collection::vec(any::<u8>(), 14..200), cut in 0usize..30) {
        let most = bytes.len();
        let sizes = Values::random((most - cut.min(most - 14)) as u128, 1 + cut.min(most - 14) as u64, 3);
        for repair in [REPAIR, Repair { lengths: false, checksums: true }] {
            let made = Template::new(bytes.clone(), sizes.clone(), Vec::new(), repair, None);
            if let Ok(mut template) = made {
                for _ in 0..3 {
                    let size = template.size();
                    prop_assert_eq!(render(&mut template).len(), size);
                }
            }
        }
    }
}

#[test]
fn fields_vary_and_leave_the_rest_alone() {
    let whole = |offset, width: usize, values| Field {
        offset,
        width,
        mask: if width == 16 { u128::MAX } else { (1 << (8 * width)) - 1 },
        values,
    };
    let fields = vec![
        whole(30, 4, Values::sequence(0x0a00_0001, 3, 1)),
        whole(34, 2, Values::list(vec![80, 443]).unwrap()),
        // The upper six bits of the type of service.
        Field { offset: 15, width: 1, mask: 0xfc, values: Values::sequence(46, 1, 0) },
    ];
    let mut bytes = base(4, protocol::UDP, false, 64);
    bytes[15] = 1;
    let mut template = template(bytes.clone(), fields, None);
    assert_eq!(template.period(), Some(6));
    for number in 0..12u8 {
        let frame = render(&mut template);
        assert!(is_right(&frame));
        assert_eq!(frame[30..34], [10, 0, 0, 1 + number % 3]);
        assert_eq!(frame[34..36], [[0, 80], [1, 187]][usize::from(number % 2)]);
        assert_eq!(frame[15], 46 << 2 | 1);
        assert_eq!(frame[42..], bytes[42..]);
        assert_eq!(frame[..14], bytes[..14]);
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let size = |size| Values::sequence(size, 1, 0);
    let field = |offset, width, mask, most: u128| {
        vec![Field { offset, width, mask, values: Values::sequence(most, 1, 0) }]
    };
    let bytes = || base(4, protocol::UDP, false, 64);
    for (made, says) in [
        (Template::new(bytes(), size(13), vec![], REPAIR, None), "a frame has 14 bytes at least"),
        (Template::new(bytes(), size(0), vec![], REPAIR, None), "a frame has 14 bytes at least"),
        (Template::new(bytes(), size(65), vec![], REPAIR, None), "this template has 64"),
        (Template::new(bytes(), size(41), vec![], REPAIR, None), "shorter than their headers, 42"),
        (Template::new(bytes(), size(57), vec![], REPAIR, Some(1)), "make them 58 bytes"),
        (Template::new(vec![0; 70_000], size(60), vec![], REPAIR, None), "at most 65557 bytes"),
        (Template::new(base(4, 17, false, 65_557), size(65_557), vec![], REPAIR, None), "65535"),
        (Template::new(bytes(), size(64), field(63, 2, 0xffff, 1), REPAIR, None), "no part of"),
        (Template::new(bytes(), size(64), field(20, 17, 1, 1), REPAIR, None), "no part of"),
        (Template::new(bytes(), size(64), field(20, 1, 0x1ff, 1), REPAIR, None), "no run of bits"),
        (Template::new(bytes(), size(64), field(20, 1, 0, 0), REPAIR, None), "no run of bits"),
        (Template::new(bytes(), size(64), field(20, 1, 5, 1), REPAIR, None), "no run of bits"),
        (Template::new(bytes(), size(64), field(20, 1, 0xff, 256), REPAIR, None), "holds 0 to 255"),
    ] {
        let wrong = made.unwrap_err().to_string();
        assert!(wrong.contains(says), "{wrong} / {says}");
    }
}

struct Control {
    bell: Bell,
    stop: AtomicBool,
}

fn control() -> Control {
    Control { bell: Bell::new().unwrap(), stop: AtomicBool::new(false) }
}

fn plan(packets: u64) -> Plan {
    Plan { packets: Some(packets), time: None, pace: Pace::Fastest, burst: 1, batch: 64 }
}

/// Sends all of a plan to a receiver that is read in between.
fn send(
    generator: &mut Generator,
    left: &mut RawPort,
    mut seen: impl FnMut(&mut RawPort),
    right: &mut RawPort,
) {
    let Control { bell, stop } = control();
    while !generator.step(left, Duration::from_micros(100), &bell, &stop).unwrap() {
        seen(right);
    }
    generator.finish(left);
    seen(right);
}

#[test]
fn packets_arrive_as_they_were_made() {
    let (mut left, mut right) = pair(WireConfig::by_name(1500));
    let sizes = Values::list(vec![60, 590, 1514]).unwrap();
    let bytes = base(4, protocol::UDP, false, 1514);
    let made = Template::new(bytes, sizes, vec![], REPAIR, None).unwrap();
    let mut reference = made.clone();
    let mut generator = Generator::new(made, plan(1000));
    let mut count = 0;
    let mut seen = |right: &mut RawPort| {
        while let Some(batch) = right.receive(64).unwrap() {
            for packet in batch.packets() {
                assert_eq!(packet, render(&mut reference));
                count += 1;
            }
        }
    };
    send(&mut generator, &mut left, &mut seen, &mut right);
    let sent = generator.sent();
    assert_eq!((count, sent.packets), (1000, 1000));
    assert_eq!(sent.bytes, (60 + 590 + 1514) * 333 + 60);
    let arena = left.arena().lock();
    assert_eq!(arena.free(), arena.frames());
}

#[test]
fn packets_longer_than_a_frame_arrive_too() {
    let (mut left, mut right) = pair(WireConfig::by_name(65_535));
    let bytes = base(4, protocol::UDP, false, 65_549);
    let sizes = Values::list(vec![2049, 65_549, 100]).unwrap();
    let made = Template::new(bytes, sizes, vec![], REPAIR, None).unwrap();
    let mut generator = Generator::new(made, plan(6));
    let mut lens = Vec::new();
    let mut seen = |right: &mut RawPort| {
        while let Some(batch) = right.receive(64).unwrap() {
            for packet in batch.packets() {
                assert!(is_right(packet));
                lens.push(packet.len());
            }
        }
    };
    send(&mut generator, &mut left, &mut seen, &mut right);
    assert_eq!(lens, [2049, 65_549, 100, 2049, 65_549, 100]);
}

#[test]
fn what_the_port_never_takes_is_refused() {
    let (mut left, _right) = pair(WireConfig::by_name(1500));
    let Control { bell, stop } = control();
    let made = template(base(4, protocol::UDP, false, 1515), vec![], None);
    let mut generator = Generator::new(made, plan(1));
    let error = generator.step(&mut left, Duration::from_millis(1), &bell, &stop).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("a packet of the template has 1515 bytes") && text.contains("to 1514"));
}

#[test]
fn stamps_tell_what_became_of_packets() {
    let impaired = Impairment {
        loss: 0.1,
        duplicate: 0.05,
        delay: Duration::from_millis(1),
        ..Impairment::default()
    };
    let config = WireConfig::by_name(1500);
    let config = WireConfig { impairment: [impaired, Impairment::default()], seed: 4, ..config };
    let (mut left, mut right) = pair(config);
    let made = template(base(6, protocol::UDP, true, 100), vec![], Some(9));
    let mut generator = Generator::new(made, plan(5000));
    let mut meter = Meter::new(Until { time: Some(Duration::from_millis(20)), ..Until::default() });
    let Control { bell, stop } = control();
    let mut metered = |right: &mut RawPort| {
        let slice = Duration::from_micros(50);
        meter.step(right, slice, Wait::Sleep, &bell, &stop).unwrap();
    };
    send(&mut generator, &mut left, &mut metered, &mut right);
    // What is still on the wire.
    let mut rest = Meter::new(Until::default());
    std::mem::swap(&mut rest, &mut meter);
    while !rest.step(&mut right, Duration::from_millis(20), Wait::Sleep, &bell, &stop).unwrap() {}
    let stream = &rest.streams()[0];
    assert_eq!((rest.streams().len(), stream.number), (1, 9));
    let missing = 5000 - stream.unique;
    // At the ends losses cannot be seen.
    assert!(missing - stream.lost() < 20 && (300..700).contains(&missing), "{missing}");
    assert!((100..400).contains(&stream.duplicated), "{}", stream.duplicated);
    assert_eq!(stream.received, stream.unique + stream.duplicated);
    assert_eq!((stream.reordered, stream.late, stream.negative), (0, 0, 0));
    assert!(stream.latency.min() >= 999_000, "{}", stream.latency.min());
}

#[test]
fn a_pace_is_kept_and_a_time_ends_it() {
    let (mut left, mut right) = pair(WireConfig::by_name(1500));
    let time = Duration::from_millis(30);
    let plan =
        Plan { packets: None, time: Some(time), pace: Pace::Packets(1000.0), burst: 5, batch: 64 };
    let made = template(base(4, protocol::UDP, false, 60), vec![], Some(0));
    let mut generator = Generator::new(made, plan);
    let mut stamps: Vec<Stamp> = Vec::new();
    let mut seen = |right: &mut RawPort| {
        while let Some(batch) = right.receive(64).unwrap() {
            stamps.extend(batch.packets().map(|packet| Stamp::read(&packet[42..]).unwrap()));
        }
    };
    send(&mut generator, &mut left, &mut seen, &mut right);
    let sent = generator.sent();
    // However late this thread was woken, there are never more than the pace allows.
    assert!(sent.packets <= 35 && sent.packets.is_multiple_of(5), "{sent:?}");
    assert!(sent.elapsed >= time);
    assert_eq!(stamps.len() as u64, sent.packets);
    for burst in stamps.chunks(5) {
        assert!(burst.iter().all(|stamp| stamp.time == burst[0].time));
    }
}
