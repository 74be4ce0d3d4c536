//! Keeps Linux from frames that somebody else has by a packet socket: a program behind the sockets and
//! before the protocols (TCX, Linux 6.6).
//!
//! Linux is no owner of their addresses. Where it does not forward it drops them itself, later and for
//! more; where it does, it looks for the owner, tells the sender that there is none, or sends it to
//! where it sends already.

use std::net::IpAddr;

use super::Maps;
use super::config::Filter;
use super::program::{self, COUNT_REDIRECTED};
use crate::error::Result;
use crate::link::Link;
use crate::program::{Kind, LoadOptions, load};

/// An attached program with its addresses; dropped, it is detached.
#[derive(Debug)]
pub struct Claim {
    maps: Maps,
    _link: Link,
}

impl Claim {
    /// Attaches a program that claims nothing yet to an interface of the caller's network namespace. ARP
    /// for the addresses is claimed as well; groups are not.
    ///
    /// # Errors
    /// [`crate::Error::System`]: `EPERM` without CAP_BPF and CAP_NET_ADMIN, `EINVAL` before Linux 6.6.
    pub fn attach(ifindex: u32) -> Result<Claim> {
        let filter = Filter { solicited_nodes: false, ..Filter::new([]) };
        let maps = Maps::create(1, Some(&filter))?;
        let code = program::build_claim(&filter, &maps)?;
        let fd = load(Kind::SchedCls, &code, &LoadOptions::named("mr_claim"))?;
        Ok(Claim { maps, _link: Link::create_tcx(&fd, "mr_claim", ifindex)? })
    }

    /// Claims the frames of these addresses, and of no others.
    ///
    /// # Errors
    /// `E2BIG` for more than 1,024 of a family.
    pub fn set_addresses(&mut self, addresses: &[IpAddr]) -> Result<()> {
        self.maps.addresses.set(addresses)
    }

    /// Frames that Linux was kept from.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn count(&self) -> Result<u64> {
        let values = self.maps.counters.get(&COUNT_REDIRECTED)?.unwrap_or_default();
        Ok(values.iter().fold(0, |sum, value| sum.wrapping_add(*value)))
    }
}
