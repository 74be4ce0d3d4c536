//! From instructions with labels to a program. It resolves jumps and checks what needs no kernel;
//! whether the program is safe is the verifier's business.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd};

use crate::insn::{Alu, ByteOrder, Cond, Helper, Insn, Operand, Reg, Size, Width};

/// The most instruction slots that a privileged program may have (`BPF_COMPLEXITY_LIMIT_INSNS`).
pub const MAX_SLOTS: usize = 1_000_000;

/// A place in a program that jumps can name before it is known where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Label(usize);

/// Why instructions do not make a program.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AssembleError {
    /// There is no instruction.
    Empty,
    /// There are more slots than the kernel takes.
    TooLong {
        /// How many there are.
        slots: usize,
    },
    /// A label is jumped to from this slot, but it is nowhere, or belongs to another assembler.
    Unbound {
        /// The slot of the jump.
        at: usize,
    },
    /// A label was bound a second time at this slot.
    BoundTwice {
        /// The slot of the second binding.
        at: usize,
    },
    /// The way from this slot to its label does not fit 16 bits.
    TooFar {
        /// The slot of the jump.
        at: usize,
        /// The slot of its label.
        to: usize,
    },
    /// Control runs past the last instruction, or a jump goes there.
    FallsOffTheEnd,
}

impl fmt::Display for AssembleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the program has no instruction"),
            Self::TooLong { slots } => {
                write!(f, "the program has {slots} slots, the kernel takes {MAX_SLOTS}")
            }
            Self::Unbound { at } => write!(f, "the jump at slot {at} goes to an unbound label"),
            Self::BoundTwice { at } => write!(f, "a label is bound a second time at slot {at}"),
            Self::TooFar { at, to } => {
                write!(f, "the jump from slot {at} to slot {to} does not fit 16 bits")
            }
            Self::FallsOffTheEnd => f.write_str("control runs past the last instruction"),
        }
    }
}

impl std::error::Error for AssembleError {}

/// Collects instructions; [`Assembler::finish`] resolves the labels.
///
/// ```
/// use millrace_bpf::Assembler;
/// use millrace_bpf::insn::{Cond, Reg::*, Size};
///
/// let mut asm = Assembler::new();
/// let drop = asm.label();
/// asm.load(Size::Word, R2, R1, 16); // ctx->rx_queue_index
/// asm.jump_if(Cond::Ne, R2, 0, drop);
/// asm.mov(R0, 2).exit();
/// asm.bind(drop).mov(R0, 1).exit();
/// let program = asm.finish()?;
/// assert_eq!(program.to_string().lines().nth(1), Some("   1: if r2 != 0 goto +2"));
/// # Ok::<(), millrace_bpf::AssembleError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Assembler {
    slots: Vec<Insn>,
    labels: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
    bound_twice: Option<usize>,
}

impl Assembler {
    /// An assembler without instructions.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new label, not yet bound.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Binds a label to the next instruction.
    pub fn bind(&mut self, label: Label) -> &mut Self {
        let here = self.slots.len();
        match self.labels.get_mut(label.0) {
            Some(slot @ None) => *slot = Some(here),
            _ => self.bound_twice = Some(here),
        }
        self
    }

    /// Appends one instruction as it is.
    pub fn push(&mut self, insn: Insn) -> &mut Self {
        self.slots.push(insn);
        self
    }

    /// 64-bit `dst = dst op operand`.
    pub fn alu(&mut self, op: Alu, dst: Reg, operand: impl Into<Operand>) -> &mut Self {
        self.push(Insn::alu(Width::W64, op, dst, operand))
    }

    /// 32-bit `dst = dst op operand`.
    pub fn alu32(&mut self, op: Alu, dst: Reg, operand: impl Into<Operand>) -> &mut Self {
        self.push(Insn::alu(Width::W32, op, dst, operand))
    }

    /// 64-bit `dst = operand`.
    pub fn mov(&mut self, dst: Reg, operand: impl Into<Operand>) -> &mut Self {
        self.alu(Alu::Mov, dst, operand)
    }

    /// Turns the low `bits` of `dst` between the host's and network byte order.
    pub fn network_order(&mut self, dst: Reg, bits: i32) -> &mut Self {
        self.push(Insn::byte_order(ByteOrder::Big, dst, bits))
    }

    /// `dst = *(size *)(base + offset)`.
    pub fn load(&mut self, size: Size, dst: Reg, base: Reg, offset: i16) -> &mut Self {
        self.push(Insn::load(size, dst, base, offset))
    }

    /// `*(size *)(base + offset) = operand`.
    pub fn store(
        &mut self,
        size: Size,
        base: Reg,
        offset: i16,
        operand: impl Into<Operand>,
    ) -> &mut Self {
        self.push(Insn::store(size, base, offset, operand))
    }

    /// `dst = value`, 64 bits, two slots.
    pub fn load_imm64(&mut self, dst: Reg, value: u64) -> &mut Self {
        self.slots.extend(Insn::load_imm64(dst, value));
        self
    }

    /// `dst` = the map, two slots. The map must live until the program is loaded.
    pub fn load_map(&mut self, dst: Reg, map: impl AsFd) -> &mut Self {
        self.slots.extend(Insn::load_map_fd(dst, map.as_fd().as_raw_fd()));
        self
    }

    /// Jumps to a label.
    pub fn jump(&mut self, to: Label) -> &mut Self {
        self.jumps.push((self.slots.len(), to));
        self.push(Insn::jump(0))
    }

    /// Jumps to a label if `dst cond operand`, on 64 bits.
    pub fn jump_if(
        &mut self,
        cond: Cond,
        dst: Reg,
        operand: impl Into<Operand>,
        to: Label,
    ) -> &mut Self {
        self.jumps.push((self.slots.len(), to));
        self.push(Insn::jump_if(Width::W64, cond, dst, operand, 0))
    }

    /// Jumps to a label if `dst cond operand`, on the low 32 bits.
    pub fn jump_if32(
        &mut self,
        cond: Cond,
        dst: Reg,
        operand: impl Into<Operand>,
        to: Label,
    ) -> &mut Self {
        self.jumps.push((self.slots.len(), to));
        self.push(Insn::jump_if(Width::W32, cond, dst, operand, 0))
    }

    /// Calls a helper.
    pub fn call(&mut self, helper: Helper) -> &mut Self {
        self.push(Insn::call(helper))
    }

    /// Ends the program with `R0` as its result.
    pub fn exit(&mut self) -> &mut Self {
        self.push(Insn::exit())
    }

    /// Resolves the labels and hands out the program.
    ///
    /// # Errors
    /// [`AssembleError`] says which rule the instructions break.
    pub fn finish(mut self) -> Result<Program, AssembleError> {
        let end = self.slots.len();
        if let Some(at) = self.bound_twice {
            return Err(AssembleError::BoundTwice { at });
        }
        if end > MAX_SLOTS {
            return Err(AssembleError::TooLong { slots: end });
        }
        for (at, label) in self.jumps {
            let to = self.labels.get(label.0).copied().flatten();
            let to = to.ok_or(AssembleError::Unbound { at })?;
            if to == end {
                return Err(AssembleError::FallsOffTheEnd);
            }
            let offset = to as i64 - (at as i64 + 1);
            self.slots[at].offset =
                i16::try_from(offset).map_err(|_| AssembleError::TooFar { at, to })?;
        }
        let last = self.slots.last().ok_or(AssembleError::Empty)?;
        if !last.ends_flow() {
            return Err(AssembleError::FallsOffTheEnd);
        }
        Ok(Program { slots: self.slots })
    }
}

/// A program with its jumps resolved. Its text has one line for each instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    slots: Vec<Insn>,
}

impl Program {
    /// A program from slots that another assembler has made, jumps resolved.
    ///
    /// # Errors
    /// [`AssembleError::Empty`] or [`AssembleError::TooLong`]; all else is the verifier's business.
    pub fn from_slots(slots: Vec<Insn>) -> Result<Self, AssembleError> {
        match slots.len() {
            0 => Err(AssembleError::Empty),
            slots if slots > MAX_SLOTS => Err(AssembleError::TooLong { slots }),
            _ => Ok(Self { slots }),
        }
    }

    /// The instruction slots, as the kernel takes them.
    pub fn slots(&self) -> &[Insn] {
        &self.slots
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut at = 0;
        while let Some(insn) = self.slots.get(at) {
            write!(f, "{at:4}: ")?;
            insn.write_text(self.slots.get(at + 1).copied(), f)?;
            writeln!(f)?;
            at += if insn.is_wide() { 2 } else { 1 };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insn::Reg::*;

    #[test]
    fn labels_resolve_forwards_and_backwards() {
        let mut asm = Assembler::new();
        let (again, done) = (asm.label(), asm.label());
        asm.mov(R0, 3);
        asm.bind(again).jump_if(Cond::Eq, R0, 0, done);
        asm.alu(Alu::Sub, R0, 1).jump(again);
        asm.bind(done).exit();
        let program = asm.finish().unwrap();
        assert_eq!(program.slots()[1].offset, 2);
        assert_eq!(program.slots()[3].offset, -3);
    }

    #[test]
    fn wide_instruction_counts_two_slots_and_one_line() {
        let mut asm = Assembler::new();
        let out = asm.label();
        asm.jump_if(Cond::Eq, R1, 0, out);
        asm.load_imm64(R2, 0x1122_3344_5566_7788);
        asm.bind(out).mov(R0, 2).exit();
        let program = asm.finish().unwrap();
        assert_eq!(program.slots().len(), 5);
        assert_eq!(program.slots()[0].offset, 2);
        let text = program.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "   0: if r1 == 0 goto +2",
                "   1: r2 = 0x1122334455667788 ll",
                "   3: r0 = 2",
                "   4: exit",
            ]
        );
    }

    #[test]
    fn broken_programs_are_refused() {
        assert_eq!(Assembler::new().finish(), Err(AssembleError::Empty));

        let mut asm = Assembler::new();
        let nowhere = asm.label();
        asm.jump(nowhere).exit();
        assert_eq!(asm.finish(), Err(AssembleError::Unbound { at: 0 }));

        let mut asm = Assembler::new();
        let twice = asm.label();
        asm.bind(twice).mov(R0, 0).bind(twice).exit();
        assert_eq!(asm.finish(), Err(AssembleError::BoundTwice { at: 1 }));

        let mut asm = Assembler::new();
        asm.mov(R0, 0);
        assert_eq!(asm.finish(), Err(AssembleError::FallsOffTheEnd));

        let mut asm = Assembler::new();
        let end = asm.label();
        asm.jump(end).exit().bind(end);
        assert_eq!(asm.finish(), Err(AssembleError::FallsOffTheEnd));
    }

    #[test]
    fn far_jump_is_refused() {
        let mut asm = Assembler::new();
        let far = asm.label();
        asm.jump(far);
        for _ in 0..40_000 {
            asm.mov(R0, 0);
        }
        asm.bind(far).exit();
        assert_eq!(asm.finish(), Err(AssembleError::TooFar { at: 0, to: 40_001 }));
    }

    #[test]
    fn slots_of_another_assembler_are_taken() {
        let slots = vec![Insn::alu(Width::W64, Alu::Mov, R0, 2), Insn::exit()];
        assert_eq!(Program::from_slots(slots.clone()).unwrap().slots(), slots);
        assert_eq!(Program::from_slots(Vec::new()), Err(AssembleError::Empty));
        let slots = vec![Insn::exit(); MAX_SLOTS + 1];
        assert_eq!(
            Program::from_slots(slots),
            Err(AssembleError::TooLong { slots: MAX_SLOTS + 1 })
        );
    }

    #[test]
    fn foreign_label_is_refused() {
        let mut other = Assembler::new();
        other.label();
        let foreign = other.label();
        let mut asm = Assembler::new();
        asm.jump(foreign).exit();
        assert_eq!(asm.finish(), Err(AssembleError::Unbound { at: 0 }));
    }
}
