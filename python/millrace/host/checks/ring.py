"""Rings, channels and coalescing: the numbers that a driver lets one choose."""

from __future__ import annotations

from millrace.host.checks.nic import ring_losses
from millrace.host.checks.table import (
    Context,
    Goal,
    Outcomes,
    check,
    device,
    info,
    ok,
    setting_step,
    warn,
)
from millrace.host.finding import Layer, Scope
from millrace.host.unavailable import NotAvailable, known

_DEVICE = Scope("device")

#: What one descriptor of an ordinary frame keeps busy in the cache.
BYTES_A_DESCRIPTOR = 2048
#: The share of the last cache that devices may fill by default (Intel DDIO: 2 of 20 ways).
DDIO_SHARE = 0.10


@check(
    "ring-size",
    Layer.RING,
    12,
    _DEVICE,
    why="A ring holds what comes while its CPU is busy elsewhere. Too small a one turns each "
    "pause into loss.",
    source="ethtool(8), -g",
    nothing="no driver here has rings to set",
)
def ring_size(context: Context) -> Outcomes:
    """A receive ring below its most while frames are lost at the device.

    Without losses the size is not judged: for throughput larger is safer, for latency smaller is
    quicker, because a long queue makes everything in it old.
    """
    for link in context.links:
        rings = context.devices[link.name].rings if link.name in context.devices else None
        if rings is None or isinstance(rings, NotAvailable):
            continue
        told = f"{rings.rx} of {rings.rx_max} descriptors"
        losing = context.window is not None and ring_losses(context, link.name, link.index)
        if losing and rings.rx < rings.rx_max:
            yield warn(
                f"{told}, and frames are lost",
                device(link),
                steps=[setting_step(link, "ring", "rx", rings.rx, min(rings.rx * 2, rings.rx_max))],
                risk="the link goes down for a moment",
            )
        elif context.goal is Goal.THROUGHPUT and rings.rx < min(rings.rx_max, 1024):
            yield info(
                f"{told}; throughput wants 1024 or more",
                device(link),
                steps=[setting_step(link, "ring", "rx", rings.rx, min(rings.rx_max, 1024))],
                risk="the link goes down for a moment",
            )
        else:
            yield ok(told, device(link))


@check(
    "ring-cache",
    Layer.RING,
    12,
    _DEVICE,
    why="Cards write into the last cache. Rings that hold more than their share of it push each "
    "packet out to memory before a CPU has read it.",
    source="Intel DDIO; D. Riddoch on queues and working sets",
    nothing="no driver here has rings to set",
)
def ring_cache(context: Context) -> Outcomes:
    """All receive rings together, at 2 KiB a descriptor, above a tenth of the last cache.

    It is a warning with the goal latency or overload, otherwise information.
    """
    cache = known(known(context.now.cpus).last_level_cache)
    for link in context.links:
        one = context.devices.get(link.name)
        if one is None or isinstance(one.rings, NotAvailable):
            continue
        channels = one.channels
        queues = channels.receive if not isinstance(channels, NotAvailable) else 1
        held = one.rings.rx * max(queues, 1) * BYTES_A_DESCRIPTOR
        told = (
            f"{max(queues, 1)} rings of {one.rings.rx} hold {held / 2**20:.1f} MiB; "
            f"a tenth of the last cache is {cache * DDIO_SHARE / 2**20:.1f} MiB"
        )
        if held <= cache * DDIO_SHARE:
            yield ok(told, device(link))
            continue
        fitting = max(64, 1 << (int(cache * DDIO_SHARE / BYTES_A_DESCRIPTOR / max(queues, 1))
                                .bit_length() - 1))  # fmt: skip
        strict = context.goal in (Goal.LATENCY, Goal.OVERLOAD)
        verdict = warn if strict else info
        if fitting >= one.rings.rx:
            yield ok(told, device(link))
        else:
            yield verdict(
                told,
                device(link),
                steps=[setting_step(link, "ring", "rx", one.rings.rx, fitting)],
                risk="shorter bursts fit; the link goes down for a moment",
            )


@check(
    "coalescing",
    Layer.RING,
    13,
    _DEVICE,
    why="The card holds each interrupt back for so long: one microsecond of coalescing more than "
    "doubled a lone request's latency in StackMap's measurement (23 to 57 us).",
    source="K. Yasukata and others, StackMap (ATC'16); ethtool(8), -c",
    nothing="no driver here coalesces interrupts",
)
def coalescing(context: Context) -> Outcomes:
    """Interrupt coalescing against the goal.

    With the goal latency rx-usecs above 1, or adaptive coalescing, is a warning. With the goal
    throughput it is a warning if the queues interrupt more than 50,000 times a second each while
    rx-usecs is below 8. Without a goal it is only told.
    """
    for link in context.links:
        one = context.devices.get(link.name)
        if one is None or isinstance(one.coalescing, NotAvailable):
            continue
        now = one.coalescing
        usecs, adaptive = now.rx_usecs, now.adaptive_rx
        if usecs is None and adaptive is None:
            continue
        told = f"rx-usecs {usecs if usecs is not None else '-'}, adaptive-rx {_word(adaptive)}"
        steps = []
        if context.goal is Goal.LATENCY and ((usecs or 0) > 1 or adaptive):
            if adaptive:
                steps.append(setting_step(link, "coalesce", "adaptive-rx", True, False))
            if usecs:
                steps.append(setting_step(link, "coalesce", "rx-usecs", usecs, 0))
            yield warn(told, device(link), steps=steps, risk="more interrupts, more CPU")
        elif context.goal is Goal.THROUGHPUT and not adaptive and (usecs or 0) < 8:
            rate = _interrupts_a_queue(context, link.name)
            if rate > 50_000:
                yield warn(
                    f"{told}, {rate:,.0f} interrupts/s a queue",
                    device(link),
                    steps=[setting_step(link, "coalesce", "rx-usecs", usecs or 0, 32)],
                    risk="each packet may wait 32 us longer",
                )
            else:
                yield ok(told, device(link))
        else:
            yield ok(told, device(link))


def _word(value: bool | None) -> str:
    return "-" if value is None else "on" if value else "off"


def _interrupts_a_queue(context: Context, name: str) -> float:
    numbers = {irq.number for irq in known(context.now.irqs) if name in irq.interfaces}
    counts = [
        sum(counts.values()) for number, counts in context.rates.irqs.items() if number in numbers
    ]
    busy = [count for count in counts if count]
    return context.per_second(sum(busy)) / len(busy) if busy else 0.0


@check(
    "channels",
    Layer.RING,
    14,
    _DEVICE,
    why="Each receive queue is drained by one CPU. With fewer queues than cores the rest of the "
    "machine cannot help; with more, queues share cores and nothing is gained.",
    source="Documentation/networking/scaling.rst, RSS Configuration",
    nothing="no driver here has channels to set",
)
def channels(context: Context) -> Outcomes:
    """Receive queues in use, against those the device has and the machine's physical cores.

    Fewer than both is a warning for throughput and information otherwise; more than there are
    physical cores is information.
    """
    cores = known(context.now.cpus).cores()
    for link in context.links:
        one = context.devices.get(link.name)
        if one is None or isinstance(one.channels, NotAvailable):
            continue
        now = one.channels
        most = min(now.receive_max, cores)
        told = f"{now.receive} of {now.receive_max} receive queues, {cores} cores"
        setting, old = ("combined", now.combined) if now.combined_max else ("rx", now.rx)
        step = setting_step(link, "channels", setting, old, most)
        if link.kind == "veth":
            # Its queues need no hardware and no interrupt; as many as its user asked for are right.
            yield ok(told, device(link))
        elif now.receive < most:
            verdict = warn if context.goal is Goal.THROUGHPUT else info
            yield verdict(told, device(link), steps=[step], risk="the link goes down for a moment")
        elif now.receive > cores:
            yield info(told, device(link), steps=[step], risk="the link goes down for a moment")
        else:
            yield ok(told, device(link))
