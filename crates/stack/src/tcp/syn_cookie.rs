//! SYN cookies (RFC 4987 §3.6): what a SYN said is kept in our initial sequence number and in our
//! timestamp, and the peer brings it back.
//!
//! The number is a keyed hash of the connection's four numbers, the peer's number and the time;
//! its upper four bits tell the time's parity and the segment size. The hash is made anew every
//! [`PERIOD`], and only this and the last period's are believed, of a listener that has sent
//! cookies in this time. With timestamps their lowest six bits keep the window scale, and whether
//! there is SACK and ECN, so that a connection made from a cookie lacks nothing. Of which kind ECN is,
//! the acknowledgement shows: without timestamps too, if it is Accurate ECN (RFC 9768 §4.1).

use millrace_frames::Frame;
use millrace_wire::mac::Mac;
use millrace_wire::seq::Seq;
use millrace_wire::tcp::{Flags as Bits, OptionWriter, Options};

use super::connection::{Features, Flags, State};
use super::ecn::accurate::Received;
use super::ecn::negotiation::{self, ASKS_ACCURATE, ASKS_CLASSIC, Mode};
use super::handshake::peer_mss;
use super::input::Segment;
use super::options::write_syn;
use super::reset::Control;
use super::table::FourTuple;
use crate::config::SynCookies;
use crate::control::Hop;
use crate::stack::Stack;

/// Seconds in which one hash is used. The peer has as many again to answer.
const PERIOD: u32 = 64;

/// Sets these hashes apart from other uses of the key.
const DOMAIN: u64 = 0x7379_6e20_636f_6f6b;

/// Segment sizes that a cookie can tell; a peer's becomes the next smaller one. Those of Ethernet
/// with and without tunnels, of jumbo frames, and the default.
const SIZES: [u16; 8] = [88, 536, 1220, 1360, 1440, 1460, 4036, 8960];

/// Lowest bits of the timestamp that keep what the SYN said...
const TS_BITS: u32 = 0x3f;
/// ...the window scale, with this for none,
const NO_SCALE: u32 = 0xf;
/// SACK,
const SACK: u32 = 0x10;
/// ECN of either kind.
const ECN: u32 = 0x20;

/// (AE, CWR, ECE) of the SYN, as far as what comes back for a cookie tells. A client with Accurate ECN
/// says how the SYN-ACK came, or counts from 5; one without sets at most ECE.
fn ecn_asked(segment: &Segment) -> u8 {
    let accurate = segment.ace() >= 0b010;
    match segment.timestamps {
        Some((_, echo)) if echo & ECN == 0 => 0,
        Some(_) if accurate => ASKS_ACCURATE,
        Some(_) => ASKS_CLASSIC,
        None if accurate && segment.sequence_len() == 0 => ASKS_ACCURATE,
        None => 0,
    }
}

impl Stack {
    /// Whether the listener has answered with cookies so lately that one may come back.
    pub(crate) fn cookies_recent(&self, listener: usize) -> bool {
        self.config.syn_cookies != SynCookies::Off
            && self.listeners[listener]
                .cookie_at
                .is_some_and(|at| self.now_s.wrapping_sub(at) <= 2 * PERIOD)
    }

    fn cookie(&self, tuple: &FourTuple, peer: Seq, period: u32, size: u32) -> Seq {
        let [a, b, c] = tuple.words();
        let hash = self.keys.prf(&[
            a,
            b,
            c,
            u64::from(peer.0) << 32 | u64::from(period) << 3 | u64::from(size),
            DOMAIN,
        ]);
        Seq((period & 1) << 31 | size << 28 | hash as u32 >> 4)
    }

    /// Answers a SYN, and forgets it.
    pub(crate) fn send_cookie(&mut self, listener: usize, syn: &Segment, mac: Mac) {
        self.listeners[listener].cookie_at = Some(self.now_s);
        let mss = peer_mss(syn.options.mss, syn.tuple.remote);
        let size = SIZES.partition_point(|&size| size <= mss).saturating_sub(1) as u32;
        let iss = self.cookie(&syn.tuple, syn.seq, self.now_s / PERIOD, size);
        let tcp = self.config.tcp;
        let mut options = OptionWriter::new();
        let remote = syn.tuple.remote;
        let (most, buffer) = self.announced_by_listener(listener, remote);
        options.mss(most.min(self.path_mss(remote)));
        let mut granted = self.ecn_for_cookie(listener, syn);
        if granted == Mode::Classic && !(tcp.timestamps && syn.timestamps.is_some()) {
            // Nothing would tell of it afterwards.
            granted = Mode::Not;
        }
        if let Some((value, _)) = syn.timestamps.filter(|_| tcp.timestamps) {
            let scale = syn.options.window_scale.filter(|_| tcp.window_scaling);
            let sack = tcp.sack && syn.options.sack_permitted;
            let bits = scale.map_or(NO_SCALE, |shift| u32::from(shift.min(14)))
                | if sack { SACK } else { 0 }
                | if granted == Mode::Not { 0 } else { ECN };
            let now = self.now_ms.wrapping_add(self.secrets_of(&syn.tuple).timestamp);
            let mut ours = now & !TS_BITS | bits;
            if ours.wrapping_sub(now) as i32 > 0 {
                // Not later than the clock, which the connection will go on with.
                ours = ours.wrapping_sub(TS_BITS + 1);
            }
            let shift = scale.map(|_| self.receive_shift());
            write_syn(&mut options, Some((ours, value)), sack, shift);
        }
        if granted == Mode::Accurate {
            options.accurate_ecn(&Received::default().option(true));
        }
        let segment = Control {
            tuple: syn.tuple,
            seq: iss,
            ack: syn.seq + 1,
            bits: Bits::SYN | Bits::ACK,
            ace: negotiation::syn_ack(granted, syn.codepoint(), 0),
            window: self.memory.first_window(buffer),
            options: options.padded(),
            fields: self.listener_settings(listener).ip_fields(),
        };
        if self.control_segment(&segment, Hop::Mac(mac)) {
            self.counters.syn_cookies_sent += 1;
        }
    }

    /// What the listener grants to a SYN that it forgets.
    fn ecn_for_cookie(&self, listener: usize, syn: &Segment) -> Mode {
        let needed = self.listener_settings(listener).algorithm.needs_ecn();
        negotiation::grants(self.config.ecn, needed, syn.ace(), syn.codepoint())
    }

    /// An acknowledgement that may bring a cookie back. Takes the frame.
    pub(crate) fn cookie_returns(
        &mut self,
        listener: usize,
        hash: u32,
        segment: &Segment,
        mac: Mac,
        frame: Frame,
    ) {
        let iss = segment.ack - 1;
        let size = iss.0 >> 28 & 7;
        let now = self.now_s / PERIOD;
        let period = if now & 1 == iss.0 >> 31 { now } else { now.wrapping_sub(1) };
        if self.cookie(&segment.tuple, segment.seq - 1, period, size) != iss {
            self.counters.syn_cookies_wrong += 1;
            self.counters.drop_tcp_no_connection += 1;
            self.send_reset(segment, Some(mac));
            return self.drop_chain(frame);
        }
        if !self.may_queue(listener) {
            self.counters.drop_listen_accept_queue_full += 1;
            self.refuse_overflow(segment);
            return self.drop_chain(frame);
        }
        // The SYN, as far as it is known.
        let mut options = Options::NONE;
        options.mss = Some(SIZES[size as usize]);
        let mut timestamps = None;
        if let Some((value, echo)) = segment.timestamps {
            timestamps = Some((value, 0));
            options.sack_permitted = echo & SACK != 0;
            options.window_scale =
                Some(echo & 0xf).filter(|&shift| shift != NO_SCALE).map(|shift| shift as u8);
        }
        let asked = ecn_asked(segment);
        let syn = Segment {
            seq: segment.seq - 1,
            bits: Bits(Bits::SYN.0 | (asked & 0b11) << 6),
            len: 0,
            ecn: asked & 0b100,
            timestamps,
            options: &options,
            ..*segment
        };
        let secrets = self.secrets_of(&syn.tuple);
        let Some(index) = self.open_passive(listener, hash, &syn, mac, (iss, &secrets)) else {
            return self.drop_chain(frame);
        };
        self.counters.syn_cookies_accepted += 1;
        self.date_cookie(index, segment);
        let connection = &mut self.connections[index];
        connection.snd_nxt = iss + 1;
        connection.flags.clear(Flags::SEND_SYN);
        self.counters.segments_in += 1;
        self.segment_arrives(index, segment, frame);
        if self.connections[index].state == State::SynReceived {
            // It had a cookie and was no acknowledgement: nobody waits for this entry.
            self.free_connection(index);
        }
    }

    /// When the SYN-ACK left, for the first round trip (RFC 6298 §2.2): nobody has kept it, but the
    /// timestamp that comes back tells. Its lowest bits are the cookie's, so it may be up to 64 ms
    /// older than the SYN-ACK. A round trip that seems longer by so much is put right by those that
    /// follow; one that seems too short would be the least of minutes. Where there is no timestamp,
    /// or one so old that something was lost on the way, it is not known which SYN was answered.
    fn date_cookie(&mut self, index: usize, segment: &Segment) {
        let with_timestamps = self.connections[index].features.has(Features::TIMESTAMPS);
        let echo = segment.timestamps.filter(|_| with_timestamps).map(|(_, echo)| echo);
        let age = echo.and_then(|echo| self.echo_age(index, echo));
        // Both times are rounded down to milliseconds.
        let age_us = age.map(|age| age.saturating_add(1).saturating_mul(1000));
        let (whole_us, longest) = (self.whole_us, self.initial_timeout_us);
        let connection = &mut self.connections[index];
        match age_us.filter(|&age_us| age_us <= longest) {
            Some(age_us) => connection.sent_now(whole_us.saturating_sub(age_us.into())),
            None => {
                connection.sent_now(whole_us);
                connection.retries = 1;
            }
        }
    }
}
