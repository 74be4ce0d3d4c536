//! Why bytes were not a packet: one small type for every parser, ready to index a counter.

use core::fmt;

/// What is wrong with bytes that a parser rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// The bytes end before the header or the length that it states.
    Truncated,
    /// The IP version is not the one that the parser reads.
    Version,
    /// The header states a length for itself that is below its minimum.
    HeaderLength,
    /// The packet states a total length that is below that of its header.
    TotalLength,
    /// An option's length is impossible or contradicts its kind.
    Option,
    /// The checksum is wrong.
    Checksum,
    /// ARP for something else than IPv4 on Ethernet.
    Hardware,
    /// More IPv6 extension headers than anyone sends in good faith.
    Extension,
}

impl Malformed {
    /// Every value, in the order of [`index`](Self::index).
    pub const ALL: [Self; 8] = [
        Self::Truncated,
        Self::Version,
        Self::HeaderLength,
        Self::TotalLength,
        Self::Option,
        Self::Checksum,
        Self::Hardware,
        Self::Extension,
    ];

    /// The position in [`ALL`](Self::ALL): the index of this reason in an array of counters.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name that counters and metrics use, in `snake_case`.
    #[inline]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Version => "version",
            Self::HeaderLength => "header_length",
            Self::TotalLength => "total_length",
            Self::Option => "option",
            Self::Checksum => "checksum",
            Self::Hardware => "hardware",
            Self::Extension => "extension",
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the packet ends before its header or its stated length",
            Self::Version => "the IP version is not the expected one",
            Self::HeaderLength => "the header length field is below the minimum",
            Self::TotalLength => "the total length field is below the header's length",
            Self::Option => "an option has an impossible length",
            Self::Checksum => "the checksum is wrong",
            Self::Hardware => "ARP for something else than IPv4 on Ethernet",
            Self::Extension => "too many IPv6 extension headers",
        })
    }
}

impl core::error::Error for Malformed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_is_the_position_in_all() {
        for (position, reason) in Malformed::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), position);
        }
    }

    #[test]
    fn names_are_distinct() {
        for (i, a) in Malformed::ALL.into_iter().enumerate() {
            for b in &Malformed::ALL[i + 1..] {
                assert_ne!(a.name(), b.name());
                assert_ne!(a.to_string(), b.to_string());
            }
        }
    }
}
