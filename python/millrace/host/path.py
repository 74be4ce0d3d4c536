"""The picture of the path as data: NIC, queues, interrupts, cores, softirqs, sockets, processes.

Columns of boxes, and lines between boxes. `picture_text` and `picture_svg` draw it; nothing here
knows how. Which core serves which connection the kernel does not tell from outside, so there are
lines from softirqs to sockets only where one core receives everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from millrace.host.checks.interrupts import targets_of
from millrace.host.checks.steering import packets_by_queue, receive_queues
from millrace.host.checks.table import Context
from millrace.host.cpuset import format_list
from millrace.host.finding import Finding, Verdict
from millrace.host.irq import Irq
from millrace.host.links import Link
from millrace.host.processes import owners
from millrace.host.sockets import Socket
from millrace.host.unavailable import NotAvailable, Unavailable

COLUMNS = ("nic", "queue", "irq", "core", "softirq", "socket", "process")
TITLES = ("NIC", "queues", "IRQ", "core", "softirq", "socket", "process")

#: More boxes than this in a column are told as a number.
MAX_BOXES = 16

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Box:
    """One thing on the path."""

    #: Unique in the picture.
    id: str
    column: str
    label: str
    #: Further lines: settings, and figures of the window.
    details: tuple[str, ...] = ()
    #: BAD or WARN where a finding is about it.
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """From one box to another, further along."""

    source: str
    target: str
    #: Its share of what leaves the source, 0 to 1; None where nobody counts it.
    share: float | None = None
    #: "RPS", or "" for the ordinary way.
    label: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """Boxes by column, and the lines between them."""

    title: str
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    #: Boxes that were left out, by column.
    left_out: Mapping[str, int] = field(default_factory=dict)

    def column(self, name: str) -> list[Box]:
        """The boxes of one column, from the top."""
        return [box for box in self.boxes if box.column == name]


def picture(context: Context, findings: Iterable[Finding] = ()) -> Picture:
    """The path of what is received; findings colour the boxes they are about."""
    return _Builder(context, findings).build()


class _Builder:
    def __init__(self, context: Context, findings: Iterable[Finding]) -> None:
        self._context = context
        self._boxes: dict[str, Box] = {}
        self._lines: list[Line] = []
        self._left_out: Counter[str] = Counter()
        self._worst: dict[str, Verdict] = {}
        for finding in findings:
            key = str(finding.scope)
            if finding.verdict is Verdict.BAD or (
                finding.verdict is Verdict.WARN and key not in self._worst
            ):
                self._worst[key] = finding.verdict

    def build(self) -> Picture:
        try:
            for link in self._some("nic", self._context.links):
                self._device(link)
        except Unavailable:
            self._left_out["nic"] += 1
        self._cores()
        self._sockets()
        origin = self._context.now.origin
        where = "" if origin.initial_namespace else " (one network namespace of it)"
        boxes = sorted(self._boxes.values(), key=lambda box: COLUMNS.index(box.column))
        return Picture(
            f"{origin.host}{where}, Linux {origin.kernel}",
            tuple(boxes),
            tuple(self._lines),
            dict(self._left_out),
        )

    def _some(self, column: str, things: Iterable[T]) -> list[T]:
        every = list(things)
        room = MAX_BOXES - sum(box.column == column for box in self._boxes.values())
        shown = every[: max(0, room)]
        self._left_out[column] += len(every) - len(shown)
        if not self._left_out[column]:
            del self._left_out[column]
        return shown

    def _add(self, box: Box) -> str:
        self._boxes.setdefault(box.id, box)
        return box.id

    def _device(self, link: Link) -> None:
        context = self._context
        details = [link.kind or "device", f"MTU {link.mtu}"]
        one = context.devices.get(link.name) if _there(context.now.devices) else None
        if one is not None and not isinstance(one.driver, NotAvailable):
            details[0] = one.driver.name
        if one is not None and isinstance(one.speed, int):
            details.append(f"{one.speed / 1000:g} Gbit/s")
        counted = self._rates_of(link)
        if counted:
            details.append(f"{_rate(context, counted.get('rx_packets', 0))} pkt/s in")
            if lost := counted.get("rx_dropped", 0) + counted.get("rx_missed_errors", 0):
                details.append(f"{lost:,} lost")
        nic = self._add(
            Box(
                f"nic {link.name}",
                "nic",
                link.name,
                tuple(details),
                self._worst.get(f"device {link.name}"),
            )
        )
        irqs = [irq for irq in context.now.irqs or () if link.name in irq.interfaces]
        self._queues(link, nic, irqs)

    def _rates_of(self, link: Link) -> Mapping[str, int]:
        try:
            return self._context.rates.links.get(link.name, {})
        except Unavailable:
            return {}

    def _queues(self, link: Link, nic: str, irqs: list[Irq]) -> None:
        context = self._context
        try:
            packets = packets_by_queue(context, link)
        except Unavailable:
            packets = {}
        try:
            steering = {one.queue: one.rps_cpus or () for one in receive_queues(context, link)}
        except Unavailable:
            steering = {}
        count = len(steering) or link.rx_queues
        total = sum(packets.values())
        by_queue = self._irq_of_queue(link)
        by_number = {irq.number: irq for irq in irqs}
        for queue in self._some("queue", range(min(count, 4096))):
            details = []
            if queue in packets:
                details.append(f"{_rate(context, packets[queue])} pkt/s")
            here = self._add(
                Box(
                    f"queue {link.name} {queue}",
                    "queue",
                    f"rx-{queue}",
                    tuple(details),
                    self._worst.get(f"queue {link.name} rx-{queue}"),
                )
            )
            share = packets[queue] / total if total and queue in packets else None
            self._lines.append(Line(nic, here, share))
            irq = by_number.get(by_queue.get(queue, 0))
            if irq is not None:
                self._lines.append(Line(here, self._irq(irq)))
            for cpu in steering.get(queue, ())[:MAX_BOXES]:
                self._lines.append(Line(here, self._core(cpu), None, "RPS"))
        # Interrupts that the driver joins to no queue hang on the device itself.
        joined = set(by_queue.values())
        for irq in self._some("irq", [one for one in irqs if one.number not in joined]):
            if irq.total or len(irqs) < 4:
                self._lines.append(Line(nic, self._irq(irq)))

    def _irq_of_queue(self, link: Link) -> dict[int, int]:
        napis = {napi.id: napi for napi in self._context.now.napis or ()}
        found = {}
        for one in self._context.now.queue_counters or ():
            napi = napis.get(one.napi)
            if one.index == link.index and one.way == "rx" and napi is not None and napi.irq:
                found[one.queue] = napi.irq
        return found

    def _irq(self, irq: Irq) -> str:
        name = f"irq {irq.number}"
        if name in self._boxes:
            return name
        counts: Mapping[int, int] = {}
        if self._context.window is not None and _there(self._context.window.before.irqs):
            counts = self._context.rates.irqs.get(irq.number, {})
        total = sum(counts.values())
        details = [irq.label] if irq.label else []
        if self._context.window is not None:
            details.append(f"{_rate(self._context, total)}/s")
        self._add(Box(name, "irq", f"IRQ {irq.number}", tuple(details)))
        if total:
            for cpu, count in counts.items():
                if count:
                    self._lines.append(Line(name, self._core(cpu), count / total))
        else:
            for cpu in targets_of(irq)[:1]:
                self._lines.append(Line(name, self._core(cpu)))
        return name

    def _core(self, cpu: int) -> str:
        return self._add(Box(f"core {cpu}", "core", f"CPU {cpu}"))

    def _cores(self) -> None:
        """Cores that receive, with what they spent their time on, and their softirqs."""
        context = self._context
        window = context.window
        times = window.cpu_shares if window and _there(window.before.cpu_times) else {}
        runs: Mapping[int, int] = {}
        if window and _there(window.before.softirqs):
            runs = window.softirqs.get("NET_RX", {})
        rows = window.softnet if window and _there(window.before.softnet) else {}
        known_cores = {int(name.split()[1]) for name in self._boxes if name.startswith("core ")}
        busy = sorted(
            (cpu for cpu in runs if cpu not in known_cores and runs[cpu]),
            key=lambda cpu: -runs[cpu],
        )
        for cpu in self._some("core", busy):
            self._core(cpu)
        for name in [name for name in self._boxes if name.startswith("core ")]:
            cpu = int(name.split()[1])
            share = times.get(cpu)
            if share is not None:
                details = (f"{share.busy:.0%} busy", f"{share.softirq:.0%} softirq")
                self._boxes[name] = Box(name, "core", f"CPU {cpu}", details)
            if cpu not in runs:
                continue
            told = [f"{_rate(context, runs[cpu])} runs/s"]
            row = rows.get(cpu)
            verdict = None
            if row is not None:
                told.append(f"{_rate(context, row.processed)} pkt/s")
                if row.squeezed:
                    told.append(f"{row.squeezed} squeezed")
                if row.dropped:
                    told.append(f"{row.dropped:,} dropped")
                    verdict = Verdict.BAD
            softirq = f"softirq {cpu}"
            self._add(Box(softirq, "softirq", "NET_RX", tuple(told), verdict))
            self._lines.append(Line(name, softirq))

    def _sockets(self) -> None:
        context = self._context
        processes = owners(context.now.processes or ())
        drops: dict[int, int] = {}
        moved: dict[int, int] = {}
        window = context.window
        if window is not None and _there(window.before.sockets) and _there(window.after.sockets):
            for change in window.sockets:
                drops[change.socket.cookie] = change.drops
                moved[change.socket.cookie] = change.info.get("bytes_received", 0)

        def weight(one: Socket) -> tuple[int, int, bool]:
            return drops.get(one.cookie, 0), moved.get(one.cookie, 0), one.state == "listen"

        receiving = [name for name in self._boxes if name.startswith("softirq ")]
        ordered = sorted(context.now.sockets or (), key=weight, reverse=True)
        for one in self._some("socket", ordered):
            details = [one.state] if one.state else []
            if one.receive_queue:
                details.append(f"{one.receive_queue:,} queued")
            if lost := drops.get(one.cookie, 0):
                details.append(f"{lost:,} dropped")
            name = self._add(
                Box(
                    f"socket {one.cookie} {one.inode}",
                    "socket",
                    one.name,
                    tuple(details),
                    self._worst.get(f"socket {one.name}"),
                )
            )
            if len(receiving) == 1:
                self._lines.append(Line(receiving[0], name))
            process = processes.get(one.inode)
            if process is None:
                continue
            allowed = sorted({cpu for thread in process.threads for cpu in thread.allowed})
            used = 0.0
            if window is not None:
                used = sum(window.thread_shares.get(one.tid, 0.0) for one in process.threads)
            target = self._add(
                Box(
                    f"process {process.pid}",
                    "process",
                    f"{process.name}[{process.pid}]",
                    (
                        f"{len(process.threads)} thread(s), {used:.0%} of a CPU",
                        f"may use CPU {format_list(allowed)}",
                    ),
                )
            )
            self._lines.append(Line(name, target))


def _there(reading: object) -> bool:
    return not isinstance(reading, NotAvailable)


def _rate(context: Context, count: int) -> str:
    if context.window is None:
        return "-"
    return f"{context.per_second(count):,.0f}"
