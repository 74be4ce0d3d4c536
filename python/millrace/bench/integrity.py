"""Our stack and Linux's on bad wires: every byte arrives once and in order, and nothing hangs.

A run is one connection with a plan from the seed: who opens it, how much each side writes and in
which pieces, whether ours reads slowly, who shuts its side first, and now and then who aborts.
Both sides hash what they receive.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import selectors
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from millrace.cli.report import Row
from millrace.lab import Host, ImpairedWire, Lab
from millrace.lab.impairment import Wishes
from millrace.net import ACCEPTED, CLOSED, FINISHED, READ, Channel, Completion, Handle

#: What is done to the packets of both directions, by name.
CONDITIONS: Mapping[str, Wishes] = {
    "clean": {"delay": "1ms"},
    "loss 1%": {"delay": "5ms", "loss": "1%"},
    "loss 5%": {"delay": "2ms", "loss": "5%"},
    "bursts": {"delay": "2ms", "loss": "2%", "burst": 4.0},
    "reordering": {"delay": "5ms", "reorder": "5%", "reorder_delay": "3ms"},
    "jitter": {"delay": "5ms", "jitter": "5ms", "jitter_reorders": True},
    "duplicates, damage": {"delay": "2ms", "duplicate": "5%", "corrupt": "1%"},
    "short queue": {"delay": "10ms", "rate": "20M", "queue": "10packets"},
}

_PORT = 7000
_OURS, _LINUX = "192.0.2.2", "192.0.2.1"
#: Connections at a time.
_BATCH = 13
_HANGS_AFTER_SECONDS = 120.0

Ending = Literal["at once", "after", "abort"]


@dataclass
class Side:
    """One side of a connection: what it writes, and what it has received."""

    data: bytes
    ending: Ending
    #: It aborts when it has received so many bytes.
    abort_at: int
    pieces: int
    written: int = 0
    shut: bool = False
    received: int = 0
    hash: Any = field(default_factory=hashlib.sha256)
    finished: bool = False
    error: OSError | None = None
    over: bool = False

    def take(self, data: bytes | memoryview) -> None:
        self.hash.update(data)
        self.received += len(data)

    def wants_abort(self) -> bool:
        return self.ending == "abort" and self.received >= self.abort_at


@dataclass
class Run:
    """One connection."""

    number: int
    we_connect: bool
    ours: Side
    linux: Side
    slow_reader: bool
    handle: Handle | None = None
    socket: socket.socket | None = None
    events: int = 0
    paused: bool = False

    @property
    def over(self) -> bool:
        return self.ours.over and self.linux.over

    def verdict(self) -> str | None:
        """What is wrong with it, or None."""
        aborts = "abort" in (self.ours.ending, self.linux.ending)
        for name, own, other in (("we", self.ours, self.linux), ("Linux", self.linux, self.ours)):
            expected = hashlib.sha256(other.data[: own.received]).digest()
            if own.received > len(other.data) or own.hash.digest() != expected:
                return f"{name} received other bytes than were written"
            if own.finished and own.received != len(other.data):
                return f"{name} saw the end after {own.received} of {len(other.data)} bytes"
            if not aborts and own.error is not None:
                return f"{name} failed: {own.error}"
            if not aborts and not own.finished:
                return f"{name} never saw the end"
            if own.ending != "abort" and not own.finished and own.error is None:
                return f"{name} saw neither an end nor an error"
        return None


def _plan(number: int, dice: random.Random) -> Run:
    def size() -> int:
        most = dice.choice((0, 1, 100, 5_000, 100_000, 100_000, 1_000_000))
        return dice.randint(0, most)

    first: Ending = "at once"
    second: Ending = dice.choice(("at once", "after"))
    endings = [first, second]
    if dice.random() < 0.1:
        endings = ["at once", "abort"]
    dice.shuffle(endings)
    sides = []
    for ending in endings:
        data = dice.randbytes(size())
        pieces = dice.choice((100, 1_448, 5_000, 65_536))
        sides.append(Side(data, ending, dice.randint(0, 20_000), max(pieces, len(data) // 200)))
    return Run(number, dice.random() < 0.5, sides[0], sides[1], dice.random() < 0.3)


class Batch:
    """Some connections at the same time, over one channel and Linux's sockets."""

    def __init__(self, channel: Channel, linux: Host, runs: Sequence[Run]) -> None:
        self.channel = channel
        self.linux = linux
        self.runs = runs
        self.by_handle: dict[Handle, Run] = {}
        self.by_port: dict[int, Run] = {}
        self.selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Run them until all are over, or for too long."""
        with self.linux.enter():
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((_LINUX, _PORT))
            listener.listen(64)
            listener.setblocking(False)
            self.selector.register(listener, selectors.EVENT_READ)
            for run in self.runs:
                self._open(run)
        end = time.monotonic() + _HANGS_AFTER_SECONDS
        try:
            while not all(run.over for run in self.runs) and time.monotonic() < end:
                for done in self.channel.turn(0.001) or []:
                    self._told(done)
                for key, _ in self.selector.select(0):
                    if key.data is None:
                        self._accept(listener)
                    else:
                        self._linux_acts(key.data)
                for run in self.runs:
                    self._we_act(run)
        finally:
            listener.close()
            self.selector.close()
            for run in self.runs:
                if run.socket is not None:
                    run.socket.close()
                if run.handle is not None and not run.handle.closed:
                    run.handle.abort()
            self.channel.turn(0)

    def _open(self, run: Run) -> None:
        if run.we_connect:
            run.handle = self.channel.connect((_LINUX, _PORT))
            self.by_handle[run.handle] = run
            self.by_port[run.handle.local[1]] = run
            return
        run.socket = socket.socket()
        run.socket.setblocking(False)
        run.socket.bind((_LINUX, 0))
        self.by_port[run.socket.getsockname()[1]] = run
        with contextlib.suppress(BlockingIOError):
            run.socket.connect((_OURS, _PORT))
        self._watch(run)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            accepted, (_, port) = listener.accept()
            accepted.setblocking(False)
            run = self.by_port[port]
            run.socket = accepted
            self._watch(run)

    # Ours.

    def _told(self, done: Completion) -> None:
        if done.kind is ACCEPTED:
            run = self.by_port[done.handle.remote[1]]
            run.handle = done.handle
            self.by_handle[done.handle] = run
            return
        run = self.by_handle[done.handle]
        side = run.ours
        if done.kind is READ:
            side.take(done.data)
            if run.slow_reader and not run.paused and side.received % 7 == 0:
                done.handle.pause()
                run.paused = True
        elif done.kind is FINISHED:
            side.finished = True
        elif done.kind is CLOSED:
            side.error = done.error
            side.over = True

    def _we_act(self, run: Run) -> None:
        side, handle = run.ours, run.handle
        if handle is None or side.over:
            return
        if run.paused:
            run.events += 1
            if run.events % 5 == 0:
                handle.resume()
                run.paused = False
        if side.wants_abort():
            handle.abort()
            side.over = True
            return
        if handle.waiting == 0 and side.written < len(side.data):
            piece = side.data[side.written : side.written + side.pieces]
            handle.write(piece)
            side.written += len(piece)
        written = side.written == len(side.data)
        if written and not side.shut and (side.ending != "after" or side.finished):
            handle.shutdown()
            side.shut = True

    # Linux's.

    def _watch(self, run: Run) -> None:
        assert run.socket is not None
        self.selector.register(run.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, run)

    def _linux_acts(self, run: Run) -> None:
        side, bound = run.linux, run.socket
        assert bound is not None
        try:
            self._linux_reads(side, bound)
            if side.wants_abort():
                # No linger: a reset.
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                return self._linux_ends(run)
            if side.written < len(side.data):
                with contextlib.suppress(BlockingIOError):
                    piece = side.data[side.written : side.written + side.pieces]
                    side.written += bound.send(piece)
            written = side.written == len(side.data)
            if written and not side.shut and (side.ending != "after" or side.finished):
                bound.shutdown(socket.SHUT_WR)
                side.shut = True
                self.selector.modify(bound, selectors.EVENT_READ, run)
        except OSError as error:
            side.error = error
            return self._linux_ends(run)
        if side.shut and side.finished:
            self._linux_ends(run)

    def _linux_reads(self, side: Side, bound: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while not side.finished:
                data = bound.recv(65_536)
                if not data:
                    side.finished = True
                side.take(data)

    def _linux_ends(self, run: Run) -> None:
        assert run.socket is not None
        self.selector.unregister(run.socket)
        run.socket.close()
        run.linux.over = True


def measure(
    *, runs: int, seed: int, conditions: Sequence[str] = ()
) -> Iterator[tuple[Row, list[str]]]:
    """One row for each condition, and what went wrong in it. `runs` are those of all together."""
    chosen = list(conditions) or list(CONDITIONS)
    unknown = [name for name in chosen if name not in CONDITIONS]
    if unknown:
        raise ValueError(f"no condition {unknown[0]!r}; there are: {', '.join(CONDITIONS)}")
    dice = random.Random(seed)
    numbers = iter(range(runs))
    with Lab() as lab:
        ours, linux = lab.host("ours"), lab.host("linux")
        wire = lab.wire(ours, linux, addresses=(None, f"{_LINUX}/24"), seed=seed)
        assert isinstance(wire, ImpairedWire)
        port = f"af_packet:{wire.a.name}"
        for index, name in enumerate(chosen):
            share = runs // len(chosen) + (index < runs % len(chosen))
            wire.impair(**CONDITIONS[name])
            plans = [_plan(next(numbers), dice) for _ in range(share)]
            yield _condition(name, plans, ours, linux, port)


def _condition(
    name: str, plans: Sequence[Run], ours: Host, linux: Host, port: str
) -> tuple[Row, list[str]]:
    wrong = []
    hung = 0
    begun = time.monotonic()
    with ours.enter():
        channel = Channel(port, f"{_OURS}/24", hugepages=False, time_wait=1.0)
    with channel:
        channel.listen(_PORT)
        for start in range(0, len(plans), _BATCH):
            batch = plans[start : start + _BATCH]
            Batch(channel, linux, batch).run()
            for run in batch:
                if not run.over:
                    hung += 1
                    wrong.append(f"run {run.number} ({name}) hangs")
                elif (said := run.verdict()) is not None:
                    wrong.append(f"run {run.number} ({name}): {said}")
        retransmitted = channel.counters()["segments_retransmitted"]
    received = sum(side.received for run in plans for side in (run.ours, run.linux))
    row: Row = {
        "wire": name,
        "runs": len(plans),
        "we_connect": sum(run.we_connect for run in plans),
        "aborted": sum("abort" in (run.ours.ending, run.linux.ending) for run in plans),
        "megabytes": received / 1e6,
        "retransmitted": retransmitted,
        "hung": hung,
        "broken": len(wrong) - hung,
        "seconds": time.monotonic() - begun,
    }
    return row, wrong
