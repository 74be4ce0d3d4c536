//! What a script does with the kernel's own tools, and what it sees by them.
//!
//! packetdrill runs a script's commands by `system(3)` ([`crate::interpose`]). They act on the kernel of
//! the script's network namespace, which carries nothing. So what they can see of the stack is written
//! down before each command, and what they may have changed is looked up after it:
//!
//! - `nstat` reads `net/netstat` and `net/snmp` below `PROC_ROOT`; the stack's counters are there, under
//!   the kernel's names for them (`Documentation/networking/snmp_counter.rst`).
//! - `ip route` and `sysctl` change what [`crate::route`] and [`crate::sysctl`] read.
//! - `tc` may make the device's queue take nothing; to the stack that is a port without room.
//! - `ip tcp_metrics flush` leaves a file (the runner sees to that), and the stack forgets its peers.

use core::fmt::Write;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use millrace_stack::Counters;

use crate::route::Route;
use crate::world::World;

/// The file that says that metrics were flushed.
const FLUSHED: &str = "tcp_metrics_flushed";

type Value = fn(&Counters) -> u64;

/// Counters of `net/snmp`, of the group `Tcp`.
const TCP: &[(&str, Value)] = &[
    ("ActiveOpens", |c| c.connections_opened),
    ("PassiveOpens", |c| c.connections_accepted),
    ("InSegs", |c| c.segments_in),
    ("OutSegs", |c| c.segments_out),
    ("RetransSegs", |c| c.segments_retransmitted),
    ("OutRsts", |c| c.resets_sent),
];

/// Counters of `net/netstat`, of the group `TcpExt`.
const TCP_EXT: &[(&str, Value)] = &[
    ("SyncookiesSent", |c| c.syn_cookies_sent),
    ("SyncookiesRecv", |c| c.syn_cookies_accepted),
    ("SyncookiesFailed", |c| c.syn_cookies_wrong),
    ("OutOfWindowIcmps", |c| c.drop_icmp_unrelated),
    ("DelayedACKs", |c| c.delayed_acks),
    ("ListenOverflows", |c| c.drop_listen_accept_queue_full),
    ("PAWSEstab", |c| c.drop_tcp_paws),
    ("TCPTimeouts", |c| c.retransmission_timeouts),
    ("TCPLossProbes", |c| c.tail_loss_probes),
    ("TCPDSACKRecv", |c| c.dsacks_received),
    ("TCPSACKReneging", |c| c.sack_reneged),
    ("TCPSpuriousRTOs", |c| c.spurious_timeouts),
    ("TCPOFOQueue", |c| c.out_of_order),
    ("TCPChallengeACK", |c| c.challenge_acks),
    ("TCPKeepAlive", |c| c.keepalive_probes),
    ("TCPWinProbe", |c| c.window_probes),
    ("TCPMTUPSuccess", |c| c.path_mtu_increases),
    ("TCPFastOpenActive", |c| c.fast_open_active),
    ("TCPFastOpenActiveFail", |c| c.fast_open_active_failed),
    ("TCPFastOpenPassive", |c| c.fast_open_passive),
    ("TCPFastOpenPassiveFail", |c| c.fast_open_cookies_wrong),
    ("TCPFastOpenListenOverflow", |c| c.fast_open_overflow),
    ("TCPFastOpenCookieReqd", |c| c.fast_open_cookies_asked),
    ("TCPFastOpenBlackhole", |c| c.fast_open_black_holes),
];

/// A group as the kernel writes it: a line of names and a line of values.
fn group(name: &str, table: &[(&str, Value)], counters: &Counters) -> String {
    let mut names = format!("{name}:");
    let mut values = names.clone();
    for (counter, value) in table {
        // Writing to a string cannot fail.
        let _ = write!(names, " {counter}");
        let _ = write!(values, " {}", value(counters));
    }
    format!("{names}\n{values}\n")
}

fn write_counters(root: &Path, counters: &Counters) -> io::Result<()> {
    let folder = root.join("net");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("snmp"), group("Tcp", TCP, counters))?;
    std::fs::write(folder.join("netstat"), group("TcpExt", TCP_EXT, counters))
}

/// Whether the device's queue takes packets.
fn queue_takes(device: &str) -> bool {
    let output = Command::new("tc")
        .args(["qdisc", "show", "dev", device])
        .env_remove("LD_PRELOAD")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    output.map_or(true, |output| takes(&String::from_utf8_lossy(&output.stdout)))
}

/// A plain queue that holds nothing drops everything.
fn takes(qdiscs: &str) -> bool {
    !qdiscs.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let plain = matches!(words.next(), Some("pfifo" | "bfifo"));
        let root = words.clone().any(|word| word == "root");
        let limit = words.skip_while(|&word| word != "limit").nth(1);
        plain && root && matches!(limit, Some("0p" | "0b" | "0"))
    })
}

impl World {
    /// A command of the script is about to run.
    pub(crate) fn before_command(&mut self) {
        let none = Counters::default();
        let counters = self.stack_ref().map_or(&none, |stack| stack.counters());
        if let Some(root) = &self.flags.proc
            && let Err(error) = write_counters(Path::new(root), counters)
        {
            eprintln!("millrace: cannot write the counters below {root}: {error}");
        }
    }

    /// It has run.
    pub(crate) fn after_command(&mut self) {
        // What is wrong with a setting is told; the script then fails by what it expects.
        let _ = self.refresh();
        if let Some(root) = &self.flags.proc
            && std::fs::remove_file(Path::new(root).join(FLUSHED)).is_ok()
            && let Ok(stack) = self.stack()
        {
            stack.forget_fast_open();
        }
        let Some(remote) = self.remote else { return };
        let route = Route::ask(remote);
        self.wire_takes = route.device.as_deref().is_none_or(queue_takes);
        if route != self.route {
            self.route = route;
            self.follow_route();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_stand_below_their_names() {
        let counters = Counters { drop_icmp_unrelated: 3, resets_sent: 7, ..Counters::default() };
        let text = group("Tcp", TCP, &counters);
        let (names, values) = text.trim_end().split_once('\n').unwrap();
        let at = names.split(' ').position(|name| name == "OutRsts").unwrap();
        assert_eq!(values.split(' ').nth(at), Some("7"));
        assert_eq!(names.split(' ').count(), values.split(' ').count());
        assert!(group("TcpExt", TCP_EXT, &counters).starts_with("TcpExt: SyncookiesSent "));
    }

    #[test]
    fn a_queue_that_holds_nothing_takes_nothing() {
        assert!(takes(""));
        assert!(takes("qdisc pfifo 8001: root refcnt 2 limit 1000p\n"));
        assert!(takes("qdisc fq 8001: root refcnt 2 limit 10000p flow_limit 100p\n"));
        assert!(!takes("qdisc pfifo 8001: root refcnt 2 limit 0p\n"));
        assert!(takes("qdisc pfifo 8002: parent 1:1 limit 0p\n"), "another queue may take it");
    }
}
