//! Packet filters as XDP programs, through the kernel's own test run.

mod support;

use std::os::fd::AsFd;

use millrace_bpf::classic::{Instruction, Program};
use millrace_bpf::program::action;
use millrace_bpf::{RedirectConfig, Redirector};

fn program(instructions: &[(u16, u8, u8, u32)]) -> Program {
    let instructions: Vec<_> =
        instructions.iter().map(|&(code, jt, jf, k)| Instruction { code, jt, jf, k }).collect();
    Program::new(&instructions).unwrap()
}

/// What libpcap makes of `udp port 53`.
fn udp_port_53() -> Program {
    program(&[
        (0x28, 0, 0, 12),
        (0x15, 0, 4, 0x86dd),
        (0x30, 0, 0, 20),
        (0x15, 0, 11, 0x11),
        (0x28, 0, 0, 54),
        (0x15, 8, 7, 0x35),
        (0x15, 0, 8, 0x800),
        (0x30, 0, 0, 23),
        (0x15, 0, 6, 0x11),
        (0x28, 0, 0, 20),
        (0x45, 4, 0, 0x1fff),
        (0xb1, 0, 0, 14),
        (0x48, 0, 0, 14),
        (0x15, 0, 1, 0x35),
        (0x06, 0, 0, 262_144),
        (0x06, 0, 0, 0),
    ])
}

fn datagram(options: usize, fragment: u16, port: u16) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45 + options as u8, 0, 0, 0, 0, 0]);
    frame.extend(fragment.to_be_bytes());
    frame.extend([64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    frame.extend(vec![0; options * 4]);
    frame.extend(port.to_be_bytes());
    frame.extend([0xff, 0xff, 0, 8, 0, 0]);
    frame
}

/// The redirector takes what the filter accepts and counts the rest as passed.
#[test]
fn a_filter_decides_what_is_redirected() {
    support::in_namespace("a_filter_decides_what_is_redirected", || {
        let redirector = Redirector::load(&RedirectConfig::expression(udp_port_53()), 1).unwrap();
        let socket = support::xdp_socket();
        redirector.register(0, socket.as_fd()).unwrap();
        for (frame, taken) in [
            (datagram(0, 0, 53), true),
            (datagram(3, 0, 53), true),
            (datagram(0, 0, 54), false),
            (datagram(0, 0x2000, 53), true),
            (datagram(0, 0x0001, 53), false),
            (datagram(0, 0, 53)[..35].to_vec(), false),
            (vec![0xff; 14], false),
        ] {
            let wanted = if taken { action::REDIRECT } else { action::PASS };
            assert_eq!(redirector.test_run(&frame, 1).unwrap().action, wanted, "{frame:x?}");
        }
        let counters = redirector.counters().unwrap();
        assert_eq!((counters.redirected, counters.passed), (3, 4));
    });
}

/// Programs that take all, take nothing, or look farther than any frame reaches load as well.
#[test]
fn programs_with_parts_that_are_never_reached_load() {
    support::in_namespace("programs_with_parts_that_are_never_reached_load", || {
        for (instructions, taken) in [
            (vec![(0x06, 0, 0, 1)], true),
            (vec![(0x06, 0, 0, 0)], false),
            (vec![(0x06, 0, 0, 1), (0x06, 0, 0, 0)], true),
            (vec![(0x30, 0, 0, 0xffff), (0x06, 0, 0, 1)], false),
            (vec![(0x20, 0, 0, 0xffff_ffff), (0x06, 0, 0, 1)], false),
            (vec![(0x30, 0, 0, 40_000), (0x06, 0, 0, 1)], false),
            (vec![(0x40, 0, 0, 0xffff_fff0), (0x06, 0, 0, 1)], false),
            (vec![(0x80, 0, 0, 0), (0x25, 0, 1, 13), (0x06, 0, 0, 1), (0x06, 0, 0, 0)], true),
            (vec![(0x16, 0, 0, 0)], false),
        ] {
            let config = RedirectConfig::expression(program(&instructions));
            let redirector = Redirector::load(&config, 1).unwrap();
            let socket = support::xdp_socket();
            redirector.register(0, socket.as_fd()).unwrap();
            let wanted = if taken { action::REDIRECT } else { action::PASS };
            let action = redirector.test_run(&[0; 60], 1).unwrap().action;
            assert_eq!(action, wanted, "{instructions:?}");
        }
    });
}
