//! Between packetdrill's bare IP packets and the stack's Ethernet frames. The other end of this
//! wire has one hardware address for everybody and answers for all of them, so the stack resolves
//! whatever next hop it has at once.

use millrace_wire::mac::Mac;

/// The stack's end.
pub(crate) const STACK: Mac = Mac([2, 0, 0, 0, 0, 1]);
/// Everybody else's.
pub(crate) const PEER: Mac = Mac([2, 0, 0, 0, 0, 2]);

const HEADER: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;
const NEIGHBOR_SOLICITATION: u8 = 135;

/// An IP packet in an Ethernet frame to the stack. `None`: neither version of IP.
pub(crate) fn wrap(packet: &[u8]) -> Option<Vec<u8>> {
    let kind = match packet.first()? >> 4 {
        4 => IPV4,
        6 => IPV6,
        _ => return None,
    };
    Some(frame(kind, packet))
}

fn frame(kind: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend_from_slice(&STACK.0);
    bytes.extend_from_slice(&PEER.0);
    bytes.extend_from_slice(&kind);
    bytes.extend_from_slice(payload);
    bytes
}

/// Bytes of a TCP segment's payload, in the frame of an IP packet. `None`: it is none.
pub(crate) fn payload_len(frame: &[u8]) -> Option<usize> {
    const TCP: u8 = 6;
    let packet = frame.get(HEADER..)?;
    let header = match packet.first()? >> 4 {
        4 if packet.get(9) == Some(&TCP) => usize::from(packet[0] & 0xf) * 4,
        6 if packet.get(6) == Some(&TCP) => 40,
        _ => return None,
    };
    let offset = usize::from(packet.get(header + 12)? >> 4) * 4;
    packet.len().checked_sub(header + offset)
}

/// What becomes of a frame from the stack.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// A packet for packetdrill.
    Packet(Vec<u8>),
    /// The wire answers it itself.
    Answer(Vec<u8>),
    /// The link's own business (announcements, group membership): nobody looks at it.
    Nothing,
}

/// Takes the Ethernet header off, and answers questions for hardware addresses.
pub(crate) fn unwrap(bytes: &[u8]) -> Leaving {
    let Some((header, packet)) = bytes.split_at_checked(HEADER) else { return Leaving::Nothing };
    match [header[12], header[13]] {
        ARP => answer_arp(packet),
        IPV4 => Leaving::Packet(packet.to_vec()),
        IPV6 => from_ipv6(packet),
        _ => Leaving::Nothing,
    }
}

/// RFC 826: a request is turned around.
fn answer_arp(packet: &[u8]) -> Leaving {
    let Some(fields) = packet.first_chunk::<28>() else { return Leaving::Nothing };
    let (sender, target) = (&fields[8..18], &fields[24..28]);
    // A question for one's own address is an announcement (RFC 5227); answering it would be a
    // conflict.
    if fields[6..8] != [0, 1] || sender[6..] == *target || sender[6..] == [0; 4] {
        return Leaving::Nothing;
    }
    let mut reply = *fields;
    reply[7] = 2;
    reply[8..14].copy_from_slice(&PEER.0);
    reply[14..18].copy_from_slice(target);
    reply[18..28].copy_from_slice(sender);
    Leaving::Answer(frame(ARP, &reply))
}

fn from_ipv6(packet: &[u8]) -> Leaving {
    let Some((header, rest)) = packet.split_at_checked(40) else { return Leaving::Nothing };
    let multicast = header[24] == 0xff;
    if header[6] == ICMPV6 && rest.first() == Some(&NEIGHBOR_SOLICITATION) {
        return answer_solicitation(header, rest);
    }
    // Router solicitations, neighbour advertisements and MLD reports.
    if multicast || (header[6] == ICMPV6 && matches!(rest.first(), Some(133..=137))) {
        return Leaving::Nothing;
    }
    Leaving::Packet(packet.to_vec())
}

/// RFC 4861 §7.2.4: a solicited advertisement with our address.
fn answer_solicitation(header: &[u8], message: &[u8]) -> Leaving {
    let (source, Some(target)) = (&header[8..24], message.get(8..24)) else {
        return Leaving::Nothing;
    };
    // Duplicate address detection (RFC 4862 §5.4) comes from the unspecified address: silence
    // says that nobody has it.
    if source.iter().all(|&byte| byte == 0) {
        return Leaving::Nothing;
    }
    let mut packet = Vec::with_capacity(72);
    packet.extend_from_slice(&[0x60, 0, 0, 0, 0, 32, ICMPV6, 255]);
    packet.extend_from_slice(target);
    packet.extend_from_slice(source);
    let body = packet.len();
    packet.extend_from_slice(&[136, 0, 0, 0, 0x60, 0, 0, 0]);
    packet.extend_from_slice(target);
    packet.extend_from_slice(&[2, 1]);
    packet.extend_from_slice(&PEER.0);
    let sum = internet_sum(&packet[8..40])
        + u32::from(ICMPV6)
        + (packet.len() - body) as u32
        + internet_sum(&packet[body..]);
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !(((folded & 0xffff) + (folded >> 16)) as u16);
    packet[body + 2..body + 4].copy_from_slice(&checksum.to_be_bytes());
    Leaving::Answer(frame(IPV6, &packet))
}

fn internet_sum(bytes: &[u8]) -> u32 {
    let sum: u32 =
        bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    (sum & 0xffff) + (sum >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_for_a_neighbour_is_answered() {
        let mut request = vec![0xff; 6];
        request.extend_from_slice(&STACK.0);
        request.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        request.extend_from_slice(&STACK.0);
        request.extend_from_slice(&[192, 0, 2, 1]);
        request.extend_from_slice(&[0; 6]);
        request.extend_from_slice(&[192, 0, 2, 9]);
        let Leaving::Answer(reply) = unwrap(&request) else { panic!("no answer") };
        assert_eq!(reply[..6], STACK.0);
        assert_eq!(reply[20..22], [0, 2]);
        assert_eq!(reply[22..28], PEER.0);
        assert_eq!(reply[28..32], [192, 0, 2, 9]);
        assert_eq!(reply[38..42], [192, 0, 2, 1]);
    }

    #[test]
    fn an_announcement_is_not_answered() {
        let mut announcement = vec![0xff; 12];
        announcement.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        announcement.extend_from_slice(&[2, 0, 0, 0, 0, 1, 192, 0, 2, 1]);
        announcement.extend_from_slice(&[0, 0, 0, 0, 0, 0, 192, 0, 2, 1]);
        assert_eq!(unwrap(&announcement), Leaving::Nothing);
    }

    #[test]
    fn ip_passes_both_ways() {
        let packet = [0x45, 1, 2, 3];
        let wrapped = wrap(&packet).unwrap();
        assert_eq!(unwrap(&wrapped), Leaving::Packet(packet.to_vec()));
        assert_eq!(wrap(&[0x15]), None);
        assert_eq!(unwrap(&[1, 2, 3]), Leaving::Nothing);
    }

    #[test]
    fn an_advertisement_has_a_checksum_that_holds() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 24, ICMPV6, 255];
        packet.extend_from_slice(&[0x20; 16]);
        packet.extend_from_slice(&[0x21; 16]);
        packet.extend_from_slice(&[135, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend_from_slice(&[0x22; 16]);
        let Leaving::Answer(reply) = from_ipv6(&packet) else { panic!("no answer") };
        let packet = &reply[HEADER..];
        let sum = internet_sum(&packet[8..40])
            + u32::from(ICMPV6)
            + (packet.len() - 40) as u32
            + internet_sum(&packet[40..]);
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }
}
