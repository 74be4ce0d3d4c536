//! A program's text, in the notation of `tcpdump -d`.

use std::fmt;

use super::{Alu, Cond, Op, Program, Size, Source};

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, op) in self.ops.iter().enumerate() {
            writeln!(f, "({at:03}) {op}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let load = |size: Size| match size {
            Size::Byte => "ldb",
            Size::Half => "ldh",
            Size::Word => "ld",
        };
        match *self {
            Op::Load(size, k) => write!(f, "{:<8} [{k}]", load(size)),
            Op::LoadIndirect(size, k) => write!(f, "{:<8} [x + {k}]", load(size)),
            Op::LoadImm(k) => write!(f, "{:<8} #{k:#x}", "ld"),
            Op::LoadLen => write!(f, "{:<8} #pktlen", "ld"),
            Op::LoadMem(word) => write!(f, "{:<8} M[{word}]", "ld"),
            Op::LoadXImm(k) => write!(f, "{:<8} #{k:#x}", "ldx"),
            Op::LoadXLen => write!(f, "{:<8} #pktlen", "ldx"),
            Op::LoadXMem(word) => write!(f, "{:<8} M[{word}]", "ldx"),
            Op::LoadXHeader(k) => write!(f, "{:<8} 4*([{k}]&0xf)", "ldxb"),
            Op::Store(word) => write!(f, "{:<8} M[{word}]", "st"),
            Op::StoreX(word) => write!(f, "{:<8} M[{word}]", "stx"),
            Op::Neg => f.write_str("neg"),
            Op::Tax => f.write_str("tax"),
            Op::Txa => f.write_str("txa"),
            Op::Jump(to) => write!(f, "{:<8} {to}", "ja"),
            Op::Return(k) => write!(f, "{:<8} #{k}", "ret"),
            Op::ReturnA => f.write_str("ret"),
            Op::Alu(alu, source) => {
                let name = match alu {
                    Alu::Add => "add",
                    Alu::Sub => "sub",
                    Alu::Mul => "mul",
                    Alu::Div => "div",
                    Alu::Mod => "mod",
                    Alu::And => "and",
                    Alu::Or => "or",
                    Alu::Xor => "xor",
                    Alu::Lsh => "lsh",
                    Alu::Rsh => "rsh",
                };
                match (alu, source) {
                    (Alu::And | Alu::Or | Alu::Xor, _) | (_, Source::X) => {
                        write!(f, "{name:<8} {source}")
                    }
                    (_, Source::K(k)) => write!(f, "{name:<8} #{k}"),
                }
            }
            Op::JumpIf(cond, source, jt, jf) => {
                let name = match cond {
                    Cond::Eq => "jeq",
                    Cond::Gt => "jgt",
                    Cond::Ge => "jge",
                    Cond::Set => "jset",
                };
                write!(f, "{name:<8} {:<16} jt {jt}\tjf {jf}", source.to_string())
            }
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::K(k) => write!(f, "#{k:#x}"),
            Source::X => f.write_str("x"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_tcpdumps() {
        for (op, text) in [
            (Op::Load(Size::Half, 12), "ldh      [12]"),
            (Op::LoadIndirect(Size::Word, 14), "ld       [x + 14]"),
            (Op::LoadXHeader(14), "ldxb     4*([14]&0xf)"),
            (Op::JumpIf(Cond::Eq, Source::K(0x800), 2, 5), "jeq      #0x800           jt 2\tjf 5"),
            (Op::Alu(Alu::And, Source::K(0xf0)), "and      #0xf0"),
            (Op::Alu(Alu::Sub, Source::X), "sub      x"),
            (Op::Alu(Alu::Mul, Source::K(20)), "mul      #20"),
            (Op::Return(262_144), "ret      #262144"),
        ] {
            assert_eq!(op.to_string(), text);
        }
    }
}
