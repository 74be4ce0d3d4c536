//! From a program to steps of one size, a load and the test of what it loads in one.

use millrace_bpf::classic::{Alu, Cond, Op, Program, Size, Source};

/// What a step does. A is the accumulator, X the index register, k the operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum What {
    LoadByte,
    LoadHalf,
    LoadWord,
    LoadByteIndirect,
    LoadHalfIndirect,
    LoadWordIndirect,
    LoadImm,
    LoadLen,
    LoadMem,
    LoadXImm,
    LoadXLen,
    LoadXMem,
    LoadXHeader,
    Store,
    StoreX,
    AddK,
    AddX,
    SubK,
    SubX,
    MulK,
    MulX,
    DivK,
    DivX,
    ModK,
    ModX,
    AndK,
    AndX,
    OrK,
    OrX,
    XorK,
    XorX,
    LshK,
    LshX,
    RshK,
    RshX,
    Neg,
    Tax,
    Txa,
    Jump,
    EqK,
    EqX,
    GtK,
    GtX,
    GeK,
    GeX,
    SetK,
    SetX,
    Return,
    ReturnA,
    /// A load from `place`, and the test of A and k.
    LoadByteEq,
    LoadHalfEq,
    LoadWordEq,
    LoadHalfSet,
    LoadByteSet,
    /// A load from X and `place`, and the test of A and k.
    LoadHalfIndirectEq,
    /// A load from `place`, A and `mask`, and the test of A and k.
    LoadByteAndEq,
    LoadHalfAndEq,
    LoadWordAndEq,
}

/// One step. Jumps name the step they go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) what: What,
    pub(super) jt: u16,
    pub(super) jf: u16,
    pub(super) k: u32,
    pub(super) place: u32,
    pub(super) mask: u32,
}

impl Step {
    const fn plain(what: What, k: u32) -> Step {
        Step { what, jt: 0, jf: 0, k, place: 0, mask: 0 }
    }
}

/// One step for each instruction, so that jumps stay as they are; where instructions were joined,
/// those after the first are still there for who jumps to them.
pub(super) fn steps(program: &Program) -> Box<[Step]> {
    let ops = program.ops();
    (0..ops.len()).map(|at| joined(&ops[at..]).unwrap_or_else(|| single(ops[at]))).collect()
}

/// The first few of `ops` as one step, if there is such a step.
fn joined(ops: &[Op]) -> Option<Step> {
    let test = |what, place, mask, k, jt: usize, jf: usize| {
        Some(Step { what, jt: jt as u16, jf: jf as u16, k, place, mask })
    };
    match *ops {
        [Op::Load(size, place), Op::JumpIf(cond, Source::K(k), jt, jf), ..] => {
            let what = match (size, cond) {
                (Size::Byte, Cond::Eq) => What::LoadByteEq,
                (Size::Half, Cond::Eq) => What::LoadHalfEq,
                (Size::Word, Cond::Eq) => What::LoadWordEq,
                (Size::Half, Cond::Set) => What::LoadHalfSet,
                (Size::Byte, Cond::Set) => What::LoadByteSet,
                _ => return None,
            };
            test(what, place, 0, k, jt, jf)
        }
        [
            Op::Load(size, place),
            Op::Alu(Alu::And, Source::K(mask)),
            Op::JumpIf(Cond::Eq, Source::K(k), jt, jf),
            ..,
        ] => {
            let what = match size {
                Size::Byte => What::LoadByteAndEq,
                Size::Half => What::LoadHalfAndEq,
                Size::Word => What::LoadWordAndEq,
            };
            test(what, place, mask, k, jt, jf)
        }
        [Op::LoadIndirect(Size::Half, place), Op::JumpIf(Cond::Eq, Source::K(k), jt, jf), ..] => {
            test(What::LoadHalfIndirectEq, place, 0, k, jt, jf)
        }
        _ => None,
    }
}

fn single(op: Op) -> Step {
    let plain = Step::plain;
    match op {
        Op::Load(Size::Byte, k) => plain(What::LoadByte, k),
        Op::Load(Size::Half, k) => plain(What::LoadHalf, k),
        Op::Load(Size::Word, k) => plain(What::LoadWord, k),
        Op::LoadIndirect(Size::Byte, k) => plain(What::LoadByteIndirect, k),
        Op::LoadIndirect(Size::Half, k) => plain(What::LoadHalfIndirect, k),
        Op::LoadIndirect(Size::Word, k) => plain(What::LoadWordIndirect, k),
        Op::LoadImm(k) => plain(What::LoadImm, k),
        Op::LoadLen => plain(What::LoadLen, 0),
        Op::LoadMem(word) => plain(What::LoadMem, word as u32),
        Op::LoadXImm(k) => plain(What::LoadXImm, k),
        Op::LoadXLen => plain(What::LoadXLen, 0),
        Op::LoadXMem(word) => plain(What::LoadXMem, word as u32),
        Op::LoadXHeader(k) => plain(What::LoadXHeader, k),
        Op::Store(word) => plain(What::Store, word as u32),
        Op::StoreX(word) => plain(What::StoreX, word as u32),
        Op::Neg => plain(What::Neg, 0),
        Op::Tax => plain(What::Tax, 0),
        Op::Txa => plain(What::Txa, 0),
        Op::Return(k) => plain(What::Return, k),
        Op::ReturnA => plain(What::ReturnA, 0),
        Op::Jump(to) => Step { jt: to as u16, ..plain(What::Jump, 0) },
        Op::Alu(alu, source) => {
            let (with_k, with_x) = match alu {
                Alu::Add => (What::AddK, What::AddX),
                Alu::Sub => (What::SubK, What::SubX),
                Alu::Mul => (What::MulK, What::MulX),
                Alu::Div => (What::DivK, What::DivX),
                Alu::Mod => (What::ModK, What::ModX),
                Alu::And => (What::AndK, What::AndX),
                Alu::Or => (What::OrK, What::OrX),
                Alu::Xor => (What::XorK, What::XorX),
                Alu::Lsh => (What::LshK, What::LshX),
                Alu::Rsh => (What::RshK, What::RshX),
            };
            match source {
                Source::K(k) => plain(with_k, k),
                Source::X => plain(with_x, 0),
            }
        }
        Op::JumpIf(cond, source, jt, jf) => {
            let (with_k, with_x) = match cond {
                Cond::Eq => (What::EqK, What::EqX),
                Cond::Gt => (What::GtK, What::GtX),
                Cond::Ge => (What::GeK, What::GeX),
                Cond::Set => (What::SetK, What::SetX),
            };
            let step = match source {
                Source::K(k) => plain(with_k, k),
                Source::X => plain(with_x, 0),
            };
            Step { jt: jt as u16, jf: jf as u16, ..step }
        }
    }
}
