//! TCP segments of an attacker on the path: near the edges of windows and queues, with options that
//! lie, and damaged.

use millrace_frames::{ChecksumState, RxBatch};
use millrace_wire::seq::Seq;
use millrace_wire::tcp::{AccurateEcn, FastOpen, Flags, OptionWriter, UserTimeout};

use crate::craft::{self, PEER_IP, STACK_IP, TcpSegment};
use crate::craft6;

use super::script::Script;
use super::{FLOWS, Flow, Target, checksum_state};

impl Target {
    /// A segment at the expected numbers, moved by so much.
    pub(super) fn segment(
        &mut self,
        flow: usize,
        flags: Flags,
        seq: i32,
        ack: i32,
        payload: &[u8],
    ) {
        let ack = self.flows[flow].snd_max.wrapping_add_signed(ack);
        self.absolute(flow, flags, seq, ack, payload, 0);
    }

    pub(super) fn absolute(
        &mut self,
        flow: usize,
        flags: Flags,
        seq: i32,
        ack: u32,
        payload: &[u8],
        variant: u8,
    ) {
        let options = self.options(flow, flags, variant);
        let bytes = self.bytes(flow, flags, seq, ack, payload, variant, options);
        self.inject(&bytes, checksum_state(variant >> 4));
    }

    #[allow(clippy::too_many_arguments, reason = "one for each thing a segment has")]
    pub(super) fn bytes(
        &self,
        flow: usize,
        flags: Flags,
        seq: i32,
        ack: u32,
        payload: &[u8],
        variant: u8,
        options: OptionWriter,
    ) -> Vec<u8> {
        let Flow { peer_port, stack_port, rcv_nxt, six, .. } = self.flows[flow];
        let mut options = options;
        if variant & 4 == 0 {
            let counter = [None, Some(0), Some(1), Some(0xff_ffff)][usize::from(variant >> 3) % 4];
            options.accurate_ecn(&AccurateEcn { e0b: counter, ceb: counter, e1b: counter });
        }
        let bytes = TcpSegment {
            source: (PEER_IP, peer_port),
            destination: (STACK_IP, stack_port),
            sequence: rcv_nxt.wrapping_add_signed(seq),
            acknowledgement: ack,
            flags,
            window: [0, 1, 500, 3000, 65_535][usize::from(variant >> 2) % 5],
            urgent: u16::from(variant),
            options,
            payload,
            ecn: (variant ^ variant >> 4) & 3,
            ae: variant & 8 != 0,
        }
        .bytes();
        if six { craft6::from_v4(&bytes) } else { bytes }
    }

    /// The peer's clock, in milliseconds.
    pub(super) fn clock(&self) -> u32 {
        (self.now.as_micros() / 1000) as u32
    }

    /// Options that an honest peer would send.
    pub(super) fn options(&self, flow: usize, flags: Flags, variant: u8) -> OptionWriter {
        let Flow { modern, stamp, .. } = self.flows[flow];
        let mut options = OptionWriter::new();
        if flags.contains(Flags::SYN) {
            if variant & 1 == 0 {
                options.mss([0, 100, 536, 1460, 65_535][usize::from(variant) % 5]);
            }
            if variant & 2 == 0 {
                options.window_scale([0, 7, 14, 255][usize::from(variant) % 4]);
            }
            if modern {
                options.sack_permitted();
            }
        }
        if modern {
            options.timestamps(self.clock(), stamp);
        }
        options
    }

    /// Options that lie: clocks that jump, blocks that were never sent or are gone, cookies.
    pub(super) fn lies(&self, flow: usize, script: &mut Script<'_>) -> OptionWriter {
        let Flow { snd_una, snd_max, stamp, .. } = self.flows[flow];
        let mut options = OptionWriter::new();
        let what = script.byte();
        if what & 1 != 0 {
            let ahead = script.word() as i16;
            let echo = stamp.wrapping_add_signed((script.byte() as i8).into());
            options.timestamps(self.clock().wrapping_add_signed(ahead.into()), echo);
        }
        if what & 2 != 0 {
            let cookie = script.bytes(usize::from(what >> 5) * 2 + 2);
            if let Some(cookie) = FastOpen::new(&cookie) {
                options.fast_open(&cookie);
            }
        }
        if what & 4 != 0 {
            options.sack_permitted();
        }
        if what & 8 != 0 {
            let mut blocks = Vec::new();
            for _ in 0..1 + script.byte() % 4 {
                let base = if script.one_in(4) { snd_max } else { snd_una };
                let start = base.wrapping_add_signed(script.word() as i16 as i32);
                let len = match script.byte() % 4 {
                    0 => 1448,
                    1 => u32::from(script.byte()),
                    2 => u32::from(script.word()),
                    _ => script.long(),
                };
                blocks.push((Seq(start), Seq(start.wrapping_add(len))));
            }
            options.sack(&blocks);
        }
        if what & 16 != 0 {
            options.user_timeout(UserTimeout(script.word()));
        }
        options
    }

    /// Segments around the edges of windows and queues: what an attacker on the path would try.
    pub(super) fn near_the_window(&mut self, script: &mut Script<'_>) {
        let bytes = self.attack(script);
        self.inject(&bytes, ChecksumState::Unknown);
    }

    pub(super) fn attack(&mut self, script: &mut Script<'_>) -> Vec<u8> {
        let number = usize::from(script.byte()) % FLOWS;
        let flow = self.flows[number];
        let flags = Flags(script.byte());
        let flags = if !script.one_in(4) { flags | Flags::ACK } else { flags };
        let flags = if !script.one_in(4) { flags & !(Flags::RST | Flags::SYN) } else { flags };
        let near = script.byte() as i8 as i32;
        let seq = match script.byte() % 6 {
            0 | 1 => 0,
            2 => near,
            3 => near * 100,
            4 => flow.window as i32 + near,
            _ => script.long() as i32,
        };
        let near = script.byte() as i8 as i32;
        let ack = match script.byte() % 6 {
            0 | 1 => flow.snd_max,
            2 => flow.snd_una,
            3 => flow.snd_una.wrapping_add_signed(near),
            4 => flow.snd_max.wrapping_add_signed(near),
            _ => script.long(),
        };
        let len = match script.byte() % 5 {
            0 | 1 => 0,
            2 => usize::from(script.byte()),
            3 => usize::from(script.word()) % 1461,
            _ => usize::from(script.word()) % 20_000,
        };
        let payload = vec![0x5a; len];
        let variant = script.byte();
        let options = if variant & 0x40 != 0 {
            self.lies(number, script)
        } else {
            self.options(number, flags, variant & 0x0f)
        };
        let mut bytes = self.bytes(number, flags, seq, ack, &payload, variant & 0x0f, options);
        // The ECN field of the IP header.
        if !flow.six {
            bytes[15] |= variant >> 4 & 3;
            craft::mend_ip_checksum(&mut bytes);
            return bytes;
        }
        bytes[15] |= variant & 0x30;
        if variant & 0x80 != 0 {
            for _ in 0..1 + script.byte() % 3 {
                let kind = [0, 43, 44, 60, 51, 135][usize::from(script.byte()) % 6];
                bytes = craft6::extended(&bytes, kind, script.byte() % 3);
            }
        }
        bytes
    }

    pub(super) fn burst(&mut self, script: &mut Script<'_>) {
        let mut batch = RxBatch::new();
        for _ in 0..1 + script.byte() % 16 {
            let bytes = self.attack(script);
            if let Some(frame) = self.frame(&bytes) {
                let _ = batch.push(frame);
            }
        }
        self.stack.receive(self.now, &mut batch);
        self.collect();
    }

    /// A good packet with some bytes changed, its transport checksum vouched for by the port.
    pub(super) fn mutated(&mut self, script: &mut Script<'_>) {
        let mut bytes = match script.byte() % 4 {
            0 => craft::udp_datagram((PEER_IP, 999), (STACK_IP, 53), b"question"),
            1 => craft::echo_request(PEER_IP, STACK_IP, b"ping"),
            _ => self.attack(script),
        };
        for _ in 0..script.byte() % 8 {
            let at = usize::from(script.byte()) % bytes.len();
            bytes[at] = script.byte();
        }
        if script.one_in(2) && bytes.len() >= 34 {
            craft::mend_ip_checksum(&mut bytes);
        }
        if script.one_in(4) {
            let len = usize::from(script.word()) % (bytes.len() + 1);
            bytes.truncate(len);
        }
        self.inject(&bytes, checksum_state(script.byte()));
    }
}
