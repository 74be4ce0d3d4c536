//! What a listener or a datagram socket is bound to: one address of ours, or any, of one family or
//! of both (RFC 3493 §3.7 and §5.3).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::io;

use crate::address::{Word, address, is_v4};
use crate::multicast::is_multicast;
use crate::stack::Stack;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// `::`, both families.
    Any,
    /// 0.0.0.0.
    AnyV4,
    /// `::`, IPv6 only.
    AnyV6,
    /// One address.
    One(Word),
}

impl Bound {
    /// Whether packets to an address of ours are taken, and how precisely it was named.
    #[inline]
    pub(crate) fn takes(self, local: Word) -> Option<u8> {
        match self {
            Bound::One(own) => (own == local).then_some(2),
            Bound::AnyV4 => is_v4(local).then_some(1),
            Bound::AnyV6 => (!is_v4(local)).then_some(1),
            Bound::Any => Some(0),
        }
    }

    /// Whether packets leave by the destination's family.
    pub(crate) fn speaks(self, destination: Word) -> bool {
        match self {
            Bound::One(own) => is_v4(own) == is_v4(destination),
            Bound::AnyV4 => is_v4(destination),
            Bound::AnyV6 => !is_v4(destination),
            Bound::Any => true,
        }
    }

    /// Whether packets to every host of an IPv4 network are taken.
    pub(crate) fn takes_broadcast(self) -> bool {
        match self {
            Bound::One(own) => is_v4(own) && !is_multicast(own),
            Bound::AnyV6 => false,
            Bound::Any | Bound::AnyV4 => true,
        }
    }

    /// Whether two cannot have the same port: the same, or one of them has all of the other's
    /// family.
    pub(crate) fn conflicts(self, other: Bound) -> bool {
        let any = |bound: Bound| bound == Bound::Any;
        let wild = |bound: Bound| !matches!(bound, Bound::One(_));
        self == other || (any(self) && wild(other)) || (wild(self) && any(other))
    }

    /// The address as it was named.
    pub(crate) fn address(self) -> IpAddr {
        match self {
            Bound::Any | Bound::AnyV6 => Ipv6Addr::UNSPECIFIED.into(),
            Bound::AnyV4 => Ipv4Addr::UNSPECIFIED.into(),
            Bound::One(own) => address(own),
        }
    }
}

impl Stack {
    /// What an address to bind to means; one that is not unspecified must be ours.
    pub(crate) fn bound(&self, local: IpAddr, v6_only: bool) -> io::Result<Bound> {
        let canonical = local.to_canonical();
        if v6_only && canonical != local {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{local} is an IPv4 address, and IPv6 only was asked for"),
            ));
        }
        match canonical {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ok(Bound::AnyV4),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) if v6_only => Ok(Bound::AnyV6),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ok(Bound::Any),
            one => self.own_address(one).map(Bound::One),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::ANY_V4;

    #[test]
    fn families_keep_apart_unless_both_are_meant() {
        use Bound::{Any, AnyV4, AnyV6, One};
        let (four, six) = (ANY_V4 | 0xc000_0201, 0x2001_0db8 << 96 | 1);
        for (a, b) in [(AnyV4, AnyV6), (One(four), AnyV4), (One(six), Any), (One(four), One(six))] {
            assert!(!a.conflicts(b) && !b.conflicts(a), "{a:?} {b:?}");
        }
        for (a, b) in [(Any, AnyV4), (Any, AnyV6), (Any, Any), (One(six), One(six))] {
            assert!(a.conflicts(b) && b.conflicts(a), "{a:?} {b:?}");
        }
        assert_eq!((Any.takes(four), Any.takes(six)), (Some(0), Some(0)));
        assert_eq!((AnyV4.takes(four), AnyV4.takes(six)), (Some(1), None));
        assert_eq!((AnyV6.takes(four), AnyV6.takes(six)), (None, Some(1)));
        assert_eq!((One(six).takes(six), One(six).takes(six + 1)), (Some(2), None));
    }
}
