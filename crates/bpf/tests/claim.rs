//! What a claim keeps from Linux, as UDP sockets on a loopback interface see it.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use millrace_bpf::{Claim, Error};

mod support;

const LOOPBACK: u32 = 1;

/// Whether a datagram to an address of Linux's comes.
fn comes(own: IpAddr) -> bool {
    let receiver = UdpSocket::bind((own, 0)).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let sender = UdpSocket::bind((own, 0)).unwrap();
    sender.send_to(b"?", receiver.local_addr().unwrap()).unwrap();
    match receiver.recv(&mut [0; 8]) {
        Ok(1) => true,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_what_is_claimed_is_kept_from_linux() {
    support::in_namespace("only_what_is_claimed_is_kept_from_linux", || {
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        let all = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "::1"]
            .map(|one| one.parse::<IpAddr>().unwrap());
        let [first, second, third, sixth] = all;
        let mut claim = Claim::attach(LOOPBACK).unwrap();
        assert_eq!(all.map(comes), [true; 4]);
        assert_eq!(claim.count().unwrap(), 0);
        claim.set_addresses(&[second, sixth]).unwrap();
        assert_eq!(all.map(comes), [true, false, true, false]);
        assert_eq!(claim.count().unwrap(), 2);
        // Another's beside it.
        let mut other = Claim::attach(LOOPBACK).unwrap();
        other.set_addresses(&[third]).unwrap();
        claim.set_addresses(&[first]).unwrap();
        assert_eq!(all.map(comes), [false, true, false, true]);
        drop(claim);
        assert_eq!(all.map(comes), [true, true, false, true]);
        drop(other);
        assert_eq!(all.map(comes), [true; 4]);
    });
}

#[test]
fn what_cannot_be_claimed_is_an_error() {
    support::in_namespace("what_cannot_be_claimed_is_an_error", || {
        let error = Claim::attach(4_000_000).unwrap_err();
        assert!(matches!(error, Error::System { .. }), "{error:?}");
        assert!(error.to_string().contains("TCX"), "{error}");
        let mut claim = Claim::attach(LOOPBACK).unwrap();
        let many: Vec<IpAddr> =
            (0..1025u32).map(|low| Ipv6Addr::from(u128::from(low) + 2).into()).collect();
        assert!(claim.set_addresses(&many).is_err());
    });
}
