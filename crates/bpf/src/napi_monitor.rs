//! How much each NAPI poll found to do: a histogram of work by interface, counted by a program at the
//! tracepoint `napi:napi_poll`.
//!
//! Polls that find nothing are wasted wake-ups; polls that use up their budget mean that more waits.

use crate::asm::{Assembler, Program};
use crate::btf::Btf;
use crate::error::Result;
use crate::insn::{Alu, Cond, Helper, Reg::*, Size};
use crate::map::{Map, MapKind, MapSpec};
use crate::trace::TraceProgram;

const TRACEPOINT: &str = "napi_poll";
const KEY_LEN: usize = 16;
const KEY: i16 = -(KEY_LEN as i16);
const VALUE: i16 = KEY - 8;
/// Interfaces times buckets that are counted.
const MOST: u32 = 4096;
/// `BPF_NOEXIST`.
const NO_EXIST: i32 = 1;

/// The most work of each bucket; a poll that used its whole budget is in the one behind the last.
pub const BUCKETS: [u32; 8] = [0, 1, 2, 4, 8, 16, 32, 63];
/// The bucket of polls that used up their budget.
pub const FULL: u32 = BUCKETS.len() as u32;

/// Polls of one interface that found so much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Polls {
    /// The interface's number.
    pub ifindex: u32,
    /// Inode of its network namespace.
    pub namespace: u32,
    /// Index in [`BUCKETS`], or [`FULL`].
    pub bucket: u32,
    /// How many.
    pub count: u64,
}

/// Counts for as long as it lives.
#[derive(Debug)]
pub struct NapiMonitor {
    _program: TraceProgram,
    counts: Map,
}

impl NapiMonitor {
    /// Begins to count.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] on a kernel without BTF or without the tracepoint;
    /// [`crate::Error::System`] with `EPERM` without `CAP_BPF` and `CAP_PERFMON`.
    pub fn open() -> Result<NapiMonitor> {
        let btf = Btf::of_kernel()?;
        let counts = Map::create(&MapSpec {
            name: "mr_napi_polls",
            kind: MapKind::PerCpuHash,
            key_size: KEY_LEN as u32,
            value_size: 8,
            max_entries: MOST,
            flags: 0,
        })?;
        let code = build(&btf, &counts)?;
        // It calls no helper that is kept for GPL-compatible programs, but tracing asks for one.
        let program = TraceProgram::attach(&btf, TRACEPOINT, "mr_napi", "Dual MIT/GPL", &code)?;
        Ok(NapiMonitor { _program: program, counts })
    }

    /// Polls since it was opened, in no order.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn polls(&self) -> Result<Vec<Polls>> {
        let mut found = Vec::new();
        let mut value = vec![0; self.counts.value_len()];
        for key in self.counts.keys() {
            let key = key?;
            if !self.counts.lookup(&key, &mut value)? {
                continue;
            }
            let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|i| key[at + i]));
            let count = value.chunks_exact(8).fold(0u64, |sum, one| {
                sum.wrapping_add(u64::from_ne_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| one[i])))
            });
            found.push(Polls { ifindex: word(0), namespace: word(4), bucket: word(8), count });
        }
        Ok(found)
    }
}

fn build(btf: &Btf, counts: &Map) -> Result<Program> {
    let dev = btf.offset("napi_struct", &["dev"])? as i16;
    let ifindex = btf.offset("net_device", &["ifindex"])? as i16;
    let net = btf.offset("net_device", &["nd_net", "net"])? as i16;
    let inum = btf.offset("net", &["ns", "inum"])? as i16;
    let mut asm = Assembler::new();
    let (exit, full, bucket_known, add) = (asm.label(), asm.label(), asm.label(), asm.label());
    // napi, work, budget.
    asm.load(Size::Double, R6, R1, 0);
    asm.load(Size::Double, R7, R1, 8);
    asm.load(Size::Double, R8, R1, 16);
    asm.load(Size::Double, R2, R6, dev);
    asm.jump_if(Cond::Eq, R2, 0, exit);
    asm.load(Size::Word, R3, R2, ifindex);
    asm.store(Size::Word, R10, KEY, R3);
    asm.load(Size::Double, R3, R2, net);
    asm.mov(R4, 0);
    let no_net = asm.label();
    asm.jump_if(Cond::Eq, R3, 0, no_net);
    asm.load(Size::Word, R4, R3, inum);
    asm.bind(no_net);
    asm.store(Size::Word, R10, KEY + 4, R4);
    asm.store(Size::Word, R10, KEY + 12, 0);
    asm.jump_if32(Cond::Ge, R7, R8, full);
    for (index, most) in BUCKETS.iter().enumerate() {
        asm.mov(R1, index as i32);
        if index + 1 < BUCKETS.len() {
            asm.jump_if32(Cond::Le, R7, *most as i32, bucket_known);
        }
    }
    asm.jump(bucket_known);
    asm.bind(full);
    asm.mov(R1, FULL as i32);
    asm.bind(bucket_known);
    asm.store(Size::Word, R10, KEY + 8, R1);

    look_up(&mut asm, counts);
    asm.jump_if(Cond::Ne, R0, 0, add);
    asm.store(Size::Double, R10, VALUE, 0);
    asm.load_map(R1, counts);
    asm.mov(R2, R10).alu(Alu::Add, R2, i32::from(KEY));
    asm.mov(R3, R10).alu(Alu::Add, R3, i32::from(VALUE));
    asm.mov(R4, NO_EXIST);
    asm.call(Helper::MAP_UPDATE_ELEM);
    look_up(&mut asm, counts);
    asm.jump_if(Cond::Eq, R0, 0, exit);
    asm.bind(add);
    asm.load(Size::Double, R1, R0, 0);
    asm.alu(Alu::Add, R1, 1);
    asm.store(Size::Double, R0, 0, R1);
    asm.bind(exit);
    asm.mov(R0, 0).exit();
    Ok(asm.finish()?)
}

fn look_up(asm: &mut Assembler, counts: &Map) {
    asm.load_map(R1, counts);
    asm.mov(R2, R10).alu(Alu::Add, R2, i32::from(KEY));
    asm.call(Helper::MAP_LOOKUP_ELEM);
}
