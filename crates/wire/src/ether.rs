//! Ethernet II frames, with up to two VLAN tags.

use crate::vlan::{TAG_LEN, Tag};
use crate::{Mac, Malformed};

/// Length of the header without tags.
pub const HEADER_LEN: usize = 14;

/// The EtherTypes that Millrace knows. A value below 0x0600 in the same place is the length of an
/// IEEE 802.3 frame instead.
pub enum EtherType {}

impl EtherType {
    /// Internet Protocol version 4.
    pub const IPV4: u16 = 0x0800;
    /// Address Resolution Protocol.
    pub const ARP: u16 = 0x0806;
    /// An 802.1Q VLAN tag follows.
    pub const VLAN: u16 = 0x8100;
    /// Internet Protocol version 6.
    pub const IPV6: u16 = 0x86dd;
    /// An 802.1ad service tag follows.
    pub const QINQ: u16 = 0x88a8;
}

/// A view of an Ethernet frame without its frame check sequence.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    header: &'a [u8; HEADER_LEN],
    tags: [Option<Tag>; 2],
    ether_type: u16,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads the addresses, at most two tags and the EtherType.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] if the bytes end within the header or within a tag.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, mut payload) =
            bytes.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::Truncated)?;
        let mut ether_type = u16::from_be_bytes([header[12], header[13]]);
        let mut tags = [None; 2];
        for tag in &mut tags {
            if ether_type != EtherType::VLAN && ether_type != EtherType::QINQ {
                break;
            }
            let (&[a, b, c, d], rest) =
                payload.split_first_chunk::<TAG_LEN>().ok_or(Malformed::Truncated)?;
            *tag = Some(Tag::from_tci(u16::from_be_bytes([a, b])));
            ether_type = u16::from_be_bytes([c, d]);
            payload = rest;
        }
        Ok(Self { header, tags, ether_type, payload })
    }

    /// The station or group that the frame is for.
    #[inline]
    pub fn destination(&self) -> Mac {
        let [a, b, c, d, e, f, ..] = *self.header;
        Mac([a, b, c, d, e, f])
    }

    /// The station that sent the frame.
    #[inline]
    pub fn source(&self) -> Mac {
        let [_, _, _, _, _, _, a, b, c, d, e, f, ..] = *self.header;
        Mac([a, b, c, d, e, f])
    }

    /// The outer VLAN tag, if there is any.
    #[inline]
    pub fn vlan(&self) -> Option<Tag> {
        self.tags[0]
    }

    /// The second VLAN tag, if there are two. A third is not read: its EtherType is then what
    /// [`ether_type`](Self::ether_type) returns.
    #[inline]
    pub fn inner_vlan(&self) -> Option<Tag> {
        self.tags[1]
    }

    /// What the payload is, after the tags: one of [`EtherType`], or anything else.
    #[inline]
    pub fn ether_type(&self) -> u16 {
        self.ether_type
    }

    /// Length of the header with its tags: the offset of the payload.
    #[inline]
    pub fn header_len(&self) -> usize {
        HEADER_LEN + TAG_LEN * self.tags.iter().flatten().count()
    }

    /// All that follows the header, possibly with padding to Ethernet's minimum at its end.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// Writes an untagged header at the start of `buf`. With [`EtherType::VLAN`] or
/// [`EtherType::QINQ`], [`Tag::emit`] writes what comes next.
///
/// # Panics
/// If `buf` is shorter than [`HEADER_LEN`].
#[inline]
pub fn emit(buf: &mut [u8], destination: Mac, source: Mac, ether_type: u16) {
    let header: &mut [u8; HEADER_LEN] = buf.first_chunk_mut().expect("room for an Ethernet header");
    header[..6].copy_from_slice(&destination.0);
    header[6..12].copy_from_slice(&source.0);
    header[12..].copy_from_slice(&ether_type.to_be_bytes());
}
