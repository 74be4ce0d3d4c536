//! However a port ends, Linux has its interface back.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use millrace_bpf::attached;
use millrace_frames::{Arena, ArenaConfig, Hugepages};
use millrace_port::Port;
use millrace_port::af_xdp::{AfXdp, Config, XdpMode};
use millrace_port::interface::Interface;

use crate::PORT;
use crate::traffic::on_a_wire;

const HOLD: &str = "MILLRACE_PORT_TEST_HOLD";

fn arena() -> Arena {
    Arena::new(ArenaConfig { frames: 256, frame_size: 2048, hugepages: Hugepages::Never }).unwrap()
}

fn programs() -> usize {
    attached(Interface::find(PORT).unwrap().index).unwrap().len()
}

#[test]
fn a_closed_or_dropped_port_leaves_no_program() {
    on_a_wire("a_closed_or_dropped_port_leaves_no_program", 1, || {
        for xdp in [XdpMode::Native, XdpMode::Generic] {
            let config = Config { xdp, ..Config::default() };
            let mut arena = arena();
            let mut port = AfXdp::open(PORT, 0, &config, &mut arena).unwrap();
            assert_eq!(programs(), 1);
            port.close(&mut arena);
            assert_eq!(programs(), 0);
            assert_eq!(arena.free(), arena.frames());
            let port = AfXdp::open(PORT, 0, &config, &mut arena).unwrap();
            assert_eq!(programs(), 1);
            drop(port);
            assert_eq!(programs(), 0);
        }
    });
}

#[test]
fn an_arena_may_go_before_its_port() {
    on_a_wire("an_arena_may_go_before_its_port", 1, || {
        let mut arena = arena();
        let port = AfXdp::open(PORT, 0, &Config::default(), &mut arena).unwrap();
        drop(arena);
        drop(port);
        assert_eq!(programs(), 0);
    });
}

#[test]
fn a_queue_can_be_opened_again_at_once() {
    on_a_wire("a_queue_can_be_opened_again_at_once", 1, || {
        let mut arena = arena();
        for _ in 0..20 {
            let mut port = AfXdp::open(PORT, 0, &Config::default(), &mut arena).unwrap();
            port.close(&mut arena);
            assert_eq!(arena.free(), arena.frames());
        }
    });
}

#[test]
fn a_killed_process_leaves_no_program() {
    on_a_wire("a_killed_process_leaves_no_program", 1, || {
        let mut holder = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "lifetime::holder", "--ignored", "--nocapture"])
            .env(HOLD, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
        let held = lines.map_while(Result::ok).any(|line| line.ends_with("holding"));
        let while_held = programs();
        holder.kill().unwrap();
        holder.wait().unwrap();
        assert!(held, "the holder opened its port");
        assert_eq!((while_held, programs()), (1, 0));
        let mut arena = arena();
        AfXdp::open(PORT, 0, &Config::default(), &mut arena).unwrap().close(&mut arena);
    });
}

#[test]
#[ignore = "not a test: the process that a_killed_process_leaves_no_program starts and kills"]
fn holder() {
    if std::env::var_os(HOLD).is_none() {
        return;
    }
    let mut arena = arena();
    let _port = AfXdp::open(PORT, 0, &Config::default(), &mut arena).unwrap();
    println!("holding");
    loop {
        std::thread::park();
    }
}
