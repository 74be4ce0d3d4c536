//! The draft's example test cases ("BBR Example Test Cases"), and what departs from it.

mod rival;

use super::super::model::{MSS, Model, Path};
use super::super::{
    AckSample, Algorithm, CaState, Congestion, LostSegment, Private, RateSample, Signal,
};
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

/// Beside a flow that keeps the queue full.
fn crowded(path: Path) -> Model {
    Model::new(path, &[(Algorithm::Bbr, 0), (Algorithm::NewReno, 0)])
}

#[test]
fn the_shortest_round_trip_is_looked_for_every_five_seconds() {
    let path = Path::new(100, 40, 4.0);
    let mut model = crowded(path);
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
    let bbr = bbr(&model);
    let half = bbr.bdp_of(bbr.max_bw(), 50);
    assert!(least.abs_diff(half) < half / 5, "{least} of {half}");
    assert_eq!(bbr.state, State::ProbeBwCruise);
    assert!(model.flows[0].congestion.window > 2 * least);
}

#[test]
fn a_path_without_a_queue_shows_it_all_the_time() {
    let mut model = model(Path::new(100, 40, 4.0));
    assert!(!states(&mut model, 30_000).contains(&State::ProbeRtt));
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
    let mut model = crowded(Path::new(100, 40, 4.0));
    // Never idle, and never more than a part of the path.
    model.flows[0].write_rate = model.path.rate / 10;
    until(&mut model, 12_000, |bbr| bbr.state == State::ProbeRtt);
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
fn who_takes_over_goes_on_from_the_window_that_the_path_had() {
    let (settled, bbr) = settled();
    for state in [State::ProbeBwCruise, State::ProbeRtt] {
        let mut congestion = settled;
        let mut private = Private::Bbr(Bbr { state, prior_cwnd: settled.window, ..bbr });
        if state == State::ProbeRtt {
            congestion.window = 4 * MSS;
        }
        let window = congestion.window;
        congestion.switch(&mut private, Algorithm::Cubic);
        assert_eq!((congestion.window, congestion.threshold), (window, settled.window));
    }
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

/// While it does not probe, too: a path that has become slower tells so by its marks alone.
#[test]
fn marks_slow_it_down_whatever_it_does() {
    let mut path = Path::new(100, 40, 16.0);
    path.mark_above = path.bdp() / 20;
    let mut model = model(path);
    model.run_ms(10_000);
    until(&mut model, 5_000, |bbr| bbr.state == State::ProbeBwCruise);
    model.path.rate /= 2;
    let rate = model.path.rate;
    until(&mut model, 600, |bbr| bbr.bw <= rate / 10 * 11);
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
fn a_share_of_loss_is_the_same_at_any_rate() {
    for delivered in [10_000_000u32, 1 << 28, 1 << 30] {
        let mut noise = Noise::NONE;
        let mut sample = AckSample { rtt_us: 20_000, mss: MSS, ..AckSample::default() };
        for round in 1..=20 {
            noise.observe(&sample);
            sample.rate.delivered_total = delivered.wrapping_mul(round);
            sample.rate.lost_total = (delivered / 100).wrapping_mul(round);
            noise.round(&sample, 20_000, true);
        }
        let allowance = noise.allowance();
        assert!((18..=22).contains(&allowance), "{delivered}: {allowance}");
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

/// What departs from the draft: what the path loses is sent on top.
#[test]
fn what_the_path_loses_by_itself_is_made_up_for() {
    let mut path = Path::new(100, 20, 1.0);
    path.loss_ppm = 100_000;
    let mut model = model(path);
    model.run_ms(5_000);
    model.mean_queue();
    let share = model.shares(20_000)[0];
    // Without that it would be nine tenths of the path less what is held back.
    assert!(share > 0.95, "{share}");
    assert!(model.mean_queue() < path.bdp() / 2, "{}", model.mean_queue());
    // The path gets better: what is no longer lost must not become a queue that stays.
    model.path.loss_ppm = 0;
    model.run_ms(3_000);
    model.mean_queue();
    assert!(model.shares(10_000)[0] > 0.95);
    assert!(model.mean_queue() < path.bdp() / 4);
    assert_eq!(bbr(&model).noise.allowance(), 0);
}

#[test]
fn a_stray_loss_while_a_queue_is_let_go_costs_nothing() {
    let (congestion, mut bbr) = settled();
    bbr.state = State::ProbeBwDown;
    // A tenth less than the path takes: that is what this state sends.
    bbr.bw_latest = bbr.max_bw() / 10 * 9;
    bbr.lower_bounds(&congestion);
    assert!(
        bbr.bw_shortterm >= bbr.max_bw() / 100 * 99,
        "{} of {}",
        bbr.bw_shortterm,
        bbr.max_bw()
    );
}

/// A short flow is nothing but Startup's first flights: with the draft's gain, 2.77, each took longer
/// than beside the first version of BBR.
#[test]
fn the_first_flights_take_no_longer_than_the_first_version_s() {
    let path = Path::new(100, 20, 1.0);
    let took = |mut model: Model| {
        while model.flows[0].delivered < 100 * u64::from(MSS) {
            model.run_watched(model.now_us + 50, |_, _| {});
        }
        model.now_us
    };
    let mut first = Model::new(path, &[]);
    first.add_bbr1(0);
    let (ours, first) = (took(model(path)), took(first));
    assert!(ours <= first, "{ours} µs, {first} µs");
}

#[test]
fn what_is_found_lost_as_a_queue_empties_is_not_the_path_s_own() {
    let mut noise = Noise::NONE;
    let mut total = RateSample::default();
    let mut round = |noise: &mut Noise, rtt_us: u32, lost: u32| {
        total.lost_total += lost * MSS;
        total.delivered_total += (100 - lost) * MSS;
        let sample = AckSample { rtt_us, rate: total, mss: MSS, ..AckSample::default() };
        (0..40).for_each(|_| noise.observe(&sample));
        noise.round(&sample, 20_000, true);
    };
    for _ in 0..10 {
        round(&mut noise, 20_000, 1);
    }
    let own = noise.allowance();
    assert!((15..25).contains(&own), "{own}");
    for _ in 0..5 {
        round(&mut noise, 38_000, 0);
        round(&mut noise, 20_000, 20);
        assert!(noise.quiet());
    }
    assert_eq!(noise.allowance(), own);
    // Where there is always a queue, what is lost with it bounds what the path loses.
    for _ in 0..40 {
        round(&mut noise, 38_000, 0);
    }
    assert_eq!(noise.allowance(), 0);
}

#[test]
fn ten_rounds_of_growth_at_any_time_are_growth() {
    let (congestion, mut bbr) = settled();
    bbr.reset_full_bw();
    bbr.full_bw_reached = false;
    let sample = |delivered| AckSample {
        mss: MSS,
        rate: RateSample { delivered, interval_us: 1_000_000, ..RateSample::default() },
        ..AckSample::default()
    };
    // The first sample of each round is a low one, as on a path that reorders; the rate doubles.
    for round in 0..10 {
        bbr.round_start = true;
        bbr.check_full_bw_reached(&sample(1_000), 1_000);
        bbr.round_start = false;
        let rate = 10_000 << round;
        bbr.check_full_bw_reached(&sample(rate), rate.into());
    }
    assert!(!bbr.full_bw_reached, "{congestion:?}");
}

#[test]
fn a_full_window_of_the_peer_is_no_full_pipe() {
    let mut model = model(Path::new(100, 40, 2.0));
    until(&mut model, 5_000, |bbr| bbr.state == State::ProbeBwCruise && bbr.noise.quiet());
    let mut bbr = *bbr(&model);
    bbr.reset_full_bw();
    bbr.full_bw_reached = false;
    bbr.round_start = true;
    let sample = |peer_limited| AckSample { mss: MSS, peer_limited, ..AckSample::default() };
    for _ in 0..10 {
        bbr.check_full_bw_reached(&sample(true), 1_000);
    }
    assert!(!bbr.full_bw_reached);
    // What was held back is told a round later.
    for _ in 0..=FULL_BW_ROUNDS {
        bbr.check_full_bw_reached(&sample(false), 1_000);
    }
    assert!(bbr.full_bw_reached);
}

#[test]
fn what_is_lost_while_the_peers_window_is_full_does_not_end_startup() {
    let mut model = model(Path::new(100, 40, 2.0));
    until(&mut model, 5_000, |bbr| bbr.state == State::ProbeBwCruise && bbr.noise.quiet());
    let rate = RateSample {
        // Found lost of a flight of a megabyte, since one of the hundred kilobytes left that there was
        // room for.
        lost_since_send: 50_000,
        in_flight_at_send: 100_000,
        ..RateSample::default()
    };
    let sample = AckSample { lost: MSS, state: CaState::Recovery, rate, ..AckSample::default() };
    for (held, ends) in [(true, false), (false, true)] {
        let mut bbr = *bbr(&model);
        bbr.state = State::Startup;
        bbr.full_bw_reached = false;
        bbr.loss_events_in_round = STARTUP_LOSSES;
        bbr.loss_round_start = true;
        bbr.last_round_held = held;
        bbr.check_startup_high_loss(&sample);
        assert_eq!(bbr.full_bw_reached, ends);
    }
}

#[test]
fn what_a_path_loses_is_not_to_be_drained() {
    for (loss_ppm, cruises) in [(100_000, true), (0, false)] {
        let mut path = Path::new(100, 40, 1.0);
        path.loss_ppm = loss_ppm;
        let mut model = model(path);
        until(&mut model, 20_000, |bbr| bbr.state == State::ProbeBwCruise && bbr.noise.quiet());
        let mut bbr = *bbr(&model);
        bbr.inflight_longterm = NO_VOLUME;
        let in_flight = bbr.bdp_of(bbr.max_bw(), 107);
        let sample = AckSample { in_flight, ..AckSample::default() };
        assert_eq!(bbr.is_time_to_cruise(&sample), cruises);
    }
}

/// What departs from the draft: no headroom where nobody needs it.
#[test]
fn a_path_with_a_short_queue_is_used_whole_and_made_room_on() {
    let path = Path::new(100, 20, 0.1);
    let mut alone = model(path);
    until(&mut alone, 10_000, |bbr| bbr.inflight_longterm != NO_VOLUME);
    let lost = alone.flows[0].lost;
    let share = alone.shares(10_000)[0];
    assert!(share > 0.97, "{share}");
    assert!(alone.flows[0].lost - lost < path.rate * 10 / 50, "{}", alone.flows[0].lost - lost);
    // Another one that comes later finds its place.
    let mut model = Model::new(path, &[(Algorithm::Bbr, 0), (Algorithm::Bbr, 5_000_000)]);
    model.run_ms(15_000);
    let shares = model.shares(20_000);
    assert!(shares[1] > 0.2, "{shares:.2?}");
}

#[test]
fn a_startup_that_losses_ended_is_followed_by_a_probe_at_once() {
    // A queue that overflows long before the rate is found.
    let mut path = Path::new(100, 40, 0.1);
    path.loss_ppm = 20_000;
    let mut model = model(path);
    until(&mut model, 2_000, |bbr| bbr.full_bw_reached);
    assert!(!bbr(&model).full_bw_now, "losses ended it");
    let waited = until(&mut model, 2_000, |bbr| bbr.state == State::ProbeBwUp);
    assert!(waited < 500, "{waited} ms");
}

#[test]
fn what_a_short_queue_loses_is_not_taken_for_the_path_s_own() {
    let mut model = Model::new(Path::new(1000, 20, 0.1), &[(Algorithm::Bbr, 0)]);
    model.run_ms(5_000);
    let flow = &model.flows[0];
    let lost = flow.lost as f64 / (flow.lost + flow.delivered) as f64;
    assert!(lost < 0.02, "{lost:.4}");
    let share = model.shares(10_000)[0];
    assert!(share > 0.9, "{share:.3}");
}

#[test]
fn bounds_of_one_bad_round_do_not_last_while_there_is_no_queue() {
    let mut model = model(Path::new(100, 20, 1.0));
    model.run_ms(4_000);
    until(&mut model, 5_000, |bbr| bbr.state == State::ProbeBwCruise);
    let Private::Bbr(state) = &mut model.flows[0].private else { panic!("not BBR") };
    state.bw_shortterm = state.max_bw() / 2;
    state.inflight_shortterm = state.bdp_of(state.max_bw(), 50);
    model.run_ms(20 * 10);
    let state = bbr(&model);
    assert_eq!(state.state, State::ProbeBwCruise, "not for a probe");
    assert_eq!((state.bw_shortterm, state.inflight_shortterm), (NO_RATE, NO_VOLUME));
}

#[test]
fn probe_rtt_ends_after_a_pause_of_any_length() {
    let second = 1_000_000u32;
    for (minutes, heard_of_once) in [(1, true), (40, true), (40, false), (70, true), (70, false)] {
        let mut congestion = Congestion { window: 40_000, threshold: u32::MAX };
        let mut bbr = Bbr {
            state: State::ProbeRtt,
            begun: true,
            full_bw_reached: true,
            mss: 1000,
            min_rtt_us: 20_000,
            bw: 1_000_000,
            pacing_rate: 1_000_000,
            probe_rtt_done_stamp: Some(second),
            ..Bbr::default()
        };
        let pause = minutes * 60 * second;
        let idle = if heard_of_once { pause } else { second };
        bbr.on_idle_restart(&mut congestion, second.wrapping_add(pause), idle);
        assert!(bbr.state != State::ProbeRtt, "after {minutes} minutes");
    }
}

#[test]
fn after_a_pause_of_a_whole_turn_of_the_clock_what_was_measured_is_old() {
    let mut congestion = Congestion { window: 40_000, threshold: u32::MAX };
    let stamp = 7_000_000;
    let mut bbr = Bbr {
        begun: true,
        min_rtt_us: 20_000,
        min_rtt_stamp: stamp,
        probe_rtt_min_us: 20_000,
        probe_rtt_min_stamp: stamp,
        ..Bbr::default()
    };
    // By the clock it is a second later.
    let now_us = stamp + 1_000_000;
    bbr.on_idle_restart(&mut congestion, now_us, u32::MAX);
    bbr.update_min_rtt(&AckSample { now_us, rtt_us: 50_000, ..AckSample::default() });
    assert_eq!(bbr.min_rtt_us, 50_000);
}
