"""The machine as data: one typed, immutable snapshot of what the network path is made of.

    from millrace.host import Observer

    with Observer() as observer:
        before = observer.snapshot()
        time.sleep(1)
        after = observer.snapshot()
    rates = after - before
    after.save("machine.json")

Each field of `Snapshot` is one part, read by one function of one module here (`READERS`), and is
either what that module's dataclass says or `NotAvailable` with the reason. Parts can be asked for
alone, so that what looks every second pays only for what it shows.

The shape is stable for other packages: fields are added, never renamed, and what is unknown to a
file's reader is ignored. A snapshot only looks; nothing here writes a setting.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import millrace
from millrace.host import codec
from millrace.host.access import Access, is_initial_namespace, namespace_cookie
from millrace.host.counters import (
    read_conntrack_counters,
    read_counters,
    read_neighbour_counters,
    read_sockstat,
)
from millrace.host.cpu import Cpus, read_cpus
from millrace.host.cputime import CpuTime, read_cpu_times, read_softirqs
from millrace.host.ethtool import Device, read_devices
from millrace.host.irq import Irq, read_irqs
from millrace.host.links import (
    Address,
    Link,
    Neighbour,
    Qdisc,
    Route,
    read_addresses,
    read_links,
    read_neighbours,
    read_qdiscs,
    read_routes,
)
from millrace.host.memory import Memory, Pressure, read_memory, read_pressure
from millrace.host.netdev import (
    Napi,
    QueueCounters,
    read_napis,
    read_queue_counters,
    read_xdp_features,
)
from millrace.host.own import OwnChannel, read_drops, read_own
from millrace.host.platform import (
    Bus,
    Kernel,
    Platform,
    Privileges,
    read_buses,
    read_kernel,
    read_platform,
    read_privileges,
)
from millrace.host.processes import (
    Process,
    Thread,
    read_kernel_threads,
    read_processes,
    read_services,
)
from millrace.host.queues import (
    ReceiveQueue,
    TransmitQueue,
    read_receive_queues,
    read_transmit_queues,
)
from millrace.host.sockets import Socket, TimeWait, read_sockets, read_time_waits
from millrace.host.softnet import SoftnetCpu, read_softnet
from millrace.host.sysctl import read_sysctls
from millrace.host.unavailable import NotAvailable, Reading, Unavailable, because

if TYPE_CHECKING:
    from millrace.host.rates import Rates

FORMAT = "millrace-host"
FORMAT_VERSION = 1

_NOT_ASKED = NotAvailable("not asked for")


@dataclass(frozen=True, slots=True)
class Origin:
    """When, where and by whom a snapshot was taken."""

    #: Seconds since 1970.
    time: float
    #: Seconds of the machine's monotonic clock; differences of these make rates.
    clock: float
    #: How many seconds it took.
    seconds: float
    host: str
    kernel: str
    machine: str
    uid: int
    #: Tells network namespaces of one machine apart; 0 where the kernel cannot.
    namespace: int
    #: Whether it is the machine's own namespace, where host-wide settings are.
    initial_namespace: bool
    boot: str
    millrace: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The machine at one moment, as one network namespace sees it."""

    origin: Origin
    links: Reading[tuple[Link, ...]] = _NOT_ASKED
    addresses: Reading[tuple[Address, ...]] = _NOT_ASKED
    routes: Reading[tuple[Route, ...]] = _NOT_ASKED
    neighbours: Reading[tuple[Neighbour, ...]] = _NOT_ASKED
    neighbour_counters: Reading[Mapping[str, int]] = _NOT_ASKED
    qdiscs: Reading[tuple[Qdisc, ...]] = _NOT_ASKED
    devices: Reading[tuple[Device, ...]] = _NOT_ASKED
    buses: Reading[tuple[Bus, ...]] = _NOT_ASKED
    #: What each driver can do with XDP, by the interface's number.
    xdp_features: Reading[Mapping[int, tuple[str, ...]]] = _NOT_ASKED
    napis: Reading[tuple[Napi, ...]] = _NOT_ASKED
    queue_counters: Reading[tuple[QueueCounters, ...]] = _NOT_ASKED
    receive_queues: Reading[tuple[ReceiveQueue, ...]] = _NOT_ASKED
    transmit_queues: Reading[tuple[TransmitQueue, ...]] = _NOT_ASKED
    irqs: Reading[tuple[Irq, ...]] = _NOT_ASKED
    softnet: Reading[tuple[SoftnetCpu, ...]] = _NOT_ASKED
    #: How often each softirq ran, by CPU.
    softirqs: Reading[Mapping[str, Mapping[int, int]]] = _NOT_ASKED
    cpus: Reading[Cpus] = _NOT_ASKED
    cpu_times: Reading[Mapping[int, CpuTime]] = _NOT_ASKED
    memory: Reading[Memory] = _NOT_ASKED
    pressure: Reading[Mapping[str, Pressure]] = _NOT_ASKED
    #: By names with dots; those of one interface with slashes.
    sysctls: Reading[Mapping[str, Reading[str]]] = _NOT_ASKED
    #: By the names of nstat(8).
    counters: Reading[Mapping[str, int]] = _NOT_ASKED
    sockstat: Reading[Mapping[str, int]] = _NOT_ASKED
    conntrack: Reading[Mapping[str, int]] = _NOT_ASKED
    sockets: Reading[tuple[Socket, ...]] = _NOT_ASKED
    time_waits: Reading[tuple[TimeWait, ...]] = _NOT_ASKED
    processes: Reading[tuple[Process, ...]] = _NOT_ASKED
    kernel_threads: Reading[tuple[Thread, ...]] = _NOT_ASKED
    services: Reading[Mapping[str, int]] = _NOT_ASKED
    kernel: Reading[Kernel] = _NOT_ASKED
    platform: Reading[Platform] = _NOT_ASKED
    privileges: Reading[Privileges] = _NOT_ASKED
    #: Packets that the kernel dropped since somebody began to count, without those that nobody
    #: misses, by reason.
    drops: Reading[Mapping[str, int]] = _NOT_ASKED
    own: Reading[tuple[OwnChannel, ...]] = _NOT_ASKED

    def __sub__(self, before: Snapshot) -> Rates:
        """What happened from `before` to this snapshot of the same machine."""
        from millrace.host.rates import Rates

        return Rates(before, self)

    def missing(self) -> dict[str, NotAvailable]:
        """The parts that could not be read."""
        found = {}
        for part in READERS:
            value = getattr(self, part)
            if isinstance(value, NotAvailable) and value is not _NOT_ASKED:
                found[part] = value
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file that `load` reads, on this machine or another."""
        save([self], path)


READERS: Mapping[str, Callable[[Access], Any]] = {
    "links": read_links,
    "addresses": read_addresses,
    "routes": read_routes,
    "neighbours": read_neighbours,
    "neighbour_counters": read_neighbour_counters,
    "qdiscs": read_qdiscs,
    "devices": read_devices,
    "buses": read_buses,
    "xdp_features": read_xdp_features,
    "napis": read_napis,
    "queue_counters": read_queue_counters,
    "receive_queues": read_receive_queues,
    "transmit_queues": read_transmit_queues,
    "irqs": read_irqs,
    "softnet": read_softnet,
    "softirqs": read_softirqs,
    "cpus": read_cpus,
    "cpu_times": read_cpu_times,
    "memory": read_memory,
    "pressure": read_pressure,
    "sysctls": read_sysctls,
    "counters": read_counters,
    "sockstat": read_sockstat,
    "conntrack": read_conntrack_counters,
    "sockets": read_sockets,
    "time_waits": read_time_waits,
    "processes": read_processes,
    "kernel_threads": read_kernel_threads,
    "services": read_services,
    "kernel": read_kernel,
    "platform": read_platform,
    "privileges": read_privileges,
    "drops": read_drops,
    "own": read_own,
}

PARTS = tuple(READERS)


class Observer:
    """Takes snapshots of the network namespace it is made in, and keeps what it opened for that.

    Use it in the thread that made it, or in another of the same namespace. `root` names a folder
    with a copy of /proc and /sys to look at instead.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self._access = Access(root)
        try:
            self._namespace = namespace_cookie() if root is None else 0
        except OSError:
            self._namespace = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what was opened."""
        self._access.close()

    def snapshot(self, parts: Collection[str] = PARTS) -> Snapshot:
        """Read the parts that are asked for. Raises `ValueError` for one that does not exist."""
        for part in parts:
            if part not in READERS:
                raise ValueError(f"a snapshot has no part {part!r}; it has {', '.join(PARTS)}")
        self._access.check_namespace()
        begun = time.monotonic()
        values = {part: self._read(part) for part in PARTS if part in parts}
        return Snapshot(origin=self._origin(begun), **values)

    def _read(self, part: str) -> Any:
        try:
            return READERS[part](self._access)
        except Unavailable as missing:
            return missing.reading
        except OSError as error:
            return because(error, part.replace("_", " "))
        except (ValueError, IndexError, KeyError, struct.error) as error:
            return NotAvailable(f"{part.replace('_', ' ')} are in a form not known here: {error}")
        except _netlink_error() as error:
            return NotAvailable(f"{part.replace('_', ' ')}: {error}")

    def _origin(self, begun: float) -> Origin:
        system = os.uname()
        files = self._access.files
        boot = files.text("/proc/sys/kernel/random/boot_id")
        return Origin(
            time=time.time(),
            clock=begun,
            seconds=time.monotonic() - begun,
            host=socket.gethostname(),
            kernel=system.release,
            machine=system.machine,
            uid=os.geteuid(),
            namespace=self._namespace,
            initial_namespace=not self._access.is_live or is_initial_namespace(),
            boot=boot if isinstance(boot, str) else "",
            millrace=millrace.__version__,
        )


def _netlink_error() -> type[Exception]:
    from pyroute2 import NetlinkError

    error: type[Exception] = NetlinkError
    return error


@dataclass(frozen=True, slots=True)
class _Bundle:
    format: str
    version: int
    snapshots: tuple[Snapshot, ...] = field(default_factory=tuple)


MAX_SNAPSHOTS = 16


def save(snapshots: Collection[Snapshot], path: str | os.PathLike[str]) -> None:
    """Write snapshots of one machine, in the order they were taken, to one file."""
    import json

    bundle = _Bundle(FORMAT, FORMAT_VERSION, tuple(snapshots))
    # Beside it first, so that a full disk leaves no half file under this name.
    beside = Path(f"{os.fspath(path)}.{os.getpid()}.tmp")
    try:
        with open(beside, "x") as file:
            json.dump(codec.to_json(bundle), file, separators=(",", ":"), allow_nan=False)
            file.write("\n")
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def load(path: str | os.PathLike[str]) -> tuple[Snapshot, ...]:
    """Read what `save` wrote, perhaps on another machine.

    Raises `ValueError` with the place for a file that is cut, too large or holds something else.
    """
    data = codec.load(os.fspath(path))
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise codec.BadData(f"{os.fspath(path)} is no bundle of millrace doctor --save")
    version = data.get("version")
    if version != FORMAT_VERSION:
        raise codec.BadData(
            f"{os.fspath(path)} has version {str(version)[:20]} of the format; "
            f"this Millrace reads version {FORMAT_VERSION}"
        )
    try:
        bundle = codec.from_json(_Bundle, data)
    except codec.BadData as error:
        raise codec.BadData(f"{os.fspath(path)}: {error}") from None
    if not 1 <= len(bundle.snapshots) <= MAX_SNAPSHOTS:
        raise codec.BadData(
            f"{os.fspath(path)} has {len(bundle.snapshots)} snapshots, not 1 to {MAX_SNAPSHOTS}"
        )
    return bundle.snapshots


assert {one.name for one in fields(Snapshot)} == {"origin", *READERS}
