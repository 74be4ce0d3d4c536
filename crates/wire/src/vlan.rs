//! VLAN tags (IEEE 802.1Q, and 802.1ad for stacked ones).

/// Length of a tag: control information and the EtherType that follows it.
pub const TAG_LEN: usize = 4;

/// Tag control information: what a VLAN tag says besides the EtherType it carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tag {
    /// Priority code point, 0 to 7.
    pub pcp: u8,
    /// Drop eligible indicator.
    pub dei: bool,
    /// VLAN identifier, 0 to 4095; 0 means that the tag carries a priority only.
    pub vid: u16,
}

impl Tag {
    /// Splits the 16 bits of tag control information.
    #[inline]
    pub const fn from_tci(tci: u16) -> Self {
        Self { pcp: (tci >> 13) as u8, dei: tci & 0x1000 != 0, vid: tci & 0x0fff }
    }

    /// The 16 bits of tag control information. Bits that do not fit their field are cut off.
    #[inline]
    pub const fn tci(self) -> u16 {
        ((self.pcp & 7) as u16) << 13 | (self.dei as u16) << 12 | (self.vid & 0x0fff)
    }

    /// Writes the four bytes that follow the tag's own EtherType (`EtherType::VLAN` or `QINQ`,
    /// written by [`ether::emit`](crate::ether::emit) or by the tag before): control information
    /// and the EtherType of what comes next.
    ///
    /// # Panics
    /// If `buf` is shorter than [`TAG_LEN`].
    #[inline]
    pub fn emit(self, buf: &mut [u8], ether_type: u16) {
        buf[..2].copy_from_slice(&self.tci().to_be_bytes());
        buf[2..TAG_LEN].copy_from_slice(&ether_type.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tci_survives() {
        for tci in 0..=u16::MAX {
            assert_eq!(Tag::from_tci(tci).tci(), tci);
        }
    }

    #[test]
    fn fields_are_where_the_standard_says() {
        assert_eq!(Tag { pcp: 5, dei: true, vid: 0x123 }.tci(), 5 << 13 | 1 << 12 | 0x123);
    }
}
