"""Which CPUs a device's queues, interrupts and steering get."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from millrace.host.checks.interrupts import affinity_step
from millrace.host.checks.steering import RFS_ENTRIES, rps_steps
from millrace.host.checks.table import Goal, file_step, setting_step
from millrace.host.cpuset import format_list, format_mask, parse_list
from millrace.host.finding import Step
from millrace.host.links import Link
from millrace.host.snapshot import Snapshot
from millrace.host.tune.plan import Builder
from millrace.host.unavailable import NotAvailable, known


class Policy(enum.StrEnum):
    """How CPUs are chosen."""

    #: All that are not isolated.
    SPREAD = "spread"
    #: Those of the device's NUMA node.
    NODE = "node"
    #: Those that were named.
    CPUS = "cpus"


@dataclass(frozen=True, slots=True)
class Placement:
    """The CPUs that work on a device's packets."""

    cpus: tuple[int, ...]
    policy: Policy
    why: str


def choose(snapshot: Snapshot, link: Link, policy: Policy | None, cpus: str | None) -> Placement:
    """The CPUs for a device. Raises `ValueError` for ones that do not exist."""
    every = known(snapshot.cpus)
    if cpus is not None:
        try:
            wanted = parse_list(cpus)
        except ValueError as error:
            raise ValueError(f"--cpus {cpus!r} is no list such as 0-3,8: {error}") from None
        missing = wanted - set(every.numbers)
        if not wanted or missing:
            raise ValueError(
                f"--cpus {cpus}: this machine has CPU {format_list(every.numbers)}"
                + (f", not {format_list(missing)}" if missing else "")
            )
        return Placement(tuple(sorted(wanted)), Policy.CPUS, f"CPU {format_list(wanted)} as asked")
    if policy is Policy.CPUS:
        raise ValueError("--place cpus needs --cpus")
    usable = tuple(cpu for cpu in every.numbers if cpu not in every.isolated) or every.numbers
    node = next((bus.node for bus in snapshot.buses or () if bus.interface == link.name), -1)
    near = tuple(cpu for cpu in usable if cpu in every.of_node(node))
    if policy is Policy.NODE and not near:
        raise ValueError(f"--place node: {link.name} does not say which NUMA node it is on")
    if policy is not Policy.SPREAD and near and len(every.nodes) > 1:
        return Placement(near, Policy.NODE, f"the CPUs of node {node}, where the device is")
    return Placement(usable, Policy.SPREAD, "all CPUs that are not isolated")


def place(builder: Builder, link: Link, placement: Placement, goal: Goal) -> None:
    """Queues, interrupts, RPS, RFS and XPS for a device, by scaling.rst."""
    snapshot = builder.snapshot
    queues = _channels(builder, link, placement, goal)
    _interrupts(builder, link, placement)
    _receive_steering(builder, link, placement, goal, queues)
    _transmit_steering(builder, snapshot, link, placement)


def _channels(builder: Builder, link: Link, placement: Placement, goal: Goal) -> int:
    """How many receive queues there will be."""
    device = next((one for one in builder.snapshot.devices or () if one.name == link.name), None)
    if device is None or isinstance(device.channels, NotAvailable) or link.kind:
        return link.rx_queues
    now = device.channels
    cpus = known(builder.snapshot.cpus)
    cores = {one.siblings for one in cpus.cpus if one.number in placement.cpus}
    wanted = min(now.receive_max, len(cores))
    if goal is Goal.LATENCY and placement.policy is not Policy.CPUS:
        # Fewer queues than programs' cores hurt, more do not help; without names nobody knows.
        return now.receive
    if wanted and wanted != now.receive:
        setting, old = ("combined", now.combined) if now.combined_max else ("rx", now.rx)
        builder.step(
            setting_step(link, "channels", setting, old, wanted),
            f"a queue for each physical core that receives: {placement.why}",
            "the link goes down for a moment",
        )
        return wanted
    return now.receive


def _interrupts(builder: Builder, link: Link, placement: Placement) -> None:
    snapshot = builder.snapshot
    irqs = [irq for irq in snapshot.irqs or () if link.name in irq.interfaces]
    irqs = [irq for irq in irqs if irq.total] or irqs
    if not irqs or len(known(snapshot.cpus).numbers) < 2:
        return
    running = (snapshot.services or {}).get("irqbalance")
    if running is not None:
        builder.step(
            Step("service:irqbalance", "active", "inactive"),
            "irqbalance would move the interrupts again within ten seconds",
            "other devices' interrupts are no longer balanced either",
        )
    for at, irq in enumerate(irqs):
        builder.step(
            affinity_step(irq, str(placement.cpus[at % len(placement.cpus)])),
            f"interrupt {at + 1} of {len(irqs)} of {link.name} ({irq.label}): {placement.why}",
        )


def _receive_steering(
    builder: Builder, link: Link, placement: Placement, goal: Goal, queues: int
) -> None:
    snapshot = builder.snapshot
    found = [one for one in snapshot.receive_queues or () if one.interface == link.name]
    cpus = known(snapshot.cpus).numbers
    if not found or len(cpus) < 2:
        return
    hardware = [irq for irq in snapshot.irqs or () if link.name in irq.interfaces]
    enough = queues >= len(placement.cpus)
    using = [one for one in found if one.rps_cpus]
    if enough or goal is Goal.LATENCY:
        why = (
            "each CPU has a queue of its own, so RPS only adds an interrupt between CPUs"
            if enough
            else "RPS costs an interrupt between CPUs for each batch"
        )
        builder.steps(rps_steps(using, []), why)
        return
    spread = placement.cpus
    if len(hardware) == 1 and len(spread) > 2:
        # scaling.rst: at a high interrupt rate leave the interrupted CPU out.
        taken = set(hardware[0].effective or ())
        spread = tuple(cpu for cpu in spread if cpu not in taken) or spread
    builder.steps(
        rps_steps(found, spread),
        f"{queues} receive queue(s) for {len(placement.cpus)} CPUs: {placement.why}",
        "packets of different flows may change their order",
    )
    each = RFS_ENTRIES // len(found)
    builder.step(
        Step(
            "sysctl:net.core.rps_sock_flow_entries",
            str((snapshot.sysctls or {}).get("net.core.rps_sock_flow_entries") or ""),
            str(RFS_ENTRIES),
        ),
        "RFS takes a packet to the CPU whose program waits for it",
    )
    builder.steps(
        [
            file_step(
                f"/sys/class/net/{link.name}/queues/rx-{one.queue}/rps_flow_cnt",
                one.rps_flow_count,
                each,
            )
            for one in found
        ],
        f"the queue's share of RFS's {RFS_ENTRIES} entries",
    )


def _transmit_steering(
    builder: Builder, snapshot: Snapshot, link: Link, placement: Placement
) -> None:
    found = [one for one in snapshot.transmit_queues or () if one.interface == link.name]
    masks = [one for one in found if not isinstance(one.xps_cpus, NotAvailable)]
    if len(masks) < 2 or link.kind:
        return
    for at, one in enumerate(masks):
        mine = known(snapshot.cpus).numbers[at :: len(masks)]
        builder.step(
            file_step(
                f"/sys/class/net/{link.name}/queues/tx-{one.queue}/xps_cpus",
                format_mask(one.xps_cpus or ()),
                format_mask(mine),
            ),
            "each CPU sends by a queue that few others use",
        )
