//! A program for a packet socket of Linux that decides as the program does on the wire's bytes.
//!
//! A packet socket (packet(7)) runs its filter on a packet whose outer VLAN tag the kernel has taken
//! out, so an expression about tags would never hold there, and one about what is inside would hold
//! for every VLAN. The tag can be asked for, though. So the changed program asks whether there is
//! one, and where there is, reads behind it four bytes earlier, and the tag's own bytes from the
//! kernel's knowledge. It differs from libpcap's interpreter in three more things that are set
//! right: an offset from 2^31 on names the kernel's own data instead of lying beyond the packet, a
//! shift by a register is by its lower five bits, and the length has no tag in it.
//!
//! Linux, Documentation/networking/filter.rst; `SKF_AD_*` of linux/filter.h.

use super::code::*;
use super::{Alu, Cond, Instruction, MAX_LEN, MEMORY, Op, Program, Size, Source, bounds};

/// No offset from here on is one of the packet: the kernel takes it for a negative one.
const LONGEST: u32 = i32::MAX as u32;

/// Where the bytes of the outer tag begin and end.
const TAG: u32 = 12;
const TAG_END: u32 = 16;
const TAG_LEN: u32 = 4;

// Offsets of what the kernel knows of a packet.
const ANCILLARY: u32 = 0xffff_f000;
const VLAN_TCI: u32 = ANCILLARY + 44;
const VLAN_PRESENT: u32 = ANCILLARY + 48;
const VLAN_TPID: u32 = ANCILLARY + 60;

/// Why there is no such program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsuitable {
    /// It would have more instructions than a program may.
    TooLong,
    /// It leaves no word of scratch memory that a part of it takes.
    NoMemory,
}

impl std::fmt::Display for Unsuitable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Unsuitable::TooLong => "the packet filter is too long for a socket of the kernel",
            Unsuitable::NoMemory => {
                "the packet filter leaves no scratch memory for a socket of the kernel"
            }
        })
    }
}

impl std::error::Error for Unsuitable {}

/// Changes a program for a packet socket.
///
/// # Errors
/// [`Unsuitable`] says what there is too much of.
pub fn program(program: &Program) -> Result<Vec<Instruction>, Unsuitable> {
    let states = bounds::states(program, LONGEST);
    let reached = |op: fn(&Op) -> bool| {
        program.ops().iter().zip(&states).any(|(at, state)| state.is_some() && op(at))
    };
    let mut code = Code::default();
    let reject = code.label();
    let mut free = Free::of(program);
    // Nothing that a tag would move is read: addresses alone.
    let untouched = !reached(|op| match *op {
        Op::Load(size, k) => k.saturating_add(size.bytes()) > TAG,
        Op::LoadXHeader(k) => k >= TAG,
        Op::LoadIndirect(..) | Op::LoadLen | Op::LoadXLen => true,
        _ => false,
    });
    if !untouched {
        let tagged = code.label();
        code.push(LD | ABS | W, VLAN_PRESENT);
        code.jump_if(Cond::Eq, Source::K(0), None, Some(tagged));
        copy(&mut code, program, &states, reject, &mut free, false)?;
        code.bind(tagged);
        code.push(LD | IMM, 0);
    }
    copy(&mut code, program, &states, reject, &mut free, !untouched)?;
    code.bind(reject);
    code.push(RET, 0);
    code.finish()
}

/// Words of scratch memory that the program does not use.
struct Free(Vec<usize>);

impl Free {
    fn of(program: &Program) -> Free {
        let uses = |word: usize| {
            program.ops().iter().any(|op| match *op {
                Op::LoadMem(at) | Op::LoadXMem(at) | Op::Store(at) | Op::StoreX(at) => at == word,
                _ => false,
            })
        };
        Free((0..MEMORY).filter(|&word| !uses(word)).collect())
    }

    fn words<const N: usize>(&self) -> Result<[u32; N], Unsuitable> {
        let words = self.0.first_chunk::<N>().ok_or(Unsuitable::NoMemory)?;
        Ok(words.map(|word| word as u32))
    }
}

/// The whole program once, for packets with a tag that the kernel took out or for those without.
fn copy(
    code: &mut Code,
    program: &Program,
    states: &[Option<bounds::State>],
    reject: Label,
    free: &mut Free,
    tagged: bool,
) -> Result<(), Unsuitable> {
    let labels: Vec<Label> = program.ops().iter().map(|_| code.label()).collect();
    for (at, (&op, state)) in program.ops().iter().zip(states).enumerate() {
        let Some(state) = state else { continue };
        code.bind(labels[at]);
        let next = at + 1;
        let to = |target: usize| (target != next).then(|| labels[target]);
        match op {
            Op::Load(size, k) if bounds::never_there(k, size.bytes(), LONGEST) => {
                code.jump(reject);
            }
            Op::LoadXHeader(k) if bounds::never_there(k, 1, LONGEST) => code.jump(reject),
            Op::LoadIndirect(size, k) if bounds::never_there(k, size.bytes(), LONGEST) => {
                code.jump(reject);
            }
            Op::Load(size, k) => load(code, free, size, k, tagged)?,
            Op::LoadXHeader(k) => load_header(code, free, k, tagged)?,
            Op::LoadIndirect(size, k) => {
                load_indirect(code, free, size, k, state.x, reject, tagged)?;
            }
            Op::LoadLen => {
                code.push(LD | LEN, 0);
                if tagged {
                    code.push(super::code::ALU, TAG_LEN);
                }
            }
            Op::LoadXLen if tagged => {
                let [a] = free.words()?;
                code.push(ST, a);
                code.push(LD | LEN, 0);
                code.push(super::code::ALU, TAG_LEN);
                code.push(MISC | TAX, 0);
                code.push(LD | MEM, a);
            }
            Op::LoadXLen => code.push(LDX | LEN, 0),
            Op::LoadImm(k) => code.push(LD | IMM, k),
            Op::LoadMem(word) => code.push(LD | MEM, word as u32),
            Op::LoadXImm(k) => code.push(LDX | IMM, k),
            Op::LoadXMem(word) => code.push(LDX | MEM, word as u32),
            Op::Store(word) => code.push(ST, word as u32),
            Op::StoreX(word) => code.push(STX, word as u32),
            Op::Neg => code.push(super::code::ALU | NEG, 0),
            Op::Tax => code.push(MISC | TAX, 0),
            Op::Txa => code.push(MISC | TXA, 0),
            Op::Return(0) => code.jump(reject),
            Op::Return(k) => code.push(RET, k),
            Op::ReturnA => code.push(RET | A, 0),
            Op::Jump(target) => code.go(to(target)),
            Op::JumpIf(condition, source, jt, jf) if jt != jf => {
                code.jump_if(condition, source, to(jt), to(jf));
            }
            Op::JumpIf(_, _, target, _) => code.go(to(target)),
            Op::Alu(alu @ (Alu::Lsh | Alu::Rsh), Source::X) if state.x >= 32 => {
                let [a] = free.words()?;
                let (wide, done) = (code.label(), code.label());
                code.push(ST, a);
                code.push(MISC | TXA, 0);
                code.jump_if(Cond::Ge, Source::K(32), Some(wide), None);
                code.push(LD | MEM, a);
                code.alu(alu, Source::X);
                code.jump(done);
                code.bind(wide);
                code.push(LD | IMM, 0);
                code.bind(done);
            }
            Op::Alu(alu, source) => code.alu(alu, source),
        }
    }
    Ok(())
}

/// A = bytes from `k` on.
fn load(code: &mut Code, free: &Free, size: Size, k: u32, tagged: bool) -> Result<(), Unsuitable> {
    let len = size.bytes();
    if !tagged || k + len <= TAG {
        code.load(ABS, size, k);
    } else if k >= TAG_END {
        code.load(ABS, size, k - TAG_LEN);
    } else if (k, size) == (TAG, Size::Half) {
        code.push(LD | ABS | W, VLAN_TPID);
    } else if (k, size) == (TAG + 2, Size::Half) {
        code.push(LD | ABS | W, VLAN_TCI);
    } else if size == Size::Byte {
        tag_byte(code, k);
    } else {
        // A byte at a time, what comes before in a word of memory; X stays.
        let [sum, x] = free.words()?;
        code.push(STX, x);
        for place in k..k + len {
            match place {
                _ if place < TAG => code.load(ABS, Size::Byte, place),
                _ if place >= TAG_END => code.load(ABS, Size::Byte, place - TAG_LEN),
                _ => tag_byte(code, place),
            }
            append(code, sum, place == k);
        }
        code.push(LDX | MEM, x);
    }
    Ok(())
}

/// Puts the byte in A behind those in a word of memory, which then has all, as A has. X is lost.
fn append(code: &mut Code, sum: u32, first: bool) {
    if !first {
        code.push(MISC | TAX, 0);
        code.push(LD | MEM, sum);
        code.alu(Alu::Lsh, Source::K(8));
        code.alu(Alu::Or, Source::X);
    }
    code.push(ST, sum);
}

/// A = a byte of the outer tag.
fn tag_byte(code: &mut Code, place: u32) {
    code.push(LD | ABS | W, if place < TAG + 2 { VLAN_TPID } else { VLAN_TCI });
    match place % 2 {
        0 => code.alu(Alu::Rsh, Source::K(8)),
        _ => code.alu(Alu::And, Source::K(0xff)),
    }
}

/// X = four times the lower half of a byte; A stays.
fn load_header(code: &mut Code, free: &Free, k: u32, tagged: bool) -> Result<(), Unsuitable> {
    if !tagged || k < TAG {
        code.push(LDX | MSH | B, k);
    } else if k >= TAG_END {
        code.push(LDX | MSH | B, k - TAG_LEN);
    } else {
        let [a] = free.words()?;
        code.push(ST, a);
        tag_byte(code, k);
        code.alu(Alu::And, Source::K(15));
        code.alu(Alu::Lsh, Source::K(2));
        code.push(MISC | TAX, 0);
        code.push(LD | MEM, a);
    }
    Ok(())
}

/// A = bytes from X and `k` on, where X is at most `most`; X stays.
fn load_indirect(
    code: &mut Code,
    free: &Free,
    size: Size,
    k: u32,
    most: u32,
    reject: Label,
    tagged: bool,
) -> Result<(), Unsuitable> {
    let len = size.bytes();
    // `never_there` has let it through, so this is 0 at least.
    let limit = LONGEST - k - len;
    if most > limit {
        code.push(MISC | TXA, 0);
        code.jump_if(Cond::Gt, Source::K(limit), Some(reject), None);
    }
    let most = most.min(limit);
    if !tagged || most + k + len <= TAG {
        code.load(IND, size, k);
    } else if k >= TAG_END {
        code.load(IND, size, k - TAG_LEN);
    } else {
        let [x, place, sum] = free.words()?;
        let (behind, within, done) = (code.label(), code.label(), code.label());
        code.push(MISC | TXA, 0);
        code.alu(Alu::Add, Source::K(k));
        code.jump_if(Cond::Ge, Source::K(TAG_END), Some(behind), None);
        code.jump_if(Cond::Gt, Source::K(TAG - len), Some(within), None);
        code.load(IND, size, k);
        code.jump(done);

        code.bind(behind);
        code.push(STX, x);
        code.alu(Alu::Sub, Source::K(TAG_LEN));
        code.push(MISC | TAX, 0);
        code.load(IND, size, 0);
        code.push(LDX | MEM, x);
        code.jump(done);

        code.bind(within);
        code.push(STX, x);
        code.push(ST, place);
        for byte in 0..len {
            any_byte(code, place, byte);
            append(code, sum, byte == 0);
        }
        code.push(LDX | MEM, x);
        code.bind(done);
    }
    Ok(())
}

/// A = the byte `after` bytes behind the place in a word of memory. X is lost.
fn any_byte(code: &mut Code, place: u32, after: u32) {
    let [behind, tag, tpid, tci, low, done] = [(); 6].map(|()| code.label());
    code.push(LD | MEM, place);
    code.alu(Alu::Add, Source::K(after));
    code.push(MISC | TAX, 0);
    code.jump_if(Cond::Ge, Source::K(TAG_END), Some(behind), None);
    code.jump_if(Cond::Ge, Source::K(TAG), Some(tag), None);
    code.load(IND, Size::Byte, 0);
    code.jump(done);

    code.bind(behind);
    code.alu(Alu::Sub, Source::K(TAG_LEN));
    code.push(MISC | TAX, 0);
    code.load(IND, Size::Byte, 0);
    code.jump(done);

    code.bind(tag);
    code.jump_if(Cond::Ge, Source::K(TAG + 2), Some(tci), Some(tpid));
    code.bind(tpid);
    code.push(MISC | TXA, 0);
    code.jump_if(Cond::Set, Source::K(1), Some(low), None);
    tag_byte(code, TAG);
    code.jump(done);
    code.bind(low);
    tag_byte(code, TAG + 1);
    code.jump(done);
    code.bind(tci);
    let low = code.label();
    code.push(MISC | TXA, 0);
    code.jump_if(Cond::Set, Source::K(1), Some(low), None);
    tag_byte(code, TAG + 2);
    code.jump(done);
    code.bind(low);
    tag_byte(code, TAG + 3);
    code.bind(done);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Label(usize);

/// Instructions whose jumps are not resolved yet.
#[derive(Default)]
struct Code {
    items: Vec<Item>,
    labels: Vec<usize>,
}

#[derive(Clone, Copy)]
enum Item {
    Plain(u16, u32),
    /// An unconditional jump.
    Jump(Label),
    /// A conditional one, to the next item where there is no label.
    JumpIf(u16, u32, Option<Label>, Option<Label>),
}

const NOWHERE: usize = usize::MAX;

impl Code {
    fn label(&mut self) -> Label {
        self.labels.push(NOWHERE);
        Label(self.labels.len() - 1)
    }

    fn bind(&mut self, label: Label) {
        self.labels[label.0] = self.items.len();
    }

    fn push(&mut self, code: u16, k: u32) {
        self.items.push(Item::Plain(code, k));
    }

    fn load(&mut self, mode: u16, size: Size, k: u32) {
        let size = match size {
            Size::Byte => B,
            Size::Half => H,
            Size::Word => W,
        };
        self.push(LD | mode | size, k);
    }

    fn alu(&mut self, alu: Alu, source: Source) {
        let found = super::ALU.iter().find(|(_, known)| *known == alu);
        let number = found.map_or(0, |(number, _)| *number);
        let (source, k) = operand(source);
        self.push(super::code::ALU | number | source, k);
    }

    fn jump(&mut self, to: Label) {
        self.items.push(Item::Jump(to));
    }

    fn go(&mut self, to: Option<Label>) {
        if let Some(to) = to {
            self.jump(to);
        }
    }

    fn jump_if(&mut self, cond: Cond, source: Source, jt: Option<Label>, jf: Option<Label>) {
        let found = super::CONDITIONS.iter().find(|(_, known)| *known == cond);
        let number = found.map_or(0, |(number, _)| *number);
        let (source, k) = operand(source);
        self.items.push(Item::JumpIf(JMP | number | source, k, jt, jf));
    }

    /// Resolves the jumps. A conditional one goes at most 255 instructions far; where that is not
    /// enough, it goes to an unconditional one right behind it.
    fn finish(self) -> Result<Vec<Instruction>, Unsuitable> {
        let count = self.items.len();
        let mut long = vec![false; count];
        loop {
            let mut places = Vec::with_capacity(count + 1);
            let mut place = 0usize;
            for &long in &long {
                places.push(place);
                place += if long { 3 } else { 1 };
            }
            places.push(place);
            if place > MAX_LEN {
                return Err(Unsuitable::TooLong);
            }
            let target = |at: usize, label: Option<Label>| match label {
                Some(label) => places[self.labels[label.0].min(count)],
                None => places[at + 1],
            };
            let mut grown = false;
            for (at, item) in self.items.iter().enumerate() {
                if let (&Item::JumpIf(_, _, jt, jf), false) = (item, long[at]) {
                    let far = |label| target(at, label) - (places[at] + 1) > 255;
                    long[at] = far(jt) || far(jf);
                    grown |= long[at];
                }
            }
            if grown {
                continue;
            }
            let mut out = Vec::with_capacity(place);
            for (at, item) in self.items.iter().enumerate() {
                let plain = |code, k| Instruction { code, jt: 0, jf: 0, k };
                let distance = |from: usize, label| (target(at, label) - (from + 1)) as u32;
                match *item {
                    Item::Plain(code, k) => out.push(plain(code, k)),
                    Item::Jump(to) => out.push(plain(JMP | JA, distance(places[at], Some(to)))),
                    Item::JumpIf(code, k, jt, jf) if long[at] => {
                        out.push(Instruction { code, jt: 0, jf: 1, k });
                        out.push(plain(JMP | JA, distance(places[at] + 1, jt)));
                        out.push(plain(JMP | JA, distance(places[at] + 2, jf)));
                    }
                    Item::JumpIf(code, k, jt, jf) => {
                        let (jt, jf) = (distance(places[at], jt), distance(places[at], jf));
                        out.push(Instruction { code, jt: jt as u8, jf: jf as u8, k });
                    }
                }
            }
            return Ok(out);
        }
    }
}

fn operand(source: Source) -> (u16, u32) {
    match source {
        Source::K(k) => (0, k),
        Source::X => (X, 0),
    }
}
