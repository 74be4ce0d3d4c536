//! Names of domains (RFC 1035 §3.1), in lists as network protocols carry them; with compression
//! (§4.1.4) where one has it.

use core::fmt;

/// Longest label, and longest name with the lengths of its labels and its end (RFC 1035 §3.1).
const MOST_LABEL: u8 = 63;
const MOST: usize = 255;
/// A length with these bits begins a pointer.
const POINTER: u8 = 0xc0;

/// Names, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Names<'a> {
    /// Names without compression (RFC 8106 §5.2). Zeros may follow the last. `None` if any is cut or
    /// too long.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        Self::whole(bytes, false)
    }

    /// The same, of names that may end with a pointer to what stands before them in the same bytes
    /// (RFC 3397 §2). `None` also if one does not lead back.
    pub fn parse_compressed(bytes: &'a [u8]) -> Option<Self> {
        Self::whole(bytes, true)
    }

    fn whole(bytes: &'a [u8], compressed: bool) -> Option<Self> {
        let mut at = 0;
        while bytes.get(at).is_some_and(|&len| len != 0) {
            at = end(bytes, at, compressed)?;
        }
        bytes[at..].iter().all(|&byte| byte == 0).then_some(Self { bytes, at: 0 })
    }
}

impl<'a> Iterator for Names<'a> {
    type Item = Name<'a>;

    fn next(&mut self) -> Option<Name<'a>> {
        let (bytes, at) = (self.bytes, self.at);
        if bytes.get(at).is_none_or(|&len| len == 0) {
            return None;
        }
        self.at = end(bytes, at, true)?;
        Some(Name { bytes, at })
    }
}

/// Where what follows the name at `at` begins. `None` if the name is cut, too long, or has a pointer
/// that may not be there or does not lead back.
fn end(bytes: &[u8], at: usize, compressed: bool) -> Option<usize> {
    // Where the part that is read begins: a pointer must lead before it, so there is an end.
    let (mut at, mut part, mut len) = (at, at, 0);
    let mut end = None;
    loop {
        match *bytes.get(at)? {
            0 => return end.or(Some(at + 1)),
            label @ 1..=MOST_LABEL => {
                len += 1 + usize::from(label);
                if len >= MOST {
                    return None;
                }
                at += 1 + usize::from(label);
            }
            POINTER.. if compressed => {
                let target = pointer(bytes, at).filter(|&target| target < part)?;
                end = end.or(Some(at + 2));
                (at, part) = (target, target);
            }
            _ => return None,
        }
    }
}

fn pointer(bytes: &[u8], at: usize) -> Option<usize> {
    let &[high, low] = bytes.get(at..)?.first_chunk()?;
    Some(usize::from(u16::from_be_bytes([high & !POINTER, low])))
}

/// The name of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Name<'a> {
    /// Its labels, the most specific first: 1 to 63 bytes of any value.
    pub fn labels(self) -> impl Iterator<Item = &'a [u8]> {
        let Name { bytes, mut at } = self;
        core::iter::from_fn(move || {
            // Each leads back, as was seen before.
            while bytes.get(at).is_some_and(|&len| len >= POINTER) {
                at = pointer(bytes, at)?;
            }
            let len = usize::from(*bytes.get(at)?);
            let label = bytes.get(at + 1..at + 1 + len).filter(|label| !label.is_empty())?;
            at += 1 + len;
            Some(label)
        })
    }

    /// Whether its text, as `Display` writes it, means this name and has nothing that a terminal or a
    /// file of names would take for something else.
    pub fn is_plain(self) -> bool {
        self.labels().flatten().all(|&byte| byte.is_ascii_graphic() && byte != b'.')
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, label) in self.labels().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            for &byte in label {
                fmt::Write::write_char(f, char::from(byte))?;
            }
        }
        Ok(())
    }
}
