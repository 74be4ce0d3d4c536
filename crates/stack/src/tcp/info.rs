//! TCP_INFO: what Linux tells of a connection in `struct tcp_info` (include/uapi/linux/tcp.h), under
//! the same names and in the same units. Linux counts segments where this stack counts bytes; those
//! are converted by the segment size.

use std::io;

use super::api::ConnectionId;
use super::connection::{Connection, Features, Flags, State};
use crate::stack::Stack;
use crate::wheel::TICK_SHIFT;

/// Bits of [`TcpInfo::options`], Linux's `TCPI_OPT_*`.
pub mod option_bits {
    /// Timestamps (RFC 7323).
    pub const TIMESTAMPS: u8 = 1;
    /// Selective acknowledgements (RFC 2018).
    pub const SACK: u8 = 2;
    /// Window scaling (RFC 7323).
    pub const WSCALE: u8 = 4;
    /// Explicit congestion notification (RFC 3168).
    pub const ECN: u8 = 8;
    /// The SYN carried data that was taken (RFC 7413).
    pub const SYN_DATA: u8 = 32;
}

macro_rules! tcp_info {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty,)+) => {
        /// Linux's `struct tcp_info`, without the prefix `tcpi_`. Where it says segments, bytes were
        /// divided by the segment size. Times since something are milliseconds, round trips and
        /// timeouts microseconds, rates bytes a second.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct TcpInfo {
            $($(#[doc = $doc])+ pub $name: $type,)+
        }

        impl TcpInfo {
            /// Names, with Linux's prefix, and values, in Linux's order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((concat!("tcpi_", stringify!($name)), u64::from(self.$name)),)+].into_iter()
            }
        }
    };
}

tcp_info! {
    /// State, as Linux numbers it: 1 ESTABLISHED, 2 SYN-SENT, 3 SYN-RECEIVED, 4 FIN-WAIT-1,
    /// 5 FIN-WAIT-2, 6 TIME-WAIT, 7 CLOSED, 8 CLOSE-WAIT, 9 LAST-ACK, 11 CLOSING.
    state: u8,
    /// Congestion state: 0 Open, 1 Disorder, 2 CWR, 3 Recovery, 4 Loss.
    ca_state: u8,
    /// Timeouts in a row without progress.
    retransmits: u8,
    /// Window or keepalive probes without an answer.
    probes: u8,
    /// Doublings of the timeout.
    backoff: u8,
    /// What was agreed on; see [`option_bits`].
    options: u8,
    /// The peer's window scale.
    snd_wscale: u8,
    /// Our window scale.
    rcv_wscale: u8,
    /// The last delivery rate was limited by the application.
    delivery_rate_app_limited: u8,
    /// Why Fast Open was not used, 0 where nothing failed.
    fastopen_client_fail: u8,
    /// Retransmission timeout, with back-off.
    rto: u32,
    /// Estimated time between arrivals, by which acknowledgements are delayed.
    ato: u32,
    /// Payload bytes of our segments.
    snd_mss: u32,
    /// Payload bytes of the peer's segments, as seen.
    rcv_mss: u32,
    /// Segments sent and not acknowledged.
    unacked: u32,
    /// Of those, selectively acknowledged.
    sacked: u32,
    /// Of those, believed lost.
    lost: u32,
    /// Sent again and not acknowledged.
    retrans: u32,
    /// Always 0, as in Linux since 4.15.
    fackets: u32,
    /// Since payload was sent; at most 2^32 - 1.
    last_data_sent: u32,
    /// Always 0: not remembered, as in Linux.
    last_ack_sent: u32,
    /// Since payload came, modulo 2^32, which is 49 days, as in Linux.
    last_data_recv: u32,
    /// Since an acknowledgement came; likewise.
    last_ack_recv: u32,
    /// Largest packet that the path is believed to take.
    pmtu: u32,
    /// Most that the window may be now.
    rcv_ssthresh: u32,
    /// Smoothed round-trip time; 0: none yet.
    rtt: u32,
    /// Its mean deviation (RTTVAR of RFC 6298).
    rttvar: u32,
    /// Slow start threshold, segments; 2^31 - 1: none yet.
    snd_ssthresh: u32,
    /// Congestion window, segments.
    snd_cwnd: u32,
    /// Segment size that was announced to the peer.
    advmss: u32,
    /// Segments by which packets may overtake each other without being taken for lost.
    reordering: u32,
    /// Round-trip time as the receiver sees it; 0: none yet.
    rcv_rtt: u32,
    /// Bytes that the application read in a round trip, by which the buffer is tuned.
    rcv_space: u32,
    /// Segments sent again in the connection's life.
    total_retrans: u32,
    /// Rate at which segments leave; 2^64 - 1: not paced.
    pacing_rate: u64,
    /// Most that it may be; 2^64 - 1: no limit.
    max_pacing_rate: u64,
    /// Bytes acknowledged in the connection's life.
    bytes_acked: u64,
    /// Bytes received in order in the connection's life.
    bytes_received: u64,
    /// Segments sent.
    segs_out: u32,
    /// Segments received.
    segs_in: u32,
    /// Bytes written and not sent.
    notsent_bytes: u32,
    /// Least round-trip time; 2^32 - 1: none yet.
    min_rtt: u32,
    /// Segments with payload received.
    data_segs_in: u32,
    /// Segments with payload sent.
    data_segs_out: u32,
    /// Rate of delivery as last measured.
    delivery_rate: u64,
    /// Microseconds with something to send or unacknowledged, modulo two years.
    busy_time: u64,
    /// Of those, microseconds in which the peer's window was the limit.
    rwnd_limited: u64,
    /// Of those, microseconds in which our send buffer was the limit.
    sndbuf_limited: u64,
    /// Segments delivered to the peer: acknowledged, selectively (RFC 2018) or not.
    delivered: u32,
    /// Of those, marked for congestion.
    delivered_ce: u32,
    /// Payload bytes sent, those sent again included.
    bytes_sent: u64,
    /// Payload bytes sent again.
    bytes_retrans: u64,
    /// Duplicates that the peer reported (RFC 2883).
    dsack_dups: u32,
    /// Reorderings seen.
    reord_seen: u32,
    /// Segments that came out of order.
    rcv_ooopack: u32,
    /// Window that the peer announced.
    snd_wnd: u32,
    /// Window that the peer was told.
    rcv_wnd: u32,
    /// Paths given up for another: always 0, this stack has one.
    rehash: u32,
    /// Retransmission timeouts.
    total_rto: u16,
    /// Runs of timeouts.
    total_rto_recoveries: u16,
    /// Milliseconds that those which ended took.
    total_rto_time: u32,
    /// Packets received with a congestion mark (Accurate ECN).
    received_ce: u32,
    /// Payload bytes delivered to the peer as ECT(1) (Accurate ECN).
    delivered_e1_bytes: u32,
    /// As ECT(0).
    delivered_e0_bytes: u32,
    /// Marked for congestion.
    delivered_ce_bytes: u32,
    /// Payload bytes received as ECT(1) (Accurate ECN).
    received_e1_bytes: u32,
    /// As ECT(0).
    received_e0_bytes: u32,
    /// Marked for congestion.
    received_ce_bytes: u32,
}

impl State {
    /// Number in Linux's `tcpi_state`.
    pub fn linux_number(self) -> u8 {
        match self {
            State::Established => 1,
            State::SynSent => 2,
            State::SynReceived => 3,
            State::FinWait1 => 4,
            State::FinWait2 => 5,
            State::TimeWait => 6,
            State::Closed => 7,
            State::CloseWait => 8,
            State::LastAck => 9,
            State::Closing => 11,
        }
    }
}

impl Stack {
    /// All that TCP knows of a connection, as Linux tells it.
    ///
    /// # Errors
    /// `NotConnected` if the id is stale.
    pub fn tcp_info(&self, id: ConnectionId) -> io::Result<TcpInfo> {
        Ok(self.tcp_info_of(self.entry(id)?))
    }

    pub(crate) fn tcp_info_of(&self, index: usize) -> TcpInfo {
        let connection = &self.connections[index];
        let totals = self.transfer(index).map(|transfer| transfer.totals).unwrap_or_default();
        let mss = u32::from(connection.mss).max(1);
        let segments = |bytes: u32| bytes.div_ceil(mss);
        let flight = connection.flight();
        let sent = self.transfer(index).map(|transfer| &transfer.sent);
        let sacked = sent.map_or(0, |sent| sent.sacked);
        let passive = u64::from(!connection.flags.has(Flags::ACTIVE));
        let bytes_acked = connection.bytes_acked(&totals).saturating_sub(passive);
        let persisting = connection.flags.has(Flags::PERSIST);
        let probes = if persisting { connection.retries } else { self.keepalive_probes(index) };
        let unsent = connection.unsent();
        // Our SYN, unless it went with the data that is counted.
        let syn_delivered = connection.state > State::SynReceived
            && !(connection.flags.has(Flags::ACTIVE)
                && connection.features.has(Features::FAST_OPEN));
        let (delivered, received) =
            self.transfer(index).map_or_else(Default::default, |transfer| {
                (transfer.accurate.sent.totals(), transfer.accurate.received.totals())
            });
        let (rate, rate_limited) = self.transfer(index).map_or((0, false), |at| at.delivery.rate());
        TcpInfo {
            delivery_rate: rate,
            delivery_rate_app_limited: rate_limited.into(),
            state: connection.state.linux_number(),
            ca_state: self.transfer(index).map_or(0, |transfer| transfer.recovery.state as u8),
            retransmits: if persisting { 0 } else { connection.retries },
            probes,
            backoff: connection.rtt.backoff,
            options: option_bits_of(connection),
            snd_wscale: connection.snd_shift,
            rcv_wscale: connection.rcv_shift,
            rto: connection.rtt.backed_off(self.rtt_bounds),
            ato: connection.quick_ack.between_us(),
            snd_mss: mss,
            rcv_mss: self.received_mss(index),
            unacked: segments(flight),
            sacked: segments(sacked),
            lost: sent.map_or(0, |sent| segments(sent.lost)),
            retrans: sent.map_or(0, |sent| segments(sent.retransmitted)),
            last_data_sent: millis(connection.since_sent(self.whole_us)),
            last_data_recv: self.now_ms.wrapping_sub(connection.traffic.last_data_recv),
            last_ack_recv: self.now_ms.wrapping_sub(connection.traffic.last_recv),
            pmtu: self.path_mtu(connection.remote).into(),
            rcv_ssthresh: self.receive_limit(index),
            rcv_rtt: self.transfer(index).map_or(0, |transfer| transfer.right_sizing.rtt_us),
            rcv_space: self.transfer(index).map_or(0, |transfer| transfer.right_sizing.space),
            rtt: connection.rtt.smoothed(),
            rttvar: connection.rtt.deviation(),
            snd_ssthresh: match connection.congestion.threshold {
                u32::MAX => i32::MAX as u32,
                threshold => threshold / mss,
            },
            snd_cwnd: connection.congestion.window / mss,
            advmss: self.announced_mss(index).into(),
            reordering: self.transfer(index).map_or(3, |at| at.rack.reordering.into()),
            total_retrans: totals.retransmitted,
            pacing_rate: self.pacing_rate(index, flight).unwrap_or(u64::MAX),
            max_pacing_rate: match self.transfer(index).map_or(0, |one| one.pacing.most) {
                0 => u64::MAX,
                most => most,
            },
            bytes_acked,
            bytes_received: connection.bytes_received(&totals),
            segs_out: connection.traffic.segs_out,
            segs_in: connection.traffic.segs_in,
            notsent_bytes: unsent,
            min_rtt: match connection.rtt.least() {
                0 => u32::MAX,
                least => least,
            },
            data_segs_in: connection.traffic.data_segs_in,
            data_segs_out: connection.traffic.data_segs_out,
            busy_time: self.busy_time(connection),
            rwnd_limited: micros(self.limited(index).0),
            sndbuf_limited: micros(self.limited(index).1),
            delivered: connection
                .traffic
                .data_segs_out
                .wrapping_sub(totals.retransmitted.wrapping_sub(totals.syn_retransmitted.into()))
                .saturating_sub(segments(flight - sacked.min(flight)))
                .wrapping_add(u32::from(syn_delivered)),
            delivered_ce: totals.delivered_marked,
            // Our SYN is no data.
            bytes_sent: connection.bytes_acked(&totals).saturating_sub(1)
                + u64::from(flight)
                + totals.bytes_retransmitted,
            bytes_retrans: totals.bytes_retransmitted,
            dsack_dups: totals.dsack_duplicates,
            reord_seen: totals.reorderings,
            rcv_ooopack: totals.out_of_order,
            snd_wnd: connection.snd_wnd,
            rcv_wnd: connection.rcv_wnd(),
            total_rto: totals.timeouts,
            total_rto_recoveries: totals.timeout_recoveries,
            total_rto_time: totals.timeout_millis,
            received_ce: received.ce_packets,
            delivered_e1_bytes: delivered.ect_1_bytes,
            delivered_e0_bytes: delivered.ect_0_bytes,
            delivered_ce_bytes: delivered.ce_bytes,
            received_e1_bytes: received.ect_1_bytes,
            received_e0_bytes: received.ect_0_bytes,
            received_ce_bytes: received.ce_bytes,
            ..TcpInfo::default()
        }
    }

    fn busy_time(&self, connection: &Connection) -> u64 {
        micros(connection.busy(connection.is_busy().then_some(self.tick)))
    }
}

/// Milliseconds, at most 49 days of them.
fn millis(micros: u64) -> u32 {
    u32::try_from(micros / 1000).unwrap_or(u32::MAX)
}

fn micros(ticks: u64) -> u64 {
    ticks.saturating_mul(1 << TICK_SHIFT) / 1000
}

fn option_bits_of(connection: &Connection) -> u8 {
    let mut bits = 0;
    let mut add = |on: bool, bit: u8| bits |= if on { bit } else { 0 };
    add(connection.features.has(Features::TIMESTAMPS), option_bits::TIMESTAMPS);
    add(connection.features.has(Features::SACK), option_bits::SACK);
    add(connection.flags.has(Flags::SCALING), option_bits::WSCALE);
    add(connection.features.has(Features::ECN.with(Features::ACCURATE_ECN)), option_bits::ECN);
    add(connection.features.has(Features::FAST_OPEN), option_bits::SYN_DATA);
    bits
}
