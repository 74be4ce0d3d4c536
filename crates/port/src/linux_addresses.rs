//! Which addresses are Linux's own, in a network namespace.

use std::io;
use std::net::IpAddr;

use crate::netlink::Netlink;

/// Asks Linux about its addresses, in the network namespace that it was made in.
#[derive(Debug)]
pub struct LinuxAddresses(Netlink);

impl LinuxAddresses {
    /// Of the calling thread's network namespace.
    ///
    /// # Errors
    /// What socket(2) says.
    pub fn new() -> io::Result<LinuxAddresses> {
        Netlink::new().map(LinuxAddresses)
    }

    /// Whether Linux takes what is for this address for itself, on whatever interface it came.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn have(&self, address: IpAddr) -> io::Result<bool> {
        const RTA_DST: u16 = 1;
        // Where of `struct rtmsg` its type is.
        const TYPE_AT: usize = 7;
        let (family, octets) = match address {
            IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
            IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
        };
        // struct rtmsg, then one struct rtattr.
        let mut body = vec![family as u8, octets.len() as u8 * 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        body.extend((4 + octets.len() as u16).to_ne_bytes());
        body.extend(RTA_DST.to_ne_bytes());
        body.extend(octets);
        // No way there: another kind of answer.
        let route = self.0.ask(libc::RTM_GETROUTE, &body, libc::RTM_NEWROUTE)?;
        Ok(route.is_some_and(|route| route.get(TYPE_AT) == Some(&libc::RTN_LOCAL)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_linuxs_and_another_host_is_not() {
        let linux = LinuxAddresses::new().unwrap();
        let have = |text: &str| linux.have(text.parse().unwrap()).unwrap();
        assert!(have("127.0.0.1"));
        for text in ["203.0.113.77", "2001:db8:9999::1", "255.255.255.255", "224.0.0.1"] {
            assert!(!have(text), "{text}");
        }
    }
}
