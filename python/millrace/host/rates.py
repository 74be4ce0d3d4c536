"""The difference of two snapshots of one machine: what happened in between, and how fast."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from millrace.host.cputime import CpuTime
from millrace.host.ethtool import Device
from millrace.host.netdev import QueueCounters
from millrace.host.processes import Thread
from millrace.host.snapshot import Snapshot
from millrace.host.sockets import Socket
from millrace.host.softnet import SoftnetCpu
from millrace.host.unavailable import NotAvailable, known

K = TypeVar("K", bound=Hashable)

_WORD = 1 << 32

# tcp_info has counters and gauges; these are the counters.
_TCP_COUNTERS = (
    "total_retrans",
    "bytes_acked",
    "bytes_received",
    "segs_out",
    "segs_in",
    "data_segs_in",
    "data_segs_out",
    "busy_time",
    "rwnd_limited",
    "sndbuf_limited",
    "delivered",
    "delivered_ce",
    "bytes_sent",
    "bytes_retrans",
    "dsack_dups",
    "reord_seen",
    "rcv_ooopack",
)


def difference(before: int, after: int) -> int:
    """How far a counter went on.

    One that went back wrapped at 32 bits, or was begun anew and has counted `after` since.
    """
    if after >= before:
        return after - before
    if before < _WORD and before - after > _WORD // 2:
        return after + _WORD - before
    return after


def differences(before: Mapping[K, int], after: Mapping[K, int]) -> dict[K, int]:
    """How far each counter went on; one that was not there before is not in the result."""
    return {key: difference(before[key], value) for key, value in after.items() if key in before}


@dataclass(frozen=True, slots=True)
class SocketChange:
    """What happened to a socket that was there before and after."""

    socket: Socket
    drops: int
    #: Of tcp_info, the counters.
    info: Mapping[str, int]


@dataclass(frozen=True)
class Rates:
    """What happened from `before` to `after`. Counts, unless a name says a second.

    A part that either snapshot does not have raises `Unavailable` when it is used.
    """

    before: Snapshot
    after: Snapshot

    def __post_init__(self) -> None:
        if self.seconds <= 0:
            raise ValueError("the second snapshot was not taken after the first")
        first, second = self.before.origin, self.after.origin
        if first.boot != second.boot or first.namespace != second.namespace:
            raise ValueError("the snapshots are of two machines, namespaces or boots")

    @property
    def seconds(self) -> float:
        """The window's length."""
        return self.after.origin.clock - self.before.origin.clock

    def per_second(self, count: float) -> float:
        """A count of this window as a rate."""
        return count / self.seconds

    @functools.cached_property
    def counters(self) -> Mapping[str, int]:
        """Of IP, ICMP, UDP and TCP, by the names of nstat(8)."""
        return differences(known(self.before.counters), known(self.after.counters))

    def counter(self, *names: str) -> int:
        """The sum of some counters; one that this kernel does not have counts as 0."""
        return sum(self.counters.get(name, 0) for name in names)

    @functools.cached_property
    def links(self) -> Mapping[str, Mapping[str, int]]:
        """rtnl_link_stats64 of each interface that was there all the time."""
        before = {link.index: link for link in known(self.before.links)}
        return {
            link.name: differences(before[link.index].statistics, link.statistics)
            for link in known(self.after.links)
            if link.index in before
        }

    @functools.cached_property
    def devices(self) -> Mapping[str, Mapping[str, int]]:
        """The driver's own counters of each interface."""

        def statistics(device: Device) -> Mapping[str, int]:
            found = device.statistics
            return {} if isinstance(found, NotAvailable) else found

        before = {device.name: statistics(device) for device in known(self.before.devices)}
        return {
            device.name: differences(before.get(device.name, {}), statistics(device))
            for device in known(self.after.devices)
        }

    @functools.cached_property
    def queues(self) -> Mapping[tuple[int, str, int], Mapping[str, int]]:
        """The driver's counters of each queue, by interface number, way and queue."""

        def keyed(queues: Iterable[QueueCounters]) -> dict[tuple[int, str, int], QueueCounters]:
            return {(queue.index, queue.way, queue.queue): queue for queue in queues}

        before = keyed(known(self.before.queue_counters))
        return {
            key: differences(before[key].counters, queue.counters)
            for key, queue in keyed(known(self.after.queue_counters)).items()
            if key in before
        }

    @functools.cached_property
    def softnet(self) -> Mapping[int, SoftnetCpu]:
        """The receive path of each CPU; `backlog` is as it is now."""
        before = {row.cpu: row for row in known(self.before.softnet)}
        return {
            row.cpu: SoftnetCpu(
                cpu=row.cpu,
                processed=difference(old.processed, row.processed),
                dropped=difference(old.dropped, row.dropped),
                squeezed=difference(old.squeezed, row.squeezed),
                received_rps=difference(old.received_rps, row.received_rps),
                flow_limit=difference(old.flow_limit, row.flow_limit),
                backlog=row.backlog,
            )
            for row in known(self.after.softnet)
            if (old := before.get(row.cpu)) is not None
        }

    @functools.cached_property
    def softirqs(self) -> Mapping[str, Mapping[int, int]]:
        """How often each softirq ran on each CPU."""
        before, after = known(self.before.softirqs), known(self.after.softirqs)
        return {name: differences(before.get(name, {}), row) for name, row in after.items()}

    @functools.cached_property
    def irqs(self) -> Mapping[int, Mapping[int, int]]:
        """How often each CPU took each interrupt of a network device."""
        before = {irq.number: irq.counts for irq in known(self.before.irqs)}
        return {
            irq.number: differences(before.get(irq.number, {}), irq.counts)
            for irq in known(self.after.irqs)
        }

    @functools.cached_property
    def cpu_shares(self) -> Mapping[int, CpuTime]:
        """What each CPU spent its time on, as shares of 1."""
        before = known(self.before.cpu_times)
        found = {}
        for cpu, after in known(self.after.cpu_times).items():
            old = before.get(cpu)
            if old is None:
                continue
            # Idle and iowait may go back (proc_stat(5)), and the rest is not less for it.
            spent = [
                max(0.0, getattr(after, name) - getattr(old, name)) for name in CpuTime.__slots__
            ]
            if (total := sum(spent)) > 0:
                found[cpu] = CpuTime(*(seconds / total for seconds in spent))
        return found

    @functools.cached_property
    def qdiscs(self) -> Mapping[tuple[int, int, int], Mapping[str, int]]:
        """Drops, requeues and the like of each queueing discipline."""
        names = ("packets", "drops", "overlimits", "requeues")
        before = {
            (one.index, one.parent, one.handle): {name: getattr(one, name) for name in names}
            for one in known(self.before.qdiscs)
        }
        return {
            key: differences(before[key], {name: getattr(one, name) for name in names})
            for one in known(self.after.qdiscs)
            if (key := (one.index, one.parent, one.handle)) in before
        }

    @functools.cached_property
    def sockets(self) -> tuple[SocketChange, ...]:
        """The sockets that were there before and after."""
        before = {one.cookie: one for one in known(self.before.sockets)}
        found = []
        for one in known(self.after.sockets):
            old = before.get(one.cookie)
            if old is None or old.inode != one.inode:
                continue
            info = {}
            if one.info is not None and old.info is not None:
                info = {
                    name: difference(getattr(old.info, name), getattr(one.info, name))
                    for name in _TCP_COUNTERS
                }
            found.append(SocketChange(one, difference(old.drops, one.drops), info))
        return tuple(found)

    @functools.cached_property
    def thread_shares(self) -> Mapping[int, float]:
        """The share of one CPU that each thread used, by its tid."""
        shares = {}
        before = {thread.tid: thread for thread in _threads(self.before)}
        for thread in _threads(self.after):
            old = before.get(thread.tid)
            if old is not None:
                shares[thread.tid] = max(0.0, thread.seconds - old.seconds) / self.seconds
        return shares

    @functools.cached_property
    def thread_migrations(self) -> Mapping[int, int]:
        """How often each thread was moved to another CPU, where the kernel counts it."""
        before = {thread.tid: thread.migrations for thread in _threads(self.before)}
        found = {}
        for thread in _threads(self.after):
            old = before.get(thread.tid)
            if thread.migrations is not None and old is not None:
                found[thread.tid] = difference(old, thread.migrations)
        return found

    @functools.cached_property
    def neighbour_counters(self) -> Mapping[str, int]:
        """Of the neighbour tables."""
        return differences(
            known(self.before.neighbour_counters), known(self.after.neighbour_counters)
        )

    @functools.cached_property
    def conntrack(self) -> Mapping[str, int]:
        """Of connection tracking."""
        return differences(known(self.before.conntrack), known(self.after.conntrack))

    @functools.cached_property
    def own(self) -> Mapping[tuple[int, int], Mapping[str, int]]:
        """Of Millrace's own channels, by process and the channel's number in it."""
        before = {(one.pid, one.number): one.values for one in known(self.before.own)}
        return {
            key: differences(before[key], one.values)
            for one in known(self.after.own)
            if (key := (one.pid, one.number)) in before
        }


def _threads(snapshot: Snapshot) -> list[Thread]:
    found = list(snapshot.kernel_threads or ())
    found += [thread for process in snapshot.processes or () for thread in process.threads]
    return found
