//! A closed loop to try algorithms in: flows that always have data share a bottleneck with a rate,
//! a delay and a queue. Everything follows from the parameters and a seed.
//!
//! Losses are found as SACK finds them, three segments later, and nothing is sent again: a lost
//! segment is only missing from what was delivered.

use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use millrace_wire::seq::Seq;

use super::bbr1::Bbr1;
use super::{AckSample, Algorithm, CaState, Congestion, LostSegment, Private, RateSample, Signal};

pub(in crate::tcp::congestion) const MSS: u32 = 1000;

/// The path that all flows share.
#[derive(Clone, Copy)]
pub(super) struct Path {
    /// Bytes a second.
    pub(super) rate: u64,
    pub(super) rtt_us: u64,
    /// Bytes.
    pub(super) queue: u64,
    /// Losses in a million.
    pub(super) loss_ppm: u32,
    /// Packets are marked when more than this is queued; 0: never.
    pub(super) mark_above: u64,
}

impl Path {
    pub(super) fn new(mbit: u64, rtt_ms: u64, queue_bdp: f64) -> Path {
        let (rate, rtt_us) = (mbit * 125_000, rtt_ms * 1000);
        let queue = ((rate * rtt_us / 1_000_000) as f64 * queue_bdp) as u64;
        Path { rate, rtt_us, queue, loss_ppm: 0, mark_above: 0 }
    }

    pub(super) fn bdp(&self) -> u64 {
        self.rate * self.rtt_us / 1_000_000
    }
}

struct Packet {
    sent_us: u64,
    delivered: u32,
    delivered_us: u64,
    first_sent_us: u64,
    in_flight: u32,
    lost: u32,
    app_limited: bool,
    marked: bool,
}

pub(super) struct Flow {
    pub(super) congestion: Congestion,
    pub(super) private: Private,
    /// Another's algorithm, in the place of ours.
    other: Option<Bbr1>,
    state: CaState,
    recover: u64,
    next: u64,
    acked: u64,
    flying: BTreeMap<u64, Packet>,
    next_send_us: u64,
    pub(super) delivered: u64,
    delivered_us: u64,
    first_sent_us: u64,
    pub(super) lost: u64,
    smoothed_us: u32,
    min_rtt_us: u32,
    app_limited_until: u64,
    last_progress_us: u64,
    /// Bytes a second that the application writes; 0: as many as the window takes.
    pub(super) write_rate: u64,
    written: u64,
    pub(super) start_us: u64,
}

impl Flow {
    fn new(algorithm: Algorithm, start_us: u64) -> Flow {
        Flow {
            congestion: Congestion::new(MSS, 10),
            private: Private::new(algorithm),
            other: None,
            state: CaState::Open,
            recover: 0,
            next: 0,
            acked: 0,
            flying: BTreeMap::new(),
            next_send_us: start_us,
            delivered: 0,
            delivered_us: start_us,
            first_sent_us: start_us,
            lost: 0,
            smoothed_us: 0,
            min_rtt_us: 0,
            app_limited_until: 0,
            last_progress_us: start_us,
            write_rate: 0,
            written: 0,
            start_us,
        }
    }

    fn in_flight(&self) -> u32 {
        self.flying.len() as u32 * MSS
    }

    pub(super) fn pacing_rate(&self) -> u64 {
        let own = match &self.other {
            Some(other) => other.pacing_rate(),
            None => self.private.pacing_rate(),
        };
        own.or_else(|| self.congestion.pacing_rate(self.in_flight(), self.smoothed_us))
            .unwrap_or(u64::MAX)
    }

    fn owns_window(&self) -> bool {
        self.other.is_some() || self.private.owns_window()
    }

    fn holds_back(&self) -> bool {
        match &self.other {
            Some(other) => other.holds_back(),
            None => self.private.holds_back(),
        }
    }

    fn on_ack(&mut self, sample: &AckSample) {
        match &mut self.other {
            Some(other) => other.on_ack(&mut self.congestion, sample),
            None => self.congestion.on_ack(&mut self.private, sample),
        }
    }

    fn on_congestion(&mut self, now_us: u64, signal: Signal) {
        match &mut self.other {
            Some(other) => other.on_congestion(&self.congestion),
            None => {
                let (in_flight, now_us) = (self.in_flight(), now_us as u32);
                self.congestion.on_congestion(&mut self.private, in_flight, MSS, now_us, signal);
            }
        }
    }
}

pub(super) struct Model {
    pub(super) path: Path,
    pub(super) now_us: u64,
    pub(super) flows: Vec<Flow>,
    /// When packets have left the bottleneck, and whose acknowledgement comes when.
    queue: VecDeque<u64>,
    free_us: u64,
    acks: BinaryHeap<std::cmp::Reverse<(u64, u64, usize)>>,
    random: u64,
    /// Bytes in the queue, summed over arrivals.
    queued_sum: u64,
    arrivals: u64,
}

impl Model {
    pub(super) fn new(path: Path, algorithms: &[(Algorithm, u64)]) -> Model {
        Model {
            path,
            now_us: 0,
            flows: algorithms.iter().map(|&(a, start)| Flow::new(a, start)).collect(),
            queue: VecDeque::new(),
            free_us: 0,
            acks: BinaryHeap::new(),
            random: 0x1234_5678_9abc_def1,
            queued_sum: 0,
            arrivals: 0,
        }
    }

    /// One flow more, with BBR as Linux has it.
    pub(super) fn add_bbr1(&mut self, start_us: u64) {
        let flow = Flow::new(Algorithm::Bbr, start_us);
        self.flows.push(Flow { other: Some(Bbr1::new()), ..flow });
    }

    fn chance(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) as u32
    }

    /// Mean bytes in the queue since the last call.
    pub(super) fn mean_queue(&mut self) -> u64 {
        let mean = self.queued_sum / self.arrivals.max(1);
        (self.queued_sum, self.arrivals) = (0, 0);
        mean
    }

    /// Runs for so long, calling `watch` after each acknowledgement.
    pub(super) fn run_watched(&mut self, until_us: u64, mut watch: impl FnMut(&Model, usize)) {
        while self.now_us < until_us {
            let mut next = until_us;
            for index in 0..self.flows.len() {
                next = next.min(self.send(index));
            }
            if let Some(&std::cmp::Reverse((at, _, _))) = self.acks.peek() {
                next = next.min(at);
            }
            self.now_us = next.max(self.now_us);
            while let Some(&std::cmp::Reverse((at, id, index))) = self.acks.peek() {
                if at > self.now_us {
                    break;
                }
                self.acks.pop();
                self.ack(index, id);
                watch(self, index);
            }
        }
    }

    pub(super) fn run_ms(&mut self, ms: u64) {
        self.run_watched(self.now_us + ms * 1000, |_, _| {});
    }

    /// Sends what may be sent now; returns when to look again.
    fn send(&mut self, index: usize) -> u64 {
        let now = self.now_us;
        loop {
            let flow = &mut self.flows[index];
            if now < flow.start_us {
                return flow.start_us;
            }
            let timeout = (u64::from(flow.smoothed_us) * 3).max(200_000);
            if flow.in_flight() > 0 && now >= flow.last_progress_us + timeout {
                self.timeout(index);
                continue;
            }
            let wake =
                if flow.in_flight() > 0 { flow.last_progress_us + timeout } else { u64::MAX };
            if flow.in_flight() + MSS > flow.congestion.window.max(MSS) {
                return wake;
            }
            if now < flow.next_send_us {
                return wake.min(flow.next_send_us);
            }
            if flow.write_rate > 0 {
                let may = (now - flow.start_us) * flow.write_rate / 1_000_000;
                if flow.written + u64::from(MSS) > may {
                    flow.app_limited_until = (flow.delivered + u64::from(flow.in_flight())).max(1);
                    let missing = flow.written + u64::from(MSS) - may;
                    return wake.min(now + (missing * 1_000_000 / flow.write_rate).max(1));
                }
                flow.written += u64::from(MSS);
            }
            self.send_one(index);
        }
    }

    fn send_one(&mut self, index: usize) {
        let now = self.now_us;
        while self.queue.front().is_some_and(|&left| left <= now) {
            self.queue.pop_front();
        }
        let queued = self.queue.len() as u64 * u64::from(MSS);
        self.queued_sum += queued;
        self.arrivals += 1;
        let dropped = queued > self.path.queue || self.chance() % 1_000_000 < self.path.loss_ppm;
        // A host's timers keep no perfect time. Where two flows do, the same one's packets always find
        // the place in the queue that has just become free.
        let late = u64::from(self.chance());
        let path = self.path;
        let flow = &mut self.flows[index];
        if flow.flying.is_empty() {
            flow.delivered_us = now;
            flow.first_sent_us = now;
            flow.last_progress_us = now;
            let idle = now.saturating_sub(flow.delivered_us) as u32;
            if flow.other.is_none() {
                let (now_us, private) = (now as u32, &mut flow.private);
                flow.congestion.on_idle_restart(private, now_us, idle, 200_000, MSS, 10);
            }
        }
        let id = flow.next;
        flow.next += 1;
        let in_flight = flow.in_flight() + MSS;
        let packet = Packet {
            sent_us: now,
            delivered: flow.delivered as u32,
            delivered_us: flow.delivered_us,
            first_sent_us: flow.first_sent_us,
            in_flight,
            lost: flow.lost as u32,
            app_limited: flow.app_limited_until > flow.delivered,
            marked: path.mark_above > 0 && queued > path.mark_above,
        };
        flow.flying.insert(id, packet);
        let rate = flow.pacing_rate();
        let gap = u64::from(MSS) * 1_000_000 / rate.max(1);
        let gap = if flow.other.is_some() { gap / 2 + late % gap.max(1) } else { gap };
        flow.next_send_us = flow.next_send_us.max(now.saturating_sub(1000)) + gap;
        if !dropped {
            self.free_us = self.free_us.max(now) + u64::from(MSS) * 1_000_000 / path.rate;
            self.queue.push_back(self.free_us);
            self.acks.push(std::cmp::Reverse((self.free_us + path.rtt_us, id, index)));
        }
    }

    fn mark_lost(&mut self, index: usize, ids: &[u64]) {
        let now = self.now_us;
        let flow = &mut self.flows[index];
        for id in ids {
            let packet = flow.flying.remove(id).unwrap();
            flow.lost += u64::from(MSS);
            let lost = LostSegment {
                now_us: now as u32,
                len: MSS,
                in_flight_at_send: packet.in_flight,
                lost_since_send: (flow.lost as u32).wrapping_sub(packet.lost),
                delivered_total: flow.delivered as u32,
                app_limited: packet.app_limited,
                no_sack: false,
            };
            if flow.other.is_none() {
                flow.congestion.on_segment_lost(&mut flow.private, &lost);
            }
        }
    }

    fn timeout(&mut self, index: usize) {
        let ids: Vec<u64> = self.flows[index].flying.keys().copied().collect();
        self.mark_lost(index, &ids);
        let now = self.now_us;
        let flow = &mut self.flows[index];
        let first = flow.state != CaState::Loss;
        match &mut flow.other {
            Some(other) => {
                other.on_timeout(&flow.congestion);
                flow.congestion.window = MSS;
            }
            None => {
                flow.congestion.on_timeout(&mut flow.private, 0, MSS, now as u32, first);
            }
        }
        flow.state = CaState::Loss;
        flow.recover = flow.next;
        flow.last_progress_us = now;
        flow.next_send_us = now;
    }

    fn ack(&mut self, index: usize, id: u64) {
        let now = self.now_us;
        let flow = &mut self.flows[index];
        // A packet that a timeout gave up too early.
        let Some(packet) = flow.flying.remove(&id) else { return };
        let prior_in_flight = flow.in_flight() + MSS;
        let limited = prior_in_flight + MSS > flow.congestion.window;
        flow.last_progress_us = now;
        flow.delivered += u64::from(MSS);
        flow.delivered_us = now;
        flow.first_sent_us = packet.sent_us;
        let rtt = (now - packet.sent_us) as u32;
        flow.smoothed_us = if flow.smoothed_us == 0 {
            rtt
        } else {
            flow.smoothed_us - flow.smoothed_us / 8 + rtt / 8
        };
        flow.min_rtt_us = if flow.min_rtt_us == 0 { rtt } else { flow.min_rtt_us.min(rtt) };
        flow.acked = id + 1;

        let lost: Vec<u64> = flow.flying.range(..id.saturating_sub(2)).map(|(id, _)| *id).collect();
        let newly_lost = lost.len() as u32 * MSS;
        self.mark_lost(index, &lost);
        let flow = &mut self.flows[index];
        if matches!(flow.state, CaState::Recovery | CaState::Loss | CaState::Cwr)
            && id >= flow.recover
        {
            if flow.other.is_none() && (flow.state != CaState::Loss || flow.owns_window()) {
                flow.congestion.on_recovery_done(&mut flow.private);
            }
            flow.state = CaState::Open;
        }
        let signal = match flow.state {
            CaState::Recovery | CaState::Loss => None,
            _ if newly_lost > 0 => Some((Signal::Loss, CaState::Recovery)),
            CaState::Open if packet.marked => Some((Signal::Ecn, CaState::Cwr)),
            _ => None,
        };
        if let Some((signal, state)) = signal {
            flow.on_congestion(now, signal);
            if !flow.owns_window() {
                flow.congestion.window = flow.congestion.threshold;
            }
            flow.state = state;
            flow.recover = flow.next;
        }
        let send_us = packet.sent_us - packet.first_sent_us;
        let ack_us = now - packet.delivered_us;
        let interval = send_us.max(ack_us) as u32;
        let sample = AckSample {
            now_us: now as u32,
            acked: MSS,
            delivered: MSS,
            lost: newly_lost,
            in_flight: flow.in_flight(),
            prior_in_flight,
            rtt_us: rtt,
            min_rtt_us: flow.min_rtt_us,
            smoothed_us: flow.smoothed_us,
            mss: MSS,
            window_limited: limited,
            peer_limited: false,
            reorders: false,
            no_sack: false,
            state: flow.state,
            ack: Seq((id as u32 + 1).wrapping_mul(MSS)),
            snd_nxt: Seq((flow.next as u32).wrapping_mul(MSS)),
            rate: RateSample {
                delivered: (flow.delivered as u32).wrapping_sub(packet.delivered),
                interval_us: if interval < flow.min_rtt_us { 0 } else { interval },
                prior_delivered: packet.delivered,
                app_limited: packet.app_limited,
                in_flight_at_send: packet.in_flight,
                lost_since_send: (flow.lost as u32).wrapping_sub(packet.lost),
                delivered_total: flow.delivered as u32,
                lost_total: flow.lost as u32,
            },
            ce_bytes: if packet.marked { MSS } else { 0 },
        };
        flow.on_ack(&sample);
        if flow.holds_back() {
            flow.app_limited_until = flow.delivered + u64::from(flow.in_flight()).max(1);
        }
    }

    /// Share of the path's rate that each flow got in the next so many milliseconds.
    pub(super) fn shares(&mut self, ms: u64) -> Vec<f64> {
        let before: Vec<u64> = self.flows.iter().map(|flow| flow.delivered).collect();
        self.run_ms(ms);
        let all = (self.path.rate * ms / 1000) as f64;
        self.flows
            .iter()
            .zip(before)
            .map(|(flow, before)| (flow.delivered - before) as f64 / all)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alone(algorithm: Algorithm, path: Path) -> Model {
        Model::new(path, &[(algorithm, 0)])
    }

    #[test]
    fn every_algorithm_fills_a_path_with_a_queue_of_its_product() {
        for algorithm in Algorithm::ALL {
            for rtt_ms in [1, 20, 100] {
                let mut model = alone(algorithm, Path::new(100, rtt_ms, 1.0));
                model.run_ms(5_000);
                let share = model.shares(20_000)[0];
                // Twelve segments that are halved at once, without proportional rate reduction,
                // leave the path idle for a while.
                let least = if rtt_ms == 1 { 0.87 } else { 0.93 };
                assert!(share > least, "{algorithm} at {rtt_ms} ms: {share:.3}");
            }
        }
    }

    #[test]
    fn two_flows_of_a_kind_share_a_path() {
        for algorithm in Algorithm::ALL {
            let path = Path::new(50, 40, 1.0);
            let mut model = Model::new(path, &[(algorithm, 0), (algorithm, 3_000_000)]);
            model.run_ms(40_000);
            let shares = model.shares(60_000);
            let ratio = shares[0] / (shares[0] + shares[1]);
            assert!((0.35..0.65).contains(&ratio), "{algorithm}: {shares:.2?}");
            assert!(shares[0] + shares[1] > 0.9, "{algorithm}: {shares:.2?}");
        }
    }

    #[test]
    fn hystart_slows_down_before_the_queue_overflows() {
        let path = Path::new(100, 100, 1.0);
        let mut cubic = alone(Algorithm::Cubic, path);
        let mut reno = alone(Algorithm::NewReno, path);
        cubic.run_ms(3_000);
        reno.run_ms(3_000);
        let (cubic, reno) = (&cubic.flows[0], &reno.flows[0]);
        // A doubling that runs into the end of the queue loses about as much as the path holds.
        assert!(reno.lost > path.bdp() / 2, "{}", reno.lost);
        assert!(cubic.lost < reno.lost / 2, "{} of {}", cubic.lost, reno.lost);
        assert!(cubic.delivered > reno.delivered * 9 / 10);
    }

    #[test]
    fn dctcp_keeps_the_queue_at_its_mark() {
        let mut path = Path::new(1000, 1, 4.0);
        path.mark_above = path.bdp() / 4;
        let mut model = alone(Algorithm::Dctcp, path);
        model.run_ms(2_000);
        model.mean_queue();
        let share = model.shares(5_000)[0];
        let queue = model.mean_queue();
        assert!(share > 0.95, "{share}");
        assert!(queue < path.mark_above * 2, "{queue} over {}", path.mark_above);
        // The same marks taken as RFC 3168 has it keep less of the path in use or more queued.
        assert_eq!(model.flows[0].lost, 0);
    }

    #[test]
    fn bbr_finds_rate_and_round_trip_time_and_keeps_the_queue_short() {
        for (mbit, rtt_ms) in [(10, 5), (10, 100), (100, 20), (1000, 20)] {
            let path = Path::new(mbit, rtt_ms, 4.0);
            let mut model = alone(Algorithm::Bbr, path);
            model.run_ms(4_000);
            model.mean_queue();
            let share = model.shares(10_000)[0];
            let queue = model.mean_queue();
            assert!(share > 0.93, "{mbit} Mbit/s {rtt_ms} ms: {share}");
            assert!(queue < path.bdp() + 40_000, "{mbit} Mbit/s {rtt_ms} ms: {queue}");
            assert_eq!(model.flows[0].lost, 0);
        }
    }

    #[test]
    fn bbr_does_not_mind_a_percent_of_loss_where_others_collapse() {
        let mut path = Path::new(100, 50, 1.0);
        path.loss_ppm = 10_000;
        let share = |algorithm| {
            let mut model = alone(algorithm, path);
            model.run_ms(5_000);
            model.shares(20_000)[0]
        };
        let (bbr, cubic) = (share(Algorithm::Bbr), share(Algorithm::Cubic));
        assert!(bbr > 0.8, "{bbr}");
        assert!(cubic < 0.3, "{cubic}");
    }

    #[test]
    fn a_path_that_gets_ten_times_as_fast_is_filled_again() {
        for algorithm in [Algorithm::Cubic, Algorithm::Bbr] {
            let mut model = alone(algorithm, Path::new(10, 40, 1.0));
            model.run_ms(10_000);
            model.path = Path::new(100, 40, 1.0);
            model.run_ms(15_000);
            let share = model.shares(5_000)[0];
            assert!(share > 0.9, "{algorithm}: {share}");
        }
    }

    #[test]
    fn a_path_that_gets_ten_times_as_slow_is_not_flooded() {
        for algorithm in Algorithm::ALL {
            let mut model = alone(algorithm, Path::new(100, 40, 1.0));
            model.run_ms(10_000);
            model.path = Path::new(10, 40, 1.0);
            model.run_ms(15_000);
            let (lost, delivered) = (model.flows[0].lost, model.flows[0].delivered);
            let share = model.shares(10_000)[0];
            let flow = &model.flows[0];
            let rate = (flow.lost - lost) as f64 / (flow.delivered - delivered) as f64;
            assert!(share > 0.85, "{algorithm}: {share}");
            assert!(rate < 0.03, "{algorithm} loses {rate}");
        }
    }
}
