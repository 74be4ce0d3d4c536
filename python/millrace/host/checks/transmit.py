"""The way out: queueing disciplines, byte limits, hanging drivers."""

from __future__ import annotations

from millrace.host.checks.table import (
    Context,
    Outcomes,
    bad,
    check,
    device,
    info,
    ok,
    warn,
)
from millrace.host.finding import HOST, Layer, Scope
from millrace.host.links import by_index
from millrace.host.unavailable import NotAvailable, Unavailable, known

_DEVICE = Scope("device")


@check(
    "qdisc-drops",
    Layer.TRANSMIT,
    33,
    _DEVICE,
    why="Packets are dropped on the way out, because they come faster than the device or its "
    "rate limit takes them. TCP slows down, UDP loses.",
    source="tc(8), statistics",
)
def qdisc_drops(context: Context) -> Outcomes:
    """Drops of queueing disciplines in the window: above 1 % of what was sent bad, else a warning.

    A discipline that drops to signal (fq_codel, cake, red, pie) is information below 1 %.
    """
    links = by_index(context.links)
    signalling = ("fq_codel", "codel", "cake", "red", "pie", "fq_pie", "sfq")
    found: set[str] = set()
    kinds = {(one.index, one.parent, one.handle): one for one in known(context.now.qdiscs)}
    for key, counted in context.rates.qdiscs.items():
        one, link = kinds.get(key), links.get(key[0])
        if one is None or link is None or not counted["drops"]:
            continue
        found.add(link.name)
        share = counted["drops"] / max(counted["packets"] + counted["drops"], 1)
        told = (
            f"{context.amount(counted['drops'], 'packets dropped')} by {one.kind}, {share:.1%}; "
            f"{one.queue_length} wait"
        )
        if one.kind in signalling and share < 0.01:
            yield info(told, device(link), advice="it tells senders to slow down, as it should")
        else:
            verdict = bad if share > 0.01 else warn
            yield verdict(
                told,
                device(link),
                advice="raise the rate limit if there is one, pace the senders, or let fq_codel "
                "choose what is dropped",
                command=f"tc -s qdisc show dev {link.name}",
            )
    for link in context.links:
        if link.name not in found:
            yield ok(context.none("packet dropped on the way out"), device(link))


@check(
    "qdisc-backlog",
    Layer.TRANSMIT,
    33,
    _DEVICE,
    why="Packets stand in the queue before the device. Everything sent now waits behind them: "
    "bufferbloat.",
    source="J. Gettys and K. Nichols, Bufferbloat (CACM 2012)",
)
def qdisc_backlog(context: Context) -> Outcomes:
    """A queue that was not empty before and after the window, and how long it takes to drain."""
    links = by_index(context.links)
    before = {
        (one.index, one.parent, one.handle): one.queue_length
        for one in known(context.rates.before.qdiscs)
    }
    standing: set[str] = set()
    for one in known(context.now.qdiscs):
        key = (one.index, one.parent, one.handle)
        link = links.get(one.index)
        if link is None or min(one.queue_length, before.get(key, 0)) < 10:
            continue
        sent = context.per_second(context.rates.qdiscs.get(key, {}).get("packets", 0))
        wait = f", {one.queue_length / sent * 1000:.0f} ms at this rate" if sent else ""
        standing.add(link.name)
        yield warn(
            f"{one.queue_length} packets stand in {one.kind}{wait}",
            device(link),
            advice="shape to a little less than the bottleneck with fq_codel, or shorten the queue",
            command=f"tc qdisc replace dev {link.name} root fq_codel",
        )
    for link in context.links:
        if link.name not in standing:
            yield ok("no queue stands", device(link))


@check(
    "qdisc-choice",
    Layer.TRANSMIT,
    33,
    _DEVICE,
    why="A plain queue of 1,000 packets before a slow link is seconds of delay for everybody once "
    "somebody fills it.",
    source="RFC 7567; RFC 8290",
)
def qdisc_choice(context: Context) -> Outcomes:
    """pfifo_fast or pfifo with 1,000 packets before a link of at most 1 Gbit/s (information)."""
    for link in context.links:
        one = context.devices.get(link.name)
        speed = one.speed if one is not None and isinstance(one.speed, int) else 0
        plain = link.qdisc in ("pfifo_fast", "pfifo") and link.txqlen >= 1000
        if plain and 0 < speed <= 1000:
            yield info(
                f"{link.qdisc} with {link.txqlen} packets before {speed} Mbit/s",
                device(link),
                advice="use fq_codel, or cake where there is one",
                command=f"tc qdisc replace dev {link.name} root fq_codel",
            )
        else:
            yield ok(link.qdisc or "none", device(link))


@check(
    "bql-stall",
    Layer.TRANSMIT,
    33,
    _DEVICE,
    why="The device did not complete what it was given to send for a while: interrupts that come "
    "late, or a driver that hangs.",
    source="Documentation/ABI/testing/sysfs-class-net-queues, stall_cnt",
    nothing="no driver here counts stalls",
)
def bql_stall(context: Context) -> Outcomes:
    """Stalls of byte queue limits; only kernels and drivers with stall detection count them."""
    seen = False
    for link in context.links:
        queues = [one for one in known(context.now.transmit_queues) if one.interface == link.name]
        counts = [one.stalls for one in queues if not isinstance(one.stalls, NotAvailable)]
        if not counts:
            continue
        seen = True
        if sum(counts):
            yield warn(
                f"{sum(counts)} stalls since the interface began",
                device(link),
                advice="look at the transmit interrupt's affinity, and at tx-timeouts",
            )
        else:
            yield ok("no stall", device(link))
    if not seen:
        return


@check(
    "tx-timeouts",
    Layer.TRANSMIT,
    34,
    _DEVICE,
    why="The driver was found hanging with packets to send, and the kernel reset the device. All "
    "that was queued is lost.",
    source="net/sched/sch_generic.c, dev_watchdog",
    nothing="no interface has transmit queues in sysfs",
)
def tx_timeouts(context: Context) -> Outcomes:
    """Timeouts of transmit queues: any in the window is bad, earlier ones are information."""
    before: dict[tuple[str, int], int] = {}
    if context.window is not None:
        for one in context.window.before.transmit_queues or ():
            before[one.interface, one.queue] = one.timeouts or 0
    for link in context.links:
        queues = [one for one in known(context.now.transmit_queues) if one.interface == link.name]
        total = sum(one.timeouts or 0 for one in queues)
        new = total - sum(before.get((one.interface, one.queue), 0) for one in queues)
        if context.window is not None and new > 0:
            yield bad(
                context.amount(new, "timeouts"),
                device(link),
                advice="look at dmesg; update the firmware and the driver",
                command=f"dmesg | grep -i -e {link.name} -e watchdog | tail",
            )
        elif total:
            yield info(f"{total} timeouts since the interface began", device(link))
        elif queues:
            yield ok("no timeout", device(link))


@check(
    "default-qdisc",
    Layer.TRANSMIT,
    33,
    HOST,
    why="New interfaces get this discipline; pfifo_fast knows no flows and no delay.",
    source="Documentation/admin-guide/sysctl/net.rst, default_qdisc; RFC 8290",
)
def default_qdisc(context: Context) -> Outcomes:
    """net.core.default_qdisc of pfifo_fast where the kernel may have fq_codel or fq."""
    name = context.sysctl("net.core.default_qdisc")
    try:
        control = context.sysctl("net.ipv4.tcp_congestion_control")
    except Unavailable:
        control = ""
    if name == "pfifo_fast":
        yield info(
            f"{name}" + (", and bbr paces in TCP itself" if control == "bbr" else ""),
            advice="fq_codel, or fq with bbr, where the kernel was built with it",
            command="sysctl -w net.core.default_qdisc=fq_codel",
        )
    else:
        yield ok(name)
