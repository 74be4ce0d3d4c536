//! The arena: frames of one size in one mapping, their meta data, and the free list.

use core::fmt;
use core::ptr::NonNull;
use std::io;
use std::sync::Arc;

use crate::batch::Transmit;
use crate::held::{Held, HeldFrames, Shared};
use crate::mapping::{Hugepages, Mapping};
use crate::meta::{Frame, Meta, Owners};

/// How large an arena is. Everything is allocated when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaConfig {
    /// Number of frames, 1 to 2^24.
    pub frames: u32,
    /// Bytes of a frame: a power of two from 2048 to 32768. AF_XDP takes 2048 and 4096 only.
    pub frame_size: u32,
    /// Whether huge pages are asked for.
    pub hugepages: Hugepages,
}

impl Default for ArenaConfig {
    fn default() -> Self {
        ArenaConfig { frames: 16_384, frame_size: 2048, hugepages: Hugepages::Prefer }
    }
}

/// Frames for one stack and its port. Owned by one thread; nothing in it is shared but the mapping.
pub struct Arena {
    shared: Arc<Shared>,
    /// Where the mapping that `shared` has begins: one load instead of two for each access.
    base: Base,
    meta: Box<[Meta]>,
    /// Apart from `meta`, whose users may overwrite it: memory safety rests on these.
    owners: Box<[Owners]>,
    free: Vec<Frame>,
    frame_size: usize,
    exhausted: u64,
}

struct Base(NonNull<u8>);

// SAFETY: as of `Mapping`, whose address it is: plain memory without thread affinity.
unsafe impl Send for Base {}
// SAFETY: as above; a shared reference alone gives nothing but the address.
unsafe impl Sync for Base {}

impl Arena {
    /// Room left before the bytes of a frame that the stack or an application fills: Ethernet with
    /// two VLAN tags (22), IP (40), TCP with all options (60), rounded up to two cache lines.
    pub const HEADROOM: usize = 128;

    /// Makes an arena.
    ///
    /// # Errors
    /// `InvalidInput` for a size outside the bounds of [`ArenaConfig`]; `OutOfMemory` (or what
    /// mmap said) when the memory is not there.
    pub fn new(config: ArenaConfig) -> io::Result<Self> {
        let ArenaConfig { frames, frame_size, hugepages } = config;
        if frames == 0 || frames > 1 << 24 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("an arena has 1 to {} frames, not {frames}", 1 << 24),
            ));
        }
        if !frame_size.is_power_of_two() || !(2048..=32768).contains(&frame_size) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a frame is a power of two from 2048 to 32768 bytes, not {frame_size}"),
            ));
        }
        let mapping = Mapping::new(frames as usize * frame_size as usize, hugepages)?;
        Ok(Arena {
            base: Base(mapping.base()),
            shared: Arc::new(Shared::new(mapping, frames)),
            meta: vec![Meta::default(); frames as usize].into_boxed_slice(),
            owners: vec![Owners::NONE; frames as usize].into_boxed_slice(),
            // The lowest numbers are on top, so a small working set stays in few pages.
            free: (0..frames).rev().map(Frame::new).collect(),
            frame_size: frame_size as usize,
            exhausted: 0,
        })
    }

    /// Bytes of a frame.
    #[inline]
    pub fn frame_size(&self) -> usize {
        self.frame_size
    }

    /// Number of frames, free or not.
    #[inline]
    pub fn frames(&self) -> usize {
        self.meta.len()
    }

    /// Number of free frames.
    #[inline]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// How often a frame was asked for in vain.
    #[inline]
    pub fn exhausted(&self) -> u64 {
        self.exhausted
    }

    /// The memory itself, for a port that registers it with the kernel.
    pub fn mapping(&self) -> &Mapping {
        self.shared.mapping()
    }

    /// A reference that keeps the memory mapped. A port whose kernel side reads or writes the
    /// arena keeps one for as long as the kernel may.
    pub fn keep_alive(&self) -> Arc<dyn Send + Sync> {
        Arc::clone(&self.shared) as Arc<dyn Send + Sync>
    }

    /// Takes a free frame for `owner`. Its bytes start at [`Arena::HEADROOM`] and are none yet;
    /// what an earlier packet left in its memory is still there.
    #[inline]
    pub fn allocate(&mut self, owner: Owners) -> Option<Frame> {
        self.allocate_keeping(owner, 0)
    }

    /// As [`Arena::allocate`], but only while more than `reserve` frames are free, so that bulk
    /// data cannot take the last frames that acknowledgements need.
    #[inline]
    pub fn allocate_keeping(&mut self, owner: Owners, reserve: usize) -> Option<Frame> {
        debug_assert!(!owner.is_empty());
        if self.free.len() <= reserve {
            self.exhausted += 1;
            return None;
        }
        let frame = self.free.pop()?;
        self.meta[frame.index() as usize] =
            Meta { offset: Self::HEADROOM as u16, ..Meta::default() };
        self.owners[frame.index() as usize] = owner;
        Some(frame)
    }

    /// Takes a free frame for `owner` and copies `bytes` into it, from `meta.offset` on. Its entry
    /// is `meta`, with the length of `bytes`.
    ///
    /// # Panics
    /// When the bytes would leave the frame.
    #[inline(always)]
    pub fn allocate_filled(&mut self, owner: Owners, meta: Meta, bytes: &[u8]) -> Option<Frame> {
        debug_assert!(!owner.is_empty());
        let start = meta.offset as usize;
        if start + bytes.len() > self.frame_size {
            leaves_the_frame(start, bytes.len());
        }
        let Some(frame) = self.free.pop() else {
            self.exhausted += 1;
            return None;
        };
        let index = frame.index() as usize;
        // SAFETY: only frames of this arena are ever put on its free list, and there are as many
        // entries of each kind as frames. The bytes end within the frame (checked above), so the
        // target lies within the mapping. The frame was free, so neither the kernel nor a `Held`
        // reader has it, and `&mut self` excludes all other views of it, `bytes` included.
        unsafe {
            *self.owners.get_unchecked_mut(index) = owner;
            *self.meta.get_unchecked_mut(index) = Meta { len: bytes.len() as u16, ..meta };
            let to = self.base.0.as_ptr().add(index * self.frame_size + start);
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        Some(frame)
    }

    /// Adds an owner to a frame that already has one.
    #[inline(always)]
    pub fn own(&mut self, frame: Frame, owner: Owners) {
        let owners = &mut self.owners[frame.index() as usize];
        if owners.is_empty() {
            is_not(frame, owner, *owners);
        }
        *owners |= owner;
    }

    /// Passes a frame from one owner to another.
    #[inline]
    pub fn pass(&mut self, frame: Frame, from: Owners, to: Owners) {
        let owners = &mut self.owners[frame.index() as usize];
        if !owners.contains(from) {
            is_not(frame, from, *owners);
        }
        *owners = owners.without(from) | to;
    }

    /// Ends an ownership; the frame is free when it was the last.
    ///
    /// # Panics
    /// When `owner` does not own the frame. That is a mistake in the program, and going on would
    /// show one connection's bytes to another.
    #[inline]
    pub fn release(&mut self, frame: Frame, owner: Owners) {
        let owners = &mut self.owners[frame.index() as usize];
        if !owners.contains(owner) {
            is_not(frame, owner, *owners);
        }
        *owners = owners.without(owner);
        if owners.is_empty() {
            self.free.push(frame);
        }
    }

    /// [`Arena::release`] for every frame from `head` to the end of its chain.
    #[inline]
    pub fn release_chain(&mut self, head: Frame, owner: Owners) {
        let mut frame = head;
        while frame.is_some() {
            let next = self.meta[frame.index() as usize].next;
            self.release(frame, owner);
            frame = next;
        }
    }

    /// Copies a packet that is to be transmitted to `to`, which has room for all its bytes.
    ///
    /// # Panics
    /// When a part of the packet leaves its frame.
    pub fn gather(&self, packet: &Transmit, to: &mut [u8]) {
        let start = packet.offset as usize;
        let mut bytes = &self.room(packet.head)[start..start + packet.len as usize];
        let (mut frame, mut left) = (packet.head, to);
        for more in (0..packet.frames).rev() {
            let (now, later) = left.split_at_mut(bytes.len().min(left.len()));
            now.copy_from_slice(&bytes[..now.len()]);
            left = later;
            if more > 0 {
                frame = self.meta(frame).next;
                bytes = self.bytes(frame);
            }
        }
        debug_assert!(left.is_empty(), "the frames of a packet must hold its total");
        left.fill(0);
    }

    /// Ends [`Owners::TRANSMIT`] for the frames of a packet that the port is done with.
    #[inline]
    pub fn transmitted(&mut self, packet: &Transmit) {
        match packet.frames {
            1 => self.release(packet.head, Owners::TRANSMIT),
            frames => self.transmitted_chain(packet.head, frames),
        }
    }

    /// [`Arena::gather`] and [`Arena::transmitted`] in one: the transmission of a port whose wire
    /// has memory of its own.
    ///
    /// # Panics
    /// When the packet leaves its frames or a frame is not [`Owners::TRANSMIT`].
    #[inline(always)]
    pub fn transmit_to(&mut self, packet: &Transmit, to: &mut [u8]) {
        if packet.frames != 1 {
            return self.transmit_chain_to(packet, to);
        }
        debug_assert_eq!(packet.len as usize, to.len(), "a single frame holds the whole packet");
        let (frame, start) = (packet.head, packet.offset as usize);
        if start + to.len() > self.frame_size {
            leaves_the_frame(start, to.len());
        }
        let owners = &mut self.owners[frame.index() as usize];
        if owners.intersects(Owners::FILL) {
            is_untouchable(frame, *owners);
        }
        if !owners.contains(Owners::TRANSMIT) {
            is_not(frame, Owners::TRANSMIT, *owners);
        }
        *owners = owners.without(Owners::TRANSMIT);
        if owners.is_empty() {
            self.free.push(frame);
        }
        // SAFETY: `owners[index]` was in bounds and the bytes end within the frame (checked above),
        // so they lie within the mapping. The frame is not FILL, so the kernel does not write it,
        // and if it is free now, `&mut self` keeps it as it is until we return. For the same reason
        // `to` is no view of this arena.
        unsafe {
            let base = self.base.0.as_ptr();
            let from = base.add(frame.index() as usize * self.frame_size + start);
            core::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len());
        }
    }

    #[inline(never)]
    fn transmit_chain_to(&mut self, packet: &Transmit, to: &mut [u8]) {
        self.gather(packet, to);
        self.transmitted_chain(packet.head, packet.frames);
    }

    fn transmitted_chain(&mut self, head: Frame, frames: u16) {
        let mut frame = head;
        for _ in 0..frames {
            let next = self.meta[frame.index() as usize].next;
            self.release(frame, Owners::TRANSMIT);
            frame = next;
        }
    }

    /// Who needs a frame.
    #[inline]
    pub fn owners(&self, frame: Frame) -> Owners {
        self.owners[frame.index() as usize]
    }

    /// What is known of a frame.
    #[inline]
    pub fn meta(&self, frame: Frame) -> &Meta {
        &self.meta[frame.index() as usize]
    }

    /// What is known of a frame, to change it.
    #[inline]
    pub fn meta_mut(&mut self, frame: Frame) -> &mut Meta {
        &mut self.meta[frame.index() as usize]
    }

    /// The frame's bytes, from its offset.
    ///
    /// # Panics
    /// When the frame is with the port to be filled, or its offset and length leave the frame.
    #[inline(always)]
    pub fn bytes(&self, frame: Frame) -> &[u8] {
        let meta = &self.meta[frame.index() as usize];
        let (start, len) = (meta.offset as usize, meta.len as usize);
        &self.room(frame)[start..start + len]
    }

    /// The frame's bytes, from its offset, to be changed.
    ///
    /// # Panics
    /// As [`Arena::bytes`], and when the frame is held by a reader.
    #[inline]
    pub fn bytes_mut(&mut self, frame: Frame) -> &mut [u8] {
        let meta = &self.meta[frame.index() as usize];
        let (start, len) = (meta.offset as usize, meta.len as usize);
        &mut self.room_mut(frame)[start..start + len]
    }

    /// The whole room of a frame, head room included.
    ///
    /// # Panics
    /// When the frame is with the port to be filled.
    #[inline(always)]
    pub fn room(&self, frame: Frame) -> &[u8] {
        let index = frame.index() as usize;
        if self.owners[index].intersects(Owners::FILL) {
            is_untouchable(frame, self.owners[index]);
        }
        // SAFETY: `owners[index]` was in bounds, so the frame lies within the mapping. Only this
        // arena hands out its memory: `&self` excludes `room_mut`, and the kernel writes no frame
        // that is not FILL.
        unsafe {
            let start = self.base.0.as_ptr().add(index * self.frame_size);
            core::slice::from_raw_parts(start, self.frame_size)
        }
    }

    /// The whole room of a frame, to be changed.
    ///
    /// # Panics
    /// When the frame is with the port to be filled, or held by a reader.
    #[inline(always)]
    pub fn room_mut(&mut self, frame: Frame) -> &mut [u8] {
        let index = frame.index() as usize;
        let owners = self.owners[index];
        if owners.intersects(Owners::FILL | Owners::HELD) {
            is_untouchable(frame, owners);
        }
        // SAFETY: in bounds as in `room`; `&mut self` excludes other views made by this arena, and
        // a `Held` reader, the only one that outlives the borrow, owns no frame that passes the
        // assertion. The kernel reads frames in flight, which is no access of this program.
        unsafe {
            let start = self.base.0.as_ptr().add(index * self.frame_size);
            core::slice::from_raw_parts_mut(start, self.frame_size)
        }
    }

    /// Copies `source[range]` of one frame's room behind the bytes of another frame.
    /// Returns how many bytes there was room for.
    #[inline]
    pub fn append_from(&mut self, target: Frame, source: Frame, start: usize, len: usize) -> usize {
        assert_ne!(target, source);
        let meta = &self.meta[target.index() as usize];
        let end = meta.offset as usize + meta.len as usize;
        let len = len.min(self.frame_size - end);
        let from = &self.room(source)[start..start + len];
        let (from, to_index) = (from.as_ptr(), target.index() as usize * self.frame_size + end);
        let owners = self.owners[target.index() as usize];
        assert!(!owners.intersects(Owners::FILL | Owners::HELD), "{target:?} is {owners:?}");
        // SAFETY: both ranges were checked to lie within their frames, the frames differ, and
        // neither is with the kernel or, for the target, held by a reader.
        unsafe {
            let to = self.base.0.as_ptr().add(to_index);
            core::ptr::copy_nonoverlapping(from, to, len);
        }
        self.meta[target.index() as usize].len += len as u16;
        len
    }

    /// Sets a frame's bytes `start..start + len` (counted in its room) aside for a reader that may
    /// outlive the turn and may live in another thread. The frame is not reused before the reader
    /// is dropped and [`Arena::collect_held`] has run. `None` when somebody holds it already.
    pub fn hold(&mut self, frame: Frame, start: usize, len: usize) -> Option<Held> {
        assert!(start + len <= self.frame_size);
        let owners = &mut self.owners[frame.index() as usize];
        assert!(!owners.is_empty() && !owners.intersects(Owners::FILL));
        if owners.intersects(Owners::HELD) {
            return None;
        }
        *owners |= Owners::HELD;
        Some(Held::new(
            Arc::clone(&self.shared),
            frame,
            frame.index() as usize * self.frame_size + start,
            len,
        ))
    }

    /// Sets many frames aside for one reader, as [`Arena::hold`] does one. `None` when somebody
    /// holds one of them already, or one is named twice; then nothing has changed.
    pub fn hold_all(&mut self, frames: &[Frame]) -> Option<HeldFrames> {
        for (marked, frame) in frames.iter().enumerate() {
            let owners = &mut self.owners[frame.index() as usize];
            assert!(!owners.is_empty() && !owners.intersects(Owners::FILL));
            if owners.intersects(Owners::HELD) {
                for frame in &frames[..marked] {
                    let owners = &mut self.owners[frame.index() as usize];
                    *owners = owners.without(Owners::HELD);
                }
                return None;
            }
            *owners |= Owners::HELD;
        }
        Some(HeldFrames::new(Arc::clone(&self.shared), frames.into(), self.frame_size))
    }

    /// Takes back the frames whose readers are gone. Once a turn.
    #[inline]
    pub fn collect_held(&mut self) {
        if self.shared.nothing_returned() {
            return;
        }
        let mut frame = self.shared.take_returned();
        while frame.is_some() {
            let next = self.shared.returned_after(frame);
            self.release(frame, Owners::HELD);
            frame = next;
        }
    }
}

// What follows says what is wrong, apart from the code that must be short.

#[cold]
#[inline(never)]
fn is_not(frame: Frame, owner: Owners, owners: Owners) -> ! {
    panic!("{frame:?} is not {owner:?} but {owners:?}");
}

#[cold]
#[inline(never)]
fn is_untouchable(frame: Frame, owners: Owners) -> ! {
    panic!("{frame:?} may not be accessed: it is {owners:?}");
}

#[cold]
#[inline(never)]
fn leaves_the_frame(start: usize, len: usize) -> ! {
    panic!("{len} bytes from {start} on are too long for a frame");
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("frames", &self.frames())
            .field("frame_size", &self.frame_size)
            .field("free", &self.free())
            .field("hugepages", &self.mapping().hugepages())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arena(frames: u32) -> Arena {
        Arena::new(ArenaConfig { frames, frame_size: 2048, hugepages: Hugepages::Never }).unwrap()
    }

    #[test]
    fn a_frame_returns_with_its_last_owner() {
        let mut arena = arena(2);
        let frame = arena.allocate(Owners::UNACKED).unwrap();
        arena.own(frame, Owners::TRANSMIT);
        arena.release(frame, Owners::UNACKED);
        assert_eq!(arena.free(), 1);
        arena.release(frame, Owners::TRANSMIT);
        assert_eq!(arena.free(), 2);
    }

    #[test]
    #[should_panic(expected = "is not")]
    fn releasing_twice_is_caught() {
        let mut arena = arena(1);
        let frame = arena.allocate(Owners::RECEIVED).unwrap();
        arena.release(frame, Owners::RECEIVED);
        arena.release(frame, Owners::RECEIVED);
    }

    #[test]
    #[should_panic(expected = "may not be accessed: it is {fill}")]
    fn nobody_looks_at_a_frame_the_kernel_may_write() {
        let mut arena = arena(1);
        let frame = arena.allocate(Owners::FILL).unwrap();
        let _ = arena.bytes(frame);
    }

    #[test]
    fn exhaustion_is_counted_and_the_reserve_is_kept() {
        let mut arena = arena(3);
        assert!(arena.allocate_keeping(Owners::UNACKED, 2).is_some());
        assert!(arena.allocate_keeping(Owners::UNACKED, 2).is_none());
        assert_eq!(arena.exhausted(), 1);
        assert!(arena.allocate(Owners::TRANSMIT).is_some());
    }

    #[test]
    fn a_frame_is_taken_with_its_bytes_or_not_at_all() {
        let mut arena = arena(1);
        let meta = Meta { offset: 2, timestamp: 7, ..Meta::default() };
        let frame = arena.allocate_filled(Owners::RECEIVED, meta, b"millrace").unwrap();
        assert_eq!(arena.bytes(frame), b"millrace");
        assert_eq!(&arena.room(frame)[2..10], b"millrace");
        assert_eq!(arena.meta(frame).timestamp, 7);
        assert!(arena.allocate_filled(Owners::RECEIVED, meta, b"millrace").is_none());
        assert_eq!(arena.exhausted(), 1);
        arena.release(frame, Owners::RECEIVED);
        assert!(arena.allocate_filled(Owners::RECEIVED, meta, &[1; 2046]).is_some());
    }

    #[test]
    #[should_panic(expected = "too long")]
    fn a_frame_takes_no_more_than_it_has_room_for() {
        let meta = Meta { offset: 2, ..Meta::default() };
        let _ = arena(1).allocate_filled(Owners::RECEIVED, meta, &[1; 2047]);
    }

    #[test]
    fn a_packet_of_several_frames_is_transmitted_whole() {
        let mut arena = arena(3);
        let frames = [0; 3].map(|_| arena.allocate(Owners::TRANSMIT).unwrap());
        arena.meta_mut(frames[0]).next = frames[1];
        arena.meta_mut(frames[1]).next = frames[2];
        let packet = Transmit { head: frames[0], frames: 2, ..Transmit::default() };
        arena.transmitted(&packet);
        assert_eq!(arena.free(), 2);
        arena.transmitted(&Transmit { head: frames[2], frames: 1, ..packet });
        assert_eq!(arena.free(), 3);
    }

    #[test]
    fn a_packet_leaves_with_its_bytes_and_who_else_owns_its_frame_keeps_it() {
        let mut arena = arena(3);
        let frames = [0; 3].map(|_| arena.allocate(Owners::TRANSMIT).unwrap());
        for (frame, bytes) in frames.into_iter().zip([b"mill", b"race", b"flow"]) {
            arena.room_mut(frame)[10..14].copy_from_slice(bytes);
            *arena.meta_mut(frame) = Meta { offset: 10, len: 4, ..Meta::default() };
        }
        arena.own(frames[0], Owners::UNACKED);
        let lone = Transmit {
            head: frames[0],
            total: 3,
            offset: 11,
            len: 3,
            frames: 1,
            ..Transmit::default()
        };
        let mut to = [0; 3];
        arena.transmit_to(&lone, &mut to);
        assert_eq!((&to, arena.owners(frames[0])), (b"ill", Owners::UNACKED));
        arena.meta_mut(frames[1]).next = frames[2];
        let chain = Transmit { head: frames[1], total: 7, frames: 2, ..lone };
        let mut to = [0; 7];
        arena.transmit_to(&chain, &mut to);
        assert_eq!((&to, arena.free()), (b"aceflow", 2));
    }

    #[test]
    #[should_panic(expected = "is not {transmit} but {unacked}")]
    fn only_what_was_handed_over_is_transmitted() {
        let mut arena = arena(1);
        let head = arena.allocate(Owners::UNACKED).unwrap();
        let packet = Transmit { head, total: 4, len: 4, frames: 1, ..Transmit::default() };
        arena.transmit_to(&packet, &mut [0; 4]);
    }

    #[test]
    #[should_panic(expected = "too long")]
    fn no_packet_is_read_beyond_its_frame() {
        let mut arena = arena(1);
        let head = arena.allocate(Owners::TRANSMIT).unwrap();
        let packet =
            Transmit { head, total: 4, offset: 2045, len: 4, frames: 1, ..Transmit::default() };
        arena.transmit_to(&packet, &mut [0; 4]);
    }

    #[test]
    fn a_held_frame_survives_its_turn_and_comes_back() {
        let mut arena = arena(1);
        let frame = arena.allocate(Owners::RECEIVED).unwrap();
        arena.room_mut(frame)[128..132].copy_from_slice(b"mill");
        let held = arena.hold(frame, 128, 4).unwrap();
        assert!(arena.hold(frame, 128, 4).is_none());
        arena.release(frame, Owners::RECEIVED);
        assert!(arena.allocate(Owners::RECEIVED).is_none());
        let reader = std::thread::spawn(move || assert_eq!(&*held, b"mill"));
        reader.join().unwrap();
        arena.collect_held();
        assert_eq!(arena.free(), 1);
    }

    #[test]
    fn frames_that_were_held_together_come_back_together() {
        let mut arena = arena(4);
        let frames: Vec<Frame> =
            (0..3).map(|_| arena.allocate(Owners::RECEIVED).unwrap()).collect();
        arena.room_mut(frames[1])[7..11].copy_from_slice(b"mill");
        let held = arena.hold_all(&frames).unwrap();
        assert!(arena.hold_all(&frames[2..]).is_none());
        for &frame in &frames {
            arena.release(frame, Owners::RECEIVED);
        }
        assert_eq!(arena.free(), 1);
        std::thread::spawn(move || assert_eq!(held.bytes(1, 7, 4), b"mill")).join().unwrap();
        arena.collect_held();
        assert_eq!(arena.free(), 4);
    }

    #[test]
    fn a_hold_that_fails_changes_nothing() {
        let mut arena = arena(2);
        let frame = arena.allocate(Owners::RECEIVED).unwrap();
        let other = arena.allocate(Owners::RECEIVED).unwrap();
        assert!(arena.hold_all(&[frame, other, frame]).is_none());
        assert_eq!(
            (arena.owners(frame), arena.owners(other)),
            (Owners::RECEIVED, Owners::RECEIVED)
        );
        drop(arena.hold_all(&[]).unwrap());
        arena.collect_held();
        assert_eq!(arena.free(), 0);
    }

    #[test]
    #[should_panic]
    fn nobody_looks_beyond_a_held_frame() {
        let mut arena = arena(2);
        let frame = arena.allocate(Owners::RECEIVED).unwrap();
        let held = arena.hold_all(&[frame]).unwrap();
        let _ = held.bytes(0, 2000, 49);
    }

    #[test]
    #[should_panic(expected = "held")]
    fn a_held_frame_is_not_written() {
        let mut arena = arena(1);
        let frame = arena.allocate(Owners::RECEIVED).unwrap();
        let _held = arena.hold(frame, 0, 1).unwrap();
        arena.room_mut(frame)[0] = 1;
    }

    #[test]
    fn a_held_frame_outlives_the_arena() {
        let mut arena = arena(1);
        let frame = arena.allocate(Owners::RECEIVED).unwrap();
        arena.room_mut(frame)[0..4].copy_from_slice(b"race");
        let held = arena.hold(frame, 0, 4).unwrap();
        drop(arena);
        assert_eq!(&*held, b"race");
    }

    #[test]
    fn bad_sizes_are_refused_by_name() {
        for (frames, frame_size) in [(0, 2048), (1, 1000), (1, 65536), (1 << 25, 2048)] {
            let config = ArenaConfig { frames, frame_size, hugepages: Hugepages::Never };
            let error = Arena::new(config).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        }
    }

    #[test]
    fn append_from_copies_between_frames_and_stops_at_the_end() {
        let mut arena = arena(2);
        let a = arena.allocate(Owners::UNACKED).unwrap();
        let b = arena.allocate(Owners::UNACKED).unwrap();
        arena.room_mut(a).fill(7);
        assert_eq!(arena.append_from(b, a, 0, 2048), 2048 - Arena::HEADROOM);
        assert!(arena.bytes(b).iter().all(|&byte| byte == 7));
    }
}
