//! The addresses that are taken, in the maps that the program looks them up in.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};

use super::config::Filter;
use crate::error::{Error, Result};
use crate::map::{MapKind, TypedMap};

#[derive(Debug)]
pub(super) struct AddressMaps {
    pub(super) ipv4: TypedMap<[u8; 4], u8>,
    pub(super) ipv6: TypedMap<[u8; 16], u8>,
    most: usize,
    solicited_nodes: bool,
    taken: HashSet<IpAddr>,
    /// The keys of the IPv6 map: added addresses and their solicited-node groups, each with the
    /// number of reasons why it is there.
    ipv6_keys: HashMap<Ipv6Addr, u32>,
}

impl AddressMaps {
    /// Without a filter nothing is ever looked up.
    pub(super) fn create(filter: Option<&Filter>) -> Result<Self> {
        let most = filter.map_or(1, |filter| filter.max_addresses.max(1));
        Ok(Self {
            ipv4: TypedMap::create("mr_ipv4", MapKind::Hash, most)?,
            // An address may bring its solicited-node group along.
            ipv6: TypedMap::create("mr_ipv6", MapKind::Hash, most.saturating_mul(2))?,
            most: most as usize,
            solicited_nodes: filter.is_none_or(|filter| filter.solicited_nodes),
            taken: HashSet::new(),
            ipv6_keys: HashMap::new(),
        })
    }

    /// What of the IPv6 map an address needs.
    fn keys(&self, address: Ipv6Addr) -> impl Iterator<Item = Ipv6Addr> + use<> {
        let group = solicited_node(address).filter(|_| self.solicited_nodes);
        [Some(address), group].into_iter().flatten()
    }

    pub(super) fn add(&mut self, address: IpAddr) -> Result<()> {
        if self.taken.contains(&address) {
            return Ok(());
        }
        let same = |one: &&IpAddr| one.is_ipv4() == address.is_ipv4();
        if self.taken.iter().filter(same).count() >= self.most {
            return Err(Error::system(format!("adding {address} to the redirector"), libc::E2BIG));
        }
        match address {
            IpAddr::V4(v4) => self.ipv4.set(&v4.octets(), &1)?,
            IpAddr::V6(v6) => {
                for key in self.keys(v6) {
                    self.ipv6.set(&key.octets(), &1)?;
                    *self.ipv6_keys.entry(key).or_default() += 1;
                }
            }
        }
        self.taken.insert(address);
        Ok(())
    }

    pub(super) fn remove(&mut self, address: IpAddr) -> Result<bool> {
        if !self.taken.remove(&address) {
            return Ok(false);
        }
        match address {
            IpAddr::V4(v4) => {
                self.ipv4.remove(&v4.octets())?;
            }
            IpAddr::V6(v6) => {
                for key in self.keys(v6) {
                    match self.ipv6_keys.get_mut(&key) {
                        Some(reasons) if *reasons > 1 => *reasons -= 1,
                        _ => {
                            self.ipv6_keys.remove(&key);
                            self.ipv6.remove(&key.octets())?;
                        }
                    }
                }
            }
        }
        Ok(true)
    }

    /// These, and no others.
    pub(super) fn set(&mut self, addresses: &[IpAddr]) -> Result<()> {
        let gone = |one: &&IpAddr| !addresses.contains(one);
        for address in self.taken.iter().filter(gone).copied().collect::<Vec<_>>() {
            self.remove(address)?;
        }
        addresses.iter().try_for_each(|&address| self.add(address))
    }
}

/// The solicited-node group of a unicast address.
fn solicited_node(address: Ipv6Addr) -> Option<Ipv6Addr> {
    if address.is_multicast() || address.is_unspecified() {
        return None;
    }
    let [.., a, b, c] = address.octets();
    let low = u16::from_be_bytes([b, c]);
    Some(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solicited_node_group_follows_rfc_4291() {
        let address: Ipv6Addr = "4037::01:800:200e:8c6c".parse().unwrap();
        assert_eq!(solicited_node(address), Some("ff02::1:ff0e:8c6c".parse().unwrap()));
        assert_eq!(solicited_node("ff02::1".parse().unwrap()), None);
    }
}
