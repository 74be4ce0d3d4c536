//! A queue of an interface for a stack that is a host among others: what comes to its addresses by
//! AF_XDP, and what comes to groups and to all hosts as copies by a packet socket.
//!
//! An XDP program cannot copy. What it took of group addresses Linux would miss: queries of routers
//! after which a switch forgets Linux's own memberships, advertisements, datagrams for programs of
//! Linux's in the same group. And what it left, the stack would. So the program leaves all of it to
//! Linux, where a packet socket sees it too. That socket also asks the interface for packets to all
//! groups, which a network card else drops, and has what comes before there is an address: so nobody
//! who gets one from a server has to take everything.

use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;

use millrace_frames::{Arena, Instant, RxBatch, TxBatch};
use millrace_wire::mac::Mac;

use super::{AfXdp, Config};
use crate::af_packet::{AfPacket, AfPacketConfig};
use crate::{Capabilities, Port, Statistics};

/// Bytes of the packet socket's ring and of its buffer.
const RING_BYTES: usize = 512 << 10;
const BUFFER_BYTES: usize = 1 << 20;

/// Lets in, of what came without a VLAN tag (with one it is another network's): IPv4 and IPv6 packets
/// whose Ethernet destination is a group or all; what DHCP servers say, some of them to the address that
/// is not ours yet; and ARP, for who has that address already answers to nobody's (RFC 5227 §2.1.1).
#[rustfmt::skip]
const FILTER: [libc::sock_filter; 17] = {
    const fn op(code: u32, jt: u8, jf: u8, k: i32) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt, jf, k: k as u32 }
    }
    const BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    const HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const ANY: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    [
        op(BYTE, 0, 0, libc::SKF_AD_OFF + libc::SKF_AD_VLAN_TAG_PRESENT),
        op(EQUAL, 0, 13, 0),
        op(HALF, 0, 0, 12),
        op(EQUAL, 12, 0, libc::ETH_P_ARP),
        op(EQUAL, 8, 0, libc::ETH_P_IPV6),
        op(EQUAL, 0, 9, libc::ETH_P_IP),
        op(BYTE, 0, 0, 23),
        op(EQUAL, 0, 5, libc::IPPROTO_UDP),
        // Later fragments have no ports.
        op(HALF, 0, 0, 20),
        op(ANY, 3, 0, 0x1fff),
        op(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0, 0, 14),
        op(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 0, 0, 16),
        op(EQUAL, 3, 0, 68),
        op(BYTE, 0, 0, 0),
        op(ANY, 1, 0, 1),
        op(RETURN, 0, 0, 0),
        op(RETURN, 0, 0, -1),
    ]
};

/// One queue of an interface, and the groups.
pub struct WithGroups {
    queue: AfXdp,
    groups: AfPacket,
    capabilities: Capabilities,
    /// The batch was full before the groups had their turn.
    groups_wait: bool,
}

impl WithGroups {
    /// Opens a queue, as [`AfXdp::open`] does, and a packet socket beside it. `mac`: our hardware
    /// address, if it is not the interface's, which is then asked for what is for it.
    ///
    /// # Errors
    /// As [`AfXdp::open`] and [`AfPacket::open`]; the arena has back then what it gave.
    pub fn open(
        name: &str,
        queue: u32,
        config: &Config,
        mac: Option<Mac>,
        arena: &mut Arena,
    ) -> io::Result<Self> {
        let beside = AfPacketConfig {
            mac,
            ring_bytes: RING_BYTES,
            buffer_bytes: BUFFER_BYTES,
            filter: FILTER.to_vec(),
            ..AfPacketConfig::new(name)
        };
        let mut config = config.clone();
        if let Some(filter) = &mut config.redirect.filter {
            // An address of Linux's may have the same group.
            filter.solicited_nodes = false;
        }
        let mut queue = AfXdp::open(name, queue, &config, arena)?;
        let groups = AfPacket::open(&beside).inspect_err(|_| queue.close(arena))?;
        let mut capabilities = queue.capabilities().clone();
        capabilities.mac = mac.or(capabilities.mac);
        capabilities.facts.push(("groups", "copies by a packet socket".to_owned()));
        Ok(WithGroups { queue, groups, capabilities, groups_wait: false })
    }
}

impl Port for WithGroups {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn rx(&mut self, now: Instant, arena: &mut Arena, batch: &mut RxBatch) -> io::Result<usize> {
        let before = batch.len();
        let mut result = Ok(0);
        // Neither keeps the other waiting for ever.
        if self.groups_wait {
            result = self.groups.rx(now, arena, batch);
        }
        result = result.and(self.queue.rx(now, arena, batch));
        let missed = !self.groups_wait && batch.is_full();
        if !self.groups_wait && !missed {
            result = result.and(self.groups.rx(now, arena, batch));
        }
        self.groups_wait = missed;
        match batch.len() - before {
            0 => result,
            // What came is given first; the next call finds the same error.
            count => Ok(count),
        }
    }

    fn tx(&mut self, now: Instant, arena: &mut Arena, batch: &mut TxBatch) -> io::Result<usize> {
        self.queue.tx(now, arena, batch)
    }

    fn fd(&self) -> Option<RawFd> {
        self.queue.fd()
    }

    fn second_fd(&self) -> Option<RawFd> {
        self.groups.fd()
    }

    fn arm(&mut self, now: Instant) -> bool {
        // Both, so that each knows that it was slept on.
        let groups = self.groups.arm(now);
        self.queue.arm(now) && groups
    }

    fn own_addresses(&mut self, addresses: &[IpAddr]) -> io::Result<()> {
        self.queue.own_addresses(addresses)
    }

    fn close(&mut self, arena: &mut Arena) {
        self.queue.close(arena);
        self.groups.close(arena);
    }

    fn statistics(&mut self) -> Statistics {
        let mut sum = self.queue.statistics();
        let mut groups = self.groups.statistics();
        groups.details = vec![("group_packets", groups.rx_packets)];
        sum.add(groups);
        sum
    }
}
