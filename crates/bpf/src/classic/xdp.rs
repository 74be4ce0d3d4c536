//! From classic BPF to eBPF on an XDP program's frame.
//!
//! A is R2 and X is R3, both as 32-bit values; R4 is where the frame begins, R5 where it ends, R0
//! and R1 are for what is in between. R6 to R9 are the caller's and stay.
//!
//! The verifier wants every access after a comparison with the frame's end, and no code that cannot
//! be reached. A comparison is left out where the way that control came by has made it already.

use super::{Alu, Cond, MEMORY, Op, Program, Size, Source, bounds};
use crate::asm::{Assembler, Label};
use crate::insn::{self, Insn, Operand, Reg, Reg::*, Width};

// struct xdp_md
const CONTEXT_DATA: i16 = 0;
const CONTEXT_DATA_END: i16 = 4;

/// The farthest into a frame that the verifier lets a program look (`MAX_PACKET_OFF`); no frame that
/// XDP sees is longer.
const LONGEST: u32 = 0xffff;

/// Bytes below the frame pointer that the caller may use.
const CALLERS: i16 = 32;

/// Appends code that jumps to `accept` for a frame that the program accepts and to `reject` for
/// others. `context` is a register with the program's context, one of R6 to R9. Both labels count
/// as reached, whatever the program.
pub fn emit(asm: &mut Assembler, program: &Program, context: Reg, accept: Label, reject: Label) {
    let ops = program.ops();
    let states = bounds::states(program, LONGEST);
    let labels: Vec<Label> = ops.iter().map(|_| asm.label()).collect();
    let mut translator = Translator { asm, accept, reject, labels };
    translator.start(program, &states, context);
    for (at, (&op, state)) in ops.iter().zip(&states).enumerate() {
        let Some(state) = state else { continue };
        let label = translator.labels[at];
        translator.asm.bind(label);
        translator.op(at, op, state);
    }
}

struct Translator<'a> {
    asm: &'a mut Assembler,
    accept: Label,
    reject: Label,
    labels: Vec<Label>,
}

/// The place of a word of scratch memory.
fn slot(word: usize) -> i16 {
    -CALLERS - 8 * (word as i16 + 1)
}

impl Translator<'_> {
    fn start(&mut self, program: &Program, states: &[Option<bounds::State>], context: Reg) {
        self.asm.load(insn::Size::Word, R4, context, CONTEXT_DATA);
        self.asm.load(insn::Size::Word, R5, context, CONTEXT_DATA_END);
        self.asm.mov(R2, 0).mov(R3, 0);
        // Never taken; but so both ends are reached, which the verifier asks for.
        self.asm.jump_if(insn::Cond::Eq, R2, 1, self.accept);
        self.asm.jump_if(insn::Cond::Eq, R2, 1, self.reject);
        let mut read = [false; MEMORY];
        for (op, state) in program.ops().iter().zip(states) {
            if let (Op::LoadMem(word) | Op::LoadXMem(word), Some(_)) = (op, state) {
                read[*word] = true;
            }
        }
        for (word, _) in read.iter().enumerate().filter(|(_, read)| **read) {
            self.asm.store(insn::Size::Double, R10, slot(word), 0);
        }
    }

    fn op(&mut self, at: usize, op: Op, state: &bounds::State) {
        match op {
            Op::Load(size, k) | Op::LoadIndirect(size, k)
                if bounds::never_there(k, size.bytes(), LONGEST) =>
            {
                self.asm.jump(self.reject);
            }
            Op::LoadXHeader(k) if bounds::never_there(k, 1, LONGEST) => {
                self.asm.jump(self.reject);
            }
            Op::Load(size, k) => {
                self.require(k + size.bytes(), state.there);
                self.load(R2, k, size);
            }
            Op::LoadXHeader(k) => {
                self.require(k + 1, state.there);
                self.load(R3, k, Size::Byte);
                self.asm.alu32(insn::Alu::And, R3, 15).alu32(insn::Alu::Lsh, R3, 2);
            }
            Op::LoadIndirect(size, k) => {
                self.require_indirect(k, size.bytes());
                self.asm.load(width(size), R2, R1, 0);
                self.host_order(R2, size);
            }
            Op::LoadImm(k) => self.set(R2, k),
            Op::LoadXImm(k) => self.set(R3, k),
            Op::LoadLen => self.len(R2),
            Op::LoadXLen => self.len(R3),
            Op::LoadMem(word) => _ = self.asm.load(insn::Size::Double, R2, R10, slot(word)),
            Op::LoadXMem(word) => _ = self.asm.load(insn::Size::Double, R3, R10, slot(word)),
            Op::Store(word) => _ = self.asm.store(insn::Size::Double, R10, slot(word), R2),
            Op::StoreX(word) => _ = self.asm.store(insn::Size::Double, R10, slot(word), R3),
            Op::Alu(alu, source) => self.arithmetic(alu, source),
            Op::Neg => _ = self.asm.push(Insn::neg(Width::W32, R2)),
            Op::Tax => _ = self.asm.mov(R3, R2),
            Op::Txa => _ = self.asm.mov(R2, R3),
            Op::Jump(to) => self.go(at, to),
            Op::JumpIf(condition, source, jt, jf) => self.jump_if(at, condition, source, jt, jf),
            Op::Return(0) => _ = self.asm.jump(self.reject),
            Op::Return(_) => _ = self.asm.jump(self.accept),
            Op::ReturnA => {
                self.asm.jump_if32(insn::Cond::Ne, R2, 0, self.accept).jump(self.reject);
            }
        }
    }

    /// Rejects the frame unless it has `end` bytes, where that is not known already.
    fn require(&mut self, end: u32, there: u32) {
        if end > there {
            self.asm.mov(R1, R4).alu(insn::Alu::Add, R1, end as i32);
            self.asm.jump_if(insn::Cond::Gt, R1, R5, self.reject);
        }
    }

    /// Rejects the frame unless `len` bytes from X and `k` on are there; R1 points at them.
    fn require_indirect(&mut self, k: u32, len: u32) {
        // The verifier adds no number to a pointer that it does not know to be small; of 64 bits it
        // knows more than of 32.
        self.asm.jump_if(insn::Cond::Gt, R3, (LONGEST - k - len) as i32, self.reject);
        self.asm.mov(R1, R4).alu(insn::Alu::Add, R1, R3);
        if k > 0 {
            self.asm.alu(insn::Alu::Add, R1, k as i32);
        }
        self.asm.mov(R0, R1).alu(insn::Alu::Add, R0, len as i32);
        self.asm.jump_if(insn::Cond::Gt, R0, R5, self.reject);
    }

    /// Loads from a constant place that was found to be there.
    fn load(&mut self, to: Reg, k: u32, size: Size) {
        match i16::try_from(k) {
            Ok(offset) => _ = self.asm.load(width(size), to, R4, offset),
            Err(_) => {
                self.asm.mov(R1, R4).alu(insn::Alu::Add, R1, k as i32);
                self.asm.load(width(size), to, R1, 0);
            }
        }
        self.host_order(to, size);
    }

    fn host_order(&mut self, reg: Reg, size: Size) {
        match size {
            Size::Byte => {}
            Size::Half => _ = self.asm.network_order(reg, 16),
            Size::Word => _ = self.asm.network_order(reg, 32),
        }
    }

    /// A register = the frame's length. The verifier takes this of programs that may subtract
    /// pointers (CAP_PERFMON).
    fn len(&mut self, to: Reg) {
        self.asm.mov(to, R5).alu(insn::Alu::Sub, to, R4);
        // For the verifier, to which the upper half may be anything.
        self.asm.alu32(insn::Alu::Mov, to, to);
    }

    /// A register = a constant, its upper half zero.
    fn set(&mut self, reg: Reg, k: u32) {
        self.asm.alu32(insn::Alu::Mov, reg, k as i32);
    }

    fn arithmetic(&mut self, alu: Alu, source: Source) {
        let operand = match source {
            Source::K(k) => Operand::Imm(k as i32),
            Source::X => Operand::Reg(R3),
        };
        let op = match alu {
            Alu::Add => insn::Alu::Add,
            Alu::Sub => insn::Alu::Sub,
            Alu::Mul => insn::Alu::Mul,
            Alu::Div => insn::Alu::Div,
            Alu::Mod => insn::Alu::Mod,
            Alu::And => insn::Alu::And,
            Alu::Or => insn::Alu::Or,
            Alu::Xor => insn::Alu::Xor,
            Alu::Lsh => insn::Alu::Lsh,
            Alu::Rsh => insn::Alu::Rsh,
        };
        match (alu, source) {
            (Alu::Div | Alu::Mod, Source::X) => {
                self.asm.jump_if32(insn::Cond::Eq, R3, 0, self.reject).alu32(op, R2, operand);
            }
            // eBPF shifts by the lower five bits only.
            (Alu::Lsh | Alu::Rsh, Source::X) => {
                let (shift, done) = (self.asm.label(), self.asm.label());
                self.asm.jump_if32(insn::Cond::Lt, R3, 32, shift).mov(R2, 0).jump(done);
                self.asm.bind(shift).alu32(op, R2, operand).bind(done);
            }
            _ => _ = self.asm.alu32(op, R2, operand),
        }
    }

    /// Goes on at another instruction.
    fn go(&mut self, at: usize, to: usize) {
        if to != at + 1 {
            self.asm.jump(self.labels[to]);
        }
    }

    fn jump_if(&mut self, at: usize, condition: Cond, source: Source, jt: usize, jf: usize) {
        if jt == jf {
            return self.go(at, jt);
        }
        let operand = match source {
            Source::K(k) => Operand::Imm(k as i32),
            Source::X => Operand::Reg(R3),
        };
        let (holds, not) = match condition {
            Cond::Eq => (insn::Cond::Eq, Some(insn::Cond::Ne)),
            Cond::Gt => (insn::Cond::Gt, Some(insn::Cond::Le)),
            Cond::Ge => (insn::Cond::Ge, Some(insn::Cond::Lt)),
            Cond::Set => (insn::Cond::Set, None),
        };
        match not {
            Some(not) if jt == at + 1 => {
                self.asm.jump_if32(not, R2, operand, self.labels[jf]);
            }
            _ => {
                self.asm.jump_if32(holds, R2, operand, self.labels[jt]);
                self.go(at, jf);
            }
        }
    }
}

const fn width(size: Size) -> insn::Size {
    match size {
        Size::Byte => insn::Size::Byte,
        Size::Half => insn::Size::Half,
        Size::Word => insn::Size::Word,
    }
}
