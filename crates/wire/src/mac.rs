//! 48-bit Ethernet addresses.

use core::fmt;
use core::str::FromStr;

/// An Ethernet address in the order of the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address of every station: `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// True for group addresses, which include the broadcast address.
    #[inline]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// True for `ff:ff:ff:ff:ff:ff` only.
    #[inline]
    pub fn is_broadcast(self) -> bool {
        self == Self::BROADCAST
    }

    /// True for an address of one station: not a group address, and not all zero.
    #[inline]
    pub fn is_unicast(self) -> bool {
        !self.is_multicast() && self != Self([0; 6])
    }
}

impl From<[u8; 6]> for Mac {
    #[inline]
    fn from(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The text is not six pairs of hexadecimal digits joined by `:` or by `-`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseMacError;

impl fmt::Display for ParseMacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an Ethernet address; write it as 02:00:00:00:00:01")
    }
}

impl core::error::Error for ParseMacError {}

impl FromStr for Mac {
    type Err = ParseMacError;

    /// Reads `02:00:00:00:00:01` or `02-00-00-00-00-01`, in either case of letters.
    fn from_str(text: &str) -> Result<Self, ParseMacError> {
        let text: &[u8; 17] = text.as_bytes().try_into().map_err(|_| ParseMacError)?;
        let separator = text[2];
        if separator != b':' && separator != b'-' {
            return Err(ParseMacError);
        }
        let digit = |c: u8| (c as char).to_digit(16).map(|d| d as u8).ok_or(ParseMacError);
        let mut bytes = [0; 6];
        for (i, byte) in bytes.iter_mut().enumerate() {
            if i > 0 && text[3 * i - 1] != separator {
                return Err(ParseMacError);
            }
            *byte = digit(text[3 * i])? << 4 | digit(text[3 * i + 1])?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kinds_of_addresses() {
        assert!(Mac::BROADCAST.is_broadcast() && Mac::BROADCAST.is_multicast());
        assert!(!Mac::BROADCAST.is_unicast());
        let group = Mac([0x01, 0, 0x5e, 0, 0, 1]);
        assert!(group.is_multicast() && !group.is_broadcast() && !group.is_unicast());
        assert!(Mac([2, 0, 0, 0, 0, 1]).is_unicast());
        assert!(!Mac([0; 6]).is_unicast());
    }

    #[test]
    fn rejects_what_is_not_an_address() {
        for text in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "02:00:00:00:00:0g",
            "02:00:00:00:00-01",
            "02.00.00.00.00.01",
            "+2:00:00:00:00:01",
            "02:00:00:00:00:0é",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(ParseMacError), "{text}");
        }
    }

    proptest! {

        #![proptest_config(crate::deterministic::config())]

        #[test]
        fn text_round_trip(bytes: [u8; 6]) {
            let mac = Mac(bytes);
            prop_assert_eq!(mac.to_string().parse::<Mac>(), Ok(mac));
            prop_assert_eq!(mac.to_string().to_uppercase().parse::<Mac>(), Ok(mac));
            prop_assert_eq!(mac.to_string().replace(':', "-").parse::<Mac>(), Ok(mac));
        }

        #[test]
        fn any_text_is_safe(text in ".{0,20}") {
            let _ = text.parse::<Mac>();
        }
    }
}
