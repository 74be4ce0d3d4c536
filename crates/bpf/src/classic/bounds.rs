//! What is known of the registers before each instruction: the most that each can be, how much of
//! the packet is there for sure, and whether control comes there at all.
//!
//! Jumps go forward only, so one pass in the order of the instructions sees every way.

use super::{Alu, MEMORY, Op, Program, Source};

/// What holds whenever control is before an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    /// The most that A is.
    pub a: u32,
    /// The most that X is.
    pub x: u32,
    memory: [u32; MEMORY],
    /// So many bytes of the packet have been found to be there.
    pub there: u32,
}

impl State {
    /// At the start all registers are 0.
    const START: State = State { a: 0, x: 0, memory: [0; MEMORY], there: 0 };

    fn or(self, other: State) -> State {
        State {
            a: self.a.max(other.a),
            x: self.x.max(other.x),
            memory: core::array::from_fn(|word| self.memory[word].max(other.memory[word])),
            there: self.there.min(other.there),
        }
    }

    /// The state after an instruction that goes on to the next.
    fn after(mut self, op: Op) -> State {
        match op {
            Op::Load(size, k) => {
                self.there = self.there.max(k.saturating_add(size.bytes()));
                self.a = most_of(size.bytes());
            }
            Op::LoadIndirect(size, _) => self.a = most_of(size.bytes()),
            Op::LoadImm(k) => self.a = k,
            Op::LoadLen => self.a = u32::MAX,
            Op::LoadMem(word) => self.a = self.memory[word],
            Op::LoadXImm(k) => self.x = k,
            Op::LoadXLen => self.x = u32::MAX,
            Op::LoadXMem(word) => self.x = self.memory[word],
            Op::LoadXHeader(k) => {
                self.there = self.there.max(k.saturating_add(1));
                self.x = 60;
            }
            Op::Store(word) => self.memory[word] = self.a,
            Op::StoreX(word) => self.memory[word] = self.x,
            Op::Alu(alu, source) => self.a = self.arithmetic(alu, source),
            Op::Neg => self.a = if self.a == 0 { 0 } else { u32::MAX },
            Op::Tax => self.x = self.a,
            Op::Txa => self.a = self.x,
            Op::Jump(_) | Op::JumpIf(..) | Op::Return(_) | Op::ReturnA => {}
        }
        self
    }

    fn arithmetic(&self, alu: Alu, source: Source) -> u32 {
        let (a, known) = match source {
            Source::K(k) => (self.a, Some(k)),
            Source::X => (self.a, None),
        };
        let b = known.unwrap_or(self.x);
        // All bits up to the highest that can be set.
        let filled = |value: u32| u32::MAX.checked_shr(value.leading_zeros()).unwrap_or(0);
        match alu {
            Alu::Add => a.saturating_add(b),
            Alu::Mul => a.saturating_mul(b),
            Alu::Sub if b == 0 => a,
            Alu::Sub => u32::MAX,
            Alu::Div => known.map_or(a, |k| a.checked_div(k).unwrap_or(0)),
            Alu::Mod => a.min(b.saturating_sub(1)),
            Alu::And => a.min(b),
            Alu::Or | Alu::Xor => filled(a | b),
            Alu::Lsh => match known {
                Some(k) if a.leading_zeros() >= k => a << k,
                _ if a == 0 => 0,
                _ => u32::MAX,
            },
            Alu::Rsh => known.map_or(a, |k| a >> k),
        }
    }
}

const fn most_of(bytes: u32) -> u32 {
    u32::MAX >> (32 - 8 * bytes)
}

/// Whether a load of `len` bytes from `k` on, or from X and `k` on, always leaves a packet of at most
/// `longest` bytes.
pub(super) fn never_there(k: u32, len: u32, longest: u32) -> bool {
    k.checked_add(len).is_none_or(|end| end > longest)
}

/// The state before each instruction; `None` where control never comes, whatever a packet of at most
/// `longest` bytes says.
pub(super) fn states(program: &Program, longest: u32) -> Vec<Option<State>> {
    let ops = program.ops();
    let mut states = vec![None; ops.len()];
    states[0] = Some(State::START);
    for (at, &op) in ops.iter().enumerate() {
        let Some(state) = states[at] else { continue };
        let mut reach = |to: usize, state: State| {
            // A jump never goes beyond the program: it was checked.
            if let Some(known) = states.get_mut(to) {
                *known = Some(known.map_or(state, |known: State| known.or(state)));
            }
        };
        match op {
            Op::Return(_) | Op::ReturnA => {}
            Op::Jump(to) => reach(to, state),
            Op::JumpIf(_, _, jt, jf) => {
                reach(jt, state);
                reach(jf, state);
            }
            // Rejected before anything comes after it.
            Op::Load(size, k) | Op::LoadIndirect(size, k)
                if never_there(k, size.bytes(), longest) => {}
            Op::LoadXHeader(k) if never_there(k, 1, longest) => {}
            op => reach(at + 1, state.after(op)),
        }
    }
    states
}

#[cfg(test)]
mod tests {
    use super::super::{Instruction, Program};
    use super::*;

    fn program(instructions: &[(u16, u8, u8, u32)]) -> Program {
        let instructions: Vec<_> =
            instructions.iter().map(|&(code, jt, jf, k)| Instruction { code, jt, jf, k }).collect();
        Program::new(&instructions).unwrap()
    }

    #[test]
    fn the_length_of_an_ip_header_is_bounded_and_ways_join() {
        let states = states(
            &program(&[
                (0x28, 0, 0, 12),    // ldh [12]
                (0x15, 0, 1, 0x800), // jeq
                (0xb1, 0, 0, 14),    // ldxb 4*([14]&0xf)
                (0x48, 0, 0, 14),    // ldh [x + 14]
                (0x06, 0, 0, 1),     // ret
            ]),
            u32::MAX,
        );
        assert_eq!(states[3].unwrap().x, 60);
        // By the jump only the type was seen.
        assert_eq!(states[3].unwrap().there, 14);
        assert_eq!(states[2].unwrap().there, 14);
        assert_eq!(states[1].unwrap().a, 0xffff);
    }

    #[test]
    fn what_is_behind_a_return_is_never_reached() {
        let states = states(&program(&[(0x06, 0, 0, 1), (0x00, 0, 0, 7), (0x06, 0, 0, 0)]), 100);
        assert!(states[0].is_some() && states[1].is_none() && states[2].is_none());
    }

    #[test]
    fn a_load_beyond_the_longest_packet_ends_the_program() {
        let program = program(&[(0x30, 0, 0, 99), (0x30, 0, 0, 100), (0x06, 0, 0, 1)]);
        let reached = |longest| states(&program, longest).iter().flatten().count();
        assert_eq!((reached(99), reached(100), reached(101)), (1, 2, 3));
    }
}
