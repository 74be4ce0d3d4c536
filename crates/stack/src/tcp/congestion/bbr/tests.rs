//! The draft's example test cases ("BBR Example Test Cases"), and what departs from it.

use super::super::model::{MSS, Model, Path};
use super::super::{Algorithm, CaState, Congestion, LostSegment, Private, Signal};
use super::*;

fn model(path: Path) -> Model {
    Model::new(path, &[(Algorithm::Bbr, 0)])
}

fn bbr(model: &Model) -> &Bbr {
    match &model.flows[0].private {
        Private::Bbr(bbr) => bbr,
        other => panic!("{other:?}"),
    }
}

/// Runs until the state is this one; how long it took in milliseconds.
fn until(model: &mut Model, most_ms: u64, state: impl Fn(&Bbr) -> bool) -> u64 {
    let begin = model.now_us;
    while model.now_us < begin + most_ms * 1000 {
        let next = model.now_us + 1000;
        model.run_watched(next, |_, _| {});
        if state(bbr(model)) {
            return (model.now_us - begin) / 1000;
        }
    }
    panic!("not within {most_ms} ms: {:?}", bbr(model));
}

/// The states that it passes through.
fn states(model: &mut Model, ms: u64) -> Vec<State> {
    let mut seen = vec![bbr(model).state];
    model.run_watched(model.now_us + ms * 1000, |model, _| {
        let state = bbr(model).state;
        if seen.last() != Some(&state) {
            seen.push(state);
        }
    });
    seen
}

#[test]
fn startup_ends_when_the_rate_stays_the_same() {
    let path = Path::new(100, 40, 4.0);
    let mut model = model(path);
    until(&mut model, 2_000, |bbr| bbr.state == State::Drain);
    let bbr = bbr(&model);
    assert!(bbr.full_bw_now && bbr.full_bw_reached && bbr.full_bw_count == 3);
    let rate = bbr.max_bw() as f64 / path.rate as f64;
    assert!((0.98..1.02).contains(&rate), "{rate}");
    assert_eq!(model.flows[0].lost, 0);
}

#[test]
fn drain_ends_when_no_more_is_in_flight_than_the_product() {
    let path = Path::new(100, 40, 4.0);
    let mut model = model(path);
    until(&mut model, 2_000, |bbr| bbr.state == State::Drain);
    assert_eq!(bbr(&model).pacing_gain(), 50);
    let took = until(&mut model, 1_000, |bbr| bbr.state != State::Drain);
    assert!(took < 200, "{took} ms");
    assert!(bbr(&model).in_probe_bw());
}

#[test]
fn the_states_follow_each_other() {
    use State::{ProbeBwCruise, ProbeBwDown, ProbeBwRefill, ProbeBwUp};
    let mut model = model(Path::new(100, 20, 2.0));
    until(&mut model, 2_000, |bbr| bbr.state == ProbeBwCruise);
    let seen = states(&mut model, 4_000);
    assert!(seen.len() >= 5, "{seen:?}");
    for pair in seen.windows(2) {
        let follows = match pair[0] {
            ProbeBwCruise => pair[1] == ProbeBwRefill,
            ProbeBwRefill => pair[1] == ProbeBwUp,
            ProbeBwUp => pair[1] == ProbeBwDown,
            ProbeBwDown => matches!(pair[1], ProbeBwCruise | ProbeBwRefill),
            _ => false,
        };
        assert!(follows || pair.contains(&State::ProbeRtt), "{seen:?}");
    }
}

#[test]
fn probing_ends_when_the_rate_stays_the_same() {
    let mut model = model(Path::new(100, 20, 4.0));
    until(&mut model, 10_000, |bbr| bbr.state == State::ProbeBwUp);
    let took = until(&mut model, 1_000, |bbr| bbr.state != State::ProbeBwUp);
    assert_eq!(bbr(&model).state, State::ProbeBwDown);
    // Three rounds without growth, at round trips that the probing itself makes longer.
    assert!((40..250).contains(&took), "{took} ms");
    assert!(!bbr(&model).prev_probe_too_high);
}

#[test]
fn an_application_that_limits_the_rate_ends_nothing() {
    let mut model = model(Path::new(100, 20, 1.0));
    // A twentieth of the path, in pieces that are smaller than the window.
    model.flows[0].write_rate = model.path.rate / 20;
    model.run_ms(4_000);
    assert_eq!(bbr(&model).state, State::Startup);
    assert!(!bbr(&model).full_bw_reached);
}

#[test]
fn heavy_loss_ends_startup_even_so() {
    let mut path = Path::new(100, 20, 1.0);
    path.loss_ppm = 400_000;
    let mut model = model(path);
    model.flows[0].write_rate = path.rate / 4;
    until(&mut model, 20_000, |bbr| bbr.full_bw_reached);
}

#[test]
fn the_shortest_round_trip_is_looked_for_every_five_seconds() {
    let path = Path::new(100, 40, 4.0);
    let mut model = model(path);
    until(&mut model, 8_000, |bbr| bbr.state == State::ProbeRtt);
    assert!(model.now_us > 5_000_000);
    assert_eq!(bbr(&model).cwnd_gain(), 50);
    let mut least = u32::MAX;
    let begin = model.now_us;
    let took = {
        let mut took = 0;
        while bbr(&model).state == State::ProbeRtt {
            let next = model.now_us + 1000;
            model.run_watched(next, |_, _| {});
            least = least.min(model.flows[0].congestion.window);
            took = (model.now_us - begin) / 1000;
        }
        took
    };
    assert!((200..400).contains(&took), "{took} ms");
    let half = path.bdp() as u32 / 2;
    assert!(least.abs_diff(half) < half / 5, "{least} of {half}");
    assert_eq!(bbr(&model).state, State::ProbeBwCruise);
    assert!(model.flows[0].congestion.window > path.bdp() as u32);
    assert!(bbr(&model).min_rtt_us.abs_diff(40_080) < 1000, "{}", bbr(&model).min_rtt_us);
}

#[test]
fn a_flow_that_pauses_by_itself_need_not_look_for_it() {
    let mut model = model(Path::new(100, 40, 4.0));
    model.flows[0].write_rate = u64::from(MSS) * 2;
    assert!(!states(&mut model, 20_000).contains(&State::ProbeRtt));
}

#[test]
fn looking_for_it_in_startup_goes_back_to_startup() {
    let mut model = model(Path::new(100, 40, 4.0));
    // Never idle, and never more than a part of the path.
    model.flows[0].write_rate = model.path.rate / 10;
    until(&mut model, 8_000, |bbr| bbr.state == State::ProbeRtt);
    until(&mut model, 2_000, |bbr| bbr.state != State::ProbeRtt);
    assert_eq!(bbr(&model).state, State::Startup);
}

#[test]
fn less_than_a_packet_in_flight_is_four() {
    let path = Path::new(1, 1, 100.0);
    let mut model = model(path);
    model.run_ms(5_000);
    let share = model.shares(5_000)[0];
    assert!(share > 0.93, "{share}");
    assert!(model.flows[0].congestion.window >= 4 * MSS);
    assert!(model.flows[0].pacing_rate() < 2 * path.rate);
}

#[test]
fn a_probe_that_loses_teaches_how_much_may_be_in_flight() {
    let path = Path::new(100, 40, 0.1);
    let mut model = model(path);
    until(&mut model, 20_000, |bbr| bbr.inflight_longterm != NO_VOLUME);
    model.run_ms(5_000);
    let bbr = bbr(&model);
    let most = path.bdp() as u32 + path.queue as u32;
    assert!(bbr.inflight_longterm < most * 5 / 4, "{} of {most}", bbr.inflight_longterm);
    let (lost, delivered) = (model.flows[0].lost, model.flows[0].delivered);
    let share = model.shares(10_000)[0];
    let flow = &model.flows[0];
    let rate = (flow.lost - lost) as f64 / (flow.delivered - delivered) as f64;
    assert!(share > 0.85, "{share}");
    assert!(rate < 0.02, "{rate}");
}

/// A connection that has settled on 100 Mbit/s and 40 ms.
fn settled() -> (Congestion, Bbr) {
    let mut model = model(Path::new(100, 40, 2.0));
    until(&mut model, 5_000, |bbr| bbr.state == State::ProbeBwCruise);
    (model.flows[0].congestion, *bbr(&model))
}

#[test]
fn a_spurious_loss_is_taken_back() {
    let (mut congestion, mut bbr) = settled();
    let window = congestion.window;
    bbr.on_congestion(&congestion, Signal::Timeout);
    congestion.window = MSS;
    bbr.bw_shortterm = 1;
    bbr.inflight_shortterm = 1;
    bbr.on_undo(&mut congestion);
    assert_eq!(congestion.window, window);
    assert_eq!((bbr.bw_shortterm, bbr.inflight_shortterm), (NO_RATE, NO_VOLUME));
    assert_eq!(bbr.ca, CaState::Open);
}

#[test]
fn a_probe_that_a_spurious_loss_ended_begins_again() {
    let (mut congestion, mut bbr) = settled();
    bbr.state = State::ProbeBwUp;
    bbr.is_bw_probe_sample = true;
    let lost = LostSegment {
        now_us: 9_000_000,
        len: MSS,
        in_flight_at_send: 100 * MSS,
        lost_since_send: 50 * MSS,
        delivered_total: 1_000_000,
        ..LostSegment::default()
    };
    bbr.on_segment_lost(&congestion, &lost);
    assert_eq!(bbr.state, State::ProbeBwDown);
    assert!(bbr.prev_probe_too_high && bbr.inflight_longterm != NO_VOLUME);
    bbr.on_undo(&mut congestion);
    assert_eq!(bbr.state, State::ProbeBwRefill);
    assert_eq!(bbr.inflight_longterm, NO_VOLUME);
}

/// Draft §5.5.10.2: the prefix of a burst that fitted.
#[test]
fn a_burst_is_counted_as_far_as_it_fitted() {
    let (congestion, mut bbr) = settled();
    bbr.state = State::ProbeBwUp;
    bbr.is_bw_probe_sample = true;
    bbr.noise = Noise::NONE;
    let before = 900 * MSS;
    let burst = 100 * MSS;
    bbr.on_segment_lost(
        &congestion,
        &LostSegment {
            len: burst,
            in_flight_at_send: before + burst,
            lost_since_send: burst,
            ..LostSegment::default()
        },
    );
    // Two hundredths of 900 segments, over 0.98.
    let fitted = 900 * MSS + 18 * MSS;
    assert!(bbr.inflight_longterm.abs_diff(fitted) < MSS, "{}", bbr.inflight_longterm);
}

#[test]
fn a_retransmission_timeout_leaves_the_model_and_brings_the_window_back() {
    let (mut congestion, bbr) = settled();
    let window = congestion.window;
    let mut private = Private::Bbr(bbr);
    congestion.on_timeout(&mut private, 0, MSS, 0, true);
    assert_eq!(congestion.window, MSS);
    congestion.on_recovery_done(&mut private);
    assert_eq!(congestion.window, window);
}

#[test]
fn a_mark_ends_a_probe_and_bounds_it() {
    let mut path = Path::new(100, 40, 8.0);
    path.mark_above = path.bdp() / 20;
    let mut model = model(path);
    model.run_ms(10_000);
    assert_ne!(bbr(&model).inflight_longterm, NO_VOLUME);
    model.mean_queue();
    let share = model.shares(10_000)[0];
    assert!(share > 0.8, "{share}");
    assert!(model.mean_queue() < path.bdp() / 5);
}

/// What departs from the draft: loss without a queue.
#[test]
fn loss_that_no_queue_explains_does_not_slow_it_down() {
    for (loss_ppm, least) in [(10_000, 0.9), (30_000, 0.85), (100_000, 0.75)] {
        for queue in [0.1, 1.0] {
            let mut path = Path::new(100, 40, queue);
            path.loss_ppm = loss_ppm;
            let mut model = model(path);
            model.run_ms(5_000);
            let share = model.shares(20_000)[0];
            assert!(share > least, "{loss_ppm} ppm, queue {queue}: {share}");
        }
    }
}

#[test]
fn more_than_a_quarter_lost_is_never_noise() {
    let mut path = Path::new(100, 40, 1.0);
    path.loss_ppm = 400_000;
    let mut model = model(path);
    model.run_ms(5_000);
    let share = model.shares(10_000)[0];
    assert!(share < 0.3, "{share}");
    assert!(bbr(&model).noise.allowance() <= Noise::most());
}
