//! Polls are counted by interface and by what they found.

mod support;

use std::net::UdpSocket;

use millrace_bpf::napi_monitor::{FULL, NapiMonitor};

#[test]
fn polls_of_a_veth_are_counted() {
    support::in_namespace("polls_of_a_veth_are_counted", || {
        let (near, far) = support::veth_pair();
        // A veth polls once it does GRO, and gets what its peer does not send in super-segments.
        support::run("ethtool -K mrbpf1 gro on");
        support::run("ethtool -K mrbpf0 tso off");
        support::ip("address add 192.0.2.1/24 dev mrbpf0");
        support::ip("neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev mrbpf0");
        let monitor = NapiMonitor::open().unwrap();
        let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
        for _ in 0..200 {
            socket.send_to(b"hello", "192.0.2.9:9").unwrap();
        }
        let polls = monitor.polls().unwrap();
        let ours: Vec<_> = polls.iter().filter(|one| one.ifindex == far).collect();
        assert!(ours.iter().map(|one| one.count).sum::<u64>() > 0, "{polls:?}");
        assert!(ours.iter().all(|one| one.bucket <= FULL && one.namespace != 0));
        assert!(!polls.iter().any(|one| {
            one.ifindex == near && one.namespace == ours[0].namespace && one.count > 100
        }));
    });
}
