use millrace_wire::ether::{EtherType, Frame, HEADER_LEN, emit};
use millrace_wire::vlan::{TAG_LEN, Tag};
use proptest::prelude::*;

use crate::{assert_cuts_rejected, mac, payload};

fn tag() -> impl Strategy<Value = Tag> {
    any::<u16>().prop_map(Tag::from_tci)
}

/// An EtherType that does not announce another tag.
fn untagged() -> impl Strategy<Value = u16> {
    any::<u16>().prop_filter("a tag", |&it| it != EtherType::VLAN && it != EtherType::QINQ)
}

proptest! {

    #![proptest_config(crate::deterministic::config())]

    #[test]
    fn round_trip(
        destination in mac(),
        source in mac(),
        tags in prop::collection::vec((any::<bool>(), tag()), 0..3),
        ether_type in untagged(),
        payload in payload(100),
    ) {
        let mut bytes = vec![0; HEADER_LEN + TAG_LEN * tags.len()];
        let announce = |at: usize| match tags.get(at) {
            Some((true, _)) => EtherType::QINQ,
            Some((false, _)) => EtherType::VLAN,
            None => ether_type,
        };
        emit(&mut bytes, destination, source, announce(0));
        for (i, (_, tag)) in tags.iter().enumerate() {
            tag.emit(&mut bytes[HEADER_LEN + TAG_LEN * i..], announce(i + 1));
        }
        assert_cuts_rejected(&bytes, |cut| Frame::parse(cut).map(|_| ()));
        bytes.extend(&payload);

        let frame = Frame::parse(&bytes).unwrap();
        prop_assert_eq!(frame.destination(), destination);
        prop_assert_eq!(frame.source(), source);
        prop_assert_eq!(frame.vlan(), tags.first().map(|it| it.1));
        prop_assert_eq!(frame.inner_vlan(), tags.get(1).map(|it| it.1));
        prop_assert_eq!(frame.ether_type(), ether_type);
        prop_assert_eq!(frame.header_len(), HEADER_LEN + TAG_LEN * tags.len());
        prop_assert_eq!(frame.payload(), payload);
    }
}

#[test]
fn a_third_tag_is_not_read() {
    let mut bytes = [0; HEADER_LEN + 3 * TAG_LEN];
    let tag = Tag { pcp: 0, dei: false, vid: 7 };
    emit(&mut bytes, [2; 6].into(), [4; 6].into(), EtherType::QINQ);
    tag.emit(&mut bytes[14..], EtherType::QINQ);
    tag.emit(&mut bytes[18..], EtherType::VLAN);
    tag.emit(&mut bytes[22..], EtherType::IPV4);
    let frame = Frame::parse(&bytes).unwrap();
    assert_eq!((frame.ether_type(), frame.header_len()), (EtherType::VLAN, 22));
}

#[test]
#[should_panic(expected = "room for an Ethernet header")]
fn emit_into_too_short_a_buffer() {
    emit(&mut [0; HEADER_LEN - 1], [2; 6].into(), [4; 6].into(), 0);
}
