//! The kernel's own description of its types (BTF), as far as tracing needs it: enumerations by name,
//! places of members in structures, and the numbers of types that programs attach to.
//!
//! Format: the kernel's Documentation/bpf/btf.rst. Every length is checked; a file that is cut or lies
//! is an error.

use std::collections::HashMap;

use crate::error::{Error, Result};

const PATH: &str = "/sys/kernel/btf/vmlinux";
const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;
/// How deep modifiers, typedefs and anonymous members are followed.
const DEPTH: u32 = 32;

const PTR: u8 = 2;
const ARRAY: u8 = 3;
const STRUCT: u8 = 4;
const UNION: u8 = 5;
const ENUM: u8 = 6;
const TYPEDEF: u8 = 8;
const VOLATILE: u8 = 9;
const CONST: u8 = 10;
const RESTRICT: u8 = 11;
const FUNC_PROTO: u8 = 13;
const TYPE_TAG: u8 = 18;
const ENUM64: u8 = 19;

/// Types of the running kernel, or of a file.
#[derive(Debug)]
pub struct Btf {
    bytes: Vec<u8>,
    /// Where each type stands; number 0 is `void`, which stands nowhere.
    types: Vec<u32>,
    strings: (usize, usize),
    /// Named types by kind and name, the first of each.
    names: HashMap<(u8, Vec<u8>), u32>,
}

struct Type {
    name: u32,
    kind: u8,
    count: usize,
    kind_flag: bool,
    /// Of what it is made, or how large it is.
    of: u32,
    /// Where what follows the head begins.
    at: usize,
}

impl Btf {
    /// Those of the running kernel.
    ///
    /// # Errors
    /// [`Error::Argument`] where the kernel shows none.
    pub fn of_kernel() -> Result<Btf> {
        let bytes = std::fs::read(PATH).map_err(|error| {
            Error::Argument(format!(
                "this kernel does not describe its types ({PATH}: {error}); it takes \
                 CONFIG_DEBUG_INFO_BTF"
            ))
        })?;
        Btf::parse(bytes)
    }

    /// Reads a description in this machine's byte order.
    ///
    /// # Errors
    /// [`Error::Argument`] for what is none.
    pub fn parse(bytes: Vec<u8>) -> Result<Btf> {
        let wrong = |what: &str| Error::Argument(format!("{PATH}: {what}"));
        if bytes.len() < HEADER || u16::from_ne_bytes([bytes[0], bytes[1]]) != MAGIC {
            return Err(wrong("it does not begin as BTF does"));
        }
        let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|i| bytes[at + i])) as usize;
        let (header, types, strings) = (word(4), (word(8), word(12)), (word(16), word(20)));
        let place = |(offset, len): (usize, usize)| {
            let start = header.checked_add(offset)?;
            let end = start.checked_add(len)?;
            (end <= bytes.len()).then_some((start, end))
        };
        let (Some((start, end)), Some(strings)) = (place(types), place(strings)) else {
            return Err(wrong("its parts lie outside of it"));
        };
        let mut btf = Btf { bytes, types: vec![0], strings, names: HashMap::new() };
        let mut at = start;
        while at < end {
            let Some((one, next)) = btf.type_at(at).filter(|(_, next)| *next <= end) else {
                return Err(wrong("a type is cut, or of a kind that is not known here"));
            };
            let number = btf.types.len() as u32;
            btf.types.push(at as u32);
            if one.name != 0 {
                let name = btf.string(one.name).to_vec();
                btf.names.entry((one.kind, name)).or_insert(number);
            }
            at = next;
        }
        Ok(btf)
    }

    fn word(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..at + 4)?;
        Some(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// The type whose head is there, and where the next begins.
    fn type_at(&self, at: usize) -> Option<(Type, usize)> {
        let (name, info, of) = (self.word(at)?, self.word(at + 4)?, self.word(at + 8)?);
        let kind = (info >> 24 & 0x1f) as u8;
        let count = (info & 0xffff) as usize;
        let rest = match kind {
            // Int, variable, declaration tag.
            1 | 14 | 17 => 4,
            ARRAY => 12,
            STRUCT | UNION | ENUM64 | 15 => count * 12,
            ENUM | FUNC_PROTO => count * 8,
            // Pointer, forward, typedef, modifiers, function, float, type tag.
            PTR | 7 | TYPEDEF | VOLATILE | CONST | RESTRICT | 12 | 16 | TYPE_TAG => 0,
            _ => return None,
        };
        let one = Type { name, kind, count, kind_flag: info >> 31 != 0, of, at: at + 12 };
        Some((one, at + 12 + rest))
    }

    fn get(&self, number: u32) -> Option<Type> {
        let at = *self.types.get(number as usize).filter(|_| number != 0)?;
        Some(self.type_at(at as usize)?.0)
    }

    fn string(&self, offset: u32) -> &[u8] {
        let (start, end) = self.strings;
        let all = &self.bytes[start..end];
        let text = all.get(offset as usize..).unwrap_or_default();
        text.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    fn find(&self, kind: u8, name: &str) -> Option<u32> {
        self.names.get(&(kind, name.as_bytes().to_vec())).copied()
    }

    /// Names and values of an enumeration, in its order; empty if there is none of this name.
    pub fn enumeration(&self, name: &str) -> Vec<(String, u64)> {
        let Some(one) = self.find(ENUM, name).or_else(|| self.find(ENUM64, name)) else {
            return Vec::new();
        };
        let Some(one) = self.get(one) else { return Vec::new() };
        let step = if one.kind == ENUM { 8 } else { 12 };
        let members = (0..one.count).filter_map(|index| {
            let at = one.at + index * step;
            let high = if one.kind == ENUM { 0 } else { self.word(at + 8)? };
            let value = u64::from(high) << 32 | u64::from(self.word(at + 4)?);
            Some((String::from_utf8_lossy(self.string(self.word(at)?)).into_owned(), value))
        });
        members.collect()
    }

    /// Bytes from the beginning of a structure to a member of it, or to a member of that:
    /// `offset("net_device", &["nd_net", "net"])`. Members of anonymous structures and unions count
    /// as those of what they are in, as in C.
    ///
    /// # Errors
    /// [`Error::Argument`] if this kernel has no such member.
    pub fn offset(&self, structure: &str, path: &[&str]) -> Result<u32> {
        let find = || {
            let mut number = self.find(STRUCT, structure)?;
            let mut bytes = 0;
            for name in path {
                let (offset, of) = self.member(number, name.as_bytes(), DEPTH)?;
                bytes += offset;
                number = of;
            }
            Some(bytes)
        };
        find().ok_or_else(|| {
            let path = path.join(".");
            Error::Argument(format!("this kernel's struct {structure} has no member {path}"))
        })
    }

    /// Where a member is, in bytes, and its type. Bit fields have no place in bytes.
    fn member(&self, number: u32, name: &[u8], depth: u32) -> Option<(u32, u32)> {
        let one = self.get(self.resolve(number)?)?;
        if !matches!(one.kind, STRUCT | UNION) || depth == 0 {
            return None;
        }
        for index in 0..one.count {
            let at = one.at + index * 12;
            let (member, of, offset) = (self.word(at)?, self.word(at + 4)?, self.word(at + 8)?);
            let bits = if one.kind_flag { offset & 0xff_ffff } else { offset };
            if member == 0 {
                if let Some((inner, of)) = self.member(of, name, depth - 1) {
                    return Some((bits / 8 + inner, of));
                }
            } else if self.string(member) == name {
                return (bits % 8 == 0).then_some((bits / 8, of));
            }
        }
        None
    }

    /// The type behind typedefs and modifiers.
    fn resolve(&self, mut number: u32) -> Option<u32> {
        for _ in 0..DEPTH {
            let one = self.get(number)?;
            match one.kind {
                TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG => number = one.of,
                _ => return Some(number),
            }
        }
        None
    }

    /// The number of the typedef that stands for a tracepoint's arguments, and how many there are.
    ///
    /// # Errors
    /// [`Error::Argument`] if this kernel has no such tracepoint.
    pub fn tracepoint(&self, name: &str) -> Result<(u32, usize)> {
        let find = || {
            let number = self.find(TYPEDEF, &format!("btf_trace_{name}"))?;
            let pointer = self.get(self.resolve(self.get(number)?.of)?)?;
            let function = self.get(self.resolve(pointer.of)?)?;
            // The first is where it stores what it is given itself.
            (function.kind == FUNC_PROTO).then_some((number, function.count.checked_sub(1)?))
        };
        find().ok_or_else(|| Error::Argument(format!("this kernel has no tracepoint {name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types are numbered from 1 in the order in which they are added.
    #[derive(Default)]
    struct Maker {
        types: Vec<u8>,
        strings: Vec<u8>,
    }

    impl Maker {
        fn name(&mut self, name: &str) -> u32 {
            if name.is_empty() {
                return 0;
            }
            if self.strings.is_empty() {
                self.strings.push(0);
            }
            let at = self.strings.len() as u32;
            self.strings.extend_from_slice(name.as_bytes());
            self.strings.push(0);
            at
        }

        fn words(&mut self, words: &[u32]) {
            self.types.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        }

        fn head(&mut self, name: &str, kind: u8, count: usize, of: u32) {
            let name = self.name(name);
            self.words(&[name, u32::from(kind) << 24 | count as u32, of]);
        }

        /// A structure or union of (name, type, bits) members.
        fn members(&mut self, name: &str, kind: u8, members: &[(&str, u32, u32)]) {
            self.head(name, kind, members.len(), 8);
            for (name, of, bits) in members {
                let name = self.name(name);
                self.words(&[name, *of, *bits]);
            }
        }

        fn finish(&self) -> Vec<u8> {
            let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
            let mut bytes = MAGIC.to_ne_bytes().to_vec();
            bytes.extend_from_slice(&[1, 0]);
            for word in [HEADER as u32, 0, types, types, strings] {
                bytes.extend_from_slice(&word.to_ne_bytes());
            }
            bytes.extend_from_slice(&self.types);
            bytes.extend_from_slice(&self.strings);
            bytes
        }
    }

    fn example() -> Vec<u8> {
        let mut maker = Maker::default();
        maker.head("int", 1, 0, 4); // 1
        maker.words(&[32]);
        maker.members("inner", STRUCT, &[("a", 1, 0), ("b", 1, 32)]); // 2
        maker.members("", UNION, &[("x", 1, 0), ("y", 1, 0)]); // 3
        maker.head("inner_t", TYPEDEF, 0, 2); // 4
        maker.members("outer", STRUCT, &[("first", 1, 0), ("", 3, 64), ("in", 4, 128)]); // 5
        maker.head("reason", ENUM, 2, 4); // 6
        for (name, value) in [("R_NONE", 2), ("R_FULL", 65)] {
            let name = maker.name(name);
            maker.words(&[name, value]);
        }
        maker.head("", FUNC_PROTO, 3, 0); // 7
        maker.words(&[0, 1, 0, 1, 0, 1]);
        maker.head("", PTR, 0, 7); // 8
        maker.head("btf_trace_drop", TYPEDEF, 0, 8); // 9
        maker.finish()
    }

    #[test]
    fn members_enumerations_and_tracepoints_are_found() {
        let btf = Btf::parse(example()).unwrap();
        assert_eq!(btf.offset("outer", &["y"]).unwrap(), 8);
        assert_eq!(btf.offset("outer", &["in", "b"]).unwrap(), 20);
        let error = btf.offset("outer", &["in", "c"]).unwrap_err();
        assert!(error.to_string().contains("struct outer has no member in.c"), "{error}");
        let wanted = [("R_NONE".to_owned(), 2), ("R_FULL".to_owned(), 65)];
        assert_eq!(btf.enumeration("reason"), wanted);
        assert!(btf.enumeration("other").is_empty());
        assert_eq!(btf.tracepoint("drop").unwrap(), (9, 2));
        assert!(btf.tracepoint("other").is_err());
    }

    #[test]
    fn what_is_cut_or_changed_is_an_error_or_other_types_but_no_panic() {
        let good = example();
        for end in 0..good.len() {
            assert!(Btf::parse(good[..end].to_vec()).is_err(), "{end}");
        }
        for at in 0..good.len() {
            for change in [0xff, 0x55, 0x1f] {
                let mut bytes = good.clone();
                bytes[at] ^= change;
                if let Ok(btf) = Btf::parse(bytes) {
                    let _ = btf.offset("outer", &["in", "b"]);
                    let _ = btf.enumeration("reason");
                    let _ = btf.tracepoint("drop");
                }
            }
        }
    }

    #[test]
    fn types_that_are_made_of_themselves_end() {
        let mut maker = Maker::default();
        maker.head("loop", TYPEDEF, 0, 1);
        maker.members("s", STRUCT, &[("", 2, 0), ("", 1, 0)]);
        let btf = Btf::parse(maker.finish()).unwrap();
        assert!(btf.offset("s", &["x"]).is_err());
    }
}
