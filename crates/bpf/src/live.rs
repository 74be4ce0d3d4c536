//! Frames that the kernel makes and sends by itself (`BPF_F_TEST_XDP_LIVE_FRAMES`, Linux 5.18): it
//! runs a program on pages of its own, as often as it is told to, and does with each what the
//! program says. The program here fills the page with the next frame of a ring that this process
//! writes, and redirects it to an interface. No socket buffer is made of it, and no system call is
//! made for a packet.
//!
//! To begin and to end such a run takes the kernel some thirty milliseconds, so a thread of its own
//! makes few and long ones, in which the program looks at the ring again and again: it uses a core
//! while there is something to send, and for a moment longer.
//!
//! What the interface has no room for is dropped there, as with every redirected frame; nothing but
//! the interface's own counters says so.
//!
//! Linux, Documentation/bpf/bpf_prog_run.rst.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::asm::{Assembler, Program};
use crate::error::{Error, Result};
use crate::insn::{Alu, Atomic, Cond, Helper, Insn, Reg, Size};
use crate::map::{Map, MapKind, MapSpec, TypedMap};
use crate::program::{LoadOptions, XdpProgram, action};
use crate::sys;

/// `BPF_F_MMAPABLE`.
const MMAPABLE: u32 = 1 << 10;
/// `BPF_F_TEST_XDP_LIVE_FRAMES`.
const LIVE_FRAMES: u32 = 1 << 1;
/// Frames between two hand-overs to the interface; the kernel takes up to 256.
const BATCH: u32 = 64;
/// Before a frame's bytes in its slot: their number.
const HEAD: usize = 8;
/// Bytes of an Ethernet header: the kernel takes no less.
const SHORTEST: usize = 14;
/// Bytes of a slot.
const SLOT: usize = 4096;
/// Slots of the largest ring.
const MOST_SLOTS: u32 = 1 << 16;

/// How long the sender's thread sleeps at most.
const LOOK: Duration = Duration::from_millis(100);

/// Bytes of the longest frame: a page without what the kernel keeps in it before and behind the
/// frame (256 bytes of head room, the page's head, `struct skb_shared_info`).
pub const LONGEST: usize = 3400;

/// Frames that one run of the kernel takes at most: some seconds of sending.
const MOST_RUNS: u32 = 8 << 20;
/// As many looks at the ring, with frames or without, as a run has where more frames may follow: a
/// tenth of a second without.
const STREAM: u32 = 4 << 20;

/// Where in the cursor's memory the words are: what the program writes, and, in another cache line,
/// what we do.
const NEXT: usize = 0;
const FAILED: usize = 8;
const TAIL: usize = 128;
const PERIOD: usize = 136;
const CURSOR: usize = 256;

/// A ring of frames that the kernel sends by one interface.
#[derive(Debug)]
pub struct LiveFrames {
    shared: Arc<Shared>,
    slots: u32,
    /// Slots that are used in turn.
    period: u32,
    tail: u64,
    /// What [`LiveFrames::room`] said.
    room: u32,
    device: TypedMap<u32, u32>,
    thread: Option<JoinHandle<()>>,
}

/// What the sender's thread has, too.
#[derive(Debug)]
struct Shared {
    program: XdpProgram,
    ring: Mapped,
    cursor: Mapped,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stop: bool,
    /// A run has failed, and why.
    failed: Option<Error>,
}

impl LiveFrames {
    /// A ring of `slots` frames, at most 65,536, for the interface with this number in the caller's
    /// network namespace.
    ///
    /// # Errors
    /// `EPERM` without the capabilities, `ENODEV` without the interface, else what the kernel says.
    pub fn new(ifindex: u32, slots: u32) -> Result<LiveFrames> {
        if slots == 0 || slots > MOST_SLOTS {
            let text = format!("a ring of live frames has 1 to {MOST_SLOTS} slots, not {slots}");
            return Err(Error::Argument(text));
        }
        let array = |name, value_size: usize, max_entries| {
            let value_size = value_size as u32;
            let kind = MapKind::Array;
            let flags = MMAPABLE;
            Map::create(&MapSpec { name, kind, key_size: 4, value_size, max_entries, flags })
        };
        let ring = array("live_ring", SLOT, slots)?;
        let cursor = array("live_cursor", CURSOR, 1)?;
        let device = TypedMap::create("live_device", MapKind::DevMap, 1)?;
        device.set(&0, &ifindex)?;
        let program = assemble(&ring, &cursor, device.map())?;
        let program = XdpProgram::load(&program, &LoadOptions::named("live_frames"))?;
        let shared = Arc::new(Shared {
            program,
            ring: Mapped::new(&ring, slots as usize * SLOT)?,
            cursor: Mapped::new(&cursor, CURSOR)?,
            state: Mutex::default(),
            wake: Condvar::new(),
        });
        shared.word(PERIOD).store(slots.into(), Ordering::Relaxed);
        let sender = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("live-frames".into());
        let thread = thread.spawn(move || sender.run()).map_err(|error| {
            let errno = error.raw_os_error().unwrap_or(libc::EAGAIN);
            Error::system("starting a thread that sends live frames", errno)
        })?;
        Ok(LiveFrames {
            shared,
            slots,
            period: slots,
            tail: 0,
            room: 0,
            device,
            thread: Some(thread),
        })
    }

    /// Frames that the ring has room for now, to be written by [`LiveFrames::write`].
    #[inline]
    pub fn room(&mut self) -> u32 {
        let next = self.shared.word(NEXT).load(Ordering::Acquire);
        // One may have been sent while its end was taken back.
        self.tail = self.tail.max(next);
        self.room = u64::from(self.period).saturating_sub(self.tail - next) as u32;
        self.room
    }

    /// Uses so many of the slots in turn from now on, starting with the next. Nothing may wait.
    ///
    /// # Panics
    /// For none, for more than there are, and while something waits.
    pub fn set_period(&mut self, period: u32) {
        assert!((1..=self.slots).contains(&period) && self.waiting() == 0);
        self.period = period;
        self.shared.word(PERIOD).store(period.into(), Ordering::Release);
    }

    /// Slots that there are.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Frames that were published and not sent yet.
    #[inline]
    pub fn waiting(&self) -> u64 {
        self.shared.waiting()
    }

    /// Frames that were sent since it was made, those that failed among them.
    #[inline]
    pub fn sent(&self) -> u64 {
        self.shared.word(NEXT).load(Ordering::Acquire)
    }

    /// Puts a frame of `len` bytes, which `fill` writes, `ahead` places behind those that were
    /// published. Call [`LiveFrames::room`] before a burst and [`LiveFrames::publish`] after it.
    ///
    /// # Panics
    /// Where there was no room, or for more bytes than [`LONGEST`].
    #[inline]
    pub fn write(&mut self, ahead: u32, len: usize, fill: impl FnOnce(&mut [u8])) {
        assert!(ahead < self.room && len <= LONGEST);
        let index = (self.tail + u64::from(ahead)) % u64::from(self.period);
        // SAFETY: the slot lies within the ring. The program reads only slots that were published
        // and not sent, and this one is not among them, as was just asserted; nobody else has it,
        // as `self` is borrowed.
        let slot = unsafe {
            let start = self.shared.ring.base.as_ptr().add(index as usize * SLOT);
            core::slice::from_raw_parts_mut(start, HEAD + len)
        };
        slot[..4].copy_from_slice(&(len as u32).to_ne_bytes());
        fill(&mut slot[HEAD..]);
    }

    /// Has frames sent that were written. More of them than the period are sent over and over, where
    /// every slot was written.
    ///
    /// # Errors
    /// What sending said before.
    #[inline]
    pub fn publish(&mut self, count: u64) -> Result<()> {
        let idle = self.waiting() == 0;
        self.tail = self.tail.saturating_add(count);
        self.room = 0;
        self.shared.word(TAIL).store(self.tail, Ordering::Release);
        if idle {
            self.wake()?;
        }
        Ok(())
    }

    /// Takes back what was published and is not sent yet.
    pub fn withdraw(&mut self) {
        let next = self.shared.word(NEXT).load(Ordering::Acquire);
        self.shared.word(TAIL).store(next, Ordering::SeqCst);
        self.tail = next;
        self.room = 0;
    }

    /// Frames that could not be made, because the kernel had no room for one of that length.
    pub fn failed(&self) -> u64 {
        self.shared.word(FAILED).load(Ordering::Relaxed)
    }

    /// Whether the interface is still there.
    pub fn is_connected(&self) -> bool {
        self.device.get(&0).is_ok_and(|device| device.is_some_and(|index| index != 0))
    }

    /// What sending said, if it has failed.
    ///
    /// # Errors
    /// As that.
    pub fn check(&self) -> Result<()> {
        match &lock(&self.shared.state).failed {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    #[cold]
    fn wake(&self) -> Result<()> {
        self.check()?;
        self.shared.wake.notify_one();
        Ok(())
    }
}

impl Drop for LiveFrames {
    fn drop(&mut self) {
        self.withdraw();
        lock(&self.shared.state).stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // It does nothing that could panic.
            let _ = thread.join();
        }
    }
}

impl Shared {
    #[inline]
    fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the words are aligned and within the mapping, which lives as long as `self`.
        // This process and the program change them as atomics.
        unsafe { AtomicU64::from_ptr(self.cursor.base.as_ptr().add(offset).cast()) }
    }

    fn waiting(&self) -> u64 {
        let tail = self.word(TAIL).load(Ordering::Acquire);
        tail.saturating_sub(self.word(NEXT).load(Ordering::Acquire))
    }

    /// Run after run while there is something to send.
    fn run(&self) {
        let mut state = lock(&self.state);
        loop {
            while !state.stop && (self.waiting() == 0 || state.failed.is_some()) {
                // With a bound: a wake-up may come between the look and the sleep.
                let waited = self.wake.wait_timeout(state, LOOK);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            if state.stop {
                return;
            }
            drop(state);
            let result = self.run_once();
            state = lock(&self.state);
            state.failed = result.err();
        }
    }

    fn run_once(&self) -> Result<()> {
        let repeat = self.waiting().clamp(STREAM.into(), MOST_RUNS.into()) as u32;
        let next = self.word(NEXT).load(Ordering::Acquire);
        let period = self.word(PERIOD).load(Ordering::Acquire).max(1);
        let slot = (next % period) as usize * SLOT;
        // The page begins as long as the next frame, and most are: then nothing is to be changed.
        // SAFETY: the slot was published, so nobody writes it; it lies within the ring.
        let head = unsafe { self.ring.base.as_ptr().add(slot).cast::<u32>().read() };
        let len = (head as usize).clamp(SHORTEST, LONGEST);
        let frame = [0u8; LONGEST];
        let mut attr = sys::TestRunAttr {
            prog_fd: self.program.as_fd().as_raw_fd() as u32,
            data_size_in: len as u32,
            data_in: frame.as_ptr() as u64,
            repeat,
            flags: LIVE_FRAMES,
            batch_size: BATCH,
            ..Default::default()
        };
        // SAFETY: the frame has the stated length and outlives the call.
        match unsafe { sys::bpf(sys::PROG_TEST_RUN, &mut attr) } {
            Ok(_) | Err(libc::EINTR) => Ok(()),
            Err(errno) => Err(Error::system("sending live frames (it takes Linux 5.18)", errno)),
        }
    }
}

/// What a panic elsewhere left is whole: nothing is changed in two steps.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The program that makes a frame of a slot.
fn assemble(ring: &Map, cursor: &Map, device: &Map) -> Result<Program> {
    use Reg::*;
    let mut asm = Assembler::new();
    let (failed, same, drop) = (asm.label(), asm.label(), asm.label());
    asm.mov(R6, R1)
        // Which slot is next, if there is one.
        .store(Size::Word, R10, -4, 0)
        .load_map(R1, cursor.as_fd())
        .mov(R2, R10)
        .alu(Alu::Add, R2, -4)
        .call(Helper::MAP_LOOKUP_ELEM)
        .jump_if(Cond::Eq, R0, 0, drop)
        .mov(R9, R0)
        .load(Size::Double, R7, R9, NEXT as i16)
        .load(Size::Double, R1, R9, TAIL as i16)
        // It may be behind: the end was taken back and one more was sent meanwhile.
        .jump_if(Cond::Ge, R7, R1, drop)
        .load(Size::Double, R1, R9, PERIOD as i16)
        .alu(Alu::Mod, R7, R1)
        .store(Size::Word, R10, -4, R7)
        .load_map(R1, ring.as_fd())
        .mov(R2, R10)
        .alu(Alu::Add, R2, -4)
        .call(Helper::MAP_LOOKUP_ELEM)
        .jump_if(Cond::Eq, R0, 0, drop)
        .mov(R7, R0)
        .load(Size::Word, R8, R7, 0)
        .jump_if(Cond::Lt, R8, SHORTEST as i32, failed)
        .jump_if(Cond::Gt, R8, LONGEST as i32, failed)
        // As long as the frame shall be.
        .load(Size::Word, R3, R6, 0)
        .load(Size::Word, R2, R6, 4)
        .alu(Alu::Sub, R2, R3)
        .mov(R3, R8)
        .alu(Alu::Sub, R3, R2)
        .jump_if(Cond::Eq, R3, 0, same)
        .mov(R1, R6)
        .mov(R2, R3)
        .call(Helper::XDP_ADJUST_TAIL)
        .jump_if(Cond::Ne, R0, 0, failed)
        .bind(same)
        .mov(R1, R6)
        .mov(R2, 0)
        .mov(R3, R7)
        .alu(Alu::Add, R3, HEAD as i32)
        .mov(R4, R8)
        .call(Helper::XDP_STORE_BYTES)
        .jump_if(Cond::Ne, R0, 0, failed);
    advance(&mut asm, NEXT);
    asm.load_map(R1, device.as_fd())
        .mov(R2, 0)
        .mov(R3, action::DROP as i32)
        .call(Helper::REDIRECT_MAP)
        .exit()
        .bind(failed);
    advance(&mut asm, FAILED);
    advance(&mut asm, NEXT);
    asm.bind(drop).mov(R0, action::DROP as i32).exit();
    asm.finish().map_err(|error| Error::Argument(error.to_string()))
}

/// Counts one of the cursor's words up, after all that was done before.
fn advance(asm: &mut Assembler, word: usize) {
    let add = Insn::atomic(Atomic::FetchAdd, Size::Double, Reg::R9, word as i16, Reg::R1);
    asm.mov(Reg::R1, 1).push(add);
}

/// An array map's memory.
#[derive(Debug)]
struct Mapped {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: plain memory without thread affinity.
unsafe impl Send for Mapped {}
// SAFETY: it is reached through `LiveFrames::write`, which has its owner for itself, and through
// atomics.
unsafe impl Sync for Mapped {}

impl Mapped {
    fn new(map: &Map, len: usize) -> Result<Mapped> {
        // The kernel's memory of an array is whole pages.
        let len = len.next_multiple_of(4096);
        // SAFETY: a mapping at an address of the kernel's choice touches nothing existing.
        let address = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let fd = map.as_fd().as_raw_fd();
            libc::mmap(core::ptr::null_mut(), len, protection, libc::MAP_SHARED, fd, 0)
        };
        let base = NonNull::new(address.cast()).filter(|_| address != libc::MAP_FAILED);
        base.map(|base| Mapped { base, len })
            .ok_or_else(|| Error::system(format!("mapping {}", map.name()), sys::errno()))
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, unmapped once; no slice of it outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
