"""What is measured, as families of samples with names by Prometheus's rules.

Names are snake_case in base units, with `_total` on what only grows (the collector adds it), as
https://prometheus.io/docs/practices/naming/ asks. How they are served is another module's business.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from millrace.watch import processes, reasons
from millrace.watch.drops import own_drops
from millrace.watch.page import Page
from millrace.watch.processes import Process

if TYPE_CHECKING:
    from millrace.host.snapshot import Observer, Snapshot
    from millrace.watch.drops import Watch

Labels = tuple[str, ...]


@dataclass
class Family:
    """Samples of one name."""

    #: Without `_total`.
    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: Labels = ()
    samples: list[tuple[Labels, float]] = field(default_factory=list)

    def add(self, labels: Iterable[str], value: float) -> None:
        """Add a sample; the labels' values in the order of their names."""
        self.samples.append((tuple(labels), value))


class Families:
    """Collects families by name."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}

    def counter(self, name: str, text: str, labels: Mapping[str, str], value: float) -> None:
        """What only grows."""
        self._add(name, "counter", text, labels, value)

    def gauge(self, name: str, text: str, labels: Mapping[str, str], value: float) -> None:
        """What is so now."""
        self._add(name, "gauge", text, labels, value)

    def _add(
        self,
        name: str,
        kind: Literal["counter", "gauge"],
        text: str,
        labels: Mapping[str, str],
        value: float,
    ) -> None:
        family = self._families.setdefault(name, Family(name, kind, text, tuple(labels)))
        family.add((labels[label] for label in family.labels), value)

    def __iter__(self) -> Iterator[Family]:
        return iter(self._families.values())


#: What the state of a channel is called, and what it means.
_STATE = {
    "frames_free": ("frames_free", "Frames of the arena that nobody uses"),
    "frames": ("frames", "Frames of the arena"),
    "frame_bytes": ("frame_size_bytes", "Bytes of a frame"),
    "connections": ("connections", "Connections in any state"),
    "connections_most": ("connections_limit", "Connections that there may be"),
    "connections_time_wait": ("connections_time_wait", "Connections in TIME-WAIT"),
    "connections_orphaned": ("connections_orphaned", "Connections whose program has closed them"),
    "link_down": ("link_down", "Whether the interface was found down"),
}


def own(families: Families, pages: Iterable[tuple[Process, Page]]) -> None:
    """Millrace's own channels."""
    now = time.monotonic()
    for process, page in pages:
        # Two channels of one process may be on one port, as on the two ends of a memory wire.
        labels = {
            "process": process.title.rpartition(":")[0],
            "pid": str(process.pid),
            "port": page.name,
            "page": str(page.number),
        }
        families.gauge(
            "millrace_page_age_seconds",
            "Seconds since the channel last had something new to show",
            labels,
            max(0.0, now - page.values_at),
        )
        for name, count in own_drops(page):
            kind = reasons.of_own(name).kind
            drop = {**labels, "reason": name, "kind": kind}
            families.counter("millrace_drops", "Packets dropped, by reason", drop, count)
        for value in page.values:
            if value.group == "port_drop" or value.name.startswith("drop_"):
                continue
            if value.group == "state" and value.name in _STATE:
                name, text = _STATE[value.name]
                families.gauge(f"millrace_{name}", text, labels, value.number)
            elif value.name.endswith("_nanoseconds"):
                name = f"millrace_{value.group}_{value.name.removesuffix('_nanoseconds')}_seconds"
                text = f"Seconds counted by the {value.group}: {_words(value.name)}"
                families.counter(_safe(name), text, labels, value.number / 1e9)
            else:
                text = f"Counted by the {value.group}: {_words(value.name)}"
                add = families.counter if value.is_counter else families.gauge
                add(_safe(f"millrace_{value.group}_{value.name}"), text, labels, value.number)


def kernel_drops(families: Families, watch: Watch) -> None:
    """The kernel's drops, since the exporter began."""
    for row in watch.rows():
        if row.source != "kernel":
            continue
        labels = {
            "reason": row.reason,
            "kind": row.kind,
            "location": row.where,
            "interface": row.interface,
            "namespace": row.namespace,
        }
        families.counter(
            "millrace_kernel_drops", "Packets that the kernel dropped", labels, row.packets
        )
    for what, count in watch.lost.items():
        families.counter(
            "millrace_kernel_drops_lost",
            "Drops that could not be counted apart (places), frames that found no room (frames)",
            {"what": what},
            count,
        )


#: Parts of a snapshot that are measured.
PARTS = ("links", "softnet", "softirqs", "cpu_times", "counters", "sockets")

_COUNTERS = re.compile(
    r"(Tcp|Udp|Ip|TcpExt|IpExt).*(Retrans|Err|Drop|Overflow|Discard|Timeout|Prune|Memory|Mem|"
    r"Segs|Opens|Datagrams|Octets|Resets|Established|Cookies|Fails|NoPorts|Receives|Delivers)"
)


def host(families: Families, snapshot: Snapshot) -> None:
    """The machine's network path, as one network namespace sees it."""
    for link in snapshot.links or ():
        for name, count in link.statistics.items():
            if name.startswith(("rx_", "tx_")) or name in ("multicast", "collisions"):
                text = "Of struct rtnl_link_stats64"
                label = {"interface": link.name}
                families.counter(f"millrace_interface_{_safe(name)}", text, label, count)
        up = {"interface": link.name, "operstate": link.operstate}
        families.gauge("millrace_interface_up", "Whether it has a carrier", up, link.carrier)
    for cpu in snapshot.softnet or ():
        for name in ("processed", "dropped", "squeezed", "received_rps", "flow_limit"):
            text = "Of /proc/net/softnet_stat"
            label = {"cpu": str(cpu.cpu)}
            families.counter(f"millrace_softnet_{name}", text, label, getattr(cpu, name))
        label = {"cpu": str(cpu.cpu)}
        text = "Packets that wait in the CPU's backlog"
        families.gauge("millrace_softnet_backlog", text, label, cpu.backlog)
    for kind, counts in (snapshot.softirqs or {}).items():
        if kind in ("NET_RX", "NET_TX"):
            for number, count in counts.items():
                label = {"cpu": str(number), "type": kind}
                families.counter("millrace_softirqs", "Softirqs that ran", label, count)
    for number, times in (snapshot.cpu_times or {}).items():
        for mode in ("user", "system", "softirq", "irq", "idle", "steal"):
            label = {"cpu": str(number), "mode": mode}
            text = "Seconds of each CPU"
            families.counter("millrace_cpu_seconds", text, label, getattr(times, mode))
    for name, count in (snapshot.counters or {}).items():
        if _COUNTERS.match(name):
            text = f"{name} of nstat(8)"
            families.counter(f"millrace_netstat_{_snake(name)}", text, {}, count)
    _sockets(families, snapshot)


def _sockets(families: Families, snapshot: Snapshot) -> None:
    states: dict[tuple[str, str], int] = {}
    drops = 0
    for one in snapshot.sockets or ():
        key = (one.protocol, one.state)
        states[key] = states.get(key, 0) + 1
        drops += one.drops
        if one.state == "listen":
            where = {"local": f"{one.local}:{one.local_port}"}
            text = "Connections that wait to be accepted"
            families.gauge("millrace_listen_queue", text, where, one.receive_queue)
            text = "Connections that may wait to be accepted"
            families.gauge("millrace_listen_queue_limit", text, where, one.send_queue)
    for (protocol, state), count in sorted(states.items()):
        label = {"protocol": protocol, "state": state}
        families.gauge("millrace_sockets", "Sockets of the kernel", label, count)
    if snapshot.sockets:
        text = "Packets dropped at the sockets that are open now"
        families.gauge("millrace_socket_drops", text, {}, drops)


@dataclass
class Collector:
    """Reads all that there is, at most so often."""

    #: Watches the kernel's drops, if it was asked to.
    watch: Watch | None = None
    observer: Observer | None = None
    #: Who asks sooner than that gets the same again, so that asking often costs nothing.
    least_seconds: float = 0.5
    _last: float = 0.0
    _families: list[Family] = field(default_factory=list)
    _clock: Callable[[], float] = time.monotonic

    def collect(self) -> list[Family]:
        """All families."""
        now = self._clock()
        if not self._families or now - self._last >= self.least_seconds:
            self._families = self._read()
            self._last = now
        return self._families

    def _read(self) -> list[Family]:
        begun = time.perf_counter()
        families = Families()
        found = processes.find()
        own(families, found.pages)
        if self.watch is not None and not self.watch.blind:
            self.watch.look()
            kernel_drops(families, self.watch)
        if self.observer is not None:
            snapshot = self.observer.snapshot(PARTS)
            host(families, snapshot)
            for part, missing in snapshot.missing().items():
                families.gauge(
                    "millrace_exporter_unreadable",
                    "Parts of the machine that could not be read",
                    {"part": part, "reason": missing.why},
                    1,
                )
        families.gauge(
            "millrace_exporter_problems",
            "Pages that could not be read",
            {},
            len(found.problems),
        )
        families.gauge(
            "millrace_exporter_collect_seconds",
            "Seconds that reading all of this took",
            {},
            time.perf_counter() - begun,
        )
        return list(families)


def _safe(name: str) -> str:
    """A name of another process, as Prometheus takes it."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


def _snake(name: str) -> str:
    """TCPRcvQDrop of TcpExt becomes tcp_ext_tcp_rcv_q_drop."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    return _safe(re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", spaced)).lower()


def _words(name: str) -> str:
    return name.replace("_", " ")
