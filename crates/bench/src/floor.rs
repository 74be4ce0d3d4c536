//! The floor: a responder that answers each segment from the segment alone.
//!
//! It keeps nothing between two frames: no connection, no timer, no retransmission. An answer is
//! written into the frame that asked, its payload's checksum was computed at the start, and what
//! comes in is not verified. No TCP on the same port can cost less; it is no TCP itself.
//!
//! It may not answer more than one request for each segment, nor one that is cut in two: the peer
//! sends again what was not acknowledged, one request a time.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::Ipv4Addr;

use millrace_frames::{Arena, Owners, RxBatch, Transmit, TxBatch};
use millrace_port::wait::Bell;
use millrace_port::{Port, clock, wait};
use millrace_wire::ether::{self, EtherType};
use millrace_wire::tcp::{self, Flags, OptionWriter, Segment};
use millrace_wire::{Mac, Seq, arp, checksum, icmpv4, ipv4, protocol};

use crate::http::{self, Answers, Parsed};
use crate::options::Wait;

const IP: usize = ether::HEADER_LEN;
const TCP: usize = IP + ipv4::HEADER_LEN;
const PAYLOAD: usize = TCP + tcp::HEADER_LEN;
const MSS: u16 = 1460;

/// Makes answers out of questions.
pub struct Responder {
    mac: Mac,
    address: Ipv4Addr,
    port: u16,
    keep: Answer,
    close: Answer,
    /// Keyed at random, so that initial sequence numbers cannot be guessed (RFC 6528 in spirit:
    /// the clock is left out, because it would have to be read).
    sequences: RandomState,
}

struct Answer {
    bytes: Box<[u8]>,
    sum: u16,
}

impl Answer {
    fn new(bytes: &[u8]) -> Self {
        Answer { sum: checksum::sum(bytes), bytes: bytes.into() }
    }
}

/// What a segment is answered with.
struct Reply<'a> {
    sequence: Seq,
    acknowledgement: Seq,
    flags: Flags,
    payload: Option<&'a Answer>,
}

impl Responder {
    /// A responder that has this address and serves bodies of so many bytes.
    ///
    /// # Errors
    /// `InvalidInput` when an answer does not fit one segment.
    pub fn new(mac: Mac, address: Ipv4Addr, port: u16, body: usize) -> io::Result<Self> {
        let answers = Answers::new(body);
        let longest = answers.to(true).len().max(answers.to(false).len());
        if longest > usize::from(MSS) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "the floor answers with one segment of {MSS} bytes, and a body of {body} bytes \
                     makes {longest}"
                ),
            ));
        }
        Ok(Responder {
            mac,
            address,
            port,
            keep: Answer::new(answers.to(true)),
            close: Answer::new(answers.to(false)),
            sequences: RandomState::new(),
        })
    }

    /// Answers the frame in the first `len` bytes of `room` in place. Returns the answer's length,
    /// `None` if there is nothing to say. `room` must have space for a full Ethernet frame.
    #[inline]
    pub fn answer(&self, room: &mut [u8], len: usize) -> Option<usize> {
        let frame = ether::Frame::parse(room.get(..len)?).ok()?;
        if frame.vlan().is_some() {
            return None;
        }
        match frame.ether_type() {
            EtherType::IPV4 => self.answer_ipv4(room, len),
            EtherType::ARP => self.answer_arp(room, len),
            _ => None,
        }
    }

    fn answer_arp(&self, room: &mut [u8], len: usize) -> Option<usize> {
        let request = arp::Packet::parse(&room[IP..len]).ok()?;
        if request.operation() != arp::Operation::Request || request.target_ip() != self.address {
            return None;
        }
        let (asker, asker_ip) = (request.sender_mac(), request.sender_ip());
        ether::emit(room, asker, self.mac, EtherType::ARP);
        let reply = arp::Operation::Reply;
        arp::emit(&mut room[IP..], reply, self.mac, self.address, asker, asker_ip);
        Some(IP + arp::LEN)
    }

    #[inline]
    fn answer_ipv4(&self, room: &mut [u8], len: usize) -> Option<usize> {
        let peer_mac = ether::Frame::parse(&room[..len]).ok()?.source();
        let packet = ipv4::Packet::parse(&room[IP..len]).ok()?;
        if packet.destination() != self.address || packet.is_fragment() {
            return None;
        }
        let peer = packet.source();
        match packet.protocol() {
            protocol::TCP => {
                let segment = Segment::parse(packet.payload()).ok()?;
                let reply = self.reply(peer, &segment)?;
                let peer_port = segment.source_port();
                Some(self.write(room, peer_mac, peer, peer_port, &reply))
            }
            protocol::ICMP if packet.header_len() == ipv4::HEADER_LEN => {
                let end = IP + packet.total_len();
                let icmp = icmpv4::Packet::parse(packet.payload()).ok()?;
                if !matches!(icmp.kind(), icmpv4::Kind::EchoRequest { .. }) {
                    return None;
                }
                // A reply is the request with another type, so its checksum changes by that.
                let old = u16::from_be_bytes([room[TCP + 2], room[TCP + 3]]);
                let request_word = u16::from_be_bytes([room[TCP], room[TCP + 1]]);
                room[TCP] = 0;
                let new = checksum::update(old, request_word, request_word & 0xff);
                room[TCP + 2..TCP + 4].copy_from_slice(&new.to_be_bytes());
                self.write_ip(room, peer_mac, peer, protocol::ICMP, end - TCP);
                Some(end)
            }
            _ => None,
        }
    }

    #[inline]
    fn reply(&self, peer: Ipv4Addr, segment: &Segment<'_>) -> Option<Reply<'_>> {
        let flags = segment.flags();
        if segment.destination_port() != self.port || flags.contains(Flags::RST) {
            return None;
        }
        if flags.contains(Flags::SYN) {
            let number = self.sequences.hash_one((peer, segment.source_port())) as u32;
            return Some(Reply {
                sequence: Seq(number),
                acknowledgement: segment.sequence() + 1,
                flags: Flags::SYN | Flags::ACK,
                payload: None,
            });
        }
        let fin = flags.contains(Flags::FIN);
        let payload = segment.payload();
        let (taken, answer, ours) = match http::parse(payload) {
            Parsed::Request { len, keep_alive: true } => (len, Some(&self.keep), Flags::PSH),
            Parsed::Request { len, keep_alive: false } => {
                (len, Some(&self.close), Flags::PSH | Flags::FIN)
            }
            // The peer has no more to say, so neither have we.
            _ if payload.is_empty() && fin => (0, None, Flags::FIN),
            _ => return None,
        };
        let fin_taken = u32::from(fin && taken == payload.len());
        Some(Reply {
            sequence: segment.acknowledgement(),
            acknowledgement: segment.sequence() + taken as u32 + fin_taken,
            flags: ours | Flags::ACK,
            payload: answer,
        })
    }

    #[inline]
    fn write(
        &self,
        room: &mut [u8],
        peer_mac: Mac,
        peer: Ipv4Addr,
        peer_port: u16,
        reply: &Reply<'_>,
    ) -> usize {
        let mut options = OptionWriter::new();
        let options =
            if reply.flags.contains(Flags::SYN) { options.mss(MSS).padded() } else { &[] };
        let header = tcp::Header {
            source_port: self.port,
            destination_port: peer_port,
            sequence: reply.sequence,
            acknowledgement: reply.acknowledgement,
            flags: reply.flags,
            window: u16::MAX,
            urgent: 0,
        };
        let header_len = header.emit(&mut room[TCP..], options);
        let (bytes, sum): (&[u8], u16) =
            reply.payload.map_or((&[], 0), |answer| (&answer.bytes, answer.sum));
        let end = TCP + header_len + bytes.len();
        room[TCP + header_len..end].copy_from_slice(bytes);
        let pseudo = checksum::pseudo_v4(self.address, peer, protocol::TCP, end - TCP);
        tcp::fill_checksum(&mut room[TCP..TCP + header_len], pseudo, sum);
        self.write_ip(room, peer_mac, peer, protocol::TCP, end - TCP);
        end
    }

    #[inline]
    fn write_ip(&self, room: &mut [u8], mac: Mac, peer: Ipv4Addr, protocol: u8, len: usize) {
        ether::emit(room, mac, self.mac, EtherType::IPV4);
        let header = ipv4::Header {
            source: self.address,
            destination: peer,
            protocol,
            ttl: 64,
            tos: 0,
            identification: 0,
            dont_fragment: true,
        };
        header.emit(&mut room[IP..], len);
    }
}

/// Answers for ever.
///
/// # Errors
/// When the port is of no more use.
pub fn serve(
    port: &mut dyn Port,
    arena: &mut Arena,
    responder: &Responder,
    wait: Wait,
) -> io::Result<()> {
    let bell = Bell::new()?;
    let mut received = RxBatch::new();
    let mut transmit = TxBatch::new();
    loop {
        if turn(port, arena, responder, &mut received, &mut transmit)? == 0 && wait == Wait::Sleep {
            wait::sleep(port, &bell, clock::now(), None)?;
        }
    }
}

/// Takes a burst, answers it. Returns how many frames came.
fn turn(
    port: &mut dyn Port,
    arena: &mut Arena,
    responder: &Responder,
    received: &mut RxBatch,
    transmit: &mut TxBatch,
) -> io::Result<usize> {
    let now = clock::now();
    let count = port.rx(now, arena, received)?;
    for &frame in received.iter() {
        let meta = *arena.meta(frame);
        let start = usize::from(meta.offset);
        let room = &mut arena.room_mut(frame)[start..];
        let answered = if meta.next.is_some() || room.len() < PAYLOAD + usize::from(MSS) {
            None
        } else {
            responder.answer(room, usize::from(meta.len))
        };
        match answered {
            Some(len) => {
                arena.pass(frame, Owners::RECEIVED, Owners::TRANSMIT);
                let packet = Transmit {
                    head: frame,
                    total: len as u32,
                    offset: meta.offset,
                    len: len as u16,
                    frames: 1,
                    ..Transmit::default()
                };
                transmit.push(packet).expect("as many answers as questions fit");
            }
            None => arena.release_chain(frame, Owners::RECEIVED),
        }
    }
    received.clear();
    loop {
        port.tx(now, arena, transmit)?;
        if transmit.is_empty() {
            return Ok(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_frames::{ArenaConfig, Hugepages};
    use millrace_port::memory;

    use super::*;

    const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const PEER_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn responder() -> Responder {
        Responder::new(OUR_MAC, OURS, 80, 1024).unwrap()
    }

    fn frame(sequence: u32, ack: u32, flags: Flags, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; PAYLOAD + payload.len()];
        ether::emit(&mut bytes, OUR_MAC, PEER_MAC, EtherType::IPV4);
        let ip = ipv4::Header {
            source: PEER,
            destination: OURS,
            protocol: protocol::TCP,
            ttl: 64,
            tos: 0,
            identification: 1,
            dont_fragment: true,
        };
        ip.emit(&mut bytes[IP..], tcp::HEADER_LEN + payload.len());
        let header = tcp::Header {
            source_port: 5000,
            destination_port: 80,
            sequence: Seq(sequence),
            acknowledgement: Seq(ack),
            flags,
            window: 1000,
            urgent: 0,
        };
        header.emit(&mut bytes[TCP..], &[]);
        bytes[PAYLOAD..].copy_from_slice(payload);
        bytes
    }

    /// The answer as a frame, after all its checksums were found right.
    fn answered(responder: &Responder, question: &[u8]) -> Option<Vec<u8>> {
        let mut room = vec![0; 2048];
        room[..question.len()].copy_from_slice(question);
        let len = responder.answer(&mut room, question.len())?;
        room.truncate(len);
        let packet = ipv4::Packet::parse(&room[IP..]).unwrap();
        assert!(packet.verify_checksum());
        assert_eq!((packet.source(), packet.destination()), (OURS, PEER));
        let segment = Segment::parse(packet.payload()).unwrap();
        let pseudo = checksum::pseudo_v4(OURS, PEER, protocol::TCP, segment.total_len());
        assert!(segment.verify_checksum(pseudo));
        assert_eq!(segment.destination_port(), 5000);
        Some(room)
    }

    fn segment(frame: &[u8]) -> Segment<'_> {
        Segment::parse(ipv4::Packet::parse(&frame[IP..]).unwrap().payload()).unwrap()
    }

    #[test]
    fn a_connection_is_opened_used_and_closed() {
        let responder = responder();
        let syn = answered(&responder, &frame(99, 0, Flags::SYN, b"")).unwrap();
        let syn = segment(&syn);
        assert_eq!(syn.flags(), Flags::SYN | Flags::ACK);
        assert_eq!(syn.acknowledgement(), Seq(100));
        assert_eq!(syn.options().unwrap().mss, Some(MSS));
        let ours = syn.sequence().0.wrapping_add(1);

        assert!(answered(&responder, &frame(100, ours, Flags::ACK, b"")).is_none());

        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let answer = answered(&responder, &frame(100, ours, Flags::ACK, request)).unwrap();
        let answer = segment(&answer);
        assert_eq!(answer.sequence(), Seq(ours));
        assert_eq!(answer.acknowledgement(), Seq(100 + request.len() as u32));
        assert_eq!(answer.payload(), Answers::new(1024).to(true));

        let fin = answered(&responder, &frame(200, 300, Flags::FIN | Flags::ACK, b"")).unwrap();
        let fin = segment(&fin);
        assert_eq!(fin.flags(), Flags::FIN | Flags::ACK);
        assert_eq!((fin.sequence(), fin.acknowledgement()), (Seq(300), Seq(201)));
    }

    #[test]
    fn a_closing_request_is_answered_with_a_fin() {
        let request = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n";
        let question = frame(1, 2, Flags::ACK | Flags::PSH, request);
        let answer = answered(&responder(), &question).unwrap();
        let answer = segment(&answer);
        assert!(answer.flags().contains(Flags::FIN));
        assert_eq!(answer.payload(), Answers::new(1024).to(false));
    }

    #[test]
    fn of_pipelined_requests_the_first_is_taken() {
        let one = b"GET / HTTP/1.1\r\n\r\n";
        let question = frame(1, 2, Flags::ACK | Flags::FIN, &one.repeat(2));
        let answer = answered(&responder(), &question).unwrap();
        assert_eq!(segment(&answer).acknowledgement(), Seq(1 + one.len() as u32));
    }

    #[test]
    fn what_is_not_for_it_is_not_answered() {
        let responder = responder();
        let request = b"GET / HTTP/1.1\r\n\r\n";
        let good = frame(1, 2, Flags::ACK, request);
        assert!(answered(&responder, &good).is_some());
        for (at, value) in [(IP + 19, 9), (TCP + 3, 81), (IP + 6, 0x20), (IP + 9, 17)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(responder.answer(&mut padded(&bad), bad.len()).is_none(), "byte {at}");
        }
        for cut in 0..good.len() {
            assert!(responder.answer(&mut padded(&good[..cut]), cut).is_none(), "cut at {cut}");
        }
        let reset = frame(1, 2, Flags::RST, b"");
        assert!(responder.answer(&mut padded(&reset), reset.len()).is_none());
    }

    #[test]
    fn flipped_bits_do_no_harm() {
        let responder = responder();
        let good = frame(1, 2, Flags::ACK, b"GET / HTTP/1.1\r\n\r\n");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let _ = responder.answer(&mut padded(&bad), bad.len());
        }
    }

    fn padded(frame: &[u8]) -> Vec<u8> {
        let mut room = frame.to_vec();
        room.resize(2048, 0);
        room
    }

    #[test]
    fn it_has_an_address_and_can_be_pinged() {
        let responder = responder();
        let mut room = vec![0; 2048];
        ether::emit(&mut room, Mac([0xff; 6]), PEER_MAC, EtherType::ARP);
        arp::emit(&mut room[IP..], arp::Operation::Request, PEER_MAC, PEER, Mac([0; 6]), OURS);
        assert_eq!(responder.answer(&mut room, IP + arp::LEN), Some(IP + arp::LEN));
        let reply = arp::Packet::parse(&room[IP..]).unwrap();
        assert_eq!((reply.sender_mac(), reply.sender_ip()), (OUR_MAC, OURS));
        assert_eq!(reply.target_mac(), PEER_MAC);

        let mut room = padded(&frame(0, 0, Flags::NONE, b""));
        room[IP + 9] = protocol::ICMP;
        let icmp_len = icmpv4::emit_echo_request(&mut room[TCP..], 7, 9, b"mill");
        let ip = ipv4::Header {
            source: PEER,
            destination: OURS,
            protocol: protocol::ICMP,
            ttl: 64,
            tos: 0,
            identification: 1,
            dont_fragment: true,
        };
        ip.emit(&mut room[IP..], icmp_len);
        assert_eq!(responder.answer(&mut room, TCP + icmp_len), Some(TCP + icmp_len));
        let reply = ipv4::Packet::parse(&room[IP..]).unwrap();
        let reply = icmpv4::Packet::parse(reply.payload()).unwrap();
        assert!(reply.verify_checksum());
        assert_eq!(reply.message_type(), 0);
        assert!(reply.body().ends_with(b"mill"));
    }

    #[test]
    fn it_serves_on_a_port_and_leaks_no_frame() {
        let (mut near, mut far) = memory::wire(memory::WireConfig::default());
        let config = ArenaConfig { frames: 256, frame_size: 2048, hugepages: Hugepages::Never };
        let mut near_arena = Arena::new(config).unwrap();
        let mut far_arena = Arena::new(config).unwrap();
        let free = (near_arena.free(), far_arena.free());
        let responder = responder();
        let (mut received, mut transmit) = (RxBatch::new(), TxBatch::new());
        let question = frame(1, 2, Flags::ACK, b"GET / HTTP/1.1\r\n\r\n");
        for _ in 0..10 {
            let mut asked = TxBatch::new();
            for _ in 0..20 {
                let frame = near_arena.allocate(Owners::TRANSMIT).unwrap();
                let offset = near_arena.meta(frame).offset;
                let start = usize::from(offset);
                near_arena.room_mut(frame)[start..start + question.len()]
                    .copy_from_slice(&question);
                let len = question.len();
                let packet = Transmit {
                    head: frame,
                    total: len as u32,
                    offset,
                    len: len as u16,
                    frames: 1,
                    ..Transmit::default()
                };
                asked.push(packet).unwrap();
            }
            near.tx(clock::now(), &mut near_arena, &mut asked).unwrap();
            assert!(asked.is_empty());
            while turn(&mut far, &mut far_arena, &responder, &mut received, &mut transmit).unwrap()
                > 0
            {}
            let mut answers = RxBatch::new();
            assert_eq!(near.rx(clock::now(), &mut near_arena, &mut answers).unwrap(), 20);
            for &frame in answers.iter() {
                let bytes = near_arena.bytes(frame);
                assert_eq!(segment(bytes).payload(), Answers::new(1024).to(true));
                near_arena.release_chain(frame, Owners::RECEIVED);
            }
        }
        near.close(&mut near_arena);
        far.close(&mut far_arena);
        assert_eq!((near_arena.free(), far_arena.free()), free);
    }

    #[test]
    fn a_body_that_does_not_fit_a_segment_is_refused() {
        let error = Responder::new(OUR_MAC, OURS, 80, 1460).err().unwrap();
        assert!(error.to_string().contains("one segment of 1460 bytes"), "{error}");
    }
}
