//! The way of a packet: onto a wire, out of it, and through a switch or a router or into a host.

use super::*;

impl World {
    /// Puts a packet on a wire at its end `end`.
    pub(super) fn send(&mut self, wire: u32, end: u8, number: u32) {
        let state = &self.wires[wire as usize];
        let packet = self.packets.get(number);
        if packet.segment_len() > usize::from(state.mtu) {
            self.wires[wire as usize].counters[usize::from(end)].too_long += 1;
            self.packets.give_back(number);
            return;
        }
        if state.super_segments {
            return self.put(wire, end, number);
        }
        packet.finish_checksum();
        if packet.gso_size == 0 {
            return self.put(wire, end, number);
        }
        let whole = core::mem::take(self.packets.get(number));
        self.packets.give_back(number);
        whole.cut(|segment| {
            let number = self.packets.take();
            let packet = self.packets.get(number);
            packet.bytes.extend_from_slice(segment);
            packet.damaged = whole.damaged;
            self.put(wire, end, number);
        });
    }

    pub(super) fn put(&mut self, wire: u32, end: u8, number: u32) {
        let time = self.now - self.settings.epoch;
        let state = &mut self.wires[wire as usize];
        let link = &mut state.links[usize::from(end)];
        let packet = self.packets.get(number);
        state.counters[usize::from(end)].bytes += packet.bytes.len() as u64;
        if let Some(trace) = &mut self.trace {
            trace.packet(wire, end, time, &packet.bytes);
        }
        let verdict = if state.up {
            Some(link.offer(self.now, packet.bytes.len() as u32))
        } else {
            state.counters[usize::from(end)].down += 1;
            None
        };
        if let Some(digest) = &mut self.digest {
            let fate = match verdict {
                None => 0,
                Some(Verdict::Lost) => 1,
                Some(Verdict::QueueDropped) => 2,
                Some(Verdict::Passes(_)) => 3,
            };
            digest.packet(time, wire, end, fate, &packet.bytes);
        }
        let Some(Verdict::Passes(mut passage)) = verdict else {
            return self.packets.give_back(number);
        };
        // ARP has no checksum of its own; it relies on Ethernet's, which the links here lack.
        let spared = packet.damaged || packet.ether_type() == EtherType::ARP;
        passage.flipped_bit = passage.flipped_bit.filter(|_| !spared);
        if packet.gso_size > 0 && passage.flipped_bit.is_some() {
            return self.damage(wire, end, number, passage);
        }
        if passage.flipped_bit.is_some() {
            packet.finish_checksum();
            packet.damaged = true;
        }
        link.alter(&passage, &mut packet.bytes);
        self.deliver(wire, end, number, &passage);
    }

    pub(super) fn deliver(&mut self, wire: u32, end: u8, number: u32, passage: &Passage) {
        let copy = passage.duplicate.then(|| self.packets.copy(number));
        for packet in [Some(number), copy].into_iter().flatten() {
            self.events.push(passage.arrival, Event::Arrive { wire, end: 1 - end, packet });
        }
    }

    /// A super-segment with a flipped bit goes on in pieces: whoever cut it later would sum the
    /// damage into a checksum that is right.
    pub(super) fn damage(&mut self, wire: u32, end: u8, number: u32, mut passage: Passage) {
        let whole = core::mem::take(self.packets.get(number));
        self.packets.give_back(number);
        whole.cut(|segment| {
            let number = self.packets.take();
            let packet = self.packets.get(number);
            packet.damaged = true;
            let bytes = &mut packet.bytes;
            bytes.extend_from_slice(segment);
            let link = &mut self.wires[wire as usize].links[usize::from(end)];
            let first = 14 * 8;
            if let Some(bit) = &mut passage.flipped_bit {
                *bit = first + *bit % (bytes.len() as u32 * 8 - first);
            }
            link.alter(&passage, bytes);
            passage.flipped_bit = None;
            self.deliver(wire, end, number, &passage);
        });
    }

    pub(super) fn arrive(&mut self, wire: u32, end: u8, number: u32) {
        let state = &self.wires[wire as usize];
        let (node, port) = (state.ends[usize::from(end)], state.ports[usize::from(end)]);
        if let Some(trace) = &mut self.trace {
            let time = self.now - self.settings.epoch;
            trace.packet(wire, end, time, &self.packets.get(number).bytes);
        }
        match self.devices[node.index()] {
            Device::Host(host) => self.host_takes(host as usize, number),
            Device::Switch(switch) => {
                let bytes = &self.packets.get(number).bytes;
                match self.switches[switch as usize].forward(port, bytes) {
                    Forward::Nowhere => self.packets.give_back(number),
                    Forward::To(to) => {
                        let (wire, end) = self.ports[node.index()][usize::from(to)];
                        self.send(wire, end, number);
                    }
                    Forward::Flood => {
                        for to in 0..self.ports[node.index()].len() {
                            if to != usize::from(port) {
                                let copy = self.packets.copy(number);
                                let (wire, end) = self.ports[node.index()][to];
                                self.send(wire, end, copy);
                            }
                        }
                        self.packets.give_back(number);
                    }
                }
            }
            Device::Router(router) => {
                let packet: Packet = core::mem::take(self.packets.get(number));
                self.packets.give_back(number);
                let mut out = core::mem::take(&mut self.out);
                let (ports, wires) = (&self.ports[node.index()], &self.wires);
                let mtu = |port: u16| usize::from(wires[ports[usize::from(port)].0 as usize].mtu);
                let router = &mut self.routers[router as usize];
                router.packet(port, &packet, &self.neighbours, mtu, &mut out);
                for (to, packet) in out.drain(..) {
                    let (wire, end) = self.ports[node.index()][usize::from(to)];
                    let number = self.packets.take();
                    *self.packets.get(number) = packet;
                    self.send(wire, end, number);
                }
                self.out = out;
            }
        }
    }

    pub(super) fn host_takes(&mut self, host: usize, number: u32) {
        if self.hosts[host].gone {
            return self.packets.give_back(number);
        }
        if self.hosts[host].rx.is_full() {
            self.turn(host);
        }
        let state = &mut self.hosts[host];
        match self.packets.get(number).scatter(state.stack.arena_mut()) {
            Some(frame) => {
                let full = state.rx.push(frame);
                debug_assert!(full.is_ok(), "the batch was emptied before");
            }
            None => state.rx_no_frame += 1,
        }
        self.packets.give_back(number);
        self.touch(host);
    }

    /// The port of a host is done with its oldest packet, or takes it only now.
    pub(super) fn sent(&mut self, host: usize) {
        let state = &mut self.hosts[host];
        let Some(packet) = state.sending.pop_front() else { return };
        if state.gone {
            return;
        }
        let number = self.packets.take();
        self.packets.get(number).gather(state.stack.arena(), &packet);
        state.stack.arena_mut().transmitted(&packet);
        let (wire, end) = self.ports[state.node.index()][0];
        self.send(wire, end, number);
        self.touch(host);
    }
}
