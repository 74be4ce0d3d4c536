//! Listing the XDP links of the machine. A file of its own, so a program of its own that runs alone: who
//! looks at all links holds each of them for a moment, and what another test detaches stays as long.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use millrace_bpf::{LinkInfo, Mode};

#[test]
fn link_is_among_all_links() {
    support::in_namespace("link_is_among_all_links", || {
        let (near, _) = support::veth_pair();
        let program = support::passing("mr_listed");
        let link = program.attach(near, Mode::Generic).unwrap();
        let info = link.info().unwrap();
        assert!(LinkInfo::all().unwrap().contains(&info));
        link.detach().unwrap();
        // Who looks at all links just now, as another program may, keeps what is detached a moment longer.
        let left = LinkInfo::all().unwrap().into_iter().find(|other| other.id == info.id);
        assert_eq!(left.and_then(|link| link.ifindex), None);
    });
}

/// The kernel lists a link that is not attached yet, and does not open it (EAGAIN).
#[test]
fn links_that_come_and_go_meanwhile_are_no_error() {
    support::in_namespace("links_that_come_and_go_meanwhile_are_no_error", || {
        let (near, _) = support::veth_pair();
        let program = support::passing("mr_coming");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let looks = scope.spawn(|| {
                let mut looks = 0;
                while !done.load(Ordering::Relaxed) {
                    LinkInfo::all().unwrap();
                    looks += 1;
                }
                looks
            });
            for _ in 0..100 {
                program.attach(near, Mode::Generic).unwrap().detach().unwrap();
            }
            done.store(true, Ordering::Relaxed);
            assert!(looks.join().unwrap() > 0);
        });
    });
}
