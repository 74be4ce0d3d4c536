//! How a connection becomes established (RFC 9293 §3.5): SYN-SENT, and SYN-RECEIVED's last step.
//! What a listener does with a SYN is in [`super::listen`].

use millrace_frames::Frame;
use millrace_wire::tcp::Flags as Bits;

use super::connection::{Failure, Features, Flags, Ready, State};
use super::input::Segment;
use super::rtt::Sample;
use crate::address::{Word, is_v4};
use crate::stack::Stack;

/// The segment that a peer takes, by the option of its SYN. Without one it is 536 bytes, by IPv6 1220
/// (RFC 9293 §3.7.1); who says 0 cannot mean it, and has said nothing.
pub(crate) fn peer_mss(option: Option<u16>, remote: Word) -> u16 {
    match option {
        None | Some(0) if is_v4(remote) => 536,
        None | Some(0) => 1220,
        Some(mss) => mss,
    }
}

impl Stack {
    /// SYN-SENT (RFC 9293 §3.10.7.3).
    pub(crate) fn syn_sent(&mut self, index: usize, segment: &Segment, frame: Frame) {
        let acked = segment.has(Bits::ACK);
        let most = self.syn_end(index);
        let late = segment.ack.le(self.connections[index].iss) || segment.ack.gt(most);
        if acked && (late || self.echoes_wrong(index, segment)) {
            self.counters.drop_tcp_bad_ack += 1;
            if !segment.has(Bits::RST) {
                self.send_reset(segment, None);
            }
            return self.drop_chain(frame);
        }
        let connection = &mut self.connections[index];
        if segment.has(Bits::RST) {
            if acked {
                self.counters.connections_reset += 1;
                connection.failure = Some(Failure::Refused);
                self.end_connection(index);
            } else {
                self.counters.drop_tcp_challenged += 1;
            }
            return self.drop_chain(frame);
        }
        if !segment.has(Bits::SYN) {
            self.counters.drop_tcp_no_connection += 1;
            return self.drop_chain(frame);
        }
        self.take_syn(index, segment);
        let connection = &mut self.connections[index];
        if acked {
            let retries = connection.retries;
            connection.snd_una = segment.ack;
            // Data that went with our SYN.
            connection.acknowledge_data(&mut self.arena, segment.ack);
            let connection = &mut self.connections[index];
            // A SYN-ACK's window is not scaled (RFC 7323 §2.2).
            connection.snd_wnd = u32::from(segment.window);
            connection.snd_wl1 = segment.seq;
            self.established(index, segment);
            self.fast_open_answered(index, segment, retries);
            self.ecn_established(index, segment);
            if self.connections[index].unsent() > 0 {
                // A request that waited for the handshake: an answer follows, and what answers
                // that.
                self.enter_quick_ack(index);
                self.connections[index].traffic.last_data_recv = self.now_ms;
            }
            self.acknowledge_now(index);
            self.tell(index, Ready::CONNECTED);
            self.counters.connections_opened += 1;
            let fin = segment.has(Bits::FIN);
            if segment.len > 0 || fin {
                return self.text(index, segment.seq + 1, segment.len, fin, frame);
            }
        } else {
            // Simultaneous open (RFC 9293 §3.5).
            connection.state = State::SynReceived;
            connection.snd_nxt = connection.snd_una;
            connection.retries = 0;
            connection.flags.set(Flags::SEND_SYN);
            self.silence_ended(index);
            self.push_out(index);
        }
        self.drop_chain(frame);
    }

    /// What both kinds of open take from the peer's SYN.
    pub(crate) fn take_syn(&mut self, index: usize, segment: &Segment) {
        let own_mss = self.announced_mss(index);
        let shift = self.receive_shift();
        let window = u32::from(self.memory.first_window(self.receive_limit(index)));
        let (tcp, now_s) = (self.config.tcp, self.now_s);
        let asked = self.ecn_asked(index);
        let orphan = self.connections[index].features.has(Features::ORPHAN);
        self.connections[index].features = Features::default();
        if orphan {
            self.connections[index].features.set(Features::ORPHAN);
        }
        self.agree_on_ecn(index, segment, asked);
        let connection = &mut self.connections[index];
        connection.irs = segment.seq;
        connection.rcv_nxt = segment.seq + 1;
        connection.rcv_adv = connection.rcv_nxt + window;
        connection.snd_wnd = u32::from(segment.window);
        connection.max_window = connection.snd_wnd;
        connection.snd_wl1 = segment.seq;
        if let Some((value, _)) = segment.timestamps.filter(|_| tcp.timestamps) {
            connection.features.set(Features::TIMESTAMPS);
            connection.ts_recent = value;
            connection.ts_recent_at = now_s;
        }
        if tcp.sack && segment.options.sack_permitted {
            connection.features.set(Features::SACK);
        }
        // A smaller value than 48 would only serve to make us send headers. The option means segments
        // without options (RFC 6691), so what every segment has goes off it.
        connection.mss = peer_mss(segment.options.mss, segment.tuple.remote).clamp(48, own_mss);
        connection.mss -= connection.features.options_len();
        if let Some(peer_shift) = segment.options.window_scale.filter(|_| tcp.window_scaling) {
            connection.flags.set(Flags::SCALING);
            connection.snd_shift = peer_shift.min(14);
            connection.rcv_shift = shift;
        } else {
            connection.flags.clear(Flags::SCALING);
            connection.snd_shift = 0;
            connection.rcv_shift = 0;
        }
        // A half-open connection has no record to keep it in. It comes again (RFC 5482 §3).
        let active = connection.state == State::SynSent;
        if let Some(timeout) = segment.options.user_timeout.filter(|_| active) {
            self.user_timeout_received(index, timeout);
        }
    }

    /// Our SYN was acknowledged.
    pub(crate) fn established(&mut self, index: usize, segment: &Segment) {
        self.measure_handshake(index, segment);
        let initial = self.config.initial_window;
        let (tick, now_ms) = (self.tick, self.now_ms);
        let connection = &mut self.connections[index];
        connection.traffic.last_data_recv = now_ms;
        connection.traffic.last_recv = now_ms;
        if connection.queued() > 0 {
            connection.begin_busy(tick);
        }
        connection.state = if connection.flags.has(Flags::FIN_QUEUED) {
            State::FinWait1
        } else {
            State::Established
        };
        self.clamp_to_path(index);
        self.silence_ended(index);
        let connection = &mut self.connections[index];
        // RFC 5681 §3.1 has one segment after a SYN that was sent again. With a timer of one second
        // (RFC 6298) and not of three, one of them is no more than a packet lost (as Linux has it).
        let initial = if connection.retries > 1 { 1 } else { initial };
        connection.retries = 0;
        connection.snd_nxt = connection.snd_una;
        connection.max_window = connection.max_window.max(connection.snd_wnd);
        connection.cursor = connection.send.head;
        connection.congestion = super::congestion::Congestion::new(connection.mss.into(), initial);
        connection.features.clear(Features::DEFERRED);
        connection.flags.clear(Flags::REXMIT_ARMED.with(Flags::SEND_SYN));
        if self.settings(index).keepalive {
            self.restart_keepalive(index);
        }
        self.advertise_user_timeout(index);
        // Until it had left, the SYN was what is unsent.
        self.tell_unsent_room(index);
        let connection = &self.connections[index];
        if connection.unsent() > 0 || connection.fin_unsent() {
            self.push_out(index);
        }
    }

    /// The round-trip time that the handshake shows: since our SYN left. Of several it was the last
    /// if the peer echoes its timestamp; an earlier one's says nothing, for a peer whose SYN-ACK was
    /// lost still echoes that of the first. Where it is not known which SYN was answered, data
    /// begins with a careful timeout (RFC 6298 §5.7).
    pub(crate) fn measure_handshake(&mut self, index: usize, segment: &Segment) {
        let (bounds, whole_us) = (self.rtt_bounds, self.whole_us);
        let connection = &self.connections[index];
        let since = u32::try_from(connection.since_sent(whole_us)).unwrap_or(u32::MAX);
        let echo = segment.options.timestamps.map(|(_, echo)| echo);
        let echo = echo.filter(|&echo| echo != 0 && connection.features.has(Features::TIMESTAMPS));
        // A timestamp is a millisecond, and was read before the packet left.
        let of_the_last = echo
            .and_then(|echo| self.echo_age(index, echo))
            .is_some_and(|age| age.saturating_mul(1000) <= since.saturating_add(2000));
        let connection = &mut self.connections[index];
        let (una, nxt) = (connection.snd_una, connection.snd_nxt);
        if connection.retries == 0 || of_the_last {
            let sample = Sample { rtt: since, path: since };
            connection.rtt.sample(sample, una, nxt, whole_us, bounds);
        } else {
            connection.rtt.start_carefully(bounds);
        }
    }

    /// What sending begins with where the handshake has not ended.
    pub(crate) fn start_sending(&mut self, index: usize) {
        let initial = self.config.initial_window;
        let connection = &mut self.connections[index];
        connection.congestion = super::congestion::Congestion::new(connection.mss.into(), initial);
    }

    /// A peer's connection is established.
    fn accepted(&mut self, index: usize) {
        self.counters.connections_accepted += 1;
        let connection = &self.connections[index];
        self.neighbours.confirm(connection.neighbour, self.now);
        self.proven_peers.add(&self.keys, connection.remote);
    }

    fn ecn_handshake_done(&mut self, index: usize, segment: &Segment) {
        self.ecn_established(index, segment);
        if self.connections[index].has_ecn() {
            self.ecn_received(index, segment, 1);
        }
    }

    /// SYN-RECEIVED got its ACK. Returns whether the connection is established now.
    pub(crate) fn handshake_done(&mut self, index: usize, segment: &Segment) -> bool {
        let connection = &mut self.connections[index];
        let most = match connection.flags.has(Flags::ACTIVE) {
            true => self.syn_end(index),
            false => connection.snd_nxt,
        };
        let connection = &mut self.connections[index];
        if segment.ack.le(connection.iss) || segment.ack.gt(most) {
            self.counters.drop_tcp_bad_ack += 1;
            self.send_reset(segment, None);
            return false;
        }
        if connection.features.has(Features::EARLY) {
            self.early_established(index, segment);
            self.accepted(index);
            if !self.acknowledgement(index, segment) {
                return false;
            }
            self.ecn_handshake_done(index, segment);
            return true;
        }
        let active = connection.flags.has(Flags::ACTIVE);
        if !active {
            if self.defers(index, segment) {
                return false;
            }
            if !self.enter_accept_queue(index) {
                if self.refuse_overflow(segment) {
                    self.free_connection(index);
                }
                return false;
            }
        }
        let connection = &mut self.connections[index];
        let retries = connection.retries;
        connection.snd_una = segment.ack;
        connection.acknowledge_data(&mut self.arena, segment.ack);
        // A SYN's window is not scaled (RFC 7323 §2.2); simultaneous opens end with one.
        let shift = if segment.has(Bits::SYN) { 0 } else { connection.snd_shift };
        connection.snd_wnd = u32::from(segment.window) << shift;
        connection.snd_wl1 = segment.seq;
        self.established(index, segment);
        self.ecn_handshake_done(index, segment);
        if active {
            self.fast_open_answered(index, segment, retries);
            self.counters.connections_opened += 1;
            self.tell(index, Ready::CONNECTED);
        } else {
            self.accepted(index);
        }
        true
    }
}
