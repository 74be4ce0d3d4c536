"""Who drops packets, and why: the kernel's drops and those of Millrace's own stacks and ports.

    with Watch(Selection()) as watch:
        watch.wait(1.0)
        for row in watch.rows():
            print(row.packets, row.reason, row.where, row.why)

The kernel counts (a program at the tracepoint skb:kfree_skb), so every drop is in the figures.
Frames are looked at by samples, a few hundred a second, to name flows; what was not looked at is
told. Needs root for the kernel's part; without it the own drops are shown, and why the others are
not.
"""

from __future__ import annotations

import ipaddress
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from millrace.watch import frame, processes, reasons
from millrace.watch.frame import Frame
from millrace.watch.namespaces import Names
from millrace.watch.page import Page
from millrace.watch.processes import Process
from millrace.watch.reasons import Kind, Meaning
from millrace.watch.symbols import Symbols

if TYPE_CHECKING:
    from millrace._native import DropMonitor

#: Frames that are looked at a second, about.
SAMPLES_PER_SECOND = 200
#: Different flows that are kept of one place.
MOST_FLOWS = 64
_MOST_FRAMES = 4096
#: One frame of so many is kept until it is known how many there are.
_AT_FIRST = 1024
#: How long the program's own time is measured, of each time that is waited.
_MEASURED_SECONDS = 0.02

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Selection:
    """Which drops are meant; nothing given means all that somebody misses."""

    interfaces: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    ports: tuple[int, ...] = ()
    reasons: tuple[str, ...] = ()
    #: Also those that nobody misses.
    benign: bool = False

    @property
    def needs_frames(self) -> bool:
        """Whether only a look at the frame tells if it is meant."""
        return bool(self.networks or self.ports)

    def takes(self, reason: str, kind: Kind, interface: str, namespace: str) -> bool:
        """Whether a place is meant."""
        if self.reasons:
            if reason.upper() not in self.reasons:
                return False
        elif kind == "benign" and not self.benign:
            return False
        full = f"{namespace}/{interface}" if namespace else interface
        return not self.interfaces or interface in self.interfaces or full in self.interfaces

    def takes_frame(self, one: Frame) -> bool:
        """Whether a frame of a place that is meant is meant itself."""
        ports = (one.source_port, one.destination_port)
        if self.ports and not any(port in self.ports for port in ports):
            return False
        if not self.networks:
            return True
        ends = [ipaddress.ip_address(end) for end in (one.source, one.destination) if end]
        return any(end in network for end in ends for network in self.networks)


def selection(
    interfaces: Iterable[str] = (),
    addresses: Iterable[str] = (),
    ports: Iterable[int] = (),
    wanted: Iterable[str] = (),
    *,
    benign: bool = False,
    known: Iterable[str] = (),
) -> Selection:
    """A selection from what people write: addresses may be networks.

    Raises ValueError for what makes no sense, and for a reason that is not among those `known`.
    """
    networks = []
    for text in addresses:
        try:
            networks.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            raise ValueError(f"{text!r} is no address and no network") from None
    for port in ports:
        if not 0 < port < 65536:
            raise ValueError(f"a port is 1 to 65535, not {port}")
    names = tuple(name.upper().removeprefix("SKB_DROP_REASON_") for name in wanted)
    every = {name.upper() for name in known}
    for name in names:
        if every and name not in every and not name.startswith(("DROP_", "RX_", "TX_")):
            close = sorted(other for other in every if name in other)[:8]
            hint = f"; did you mean {', '.join(close)}?" if close else "; --explain lists them"
            raise ValueError(f"this kernel has no drop reason {name}{hint}")
    return Selection(tuple(interfaces), tuple(networks), tuple(ports), names, benign)


@dataclass(frozen=True)
class Row:
    """Drops for one reason at one place."""

    #: "kernel", or the Millrace process.
    source: str
    reason: str
    kind: Kind
    #: The function of the kernel that dropped, or what in the process counted.
    where: str
    interface: str
    #: Of the interface; empty for our own.
    namespace: str
    protocol: str
    #: Since the beginning.
    packets: int
    #: In the last interval.
    per_second: float
    #: The flow that most of the frames looked at belong to.
    example: str
    why: str
    remedy: str


@dataclass(frozen=True)
class Kept:
    """A dropped frame."""

    #: Nanoseconds since 1970.
    time: int
    data: bytes
    original: int
    interface: str
    reason: str
    where: str


@dataclass(frozen=True)
class Cost:
    """What watching cost."""

    #: Nanoseconds that the kernel's program took for a drop, two looks at a clock included; None
    #: if there was no drop while that was measured.
    per_drop: float | None
    #: Share of one core that this process used.
    process: float


_Key = tuple[int, int, int, int, int]


@dataclass
class _Place:
    packets: int = 0
    before: int = 0
    #: Frames that were looked at, and that were meant.
    looked_at: int = 0
    meant: int = 0
    meant_before: int = 0
    flows: Counter[str] = field(default_factory=Counter)
    interface: str = ""
    protocols: Counter[str] = field(default_factory=Counter)


class Watch:
    """Watches from `__enter__` on."""

    def __init__(
        self,
        wanted: Selection,
        *,
        every_frame: bool = False,
        snap: int = 256,
        samples: int = SAMPLES_PER_SECOND,
        keep: Callable[[Kept], None] | None = None,
    ) -> None:
        self._wanted = wanted
        self._every_frame = every_frame or wanted.needs_frames
        self._snap = snap
        self._samples = samples
        self._keep = keep
        self._monitor: DropMonitor | None = None
        #: Why the kernel's drops are not seen; empty if they are.
        self.blind = ""
        self._names: dict[int, str] = {}
        self._symbols = Symbols()
        self._namespaces = Names()
        self._places: dict[_Key, _Place] = {}
        self._own: dict[tuple[int, int, int, str], tuple[int, int]] = {}
        self._own_rows: list[Row] = []
        self._lost: dict[str, int] = {}
        self._seconds = 0.0
        self._last = 0.0
        self._runs = (0, 0)
        self._cpu = 0.0
        self._begun = 0.0
        self._epoch = time.time_ns() - time.monotonic_ns()

    def __enter__(self) -> Self:
        from millrace._native import DropMonitor, drop_reasons

        try:
            ring = 8 << 20 if self._every_frame else 1 << 20
            self._monitor = DropMonitor(snap=self._snap, ring=ring, every_frame=self._every_frame)
            self._names = drop_reasons()
            self._monitor.keep_one_of(1 if self._every_frame else _AT_FIRST)
        except (OSError, ValueError) as error:
            if self._monitor is not None:
                self._monitor.close()
                self._monitor = None
            self.blind = (isinstance(error, OSError) and error.strerror) or str(error)
        self._begun = self._last = time.monotonic()
        self._cpu = time.process_time()
        self._read_own(first=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._monitor is not None:
            self._lost = dict(self._monitor.lost())
            self._monitor.close()
            self._monitor = None

    def wait(self, seconds: float) -> None:
        """Let time pass, and then take what has happened in it."""
        end = time.monotonic() + seconds
        # The frames wait in a ring that must not overflow meanwhile.
        while (left := end - time.monotonic() - _MEASURED_SECONDS) > 0:
            time.sleep(min(left, 0.1 if self._every_frame else 0.5))
            if left > 0.1:
                self._read_frames()
        if self._monitor is not None:
            self._monitor.measure(True)
        time.sleep(max(0.0, end - time.monotonic()))
        if self._monitor is not None:
            self._monitor.measure(False)
        self.look()

    def look(self) -> None:
        """Take what has happened since the last look, without waiting."""
        now = time.monotonic()
        self._seconds = max(1e-6, now - self._last)
        self._last = now
        if self._monitor is not None:
            for place in self._places.values():
                place.before, place.meant_before = place.packets, place.meant
            self._read_counts(self._monitor)
            self._read_frames()
            if not self._every_frame:
                happened = sum(place.packets - place.before for place in self._places.values())
                self._monitor.keep_one_of(max(1, int(happened / self._seconds / self._samples)))
            count, nanoseconds, _ = self._monitor.runs()
            self._runs = (count, nanoseconds)
        self._read_own(first=False)

    def _place(self, key: _Key) -> _Place:
        return self._places.setdefault(key, _Place())

    def _read_counts(self, monitor: DropMonitor) -> None:
        for *key, interface, packets in monitor.counts():
            place = self._place((key[0], key[1], key[2], key[3], key[4]))
            place.packets = packets
            if interface:
                place.interface = interface
                self._namespaces.learn(key[3], key[2], interface)
        for (_, _, ifindex, namespace, _), place in self._places.items():
            if not place.interface:
                # A packet in a socket's hands has forgotten its device, but not the number.
                place.interface = self._namespaces.interface(namespace, ifindex)

    def _read_frames(self) -> None:
        if self._monitor is None:
            return
        # Bounded, or a flood that comes faster than this would keep it here for ever.
        for _ in range(4):
            found = self._monitor.frames(_MOST_FRAMES)
            if any(row[1:6] not in self._places for row in found):
                # The interface's name comes with the count.
                self._read_counts(self._monitor)
            # What a sudden flood brought beyond what was asked for tells nothing new.
            for row in found if self._every_frame else found[: 2 * self._samples]:
                self._look(row)
            if len(found) < _MOST_FRAMES:
                return

    def _look(self, row: tuple[int, int, int, int, int, int, bool, int, int, bytes]) -> None:
        moment, location, reason, ifindex, namespace, protocol, ethernet, _, original, data = row
        place = self._place((location, reason, ifindex, namespace, protocol))
        place.looked_at += 1
        one = frame.ethernet(data) if ethernet else frame.network(data, protocol)
        if not self._wanted.takes_frame(one):
            return
        place.meant += 1
        if one.flow and (one.flow in place.flows or len(place.flows) < MOST_FLOWS):
            place.flows[one.flow] += 1
        place.protocols[one.protocol_name] += 1
        if self._keep is None:
            return
        key = (location, reason, ifindex, namespace, protocol)
        if not self._is_meant(key, place):
            return
        if not ethernet:
            # A capture file has one kind of frame.
            data = bytes(12) + protocol.to_bytes(2, "big") + data
            original += 14
        self._keep(
            Kept(
                time=moment + self._epoch,
                data=data,
                original=original,
                interface=self._interface(place, ifindex, namespace),
                reason=self._reason(reason),
                where=self._symbols.name(location),
            )
        )

    def _reason(self, number: int) -> str:
        name = self._names.get(number)
        if name is None:
            # Numbers of a part of the kernel that has reasons of its own.
            name = f"SUBSYSTEM_{number >> 16}_REASON_{number & 0xFFFF}"
        return name

    def rows(self) -> list[Row]:
        """What was dropped so far, the most first."""
        found = [row for key, place in self._places.items() if (row := self._row(key, place))]
        found += self._own_rows
        merged: dict[tuple[str, ...], Row] = {}
        for row in found:
            # Two calls in one function are one place for people.
            key = (row.source, row.reason, row.where, row.interface, row.namespace, row.protocol)
            other = merged.get(key)
            merged[key] = row if other is None else _sum(other, row)
        return sorted(merged.values(), key=lambda row: (-row.packets, row.reason, row.where))

    def _row(self, key: _Key, place: _Place) -> Row | None:
        location, reason, _, namespace, protocol = key
        name = self._reason(reason)
        meaning = reasons.of_kernel(name)
        if not self._is_meant(key, place):
            return None
        packets, before = place.packets, place.before
        if self._wanted.needs_frames:
            packets, before = place.meant, place.meant_before
        if packets == 0:
            return None
        flow = place.flows.most_common(1)
        inner = place.protocols.most_common(1)
        outer = frame.ETHER_NAMES.get(protocol, f"{protocol:#06x}" if protocol else "")
        return Row(
            source="kernel",
            reason=name,
            kind=meaning.kind,
            where=self._symbols.function(location),
            interface=place.interface,
            namespace=self._namespaces.of(namespace),
            protocol=inner[0][0] if inner else outer,
            packets=packets,
            per_second=(packets - before) / self._seconds,
            example=flow[0][0] if flow else "",
            why=meaning.why,
            remedy=meaning.remedy,
        )

    def _read_own(self, *, first: bool) -> None:
        # What a frame says is not known of these.
        if self._wanted.needs_frames:
            return
        now: dict[tuple[int, int, int, str], tuple[int, int]] = {}
        rows = []
        for process, page in processes.find().pages:
            for name, count in own_drops(page):
                key = (process.pid, page.start, page.number, name)
                # One that appeared meanwhile has counted since it was opened.
                base, before = self._own.get(key, (count if first else 0, 0))
                now[key] = (base, count - base)
                row = self._own_row(process, page, name, count - base, before)
                if row is not None:
                    rows.append(row)
        self._own, self._own_rows = now, rows

    def _own_row(
        self, process: Process, page: Page, name: str, packets: int, before: int
    ) -> Row | None:
        meaning: Meaning = reasons.of_own(name)
        interface = page.name.partition(":")[2]
        if packets <= 0 or not self._wanted.takes(name, meaning.kind, interface, ""):
            return None
        return Row(
            source=process.title,
            reason=name,
            kind=meaning.kind,
            where=page.name,
            interface=interface,
            namespace="",
            protocol="",
            packets=packets,
            per_second=(packets - before) / self._seconds,
            example="",
            why=meaning.why,
            remedy=meaning.remedy,
        )

    @property
    def missed(self) -> int:
        """Drops, at places that are meant, whose frames were not looked at."""
        return sum(
            max(0, place.packets - place.looked_at)
            for key, place in self._places.items()
            if self._is_meant(key, place)
        )

    def _is_meant(self, key: _Key, place: _Place) -> bool:
        name = self._reason(key[1])
        kind = reasons.of_kernel(name).kind
        return self._wanted.takes(name, kind, place.interface, self._namespaces.of(key[3]))

    @property
    def lost(self) -> dict[str, int]:
        """What was to be seen and was not: frames without room, drops without a count."""
        return self._lost if self._monitor is None else dict(self._monitor.lost())

    @property
    def benign(self) -> int:
        """The kernel's drops that nobody misses."""
        return sum(
            place.packets
            for key, place in self._places.items()
            if reasons.of_kernel(self._reason(key[1])).kind == "benign"
        )

    def interfaces(self) -> dict[str, tuple[int, int]]:
        """For each interface the frames that were looked at, and those that were not."""
        found: dict[str, tuple[int, int]] = {}
        for (_, _, ifindex, namespace, _), place in self._places.items():
            name = self._interface(place, ifindex, namespace)
            looked_at, missed = found.get(name, (0, 0))
            found[name] = (
                looked_at + place.looked_at,
                missed + max(0, place.packets - place.looked_at),
            )
        return found

    def _interface(self, place: _Place, ifindex: int, namespace: int) -> str:
        name = place.interface or f"interface {ifindex}"
        where = self._namespaces.of(namespace)
        return f"{where}/{name}" if where else name

    @property
    def seconds(self) -> float:
        """How long it has watched."""
        return self._last - self._begun

    def cost(self) -> Cost:
        """What watching has cost so far."""
        count, nanoseconds = self._runs
        wall = max(1e-6, time.monotonic() - self._begun)
        return Cost(
            per_drop=nanoseconds / count if count else None,
            process=(time.process_time() - self._cpu) / wall,
        )


def own_drops(page: Page) -> Iterable[tuple[str, int]]:
    """Names and counts of what a page's stack and port dropped."""
    for value in page.values:
        if value.group == "port_drop" or value.name.startswith("drop_"):
            yield value.name, value.number


def _sum(one: Row, other: Row) -> Row:
    from dataclasses import replace

    return replace(
        one,
        packets=one.packets + other.packets,
        per_second=one.per_second + other.per_second,
        example=one.example or other.example,
    )
