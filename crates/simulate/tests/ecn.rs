//! Marking queues and those who heed marks: DCTCP (RFC 8257), RFC 3168 and Accurate ECN (RFC 9768),
//! from end to end.

use millrace_frames::Duration;
use millrace_simulate::{
    Conversation, HostSpec, Impairment, Report, Settings, Topology, WireSpec, World,
};
use millrace_stack::{Algorithm, Counters, Ecn};

const RATE: u64 = 100_000_000;
const SECONDS: u64 = 5;
/// Twenty full frames: a queue with more marks what comes.
const MARK: u64 = 20 * 1514;
const QUEUE: u64 = 120 * 1514;

/// What two bulk flows over one bottleneck came to.
struct Outcome {
    /// Bits that arrived in a second, of each flow.
    goodput: [f64; 2],
    /// Longest smoothed round trip of a sender at the end.
    round_trip: Duration,
    dropped: u64,
    marked: u64,
    senders: [Counters; 2],
    receiver: Counters,
}

/// As [`run_over`] a queue that marks.
fn run(algorithms: [Algorithm; 2], ecn: [Ecn; 3]) -> Outcome {
    run_over(algorithms, ecn, Some(MARK))
}

/// Two hosts send to a third one behind a switch, whose wire to that one is the bottleneck. A round
/// trip of a millisecond, without a queue.
fn run_over(algorithms: [Algorithm; 2], ecn: [Ecn; 3], mark: Option<u64>) -> Outcome {
    let spec = |algorithm: Algorithm, ecn: Ecn| {
        let mut spec = HostSpec::default();
        spec.config.congestion = algorithm;
        spec.config.ecn = ecn;
        spec
    };
    let mut topology = Topology::new();
    let a = topology.host(Some("a"), spec(algorithms[0], ecn[0])).unwrap();
    let b = topology.host(Some("b"), spec(algorithms[1], ecn[1])).unwrap();
    let c = topology.host(Some("c"), spec(algorithms[0], ecn[2])).unwrap();
    let switch = topology.switch(None).unwrap();
    let delay = Impairment { delay: Duration::from_micros(250), ..Impairment::default() };
    let near = WireSpec { directions: [delay; 2], ..WireSpec::default() };
    topology.wire(a, switch, near.clone()).unwrap();
    topology.wire(b, switch, near).unwrap();
    let narrow =
        Impairment { rate_bits_per_s: Some(RATE), queue_bytes: QUEUE, mark_bytes: mark, ..delay };
    let wire = WireSpec { directions: [narrow, delay], ..WireSpec::default() };
    topology.wire(switch, c, wire).unwrap();
    let settings = Settings { seed: 11, check: true, ..Settings::default() };
    let mut world = World::new(topology, settings).unwrap();
    for (number, host) in [a, b].into_iter().enumerate() {
        let start = Duration::from_millis(300 * number as u64);
        let bulk = Conversation::bulk(host, c, 80 + number as u16, 1 << 40);
        world.converse(Conversation { start, ..bulk }).unwrap();
    }
    let received = |reports: &[Report]| [0, 1].map(|at| reports[at].sides[1].received);
    world.run(Duration::from_secs(1)).unwrap();
    let before = received(&world.reports());
    world.run(Duration::from_secs(1 + SECONDS)).unwrap();
    assert!(world.violations().is_empty(), "{:?}", world.violations());
    let reports = world.reports();
    let after = received(&reports);
    let round_trips = reports.iter().map(|report| report.sides[0].info.unwrap().round_trip);
    let (_, [bottleneck, _]) = world.wires().last().unwrap();
    let counters: Vec<Counters> = world.stacks().map(|(_, counters, _)| counters.clone()).collect();
    let [a, b, c] = &counters[..] else { panic!("three stacks") };
    Outcome {
        goodput: [0, 1].map(|at| (after[at] - before[at]) as f64 * 8.0 / SECONDS as f64),
        round_trip: round_trips.max().unwrap(),
        dropped: bottleneck.link.queue_dropped,
        marked: bottleneck.link.marked,
        senders: [a.clone(), b.clone()],
        receiver: c.clone(),
    }
}

impl Outcome {
    /// The link was used, by both alike, and nothing was lost.
    #[track_caller]
    fn expect_short_queue(&self, least: f64) {
        let [a, b] = self.goodput;
        assert!(a + b > least * RATE as f64, "{a} + {b}");
        assert!(a.min(b) / (a + b) > 0.4, "{a} and {b}");
        assert_eq!(self.dropped, 0);
        assert!(self.marked > 1000);
        // A millisecond of wires, and twenty frames that take 2.4.
        assert!(self.round_trip < Duration::from_millis(4), "{:?}", self.round_trip);
        for sender in &self.senders {
            assert!(sender.congestion_reductions > 20, "{sender:?}");
            assert_eq!((sender.fast_retransmits, sender.segments_retransmitted), (0, 0));
        }
    }
}

/// The most that a link carries beside headers is 95.6 % of it.
#[test]
fn two_dctcp_flows_fill_the_link_and_keep_the_queue_short() {
    let outcome = run([Algorithm::Dctcp; 2], [Ecn::Passive; 3]);
    outcome.expect_short_queue(0.94);
    assert_eq!(outcome.receiver.accurate_ecn_connections, 2);
}

#[test]
fn cubic_heeds_marks_of_either_kind() {
    for (ecn, classic, accurate) in [
        ([Ecn::On; 3], 2, 0),
        ([Ecn::Accurate; 3], 0, 2),
        ([Ecn::On, Ecn::Accurate, Ecn::Passive], 1, 1),
    ] {
        let outcome = run([Algorithm::Cubic; 2], ecn);
        outcome.expect_short_queue(0.93);
        let receiver = &outcome.receiver;
        let agreed = (receiver.ecn_connections, receiver.accurate_ecn_connections);
        assert_eq!(agreed, (classic, accurate));
    }
}

#[test]
fn newreno_heeds_marks_of_either_kind() {
    for ecn in [Ecn::On, Ecn::Accurate] {
        run([Algorithm::NewReno; 2], [ecn; 3]).expect_short_queue(0.8);
    }
}

#[test]
fn without_it_the_queue_is_as_long_as_it_can_be() {
    let outcome = run([Algorithm::Cubic; 2], [Ecn::Off; 3]);
    assert!(outcome.dropped > 20 && outcome.marked == 0);
    assert!(outcome.round_trip > Duration::from_millis(8), "{:?}", outcome.round_trip);
    assert!(outcome.senders.iter().all(|sender| sender.fast_retransmits > 0));
}

/// RFC 8257 §3.5: what is lost is lost, and it goes on as NewReno does.
#[test]
fn dctcp_goes_on_where_nobody_marks() {
    let outcome = run_over([Algorithm::Dctcp; 2], [Ecn::Passive; 3], None);
    assert!(outcome.dropped > 20 && outcome.marked == 0);
    let [a, b] = outcome.goodput;
    assert!(a + b > 0.85 * RATE as f64, "{a} + {b}");
}
