"""What only Millrace's own machinery can tell: its channels, and the kernel's reasons for drops.

Both come from `millrace.watch`: channels from the pages that each process publishes, reasons from
the program at the tracepoint skb:kfree_skb. It is asked for by name when it is needed, because it
is the package above this one; where it is not there, the snapshot says so.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from millrace.host.access import Access
from millrace.host.unavailable import NotAvailable, Reading, Unavailable


@dataclass(frozen=True, slots=True)
class OwnChannel:
    """One channel of one process."""

    pid: int
    process: str
    #: Such as "af_xdp:eth0".
    port: str
    #: Of its process: tells channels on one port apart.
    number: int
    #: The CPU its thread ran on last, or -1.
    cpu: int
    #: Counters and gauges by their names; drops begin with "drop_", and with "benign_" if nobody
    #: misses the packet.
    values: Mapping[str, int] = field(default_factory=dict)

    @property
    def interface(self) -> str:
        """The interface that its port is on; "" for a port on none."""
        return self.port.partition(":")[2].split(",")[0]


def read_own(access: Access) -> tuple[OwnChannel, ...]:
    """The channels of every Millrace process of this namespace that we may read."""
    if not access.is_live:
        raise Unavailable(NotAvailable("a copy of files has no processes"))
    processes = _watch("processes")
    reasons = _watch("reasons")
    ours = _namespace("thread-self")
    found = []
    for process, page in processes.find().pages:
        # Not the process's: a thread may have opened its channel in another one.
        if process.is_foreign or page.facts.get("network namespace") != ours:
            continue
        values: dict[str, int] = {}
        for value in page.values:
            name = value.name
            if value.group == "port_drop" or name.startswith("drop_"):
                kind = "benign" if reasons.of_own(name).kind == "benign" else "drop"
                name = f"{kind}_{name.removeprefix('drop_')}"
            values[name] = value.number
        found.append(
            OwnChannel(
                pid=process.pid,
                process=process.title.rpartition(":")[0],
                port=page.name,
                number=page.number,
                cpu=_cpu(access, process.pid, page.facts.get("thread", "")),
                values=values,
            )
        )
    if not found:
        raise Unavailable(NotAvailable("no Millrace channel runs in this network namespace"))
    return tuple(found)


def read_drops(_access: Access) -> Mapping[str, int]:
    """Packets lost by reason; only where `counting_drops` counts them."""
    raise Unavailable(NotAvailable("nobody counts drops by reason"))


@contextlib.contextmanager
def counting_drops() -> Iterator[tuple[Reading[Mapping[str, int]], Callable[[], Any]]]:
    """Counts the kernel's drops that are a loss, by reason, for the length of a `with`.

    Gives what is to be said at its beginning, and a function for what was counted since; both are
    `NotAvailable` where it cannot be done.
    """
    try:
        drops = _watch("drops")
        watch = drops.Watch(drops.Selection())
    except Unavailable as missing:
        reading = missing.reading
        yield reading, lambda: reading
        return
    with watch:
        if watch.blind:
            needs = "" if os.geteuid() == 0 else "root"
            blind = NotAvailable(f"reasons of drops: {watch.blind}", needs)
            yield blind, lambda: blind
            return

        def counted() -> Mapping[str, int]:
            watch.look()
            found: Counter[str] = Counter()
            for row in watch.rows():
                # Drops of other network namespaces carry their names.
                if row.source == "kernel" and not row.namespace:
                    found[row.reason] += row.packets
            return dict(found)

        yield {}, counted


def _watch(name: str) -> Any:
    try:
        return importlib.import_module(f"millrace.watch.{name}")
    except ModuleNotFoundError as error:
        raise Unavailable(NotAvailable(f"this Millrace has no {error.name}")) from None


def _namespace(pid: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""


def _cpu(access: Access, pid: int, thread: str) -> int:
    stat = access.files.text(f"/proc/{pid}/task/{thread}/stat") if thread.isdecimal() else ""
    words = stat.rpartition(")")[2].split() if isinstance(stat, str) else []
    return int(words[36]) if len(words) > 36 else -1
