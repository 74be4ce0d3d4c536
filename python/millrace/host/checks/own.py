"""Millrace's own channels: pools, drops, turns."""

from __future__ import annotations

from collections.abc import Mapping

from millrace.host.checks.table import (
    Context,
    Outcomes,
    bad,
    check,
    ok,
    warn,
)
from millrace.host.finding import Layer, Scope
from millrace.host.own import OwnChannel
from millrace.host.unavailable import known

_SOCKET = Scope("socket")
_DESIGN = "docs/design/architecture.md"
#: What a turn receives at most.
BURST = 64


def scope_of(one: OwnChannel) -> Scope:
    """The scope of one channel."""
    return Scope("socket", f"channel {one.port} of {one.process}[{one.pid}]")


def changes(context: Context, one: OwnChannel) -> Mapping[str, int]:
    """How far a channel's counters went on in the window."""
    return context.rates.own.get((one.pid, one.number), {})


@check(
    "own-pool",
    Layer.MILLRACE,
    61,
    _SOCKET,
    why="A channel that has no free frame can neither receive nor send.",
    source=_DESIGN + ", Frames",
    nothing="no Millrace channel runs",
)
def own_pool(context: Context) -> Outcomes:
    """Frames of a channel: less than an eighth free is a warning, none left in the window bad."""
    for one in known(context.now.own):
        total, free = one.values.get("frames", 0), one.values.get("frames_free", 0)
        counted = changes(context, one)
        starved = counted.get("frames_exhausted", 0) + counted.get("writes_starved", 0)
        told = f"{free:,} of {total:,} frames are free"
        advice = "keep fewer memoryviews, or give the channel more frames"
        if starved:
            yield bad(
                f"{told}; {context.amount(starved, 'times there was none')}",
                scope_of(one),
                advice=advice,
            )
        elif total and free < total / 8:
            yield warn(told, scope_of(one), advice=advice)
        else:
            yield ok(told, scope_of(one))


@check(
    "own-drops",
    Layer.MILLRACE,
    61,
    _SOCKET,
    why="The channel or its port dropped packets that somebody wanted; each counter's name is the "
    "reason.",
    source=_DESIGN + "; Documentation/networking/af_xdp.rst, XDP_STATISTICS; packet(7)",
    nothing="no Millrace channel runs",
)
def own_drops(context: Context) -> Outcomes:
    """Every counter of a channel's drops, among them those of its port's ring in the kernel."""
    for one in known(context.now.own):
        lost = {
            name.removeprefix("drop_"): count
            for name, count in changes(context, one).items()
            if count and name.startswith("drop_")
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
    """Packets a burst in the window, against the 64 that a turn takes at most."""
    for one in known(context.now.own):
        counted = changes(context, one)
        bursts, packets = counted.get("rx_bursts", 0), counted.get("rx_packets", 0)
        if bursts < 100:
            yield ok("too few bursts to judge", scope_of(one))
            continue
        mean = packets / bursts
        told = f"{mean:.1f} packets a burst"
        if mean > 0.9 * BURST:
            yield warn(told, scope_of(one), advice="give the port more queues and channels")
        else:
            yield ok(told, scope_of(one))


@check(
    "own-busy",
    Layer.MILLRACE,
    61,
    _SOCKET,
    why="The channel's thread has no time left: what comes now waits in the ring, and is lost when "
    "that is full.",
    source=_DESIGN + ", Channels and Python",
    nothing="no Millrace channel runs",
)
def own_busy(context: Context) -> Outcomes:
    """The share of the window in which a channel had something to do: over 95 % is a warning.

    A channel that sees no traffic publishes nothing new, and counts as idle.
    """
    for one in known(context.now.own):
        counted = changes(context, one)
        turns = counted.get("turns", 0)
        idle = counted.get("idle_nanoseconds", 0) / 1e9
        share = max(0.0, 1 - idle / context.rates.seconds) if turns else 0.0
        told = f"busy for {share:.0%} of the window"
        if share > 0.95 and turns > 100:
            yield warn(
                told,
                scope_of(one),
                advice="spread the load over more channels, or let the program do less a turn",
            )
        else:
            yield ok(told, scope_of(one))


@check(
    "own-transmit",
    Layer.MILLRACE,
    61,
    _SOCKET,
    why="The port had no room for what was to be sent: it leaves a turn later, and the queue "
    "before it grows.",
    source=_DESIGN + ", Ports",
    nothing="no Millrace channel runs",
)
def own_transmit(context: Context) -> Outcomes:
    """Turns that ended with packets left: more than one in a hundred is a warning."""
    for one in known(context.now.own):
        counted = changes(context, one)
        stalls, turns = counted.get("transmit_stalls", 0), counted.get("turns", 0)
        told = context.amount(stalls, "turns with packets left")
        if stalls > 10 and stalls > turns / 100:
            yield warn(told, scope_of(one), advice="a longer transmit ring, or a faster device")
        else:
            yield ok(told, scope_of(one))


@check(
    "own-connections",
    Layer.MILLRACE,
    61,
    _SOCKET,
    why="The channel's table of connections is of one size; when it is full, new ones are refused.",
    source=_DESIGN + ", The stack",
    nothing="no Millrace channel runs",
)
def own_connections(context: Context) -> Outcomes:
    """Connections of a channel above nine tenths of what it has room for."""
    for one in known(context.now.own):
        count, most = one.values.get("connections", 0), one.values.get("connections_most", 0)
        told = f"{count:,} of {most:,} connections"
        if most and count > 0.9 * most:
            yield warn(told, scope_of(one), advice="make the channel with more connections")
        else:
            yield ok(told, scope_of(one))
