use std::net::Ipv4Addr;
use std::time::Duration;

use millrace_wire::tcp::{
    AccurateEcn, CHECKSUM_OFFSET, FastOpen, Flags, HEADER_LEN, Header, MAX_OPTIONS_LEN,
    OptionWriter, Options, Segment, UserTimeout, fill_checksum, set_checksum, timestamps,
    timestamps_only,
};
use millrace_wire::{Malformed, Seq, checksum, protocol};
use proptest::prelude::*;

use crate::{assert_cuts_rejected, payload};

fn header() -> impl Strategy<Value = Header> {
    any::<(u16, u16, u32, u32, u8, u16, u16)>().prop_map(
        |(source_port, destination_port, sequence, acknowledgement, flags, window, urgent)| {
            Header {
                source_port,
                destination_port,
                sequence: Seq(sequence),
                acknowledgement: Seq(acknowledgement),
                flags: Flags(flags),
                window,
                urgent,
            }
        },
    )
}

const HEADER: Header = Header {
    source_port: 1,
    destination_port: 2,
    sequence: Seq(3),
    acknowledgement: Seq(4),
    flags: Flags::ACK,
    window: 5,
    urgent: 0,
};

fn options() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<[u8; 4]>(), 0..=10).prop_map(|words| words.concat())
}

fn build(header: &Header, options: &[u8], payload: &[u8], pseudo: u16) -> Vec<u8> {
    let mut bytes = vec![0xaa; HEADER_LEN + options.len()];
    let len = header.emit(&mut bytes, options);
    assert_eq!(len, bytes.len());
    fill_checksum(&mut bytes, pseudo, checksum::sum(payload));

    let mut at_once = vec![0x55; bytes.len()];
    header.emit_with_checksum(&mut at_once, options, pseudo, checksum::sum(payload));
    assert_eq!(at_once, bytes);
    bytes.extend(payload);
    bytes
}

fn read(options: &[u8]) -> Result<Options, Malformed> {
    // Through a segment, padded as on the wire, and directly: both must agree.
    let direct = Options::parse(options);
    if options.len().is_multiple_of(4) && options.len() <= MAX_OPTIONS_LEN {
        let bytes = build(&HEADER, options, &[], 0);
        assert_eq!(Segment::parse(&bytes).unwrap().options(), direct);
    }
    direct
}

proptest! {

    #![proptest_config(crate::deterministic::config())]

    #[test]
    fn round_trip(
        header in header(),
        options in options(),
        payload in payload(100),
        addresses: (Ipv4Addr, Ipv4Addr),
    ) {
        let len = HEADER_LEN + options.len() + payload.len();
        let pseudo = checksum::pseudo_v4(addresses.0, addresses.1, protocol::TCP, len);
        let bytes = build(&header, &options, &payload, pseudo);
        assert_cuts_rejected(&bytes[..HEADER_LEN + options.len()], |cut| Segment::parse(cut).map(|_| ()));

        let segment = Segment::parse(&bytes).unwrap();
        prop_assert_eq!(segment.source_port(), header.source_port);
        prop_assert_eq!(segment.destination_port(), header.destination_port);
        prop_assert_eq!(segment.sequence(), header.sequence);
        prop_assert_eq!(segment.acknowledgement(), header.acknowledgement);
        prop_assert_eq!(segment.flags(), header.flags);
        prop_assert!(!segment.ae());
        prop_assert_eq!(segment.window(), header.window);
        prop_assert_eq!(segment.urgent(), header.urgent);
        prop_assert_eq!(segment.header_len(), HEADER_LEN + options.len());
        prop_assert_eq!(segment.total_len(), len);
        prop_assert_eq!(segment.options_bytes(), &options[..]);
        prop_assert_eq!(segment.payload(), payload);
        prop_assert!(segment.verify_checksum(pseudo));
    }

    #[test]
    fn any_flipped_bit_is_found(
        header in header(),
        options in options(),
        payload in payload(50),
        bit: prop::sample::Index,
    ) {
        let pseudo = 0x1234;
        let mut bytes = build(&header, &options, &payload, pseudo);
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!Segment::parse(&bytes).is_ok_and(|segment| segment.verify_checksum(pseudo)));
    }

    #[test]
    fn written_options_read_back(
        mss: Option<u16>,
        window_scale in prop::option::of(0..=14_u8),
        sack_permitted: bool,
        timestamps: Option<(u32, u32)>,
        sack in prop::collection::vec(any::<(u32, u32)>(), 0..6),
        order in Just([0, 1, 2, 3]).prop_shuffle(),
    ) {
        let mut writer = OptionWriter::new();
        for step in order {
            match step {
                0 => drop(mss.map(|mss| writer.mss(mss).padded().len())),
                1 => drop(window_scale.map(|scale| writer.window_scale(scale).padded().len())),
                2 if sack_permitted => drop(writer.sack_permitted()),
                3 => drop(timestamps.map(|(a, b)| writer.timestamps(a, b).padded().len())),
                _ => {}
            }
        }
        let sack: Vec<_> = sack.into_iter().map(|(a, b)| (Seq(a), Seq(b))).collect();
        let written = writer.sack(&sack);
        prop_assert!(written == sack.len().min(4) || writer.padded().len() > 32);

        let options = read(writer.padded()).unwrap();
        prop_assert_eq!(options.mss, mss);
        prop_assert_eq!(options.window_scale, window_scale);
        prop_assert!(!options.window_scale_clamped);
        prop_assert_eq!(options.sack_permitted, sack_permitted);
        prop_assert_eq!(options.timestamps, timestamps);
        prop_assert_eq!(options.sack(), &sack[..written]);
        prop_assert_eq!((options.fast_open, options.user_timeout), (None, None));
    }

    #[test]
    fn unknown_options_are_skipped(kind in 35..=171_u8, data in payload(28), mss: u16) {
        let mut options = vec![kind, 2 + data.len() as u8];
        options.extend(&data);
        options.extend([2, 4]);
        options.extend(mss.to_be_bytes());
        let mut read = read(&options).unwrap();
        prop_assert_eq!(read.mss.take(), Some(mss));
        prop_assert_eq!(read, Options::default());
    }

    #[test]
    fn a_cut_option_is_malformed(cut in 1..10_usize) {
        let options = [8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        prop_assert_eq!(read(&options[..cut]), Err(Malformed::Option));
    }

    #[test]
    fn timestamps_alone_take_the_short_way(value: u32, echo: u32, other in options()) {
        let mut writer = OptionWriter::new();
        writer.timestamps(value, echo);
        prop_assert_eq!(writer.padded(), timestamps(value, echo));
        let bytes = build(&HEADER, writer.padded(), b"x", 0);
        let segment = Segment::parse(&bytes).unwrap();
        prop_assert_eq!(timestamps_only(segment.options_bytes()), Some((value, echo)));
        prop_assert_eq!(segment.options().unwrap().timestamps, Some((value, echo)));

        // Whatever else takes the short way would be read the same by the long one.
        let bytes = build(&HEADER, &other, &[], 0);
        let short = timestamps_only(Segment::parse(&bytes).unwrap().options_bytes());
        prop_assert_eq!(short.is_some(), other.len() == 12 && other[..4] == [1, 1, 8, 10]);
    }

    /// Four options in that order have a short way, in any other they do not.
    #[test]
    fn the_usual_options_of_a_syn_are_read_as_in_any_other_order(
        mss: [u8; 2],
        value: [u8; 4],
        echo: [u8; 4],
        scale: u8,
        at in 0..20_usize,
        with: u8,
    ) {
        let (first, second) = ([2, 4, mss[0], mss[1], 4, 2], [1, 3, 3, scale]);
        let times: Vec<u8> = [8, 10].into_iter().chain(value).chain(echo).collect();
        let mut usual = [&first[..], &times, &second].concat();
        let other = [&second[..], &first, &times].concat();
        prop_assert_eq!(read(&usual).unwrap(), read(&other).unwrap());
        // What is almost the usual is read with care; one option more has it go the long way.
        usual[at] = with;
        let long = [&usual[..], &[1, 1, 1, 1]].concat();
        prop_assert_eq!(read(&usual), read(&long));
    }
}

#[test]
fn options_of_a_linux_syn() {
    let options = [2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0, 1, 3, 3, 7];
    let mut writer = OptionWriter::new();
    writer.mss(1460).sack_permitted().timestamps(0x1234_5678, 0).window_scale(7);
    assert_eq!(writer.padded(), options);
    let read = read(&options).unwrap();
    assert_eq!(read.mss, Some(1460));
    assert_eq!((read.window_scale, read.window_scale_clamped), (Some(7), false));
    assert!(read.sack_permitted && read.sack().is_empty());
    assert_eq!(read.timestamps, Some((0x1234_5678, 0)));
}

#[test]
fn data_offset() {
    let mut bytes = build(&HEADER, &[], &[0; 8], 0);
    for words in 0..16 {
        bytes[12] = words << 4;
        let expected = match words {
            0..5 => Some(Malformed::HeaderLength),
            5..=7 => None,
            _ => Some(Malformed::Truncated),
        };
        assert_eq!(Segment::parse(&bytes).err(), expected, "{words} words");
    }
}

#[test]
fn accurate_ecn_bit() {
    let mut bytes = build(&HEADER, &[], &[], 0);
    bytes[12] |= 1;
    let segment = Segment::parse(&bytes).unwrap();
    assert!(segment.ae());
    assert_eq!((segment.flags(), segment.header_len()), (Flags::ACK, HEADER_LEN));
}

#[test]
fn sequence_len_counts_syn_and_fin() {
    for (flags, expected) in [
        (Flags::ACK, 3),
        (Flags::SYN, 4),
        (Flags::FIN | Flags::ACK, 4),
        (Flags::SYN | Flags::FIN, 5),
    ] {
        let bytes = build(&Header { flags, ..HEADER }, &[], b"abc", 0);
        assert_eq!(Segment::parse(&bytes).unwrap().sequence_len(), expected);
    }
}

#[test]
fn partial_checksums_are_told_from_right_ones() {
    let pseudo = 0x1234;
    let mut bytes = build(&HEADER, &[], b"abc", pseudo);
    assert!(!Segment::parse(&bytes).unwrap().has_partial_checksum(pseudo));
    set_checksum(&mut bytes, pseudo);
    assert_eq!(bytes[CHECKSUM_OFFSET..CHECKSUM_OFFSET + 2], [0x12, 0x34]);
    let segment = Segment::parse(&bytes).unwrap();
    assert!(segment.has_partial_checksum(pseudo) && !segment.verify_checksum(pseudo));
}

#[test]
fn lengths_that_lie() {
    for options in [
        &[2, 0, 5, 180][..],             // would never end
        &[2, 1, 5, 180],                 // shorter than itself
        &[2, 3, 5, 1],                   // not MSS's
        &[2, 5, 5, 180, 0, 1, 1, 1],     // not MSS's
        &[3, 2, 1, 1],                   // not window scale's
        &[4, 3, 0, 1],                   // not SACK permitted's
        &[5, 2, 1, 1],                   // no block
        &[5, 6, 0, 0, 0, 0, 1, 1],       // half a block
        &[8, 9, 0, 0, 0, 0, 0, 0, 0, 1], // not timestamps'
        &[28, 3, 0, 1],                  // not user timeout's
        &[99, 5, 0, 0],                  // beyond the header
        &[1, 1, 1, 99],                  // no length
    ] {
        assert_eq!(read(options), Err(Malformed::Option), "{options:?}");
    }
    let mut blocks = [0; 2 + 5 * 8];
    blocks[..2].copy_from_slice(&[5, 42]);
    assert_eq!(read(&blocks), Err(Malformed::Option), "five blocks");
}

#[test]
fn nothing_is_read_behind_the_end() {
    assert_eq!(read(&[0, 2, 0, 0]), Ok(Options::default()));
    assert_eq!(read(&[1, 1, 0, 99]), Ok(Options::default()));
}

#[test]
fn window_scale_is_clamped_and_says_so() {
    for (sent, read_as, clamped) in
        [(0, 0, false), (14, 14, false), (15, 14, true), (255, 14, true)]
    {
        let options = read(&[1, 3, 3, sent]).unwrap();
        assert_eq!((options.window_scale, options.window_scale_clamped), (Some(read_as), clamped));
    }
}

#[test]
fn fast_open_cookies() {
    let cookie = [1, 2, 3, 4, 5, 6, 7, 8];
    let fast_open = FastOpen::new(&cookie).unwrap();
    let mut writer = OptionWriter::new();
    writer.fast_open(&fast_open);
    assert_eq!(writer.padded()[..10], [34, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(read(writer.padded()).unwrap().fast_open, Some(fast_open));
    assert_eq!(fast_open.cookie(), cookie);

    assert_eq!(read(&[34, 2, 1, 1]).unwrap().fast_open, Some(FastOpen::REQUEST));
    let experimental = [254, 8, 0xf9, 0x89, 1, 2, 3, 4];
    assert_eq!(read(&experimental).unwrap().fast_open, FastOpen::new(&[1, 2, 3, 4]));
    assert_eq!(read(&[254, 4, 0xf9, 0x89]).unwrap().fast_open, Some(FastOpen::REQUEST));
    assert_eq!(read(&[254, 4, 0x12, 0x34]).unwrap().fast_open, None, "another experiment");
    assert_eq!(read(&[254, 2, 1, 1]).unwrap().fast_open, None, "no experiment");

    // Lengths that no cookie has are ignored, as RFC 7413 wants.
    assert_eq!(read(&[34, 4, 1, 2]).unwrap().fast_open, None);
    assert_eq!(read(&[34, 7, 1, 2, 3, 4, 5, 1]).unwrap().fast_open, None);
    let mut long = [0; 20];
    long[..2].copy_from_slice(&[34, 20]);
    assert_eq!(read(&long).unwrap().fast_open, None);
}

#[test]
fn user_timeouts() {
    let timeout = read(&[28, 4, 0x80, 5]).unwrap().user_timeout;
    assert_eq!(timeout.map(UserTimeout::duration), Some(Duration::from_secs(300)));
    let timeout = read(&[28, 4, 0, 5]).unwrap().user_timeout;
    assert_eq!(timeout.map(UserTimeout::duration), Some(Duration::from_secs(5)));
    for (time, told) in [
        (Duration::ZERO, 1),
        (Duration::from_millis(1500), 2),
        (Duration::from_secs(32_767), 32_767),
        (Duration::from_secs(32_768), 32_820),
        (Duration::from_secs(36_000), 36_000),
        (Duration::MAX, 32_767 * 60),
    ] {
        let mut writer = OptionWriter::new();
        assert!(writer.user_timeout(UserTimeout::of(time)));
        let timeout = read(writer.padded()).unwrap().user_timeout.unwrap();
        assert_eq!(timeout.duration(), Duration::from_secs(told), "{time:?}");
    }
    let mut full = OptionWriter::new();
    full.timestamps(1, 2);
    full.sack(&[(Seq(1), Seq(2)); 4]);
    assert!(!full.user_timeout(UserTimeout(1)));
    assert_eq!(full.padded().len(), 40);
}

#[test]
fn as_many_sack_blocks_as_fit() {
    let blocks = [(Seq(1), Seq(2)); 5];
    let mut alone = OptionWriter::new();
    assert_eq!((alone.sack(&blocks), alone.padded().len()), (4, 36));
    let mut beside_timestamps = OptionWriter::new();
    beside_timestamps.timestamps(1, 2);
    assert_eq!((beside_timestamps.sack(&blocks), beside_timestamps.padded().len()), (3, 40));
    let mut none = OptionWriter::new();
    assert_eq!((none.sack(&[]), none.padded().len()), (0, 0));
    assert_eq!((beside_timestamps.sack(&blocks), beside_timestamps.padded().len()), (0, 40));
}

#[test]
#[should_panic(expected = "32-bit words")]
fn emit_of_options_that_are_not_padded() {
    HEADER.emit(&mut [0; 60], &[1, 1, 1]);
}

#[test]
fn accurate_ecn_is_written_in_the_order_that_is_shortest() {
    let counters = |e0b, ceb, e1b| AccurateEcn { e0b, ceb, e1b };
    for (counters, kind, len) in [
        (counters(None, None, None), 172, 2),
        (counters(Some(1), None, None), 172, 5),
        (counters(Some(1), Some(0), None), 172, 8),
        (counters(Some(1), Some(0), Some(0xff_ffff)), 172, 11),
        (counters(None, None, Some(7)), 174, 5),
        (counters(None, Some(9), Some(7)), 174, 8),
    ] {
        let mut options = OptionWriter::new();
        assert!(options.accurate_ecn(&counters));
        assert_eq!((options.padded()[0], options.padded()[1]), (kind, len));
        assert_eq!(options.padded().len(), counters.padded_len());
        assert_eq!(Options::parse(options.padded()).unwrap().accurate_ecn, Some(counters));
    }
}

#[test]
fn accurate_ecn_of_an_odd_length_is_read_as_far_as_its_fields_are_whole() {
    let options = Options::parse(&[172, 7, 0, 0, 5, 9, 9, 1]).unwrap();
    assert_eq!(options.accurate_ecn, Some(AccurateEcn { e0b: Some(5), ceb: None, e1b: None }));
    let long = [174, 14, 0, 0, 1, 0, 0, 2, 0, 0, 3, 4, 5, 6];
    let options = Options::parse(&long).unwrap();
    assert_eq!(
        options.accurate_ecn,
        Some(AccurateEcn { e1b: Some(1), ceb: Some(2), e0b: Some(3) })
    );
}

#[test]
fn accurate_ecn_that_finds_no_room_is_left_out() {
    let mut options = OptionWriter::new();
    let blocks = [(Seq(1), Seq(2)); 3];
    options.timestamps(1, 2);
    options.sack(&blocks);
    let counters = AccurateEcn { e0b: Some(1), ..AccurateEcn::default() };
    assert!(!options.accurate_ecn(&counters));
    assert_eq!(options.padded().len(), 40);
}
