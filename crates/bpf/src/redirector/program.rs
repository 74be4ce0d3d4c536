//! The redirector's instructions. Pure: from a configuration and maps to a program.
//!
//! Registers that survive helper calls: R6 the context, R7 where the headers are read from, R8
//! the frame's end, R9 the IP protocol and later a port's bit.

use std::os::fd::AsFd;

use super::config::{Filter, Ports, RedirectConfig};
use super::{Error, Maps, Result};
use crate::asm::{Assembler, Label, Program};
use crate::classic::xdp;
use crate::insn::Reg::*;
use crate::insn::{Alu, Cond, Helper, Reg, Size};
use crate::program::action;

/// Words of 64 ports: TCP's, then UDP's.
pub(super) const PORT_WORDS: u32 = 2 * 65536 / 64;
pub(super) const COUNT_REDIRECTED: u32 = 0;
pub(super) const COUNT_PASSED: u32 = 1;
pub(super) const COUNT_NO_SOCKET: u32 = 2;
pub(super) const COUNTERS: u32 = 3;

// struct xdp_md
const XDP_DATA: i16 = 0;
const XDP_DATA_END: i16 = 4;
const XDP_RX_QUEUE: i16 = 16;
// struct __sk_buff
const SKB_VLAN_PRESENT: i16 = 20;
const SKB_DATA: i16 = 76;
const SKB_DATA_END: i16 = 80;
// enum tcx_action_base
const TCX_NEXT: i32 = -1;
const TCX_DROP: i32 = 2;

const ETHERNET_LEN: i32 = 14;
const VLAN_LEN: i32 = 4;
const ETHERTYPE_AT: i16 = 12;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
const ETHERTYPE_IPV6: u16 = 0x86dd;

const IP_AT: i16 = ETHERNET_LEN as i16;
const IPV4_LEN: i32 = 20;
const IPV6_LEN: i32 = 40;
const ARP_LEN: i32 = 28;
const ICMP: i32 = 1;
const TCP: i32 = 6;
const UDP: i32 = 17;
const ICMPV6: i32 = 58;
/// Hop-by-hop options, routing, fragment, destination options (RFC 8200 section 4).
const EXTENSION_HEADERS: [i32; 4] = [0, 43, 44, 60];

/// Below the frame pointer: a map's key, at most 16 bytes.
const KEY_AT: i16 = -16;

/// A 16-bit field in network order, as a load of the host gives it.
fn wire16(value: u16) -> i32 {
    i32::from(value.to_be())
}

/// A 32-bit field in network order, as a load of the host gives it.
fn wire32(value: u32) -> i32 {
    value.to_be() as i32
}

/// The program of [`super::Claim`].
pub(super) fn build_claim(filter: &Filter, maps: &Maps) -> Result<Program> {
    let mut builder = Builder::new(maps, Hook::Tcx);
    builder.asm.mov(R6, R1);
    builder.filter(filter)?;
    builder.asm.bind(builder.take).mov(R7, TCX_DROP);
    builder.asm.mov(R3, COUNT_REDIRECTED as i32).jump(builder.count);
    builder.pass();
    builder.count();
    Ok(builder.asm.finish()?)
}

pub(super) fn build(config: &RedirectConfig, maps: &Maps) -> Result<Program> {
    let mut builder = Builder::new(maps, Hook::Xdp);
    builder.asm.mov(R6, R1);
    if let Some(expression) = &config.expression {
        let chosen = builder.asm.label();
        xdp::emit(&mut builder.asm, expression, R6, chosen, builder.pass);
        builder.asm.bind(chosen);
    }
    if let Some(filter) = &config.filter {
        builder.filter(filter)?;
    }
    builder.redirect();
    if config.filter.is_some() || config.expression.is_some() {
        builder.pass();
    }
    builder.count();
    Ok(builder.asm.finish()?)
}

/// Where the program runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hook {
    Xdp,
    Tcx,
}

struct Builder<'a> {
    hook: Hook,
    asm: Assembler,
    maps: &'a Maps,
    /// The frame is ours.
    take: Label,
    /// The frame is Linux's.
    pass: Label,
    /// Counts in R3 and returns R7.
    count: Label,
}

impl<'a> Builder<'a> {
    fn new(maps: &'a Maps, hook: Hook) -> Self {
        let mut asm = Assembler::new();
        let (take, pass, count) = (asm.label(), asm.label(), asm.label());
        Self { hook, asm, maps, take, pass, count }
    }

    /// Jumps to `take` or `pass`, or runs on to `take`, which must come next. The verifier takes
    /// no code that cannot be reached, so parts that are not chosen are not emitted.
    fn filter(&mut self, filter: &Filter) -> Result<()> {
        let ip = !protocols(filter, ICMP).is_empty();
        if !ip && !filter.arp {
            return Err(Error::Argument("the redirector's filter takes no protocol at all".into()));
        }
        let (ipv4, ipv6, arp) = (self.asm.label(), self.asm.label(), self.asm.label());
        self.ethertype();
        if ip {
            self.asm.jump_if(Cond::Eq, R3, wire16(ETHERTYPE_IPV4), ipv4);
            self.asm.jump_if(Cond::Eq, R3, wire16(ETHERTYPE_IPV6), ipv6);
        }
        if filter.arp {
            self.asm.jump_if(Cond::Eq, R3, wire16(ETHERTYPE_ARP), arp);
        }
        self.asm.jump(self.pass);
        if filter.arp {
            self.asm.bind(arp);
            self.arp();
        }
        if ip {
            let ports = self.asm.label();
            self.asm.bind(ipv6);
            self.ipv6(filter);
            self.asm.jump(ports).bind(ipv4);
            self.ipv4(filter);
            self.asm.bind(ports);
            self.ports(filter);
        }
        Ok(())
    }

    /// Passes the frame unless `len` bytes from R7 are in it.
    fn require(&mut self, len: i32) {
        self.asm.mov(R2, R7).alu(Alu::Add, R2, len).jump_if(Cond::Gt, R2, R8, self.pass);
    }

    /// Looks up the key on the stack; R0 is the value's address or 0. R1 to R5 are lost.
    fn lookup(&mut self, map: impl AsFd) {
        self.asm.load_map(R1, map).mov(R2, R10).alu(Alu::Add, R2, i32::from(KEY_AT));
        self.asm.call(Helper::MAP_LOOKUP_ELEM);
    }

    fn store_key(&mut self, at: i16, value: Reg) {
        self.asm.store(Size::Word, R10, KEY_AT + at, value);
    }

    /// Ends with the EtherType in R3 and R7 where the headers lie as in an untagged frame.
    fn ethertype(&mut self) {
        let (tagged, untagged) = (self.asm.label(), self.asm.label());
        let (data, data_end) = match self.hook {
            Hook::Xdp => (XDP_DATA, XDP_DATA_END),
            Hook::Tcx => (SKB_DATA, SKB_DATA_END),
        };
        if self.hook == Hook::Tcx {
            // The kernel has taken the tag out; the frame is another network's.
            self.asm.load(Size::Word, R3, R6, SKB_VLAN_PRESENT);
            self.asm.jump_if(Cond::Ne, R3, 0, self.pass);
        }
        self.asm.load(Size::Word, R7, R6, data);
        self.asm.load(Size::Word, R8, R6, data_end);
        self.require(ETHERNET_LEN);
        self.asm.load(Size::Half, R3, R7, ETHERTYPE_AT);
        self.asm.jump_if(Cond::Eq, R3, wire16(ETHERTYPE_VLAN), tagged);
        self.asm.jump_if(Cond::Ne, R3, wire16(ETHERTYPE_SERVICE_VLAN), untagged);
        self.asm.bind(tagged);
        self.require(ETHERNET_LEN + VLAN_LEN);
        self.asm.alu(Alu::Add, R7, VLAN_LEN).load(Size::Half, R3, R7, ETHERTYPE_AT);
        self.asm.bind(untagged);
    }

    /// ARP for IPv4 on Ethernet (RFC 826), by its target protocol address.
    fn arp(&mut self) {
        self.require(ETHERNET_LEN + ARP_LEN);
        self.asm.load(Size::Word, R3, R7, IP_AT);
        self.asm.jump_if32(Cond::Ne, R3, wire32(0x0001_0800), self.pass);
        self.asm.load(Size::Half, R3, R7, IP_AT + 4);
        self.asm.jump_if(Cond::Ne, R3, wire16(0x0604), self.pass);
        self.asm.load(Size::Word, R3, R7, IP_AT + 24);
        self.store_key(0, R3);
        self.lookup(&self.maps.addresses.ipv4);
        self.asm.jump_if(Cond::Ne, R0, 0, self.take).jump(self.pass);
    }

    /// Passes the frame unless R9 is one of the protocols.
    fn require_protocol(&mut self, protocols: &[i32]) {
        let chosen = self.asm.label();
        for &protocol in protocols {
            self.asm.jump_if(Cond::Eq, R9, protocol, chosen);
        }
        self.asm.jump(self.pass).bind(chosen);
    }

    /// Ends with R7 behind the fixed header.
    fn ipv6(&mut self, filter: &Filter) {
        let protocols = protocols(filter, ICMPV6);
        self.require(ETHERNET_LEN + IPV6_LEN);
        self.asm.load(Size::Byte, R3, R7, IP_AT).alu(Alu::Rsh, R3, 4);
        self.asm.jump_if(Cond::Ne, R3, 6, self.pass);
        self.asm.load(Size::Byte, R9, R7, IP_AT + 6);
        self.require_protocol(&[&protocols[..], &EXTENSION_HEADERS].concat());
        for part in [0, 4, 8, 12] {
            self.asm.load(Size::Word, R3, R7, IP_AT + 24 + part);
            self.store_key(part, R3);
        }
        self.lookup(&self.maps.addresses.ipv6);
        self.asm.jump_if(Cond::Eq, R0, 0, self.pass);
        self.asm.alu(Alu::Add, R7, ETHERNET_LEN + IPV6_LEN);
    }

    /// Ends with R7 behind the header and its options.
    fn ipv4(&mut self, filter: &Filter) {
        self.require(ETHERNET_LEN + IPV4_LEN);
        self.asm.load(Size::Byte, R3, R7, IP_AT);
        self.asm.jump_if(Cond::Lt, R3, 0x45, self.pass).jump_if(Cond::Gt, R3, 0x4f, self.pass);
        self.asm.load(Size::Byte, R9, R7, IP_AT + 9);
        self.require_protocol(&protocols(filter, ICMP));
        self.asm.load(Size::Word, R3, R7, IP_AT + 16);
        self.store_key(0, R3);
        self.lookup(&self.maps.addresses.ipv4);
        self.asm.jump_if(Cond::Eq, R0, 0, self.pass);
        // A fragment: more to follow, or not the first.
        self.asm.load(Size::Half, R3, R7, IP_AT + 6);
        self.asm.jump_if(Cond::Set, R3, wire16(0x3fff), self.take);
        self.asm.load(Size::Byte, R3, R7, IP_AT).alu(Alu::And, R3, 15).alu(Alu::Lsh, R3, 2);
        self.asm.alu(Alu::Add, R7, R3).alu(Alu::Add, R7, ETHERNET_LEN);
    }

    /// The address is ours; decides by the port if the protocol's ports are a list.
    fn ports(&mut self, filter: &Filter) {
        let tcp = matches!(filter.tcp, Ports::Only(_));
        let udp = matches!(filter.udp, Ports::Only(_));
        if !tcp && !udp {
            return;
        }
        let listed = self.asm.label();
        if tcp {
            self.asm.mov(R3, 0).jump_if(Cond::Eq, R9, TCP, listed);
        }
        if udp {
            self.asm.mov(R3, 65536).jump_if(Cond::Eq, R9, UDP, listed);
        }
        self.asm.jump(self.take).bind(listed);
        self.require(4);
        self.asm.load(Size::Half, R9, R7, 2).network_order(R9, 16).alu(Alu::Add, R3, R9);
        self.asm.alu(Alu::Rsh, R3, 6).alu(Alu::And, R9, 63);
        self.store_key(0, R3);
        self.lookup(&self.maps.ports);
        self.asm.jump_if(Cond::Eq, R0, 0, self.pass);
        self.asm.load(Size::Double, R1, R0, 0).alu(Alu::Rsh, R1, R9).alu(Alu::And, R1, 1);
        self.asm.jump_if(Cond::Eq, R1, 0, self.pass);
    }

    fn redirect(&mut self) {
        self.asm.bind(self.take);
        self.asm.load(Size::Word, R2, R6, XDP_RX_QUEUE);
        self.asm.load_map(R1, &self.maps.sockets).mov(R3, action::PASS as i32);
        self.asm.call(Helper::REDIRECT_MAP).mov(R7, R0);
        self.asm.mov(R3, COUNT_REDIRECTED as i32);
        self.asm.jump_if(Cond::Eq, R7, action::REDIRECT as i32, self.count);
        self.asm.mov(R3, COUNT_NO_SOCKET as i32).jump(self.count);
    }

    fn pass(&mut self) {
        self.asm.bind(self.pass);
        let pass = match self.hook {
            Hook::Xdp => action::PASS as i32,
            Hook::Tcx => TCX_NEXT,
        };
        self.asm.mov(R7, pass).mov(R3, COUNT_PASSED as i32);
    }

    fn count(&mut self) {
        let done = self.asm.label();
        self.asm.bind(self.count);
        self.store_key(0, R3);
        self.lookup(&self.maps.counters);
        self.asm.jump_if(Cond::Eq, R0, 0, done);
        self.asm.load(Size::Double, R1, R0, 0).alu(Alu::Add, R1, 1).store(Size::Double, R0, 0, R1);
        self.asm.bind(done).mov(R0, R7).exit();
    }
}

fn protocols(filter: &Filter, icmp: i32) -> Vec<i32> {
    let chosen =
        [(TCP, filter.tcp != Ports::None), (UDP, filter.udp != Ports::None), (icmp, filter.icmp)];
    chosen.into_iter().filter_map(|(protocol, taken)| taken.then_some(protocol)).collect()
}
