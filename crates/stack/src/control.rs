//! Packets besides those of connections: ARP, ICMP, resets, datagrams. They wait in a bounded
//! queue until they are transmitted, and at a neighbour until its address is known.

use core::net::{IpAddr, Ipv6Addr};

use millrace_frames::{Arena, Frame, Owners, Transmit, TxBatch};
use millrace_wire::mac::Mac;
use millrace_wire::{ether, ipv4, ipv6};

use crate::Stack;
use crate::address::{Word, address};
use crate::neighbour::{NeighbourRef, Resolution};

/// Where a packet goes on the link.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hop {
    /// To this hardware address: a broadcast, or an answer to a frame that came from there. An
    /// answer needs no entry in the neighbour cache, so invented senders cannot fill it.
    Mac(Mac),
    /// To the next hop with this address.
    Address(Word),
}

/// Fields of the IP header that the application may have chosen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IpFields {
    /// Type of service, or traffic class.
    pub(crate) class: u8,
    /// Time to live, or hop limit; 0: the stack's.
    pub(crate) hop_limit: u8,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    packet: Transmit,
    hop: Hop,
}

/// Room that a packet without options or data needs behind the frame's head room.
pub(crate) const L2: usize = ether::HEADER_LEN;
pub(crate) const L4: usize = ether::HEADER_LEN + ipv4::HEADER_LEN;
pub(crate) const L4_V6: usize = ether::HEADER_LEN + ipv6::HEADER_LEN;

impl Stack {
    /// A frame for a packet of our own.
    pub(crate) fn control_frame(&mut self) -> Option<Frame> {
        if self.control.len() >= usize::from(self.config.control_queue) {
            self.counters.drop_control_queue_full += 1;
            return None;
        }
        let frame = self.arena.allocate(Owners::TRANSMIT);
        if frame.is_none() {
            self.counters.drop_no_frame += 1;
        }
        frame
    }

    /// The room of a control frame from the packet's first byte on.
    pub(crate) fn control_room(&mut self, frame: Frame) -> &mut [u8] {
        // Aligned so that the IP header is, and with the head room in front left to the port.
        &mut self.arena.room_mut(frame)[Arena::HEADROOM - L2..]
    }

    /// Queues a packet of `len` bytes that was written to [`Stack::control_room`]; the Ethernet
    /// header's destination is filled in on the way out.
    pub(crate) fn control_packet(&mut self, frame: Frame, len: usize, hop: Hop) {
        let packet = Transmit {
            head: frame,
            total: len as u32,
            offset: (Arena::HEADROOM - L2) as u16,
            len: len as u16,
            frames: 1,
            ..Transmit::default()
        };
        self.control.push_back(Waiting { packet, hop });
    }

    pub(crate) fn transmit_control(&mut self, batch: &mut TxBatch) {
        while !batch.is_full() {
            let Some(Waiting { packet, hop }) = self.control.pop_front() else { return };
            match hop {
                Hop::Mac(mac) => self.push_packet(packet, mac, batch),
                Hop::Address(address) => {
                    let found = self.neighbours.look_up(&self.keys, address, self.now, false);
                    self.drop_evicted_packets();
                    match found {
                        Some(neighbour) => self.dispatch(packet, neighbour, batch),
                        None => {
                            self.counters.drop_neighbour_cache_full += 1;
                            self.arena.transmitted(&packet);
                        }
                    }
                }
            }
        }
    }

    /// Sends a packet to a neighbour, or lets it wait there. The batch must have room.
    #[inline]
    pub(crate) fn dispatch(
        &mut self,
        packet: Transmit,
        neighbour: NeighbourRef,
        batch: &mut TxBatch,
    ) {
        match self.neighbours.resolve(neighbour, self.now) {
            Resolution::Known(mac) => self.push_packet(packet, mac, batch),
            // Nowhere to wait: that the cache is full was counted when it was looked up.
            Resolution::Gone if neighbour == NeighbourRef::NONE => self.arena.transmitted(&packet),
            Resolution::Wait if self.continues_waiting(neighbour, &packet) => {
                self.neighbours.enqueue_behind_last(neighbour, packet);
            }
            Resolution::Wait | Resolution::Gone => {
                while self.neighbours.is_full(neighbour) {
                    self.lose_oldest_waiting(neighbour);
                }
                if let Err(packet) = self.neighbours.enqueue(neighbour, packet) {
                    self.counters.drop_neighbour_queue_full += 1;
                    self.arena.transmitted(&packet);
                }
            }
        }
    }

    /// The oldest packet that waits for a neighbour is lost, with what belongs to it.
    fn lose_oldest_waiting(&mut self, neighbour: NeighbourRef) {
        let mut rest = true;
        while rest && let Some(packet) = self.neighbours.lose_oldest(neighbour) {
            let next = self.neighbours.waiting(neighbour).first();
            rest = next.is_some_and(|next| self.continues(&packet, next));
            self.counters.drop_neighbour_queue_full += 1;
            self.arena.transmitted(&packet);
        }
    }

    #[inline]
    fn push_packet(&mut self, packet: Transmit, mac: Mac, batch: &mut TxBatch) {
        let start = usize::from(packet.offset);
        self.arena.room_mut(packet.head)[start..start + 6].copy_from_slice(&mac.0);
        if batch.push(packet).is_err() {
            // Callers check for room; losing one packet is what a wire may do.
            self.arena.transmitted(&packet);
        }
    }

    /// Packets that waited for a neighbour whose address is known now.
    pub(crate) fn send_neighbour_packets(&mut self, mac: Mac) {
        while let Some(packet) = self.neighbours.released.pop() {
            if self.control.len() >= usize::from(self.config.control_queue) {
                self.counters.drop_control_queue_full += 1;
                self.arena.transmitted(&packet);
            } else {
                // Popped last first, so each goes before the one that was popped before it.
                self.control.push_front(Waiting { packet, hop: Hop::Mac(mac) });
            }
        }
    }

    /// Packets that waited in vain.
    pub(crate) fn release_neighbour_packets(&mut self) {
        while let Some(packet) = self.neighbours.released.pop() {
            self.arena.transmitted(&packet);
        }
    }

    /// Packets that waited for a neighbour that made way for another.
    pub(crate) fn drop_evicted_packets(&mut self) {
        while let Some(packet) = self.neighbours.evicted.pop() {
            self.counters.drop_neighbour_cache_full += 1;
            self.arena.transmitted(&packet);
        }
    }

    /// Packets that nobody will transmit any more.
    pub(crate) fn release_control_packets(&mut self) {
        while let Some(Waiting { packet, .. }) = self.control.pop_front() {
            self.arena.transmitted(&packet);
        }
    }

    /// Writes Ethernet and IPv4 headers of a control packet. `payload` is the IP payload's length.
    pub(crate) fn control_header(&mut self, frame: Frame, ip: ipv4::Header, payload: usize) {
        let mac = self.config.mac;
        let room = self.control_room(frame);
        ether::emit(room, Mac([0; 6]), mac, ether::EtherType::IPV4);
        ip.emit(&mut room[L2..], payload);
    }

    /// Writes Ethernet and IPv6 headers of a control packet. `payload` is the IP payload's length.
    pub(crate) fn control_header_v6(&mut self, frame: Frame, ip: ipv6::Header, payload: usize) {
        let mac = self.config.mac;
        let room = self.control_room(frame);
        ether::emit(room, Mac([0; 6]), mac, ether::EtherType::IPV6);
        ip.emit(&mut room[L2..], payload);
    }

    /// Writes the headers before a transport's `payload` bytes for either family, and returns
    /// where these begin in [`Stack::control_room`].
    pub(crate) fn control_ip_header(
        &mut self,
        frame: Frame,
        (local, remote): (u8, Word),
        protocol: u8,
        payload: usize,
        fields: IpFields,
    ) -> usize {
        let hop_limit = match fields.hop_limit {
            0 => self.hop_limit(remote),
            set => set,
        };
        match (self.addresses.get(local), address(remote)) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = ipv4::Header {
                    source,
                    destination,
                    protocol,
                    ttl: hop_limit,
                    tos: fields.class,
                    identification: 0,
                    dont_fragment: true,
                };
                self.control_header(frame, header, payload);
                L4
            }
            _ => {
                let header = ipv6::Header {
                    source: Ipv6Addr::from_bits(self.addresses.word(local)),
                    destination: Ipv6Addr::from_bits(remote),
                    next_header: protocol,
                    hop_limit,
                    traffic_class: fields.class,
                    flow_label: 0,
                };
                self.control_header_v6(frame, header, payload);
                L4_V6
            }
        }
    }
}
