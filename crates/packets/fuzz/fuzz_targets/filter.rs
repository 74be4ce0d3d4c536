//! Any instructions as a packet filter: what the check lets through runs to its end on any frame,
//! and becomes programs for the kernel.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace_bpf::Assembler;
use millrace_bpf::classic::{Instruction, Program, socket, xdp};
use millrace_bpf::insn::Reg::{R0, R1, R6};
use millrace_packets::Filter;

fuzz_target!(|input: (Vec<(u16, u8, u8, u32)>, Vec<u8>, u32)| {
    let (plain, frame, length) = input;
    let instructions: Vec<_> =
        plain.iter().map(|&(code, jt, jf, k)| Instruction { code, jt, jf, k }).collect();
    let Ok(program) = Program::new(&instructions) else { return };
    assert!(!program.to_string().is_empty());
    let filter = Filter::new(program.clone());
    filter.run(&frame, length);
    if let Ok(changed) = socket::program(&program) {
        assert!(Program::new(&changed).is_ok());
    }
    let mut asm = Assembler::new();
    let (accept, reject) = (asm.label(), asm.label());
    asm.mov(R6, R1);
    xdp::emit(&mut asm, &program, R6, accept, reject);
    asm.bind(accept).mov(R0, 2).exit();
    asm.bind(reject).mov(R0, 1).exit();
    asm.finish().expect("a program whose jumps all lead somewhere");
});
