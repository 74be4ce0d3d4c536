//! Urgent data is delivered in line (RFC 6093 §3.2).

use crate::common::craft::TcpSegment;
use crate::common::peer::{ACK, PSH, Peer, URG};

#[test]
fn it_is_part_of_the_stream() {
    let mut peer = Peer::new();
    let id = peer.accepted();
    for pointer in [0, 3, 6, 65_535] {
        let at = match pointer {
            0 => 1,
            3 => 7,
            6 => 13,
            _ => 19,
        };
        let segment =
            TcpSegment { urgent: pointer, ..peer.segment(ACK | PSH | URG, at, 1, b"urgent") };
        let bytes = segment.bytes();
        peer.inject(&bytes);
        assert_eq!(peer.read(id), b"urgent");
    }
}
