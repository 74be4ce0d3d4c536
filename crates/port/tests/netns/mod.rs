//! Two hosts on a wire: anonymous network namespaces that are gone with the process, however it
//! ends, joined by a veth pair.
#![allow(dead_code)]

pub mod reply;

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;

use millrace_wire::mac::Mac;

/// A network namespace of its own, with loopback up.
pub struct Namespace(File);

const CURRENT: &str = "/proc/thread-self/ns/net";

impl Namespace {
    pub fn new() -> io::Result<Namespace> {
        let before = File::open(CURRENT)?;
        // SAFETY: changes the calling thread's namespace only, and no memory.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            let error = io::Error::last_os_error();
            return Err(io::Error::new(
                error.kind(),
                format!("cannot make a network namespace ({error}); run as root"),
            ));
        }
        let made = Namespace(File::open(CURRENT)?);
        made.ip("link set lo up");
        set_namespace(&before);
        Ok(made)
    }

    /// Runs `work` in this namespace; sockets that it opens stay there.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        struct Back(File);
        impl Drop for Back {
            fn drop(&mut self) {
                set_namespace(&self.0);
            }
        }
        let _back = Back(File::open(CURRENT).unwrap());
        set_namespace(&self.0);
        work()
    }

    /// A path by which another program finds the namespace.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs ip(8) here; its arguments are separated by spaces.
    pub fn ip(&self, arguments: &str) {
        self.run("ip", arguments);
    }

    /// Runs a program here that must succeed; returns what it printed.
    pub fn run(&self, program: &str, arguments: &str) -> String {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let output = self.enter(|| Command::new(program).args(&arguments).output().unwrap());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Tells the kernel here that [`OUR_ADDRESS`] is at `mac` behind `interface`, so that it need
    /// not ask.
    pub fn introduce(&self, interface: &str, mac: Mac) {
        self.ip(&format!("neigh replace {OUR_ADDRESS} lladdr {mac} dev {interface}"));
    }

    /// A UDP socket of the kernel here that talks to `port` of ours.
    pub fn udp(&self, port: u16) -> UdpSocket {
        self.enter(|| {
            let socket = UdpSocket::bind((PEER_ADDRESS, port)).unwrap();
            socket.connect((OUR_ADDRESS, port)).unwrap();
            socket
        })
    }

    /// The hardware address of an interface here.
    pub fn mac(&self, name: &str) -> Mac {
        self.enter(|| millrace_port::interface::Interface::find(name)).unwrap().mac.unwrap()
    }
}

/// A network namespace in which TAP interfaces can be made, or why not.
pub fn tap_host() -> Result<Namespace, String> {
    let tun = "/dev/net/tun";
    File::options().read(true).write(true).open(tun).map_err(|error| format!("{tun}: {error}"))?;
    Namespace::new().map_err(|error| error.to_string())
}

fn set_namespace(namespace: &File) {
    // SAFETY: changes the calling thread's namespace only, and no memory.
    assert_eq!(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
}

/// Our end of the wire, which the kernel gives no address.
pub const OURS: &str = "mrpb0";
/// The kernel's end.
pub const PEER: &str = "mrpb1";
/// The address that our side answers to.
pub const OUR_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The kernel's.
pub const PEER_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// Two hosts: ours, and one that belongs to the kernel.
pub struct Wire {
    pub ours: Namespace,
    pub peer: Namespace,
}

impl Wire {
    /// Makes both and the pair between them, up, without IPv6's own traffic.
    pub fn new() -> io::Result<Wire> {
        let wire = Wire { ours: Namespace::new()?, peer: Namespace::new()? };
        for namespace in [&wire.ours, &wire.peer] {
            // Absent where the kernel has no IPv6.
            namespace.enter(|| {
                let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
            });
        }
        let peer = wire.peer.path();
        wire.ours.ip(&format!("link add {OURS} type veth peer name {PEER} netns {peer}"));
        wire.ours.ip(&format!("link set {OURS} up"));
        wire.peer.ip(&format!("addr add {PEER_ADDRESS}/24 dev {PEER}"));
        wire.peer.ip(&format!("link set {PEER} up"));
        Ok(wire)
    }

    /// As [`Wire::new`]; where that cannot be, says that `test` is skipped, and why.
    pub fn or_skip(test: &str) -> Option<Wire> {
        match Wire::new() {
            Ok(wire) => Some(wire),
            Err(error) => {
                println!("SKIP {test}: {error}");
                None
            }
        }
    }
}
