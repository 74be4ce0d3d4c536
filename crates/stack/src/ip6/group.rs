//! Groups that the stack is in because it speaks IPv6 (RFC 4291 §2.8).

use core::net::Ipv6Addr;

use millrace_wire::ndp::solicited_node;

use crate::address::{AddressState, is_v4};
use crate::stack::Stack;

/// All nodes of the link.
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// All routers of the link.
pub(crate) const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

impl Stack {
    /// Joins or leaves the group of solicitations for an address of ours, so that routers and
    /// switches are told (RFC 4862 §5.4.2). Several addresses may have the same.
    pub(crate) fn solicited_group(&mut self, local: u8, join: bool) {
        let Some(slot) = self.addresses.slot(local).filter(|slot| slot.in_group != join) else {
            return;
        };
        let group = solicited_node(Ipv6Addr::from_bits(slot.address));
        let done = self.listen_internally(group.to_bits(), join);
        if let Some(slot) = self.addresses.slot_mut(local) {
            slot.in_group = join && done;
        }
    }

    /// Whether packets to a group are ours.
    pub(crate) fn in_group_v6(&self, group: Ipv6Addr) -> bool {
        self.listens_to(group.to_bits()) || self.solicited_groups().any(|own| own == group)
    }

    /// The groups that solicitations for our addresses come to, those of tentative addresses among
    /// them. They are taken even where no more groups may be joined.
    fn solicited_groups(&self) -> impl Iterator<Item = Ipv6Addr> + '_ {
        self.addresses
            .slots()
            .filter(|(_, slot)| !is_v4(slot.address) && slot.state != Some(AddressState::Duplicate))
            .map(|(_, slot)| solicited_node(Ipv6Addr::from_bits(slot.address)))
    }
}
