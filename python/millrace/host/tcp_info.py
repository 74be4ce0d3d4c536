"""struct tcp_info of linux/tcp.h: what the kernel knows of a connection.

Older kernels give a shorter structure; what they do not have is 0. Later fields than those here are
ignored.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_LAYOUT = struct.Struct("=8B24I4Q6I4Q2I2Q6I2HI")


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """The fields by the kernel's names without `tcpi_`.

    Times `rto`, `ato`, `rtt`, `rttvar`, `min_rtt`, `rcv_rtt`, `busy_time`, `rwnd_limited` and
    `sndbuf_limited` are microseconds, `last_...` and `total_rto_time` milliseconds, rates bytes a
    second.
    """

    state: int
    ca_state: int
    retransmits: int
    probes: int
    backoff: int
    options: int
    snd_wscale: int
    rcv_wscale: int
    delivery_rate_app_limited: bool
    rto: int
    ato: int
    snd_mss: int
    rcv_mss: int
    unacked: int
    sacked: int
    lost: int
    retrans: int
    last_data_sent: int
    last_data_recv: int
    last_ack_recv: int
    pmtu: int
    rcv_ssthresh: int
    rtt: int
    rttvar: int
    snd_ssthresh: int
    snd_cwnd: int
    advmss: int
    reordering: int
    rcv_rtt: int
    rcv_space: int
    total_retrans: int
    pacing_rate: int
    bytes_acked: int
    bytes_received: int
    segs_out: int
    segs_in: int
    notsent_bytes: int
    min_rtt: int
    data_segs_in: int
    data_segs_out: int
    delivery_rate: int
    busy_time: int
    rwnd_limited: int
    sndbuf_limited: int
    delivered: int
    delivered_ce: int
    bytes_sent: int
    bytes_retrans: int
    dsack_dups: int
    reord_seen: int
    rcv_ooopack: int
    snd_wnd: int
    rcv_wnd: int
    rehash: int
    total_rto: int
    total_rto_recoveries: int
    total_rto_time: int


def parse(data: bytes) -> TcpInfo:
    """Read the structure from its bytes."""
    words = _LAYOUT.unpack(data[: _LAYOUT.size].ljust(_LAYOUT.size, b"\0"))
    (state, ca_state, retransmits, probes, backoff, options, scales, flags) = words[:8]
    (
        *timers,
        _fackets,
        last_data_sent,
        _last_ack_sent,
        last_data_recv,
        last_ack_recv,
    ) = words[8:21]
    pacing_rate, _max_pacing_rate = words[32:34]
    fields = [
        *(state, ca_state, retransmits, probes, backoff, options),
        *(scales & 0xF, scales >> 4, bool(flags & 1)),
        *timers,
        *(last_data_sent, last_data_recv, last_ack_recv),
        *words[21:32],
        pacing_rate,
        *words[34:],
    ]
    return TcpInfo(*fields)
