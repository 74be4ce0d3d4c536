//! What timestamps of copies do for a path that loses and reorders, seen from both its ends.

use millrace_frames::Duration;
use millrace_simulate::{
    Conversation, HostSpec, Impairment, SettingValue, Settings, Topology, WireSpec, World,
    set_option,
};

/// One in a thousand is lost, one in fifty takes an eighth of the round trip longer. Returns how many
/// segments the receiver refused for their timestamps.
fn refused(held: bool) -> u64 {
    let mut sender = HostSpec::default();
    set_option(&mut sender, "held_timestamps", &SettingValue::Flag(held)).unwrap();
    set_option(&mut sender, "congestion", &SettingValue::Text("bbr".into())).unwrap();
    let mut topology = Topology::new();
    let a = topology.host(Some("a"), sender).unwrap();
    let b = topology.host(Some("b"), HostSpec::default()).unwrap();
    let direction = Impairment {
        rate_bits_per_s: Some(200_000_000),
        queue_bytes: 500_000,
        delay: Duration::from_millis(10),
        loss: 0.001,
        reorder: 0.02,
        reorder_delay: Duration::from_micros(2500),
        ..Impairment::default()
    };
    let wire = WireSpec { directions: [direction; 2], ..WireSpec::default() };
    topology.wire(a, b, wire).unwrap();
    let mut world = World::new(topology, Settings { seed: 1, ..Settings::default() }).unwrap();
    world.converse(Conversation::bulk(a, b, 80, 1 << 40)).unwrap();
    world.run(Duration::from_secs(4)).unwrap();
    world.stacks().nth(1).unwrap().1.drop_tcp_paws
}

#[test]
fn copies_that_overtake_make_no_losses_of_their_own() {
    let (held, clock) = (refused(true), refused(false));
    assert!(clock > 10 && held * 5 < clock, "{held} with held timestamps, {clock} without");
}
