"""Which side limits a TCP connection, from struct tcp_info."""

from __future__ import annotations

from collections.abc import Mapping

#: A share of the busy time from which on a side counts as the limit.
SHARE = 0.1


def limit(info: Mapping[str, int], before: Mapping[str, int] | None = None) -> str:
    """What keeps a sender from sending more.

    `info` has the fields of tcp_info without `tcpi_`; with `before`, an earlier look, only the time
    in between counts. "receiver": its window is closed; "send buffer": ours is too small;
    "network": the congestion window or pacing; "program": it has not written more; "idle": nothing
    was to be sent.
    """

    def passed(name: str) -> int:
        return info.get(name, 0) - (before or {}).get(name, 0)

    busy = passed("busy_time")
    waiting = info.get("unacked", 0) or info.get("notsent_bytes", 0)
    if busy <= 0 and not waiting:
        return "idle"
    receiver, buffer = passed("rwnd_limited"), passed("sndbuf_limited")
    if busy > 0 and max(receiver, buffer) >= SHARE * busy:
        return "receiver" if receiver >= buffer else "send buffer"
    cwnd = info.get("snd_cwnd", 0)
    if info.get("notsent_bytes", 0) > 0 or (cwnd and info.get("unacked", 0) >= cwnd):
        return "network"
    return "program"
