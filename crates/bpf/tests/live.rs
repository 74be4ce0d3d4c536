//! Live frames leave by the interface as they were written, and nothing else does.

mod support;

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;

use millrace_bpf::insn::Reg::R0;
use millrace_bpf::live::{LONGEST, LiveFrames};
use millrace_bpf::program::action;
use millrace_bpf::{Assembler, Link, LoadOptions, Mode, XdpProgram};

/// EtherType "for local experiments" (IEEE 802), so that nobody else's frames are counted.
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];

/// A veth takes redirected frames only if its peer polls, which it does with a program.
fn passing(ifindex: u32) -> Link {
    let mut asm = Assembler::new();
    asm.mov(R0, action::PASS as i32).exit();
    let options = LoadOptions::named("passing");
    let program = XdpProgram::load(&asm.finish().unwrap(), &options).unwrap();
    program.attach(ifindex, Mode::Native).unwrap()
}

/// A packet socket that gets the experimental frames of an interface.
fn listen(ifindex: u32) -> OwnedFd {
    let protocol = u16::from_be_bytes(EXPERIMENTAL);
    // SAFETY: plain calls with an address that lives through them; the results are checked.
    unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        let fd = OwnedFd::from_raw_fd(fd);
        let buffer: libc::c_int = 32 << 20;
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const buffer).cast(),
            size_of::<libc::c_int>() as u32,
        );
        let mut address: libc::sockaddr_ll = core::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol.to_be();
        address.sll_ifindex = ifindex as i32;
        let len = size_of::<libc::sockaddr_ll>() as u32;
        assert_eq!(libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len), 0);
        fd
    }
}

/// The next frame, if it is there.
fn receive(socket: &OwnedFd) -> Option<Vec<u8>> {
    take(socket, libc::MSG_DONTWAIT)
}

/// The next frame. If none ever comes, the test hangs and is seen to.
fn next(socket: &OwnedFd) -> Vec<u8> {
    take(socket, 0).unwrap()
}

fn take(socket: &OwnedFd, flags: libc::c_int) -> Option<Vec<u8>> {
    let mut frame = vec![0; 4096];
    // SAFETY: the buffer has the stated length.
    let len = unsafe {
        let (to, len) = (frame.as_mut_ptr().cast(), frame.len());
        libc::recv(socket.as_raw_fd(), to, len, flags)
    };
    frame.truncate(usize::try_from(len).ok()?);
    Some(frame)
}

/// Frames that a veth has room for, however late it is polled: more at once may be dropped.
const LOT: u64 = 100;

fn frame(number: usize, len: usize) -> Vec<u8> {
    let mut frame = vec![number as u8; len];
    frame[..6].fill(0xff);
    frame[12..14].copy_from_slice(&EXPERIMENTAL);
    frame
}

fn put(live: &mut LiveFrames, frames: impl Iterator<Item = Vec<u8>>) {
    live.room();
    for (ahead, frame) in (0..).zip(frames) {
        live.write(ahead, frame.len(), |to| to.copy_from_slice(&frame));
    }
}

/// Waits until so many were sent; if they never are, the test hangs and is seen to.
fn wait(live: &LiveFrames, count: u64) {
    while live.sent() < count {
        live.check().unwrap();
        std::thread::yield_now();
    }
}

#[test]
fn frames_of_all_lengths_leave_as_they_were_written() {
    support::in_namespace("frames_of_all_lengths_leave_as_they_were_written", || {
        let (near, far) = support::veth_pair();
        for end in ["mrbpf0", "mrbpf1"] {
            support::ip(&format!("link set {end} mtu 3386"));
        }
        let _polled = passing(far);
        let socket = listen(far);
        let mut live = LiveFrames::new(near, 64).unwrap();
        let lens = [14, 60, 61, 64, 1514, 15, LONGEST, 200];
        put(&mut live, lens.iter().enumerate().map(|(index, &len)| frame(index, len)));
        live.publish(8).unwrap();
        wait(&live, 8);
        for (index, &len) in lens.iter().enumerate() {
            assert_eq!(next(&socket), frame(index, len), "{len}");
        }
        assert_eq!(receive(&socket), None);
        assert_eq!((live.failed(), live.waiting(), live.room()), (0, 0, 64));
        assert!(live.is_connected());
    });
}

#[test]
fn a_ring_goes_round() {
    support::in_namespace("a_ring_goes_round", || {
        let (near, far) = support::veth_pair();
        let _polled = passing(far);
        let socket = listen(far);
        let mut live = LiveFrames::new(near, 16).unwrap();
        live.set_period(3);
        put(&mut live, (0..3).map(|index| frame(index, 60 + index)));
        let mut seen = 0;
        for round in 1..=10 {
            live.publish(LOT).unwrap();
            wait(&live, LOT * round);
            for _ in 0..LOT {
                assert_eq!(next(&socket), frame(seen % 3, 60 + seen % 3));
                seen += 1;
            }
        }
        assert_eq!(receive(&socket), None);
    });
}

#[test]
fn what_is_written_while_it_sends_follows() {
    support::in_namespace("what_is_written_while_it_sends_follows", || {
        let (near, far) = support::veth_pair();
        let _polled = passing(far);
        let socket = listen(far);
        let mut live = LiveFrames::new(near, 16).unwrap();
        let mut written = 0;
        for lot in (0..2000).step_by(LOT as usize) {
            let end = lot + LOT as usize;
            while written < end {
                let room = live.room().min((end - written) as u32) as usize;
                put(&mut live, (written..written + room).map(|number| frame(number, 60)));
                live.publish(room as u64).unwrap();
                written += room;
            }
            wait(&live, end as u64);
            for number in lot..end {
                assert_eq!(next(&socket), frame(number, 60));
            }
        }
    });
}

#[test]
fn what_is_taken_back_is_not_sent() {
    support::in_namespace("what_is_taken_back_is_not_sent", || {
        let (near, far) = support::veth_pair();
        let _polled = passing(far);
        let socket = listen(far);
        let mut live = LiveFrames::new(near, 4).unwrap();
        put(&mut live, (0..4).map(|index| frame(index, 60)));
        live.publish(1 << 29).unwrap();
        while live.sent() < 100 {
            std::thread::yield_now();
        }
        live.withdraw();
        assert_eq!(live.waiting(), 0);
        drop(live);
        let mut seen = 0;
        while receive(&socket).is_some() {
            seen += 1;
        }
        assert!((100..1 << 25).contains(&seen), "{seen}");
    });
}

#[test]
fn an_interface_that_goes_is_noticed() {
    support::in_namespace("an_interface_that_goes_is_noticed", || {
        let (near, _) = support::veth_pair();
        let live = LiveFrames::new(near, 4).unwrap();
        let gone = Command::new("ip").args(["link", "del", "mrbpf0"]).status().unwrap();
        assert!(gone.success());
        assert!(!live.is_connected());
        assert!(LiveFrames::new(near, 4).is_err());
        assert!(LiveFrames::new(1, 0).unwrap_err().to_string().contains("1 to 65536 slots"));
    });
}

#[test]
fn a_veth_says_whether_it_takes_redirected_frames() {
    support::in_namespace("a_veth_says_whether_it_takes_redirected_frames", || {
        use millrace_bpf::features::{Features, features};
        let (near, far) = support::veth_pair();
        assert!(!features(near).unwrap().contains(Features::TAKES_REDIRECTED));
        let polled = passing(far);
        assert!(features(near).unwrap().contains(Features::TAKES_REDIRECTED));
        drop(polled);
        assert!(!features(near).unwrap().contains(Features::TAKES_REDIRECTED));
    });
}
