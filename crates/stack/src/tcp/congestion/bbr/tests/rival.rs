//! Flows that take no loss for a sign: how they are known, and how they are met.

use super::super::rival::{Rival, Round};
use super::super::share::{Share, Told};
use super::*;

/// What departs from the draft: a flow that takes no loss for a sign does not drive it out.
#[test]
fn beside_the_first_version_it_holds_its_own() {
    for loss_ppm in [0, 10_000] {
        let mut shares = Vec::new();
        for (ours, theirs) in [(0, 0), (100_000, 0), (1_000_000, 0), (0, 1_000_000)] {
            let mut path = Path::new(100, 20, 1.0);
            path.loss_ppm = loss_ppm;
            let mut model = Model::new(path, &[(Algorithm::Bbr, ours)]);
            model.add_bbr1(theirs);
            model.run_ms(7_000);
            let both = model.shares(14_000);
            assert!(both[0] + both[1] > 0.95, "{both:.2?}");
            shares.push(both[0] / (both[0] + both[1]));
        }
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        assert!((0.4..0.6).contains(&mean), "{loss_ppm} ppm: {shares:.2?}");
        assert!(shares.iter().all(|share| (0.3..0.7).contains(share)), "{loss_ppm}: {shares:.2?}");
    }
}

/// Flows that make room are met as the draft has it. One flow in a hundred that has the most of a path
/// itself takes its own overflows for somebody else's, until the next ProbeRTT.
#[test]
fn who_makes_room_is_no_rival() {
    let (mut runs, mut mistaken) = (0, Vec::new());
    for other in [Algorithm::Cubic, Algorithm::NewReno] {
        for queue in [0.1, 0.5, 1.0, 2.0] {
            for (mbit, rtt_ms) in [(100, 5), (100, 20), (100, 100), (1_000, 2), (1_000, 20)] {
                for (ours, theirs) in [(0, 300_000), (300_000, 0)] {
                    let path = Path::new(mbit, rtt_ms, queue);
                    let mut model = Model::new(path, &[(Algorithm::Bbr, ours), (other, theirs)]);
                    let mut present = 0;
                    for _ in 0..1_000 {
                        model.run_ms(20);
                        present += u32::from(bbr(&model).rival.present());
                    }
                    runs += 1;
                    if present >= 50 {
                        mistaken.push((other, mbit, rtt_ms, queue, ours, present));
                    }
                }
            }
        }
    }
    let short = mistaken.iter().all(|&(.., present)| present < 300);
    assert!(mistaken.len() * 50 <= runs && short, "of {runs}: {mistaken:?}");
}

/// A round trip on a path of 20 ms.
fn round(queue_us: u32, lost: u32) -> Round {
    Round { now_us: 0, held_back: true, lost, queue_us, min_rtt_us: 20_000, segments: 300 }
}

/// A queue of so many milliseconds on a path of 20 that overflows every so many round trips, and what
/// is left of it in between; this flow loses 5 % of a round trip each time. When is there a rival?
fn overflows(every: u32, queue_ms: u32, left_percent: u32) -> Option<u32> {
    overflows_but(every, queue_ms, left_percent, |_, _| {})
}

/// The same, but for what is changed in some round trips.
fn overflows_but(
    every: u32,
    queue_ms: u32,
    left_percent: u32,
    change: impl Fn(u32, &mut Round),
) -> Option<u32> {
    let mut rival = Rival::NONE;
    (1..=200).find(|&at| {
        let full = at % every == 0;
        let queue_us = queue_ms * 10 * if full { 100 } else { left_percent };
        let mut round = round(queue_us, if full { 50 } else { 0 });
        change(at, &mut round);
        rival.round(&round)
    })
}

#[test]
fn overflows_that_nobody_heeds_give_a_rival_away() {
    // The first version probes every eight round trips, and drains a quarter of what it added.
    assert!(overflows(8, 20, 80).is_some_and(|round| round < 64));
    // Who makes room leaves little of the queue, or needs long to fill it again.
    assert_eq!(overflows(8, 20, 55), None);
    assert_eq!(overflows(40, 20, 80), None);
    // A longer queue is not the rival's, and what a burst fills is no queue.
    assert_eq!(overflows(8, 40, 80), None);
    assert_eq!(overflows(8, 3, 80), None);
}

/// Somebody looks for the shortest round trip after each second overflow, and afterwards it takes
/// longer until the queue is full again; or this flow makes room itself.
#[test]
fn a_queue_that_was_emptied_tells_nothing() {
    let emptied = |at: u32, round: &mut Round| match at % 32 {
        17..=20 => round.queue_us = 100,
        24 => round.lost = 0,
        _ => {}
    };
    assert!(overflows_but(8, 20, 80, emptied).is_some_and(|round| round < 128));
    let made_room = |at: u32, round: &mut Round| {
        if at % 16 == 4 {
            (round.queue_us, round.segments) = (8_000, 140);
        }
    };
    assert!(overflows_but(8, 20, 80, made_room).is_some_and(|round| round < 128));
    // Without it being this flow's room, somebody else made it.
    let made = |at: u32, round: &mut Round| {
        if at % 16 == 4 {
            round.queue_us = 8_000;
        }
    };
    assert_eq!(overflows_but(8, 20, 80, made), None);
}

#[test]
fn an_overflow_of_this_flow_s_own_is_none_of_a_rival_but_may_be_heeded() {
    // Each third is a probe's, and falls between two of the rival's.
    let probes = |at: u32, round: &mut Round| round.held_back = !at.is_multiple_of(24);
    assert!(overflows_but(8, 20, 80, probes).is_some_and(|round| round < 64));
    assert_eq!(overflows_but(8, 20, 80, |_, round| round.held_back = false), None);
}

/// A connection from a SYN cookie may have no round trip yet when it loses.
#[test]
fn losses_before_anything_is_known_of_the_path_are_no_rival() {
    let mut rival = Rival::NONE;
    let round = |lost| Round { min_rtt_us: u32::MAX, ..round(0, lost) };
    assert!((0..200).all(|at| !rival.round(&round(if at % 10 == 0 { 50 } else { 0 }))));
    rival.startup_overflowed(0);
    assert!((0..200).all(|_| !rival.round(&round(0))));
}

#[test]
fn bursts_in_a_short_queue_of_few_packets_are_no_rival() {
    let known = |queue_us, segments| {
        let mut rival = Rival::NONE;
        (1..=200).any(|_| rival.round(&Round { segments, ..round(queue_us, 50) }))
    };
    assert!(!known(1_000, 12));
    // With ten megabits a second a queue of as few packets is a long one.
    assert!(known(20_000, 12));
    assert!(known(1_000, 100));
}

#[test]
fn an_overflow_of_startup_that_nobody_heeds_is_enough() {
    let known = |full_us, shortest_us| {
        let mut rival = Rival::NONE;
        rival.startup_overflowed(full_us);
        (1..=20).find(|at| {
            let queue_us = if *at == 4 { shortest_us } else { full_us };
            rival.round(&Round { held_back: *at > 2, ..round(queue_us, 0) })
        })
    };
    assert_eq!(known(20_000, 15_000), Some(8));
    assert_eq!(known(20_000, 11_000), None);
    // Longer than a rival makes it.
    assert_eq!(known(40_000, 40_000), None);
}

#[test]
fn a_startup_that_a_rival_ended_begins_again_once() {
    let (_, mut bbr) = settled();
    bbr.drain_start_round = bbr.round_count;
    bbr.meet_rival(&AckSample::default());
    assert_eq!((bbr.state, bbr.full_bw_reached), (State::Startup, false));
    // However much is lost now, it goes on until the rate stays the same.
    let rate = RateSample {
        lost_since_send: 30 * MSS,
        in_flight_at_send: 100 * MSS,
        ..RateSample::default()
    };
    let sample = AckSample { lost: MSS, state: CaState::Recovery, rate, ..AckSample::default() };
    bbr.loss_round_start = true;
    (0..10).for_each(|_| bbr.check_startup_high_loss(&sample));
    assert!(!bbr.full_bw_reached);
    bbr.forget_rival();
    bbr.meet_rival(&AckSample::default());
    assert!(bbr.state == State::ProbeBwCruise && bbr.share.rests());
}

#[test]
fn a_rival_that_has_left_is_forgotten() {
    let mut model = model(Path::new(100, 20, 1.0));
    model.add_bbr1(0);
    until(&mut model, 10_000, |bbr| bbr.rival.present());
    // It has nothing more to say.
    model.flows[1].write_rate = 1;
    until(&mut model, 3_000, |bbr| !bbr.rival.present());
    model.run_ms(3_000);
    assert!(!bbr(&model).rival.present());
    assert!(model.shares(5_000)[0] > 0.95);
}

/// Each flow gets its part of what all send: what does a trial tell of so many percent of a path, if so
/// many percent of them were sent before, and so many of that are in it?
fn told(percent: u64, sent_before: u64, sent_in_trial: u64) -> Option<Told> {
    let mut share = Share::default();
    let (path, round_us) = (100_000_000u64, 20_000u64);
    let others = path * (100 - percent) / 100;
    let mut sample = AckSample::default();
    share.begin(&sample);
    let mut round = |share: &mut Share, sent: u64| {
        let all = (sent + others).max(path);
        let delivered = path * sent / all;
        sample.now_us += round_us as u32;
        sample.rate.delivered_total += (delivered * round_us / 1_000_000) as u32;
        sample.rate.lost_total += ((sent - delivered) * round_us / 1_000_000) as u32;
        share.round(&sample)
    };
    let own = path * percent / 100 * sent_before / 100;
    (0..20).for_each(|_| assert_eq!(round(&mut share, own), None));
    share.begin_trial();
    while share.rests() {
        assert_eq!(round(&mut share, own), None);
    }
    assert_eq!(round(&mut share, own), None);
    let told = round(&mut share, own * sent_in_trial / 100);
    assert!(!share.on_trial());
    told
}

#[test]
fn a_trial_tells_the_share_of_a_full_path() {
    for percent in [2, 10, 30, 50, 70, 90, 100] {
        // The queue overflows already, by as much as this flow sends above its share.
        for sent_before in [100, 110] {
            let told = told(percent, sent_before, 150).unwrap();
            let off = u64::from(told.least).abs_diff(percent);
            assert!(off <= 5, "{percent}: {}", told.least);
            assert!(told.rate >= percent * 1_000_000, "{percent}: {}", told.rate);
        }
    }
    // What was lost before may have been of a moment.
    let half = told(50, 110, 150).unwrap();
    assert!((half.least, half.most) == (52, 56), "{half:?}");
    // Whose application does not send more, or who delivers nothing, learns nothing.
    assert_eq!(told(30, 100, 100), None);
    assert_eq!(told(0, 100, 150), None);
}

/// A peer can acknowledge all of a trial at once.
#[test]
fn a_trial_that_took_no_time_tells_nothing() {
    let mut share = Share::default();
    let mut sample = AckSample { mss: MSS, ..AckSample::default() };
    share.begin(&sample);
    share.begin_trial();
    for us in [20_000, 20_000, 20_000, 0] {
        assert!(share.rests() || share.on_trial());
        sample.now_us += us;
        sample.rate.delivered_total += 100 * MSS;
        assert_eq!(share.round(&sample), None);
    }
    assert!(!share.on_trial());
}

/// A flow that has met a rival for the second time, and so many round trips of a trial; each delivers
/// this much.
fn on_trial(rounds: u32, delivered: u32) -> (Congestion, Bbr) {
    let (congestion, mut bbr) = settled();
    bbr.started_again = true;
    bbr.meet_rival(&AckSample::default());
    let mut sample = AckSample { now_us: 1_000_000, mss: MSS, ..AckSample::default() };
    for _ in 0..rounds {
        sample.now_us += 20_000;
        sample.rate.delivered_total += delivered;
        bbr.share.round(&sample);
        bbr.update_rival_cycle_phase(&sample);
    }
    (congestion, bbr)
}

#[test]
fn a_trial_sends_more_for_a_round_trip_when_the_rival_has_recovered() {
    let gains = |delivered| -> Vec<u64> {
        (0..6).map(|rounds| on_trial(rounds, delivered).1.pacing_gain()).collect()
    };
    assert_eq!(gains(100 * MSS), [100, 100, 150, 100, 125, 125]);
    // Of few packets it takes more round trips, and goes on until it is judged.
    assert_eq!(gains(32 * MSS), [100, 100, 150, 150, 150, 125]);
}

#[test]
fn a_trial_that_yields_much_is_followed_by_another_and_one_that_yields_little_ends_it() {
    let after = |(least, most), rtt_us: u32| {
        let (_, mut bbr) = on_trial(3, 100 * MSS);
        bbr.share.end_trial();
        let known = bbr.max_bw();
        (0..100).for_each(|_| bbr.noise.observe(&AckSample { rtt_us, ..AckSample::default() }));
        bbr.share_told(&AckSample::default(), &Told { least, most, rate: 2 * known });
        (bbr.rival.present(), bbr.share.rests(), bbr.state, bbr.max_bw() / known)
    };
    let path = settled().1.min_rtt_us;
    let queue = 2 * path;
    assert_eq!(after((0, 20), queue), (true, true, State::ProbeBwCruise, 2));
    // What was to be had because the others let go for a moment is not kept.
    assert_eq!(after((0, 20), path), (true, true, State::ProbeBwCruise, 1));
    // Nor is what it took for the trial, if it has its part or may have.
    for share in [(50, 50), (20, 50), (50, 80)] {
        assert_eq!(after(share, queue), (true, false, State::ProbeBwDown, 1), "{share:?}");
    }
    assert_eq!(after((80, 90), queue), (false, false, State::ProbeBwDown, 1));
}

#[test]
fn what_a_trial_sent_is_not_yet_this_flow_s_own() {
    let known_after = |rounds, delivered| {
        let (congestion, mut bbr) = on_trial(rounds, delivered);
        let known = bbr.max_bw();
        bbr.update_congestion_signals(&congestion, &AckSample::default(), 2 * known);
        bbr.max_bw() / known
    };
    let known =
        |delivered| -> Vec<u64> { (0..7).map(|rounds| known_after(rounds, delivered)).collect() };
    assert_eq!(known(100 * MSS), [2, 2, 2, 1, 2, 2, 2]);
    // Where it sent until it was judged, a round trip longer.
    assert_eq!(known(32 * MSS), [2, 2, 2, 1, 1, 1, 2]);
}

/// What departs from the draft: in a short queue too, where what is there is soon lost.
#[test]
fn who_comes_late_beside_the_first_version_finds_its_place() {
    let shares = [0, 100_000, 300_000, 1_000_000, 3_000_000].map(|ours| {
        let mut model = Model::new(Path::new(100, 20, 0.1), &[(Algorithm::Bbr, ours)]);
        model.add_bbr1(0);
        model.run_ms(10_000);
        let both = model.shares(20_000);
        both[0] / (both[0] + both[1])
    });
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    assert!((0.3..0.6).contains(&mean), "{shares:.2?}");
    assert!(shares.iter().all(|share| (0.2..0.7).contains(share)), "{shares:.2?}");
}

#[test]
fn a_rival_that_was_there_for_a_while_is_soon_known_again() {
    let known = |rounds: u32| {
        let (_, mut bbr) = settled();
        bbr.started_again = true;
        bbr.meet_rival(&AckSample::default());
        bbr.round_count += rounds;
        bbr.forget_rival();
        let mut rival = bbr.rival;
        (1..=200).find(|at| {
            let full = at % 8 == 0;
            let queue_us = if full { 20_000 } else { 16_000 };
            rival.round(&round(queue_us, if full { 50 } else { 0 }))
        })
    };
    assert!(known(20).unwrap() + 8 < known(2).unwrap());
}

/// A short queue on a path of 20 ms that is empty after each overflow; one comes so many milliseconds
/// after the other. When is there a rival?
fn overflows_by_the_clock(gaps_ms: &[u32], change: impl Fn(&mut Round)) -> Option<usize> {
    let mut rival = Rival::NONE;
    let mut full_at = 0;
    let mut gaps = gaps_ms.iter().cycle().enumerate();
    let mut gap = *gaps.next().unwrap().1;
    let mut seen = 0;
    for now_ms in (20..8_000).step_by(20) {
        let full = now_ms >= full_at + gap;
        if full {
            full_at += gap;
            gap = *gaps.next().unwrap().1;
            seen += 1;
        }
        let mut round = Round {
            now_us: now_ms * 1_000,
            segments: 80,
            ..round(if full { 2_000 } else { 100 }, if full { 50 } else { 0 })
        };
        change(&mut round);
        if rival.round(&round) {
            return Some(seen);
        }
    }
    None
}

#[test]
fn the_beat_of_the_first_version_gives_it_away_in_a_queue_that_empties() {
    // Eight shortest round trips, or half a one less, as phases end a little early.
    assert_eq!(overflows_by_the_clock(&[160], |_| ()), Some(5));
    assert_eq!(overflows_by_the_clock(&[154], |_| ()), Some(5));
    // Who makes room has to grow back first, and has no beat.
    for gaps in [&[400][..], &[100], &[160, 400], &[160, 100, 300], &[60, 160, 220]] {
        assert_eq!(overflows_by_the_clock(gaps, |_| ()), None, "{gaps:?}");
    }
    // With a few segments in flight it may be somebody who grows back in eight round trips.
    assert_eq!(overflows_by_the_clock(&[160], |round| round.segments = 40), None);
}

#[test]
fn a_beat_is_not_lost_by_what_this_flow_s_own_probe_made_overflow() {
    // In between, 80 ms after one of the rival's, a probe.
    let gaps = [160, 160, 160, 80, 80, 160];
    assert_eq!(overflows_by_the_clock(&gaps, |_| ()), Some(7));
}

/// A rival as hard as this, met in round trips of 2 ms at a time of so many milliseconds: when is it met
/// again, if `ends` ends the first meeting then?
fn met_again_ms(at_ms: u32, ends: impl Fn(&mut Bbr, &AckSample)) -> u32 {
    let (_, mut bbr) = on_trial(3, 100 * MSS);
    let sample = AckSample { now_us: at_ms * 1_000, mss: MSS, ..AckSample::default() };
    ends(&mut bbr, &sample);
    assert!(!bbr.rival.present());
    (2..100)
        .step_by(2)
        .find(|ms| {
            let now_us = sample.now_us.wrapping_add(ms * 1_000);
            bbr.rival.round(&Round { now_us, ..round(20_000, 300) })
        })
        .unwrap()
}

#[test]
fn a_rival_of_whom_it_had_enough_is_spared_for_a_while() {
    let enough = |bbr: &mut Bbr, sample: &AckSample| {
        bbr.share_told(sample, &Told { least: 80, most: 90, rate: 1_000_000 });
    };
    let lost_too_much = |bbr: &mut Bbr, sample: &AckSample| bbr.rival_round(sample, 500, false);
    let lost_without_a_trial = |bbr: &mut Bbr, sample: &AckSample| {
        bbr.share.end_trial();
        bbr.rival_round(sample, 500, false);
    };
    // Also where the clock goes round meanwhile.
    for at_ms in [0, 1_000, 4_294_960] {
        let again = met_again_ms(at_ms, lost_without_a_trial);
        assert!(again <= 8, "{again}");
        assert_eq!(met_again_ms(at_ms, enough), 16 + again);
        assert_eq!(met_again_ms(at_ms, lost_too_much), 16 + again);
    }
}
