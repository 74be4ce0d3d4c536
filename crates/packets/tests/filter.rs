//! Any program decides the same: step by step as written down, in this process, and in the kernel as
//! an XDP program.

use millrace_bpf::classic::{Instruction, Program, socket, xdp};
use millrace_bpf::insn::Reg::*;
use millrace_bpf::{Assembler, LoadOptions, XdpProgram, may_bpf};
use millrace_packets::{Batch, Filter};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// What a program returns, from the definition of each instruction and nothing else.
fn plainly(program: &[Instruction], packet: &[u8], length: u32) -> u32 {
    let (mut a, mut x, mut memory, mut at) = (0u32, 0u32, [0u32; 16], 0);
    let load = |at: u64, len: u64| -> Option<u32> {
        let bytes = packet.get(usize::try_from(at).ok()?..usize::try_from(at + len).ok()?)?;
        Some(bytes.iter().fold(0, |value, &byte| value << 8 | u32::from(byte)))
    };
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let operand = if code & 8 != 0 { x } else { k };
        let len = [4, 2, 1, 0][usize::from(code >> 3 & 3)];
        match code {
            0x20 | 0x28 | 0x30 => match load(k.into(), len) {
                Some(value) => a = value,
                None => return 0,
            },
            0x40 | 0x48 | 0x50 => match load(u64::from(x) + u64::from(k), len) {
                Some(value) => a = value,
                None => return 0,
            },
            0x00 => a = k,
            0x80 => a = length,
            0x60 => a = memory[k as usize],
            0x01 => x = k,
            0x81 => x = length,
            0x61 => x = memory[k as usize],
            0xb1 => match load(k.into(), 1) {
                Some(value) => x = (value & 15) * 4,
                None => return 0,
            },
            0x02 => memory[k as usize] = a,
            0x03 => memory[k as usize] = x,
            0x04 | 0x0c => a = a.wrapping_add(operand),
            0x14 | 0x1c => a = a.wrapping_sub(operand),
            0x24 | 0x2c => a = a.wrapping_mul(operand),
            0x34 | 0x3c if operand == 0 => return 0,
            0x34 | 0x3c => a /= operand,
            0x94 | 0x9c if operand == 0 => return 0,
            0x94 | 0x9c => a %= operand,
            0x44 | 0x4c => a |= operand,
            0x54 | 0x5c => a &= operand,
            0xa4 | 0xac => a ^= operand,
            0x64 | 0x6c => a = if operand < 32 { a << operand } else { 0 },
            0x74 | 0x7c => a = if operand < 32 { a >> operand } else { 0 },
            0x84 => a = 0u32.wrapping_sub(a),
            0x07 => x = a,
            0x87 => a = x,
            0x05 => at += k as usize,
            0x15 | 0x1d => at += usize::from(if a == operand { jt } else { jf }),
            0x25 | 0x2d => at += usize::from(if a > operand { jt } else { jf }),
            0x35 | 0x3d => at += usize::from(if a >= operand { jt } else { jf }),
            0x45 | 0x4d => at += usize::from(if a & operand != 0 { jt } else { jf }),
            0x06 => return k,
            0x16 => return a,
            _ => panic!("code {code:#x}"),
        }
    }
}

/// One instruction of a program of `len`, with jumps that stay in it.
fn instruction(at: usize, len: usize) -> impl Strategy<Value = Instruction> {
    let place = prop_oneof![
        8 => 0..70u32,
        1 => 60_000..70_000u32,
        1 => prop_oneof![Just(u32::MAX), Just(0xffff_f02c), Just(0x8000_0000), any::<u32>()],
    ];
    let value = prop_oneof![4 => 0..70u32, 2 => Just(0x0800), 2 => any::<u32>()];
    let plain = |code: u16, k: u32| Instruction { code, jt: 0, jf: 0, k };
    let left = (len - at - 2) as u8;
    prop_oneof![
        6 => (prop::sample::select(vec![0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0xb1]), place)
            .prop_map(move |(code, k)| plain(code, k)),
        3 => (prop::sample::select(vec![0x00, 0x01]), value.clone())
            .prop_map(move |(code, k)| plain(code, k)),
        1 => prop::sample::select(vec![0x80, 0x81]).prop_map(move |code| plain(code, 0)),
        2 => (prop::sample::select(vec![0x60, 0x61, 0x02, 0x03]), 0..4u32)
            .prop_map(move |(code, k)| plain(code, k)),
        4 => (prop::sample::select(vec![0x04, 0x14, 0x24, 0x44, 0x54, 0xa4]), value.clone())
            .prop_map(move |(code, k)| plain(code, k)),
        2 => (prop::sample::select(vec![0x34, 0x94]), 1..300u32)
            .prop_map(move |(code, k)| plain(code, k)),
        2 => (prop::sample::select(vec![0x64, 0x74]), 0..32u32)
            .prop_map(move |(code, k)| plain(code, k)),
        3 => prop::sample::select(vec![
                0x0c, 0x1c, 0x2c, 0x3c, 0x4c, 0x5c, 0x6c, 0x7c, 0x9c, 0xac, 0x84, 0x07, 0x87,
            ])
            .prop_map(move |code| plain(code, 0)),
        5 => (
                prop::sample::select(vec![0x15, 0x1d, 0x25, 0x2d, 0x35, 0x3d, 0x45, 0x4d]),
                value,
                0..=left,
                0..=left,
            )
            .prop_map(|(code, k, jt, jf)| Instruction { code, jt, jf, k }),
        1 => (0..=u32::from(left)).prop_map(move |k| plain(0x05, k)),
        1 => (prop::sample::select(vec![0x06, 0x16]), 0..3u32)
            .prop_map(move |(code, k)| plain(code, k)),
    ]
}

fn programs() -> impl Strategy<Value = Vec<Instruction>> {
    (1..30usize).prop_flat_map(|len| {
        let body: Vec<_> = (0..len - 1).map(|at| instruction(at, len).boxed()).collect();
        let last = prop_oneof![Just(0x06u16), Just(0x16)].prop_flat_map(|code| {
            (0..2u32).prop_map(move |k| Instruction { code, jt: 0, jf: 0, k })
        });
        (body, last).prop_map(|(mut body, last)| {
            body.push(last);
            body
        })
    })
}

fn packets() -> impl Strategy<Value = Vec<u8>> {
    let small = prop_oneof![3 => Just(0u8), 1 => 0..16u8, 2 => any::<u8>()];
    (prop::collection::vec(small, 14..90), any::<bool>()).prop_map(|(mut packet, ip)| {
        if ip && packet.len() > 34 {
            packet[12..15].copy_from_slice(&[8, 0, 0x45]);
        }
        packet
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn it_runs_as_written_down(
        instructions in programs(),
        packet in packets(),
        longer in 0..2000u32,
    ) {
        let filter = Filter::new(Program::new(&instructions).unwrap());
        let length = packet.len() as u32 + longer;
        prop_assert_eq!(filter.run(&packet, length), plainly(&instructions, &packet, length));
    }

    /// The program for a socket decides the same where there is no tag: what it asks the kernel for
    /// is then not there, which reads as 0 here.
    #[test]
    fn the_program_for_a_socket_is_one(instructions in programs()) {
        let program = Program::new(&instructions).unwrap();
        let changed = socket::program(&program).unwrap();
        prop_assert!(Program::new(&changed).is_ok());
    }
}

/// The program as an XDP program of its own: `DROP` for what it rejects.
fn load(program: &Program) -> XdpProgram {
    let mut asm = Assembler::new();
    let (accept, reject) = (asm.label(), asm.label());
    asm.mov(R6, R1);
    xdp::emit(&mut asm, program, R6, accept, reject);
    asm.bind(accept).mov(R0, 2).exit();
    asm.bind(reject).mov(R0, 1).exit();
    let code = asm.finish().unwrap();
    XdpProgram::load(&code, &LoadOptions::named("mr_classic")).unwrap_or_else(|error| {
        panic!("{error}\n{program}\n{code}");
    })
}

#[test]
fn the_kernel_decides_the_same() {
    if let Err(why) = may_bpf() {
        println!("SKIP the_kernel_decides_the_same: {why}");
        return;
    }
    let mut runner = TestRunner::deterministic();
    let cases = (programs(), prop::collection::vec(packets(), 1..6));
    let mut accepted = 0;
    for _ in 0..400 {
        let tree = cases.new_tree(&mut runner).unwrap();
        let (instructions, packets) = proptest::strategy::ValueTree::current(&tree);
        let program = Program::new(&instructions).unwrap();
        let filter = Filter::new(program.clone());
        let kernel = load(&program);
        for packet in packets {
            let ours = filter.accepts(&packet, packet.len() as u32);
            let theirs = kernel.test_run(&packet, 1).unwrap().action == 2;
            assert_eq!(ours, theirs, "{program}{packet:x?}");
            accepted += usize::from(ours);
        }
    }
    // A test in which nothing is ever accepted would show little.
    assert!(accepted > 100, "{accepted}");
}

#[test]
fn a_batch_is_filtered_by_the_length_on_the_wire() {
    // len > 100
    let program = [(0x80, 0, 0, 0), (0x25, 0, 1, 100), (0x06, 0, 0, 1), (0x06, 0, 0, 0)];
    let program: Vec<_> =
        program.iter().map(|&(code, jt, jf, k)| Instruction { code, jt, jf, k }).collect();
    let filter = Filter::new(Program::new(&program).unwrap());
    let packets = [vec![0; 100], vec![0; 101], vec![0; 60]];
    let batch = Batch::copied(packets.iter().map(Vec::as_slice), 0);
    assert_eq!(filter.accepted(&batch), [0, 1, 0]);
    assert!(filter.accepts(&[0; 60], 1514));
}
