"""One look at everything: the machine, the kernel's drops, NAPI polls, and Millrace's processes."""

from __future__ import annotations

import concurrent.futures
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

from millrace.watch import client, processes
from millrace.watch.drops import Row, Selection, Watch
from millrace.watch.page import Page
from millrace.watch.processes import Process
from millrace.watch.table import Table
from millrace.watch.top import many

if TYPE_CHECKING:
    from millrace._native import NapiMonitor
    from millrace.host.snapshot import Observer, Snapshot

#: Parts of the machine that every look reads; none takes more than a few milliseconds.
PARTS = (
    "links",
    "devices",
    "softnet",
    "softirqs",
    "cpu_times",
    "irqs",
    "napis",
    "queue_counters",
    "transmit_queues",
    "counters",
    "sockets",
)
#: Who owns which socket changes seldom, and takes a walk through all open files.
OWNERS_EVERY = 5.0
#: Dropped frames that are looked at a second, about: enough to name a flow.
SAMPLES = 40
#: How often names and states of interfaces are read where there are many.
LINKS_EVERY = 5.0
#: What a process told of its connections is shown for so long; then its page has to do.
FRESH = 3.5

NapiKey = tuple[int, int, int]


@dataclass(frozen=True)
class Sample:
    """What one look found."""

    #: Seconds since 1970, and of the monotonic clock.
    time: float
    clock: float
    machine: Snapshot
    #: Names of processes by the inodes of their sockets.
    owners: Mapping[int, str]
    own: tuple[tuple[Process, Page], ...]
    #: Whole tables of connections, by process and page, as far as the processes told them.
    connections: Mapping[tuple[int, int], Table]
    drops: tuple[Row, ...]
    #: Polls by interface's number, namespace and bucket.
    napi: Mapping[NapiKey, int]
    #: What could not be seen, and why.
    notes: tuple[str, ...]
    #: Seconds of processor time that this process has used so far.
    cpu: float


@dataclass
class Asked:
    """Asks processes for their connections, beside the looks: none of them may hold one up."""

    _pool: concurrent.futures.ThreadPoolExecutor = field(
        default_factory=lambda: concurrent.futures.ThreadPoolExecutor(4, "millrace-ask")
    )
    _waiting: dict[tuple[int, int], concurrent.futures.Future[Table]] = field(default_factory=dict)
    _told: dict[tuple[int, int], tuple[float, Table]] = field(default_factory=dict)

    def look(self, own: tuple[tuple[Process, Page], ...]) -> dict[tuple[int, int], Table]:
        """What was told lately; ask anew for the next look."""
        now = time.monotonic()
        there = {(process.pid, page.number): process for process, page in own}
        for key, future in list(self._waiting.items()):
            if future.done():
                del self._waiting[key]
                with contextlib.suppress(OSError):
                    self._told[key] = (now, future.result())
        for key, process in there.items():
            if key not in self._waiting:
                self._waiting[key] = self._pool.submit(client.rows, process, key[1], "connections")
        self._told = {
            key: told for key, told in self._told.items() if key in there and now - told[0] < FRESH
        }
        return {key: table for key, (_, table) in self._told.items()}

    def close(self) -> None:
        """End. What is asked still ends by its own time limit."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class Sampler:
    """Looks, again and again, from the thread that entered it."""

    def __init__(self, *, drops: bool = True, napi: bool = True) -> None:
        self._wants = (drops, napi)
        self._stack = contextlib.ExitStack()
        self._watch: Watch | None = None
        self._napi: NapiMonitor | None = None
        self._asked = Asked()
        self._owners: dict[int, str] = {}
        self._owners_at = -OWNERS_EVERY
        #: Where there are many interfaces: as they were lately.
        self._links: Snapshot | None = None
        self._links_at = -LINKS_EVERY
        self._notes: list[str] = []

    def __enter__(self) -> Self:
        from millrace.host import Observer

        self._observer: Observer = self._stack.enter_context(Observer())
        self._stack.callback(self._asked.close)
        drops, napi = self._wants
        if drops:
            self._watch = self._stack.enter_context(Watch(Selection(benign=True), samples=SAMPLES))
            if self._watch.blind:
                self._notes.append(f"the kernel's drops: {self._watch.blind}")
        if napi:
            from millrace._native import NapiMonitor

            try:
                self._napi = NapiMonitor()
                self._stack.callback(self._napi.close)
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                self._notes.append(f"NAPI polls: {reason or error}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def look(self) -> Sample:
        """Look now."""
        now = time.monotonic()
        parts: tuple[str, ...] = PARTS
        slow = now - self._links_at >= LINKS_EVERY
        if self._links is not None and not slow:
            parts = tuple(part for part in parts if part not in many.SLOW)
        if now - self._owners_at >= OWNERS_EVERY:
            parts = (*parts, "processes")
        machine = self._observer.snapshot(parts)
        if slow:
            self._links_at = now
            self._links = machine if len(machine.links or ()) >= many.MANY else None
        if self._links is not None:
            machine = many.overlay(machine, self._links)
        if "processes" in parts:
            self._owners_at = now
            self._owners = {
                inode: f"{process.name}:{process.pid}"
                for process in machine.processes or ()
                for inode in process.inodes
            }
        found = processes.find()
        own = tuple(found.pages)
        drops: tuple[Row, ...] = ()
        if self._watch is not None:
            self._watch.look()
            drops = tuple(self._watch.rows())
        napi: dict[NapiKey, int] = {}
        if self._napi is not None:
            for ifindex, namespace, bucket, count in self._napi.polls():
                napi[ifindex, namespace, bucket] = count
        notes = [*self._notes, *found.problems]
        notes += [str(missing) for missing in machine.missing().values()]
        return Sample(
            time=time.time(),
            clock=now,
            machine=machine,
            owners=self._owners,
            own=own,
            connections=self._asked.look(own),
            drops=drops,
            napi=napi,
            notes=tuple(dict.fromkeys(notes)),
            cpu=time.process_time(),
        )
