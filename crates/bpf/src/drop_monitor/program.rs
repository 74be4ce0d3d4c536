//! The program itself, and the layouts that it shares with user space.
//!
//! Each CPU has a table of slots, found by a hash of the place: the usual drop costs a look into it
//! and an addition, and calls nothing. Places that share a slot with another are counted in a map.
//!
//! It calls a helper that the kernel keeps for GPL-compatible programs, to copy from kernel memory.
//! The instructions that are made here may be used under Apache-2.0, MIT or GPL-2.0.

use std::os::fd::AsFd;

use crate::asm::{Assembler, Label, Program};
use crate::btf::Btf;
use crate::error::Result;
use crate::insn::{Alu, Atomic, Cond, Helper, Insn, Reg::*, Size};
use crate::map::Map;
use crate::ring_buffer::RingBuffer;

use super::{Dropped, Place};

pub(super) const TRACEPOINT: &str = "kfree_skb";
pub(super) const LICENSE: &str = "Dual MIT/GPL";

const PROBE_READ_KERNEL: Helper = Helper(113);
const RINGBUF_RESERVE: Helper = Helper(131);
const RINGBUF_SUBMIT: Helper = Helper(132);
/// `BPF_RB_NO_WAKEUP`: the reader looks by itself.
const NO_WAKEUP: i32 = 1;
/// `BPF_NOEXIST`.
const NO_EXIST: i32 = 1;

/// Location, reason, interface, namespace, protocol, two bytes of zero.
pub(super) const KEY_LEN: usize = 24;
/// Packets, and the interface's name from the CPU that was the first.
pub(super) const VALUE_LEN: usize = 24;
const NAME_LEN: usize = 16;
/// A slot of a CPU: the key, then what a value has. One without packets is free.
pub(super) const SLOT_LEN: usize = KEY_LEN + VALUE_LEN;
/// Slots of a CPU.
pub(super) const SLOTS: u32 = 1 << SLOT_BITS;
const SLOT_BITS: i32 = 9;

/// Entries of the map of totals.
pub(super) const UNCOUNTED: u32 = 0;
pub(super) const FRAMES_LOST: u32 = 1;
pub(super) const TOTALS: u32 = 2;

/// Of each place so many frames are kept on each CPU before the sampling begins.
const FIRST_FRAMES: i32 = 16;
/// Unless every frame may be wanted, one of so many is looked at for that at all.
const LEAST_SAMPLING: i32 = 16;
/// Namespaces have inodes from here on (`PROC_DYNAMIC_FIRST` of the kernel's proc_fs.h, and some
/// fixed ones below it): a pointer that does not lead to such a number did not lead to a namespace.
const LEAST_NAMESPACE: i32 = 0xefff_fff0_u32 as i32;

/// Time, key, start of the bytes in the buffer, MAC header, network header, length, bytes before the
/// network data, bytes kept.
const RECORD_HEAD: usize = 56;

/// Where things are in the kernel's structures.
pub(super) struct Layout {
    dev: i16,
    skb_iif: i16,
    len: i16,
    protocol: i16,
    mac_header: i16,
    network_header: i16,
    tail: i16,
    head: i16,
    data: i16,
    ifindex: i16,
    name: i32,
    net: i16,
    inum: i16,
    /// Of a socket; the tracepoint names the receiving one since Linux 6.11.
    socket_net: Option<i16>,
}

impl Layout {
    pub(super) fn of(btf: &Btf) -> Result<Layout> {
        let skb = |name| -> Result<i16> { Ok(btf.offset("sk_buff", &[name])? as i16) };
        Ok(Layout {
            dev: skb("dev")?,
            skb_iif: skb("skb_iif")?,
            len: skb("len")?,
            protocol: skb("protocol")?,
            mac_header: skb("mac_header")?,
            network_header: skb("network_header")?,
            tail: skb("tail")?,
            head: skb("head")?,
            data: skb("data")?,
            ifindex: btf.offset("net_device", &["ifindex"])? as i16,
            name: btf.offset("net_device", &["name"])? as i32,
            net: btf.offset("net_device", &["nd_net", "net"])? as i16,
            inum: btf.offset("net", &["ns", "inum"])? as i16,
            socket_net: match btf.tracepoint(TRACEPOINT)?.1 {
                0..4 => None,
                _ => Some(btf.offset("sock", &["__sk_common", "skc_net", "net"])? as i16),
            },
        })
    }
}

pub(super) struct Maps<'a> {
    pub(super) counts: &'a Map,
    pub(super) slots: &'a Map,
    pub(super) settings: &'a Map,
    pub(super) totals: &'a Map,
    pub(super) ring: &'a RingBuffer,
}

/// Where the key lies on the stack.
const KEY: i16 = -(KEY_LEN as i16);
/// Where a new value is made.
const VALUE: i16 = KEY - VALUE_LEN as i16;
/// The key of the maps with one or two entries.
const INDEX: i16 = VALUE - 8;

/// Registers that keep their meaning: R7 the skb, R8 the device or nothing, R9 the count and later
/// the record, R6 a slot and later the start of the frame in its buffer.
pub(super) fn build(at: &Layout, maps: &Maps<'_>, snap: u32, every_frame: bool) -> Result<Program> {
    let mut asm = Assembler::new();
    let exit = asm.label();

    // The key: location, reason, protocol.
    asm.load(Size::Double, R7, R1, 0);
    asm.load(Size::Double, R2, R1, 8);
    asm.store(Size::Double, R10, KEY, R2);
    asm.load(Size::Double, R2, R1, 16);
    asm.store(Size::Word, R10, KEY + 8, R2);
    asm.load(Size::Half, R2, R7, at.protocol);
    asm.network_order(R2, 16);
    // The two bytes behind it become zero with it.
    asm.store(Size::Word, R10, KEY + 20, R2);

    // The place of the device is used for other things by skbs that wait somewhere. What is there is
    // a device if it leads to a namespace; else the socket may know that.
    let (no_device, no_namespace, have_place) = (asm.label(), asm.label(), asm.label());
    asm.load(Size::Double, R8, R7, at.dev);
    asm.jump_if(Cond::Eq, R8, 0, no_device);
    asm.load(Size::Double, R2, R8, at.net);
    asm.jump_if(Cond::Eq, R2, 0, no_device);
    asm.load(Size::Word, R3, R2, at.inum);
    asm.jump_if32(Cond::Lt, R3, LEAST_NAMESPACE, no_device);
    asm.load(Size::Word, R2, R8, at.ifindex);
    asm.jump(have_place);
    asm.bind(no_device);
    asm.mov(R8, 0);
    asm.mov(R3, 0);
    if let Some(net) = at.socket_net {
        asm.load(Size::Double, R2, R1, 24);
        asm.jump_if(Cond::Eq, R2, 0, no_namespace);
        asm.load(Size::Double, R2, R2, net);
        asm.jump_if(Cond::Eq, R2, 0, no_namespace);
        asm.load(Size::Word, R3, R2, at.inum);
        asm.bind(no_namespace);
    }
    asm.load(Size::Word, R2, R7, at.skb_iif);
    asm.bind(have_place);
    asm.store(Size::Word, R10, KEY + 12, R2);
    asm.store(Size::Word, R10, KEY + 16, R3);

    count(&mut asm, at, maps, exit);
    keep(&mut asm, at, maps, (snap, every_frame), exit);

    asm.bind(exit).mov(R0, 0).exit();
    Ok(asm.finish()?)
}

/// Counts the drop; R9 is the number of drops at this place on this CPU after it.
fn count(asm: &mut Assembler, at: &Layout, maps: &Maps<'_>, exit: Label) {
    let (occupied, add, elsewhere, counted) = (asm.label(), asm.label(), asm.label(), asm.label());
    // Any mixing of the key's words will do: nobody can choose them.
    asm.load(Size::Double, R2, R10, KEY);
    asm.load(Size::Double, R3, R10, KEY + 8);
    asm.load(Size::Double, R4, R10, KEY + 16);
    asm.mov(R1, R3).alu(Alu::Lsh, R1, 7).alu(Alu::Add, R1, R2).alu(Alu::Xor, R1, R4);
    asm.load_imm64(R5, 0x9e37_79b9_7f4a_7c15);
    asm.alu(Alu::Mul, R1, R5).alu(Alu::Rsh, R1, 64 - SLOT_BITS);
    asm.store(Size::Word, R10, INDEX, R1);
    look_up(asm, maps.slots, INDEX);
    asm.jump_if(Cond::Eq, R0, 0, exit);
    asm.load(Size::Double, R9, R0, KEY_LEN as i16);
    asm.jump_if(Cond::Ne, R9, 0, occupied);

    // The first in this slot. Its count comes last, so that who reads meanwhile sees no half key.
    for word in 0..KEY_LEN as i16 / 8 {
        asm.load(Size::Double, R1, R10, KEY + word * 8);
        asm.store(Size::Double, R0, word * 8, R1);
    }
    asm.mov(R6, R0);
    asm.jump_if(Cond::Eq, R8, 0, add);
    asm.mov(R1, R6).alu(Alu::Add, R1, (KEY_LEN + 8) as i32);
    read_name(asm, at);
    asm.mov(R0, R6);
    asm.jump(add);

    asm.bind(occupied);
    for word in 0..KEY_LEN as i16 / 8 {
        asm.load(Size::Double, R1, R10, KEY + word * 8);
        asm.load(Size::Double, R2, R0, word * 8);
        asm.jump_if(Cond::Ne, R1, R2, elsewhere);
    }
    asm.bind(add);
    asm.alu(Alu::Add, R9, 1);
    asm.store(Size::Double, R0, KEY_LEN as i16, R9);
    asm.jump(counted);

    asm.bind(elsewhere);
    count_in_map(asm, at, maps, exit);
    asm.bind(counted);
}

/// The same for a place whose slot is another's.
fn count_in_map(asm: &mut Assembler, at: &Layout, maps: &Maps<'_>, exit: Label) {
    let (add, no_name, uncounted, counted) = (asm.label(), asm.label(), asm.label(), asm.label());
    look_up(asm, maps.counts, KEY);
    asm.jump_if(Cond::Ne, R0, 0, add);

    // The first of its kind.
    for word in 0..VALUE_LEN as i16 / 8 {
        asm.store(Size::Double, R10, VALUE + word * 8, 0);
    }
    asm.jump_if(Cond::Eq, R8, 0, no_name);
    asm.mov(R1, R10).alu(Alu::Add, R1, i32::from(VALUE) + 8);
    read_name(asm, at);
    asm.bind(no_name);
    asm.load_map(R1, maps.counts);
    asm.mov(R2, R10).alu(Alu::Add, R2, i32::from(KEY));
    asm.mov(R3, R10).alu(Alu::Add, R3, i32::from(VALUE));
    asm.mov(R4, NO_EXIST);
    asm.call(Helper::MAP_UPDATE_ELEM);
    // Another CPU may have been quicker, or the map is full.
    look_up(asm, maps.counts, KEY);
    asm.jump_if(Cond::Eq, R0, 0, uncounted);

    asm.bind(add);
    asm.load(Size::Double, R9, R0, 0);
    asm.alu(Alu::Add, R9, 1);
    asm.store(Size::Double, R0, 0, R9);
    asm.jump(counted);
    asm.bind(uncounted);
    add_to_total(asm, maps, UNCOUNTED, exit);
    asm.jump(exit);
    asm.bind(counted);
}

/// Copies the name of the device to where R1 points.
fn read_name(asm: &mut Assembler, at: &Layout) {
    asm.mov(R2, NAME_LEN as i32);
    asm.mov(R3, R8).alu(Alu::Add, R3, at.name);
    asm.call(PROBE_READ_KERNEL);
}

/// Keeps the frame if it is its turn.
fn keep(
    asm: &mut Assembler,
    at: &Layout,
    maps: &Maps<'_>,
    (snap, every_frame): (u32, bool),
    exit: Label,
) {
    let (wanted, ask) = (asm.label(), asm.label());
    if !every_frame {
        asm.jump_if(Cond::Le, R9, FIRST_FRAMES, ask);
        asm.mov(R1, R9).alu(Alu::And, R1, LEAST_SAMPLING - 1);
        asm.jump_if(Cond::Ne, R1, 0, exit);
        asm.bind(ask);
    }
    asm.store(Size::Word, R10, INDEX, 0);
    look_up(asm, maps.settings, INDEX);
    asm.jump_if(Cond::Eq, R0, 0, exit);
    asm.load(Size::Double, R1, R0, 0);
    asm.jump_if(Cond::Eq, R1, -1, exit);
    asm.jump_if(Cond::Le, R9, FIRST_FRAMES, wanted);
    asm.alu(Alu::And, R9, R1);
    asm.jump_if(Cond::Ne, R9, 0, exit);
    asm.bind(wanted);

    let (room, from_network, start_known, some, fits) =
        (asm.label(), asm.label(), asm.label(), asm.label(), asm.label());
    asm.load_map(R1, maps.ring);
    asm.mov(R2, RECORD_HEAD as i32 + snap as i32);
    asm.mov(R3, 0);
    asm.call(RINGBUF_RESERVE);
    asm.jump_if(Cond::Ne, R0, 0, room);
    add_to_total(asm, maps, FRAMES_LOST, exit);
    asm.jump(exit);
    asm.bind(room);
    asm.mov(R9, R0);
    asm.call(Helper::KTIME_GET_NS);
    asm.store(Size::Double, R9, 0, R0);
    for word in 0..KEY_LEN as i16 / 8 {
        asm.load(Size::Double, R1, R10, KEY + word * 8);
        asm.store(Size::Double, R9, 8 + word * 8, R1);
    }

    // Where the frame begins: at its Ethernet header if it has one, before the network header.
    asm.load(Size::Half, R1, R7, at.mac_header);
    asm.load(Size::Half, R2, R7, at.network_header);
    asm.store(Size::Half, R9, 36, R1);
    asm.store(Size::Half, R9, 38, R2);
    asm.mov(R6, R2);
    asm.jump_if(Cond::Eq, R1, 0xffff, from_network);
    asm.jump_if(Cond::Ge, R1, R2, from_network);
    asm.mov(R6, R1);
    asm.jump(start_known);
    asm.bind(from_network);
    asm.mov(R1, 0xffff);
    asm.store(Size::Half, R9, 36, R1);
    asm.bind(start_known);
    asm.store(Size::Word, R9, 32, R6);
    asm.load(Size::Word, R1, R7, at.len);
    asm.store(Size::Word, R9, 40, R1);
    asm.load(Size::Double, R8, R7, at.head);
    asm.load(Size::Double, R1, R7, at.data);
    asm.alu(Alu::Sub, R1, R8);
    asm.store(Size::Word, R9, 44, R1);

    // Not more than there is: what follows belongs to somebody else.
    asm.load(Size::Word, R2, R7, at.tail);
    asm.jump_if(Cond::Gt, R2, R6, some);
    asm.mov(R2, R6);
    asm.bind(some);
    asm.alu(Alu::Sub, R2, R6);
    asm.jump_if(Cond::Le, R2, snap as i32, fits);
    asm.mov(R2, snap as i32);
    asm.bind(fits);
    asm.store(Size::Word, R9, 48, R2);
    asm.store(Size::Word, R9, 52, 0);
    asm.mov(R1, R9).alu(Alu::Add, R1, RECORD_HEAD as i32);
    asm.mov(R3, R8).alu(Alu::Add, R3, R6);
    asm.call(PROBE_READ_KERNEL);
    asm.mov(R1, R9);
    asm.mov(R2, NO_WAKEUP);
    asm.call(RINGBUF_SUBMIT);
}

/// R0 = the value of the key on the stack, or nothing.
fn look_up(asm: &mut Assembler, map: impl AsFd, key: i16) {
    asm.load_map(R1, map);
    asm.mov(R2, R10).alu(Alu::Add, R2, i32::from(key));
    asm.call(Helper::MAP_LOOKUP_ELEM);
}

fn add_to_total(asm: &mut Assembler, maps: &Maps<'_>, index: u32, exit: Label) {
    asm.store(Size::Word, R10, INDEX, index as i32);
    look_up(asm, maps.totals, INDEX);
    asm.jump_if(Cond::Eq, R0, 0, exit);
    asm.mov(R1, 1);
    asm.push(Insn::atomic(Atomic::Add, Size::Double, R0, 0, R1));
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([0, 1, 2, 3].map(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| bytes[at + i]))
}

/// What a key of [`KEY_LEN`] bytes says.
pub(super) fn place(key: &[u8]) -> Place {
    Place {
        location: u64_at(key, 0),
        reason: u32_at(key, 8),
        ifindex: u32_at(key, 12),
        namespace: u32_at(key, 16),
        protocol: u32_at(key, 20) as u16,
    }
}

/// What a slot of one CPU says; nothing if it is free.
pub(super) fn slot(bytes: &[u8]) -> Option<(Place, u64, String)> {
    let (packets, name) = value(&bytes[KEY_LEN..]);
    (packets > 0).then(|| (place(bytes), packets, name))
}

/// What the value of one CPU says.
pub(super) fn value(bytes: &[u8]) -> (u64, String) {
    let name = bytes[8..8 + NAME_LEN].split(|&byte| byte == 0).next().unwrap_or_default();
    (u64_at(bytes, 0), String::from_utf8_lossy(name).into_owned())
}

/// What a record of the ring says.
pub(super) fn record(bytes: &[u8]) -> Option<Dropped<'_>> {
    if bytes.len() < RECORD_HEAD {
        return None;
    }
    let start = u32_at(bytes, 32);
    let (mac, network) = (u16_at(bytes, 36), u32::from(u16_at(bytes, 38)));
    let (len, data) = (u32_at(bytes, 40), u32_at(bytes, 44));
    let kept = u32_at(bytes, 48) as usize;
    let bytes_kept = bytes[RECORD_HEAD..].get(..kept)?;
    Some(Dropped {
        time: u64_at(bytes, 0),
        place: place(&bytes[8..8 + KEY_LEN]),
        ethernet: mac != 0xffff && network >= start + 14,
        network: network.saturating_sub(start),
        // What lies before the data was taken off already, or is to be put on still.
        original: (data + len).saturating_sub(start).max(kept as u32),
        bytes: bytes_kept,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_are_cut_are_none_and_headers_are_placed() {
        let mut bytes = vec![0; RECORD_HEAD + 64];
        let put = |bytes: &mut Vec<u8>, at: usize, value: &[u8]| {
            bytes[at..at + value.len()].copy_from_slice(value);
        };
        put(&mut bytes, 32, &100u32.to_ne_bytes());
        put(&mut bytes, 36, &100u16.to_ne_bytes());
        put(&mut bytes, 38, &114u16.to_ne_bytes());
        put(&mut bytes, 40, &80u32.to_ne_bytes());
        put(&mut bytes, 44, &134u32.to_ne_bytes());
        put(&mut bytes, 48, &64u32.to_ne_bytes());
        let found = record(&bytes).unwrap();
        assert!(found.ethernet);
        assert_eq!((found.network, found.original, found.bytes.len()), (14, 114, 64));
        put(&mut bytes, 36, &0xffffu16.to_ne_bytes());
        assert!(!record(&bytes).unwrap().ethernet);
        put(&mut bytes, 48, &65u32.to_ne_bytes());
        assert!(record(&bytes).is_none());
        assert!(record(&bytes[..RECORD_HEAD - 1]).is_none());
    }
}
