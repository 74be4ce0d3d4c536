//! How the arena's frames are shared out: Linux's `tcp_mem`, for memory that cannot grow.
//!
//! What counts is what a connection holds, whole frames, and not the payload in them. The marks
//! *low* and *pressure* and the reserve (Linux's *high*) make three states:
//!
//! - **Plenty.** A connection may hold a share of what is left above the mark of pressure, and that
//!   share falls with the square of what is left: one alone gets up to a quarter of the arena, and of
//!   a hundred that hoard each gets so little that the mark is not reached (dynamic thresholds:
//!   Choudhury and Hahne, 1998).
//! - **Pressure.** What is left is for those who hold next to nothing: a request and its answer, of
//!   as many clients as possible. Buffers do not grow, windows are a few segments, and whatever fits
//!   into a frame that waits already is moved there. It ends at the low mark.
//! - **High.** Payload gets no frame any more but what comes in order, until half of the reserve is
//!   gone. Connections whose peers have taken nothing for long are given up.

use millrace_frames::{Arena, Instant};
use millrace_wire::tcp;

use crate::Config;
use crate::control::L4_V6;
use crate::stack::Stack;

/// Frames that a connection may hold, for each direction, for as long as there are any.
pub(crate) const LEAST: u16 = 4;

/// Payload of the peer's full segments while none was seen (RFC 9293 §3.7.1).
pub(crate) const LEAST_SEGMENT: u32 = 536;

/// Headers in a segment's first frame: the longest that nearly all have, with timestamps.
const HEADERS: u32 = (L4_V6 + tcp::HEADER_LEN) as u32 + 12;

/// A queue of more frames than these has whatever fits moved into the frame before it.
const PACK_ABOVE: u16 = 64;

/// How much of the memory for payload is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryState {
    /// Below the mark of pressure.
    #[default]
    Plenty,
    /// Above the mark of pressure, or not yet below the low one again.
    Pressure,
    /// The frames for payload are used up.
    High,
}

impl MemoryState {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            MemoryState::Plenty => "plenty",
            MemoryState::Pressure => "pressure",
            MemoryState::High => "high",
        }
    }
}

/// A look at the memory. All numbers are frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryInfo {
    /// How much of it is in use.
    pub state: MemoryState,
    /// Frames that are not free, those that the port has for what comes next apart.
    pub in_use: u32,
    /// So many in use end the pressure...
    pub low: u32,
    /// ...and so many begin it.
    pub pressure: u32,
    /// Most that payload may have in use; the frames above are the reserve.
    pub high: u32,
}

/// What is known of the arena as a whole.
#[derive(Debug)]
pub(crate) struct Memory {
    low: u32,
    pressure: u32,
    high: u32,
    reserve: u32,
    /// A share is the square of what is left, shifted by so much.
    shift: u32,
    pub(crate) state: MemoryState,
    /// Frames that were free at the last look, and by how many that must have changed for another
    /// one to be worth while.
    seen: u32,
    step: u32,
    /// When the pressure began.
    since: Instant,
    /// Frames that a receive queue may come to hold, as the last look found it: what windows are
    /// made of.
    pub(crate) share: u32,
    /// A queue of more frames than these is packed.
    pub(crate) pack_above: u16,
    /// Bytes of a packet that a frame takes.
    in_frame: u32,
}

impl Memory {
    /// `arena` is as it is when the stack begins: what the port has of it already is the port's.
    pub(crate) fn new(config: &Config, arena: &Arena, now: Instant) -> Memory {
        let reserve = config.frame_reserve;
        let high = (arena.free() as u32).saturating_sub(reserve).max(1);
        let or = |mark: u32, otherwise: u32| if mark == 0 { otherwise } else { mark.min(high) };
        let pressure = or(config.memory_pressure, high - high / 4).max(1);
        let low = or(config.memory_low, high / 8 * 5).min(pressure);
        let mut memory = Memory {
            low,
            pressure,
            high,
            reserve,
            shift: pressure.next_power_of_two().trailing_zeros(),
            state: MemoryState::Plenty,
            seen: arena.free() as u32,
            step: high / 128,
            since: now,
            share: 0,
            pack_above: PACK_ABOVE,
            in_frame: (arena.frame_size() - Arena::HEADROOM) as u32,
        };
        memory.share = memory.share_of(arena.free() as u32);
        memory
    }

    /// Frames above the mark of pressure, of so many that are free.
    #[inline]
    fn above(&self, free: u32) -> u64 {
        u64::from(free.saturating_sub(self.reserve + (self.high - self.pressure)))
    }

    /// Whether a connection that holds `own` frames may have another one while so many are free.
    /// One with few always may, as far as this is concerned.
    #[inline]
    pub(crate) fn fair(&self, free: usize, own: u16) -> bool {
        own < LEAST
            || own < u16::MAX && {
                let left = self.above(free as u32);
                u64::from(own) << self.shift <= left * left
            }
    }

    #[inline]
    fn share_of(&self, free: u32) -> u32 {
        if free <= self.reserve / 2 {
            return 0;
        }
        let left = self.above(free);
        // Three eighths of it, for what arrives makes the share smaller: here they meet.
        (((left * left * 3) >> (self.shift + 3)) as u32).max(LEAST.into())
    }

    /// Payload in each of the frames that a segment of `len` bytes takes.
    #[inline(always)]
    pub(crate) fn in_each_frame(&self, len: u32) -> u32 {
        if len + HEADERS <= self.in_frame { len } else { self.in_each_of_several(len) }
    }

    #[inline(never)]
    fn in_each_of_several(&self, len: u32) -> u32 {
        len / (len + HEADERS).div_ceil(self.in_frame)
    }

    /// Window of a SYN, or of its answer, where the receive buffer has so many bytes.
    pub(crate) fn first_window(&self, buffer: u32) -> u16 {
        buffer.min(self.share.saturating_mul(LEAST_SEGMENT)).min(0xffff) as u16
    }

    #[inline]
    fn in_use(&self, free: u32) -> u32 {
        (self.high + self.reserve).saturating_sub(free)
    }

    /// The state that so many free frames make.
    #[inline]
    fn state_of(&self, free: u32) -> MemoryState {
        let in_use = self.in_use(free);
        if in_use >= self.high {
            MemoryState::High
        } else if in_use >= self.pressure
            || (self.state != MemoryState::Plenty && in_use >= self.low)
        {
            MemoryState::Pressure
        } else {
            MemoryState::Plenty
        }
    }
}

impl Stack {
    /// Looks at how many frames are left. Once a turn, and where they have run out.
    #[inline]
    pub(crate) fn look_at_memory(&mut self) {
        let free = self.arena.free() as u32;
        let memory = &self.memory;
        if memory.state != MemoryState::Plenty || free.abs_diff(memory.seen) > memory.step {
            self.measure_memory(free);
        }
    }

    fn measure_memory(&mut self, free: u32) {
        self.memory.seen = free;
        self.memory.share = self.memory.share_of(free);
        let state = self.memory.state_of(free);
        if state != self.memory.state {
            self.memory_state_changed(state);
        }
    }

    #[cold]
    fn memory_state_changed(&mut self, state: MemoryState) {
        let before = core::mem::replace(&mut self.memory.state, state);
        if before == MemoryState::Plenty {
            self.counters.memory_pressures += 1;
            self.memory.since = self.now;
            self.memory.pack_above = LEAST;
        }
        if state == MemoryState::High {
            self.counters.memory_highs += 1;
        }
        if state == MemoryState::Plenty {
            self.counters.memory_pressure_nanoseconds +=
                (self.now - self.memory.since).as_nanos() as u64;
            self.memory.pack_above = PACK_ABOVE;
        }
    }

    /// How much of the memory for payload is in use, and where the marks are.
    pub fn memory(&self) -> MemoryInfo {
        let free = self.arena.free() as u32;
        let Memory { low, pressure, high, .. } = self.memory;
        let state = self.memory.state_of(free);
        MemoryInfo { state, in_use: self.memory.in_use(free), low, pressure, high }
    }

    /// Bytes of the frames that a connection holds.
    pub(crate) fn held(&self, index: usize) -> usize {
        let connection = &self.connections[index];
        let frames = usize::from(connection.send_frames)
            + usize::from(connection.receive_frames)
            + self.transfer(index).map_or(0, |one| one.blocks.frames().into());
        frames * self.arena.frame_size()
    }

    /// Whether a connection whose timer ran out is to make way: the memory is used up, and it is
    /// nobody's any more, or its peer has taken nothing for many timeouts.
    pub(crate) fn makes_way(&mut self, index: usize) -> bool {
        if self.memory.state != MemoryState::High {
            return false;
        }
        self.look_at_memory();
        let connection = &self.connections[index];
        let tries = connection.retries.max(connection.rtt.backoff);
        let most = match connection.features.has(crate::tcp::connection::Features::ORPHAN) {
            true => 1,
            false => self.config.memory_retries,
        };
        let stalled =
            self.memory.state == MemoryState::High && connection.send_frames > 0 && tries >= most;
        self.counters.memory_reclaimed += u64::from(stalled);
        stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_frames::{ArenaConfig, Hugepages};

    fn memory(frames: u32) -> Memory {
        let arena = ArenaConfig { frames, frame_size: 2048, hugepages: Hugepages::Never };
        let config = Config { frame_reserve: 64, ..Config::default() };
        Memory::new(&config, &Arena::new(arena).unwrap(), Instant::ZERO)
    }

    /// What each of so many gets, one after the other, and what is left.
    fn hoard(memory: &Memory, connections: usize) -> (Vec<u16>, u32) {
        let mut free = memory.high + memory.reserve;
        let held = (0..connections)
            .map(|_| {
                let mut own = 0;
                while free > memory.reserve && memory.fair(free as usize, own) {
                    own += 1;
                    free -= 1;
                }
                own
            })
            .collect();
        (held, free)
    }

    #[test]
    fn one_alone_gets_about_a_quarter() {
        for frames in [128, 1024, 4096, 10_000, 16_384] {
            let memory = memory(frames);
            let (held, _) = hoard(&memory, 1);
            let part = f64::from(held[0]) / f64::from(memory.high);
            assert!((0.18..0.32).contains(&part), "{part} of {frames}");
        }
    }

    #[test]
    fn a_hundred_that_hoard_do_not_reach_the_mark() {
        let memory = memory(16_384);
        let (held, free) = hoard(&memory, 100);
        assert_eq!(memory.state_of(free), MemoryState::Plenty);
        assert!(held.is_sorted_by(|a, b| a >= b) && held[99] >= LEAST, "{held:?}");
    }

    #[test]
    fn a_thousand_that_hoard_leave_frames_for_as_many_that_want_few() {
        let memory = memory(16_384);
        let (held, free) = hoard(&memory, 1000);
        assert!(held.iter().all(|&own| own >= LEAST));
        assert!(memory.fair(free as usize, LEAST - 1) && free > memory.reserve + 100);
    }

    #[test]
    fn the_pressure_begins_above_one_mark_and_ends_below_the_other() {
        let mut memory = memory(1064);
        assert_eq!((memory.low, memory.pressure, memory.high), (625, 750, 1000));
        let states = [700, 760, 700, 630, 620, 740, 999, 1000, 1030, 999, 650, 10].map(|in_use| {
            memory.state = memory.state_of(1064 - in_use);
            memory.state.name()
        });
        assert_eq!(
            states,
            [
                "plenty", "pressure", "pressure", "pressure", "plenty", "plenty", "pressure",
                "high", "high", "pressure", "pressure", "plenty"
            ]
        );
    }

    #[test]
    fn marks_are_kept_in_order() {
        let arena = ArenaConfig { frames: 100, frame_size: 2048, hugepages: Hugepages::Never };
        for (low, pressure) in [(0, 0), (90, 20), (1 << 30, 1 << 30), (1, 0), (0, 1)] {
            let config = Config {
                frame_reserve: 10,
                memory_low: low,
                memory_pressure: pressure,
                ..Config::default()
            };
            let memory = Memory::new(&config, &Arena::new(arena).unwrap(), Instant::ZERO);
            assert!(memory.low <= memory.pressure && memory.pressure <= memory.high);
        }
    }
}
