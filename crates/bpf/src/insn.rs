//! One eBPF instruction: its encoding (RFC 9669) and its text. It does not know labels or programs.

use std::fmt;

/// A register. `R10` is the read-only frame pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

impl fmt::Display for Reg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", *self as u8)
    }
}

/// The width of a load or a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Size {
    /// Four bytes.
    Word = 0x00,
    /// Two bytes.
    Half = 0x08,
    /// One byte.
    Byte = 0x10,
    /// Eight bytes.
    Double = 0x18,
}

/// The width of an arithmetic or a jump instruction's operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Width {
    /// The low 32 bits; an arithmetic result is zero-extended.
    W32,
    /// All 64 bits.
    W64,
}

/// The second operand: a register, or a constant that is sign-extended to the width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operand {
    /// A register.
    Reg(Reg),
    /// A constant.
    Imm(i32),
}

impl From<Reg> for Operand {
    fn from(reg: Reg) -> Self {
        Self::Reg(reg)
    }
}

impl From<i32> for Operand {
    fn from(imm: i32) -> Self {
        Self::Imm(imm)
    }
}

/// Arithmetic with two operands, `dst = dst op src` (RFC 9669 section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Alu {
    Add,
    Sub,
    Mul,
    /// Unsigned; the result of a division by zero is 0.
    Div,
    /// Signed division.
    SignedDiv,
    Or,
    And,
    Lsh,
    Rsh,
    /// Unsigned; modulo zero leaves `dst` as it is.
    Mod,
    /// Signed remainder.
    SignedMod,
    Xor,
    Mov,
    /// Shift right, keeping the sign.
    Arsh,
}

impl Alu {
    const fn code(self) -> u8 {
        match self {
            Self::Add => 0x00,
            Self::Sub => 0x10,
            Self::Mul => 0x20,
            Self::Div | Self::SignedDiv => 0x30,
            Self::Or => 0x40,
            Self::And => 0x50,
            Self::Lsh => 0x60,
            Self::Rsh => 0x70,
            Self::Mod | Self::SignedMod => 0x90,
            Self::Xor => 0xa0,
            Self::Mov => 0xb0,
            Self::Arsh => 0xc0,
        }
    }

    const fn offset(self) -> i16 {
        matches!(self, Self::SignedDiv | Self::SignedMod) as i16
    }
}

/// The condition of a jump, `dst op src` (RFC 9669 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cond {
    /// Equal.
    Eq = 0x10,
    /// Greater, unsigned.
    Gt = 0x20,
    /// Greater or equal, unsigned.
    Ge = 0x30,
    /// Some bit of `src` is set in `dst`.
    Set = 0x40,
    /// Not equal.
    Ne = 0x50,
    /// Greater, signed.
    Sgt = 0x60,
    /// Greater or equal, signed.
    Sge = 0x70,
    /// Less, unsigned.
    Lt = 0xa0,
    /// Less or equal, unsigned.
    Le = 0xb0,
    /// Less, signed.
    Slt = 0xc0,
    /// Less or equal, signed.
    Sle = 0xd0,
}

/// An atomic read-modify-write of memory (RFC 9669 section 5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
#[allow(missing_docs)]
pub enum Atomic {
    Add = 0x00,
    Or = 0x40,
    And = 0x50,
    Xor = 0xa0,
    /// As `Add`; the source register receives the old value.
    FetchAdd = 0x01,
    FetchOr = 0x41,
    FetchAnd = 0x51,
    FetchXor = 0xa1,
    /// Stores the source register, which receives the old value.
    Exchange = 0xe1,
    /// Stores the source register if memory equals `R0`; `R0` receives the old value.
    CompareExchange = 0xf1,
}

/// A change of byte order of the low 16, 32 or 64 bits; the rest becomes zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ByteOrder {
    /// Between the host's order and little-endian.
    Little,
    /// Between the host's order and big-endian.
    Big,
    /// Always swap.
    Swap,
}

/// A helper function of the kernel, by its number in `enum bpf_func_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Helper(pub i32);

#[allow(missing_docs)]
impl Helper {
    pub const MAP_LOOKUP_ELEM: Self = Self(1);
    pub const MAP_UPDATE_ELEM: Self = Self(2);
    pub const MAP_DELETE_ELEM: Self = Self(3);
    pub const KTIME_GET_NS: Self = Self(5);
    pub const GET_PRANDOM_U32: Self = Self(7);
    pub const GET_SMP_PROCESSOR_ID: Self = Self(8);
    pub const REDIRECT: Self = Self(23);
    pub const PERF_EVENT_OUTPUT: Self = Self(25);
    pub const CSUM_DIFF: Self = Self(28);
    pub const XDP_ADJUST_HEAD: Self = Self(44);
    pub const REDIRECT_MAP: Self = Self(51);
    pub const XDP_ADJUST_META: Self = Self(54);
    pub const XDP_ADJUST_TAIL: Self = Self(65);
    pub const FIB_LOOKUP: Self = Self(69);
    pub const RINGBUF_OUTPUT: Self = Self(130);
    pub const XDP_LOAD_BYTES: Self = Self(189);
    pub const XDP_STORE_BYTES: Self = Self(190);

    const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::MAP_LOOKUP_ELEM => "map_lookup_elem",
            Self::MAP_UPDATE_ELEM => "map_update_elem",
            Self::MAP_DELETE_ELEM => "map_delete_elem",
            Self::KTIME_GET_NS => "ktime_get_ns",
            Self::GET_PRANDOM_U32 => "get_prandom_u32",
            Self::GET_SMP_PROCESSOR_ID => "get_smp_processor_id",
            Self::REDIRECT => "redirect",
            Self::PERF_EVENT_OUTPUT => "perf_event_output",
            Self::CSUM_DIFF => "csum_diff",
            Self::XDP_ADJUST_HEAD => "xdp_adjust_head",
            Self::REDIRECT_MAP => "redirect_map",
            Self::XDP_ADJUST_META => "xdp_adjust_meta",
            Self::XDP_ADJUST_TAIL => "xdp_adjust_tail",
            Self::FIB_LOOKUP => "fib_lookup",
            Self::RINGBUF_OUTPUT => "ringbuf_output",
            Self::XDP_LOAD_BYTES => "xdp_load_bytes",
            Self::XDP_STORE_BYTES => "xdp_store_bytes",
            _ => return None,
        })
    }
}

impl fmt::Display for Helper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "bpf_{name}#{}", self.0),
            None => write!(f, "helper#{}", self.0),
        }
    }
}

// The classes, modes and source bits of an opcode (RFC 9669 section 3).
const LD: u8 = 0x00;
const LDX: u8 = 0x01;
const ST: u8 = 0x02;
const STX: u8 = 0x03;
const ALU: u8 = 0x04;
const JMP: u8 = 0x05;
const JMP32: u8 = 0x06;
const ALU64: u8 = 0x07;
const SOURCE_REG: u8 = 0x08;
const MODE_IMM: u8 = 0x00;
const MODE_MEM: u8 = 0x60;
const MODE_MEMSX: u8 = 0x80;
const MODE_ATOMIC: u8 = 0xc0;
const NEG: u8 = 0x80;
const END: u8 = 0xd0;
const JA: u8 = 0x00;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;
pub(crate) const LD_IMM64: u8 = LD | MODE_IMM | Size::Double as u8;
/// In the source field of `LD_IMM64`: the constant is a map's descriptor.
const PSEUDO_MAP_FD: u8 = 1;

/// One instruction slot, as the kernel takes it: `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Insn {
    /// The opcode.
    pub code: u8,
    /// The two registers' four bits each; see [`Insn::dst`] and [`Insn::src`].
    pub regs: u8,
    /// The displacement of memory, or of a jump in slots from the next instruction.
    pub offset: i16,
    /// The constant.
    pub imm: i32,
}

const _: () = assert!(size_of::<Insn>() == 8);

const fn regs(dst: u8, src: u8) -> u8 {
    // The two fields are C bit-fields, so their place follows the byte order of the machine.
    if cfg!(target_endian = "little") { dst | (src << 4) } else { (dst << 4) | src }
}

impl Insn {
    const fn new(code: u8, dst: u8, src: u8, offset: i16, imm: i32) -> Self {
        Self { code, regs: regs(dst, src), offset, imm }
    }

    const fn with_operand(code: u8, dst: Reg, operand: Operand, offset: i16) -> Self {
        match operand {
            Operand::Reg(src) => Self::new(code | SOURCE_REG, dst as u8, src as u8, offset, 0),
            Operand::Imm(imm) => Self::new(code, dst as u8, 0, offset, imm),
        }
    }

    /// The number of the destination register.
    pub const fn dst(self) -> u8 {
        if cfg!(target_endian = "little") { self.regs & 15 } else { self.regs >> 4 }
    }

    /// The number of the source register, or the kind of a constant.
    pub const fn src(self) -> u8 {
        if cfg!(target_endian = "little") { self.regs >> 4 } else { self.regs & 15 }
    }

    /// `dst = dst op operand`.
    pub fn alu(width: Width, op: Alu, dst: Reg, operand: impl Into<Operand>) -> Self {
        let class = if width == Width::W64 { ALU64 } else { ALU };
        Self::with_operand(class | op.code(), dst, operand.into(), op.offset())
    }

    /// `dst = -dst`.
    pub const fn neg(width: Width, dst: Reg) -> Self {
        let class = if matches!(width, Width::W64) { ALU64 } else { ALU };
        Self::new(class | NEG, dst as u8, 0, 0, 0)
    }

    /// `dst = src`, sign-extended from its low `bits` (8, 16, or 32 for the 64-bit width).
    pub const fn mov_signed(width: Width, dst: Reg, src: Reg, bits: i16) -> Self {
        let class = if matches!(width, Width::W64) { ALU64 } else { ALU };
        Self::new(class | Alu::Mov.code() | SOURCE_REG, dst as u8, src as u8, bits, 0)
    }

    /// Changes the byte order of the low `bits` (16, 32 or 64) of `dst`.
    pub const fn byte_order(order: ByteOrder, dst: Reg, bits: i32) -> Self {
        let code = match order {
            ByteOrder::Little => ALU | END,
            ByteOrder::Big => ALU | END | SOURCE_REG,
            ByteOrder::Swap => ALU64 | END,
        };
        Self::new(code, dst as u8, 0, 0, bits)
    }

    /// `dst = *(size *)(base + offset)`, zero-extended.
    pub const fn load(size: Size, dst: Reg, base: Reg, offset: i16) -> Self {
        Self::new(LDX | MODE_MEM | size as u8, dst as u8, base as u8, offset, 0)
    }

    /// `dst = *(size *)(base + offset)`, sign-extended (Linux 6.6).
    pub const fn load_signed(size: Size, dst: Reg, base: Reg, offset: i16) -> Self {
        Self::new(LDX | MODE_MEMSX | size as u8, dst as u8, base as u8, offset, 0)
    }

    /// `*(size *)(base + offset) = operand`.
    pub fn store(size: Size, base: Reg, offset: i16, operand: impl Into<Operand>) -> Self {
        match operand.into() {
            Operand::Reg(src) => {
                Self::new(STX | MODE_MEM | size as u8, base as u8, src as u8, offset, 0)
            }
            Operand::Imm(imm) => Self::new(ST | MODE_MEM | size as u8, base as u8, 0, offset, imm),
        }
    }

    /// An atomic operation on `*(base + offset)`; `size` is `Word` or `Double`.
    pub const fn atomic(op: Atomic, size: Size, base: Reg, offset: i16, src: Reg) -> Self {
        Self::new(STX | MODE_ATOMIC | size as u8, base as u8, src as u8, offset, op as i32)
    }

    /// Jumps by `offset` slots from the next one.
    pub const fn jump(offset: i16) -> Self {
        Self::new(JMP | JA, 0, 0, offset, 0)
    }

    /// Jumps by `offset` slots from the next one if `dst cond operand`.
    pub fn jump_if(
        width: Width,
        cond: Cond,
        dst: Reg,
        operand: impl Into<Operand>,
        offset: i16,
    ) -> Self {
        let class = if width == Width::W64 { JMP } else { JMP32 };
        Self::with_operand(class | cond as u8, dst, operand.into(), offset)
    }

    /// Calls a helper with `R1` to `R5`; its result is in `R0`, and `R1` to `R5` are lost.
    pub const fn call(helper: Helper) -> Self {
        Self::new(JMP | CALL, 0, 0, 0, helper.0)
    }

    /// Ends the program with `R0` as its result.
    pub const fn exit() -> Self {
        Self::new(JMP | EXIT, 0, 0, 0, 0)
    }

    /// `dst = value`, in two slots.
    pub const fn load_imm64(dst: Reg, value: u64) -> [Self; 2] {
        [
            Self::new(LD_IMM64, dst as u8, 0, 0, value as u32 as i32),
            Self::new(0, 0, 0, 0, (value >> 32) as i32),
        ]
    }

    /// `dst` = the map behind a descriptor, in two slots.
    pub const fn load_map_fd(dst: Reg, fd: i32) -> [Self; 2] {
        [Self::new(LD_IMM64, dst as u8, PSEUDO_MAP_FD, 0, fd), Self::new(0, 0, 0, 0, 0)]
    }

    /// Whether the next slot is this instruction's second half.
    pub const fn is_wide(self) -> bool {
        self.code == LD_IMM64
    }

    /// Whether control may not reach the next instruction.
    pub(crate) const fn ends_flow(self) -> bool {
        self.code == JMP | EXIT || self.code == JMP | JA
    }

    pub(crate) fn write_text(self, next: Option<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code & 7 {
            ALU | ALU64 => self.write_alu(f),
            JMP | JMP32 => self.write_jump(f),
            LD if self.is_wide() && self.src() == PSEUDO_MAP_FD => {
                write!(f, "r{} = map_fd {}", self.dst(), self.imm)
            }
            LD if self.is_wide() => {
                let high = next.map_or(0, |next| next.imm as u32 as u64);
                write!(f, "r{} = {:#x} ll", self.dst(), high << 32 | self.imm as u32 as u64)
            }
            _ => self.write_memory(f),
        }
    }

    fn write_alu(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wide = self.code & 7 == ALU64;
        let letter = if wide { 'r' } else { 'w' };
        let from_reg = self.code & SOURCE_REG != 0;
        let dst = self.dst();
        match self.code & 0xf0 {
            NEG => return write!(f, "{letter}{dst} = -{letter}{dst}"),
            END => {
                let order = match (wide, from_reg) {
                    (true, _) => "bswap",
                    (false, true) => "be",
                    (false, false) => "le",
                };
                return write!(f, "r{dst} = {order}{} r{dst}", self.imm);
            }
            _ => {}
        }
        let signed = if self.offset == 1 { "s" } else { "" };
        let op = match self.code & 0xf0 {
            0x00 => "+",
            0x10 => "-",
            0x20 => "*",
            0x30 => "/",
            0x40 => "|",
            0x50 => "&",
            0x60 => "<<",
            0x70 => ">>",
            0x90 => "%",
            0xa0 => "^",
            0xb0 => "",
            0xc0 => "s>>",
            _ => return self.write_unknown(f),
        };
        write!(f, "{letter}{dst} {signed}{op}= ")?;
        match (from_reg, self.code & 0xf0, self.offset) {
            (true, 0xb0, bits @ (8 | 16 | 32)) => write!(f, "(s{bits}){letter}{}", self.src()),
            (true, ..) => write!(f, "{letter}{}", self.src()),
            (false, ..) => write!(f, "{}", self.imm),
        }
    }

    fn write_jump(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = if self.code & 7 == JMP { 'r' } else { 'w' };
        let op = match self.code & 0xf0 {
            JA => return write!(f, "goto {:+}", self.offset),
            CALL => return write!(f, "call {}", Helper(self.imm)),
            EXIT => return f.write_str("exit"),
            0x10 => "==",
            0x20 => ">",
            0x30 => ">=",
            0x40 => "&",
            0x50 => "!=",
            0x60 => "s>",
            0x70 => "s>=",
            0xa0 => "<",
            0xb0 => "<=",
            0xc0 => "s<",
            0xd0 => "s<=",
            _ => return self.write_unknown(f),
        };
        write!(f, "if {letter}{} {op} ", self.dst())?;
        if self.code & SOURCE_REG != 0 {
            write!(f, "{letter}{}", self.src())?;
        } else {
            write!(f, "{}", self.imm)?;
        }
        write!(f, " goto {:+}", self.offset)
    }

    fn write_memory(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = match self.code & 0x18 {
            0x00 => 32,
            0x08 => 16,
            0x10 => 8,
            _ => 64,
        };
        let (dst, src, offset) = (self.dst(), self.src(), self.offset);
        match (self.code & 7, self.code & 0xe0) {
            (LDX, MODE_MEM) => write!(f, "r{dst} = *(u{bits} *)(r{src} {offset:+})"),
            (LDX, MODE_MEMSX) => write!(f, "r{dst} = *(s{bits} *)(r{src} {offset:+})"),
            (STX, MODE_MEM) => write!(f, "*(u{bits} *)(r{dst} {offset:+}) = r{src}"),
            (ST, MODE_MEM) => write!(f, "*(u{bits} *)(r{dst} {offset:+}) = {}", self.imm),
            (STX, MODE_ATOMIC) => {
                let op = match self.imm {
                    0x00 => "add",
                    0x01 => "fetch_add",
                    0x40 => "or",
                    0x41 => "fetch_or",
                    0x50 => "and",
                    0x51 => "fetch_and",
                    0xa0 => "xor",
                    0xa1 => "fetch_xor",
                    0xe1 => "xchg",
                    0xf1 => "cmpxchg",
                    _ => return self.write_unknown(f),
                };
                write!(f, "lock {op} *(u{bits} *)(r{dst} {offset:+}), r{src}")
            }
            _ => self.write_unknown(f),
        }
    }

    fn write_unknown(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown {:#04x} {:#04x} {} {}", self.code, self.regs, self.offset, self.imm)
    }
}

/// The text of one slot in the kernel's notation. The first half of a wide instruction shows
/// only its low 32 bits; [`crate::Program`] shows all of it.
impl fmt::Display for Insn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_text(None, f)
    }
}

#[cfg(test)]
mod tests {
    use super::Reg::*;
    use super::*;

    fn bytes(insn: Insn) -> [u8; 8] {
        let mut out = [insn.code, insn.regs, 0, 0, 0, 0, 0, 0];
        out[2..4].copy_from_slice(&insn.offset.to_le_bytes());
        out[4..].copy_from_slice(&insn.imm.to_le_bytes());
        out
    }

    #[test]
    fn encodings_are_those_of_rfc_9669() {
        let w64 = Width::W64;
        assert_eq!(bytes(Insn::alu(w64, Alu::Mov, R6, R1)), [0xbf, 0x16, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes(Insn::alu(w64, Alu::Mov, R0, 2)), [0xb7, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(
            bytes(Insn::alu(Width::W32, Alu::Add, R2, -1)),
            [0x04, 2, 0, 0, 255, 255, 255, 255]
        );
        assert_eq!(bytes(Insn::load(Size::Word, R2, R1, 4)), [0x61, 0x12, 4, 0, 0, 0, 0, 0]);
        assert_eq!(
            bytes(Insn::store(Size::Double, R10, -8, R1)),
            [0x7b, 0x1a, 0xf8, 0xff, 0, 0, 0, 0]
        );
        assert_eq!(bytes(Insn::store(Size::Byte, R10, -1, 7)), [0x72, 0x0a, 255, 255, 7, 0, 0, 0]);
        assert_eq!(bytes(Insn::jump_if(w64, Cond::Gt, R2, R3, 5)), [0x2d, 0x32, 5, 0, 0, 0, 0, 0]);
        assert_eq!(
            bytes(Insn::jump_if(Width::W32, Cond::Ne, R2, 6, 1)),
            [0x56, 2, 1, 0, 6, 0, 0, 0]
        );
        assert_eq!(bytes(Insn::call(Helper::REDIRECT_MAP)), [0x85, 0, 0, 0, 51, 0, 0, 0]);
        assert_eq!(bytes(Insn::exit()), [0x95, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes(Insn::byte_order(ByteOrder::Big, R4, 16)), [0xdc, 4, 0, 0, 16, 0, 0, 0]);
        assert_eq!(
            bytes(Insn::atomic(Atomic::FetchAdd, Size::Double, R1, 0, R2)),
            [0xdb, 0x21, 0, 0, 1, 0, 0, 0]
        );
        let map = Insn::load_map_fd(R1, 9);
        assert_eq!(bytes(map[0]), [0x18, 0x11, 0, 0, 9, 0, 0, 0]);
        assert_eq!(bytes(map[1]), [0; 8]);
    }

    #[test]
    fn text_is_the_kernels_notation() {
        let w64 = Width::W64;
        let w32 = Width::W32;
        let cases: [(Insn, &str); 22] = [
            (Insn::alu(w64, Alu::Mov, R6, R1), "r6 = r1"),
            (Insn::alu(w64, Alu::Lsh, R6, 4), "r6 <<= 4"),
            (Insn::alu(w32, Alu::Arsh, R6, R7), "w6 s>>= w7"),
            (Insn::alu(w64, Alu::SignedDiv, R6, R7), "r6 s/= r7"),
            (Insn::alu(w64, Alu::Mod, R6, 10), "r6 %= 10"),
            (Insn::mov_signed(w64, R1, R2, 16), "r1 = (s16)r2"),
            (Insn::neg(w64, R3), "r3 = -r3"),
            (Insn::byte_order(ByteOrder::Big, R4, 16), "r4 = be16 r4"),
            (Insn::byte_order(ByteOrder::Little, R4, 32), "r4 = le32 r4"),
            (Insn::byte_order(ByteOrder::Swap, R4, 64), "r4 = bswap64 r4"),
            (Insn::load(Size::Half, R3, R7, 12), "r3 = *(u16 *)(r7 +12)"),
            (Insn::load_signed(Size::Byte, R3, R7, 0), "r3 = *(s8 *)(r7 +0)"),
            (Insn::store(Size::Word, R10, -4, R4), "*(u32 *)(r10 -4) = r4"),
            (Insn::store(Size::Word, R10, -4, 1), "*(u32 *)(r10 -4) = 1"),
            (Insn::atomic(Atomic::Add, Size::Double, R0, 0, R1), "lock add *(u64 *)(r0 +0), r1"),
            (
                Insn::atomic(Atomic::CompareExchange, Size::Word, R1, 8, R2),
                "lock cmpxchg *(u32 *)(r1 +8), r2",
            ),
            (Insn::jump(-3), "goto -3"),
            (Insn::jump_if(w64, Cond::Gt, R2, R8, 7), "if r2 > r8 goto +7"),
            (Insn::jump_if(w32, Cond::Slt, R2, -1, 7), "if w2 s< -1 goto +7"),
            (Insn::call(Helper::MAP_LOOKUP_ELEM), "call bpf_map_lookup_elem#1"),
            (Insn::call(Helper(999)), "call helper#999"),
            (Insn::exit(), "exit"),
        ];
        for (insn, text) in cases {
            assert_eq!(insn.to_string(), text);
        }
    }

    #[test]
    fn every_opcode_has_a_text() {
        for code in 0..=255 {
            let insn = Insn { code, regs: 0x21, offset: 1, imm: 1 };
            assert!(!insn.to_string().is_empty());
        }
    }
}
