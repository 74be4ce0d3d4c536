"""Offloads: what the card or the kernel's edge does for many packets at once."""

from __future__ import annotations

from millrace.host.checks.table import (
    Context,
    Goal,
    Outcomes,
    bad,
    check,
    device,
    info,
    ok,
    warn,
)
from millrace.host.ethtool import Device
from millrace.host.finding import Layer, Scope, Step
from millrace.host.links import Link
from millrace.host.targets import offload_value
from millrace.host.unavailable import NotAvailable, known

_DEVICE = Scope("device")


def offload_steps(link: Link, one: Device, short: str, on: bool) -> list[Step]:
    """The step that switches an offload; none if it is so already, or cannot be switched."""
    if isinstance(one.features, NotAvailable):
        return []
    old, new = offload_value(one.features, short), offload_value(one.features, short, on)
    return [] if old == new else [Step(f"offload:{link.name}:{short}", old, new)]


def owned_by_millrace(context: Context, link: Link) -> bool:
    """Whether a Millrace channel or an AF_XDP program has this interface."""
    own = context.now.own
    if not isinstance(own, NotAvailable):
        return any(one.interface == link.name for one in own)
    return False


@check(
    "gro",
    Layer.SOFTNET,
    20,
    _DEVICE,
    why="Generic Receive Offload joins segments before the stack sees them. Without it each "
    "segment of a bulk transfer takes the whole way alone.",
    source="Documentation/networking/segmentation-offloads.rst, GRO",
    nothing="no driver here has GRO",
)
def gro(context: Context) -> Outcomes:
    """GRO that is off on a hardware device. For latency alone it may be meant.

    A veth has it off by default because its peer sends super-segments already, so only a device
    that receives from a wire is judged.
    """
    for link in context.links:
        one = context.devices.get(link.name)
        if one is None or (on := one.feature("gro")) is None or owned_by_millrace(context, link):
            continue
        if on or link.kind:
            yield ok(f"GRO is {'on' if on else 'off, as a virtual device may'}", device(link))
        else:
            verdict = info if context.goal is Goal.LATENCY else warn
            yield verdict("GRO is off", device(link), steps=offload_steps(link, one, "gro", True))


@check(
    "lro-forwarding",
    Layer.SOFTNET,
    20,
    _DEVICE,
    why="Large Receive Offload joins packets so that they cannot be taken apart again; what is "
    "forwarded or bridged comes out wrong or is dropped.",
    source="Documentation/networking/segmentation-offloads.rst; net/core/dev.c dev_disable_lro",
    nothing="no driver here has LRO",
)
def lro_forwarding(context: Context) -> Outcomes:
    """LRO on a device that is a bridge's port, or on a host that forwards."""
    forwarding = context.number("net.ipv4.ip_forward") == 1
    for link in context.links:
        one = context.devices.get(link.name)
        if one is None or one.feature("lro") is None:
            continue
        if one.feature("lro") and (forwarding or link.master):
            yield bad(
                "LRO is on, and the host forwards what it receives",
                device(link),
                steps=offload_steps(link, one, "lro", False),
                risk="a little more CPU for what this host itself receives",
            )
        else:
            yield ok("LRO does no harm here", device(link))


@check(
    "tx-offloads",
    Layer.TRANSMIT,
    20,
    _DEVICE,
    why="Without segmentation and checksum offload the CPU cuts and sums each packet of 1,500 "
    "bytes; a super-segment of 64 KiB pays the way through the stack once.",
    source="Documentation/networking/segmentation-offloads.rst; checksum-offloads.rst",
    nothing="no interface is up",
)
def tx_offloads(context: Context) -> Outcomes:
    """Transmit checksum, scatter-gather, TSO or GSO that the driver has and that is off.

    It is a warning, with the goal throughput bad. On a device that a Millrace port sends through
    with AF_PACKET or AF_XDP it is not judged.
    """
    for link in context.links:
        one = context.devices.get(link.name)
        if one is None or owned_by_millrace(context, link):
            continue
        names = ("tx", "sg", "tso", "gso")
        off = [short for short in names if one.feature(short) is False and one.can_switch(short)]
        if off:
            verdict = bad if context.goal is Goal.THROUGHPUT else warn
            yield verdict(
                f"off: {', '.join(off)}",
                device(link),
                # In this order, because each needs the one before it.
                steps=[step for short in off for step in offload_steps(link, one, short, True)],
            )
        else:
            yield ok("checksums and segmentation are offloaded", device(link))


@check(
    "offloads-under-millrace",
    Layer.MILLRACE,
    20,
    _DEVICE,
    why="A port of ours sees what the card made of the packets: joined frames larger than the MTU, "
    "and from a local peer checksums that were never filled in.",
    source="Documentation/networking/af_xdp.rst; checksum-offloads.rst",
    nothing="no Millrace channel is on an interface here",
)
def offloads_under_millrace(context: Context) -> Outcomes:
    """GRO, LRO or hardware GRO on a device that a Millrace AF_XDP port receives from."""
    known(context.now.own)
    for link in context.links:
        one = context.devices.get(link.name)
        if one is None or not owned_by_millrace(context, link):
            continue
        on = [short for short in ("lro", "rx-gro-hw") if one.feature(short)]
        if on:
            yield bad(
                f"on: {', '.join(on)}",
                device(link),
                steps=[step for short in on for step in offload_steps(link, one, short, False)],
            )
        else:
            yield ok("nothing joins frames before the port", device(link))
