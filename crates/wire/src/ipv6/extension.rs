//! Extension headers of IPv6 (RFC 8200 §4), one by one, and the options in two kinds of them.
//!
//! [`Packet::upper_layer`](super::Packet::upper_layer) is for those who only want to get past
//! them. A host must look into each, in order, and that is what this is for.

use crate::Malformed;

/// Hop-by-hop options: only directly behind the fixed header.
pub const HOP_BY_HOP: u8 = 0;
/// Routing.
pub const ROUTING: u8 = 43;
/// Fragment.
pub const FRAGMENT: u8 = 44;
/// Nothing follows.
pub const NO_NEXT_HEADER: u8 = 59;
/// Destination options.
pub const DESTINATION: u8 = 60;

/// One extension header of the four that every host knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The header's own number.
    pub number: u8,
    /// Number of what follows.
    pub next: u8,
    bytes: &'a [u8],
}

impl<'a> Header<'a> {
    /// Takes the header with this number off the front of `bytes`. `Ok(None)`: the number is not
    /// that of an extension header which every host knows.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] if the bytes end within the header.
    #[inline]
    pub fn split(number: u8, bytes: &'a [u8]) -> Result<Option<(Self, &'a [u8])>, Malformed> {
        if !matches!(number, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) {
            return Ok(None);
        }
        let &[next, units, ..] = bytes.first_chunk::<8>().ok_or(Malformed::Truncated)?;
        let len = if number == FRAGMENT { 8 } else { (usize::from(units) + 1) * 8 };
        let (bytes, rest) = bytes.split_at_checked(len).ok_or(Malformed::Truncated)?;
        Ok(Some((Self { number, next, bytes }, rest)))
    }

    /// Length in bytes, a multiple of 8.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "no header is empty")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Of a routing header: its type.
    #[inline]
    pub fn routing_type(&self) -> u8 {
        self.bytes[2]
    }

    /// Of a routing header: how many of its hops are still to be visited.
    #[inline]
    pub fn segments_left(&self) -> u8 {
        self.bytes[3]
    }

    /// Of hop-by-hop and destination options: the options.
    #[inline]
    pub fn options(&self) -> Options<'a> {
        Options { bytes: self.bytes, at: 2 }
    }
}

/// What to do about an option that is not known (RFC 8200 §4.2): the upper two bits of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Skip it.
    Skip,
    /// Drop the packet.
    Discard,
    /// Drop the packet and say so, even if it was sent to a group.
    Report,
    /// Drop the packet and say so, unless it was sent to a group.
    ReportToUnicast,
}

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opt<'a> {
    /// Its type.
    pub kind: u8,
    /// Where it begins in the extension header.
    pub offset: usize,
    /// What it carries.
    pub data: &'a [u8],
}

impl Opt<'_> {
    /// One byte of padding.
    pub const PAD_1: u8 = 0;
    /// Several bytes of padding.
    pub const PAD_N: u8 = 1;

    /// What to do if the type is not known.
    #[inline]
    pub fn action(&self) -> Action {
        match self.kind >> 6 {
            0 => Action::Skip,
            1 => Action::Discard,
            2 => Action::Report,
            _ => Action::ReportToUnicast,
        }
    }
}

/// The options of a header, padding included. Ends after the first that is malformed.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Options<'a> {
    type Item = Result<Opt<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.at;
        let (&kind, rest) = self.bytes.get(offset..)?.split_first()?;
        if kind == Opt::PAD_1 {
            self.at += 1;
            return Some(Ok(Opt { kind, offset, data: &[] }));
        }
        let data = rest.split_first().and_then(|(&len, rest)| rest.get(..usize::from(len)));
        let Some(data) = data else {
            self.at = self.bytes.len();
            return Some(Err(Malformed::Option));
        };
        self.at += 2 + data.len();
        Some(Ok(Opt { kind, offset, data }))
    }
}
