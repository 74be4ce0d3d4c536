//! Every refusal says what failed, on what, why, and what to do.

use std::io::ErrorKind;

use millrace_bpf::attached;
use millrace_frames::{Arena, ArenaConfig, Hugepages, RxBatch, TxBatch};
use millrace_port::af_xdp::{AfXdp, Config, RedirectConfig, XdpMode, ZeroCopy};
use millrace_port::interface::Interface;
use millrace_port::{Port, clock};

use crate::common::{DESTINATION, frame, stage};
use crate::namespace::ip;
use crate::traffic::on_a_wire;
use crate::{PEER, PORT};

fn arena(frame_size: u32) -> Arena {
    Arena::new(ArenaConfig { frames: 256, frame_size, hugepages: Hugepages::Never }).unwrap()
}

/// Opens, and expects a refusal with these words; the arena has every frame afterwards.
fn refused(
    name: &str,
    queue: u32,
    config: &Config,
    arena: &mut Arena,
    words: &[&str],
) -> ErrorKind {
    let Err(error) = AfXdp::open(name, queue, config, arena) else {
        panic!("{name} was opened, without: {words:?}");
    };
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert_eq!(arena.free(), arena.frames(), "frames after: {text}");
    error.kind()
}

#[test]
fn interfaces_that_cannot_serve() {
    on_a_wire("interfaces_that_cannot_serve", 1, || {
        let mut arena = arena(2048);
        let config = Config::default();
        let kind = refused("mrbpf9", 0, &config, &mut arena, &["mrbpf9", PORT]);
        assert_eq!(kind, ErrorKind::NotFound);
        ip(&format!("link set {PORT} down"));
        let kind = refused(PORT, 0, &config, &mut arena, &[PORT, "down", "ip link set"]);
        assert_eq!(kind, ErrorKind::NetworkDown);
        ip(&format!("link set {PORT} up"));
        let kind = refused(PORT, 1, &config, &mut arena, &[PORT, "1 queues"]);
        assert_eq!(kind, ErrorKind::InvalidInput);
        refused(PORT, u32::MAX, &config, &mut arena, &[PORT]);
    });
}

#[test]
fn a_queue_or_an_interface_that_is_taken() {
    on_a_wire("a_queue_or_an_interface_that_is_taken", 2, || {
        let (mut first, mut second) = (arena(2048), arena(2048));
        let mut port = AfXdp::open(PORT, 0, &Config::default(), &mut first).unwrap();
        let words = ["queue 0", PORT, "in use"];
        let kind = refused(PORT, 0, &Config::default(), &mut second, &words);
        assert_eq!(kind, ErrorKind::ResourceBusy);
        let words = [PORT, "has an XDP program", "mr_redirector"];
        let kind = refused(PORT, 1, &Config::default(), &mut second, &words);
        assert_eq!(kind, ErrorKind::ResourceBusy);
        port.close(&mut first);
        AfXdp::open(PORT, 0, &Config::default(), &mut second).unwrap().close(&mut second);
    });
}

#[test]
fn an_mtu_that_does_not_fit() {
    on_a_wire("an_mtu_that_does_not_fit", 1, || {
        let set = |mtu: u32| {
            for end in [PORT, PEER] {
                ip(&format!("link set {end} mtu {mtu}"));
            }
        };
        set(3000);
        refused(PORT, 0, &Config::default(), &mut arena(2048), &["3000", "2048", "frames of 4096"]);
        let config = Config { xdp: XdpMode::Native, ..Config::default() };
        AfXdp::open(PORT, 0, &config, &mut arena(4096)).unwrap();
        set(3700);
        let words = [PORT, "native", "MTU", "--xdp generic"];
        refused(PORT, 0, &config, &mut arena(4096), &words);
        set(9000);
        refused(PORT, 0, &config, &mut arena(4096), &["9000", "ip link set mrbpf0 mtu 3822"]);
    });
}

#[test]
fn native_that_is_refused_becomes_generic_and_says_so() {
    on_a_wire("native_that_is_refused_becomes_generic_and_says_so", 1, || {
        for end in [PORT, PEER] {
            ip(&format!("link set {end} mtu 3700"));
        }
        let mut arena = arena(4096);
        let mut port = AfXdp::open(PORT, 0, &Config::default(), &mut arena).unwrap();
        let facts = port.capabilities().facts.clone();
        let mode = facts.iter().find(|(name, _)| *name == "mode").unwrap();
        assert!(
            mode.1.starts_with("generic, because native") && mode.1.contains("MTU"),
            "{mode:?}"
        );
        assert_eq!(attached(Interface::find(PORT).unwrap().index).unwrap().len(), 1);
        port.close(&mut arena);
        assert_eq!(arena.free(), arena.frames());

        let require = Config { zero_copy: ZeroCopy::Require, ..Config::default() };
        refused(PORT, 0, &require, &mut arena, &[PORT, "veth", "zero-copy"]);
    });
}

#[test]
fn frames_and_filters_of_wrong_sizes() {
    on_a_wire("frames_and_filters_of_wrong_sizes", 1, || {
        refused(PORT, 0, &Config::default(), &mut arena(8192), &["2048 or 4096", "8192"]);
        let mut redirect = RedirectConfig::addresses([]);
        redirect.filter.as_mut().unwrap().max_addresses = u32::MAX;
        let config = Config { redirect, ..Config::default() };
        refused(PORT, 0, &config, &mut arena(2048), &["map"]);
        let none = AfXdp::open_queues(PORT, 0, &Config::default(), &mut []);
        assert_eq!(none.err().unwrap().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn an_interface_that_goes_down_and_comes_back() {
    on_a_wire("an_interface_that_goes_down_and_comes_back", 1, || {
        let mut arena = arena(2048);
        let mut port = AfXdp::open(PORT, 0, &Config::default(), &mut arena).unwrap();
        let mut batch = TxBatch::new();
        batch.push(stage(&mut arena, &frame(DESTINATION, 1, 100), usize::MAX)).unwrap();
        ip(&format!("link set {PORT} down"));
        let error = port.tx(clock::now(), &mut arena, &mut batch).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NetworkDown, "{error}");
        ip(&format!("link set {PORT} up"));
        while port.tx(clock::now(), &mut arena, &mut batch).is_err() {}
        port.close(&mut arena);
        assert_eq!(arena.free(), arena.frames());
    });
}

#[test]
fn an_interface_that_is_deleted_ends_the_port() {
    on_a_wire("an_interface_that_is_deleted_ends_the_port", 1, || {
        let mut arena = arena(2048);
        let mut port = AfXdp::open(PORT, 0, &Config::default(), &mut arena).unwrap();
        ip(&format!("link del {PORT}"));
        // A sleeper is woken by it and then told.
        port.arm(clock::now());
        let error = port.rx(clock::now(), &mut arena, &mut RxBatch::new()).unwrap_err();
        assert!(error.to_string().contains("mrbpf0 is gone"), "{error}");
        let mut batch = TxBatch::new();
        batch.push(stage(&mut arena, &frame(DESTINATION, 1, 100), usize::MAX)).unwrap();
        let error = port.tx(clock::now(), &mut arena, &mut batch).unwrap_err();
        assert!(error.to_string().contains("mrbpf0 is gone"), "{error}");
        port.close(&mut arena);
        assert_eq!(arena.free(), arena.frames());
        assert!(port.rx(clock::now(), &mut arena, &mut RxBatch::new()).is_err(), "closed");
    });
}

#[test]
fn a_spinner_learns_that_its_interface_was_deleted() {
    on_a_wire("a_spinner_learns_that_its_interface_was_deleted", 1, || {
        let mut arena = arena(2048);
        let mut port = AfXdp::open(PORT, 0, &Config::default(), &mut arena).unwrap();
        ip(&format!("link del {PORT}"));
        while port.rx(clock::now(), &mut arena, &mut RxBatch::new()).is_ok() {}
        port.close(&mut arena);
    });
}
