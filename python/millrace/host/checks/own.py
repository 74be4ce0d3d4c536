"""Millrace's own channels: pools, queues, turns."""

from __future__ import annotations

from collections.abc import Mapping

from millrace.host.checks.table import (
    Context,
    Outcomes,
    bad,
    check,
    info,
    ok,
    warn,
)
from millrace.host.finding import Layer, Scope
from millrace.host.own import OwnChannel
from millrace.host.unavailable import known

_SOCKET = Scope("socket")
_DESIGN = "docs/design/architecture.md"


def scope_of(one: OwnChannel) -> Scope:
    """The scope of one channel."""
    return Scope("socket", f"channel {one.port} of {one.process}[{one.pid}]")


def changes(context: Context, one: OwnChannel) -> Mapping[str, int]:
    """How far a channel's counters went on in the window."""
    return context.rates.own.get((one.pid, one.port), {})


@check(
    "own-pool",
    Layer.MILLRACE,
    61,
    _SOCKET,
    why="A channel that has no free frame cannot receive, and what it copies meanwhile costs time.",
    source=_DESIGN + ", Frames",
    nothing="no Millrace channel runs",
)
def own_pool(context: Context) -> Outcomes:
    """Less than an eighth of a channel's frames free, or payloads copied because of it."""
    for one in known(context.now.own):
        total, free = one.values.get("frames", 0), one.values.get("frames_free", 0)
        copied = changes(context, one).get("payloads_copied", 0)
        if total and free < total / 8:
            yield warn(
                f"{free:,} of {total:,} frames are free; {copied:,} payloads copied",
                scope_of(one),
                advice="keep fewer memoryviews, or give the channel more frames",
            )
        else:
            yield ok(f"{free:,} of {total:,} frames are free", scope_of(one))


@check(
    "own-drops",
    Layer.MILLRACE,
    61,
    _SOCKET,
    why="The channel or its port dropped packets; each counter's name is the reason.",
    source=_DESIGN + "; Documentation/networking/af_xdp.rst, XDP_STATISTICS; packet(7)",
    nothing="no Millrace channel runs",
)
def own_drops(context: Context) -> Outcomes:
    """Every counter of a channel whose name tells of drops, among them those of its port's ring."""
    for one in known(context.now.own):
        lost = {
            name: count
            for name, count in changes(context, one).items()
            if count and ("drop" in name or "ring_full" in name or "fill_ring_empty" in name)
        }
        if lost:
            told = ", ".join(f"{name} {count:,}" for name, count in sorted(lost.items())[:6])
            yield bad(
                f"{context.amount(sum(lost.values()), 'packets dropped')}: {told}",
                scope_of(one),
                advice="a larger ring for bursts, another core or another channel for load",
            )
        else:
            yield ok(context.none("packet dropped"), scope_of(one))


@check(
    "own-batches",
    Layer.MILLRACE,
    61,
    _SOCKET,
    why="Full batches mean that packets come as fast as the channel takes them: the next burst "
    "will not fit.",
    source="VPP's rule of thumb for vectors per node; " + _DESIGN,
    nothing="no Millrace channel runs",
)
def own_batches(context: Context) -> Outcomes:
    """Packets a turn of the window, against the 64 that a turn takes at most."""
    for one in known(context.now.own):
        counted = changes(context, one)
        turns, packets = counted.get("turns_busy", 0), counted.get("rx_packets", 0)
        if turns < 100:
            yield ok("too few turns to judge", scope_of(one))
            continue
        mean = packets / turns
        told = f"{mean:.1f} packets a busy turn"
        if mean > 0.9 * one.values.get("burst", 64):
            yield warn(told, scope_of(one), advice="give the port more queues and channels")
        else:
            yield ok(told, scope_of(one))


@check(
    "own-timers",
    Layer.MILLRACE,
    61,
    _SOCKET,
    why="The program kept its channel waiting: timers, acknowledgements and retransmissions were "
    "late by so much.",
    source=_DESIGN + ", Channels and Python",
    nothing="no Millrace channel runs",
)
def own_timers(context: Context) -> Outcomes:
    """The longest gap between two turns of a channel with work: over 10 ms."""
    for one in known(context.now.own):
        gap = one.values.get("turn_gap_us_max", 0)
        if gap > 10_000:
            yield info(
                f"{gap / 1000:.1f} ms between two turns",
                scope_of(one),
                advice="let the program do less between two turns, or move work to another thread",
            )
        else:
            yield ok(f"at most {gap / 1000:.1f} ms between two turns", scope_of(one))
