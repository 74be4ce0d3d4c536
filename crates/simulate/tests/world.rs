//! Networks by hand: what topologies, wires, conversations, changes and traces do.

use std::io::Read;

use millrace_frames::Duration;
use millrace_port::pcap::PcapReader;
use millrace_simulate::{
    Change, Conversation, Exchange, HostSpec, Impairment, NodeId, Notice, RouterSpec, SettingValue,
    Settings, Stop, Topology, WireSpec, World, explain, set_option,
};
use millrace_stack::{Failure, State};

const LONG: Duration = Duration::from_secs(3600);

fn slow(rate: u64, delay: u64, loss: f64) -> WireSpec {
    let direction = Impairment {
        rate_bits_per_s: Some(rate),
        delay: Duration::from_millis(delay),
        loss,
        ..Impairment::default()
    };
    WireSpec { directions: [direction; 2], ..WireSpec::default() }
}

fn pair(spec: WireSpec) -> (Topology, NodeId, NodeId) {
    let mut topology = Topology::new();
    let a = topology.host(Some("a"), HostSpec::default()).unwrap();
    let b = topology.host(Some("b"), HostSpec::default()).unwrap();
    topology.wire(a, b, spec).unwrap();
    (topology, a, b)
}

/// Two hosts behind a router and a switch each.
fn long_way(narrow: u16, icmp: bool) -> (Topology, NodeId, NodeId) {
    let mut topology = Topology::new();
    let a = topology.host(Some("a"), HostSpec::default()).unwrap();
    let b = topology.host(Some("b"), HostSpec::default()).unwrap();
    let switches = [0, 1].map(|_| topology.switch(None).unwrap());
    let routers = [0, 1].map(|_| topology.router(None, RouterSpec { icmp }).unwrap());
    topology.wire(a, switches[0], WireSpec::default()).unwrap();
    topology.wire(switches[0], routers[0], WireSpec::default()).unwrap();
    topology
        .wire(routers[0], routers[1], WireSpec { mtu: narrow, ..slow(10_000_000, 10, 0.0) })
        .unwrap();
    topology.wire(routers[1], switches[1], WireSpec::default()).unwrap();
    topology.wire(switches[1], b, WireSpec::default()).unwrap();
    (topology, a, b)
}

fn settings(seed: u64) -> Settings {
    Settings { seed, check: true, ..Settings::default() }
}

#[test]
fn a_world_in_parts_is_the_same_world() {
    let run = |events: u64| {
        let (topology, a, b) = pair(slow(10_000_000, 10, 0.01));
        let mut world = World::new(topology, settings(1)).unwrap();
        world.converse(Conversation::bulk(a, b, 80, 1_000_000)).unwrap();
        let mut parts = 0;
        loop {
            parts += 1;
            if let Some(stop) = world.run_a_while(LONG, events).unwrap() {
                assert_eq!(stop, Stop::Quiet);
                return (parts, world.digest());
            }
        }
    };
    let (parts, digest) = run(100);
    assert!(parts > 10, "{parts}");
    assert_eq!(run(u64::MAX), (1, digest));
}

#[test]
fn a_bulk_transfer_fills_the_link() {
    let mut spec = HostSpec::default();
    set_option(&mut spec, "receive_buffer", &SettingValue::Whole(100_000)).unwrap();
    let mut topology = Topology::new();
    let a = topology.host(Some("a"), HostSpec::default()).unwrap();
    let b = topology.host(Some("b"), spec).unwrap();
    topology.wire(a, b, slow(10_000_000, 10, 0.0)).unwrap();
    let mut world = World::new(topology, settings(1)).unwrap();
    world.converse(Conversation::bulk(a, b, 80, 10_000_000)).unwrap();
    assert_eq!(world.run(LONG).unwrap(), Stop::Quiet);
    let [report] = &world.reports()[..] else { panic!("one conversation") };
    assert!(report.complete(), "{report:?}");
    let goodput = report.sides[1].goodput() * 8.0;
    assert!((8.5e6..10e6).contains(&goodput), "{goodput}");
    assert!(world.violations().is_empty());
}

#[test]
fn switches_and_routers_carry_requests() {
    let (topology, a, b) = long_way(1500, true);
    let mut world = World::new(topology, settings(2)).unwrap();
    let exchange = Exchange { request: 100, response: 3_000, think: Duration::from_millis(5) };
    world.converse(Conversation::requests(a, b, 80, 50, exchange)).unwrap();
    assert_eq!(world.run(LONG).unwrap(), Stop::Quiet);
    let [report] = &world.reports()[..] else { panic!("one conversation") };
    assert!(report.complete(), "{report:?}");
    assert_eq!(report.latencies.len(), 50);
    let least = Duration::from_millis(20);
    assert!(report.latencies.iter().all(|&one| one > least), "{:?}", report.latencies);
    assert!(world.routers().all(|(_, counters)| counters.forwarded > 100));
}

#[test]
fn the_same_seed_gives_the_same_packets_and_another_gives_others() {
    let digest = |seed| {
        let (topology, a, b) = pair(slow(10_000_000, 10, 0.05));
        let mut world = World::new(topology, settings(seed)).unwrap();
        world.converse(Conversation::bulk(a, b, 80, 200_000)).unwrap();
        world.run(LONG).unwrap();
        world.digest().unwrap()
    };
    assert_eq!(digest(1), digest(1));
    assert_ne!(digest(1), digest(2));
}

#[test]
fn a_host_that_vanishes_is_noticed_by_who_sends() {
    let (topology, a, b) = pair(slow(10_000_000, 10, 0.0));
    let mut world = World::new(topology, settings(3)).unwrap();
    world.converse(Conversation::bulk(a, b, 80, 10_000_000)).unwrap();
    world.change(Duration::from_secs(1), Change::Vanish(b)).unwrap();
    assert_eq!(world.run(LONG).unwrap(), Stop::Quiet);
    let [report] = &world.reports()[..] else { panic!("one conversation") };
    assert_eq!(report.sides[0].failure, Some(Failure::TimedOut));
    assert!(report.sides[1].vanished);
}

#[test]
fn a_host_that_comes_back_resets_what_it_has_forgotten() {
    let (topology, a, b) = pair(slow(10_000_000, 10, 0.0));
    let mut world = World::new(topology, settings(4)).unwrap();
    world.converse(Conversation::bulk(a, b, 80, 10_000_000)).unwrap();
    world.change(Duration::from_secs(1), Change::Vanish(b)).unwrap();
    world.change(Duration::from_secs(3), Change::Reboot(b)).unwrap();
    assert_eq!(world.run(LONG).unwrap(), Stop::Quiet);
    let [report] = &world.reports()[..] else { panic!("one conversation") };
    assert_eq!(report.sides[0].failure, Some(Failure::Reset));
}

#[test]
fn a_cut_wire_delays_and_loses_nothing_in_the_end() {
    let (topology, a, b) = pair(slow(10_000_000, 10, 0.0));
    let wire = topology.wire_id(a, b).unwrap();
    let mut world = World::new(topology, settings(5)).unwrap();
    world.converse(Conversation::bulk(a, b, 80, 10_000_000)).unwrap();
    world.change(Duration::from_secs(1), Change::Down(wire)).unwrap();
    world.change(Duration::from_secs(20), Change::Up(wire)).unwrap();
    assert_eq!(world.run(LONG).unwrap(), Stop::Quiet);
    let [report] = &world.reports()[..] else { panic!("one conversation") };
    assert!(report.complete(), "{report:?}");
    assert!(report.duration().unwrap() > Duration::from_secs(20));
}

#[test]
fn a_scenario_drives_its_own_connections() {
    let (topology, a, b) = pair(slow(1_000_000, 50, 0.02));
    let mut world = World::new(topology, settings(6)).unwrap();
    world.listen(b, 7, 99).unwrap();
    world.call_at(Duration::from_secs(2), 5);
    let client = world.connect(a, (world.address(b, false).unwrap(), 7).into()).unwrap();
    let question = vec![7u8; 300_000];
    world.write(client, &question).unwrap();
    let (mut server, mut answer, mut called, mut closed) = (None, Vec::new(), false, Vec::new());
    while world.run(LONG).unwrap() == Stop::Notices {
        while let Some(notice) = world.notice() {
            match notice {
                Notice::Call(number) => {
                    assert_eq!((number, world.now()), (5, Duration::from_secs(2)));
                    called = true;
                }
                Notice::Accepted { handler, connection } => {
                    assert_eq!(handler, 99);
                    server = Some(connection);
                }
                Notice::Data(connection, data) if Some(connection) == server => {
                    world.write(connection, &data).unwrap();
                }
                Notice::Data(connection, data) => {
                    assert_eq!(connection, client);
                    answer.extend(data);
                    if answer.len() == question.len() {
                        world.shutdown(client).unwrap();
                    }
                }
                Notice::Finished(connection) => world.close(connection),
                Notice::Closed(connection, failure) => {
                    assert_eq!(failure, None);
                    closed.push(connection);
                }
                Notice::Connected(connection) => assert_eq!(connection, client),
                Notice::Drained(_) => {}
            }
        }
    }
    assert!(called);
    assert_eq!(answer, question);
    assert!(world.write(client, b"too late").is_err());
}

#[test]
fn a_connection_that_failed_while_it_was_closing_is_remembered_and_told_no_more_of() {
    let (topology, a, b) = pair(slow(1_000_000, 10, 0.0));
    let mut world = World::new(topology, settings(1)).unwrap();
    world.listen(b, 80, 0).unwrap();
    let remote = (world.address(b, false).unwrap(), 80).into();
    let client = world.connect(a, remote).unwrap();
    world.write(client, &vec![7; 10 << 20]).unwrap();
    world.close(client);
    while world.run(Duration::from_secs(60)).unwrap() == Stop::Notices {
        while let Some(notice) = world.notice() {
            match notice {
                Notice::Data(connection, _) if connection != client => world.abort(connection),
                Notice::Accepted { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(world.info(client).map(|info| info.state), Some(State::Closed));
}

#[test]
fn a_trace_shows_both_ends_of_each_wire() {
    let (mut topology, a, b) = pair(slow(10_000_000, 10, 0.1));
    let silent = topology.host(Some("c"), HostSpec::default()).unwrap();
    let other = topology.host(Some("d"), HostSpec::default()).unwrap();
    let spec = WireSpec { capture: false, ..WireSpec::default() };
    topology.wire(silent, other, spec).unwrap();
    let path = std::env::temp_dir().join(format!("millrace-trace-{}.pcapng", std::process::id()));
    let settings = Settings { trace: Some(path.clone()), ..settings(7) };
    let mut world = World::new(topology, settings).unwrap();
    world.converse(Conversation::bulk(a, b, 80, 100_000)).unwrap();
    world.converse(Conversation::bulk(silent, other, 80, 100_000)).unwrap();
    world.run(LONG).unwrap();
    let mut bytes = Vec::new();
    std::fs::File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
    std::fs::remove_file(&path).unwrap();
    let mut reader = PcapReader::new(&bytes[..], "trace").unwrap();
    let mut counts = [0u64; 2];
    let mut last = None;
    while let Some(packet) = reader.next_packet().unwrap() {
        counts[packet.interface as usize] += 1;
        assert!(last <= Some(packet.timestamp));
        last = Some(packet.timestamp);
    }
    let names: Vec<_> = reader.interfaces().iter().map(|one| one.name.clone().unwrap()).collect();
    assert_eq!(names, ["a.0", "b.0"]);
    let (_, [there, back]) = world.wires().next().unwrap();
    let sent = there.link.offered + back.link.offered;
    assert_eq!(counts[0], there.link.offered + back.link.forwarded);
    assert_eq!(counts[1], back.link.offered + there.link.forwarded);
    assert!(counts[0] < sent, "some were lost");
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let (mut topology, a, b) = pair(WireSpec::default());
    let c = topology.host(Some("c"), HostSpec::default()).unwrap();
    let twice = topology.wire(a, c, WireSpec::default()).unwrap_err();
    assert!(twice.to_string().contains("host a has its wire already"), "{twice}");
    let lonely = World::new(topology.clone(), settings(8)).err().unwrap();
    assert!(lonely.to_string().contains("host c has no wire"), "{lonely}");
    assert!(topology.host(Some("a"), HostSpec::default()).is_err());
    let mut spec = HostSpec::default();
    let unknown = set_option(&mut spec, "sendbuffer", &SettingValue::Whole(1)).unwrap_err();
    let said = explain(&unknown, "sendbuffer", "1").to_string();
    assert!(said.contains("no option \"sendbuffer\"") && said.contains("send_buffer"), "{said}");
    let wrong = set_option(&mut spec, "frames", &SettingValue::Text("much".into())).unwrap_err();
    let said = explain(&wrong, "frames", "'much'").to_string();
    assert_eq!(said, "frames is a whole number, not 'much'");
    let (topology, a, _) = pair(WireSpec::default());
    let mut world = World::new(topology, settings(8)).unwrap();
    assert!(world.converse(Conversation::bulk(a, a, 80, 1)).is_err());
    let _ = b;
}

#[test]
fn a_router_says_that_a_wire_is_too_narrow_or_makes_a_black_hole() {
    for icmp in [true, false] {
        let (topology, a, b) = long_way(1000, icmp);
        let mut world = World::new(topology, settings(9)).unwrap();
        world.converse(Conversation::bulk(a, b, 80, 50_000)).unwrap();
        world.run(LONG).unwrap();
        let (_, counters) = world.routers().next().unwrap();
        assert!(counters.drop_too_big > 0);
        assert_eq!(counters.icmp_sent > 0, icmp);
    }
}

#[test]
fn ipv6_goes_the_same_ways() {
    let (topology, a, b) = long_way(1400, true);
    let mut world = World::new(topology, Settings { ipv6: true, ..settings(10) }).unwrap();
    for (port, ipv6) in [(80, true), (81, false)] {
        let bulk = Conversation::bulk(a, b, port, 100_000);
        world.converse(Conversation { ipv6, ..bulk }).unwrap();
    }
    let exchange = Exchange { request: 10, response: 10, think: Duration::ZERO };
    let requests = Conversation::requests(a, b, 82, 10, exchange);
    world.converse(Conversation { ipv6: true, ..requests }).unwrap();
    world.run(LONG).unwrap();
    let reports = world.reports();
    assert!(reports[2].complete(), "{:?}", reports[2]);
    let info = reports[0].sides[0].info.unwrap();
    assert!(info.local.is_ipv6() && info.remote.is_ipv6(), "{info:?}");
    assert!(world.address(b, true).unwrap().is_ipv6());
}
