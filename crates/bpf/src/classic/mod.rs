//! Classic BPF: packet filters as libpcap compiles them from tcpdump's language, and what becomes
//! of them here. Pure; nothing here touches the kernel.
//!
//! A [`Program`] has been checked once, as the kernel checks one, and so every user of it may rely
//! on jumps that go forward and end, places that are there and divisions that are none by zero.
//! [`xdp`] translates it to eBPF; [`socket`] changes it so that a packet socket of the kernel, which
//! sees VLAN tags elsewhere, decides what the bytes on the wire say. It runs in this process in
//! `millrace-packets`.
//!
//! The meaning is that of libpcap's own interpreter: a load beyond the packet's end rejects it, a
//! division by zero too, a shift by 32 or more gives 0, and the registers are 0 at the start.
//!
//! S. McCanne, V. Jacobson, The BSD Packet Filter (USENIX 1993); pcap-filter(7); Linux,
//! Documentation/networking/filter.rst.

mod bounds;
pub mod socket;
mod text;
pub mod xdp;

use std::fmt;

/// One instruction as libpcap and the kernel have it: `struct bpf_insn`, `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct Instruction {
    /// Class, mode, size, operation and source.
    pub code: u16,
    /// How far a conditional jump goes if its condition holds.
    pub jt: u8,
    /// And if it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// The most instructions of a program (`BPF_MAXINSNS`).
pub const MAX_LEN: usize = 4096;
/// Words of scratch memory (`BPF_MEMWORDS`).
pub const MEMORY: usize = 16;

/// How many bytes a load takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum Size {
    Byte = 1,
    Half = 2,
    Word = 4,
}

impl Size {
    /// How many.
    pub const fn bytes(self) -> u32 {
        self as u32
    }
}

/// The second operand of an operation whose first is the accumulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// A constant.
    K(u32),
    /// The index register.
    X,
}

/// Arithmetic on the accumulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Alu {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    And,
    Or,
    Xor,
    Lsh,
    Rsh,
}

/// The condition of a jump: accumulator, condition, operand; all unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Cond {
    Eq,
    Gt,
    Ge,
    /// Some bit of the operand is set in the accumulator.
    Set,
}

/// An instruction with its parts apart. A is the accumulator, X the index register; jumps name the
/// instruction that they go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// A = the packet at a place.
    Load(Size, u32),
    /// A = the packet at X and a place.
    LoadIndirect(Size, u32),
    /// A = a constant.
    LoadImm(u32),
    /// A = the packet's length on the wire.
    LoadLen,
    /// A = a word of scratch memory.
    LoadMem(usize),
    /// X = a constant.
    LoadXImm(u32),
    /// X = the packet's length on the wire.
    LoadXLen,
    /// X = a word of scratch memory.
    LoadXMem(usize),
    /// X = four times the lower half of a byte: the length of an IPv4 header.
    LoadXHeader(u32),
    /// A word of scratch memory = A.
    Store(usize),
    /// A word of scratch memory = X.
    StoreX(usize),
    /// A = A, operation, operand.
    Alu(Alu, Source),
    /// A = -A.
    Neg,
    /// X = A.
    Tax,
    /// A = X.
    Txa,
    /// Goes on elsewhere.
    Jump(usize),
    /// Goes on at the first place if the condition holds, at the second if not.
    JumpIf(Cond, Source, usize, usize),
    /// Ends with a constant: 0 rejects the packet, anything else is how many bytes to keep of it.
    Return(u32),
    /// Ends with A.
    ReturnA,
}

/// Why instructions are no program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The instruction.
    pub at: usize,
    /// What is wrong with it.
    pub why: &'static str,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "instruction {} of the packet filter {}", self.at, self.why)
    }
}

impl std::error::Error for Invalid {}

/// A program that was checked. Its text is that of `tcpdump -d`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<Instruction>,
    ops: Vec<Op>,
}

impl Program {
    /// Checks instructions.
    ///
    /// # Errors
    /// The first instruction that is wrong, and why. A jump backwards is what libpcap makes of
    /// `protochain`.
    pub fn new(instructions: &[Instruction]) -> Result<Program, Invalid> {
        let len = instructions.len();
        let invalid = |at, why| Err(Invalid { at, why });
        if len == 0 {
            return invalid(0, "is missing");
        }
        if len > MAX_LEN {
            return invalid(MAX_LEN, "is one more than a program may have");
        }
        let mut ops = Vec::with_capacity(len);
        for (at, instruction) in instructions.iter().enumerate() {
            match decode(at, *instruction, len) {
                Ok(op) => ops.push(op),
                Err(why) => return invalid(at, why),
            }
        }
        if !matches!(ops.last(), Some(Op::Return(_) | Op::ReturnA)) {
            return invalid(len - 1, "is the last and does not end the program");
        }
        Ok(Program { instructions: instructions.to_vec(), ops })
    }

    /// The instructions as they were given.
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// The instructions with their parts apart.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }
}

mod code {
    // The fields of `code`, as in linux/bpf_common.h.
    pub const LD: u16 = 0x00;
    pub const LDX: u16 = 0x01;
    pub const ST: u16 = 0x02;
    pub const STX: u16 = 0x03;
    pub const ALU: u16 = 0x04;
    pub const JMP: u16 = 0x05;
    pub const RET: u16 = 0x06;
    pub const MISC: u16 = 0x07;

    pub const W: u16 = 0x00;
    pub const H: u16 = 0x08;
    pub const B: u16 = 0x10;

    pub const IMM: u16 = 0x00;
    pub const ABS: u16 = 0x20;
    pub const IND: u16 = 0x40;
    pub const MEM: u16 = 0x60;
    pub const LEN: u16 = 0x80;
    pub const MSH: u16 = 0xa0;

    pub const X: u16 = 0x08;
    pub const A: u16 = 0x10;

    pub const NEG: u16 = 0x80;
    pub const JA: u16 = 0x00;
    pub const TAX: u16 = 0x00;
    pub const TXA: u16 = 0x80;
}

const ALU: [(u16, Alu); 10] = [
    (0x00, Alu::Add),
    (0x10, Alu::Sub),
    (0x20, Alu::Mul),
    (0x30, Alu::Div),
    (0x40, Alu::Or),
    (0x50, Alu::And),
    (0x60, Alu::Lsh),
    (0x70, Alu::Rsh),
    (0x90, Alu::Mod),
    (0xa0, Alu::Xor),
];
const CONDITIONS: [(u16, Cond); 4] =
    [(0x10, Cond::Eq), (0x20, Cond::Gt), (0x30, Cond::Ge), (0x40, Cond::Set)];

/// The operation of the instruction at `at` of `len`.
fn decode(at: usize, instruction: Instruction, len: usize) -> Result<Op, &'static str> {
    use code::*;

    let Instruction { code, jt, jf, k } = instruction;
    let memory = |k: u32| match usize::try_from(k) {
        Ok(word) if word < MEMORY => Ok(word),
        _ => Err("names a word of scratch memory that is not there"),
    };
    let target = |offset: u32| match (at + 1).checked_add(offset as usize) {
        Some(target) if target < len => Ok(target),
        _ if offset > i32::MAX as u32 => Err("jumps backwards"),
        _ => Err("jumps beyond the program"),
    };
    const UNKNOWN: &str = "is none of classic BPF";
    Ok(match code & 7 {
        LD => {
            let size = match code & 0x18 {
                W => Size::Word,
                H => Size::Half,
                B => Size::Byte,
                _ => return Err(UNKNOWN),
            };
            match (code & !0x1f, size) {
                (ABS, size) => Op::Load(size, k),
                (IND, size) => Op::LoadIndirect(size, k),
                (IMM, Size::Word) => Op::LoadImm(k),
                (LEN, Size::Word) => Op::LoadLen,
                (MEM, Size::Word) => Op::LoadMem(memory(k)?),
                _ => return Err(UNKNOWN),
            }
        }
        LDX => match code & !7 {
            IMM => Op::LoadXImm(k),
            LEN => Op::LoadXLen,
            MEM => Op::LoadXMem(memory(k)?),
            mode if mode == MSH | B => Op::LoadXHeader(k),
            _ => return Err(UNKNOWN),
        },
        ST if code == ST => Op::Store(memory(k)?),
        STX if code == STX => Op::StoreX(memory(k)?),
        self::code::ALU if code == self::code::ALU | NEG => Op::Neg,
        self::code::ALU => {
            let found = self::ALU.iter().find(|(number, _)| *number == code & !0x0f);
            let Some(&(_, alu)) = found else { return Err(UNKNOWN) };
            match (alu, code & X != 0) {
                (_, true) => Op::Alu(alu, Source::X),
                (Alu::Div | Alu::Mod, false) if k == 0 => return Err("divides by zero"),
                (Alu::Lsh | Alu::Rsh, false) if k >= 32 => return Err("shifts by 32 or more"),
                (_, false) => Op::Alu(alu, Source::K(k)),
            }
        }
        JMP if code == JMP | JA => Op::Jump(target(k)?),
        JMP => {
            let found = CONDITIONS.iter().find(|(number, _)| *number == code & !0x0f);
            let Some(&(_, condition)) = found else { return Err(UNKNOWN) };
            let source = if code & X != 0 { Source::X } else { Source::K(k) };
            Op::JumpIf(condition, source, target(jt.into())?, target(jf.into())?)
        }
        RET if code == RET => Op::Return(k),
        RET if code == RET | A => Op::ReturnA,
        MISC if code == MISC | TAX => Op::Tax,
        MISC if code == MISC | TXA => Op::Txa,
        _ => return Err(UNKNOWN),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
        Instruction { code, jt, jf, k }
    }

    const ACCEPT: Instruction = Instruction { code: 0x06, jt: 0, jf: 0, k: 262_144 };

    /// What libpcap makes of `udp port 53`, as `tcpdump -dd` prints it.
    #[test]
    fn a_program_of_libpcap_is_read() {
        let program = Program::new(&[
            instruction(0x28, 0, 0, 12),
            instruction(0x15, 0, 4, 0x86dd),
            instruction(0x30, 0, 0, 20),
            instruction(0x15, 0, 11, 0x11),
            instruction(0x28, 0, 0, 54),
            instruction(0x15, 8, 7, 0x35),
            instruction(0x15, 0, 8, 0x800),
            instruction(0x30, 0, 0, 23),
            instruction(0x15, 0, 6, 0x11),
            instruction(0x28, 0, 0, 20),
            instruction(0x45, 4, 0, 0x1fff),
            instruction(0xb1, 0, 0, 14),
            instruction(0x48, 0, 0, 14),
            instruction(0x15, 0, 1, 0x35),
            ACCEPT,
            instruction(0x06, 0, 0, 0),
        ])
        .unwrap();
        assert_eq!(program.ops()[0], Op::Load(Size::Half, 12));
        assert_eq!(program.ops()[5], Op::JumpIf(Cond::Eq, Source::K(0x35), 14, 13));
        assert_eq!(program.ops()[10], Op::JumpIf(Cond::Set, Source::K(0x1fff), 15, 11));
        assert_eq!(program.ops()[11], Op::LoadXHeader(14));
        assert_eq!(program.ops()[12], Op::LoadIndirect(Size::Half, 14));
    }

    #[test]
    fn what_is_no_program_is_refused() {
        for (instructions, at, why) in [
            (vec![], 0, "is missing"),
            (vec![ACCEPT; MAX_LEN + 1], MAX_LEN, "is one more"),
            (vec![instruction(0x05, 0, 0, 0xffff_fff0), ACCEPT], 0, "jumps backwards"),
            (vec![instruction(0x05, 0, 0, 1), ACCEPT], 0, "jumps beyond"),
            (vec![instruction(0x15, 0, 200, 0), ACCEPT], 0, "jumps beyond"),
            (vec![instruction(0x34, 0, 0, 0), ACCEPT], 0, "divides by zero"),
            (vec![instruction(0x64, 0, 0, 32), ACCEPT], 0, "shifts by 32"),
            (vec![instruction(0x60, 0, 0, 16), ACCEPT], 0, "scratch memory"),
            (vec![ACCEPT, instruction(0x02, 0, 0, 99), ACCEPT], 1, "scratch memory"),
            (vec![instruction(0xffff, 0, 0, 0), ACCEPT], 0, "is none"),
            (vec![instruction(0x00, 0, 0, 0)], 0, "does not end"),
        ] {
            let error = Program::new(&instructions).unwrap_err();
            assert_eq!(error.at, at);
            assert!(error.why.starts_with(why) || error.why.contains(why), "{error}");
        }
    }

    /// No code makes the check panic.
    #[test]
    fn any_code_is_read_or_refused() {
        for code in 0..=u16::MAX {
            for k in [0, 1, 16, 31, 32, u32::MAX] {
                let _ = Program::new(&[instruction(code, 0, 0, k), ACCEPT]);
            }
        }
    }
}
