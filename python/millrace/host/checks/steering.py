"""Which CPU a packet goes to: RSS, RPS, RFS, accelerated RFS and XPS.

All of it is Documentation/networking/scaling.rst of the kernel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from millrace.host.checks.offloads import offload_steps
from millrace.host.checks.table import (
    Context,
    Outcomes,
    bad,
    check,
    device,
    file_step,
    info,
    ok,
    warn,
)
from millrace.host.cpuset import format_list, format_mask
from millrace.host.finding import Layer, Scope, Step
from millrace.host.links import Link
from millrace.host.queues import ReceiveQueue
from millrace.host.unavailable import NotAvailable, Unavailable, known

_DEVICE = Scope("device")
_SOURCE = "Documentation/networking/scaling.rst"

#: Fewer packets than this in the window say nothing of a balance.
ENOUGH_PACKETS = 10_000
#: The kernel's advice for net.core.rps_sock_flow_entries of a moderately loaded server.
RFS_ENTRIES = 32_768


def receive_queues(context: Context, link: Link) -> list[ReceiveQueue]:
    """The receive queues of one interface."""
    return [one for one in known(context.now.receive_queues) if one.interface == link.name]


def packets_by_queue(context: Context, link: Link) -> dict[int, int]:
    """What each receive queue took in the window, where the driver counts it."""
    found = {
        queue: counters["rx-packets"]
        for (index, way, queue), counters in context.rates.queues.items()
        if index == link.index and way == "rx" and "rx-packets" in counters
    }
    if found:
        return found
    for name, count in context.rates.devices.get(link.name, {}).items():
        number = queue_of_counter(name)
        if number is not None:
            found[number] = count
    return found


def queue_of_counter(name: str) -> int | None:
    """The queue that a driver's counter of received packets belongs to; None for another one."""
    import re

    patterns = (
        r"rx_queue_(\d+)_(?:xdp_)?packets",
        r"rx[_-]?(\d+)[_.]packets",
        r"queue_(\d+)_rx_packets",
        r"rx_ring(\d+)_packets",
    )
    for pattern in patterns:
        if found := re.fullmatch(pattern, name):
            return int(found[1])
    return None


@check(
    "rss-balance",
    Layer.RING,
    15,
    _DEVICE,
    why="One queue does the work of several: its CPU is the limit, and the others wait for it.",
    source=_SOURCE + ", RSS",
    nothing="no device here counts the packets of several queues",
)
def rss_balance(context: Context) -> Outcomes:
    """Packets of each receive queue in the window: the busiest against the mean.

    From 10,000 packets on, more than twice the mean is a warning. The table may be uneven (see
    rss-table), or there are few flows; UDP between two hosts spreads only if ports are hashed too.
    """
    for link in context.links:
        packets = packets_by_queue(context, link)
        if len(packets) < 2:
            continue
        total = sum(packets.values())
        if total < ENOUGH_PACKETS:
            yield ok(f"only {total:,} packets in the window: too few to judge", device(link))
            continue
        busiest = max(packets, key=lambda queue: packets[queue])
        ratio = packets[busiest] * len(packets) / total
        told = f"queue {busiest} took {packets[busiest] / total:.0%} of {total:,} packets"
        if ratio > 2:
            yield warn(
                f"{told} on {len(packets)} queues",
                device(link),
                advice="if the table is even, there are too few flows: hash UDP by ports as well, "
                "or steer with RPS",
                command=f"ethtool -N {link.name} rx-flow-hash udp4 sdfn",
            )
        else:
            yield ok(told, device(link))


@check(
    "rss-table",
    Layer.RING,
    15,
    _DEVICE,
    why="Queues that the table leaves out get nothing; those it names twice as often get twice as "
    "much.",
    source=_SOURCE + ", RSS Configuration; ethtool(8), -X",
    nothing="no device here has an RSS table",
)
def rss_table(context: Context) -> Outcomes:
    """The device's indirection table: queues that are missing, or share unevenly by over a half."""
    for link in context.links:
        one = context.devices.get(link.name)
        if one is None or isinstance(one.rss, NotAvailable) or not one.rss.indirection:
            continue
        if isinstance(one.channels, NotAvailable):
            continue
        queues = one.channels.receive
        entries = Counter(one.rss.indirection)
        missing = [queue for queue in range(queues) if not entries[queue]]
        told = f"{len(entries)} of {queues} queues in {len(one.rss.indirection)} entries"
        even = [at % max(queues, 1) for at in range(len(one.rss.indirection))]
        step = Step(f"rss:{link.name}", _words(one.rss.indirection), _words(even))
        if missing:
            yield warn(
                f"{told}; nothing goes to queue {format_list(missing)}", device(link), steps=[step]
            )
        elif max(entries.values()) > 1.5 * min(entries.values()):
            yield warn(f"{told}, unevenly", device(link), steps=[step])
        else:
            yield ok(told, device(link))


def _words(table: Sequence[int]) -> str:
    return " ".join(map(str, table))


@check(
    "rps-single-queue",
    Layer.SOFTNET,
    16,
    _DEVICE,
    why="All packets of this device are worked on by one CPU while others idle. Receive Packet "
    "Steering spreads them in software.",
    source=_SOURCE + ", RPS",
    nothing="every device here has a queue for each CPU, or none",
)
def rps_single_queue(context: Context) -> Outcomes:
    """A device with fewer queues than CPUs, no RPS, and one CPU that does most of the receiving.

    It is a warning where one CPU had over 80 % of NET_RX's runs in the window and spent over a
    fifth of its time in softirqs: then others can help. Spreading costs an interrupt from CPU to
    CPU for each batch, so an idle device is better without.
    """
    cpus = known(context.now.cpus)
    runs = context.rates.softirqs.get("NET_RX", {})
    total = sum(runs.values())
    for link in context.links:
        queues = receive_queues(context, link)
        if not queues or len(queues) >= len(cpus.numbers):
            continue
        if any(queue.rps_cpus for queue in queues):
            yield ok("RPS is on", device(link))
            continue
        packets = context.rates.links.get(link.name, {}).get("rx_packets", 0)
        busiest = max(runs, key=lambda cpu: runs[cpu], default=None)
        if busiest is None or packets < ENOUGH_PACKETS or total == 0:
            yield ok("too few packets in the window for one CPU to be the limit", device(link))
            continue
        share = runs[busiest] / total
        shares = context.rates.cpu_shares.get(busiest)
        softirq = shares.softirq if shares else 0.0
        told = f"CPU {busiest} had {share:.0%} of NET_RX and spent {softirq:.0%} of its time there"
        if share > 0.8 and softirq > 0.2:
            others = [cpu for cpu in cpus.numbers if cpu != busiest]
            yield warn(
                f"{len(queues)} queue(s) for {len(cpus.numbers)} CPUs; {told}",
                device(link),
                steps=rps_steps(queues, others),
                risk="an interrupt between CPUs for each batch: latency of a lone packet rises",
            )
        else:
            yield ok(told, device(link))


def rps_steps(queues: Sequence[ReceiveQueue], cpus: Sequence[int]) -> list[Step]:
    """The steps that let RPS spread some queues over some CPUs; none turns it off."""
    return [
        file_step(
            f"/sys/class/net/{one.interface}/queues/rx-{one.queue}/rps_cpus",
            one.rps_cpus if isinstance(one.rps_cpus, NotAvailable) else format_mask(one.rps_cpus),
            format_mask(cpus),
        )
        for one in queues
    ]


@check(
    "rps-one-cpu",
    Layer.SOFTNET,
    16,
    _DEVICE,
    why="Every packet takes the way over another CPU and still only one does the work: the cost "
    "of steering without its gain.",
    source=_SOURCE + ", RPS Configuration",
    nothing="RPS is off",
)
def rps_one_cpu(context: Context) -> Outcomes:
    """RPS whose queues all go to one and the same CPU, on a machine that has more."""
    cpus = known(context.now.cpus)
    for link in context.links:
        queues = receive_queues(context, link)
        masks = {one.rps_cpus for one in queues if one.rps_cpus}
        if not masks:
            continue
        together = {cpu for mask in masks for cpu in mask or ()}
        if len(together) == 1 and len(cpus.numbers) > 1:
            (only,) = together
            yield warn(
                f"RPS of {len(queues)} queue(s) goes to CPU {only} alone",
                device(link),
                steps=rps_steps(queues, [cpu for cpu in cpus.numbers if cpu not in cpus.isolated]),
                risk="packets of one flow stay together; the order of different flows changes",
            )
        else:
            yield ok(f"RPS goes to CPU {format_list(together)}", device(link))


@check(
    "rps-redundant",
    Layer.SOFTNET,
    16,
    _DEVICE,
    why="The card already gives each CPU its own queue; steering again in software only adds an "
    "interrupt between CPUs to each batch.",
    source=_SOURCE + ", RPS: 'Suggested Configuration'",
    nothing="RPS is off",
)
def rps_redundant(context: Context) -> Outcomes:
    """RPS on a device that has as many receive queues as the machine has CPUs."""
    cpus = known(context.now.cpus)
    for link in context.links:
        queues = receive_queues(context, link)
        using = [one for one in queues if one.rps_cpus]
        if not using:
            continue
        if len(queues) >= len(cpus.numbers) > 1:
            yield warn(
                f"{len(queues)} receive queues for {len(cpus.numbers)} CPUs, and RPS on "
                f"{len(using)} of them",
                device(link),
                steps=rps_steps(using, []),
                risk="none if RSS spreads the flows",
            )
        else:
            yield ok(f"{len(queues)} queues for {len(cpus.numbers)} CPUs", device(link))


@check(
    "rfs",
    Layer.SOFTNET,
    17,
    _DEVICE,
    why="Receive Flow Steering takes a packet to the CPU whose program waits for it. Half "
    "configured it does nothing.",
    source=_SOURCE + ", RFS",
    nothing="neither RPS nor RFS is on",
)
def rfs(context: Context) -> Outcomes:
    """RFS that has one half of its settings.

    It needs net.core.rps_sock_flow_entries and rps_flow_cnt of each queue, whose sum is the former.
    RPS without RFS is information.
    """
    try:
        entries: int | None = context.number("net.core.rps_sock_flow_entries")
    except Unavailable:
        entries = None
    for link in context.links:
        queues = receive_queues(context, link)
        counts = [one.rps_flow_count or 0 for one in queues]
        spread = any(one.rps_cpus for one in queues)
        each = RFS_ENTRIES // max(len(queues), 1)
        steps = [
            file_step(
                f"/sys/class/net/{one.interface}/queues/rx-{one.queue}/rps_flow_cnt",
                one.rps_flow_count,
                each,
            )
            for one in queues
        ]
        if entries is None:
            if any(counts):
                yield info(
                    "rps_flow_cnt is set; whether net.core.rps_sock_flow_entries is as well only "
                    "the machine's own network namespace shows",
                    device(link),
                )
            continue
        whole = context.set("net.core.rps_sock_flow_entries", RFS_ENTRIES)
        if any(counts) and not entries:
            yield warn(
                f"rps_flow_cnt of {link.name} is set, net.core.rps_sock_flow_entries is 0",
                device(link),
                steps=[whole],
            )
        elif entries and spread and not any(counts):
            yield warn(
                f"net.core.rps_sock_flow_entries is {entries}, rps_flow_cnt of {link.name} is 0",
                device(link),
                steps=steps,
            )
        elif spread and not entries:
            yield info(
                "RPS is on and RFS is off", device(link), steps=[whole, *steps], risk="little"
            )
        elif any(counts):
            yield ok(f"{entries} entries, {sum(counts)} of them here", device(link))


@check(
    "arfs",
    Layer.RING,
    18,
    _DEVICE,
    why="The card could steer each flow to its program's CPU by itself and spare the way over "
    "another CPU.",
    source=_SOURCE + ", Accelerated RFS",
    nothing="no driver here has ntuple filters",
)
def arfs(context: Context) -> Outcomes:
    """RFS in software on a device that could do it in hardware (ntuple filters), and has it off."""
    for link in context.links:
        one = context.devices.get(link.name)
        if one is None or not one.can_switch("ntuple"):
            continue
        queues = receive_queues(context, link)
        steered = any(queue.rps_flow_count for queue in queues)
        on = bool(one.feature("ntuple"))
        if steered and not on:
            yield warn(
                "RFS is on, ntuple is off",
                device(link),
                steps=offload_steps(link, one, "ntuple", True),
            )
        else:
            yield ok(f"ntuple is {'on' if on else 'off'}", device(link))


@check(
    "xps",
    Layer.TRANSMIT,
    19,
    _DEVICE,
    why="Without a map of CPUs to transmit queues, CPUs contend for the same queue's lock and "
    "its completions come back to another CPU.",
    source=_SOURCE + ", XPS",
    nothing="no device here has several transmit queues of hardware",
)
def xps(context: Context) -> Outcomes:
    """A device with several transmit queues, as many as CPUs or more, and no map for them."""
    cpus = known(context.now.cpus)
    for link in context.links:
        queues = [one for one in known(context.now.transmit_queues) if one.interface == link.name]
        if len(queues) < 2 or link.kind:
            continue  # a virtual device has no completions that a CPU could be far from
        masks = [one.xps_cpus for one in queues if not isinstance(one.xps_cpus, NotAvailable)]
        if not masks:
            continue
        if not any(masks):
            steps = [
                file_step(
                    f"/sys/class/net/{one.interface}/queues/tx-{one.queue}/xps_cpus",
                    "0",
                    format_mask(cpus.numbers[at :: len(queues)]),
                )
                for at, one in enumerate(queues)
            ]
            yield info(
                f"{len(queues)} transmit queues and no CPU has its own", device(link), steps=steps
            )
        else:
            yield ok(f"{sum(map(bool, masks))} of {len(queues)} queues have CPUs", device(link))


@check(
    "softirq-balance",
    Layer.SOFTNET,
    43,
    Scope("host"),
    why="One CPU does nearly all of the machine's receiving. It will be full long before the "
    "machine is.",
    source="Documentation/filesystems/proc.rst, /proc/softirqs",
    nothing="there is one CPU",
)
def softirq_balance(context: Context) -> Outcomes:
    """Time in softirqs of each CPU: one that is over half full of it while others are idle."""
    shares = {cpu: time.softirq for cpu, time in context.rates.cpu_shares.items()}
    if len(shares) < 2:
        return
    busiest = max(shares, key=lambda cpu: shares[cpu])
    rest = [share for cpu, share in shares.items() if cpu != busiest]
    mean = sum(rest) / len(rest)
    told = f"CPU {busiest} spends {shares[busiest]:.0%} in softirqs, the others {mean:.0%}"
    if shares[busiest] > 0.5 and mean < shares[busiest] / 4:
        yield bad(
            told,
            advice="spread the queues' interrupts (irq-one-cpu), use more queues (channels), or "
            "RPS (rps-single-queue)",
            command="millrace tune IFACE --goal throughput --plan",
        )
    else:
        yield ok(told)
