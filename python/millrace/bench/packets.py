"""Raw packets on veth: receive and drop, transmit, forward at layer 2, beside DPDK and Scapy.

Every tool runs on the same core, on wires of the same kind, one process each, and they take turns.
What is offered is what its sender counted, what is delivered is what the receiver counted, and the
drop counters in between must make up the rest, to the packet. The sender is always ours, on AF_XDP.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from millrace.bench import (
    core_time,
    packet_capture,
    packet_memory,
    packet_modes,
    packet_targets,
    testpmd,
)
from millrace.bench.packet_sites import (
    Counters,
    Site,
    Worker,
    cores,
    counters,
    lay_out,
    ports,
)
from millrace.cli.report import Row
from millrace.lab import Lab

WORKS = ("rxdrop", "txpush", "l2fwd")
KINDS = ("af_xdp", "af_packet")
SIZES = (64, 256, 1024, 1514)
BATCHES = (1, 8, 32, 64)
TOOLS = ("millrace", "testpmd", "scapy")
#: What is measured besides.
MORE = ("memory", "modes", "capture")
#: After a start, before a rate is looked at.
_WARM_UP = 0.1
#: Scapy is measured at one size: its packets cost what they cost.
_SCAPY_SIZE = 64


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    works: Sequence[str] = WORKS
    kinds: Sequence[str] = KINDS
    sizes: Sequence[int] = SIZES
    batches: Sequence[int] = BATCHES
    tools: Sequence[str] = TOOLS
    more: Sequence[str] = MORE
    capture_sizes: Sequence[int] = packet_capture.SIZES
    seconds: float = 1.0
    rounds: int = 3

    def __post_init__(self) -> None:
        for given, known, what in (
            (self.works, WORKS, "work"),
            (self.kinds, KINDS, "port"),
            (self.tools, TOOLS, "tool"),
            (self.more, MORE, "part"),
        ):
            for name in given:
                if name not in known:
                    raise ValueError(f"no {what} {name!r}; there is {', '.join(known)}")
        for size in self.sizes:
            if not 60 <= size <= 1514:
                raise ValueError(f"a frame on these wires has 60 to 1514 bytes, not {size}")
        for batch in self.batches:
            if not 1 <= batch <= 64:
                raise ValueError(f"a batch is 1 to 64 packets, not {batch}")

    def cells(self) -> list[tuple[str, str, int, int]]:
        """Work, port, size and batch of each cell."""
        return list(itertools.product(self.works, self.kinds, self.sizes, self.batches))


#: For two minutes: one size, the smallest and the largest batch, once each.
QUICK = Plan(sizes=(64,), batches=(1, 64), capture_sizes=(64,), seconds=0.6, rounds=2)


@dataclass
class Outcome:
    """The rows, what became of the targets, and what is to be said."""

    rows: list[Row] = field(default_factory=list)
    compared: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """What one run showed."""

    seconds: float
    offered: int
    delivered: int
    #: By the place.
    drops: dict[str, int]
    cpu_cores: float
    #: Packets a second, where it is not `delivered` over `seconds`.
    rate: float | None = None

    @property
    def lost(self) -> int:
        return self.offered - self.delivered

    @property
    def unaccounted(self) -> int:
        """Packets that no counter knows: 0."""
        return self.lost - sum(self.drops.values())

    @property
    def packets_per_s(self) -> float:
        return self.delivered / self.seconds if self.rate is None else self.rate


def measure(plan: Plan, begin: Callable[[str], None] = lambda _: None) -> Outcome:
    """Measure it all. `begin` is told of each step."""
    outcome = Outcome()
    tools = _tools(plan, outcome)
    with Lab() as lab:
        for work, kind in itertools.product(plan.works, plan.kinds):
            _measure_work(lab, plan, work, kind, tools, outcome, begin)
        if "modes" in plan.more:
            begin("modes")
            outcome.rows += packet_modes.measure(lab, plan.kinds, plan.seconds)
        if "capture" in plan.more:
            tools = [name for name in packet_capture.TOOLS if name == "millrace"]
            if (why := packet_capture.missing()) is None:
                tools = list(packet_capture.TOOLS)
            else:
                outcome.notes.append(f"without tcpdump: {why}")
            outcome.rows += packet_capture.measure(
                lab, plan.seconds, plan.rounds, sizes=plan.capture_sizes, tools=tools, begin=begin
            )
    if "memory" in plan.more:
        begin("memory")
        outcome.rows += packet_memory.measure(plan.seconds, plan.rounds)
    outcome.compared = packet_targets.compare(outcome.rows)
    wrong = [row for row in outcome.rows if row.get("unaccounted")]
    outcome.notes.append(
        "Offered and delivered add up to the frame in every run."
        if not wrong
        else "NOT adding up: " + "; ".join(_name(row) for row in wrong)
    )
    under_test, sender = cores()
    outcome.notes.append(
        f"Runs of one cell lie {packet_targets.spread(outcome.rows):.0%} apart (median of the "
        "cells): less is no difference."
    )
    outcome.notes.append(
        f"Medians of {plan.rounds} runs of {plan.seconds:g} s, the tools in turn, on core "
        f"{under_test}; the sender of rxdrop and l2fwd is ours, on AF_XDP, on core {sender}. On "
        "veth the core that sends pays for the kernel's half of receiving."
    )
    return outcome


def steps(plan: Plan) -> int:
    """How many steps `measure` tells of."""
    captures = len(plan.capture_sizes) * len(packet_capture.RATES)
    return len(plan.cells()) + sum(captures if part == "capture" else 1 for part in plan.more)


def _name(row: Row) -> str:
    names = ("work", "tool", "port", "frame_bytes", "batch", "unaccounted")
    return " ".join(str(row[name]) for name in names)


def _tools(plan: Plan, outcome: Outcome) -> list[str]:
    """Those that can run here; of the others it is said why not."""
    found = []
    for tool in plan.tools:
        why = None
        if tool == "testpmd":
            why = testpmd.missing()
        elif tool == "scapy":
            try:
                import scapy  # noqa: F401
            except ImportError:
                why = "Scapy is not installed (pip install scapy)"
        if why is None:
            found.append(tool)
        else:
            outcome.notes.append(f"without {tool}: {why}")
    return found


def _measure_work(
    lab: Lab,
    plan: Plan,
    work: str,
    kind: str,
    tools: Sequence[str],
    outcome: Outcome,
    begin: Callable[[str], None],
) -> None:
    under_test, other = cores()
    with contextlib.ExitStack() as stack:
        arms: dict[str, Callable[[int, int], Run]] = {}
        if "millrace" in tools:
            site = lay_out(lab, work)
            arms["millrace"] = _ours(site, kind, plan.seconds)
        if "testpmd" in tools:
            site = lay_out(lab, work)
            names = [end.name for end in site.tested]
            try:
                peer = stack.enter_context(
                    testpmd.Testpmd(site.host, names, kind, work, core=under_test, other=other)
                )
            except RuntimeError as error:
                outcome.notes.append(f"without testpmd for {work} on {kind}: {error}")
            else:
                arms["testpmd"] = _testpmd(peer, site, kind, plan.seconds)
        if "scapy" in tools and work != "l2fwd" and kind == "af_packet":
            site = lay_out(lab, work)
            scapy = _scapy(site, plan.seconds)
        else:
            scapy = None
        for size, batch in itertools.product(plan.sizes, plan.batches):
            begin(f"{work} {kind} {size} bytes, batches of {batch}")
            here = dict(arms)
            if scapy is not None and (size, batch) == (_SCAPY_SIZE, plan.batches[-1]):
                here["scapy"] = scapy
            runs: dict[str, list[Run]] = {name: [] for name in here}
            for round_number in range(plan.rounds):
                # Whoever comes first is another one each time.
                order = list(here.items())
                for name, run in order if round_number % 2 == 0 else reversed(order):
                    runs[name].append(run(size, batch))
            for name, found in runs.items():
                outcome.rows.append(
                    row(work, name, kind, size, 1 if name == "scapy" else batch, found)
                )


def row(work: str, tool: str, port: str, size: int, batch: int, runs: Sequence[Run]) -> Row:
    """One row of several runs: the median of rates, all packets of the others."""
    rate = median(run.packets_per_s for run in runs)
    drops: dict[str, int] = {}
    for name, count in itertools.chain.from_iterable(run.drops.items() for run in runs):
        drops[name] = drops.get(name, 0) + count
    return {
        "work": work,
        "tool": tool,
        "port": port,
        "frame_bytes": size,
        "batch": batch,
        "mpps": rate / 1e6,
        "gbit_per_s": rate * size * 8 / 1e9,
        "lost": sum(run.lost for run in runs),
        "cpu_cores": median(run.cpu_cores for run in runs),
        "offered": sum(run.offered for run in runs),
        "delivered": sum(run.delivered for run in runs),
        "dropped_at": ", ".join(f"{name}: {count}" for name, count in drops.items() if count),
        "unaccounted": sum(run.unaccounted for run in runs),
        "mpps_min": min(run.packets_per_s for run in runs) / 1e6,
        "mpps_max": max(run.packets_per_s for run in runs) / 1e6,
        "rounds": len(runs),
    }


@contextlib.contextmanager
def _sender(site: Site, size: int, seconds: float) -> Iterator[Worker]:
    _, core = cores()
    names = ports("af_xdp", [site.source])
    with Worker(
        site.source.host,
        core,
        work="txpush",
        ports=names,
        frame_bytes=size,
        batch=64,
        seconds=seconds,
    ) as worker:
        yield worker


def _dropped(told: dict[str, Any], begins: str = "") -> int:
    drops: dict[str, int] = told["drops"]
    return sum(count for name, count in drops.items() if name.startswith(begins))


def _ours(site: Site, kind: str, seconds: float) -> Callable[[int, int], Run]:
    core, _ = cores()

    def worker(size: int, batch: int, **more: Any) -> Worker:
        names = ports(kind, site.tested)
        config: dict[str, Any] = {
            "work": site.work,
            "ports": names,
            "frame_bytes": size,
            "batch": batch,
        }
        return Worker(site.host, core, **config, **more)

    def transmit(size: int, batch: int) -> Run:
        assert site.sink is not None
        with worker(size, batch, seconds=seconds) as sender:
            before = counters(site.source), counters(site.sink)
            sender.go()
            told = sender.result()
            source, sink = counters(site.source) - before[0], counters(site.sink) - before[1]
        (port,) = told["ports"]
        drops = {"veth": source.tx_dropped}
        length = told["loop_seconds"]
        return Run(length, port["tx_packets"], sink.rx_packets, drops, told["cpu_cores"])

    def receive_or_forward(size: int, batch: int) -> Run:
        with worker(size, batch) as tested, _sender(site, size, seconds) as sender:
            before = _count(site)
            tested.go()
            sender.go()
            sent = sender.result()
            told = tested.end()
            after = _count(site)
        came, *rest = told["ports"]
        drops = _on_the_wire(before, after)
        drops["receiver"] = _dropped(came, "rx_")
        delivered = came["rx_packets"]
        if rest:
            drops["transmitter"] = _dropped(rest[0], "tx_")
            delivered = (after[1] - before[1]).rx_packets
        offered = sent["ports"][0]["tx_packets"]
        return Run(sent["loop_seconds"], offered, delivered, drops, told["cpu_cores"])

    return transmit if site.work == "txpush" else receive_or_forward


def _count(site: Site) -> list[Counters]:
    """What Linux has counted where packets leave by, where they arrive, and at the tool."""
    sink = site.tested[0] if site.sink is None else site.sink
    return [counters(end) for end in (site.source, sink, *site.tested[1:], site.tested[0])]


def _on_the_wire(before: Sequence[Counters], after: Sequence[Counters]) -> dict[str, int]:
    """What veth dropped: it says so at the end that sent."""
    ends = {0, *range(2, len(after) - 1)}
    return {"veth": sum((after[end] - before[end]).tx_dropped for end in ends)}


def _testpmd(
    peer: testpmd.Testpmd, site: Site, kind: str, seconds: float
) -> Callable[[int, int], Run]:
    def transmit(size: int, batch: int) -> Run:
        assert site.sink is not None
        peer.set(size, batch, sends=True)
        before = counters(site.source), counters(site.sink)
        used, begun = core_time.process_seconds(peer.pid), time.monotonic()
        peer.start()
        time.sleep(_WARM_UP)
        first, from_then = counters(site.sink), time.monotonic()
        time.sleep(seconds)
        last, to_then = counters(site.sink), time.monotonic()
        spent, elapsed = core_time.process_seconds(peer.pid), time.monotonic() - begun
        (port,) = peer.stop(1)
        source, sink = counters(site.source) - before[0], counters(site.sink) - before[1]
        rate = (last - first).rx_packets / (to_then - from_then)
        drops = {"veth": source.tx_dropped}
        cpu = _cores(used, spent, elapsed)
        return Run(elapsed, port.sent, sink.rx_packets, drops, cpu, rate)

    def receive_or_forward(size: int, batch: int) -> Run:
        with _sender(site, size, seconds) as sender:
            peer.set(size, batch, sends=False)
            before = _count(site)
            used, begun = core_time.process_seconds(peer.pid), time.monotonic()
            peer.start()
            sender.go()
            sent = sender.result()
            spent, elapsed = core_time.process_seconds(peer.pid), time.monotonic() - begun
            # It has what is in its rings by then.
            time.sleep(_WARM_UP)
            came, *rest = peer.stop(len(site.tested))
            after = _count(site)
        drops = _on_the_wire(before, after)
        drops["receiver"] = came.missed
        if kind == "af_packet":
            # DPDK's driver does not ask its socket what it dropped. All that Linux received on the
            # interface passed by there.
            passed = (after[-1] - before[-1]).rx_packets
            drops["receiver, by the interface's count"] = passed - came.received - came.missed
        delivered = came.received
        if rest:
            drops["transmitter"] = came.received - rest[0].sent
            delivered = (after[1] - before[1]).rx_packets
        offered = sent["ports"][0]["tx_packets"]
        cpu = _cores(used, spent, elapsed)
        return Run(sent["loop_seconds"], offered, delivered, drops, cpu)

    return transmit if site.work == "txpush" else receive_or_forward


def _cores(before: float | None, after: float | None, elapsed: float) -> float:
    return 0.0 if before is None or after is None else (after - before) / elapsed


def _scapy(site: Site, seconds: float) -> Callable[[int, int], Run]:
    core, _ = cores()

    def transmit(size: int, batch: int) -> Run:
        del batch
        assert site.sink is not None
        config: dict[str, Any] = {
            "work": "sendp",
            "interface": site.source.name,
            "frame_bytes": size,
        }
        with Worker(site.host, core, "scapy_worker", **config, seconds=seconds) as sender:
            before = counters(site.source), counters(site.sink)
            sender.go()
            told = sender.result()
            source, sink = counters(site.source) - before[0], counters(site.sink) - before[1]
        drops = {"veth": source.tx_dropped}
        return Run(told["seconds"], told["packets"], sink.rx_packets, drops, told["cpu_cores"])

    def receive(size: int, batch: int) -> Run:
        del batch
        config: dict[str, Any] = {
            "work": "sniff",
            "interface": site.tested[0].name,
            "frame_bytes": size,
        }
        with (
            Worker(site.host, core, "scapy_worker", **config, seconds=seconds) as tested,
            _sender(site, size, seconds) as sender,
        ):
            before = _count(site)
            tested.go()
            sender.go()
            sent = sender.result()
            told = tested.result()
            after = _count(site)
        drops = _on_the_wire(before, after)
        drops["receiver"] = told["dropped"]
        drops["left in the socket"] = told["left"]
        offered = sent["ports"][0]["tx_packets"]
        return Run(told["seconds"], offered, told["packets"], drops, told["cpu_cores"])

    return transmit if site.work == "txpush" else receive


#: For the columns of the table; the JSON has all.
COLUMNS: tuple[str, ...] = (
    *("work", "tool", "port", "frame_bytes", "batch"),
    *("mpps", "gbit_per_s", "lost", "cpu_cores"),
)
