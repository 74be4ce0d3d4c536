//! An arena as the kernel sees it: frames by byte address, and the record of which frames the
//! kernel has.
//!
//! The record is what makes closing exact: the frames that are with the kernel are known here,
//! and not guessed from rings that the kernel has read half of.

use std::io;

use millrace_frames::{Arena, Frame, Owners};

use super::sys::XDP_PACKET_HEADROOM;

/// The smallest page of any Linux. A frame may not exceed a page.
const PAGE: usize = 4096;

/// Turns frames into the UMEM's addresses and back, and remembers which are with the kernel.
#[derive(Debug)]
pub(super) struct Umem {
    shift: u32,
    /// One bit for each frame in the fill ring, or taken from it and not yet received.
    filling: Box<[u64]>,
    /// How many transmissions of a frame are under way. More than one is possible: a frame may be
    /// sent again before the kernel has completed it.
    sending: Box<[u8]>,
    filled: u32,
    in_flight: u32,
}

impl Umem {
    /// # Errors
    /// `InvalidInput` for a frame size that the kernel does not take.
    pub(super) fn new(arena: &Arena) -> io::Result<Self> {
        let frame_size = arena.frame_size();
        if !frame_size.is_power_of_two() || !(2048..=PAGE).contains(&frame_size) {
            let text = format!("AF_XDP takes frames of 2048 or 4096 bytes, not {frame_size}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(Umem {
            shift: frame_size.trailing_zeros(),
            filling: vec![0; arena.frames().div_ceil(64)].into_boxed_slice(),
            sending: vec![0; arena.frames()].into_boxed_slice(),
            filled: 0,
            in_flight: 0,
        })
    }

    /// Bytes of the longest packet that fits a frame when it is received.
    pub(super) fn rx_room(frame_size: usize) -> usize {
        frame_size - XDP_PACKET_HEADROOM
    }

    /// The address of a byte of a frame.
    #[inline]
    pub(super) fn address(&self, frame: Frame, offset: u16) -> u64 {
        u64::from(frame.index()) << self.shift | u64::from(offset)
    }

    /// The frame that an address lies in, and where in it.
    #[inline]
    pub(super) fn locate(&self, address: u64) -> (Frame, u16) {
        let offset = address & ((1 << self.shift) - 1);
        (Frame::new((address >> self.shift) as u32), offset as u16)
    }

    /// Frames that are with the kernel to be filled.
    #[inline]
    pub(super) fn filled(&self) -> u32 {
        self.filled
    }

    /// Transmissions that are under way.
    #[inline]
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Takes a free frame for the kernel to fill.
    #[inline]
    pub(super) fn fill(&mut self, arena: &mut Arena) -> Option<u64> {
        let frame = arena.allocate(Owners::FILL)?;
        self.filling[frame.index() as usize / 64] |= 1 << (frame.index() % 64);
        self.filled += 1;
        Some(self.address(frame, 0))
    }

    /// Takes a received frame from the kernel; where in the frame its packet starts.
    ///
    /// # Errors
    /// When the kernel names a frame that it was not given.
    #[inline]
    pub(super) fn receive(&mut self, arena: &mut Arena, address: u64) -> io::Result<(Frame, u16)> {
        let (frame, offset) = self.locate(address);
        let bit = 1 << (frame.index() % 64);
        match self.filling.get_mut(frame.index() as usize / 64) {
            Some(word) if *word & bit != 0 => *word &= !bit,
            _ => return Err(foreign("receive", address)),
        }
        self.filled -= 1;
        arena.pass(frame, Owners::FILL, Owners::RECEIVED);
        Ok((frame, offset))
    }

    /// Whether one more transmission of a frame can be counted.
    #[inline]
    pub(super) fn may_send(&self, frame: Frame) -> bool {
        self.sending[frame.index() as usize] < u8::MAX
    }

    /// Counts a transmission. The frame is `TRANSMIT` by then.
    #[inline]
    pub(super) fn send(&mut self, frame: Frame) {
        self.sending[frame.index() as usize] += 1;
        self.in_flight += 1;
    }

    /// Counts the end of a transmission; the frame's `TRANSMIT` ends with the last of them.
    ///
    /// # Errors
    /// When the kernel names a frame that it was not given.
    #[inline]
    pub(super) fn complete(&mut self, arena: &mut Arena, address: u64) -> io::Result<()> {
        let (frame, _) = self.locate(address);
        match self.sending.get_mut(frame.index() as usize) {
            Some(count) if *count > 0 => *count -= 1,
            _ => return Err(foreign("completion", address)),
        }
        self.in_flight -= 1;
        self.end(arena, frame);
        Ok(())
    }

    /// Ends a frame's `TRANSMIT`, unless an earlier transmission of it is still under way.
    #[inline]
    pub(super) fn end(&self, arena: &mut Arena, frame: Frame) {
        if self.sending[frame.index() as usize] == 0 {
            arena.release(frame, Owners::TRANSMIT);
        }
    }

    /// Takes every frame back. Only when the kernel can touch none of them any more.
    pub(super) fn reclaim(&mut self, arena: &mut Arena) {
        for (word, bits) in self.filling.iter_mut().enumerate() {
            while *bits != 0 {
                let frame = Frame::new(word as u32 * 64 + bits.trailing_zeros());
                *bits &= *bits - 1;
                arena.release(frame, Owners::FILL);
            }
        }
        for (index, count) in self.sending.iter_mut().enumerate() {
            if *count > 0 {
                *count = 0;
                arena.release(Frame::new(index as u32), Owners::TRANSMIT);
            }
        }
        self.filled = 0;
        self.in_flight = 0;
    }
}

fn foreign(ring: &str, address: u64) -> io::Error {
    io::Error::other(format!("the {ring} ring names address {address:#x}, which was not given"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_frames::{ArenaConfig, Hugepages};

    fn arena(frames: u32, frame_size: u32) -> Arena {
        Arena::new(ArenaConfig { frames, frame_size, hugepages: Hugepages::Never }).unwrap()
    }

    #[test]
    fn addresses_name_frames_and_back() {
        for size in [2048, 4096] {
            let arena = arena(100, size);
            let umem = Umem::new(&arena).unwrap();
            for (index, offset) in [(0, 0), (1, 0), (99, 256), (7, size as u16 - 1)] {
                let address = umem.address(Frame::new(index), offset);
                assert_eq!(address, u64::from(index * size + u32::from(offset)));
                assert_eq!(umem.locate(address), (Frame::new(index), offset));
            }
        }
    }

    #[test]
    fn other_frame_sizes_are_refused_by_name() {
        let error = Umem::new(&arena(4, 8192)).unwrap_err();
        assert!(error.to_string().contains("8192"), "{error}");
    }

    #[test]
    fn a_frame_sent_twice_ends_with_its_last_completion() {
        let mut arena = arena(4, 2048);
        let mut umem = Umem::new(&arena).unwrap();
        let frame = arena.allocate(Owners::TRANSMIT).unwrap();
        umem.send(frame);
        umem.send(frame);
        umem.complete(&mut arena, umem.address(frame, 128)).unwrap();
        assert_eq!(arena.free(), 3);
        umem.complete(&mut arena, umem.address(frame, 60)).unwrap();
        assert_eq!(arena.free(), 4);
        assert_eq!(umem.in_flight(), 0);
    }

    #[test]
    fn addresses_that_were_not_given_are_errors() {
        let mut arena = arena(4, 2048);
        let mut umem = Umem::new(&arena).unwrap();
        for address in [0, 2048 * 4, u64::MAX] {
            assert!(umem.receive(&mut arena, address).is_err());
            assert!(umem.complete(&mut arena, address).is_err());
        }
        assert_eq!(arena.free(), 4);
    }

    #[test]
    fn reclaiming_takes_back_what_the_kernel_has_and_nothing_else() {
        let mut arena = arena(200, 2048);
        let mut umem = Umem::new(&arena).unwrap();
        let other = arena.allocate(Owners::FILL).unwrap();
        let addresses: Vec<_> = (0..130).map(|_| umem.fill(&mut arena).unwrap()).collect();
        let (received, offset) = umem.receive(&mut arena, addresses[77] + 256).unwrap();
        assert_eq!(offset, 256);
        let sent = arena.allocate(Owners::TRANSMIT).unwrap();
        umem.send(sent);
        assert_eq!((umem.filled(), umem.in_flight()), (129, 1));
        umem.reclaim(&mut arena);
        assert_eq!(arena.free(), 198);
        assert_eq!(arena.owners(received), Owners::RECEIVED);
        assert_eq!(arena.owners(other), Owners::FILL);
    }
}
