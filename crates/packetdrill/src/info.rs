//! `TCP_INFO` and `TCP_CC_INFO` in the form that `linux/tcp.h` gives them.

use millrace_stack::{Stack, State, TcpInfo};

use crate::socket::{Kind, Socket};

/// `TCP_LISTEN` (`net/tcp_states.h`).
const LISTEN: u8 = 10;

/// `struct tcp_info`: the fields in order, each aligned to its size.
struct Layout(Vec<u8>);

impl Layout {
    fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    fn half(&mut self, value: u16) {
        self.0.extend(value.to_ne_bytes());
    }

    fn word(&mut self, value: u32) {
        self.0.extend(value.to_ne_bytes());
    }

    fn long(&mut self, value: u64) {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self.0.extend(value.to_ne_bytes());
    }
}

/// Bytes of `struct tcp_info` in Linux 6.17; a caller that knows fewer fields takes fewer.
const LEN: usize = 280;

/// `struct tcp_info` of a socket.
pub(crate) fn tcp_info(socket: &Socket, stack: Option<&Stack>) -> Vec<u8> {
    let info = match (&socket.kind, stack) {
        (Kind::Stream(stream), Some(stack)) => stack.tcp_info(stream.id).ok(),
        _ => None,
    };
    let mut layout = Layout(Vec::with_capacity(LEN));
    match info {
        Some(info) => fill(&mut layout, &info),
        None if matches!(socket.kind, Kind::Listener { .. }) => layout.byte(LISTEN),
        None => layout.byte(State::Closed.linux_number()),
    }
    layout.0.resize(LEN, 0);
    layout.0
}

fn fill(layout: &mut Layout, info: &TcpInfo) {
    layout.byte(info.state);
    layout.byte(info.ca_state);
    layout.byte(info.retransmits);
    layout.byte(info.probes);
    layout.byte(info.backoff);
    layout.byte(info.options);
    layout.byte(info.snd_wscale | info.rcv_wscale << 4);
    layout.byte(info.delivery_rate_app_limited | info.fastopen_client_fail << 1);
    for value in [
        info.rto,
        info.ato,
        info.snd_mss,
        info.rcv_mss,
        info.unacked,
        info.sacked,
        info.lost,
        info.retrans,
        info.fackets,
        info.last_data_sent,
        info.last_ack_sent,
        info.last_data_recv,
        info.last_ack_recv,
        info.pmtu,
        info.rcv_ssthresh,
        info.rtt,
        info.rttvar,
        info.snd_ssthresh,
        info.snd_cwnd,
        info.advmss,
        info.reordering,
        info.rcv_rtt,
        info.rcv_space,
        info.total_retrans,
    ] {
        layout.word(value);
    }
    for value in [info.pacing_rate, info.max_pacing_rate, info.bytes_acked, info.bytes_received] {
        layout.long(value);
    }
    for value in [
        info.segs_out,
        info.segs_in,
        info.notsent_bytes,
        info.min_rtt,
        info.data_segs_in,
        info.data_segs_out,
    ] {
        layout.word(value);
    }
    for value in [info.delivery_rate, info.busy_time, info.rwnd_limited, info.sndbuf_limited] {
        layout.long(value);
    }
    layout.word(info.delivered);
    layout.word(info.delivered_ce);
    layout.long(info.bytes_sent);
    layout.long(info.bytes_retrans);
    for value in [
        info.dsack_dups,
        info.reord_seen,
        info.rcv_ooopack,
        info.snd_wnd,
        info.rcv_wnd,
        info.rehash,
    ] {
        layout.word(value);
    }
    layout.half(info.total_rto);
    layout.half(info.total_rto_recoveries);
    layout.word(info.total_rto_time);
}

/// `union tcp_cc_info`: CUBIC and NewReno have nothing to show.
pub(crate) fn congestion_info(_socket: &Socket, _stack: Option<&Stack>) -> Vec<u8> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_kernel_has_them() {
        let info = TcpInfo::default();
        let mut layout = Layout(Vec::new());
        fill(&mut layout, &info);
        // tcpi_total_rto_time is the last of the fields that are filled.
        assert_eq!(layout.0.len(), 248);
    }
}
