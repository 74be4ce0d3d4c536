"""Frames of a running Millrace process, as they pass between its port and its stack.

The process copies them into a bounded buffer and sends them as a pcapng stream; it never waits.
What finds no room there is counted by the process and told in the last blocks of the stream.
"""

from __future__ import annotations

import datetime
import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

from millrace.watch import client, frame, pcapng
from millrace.watch.page import Page
from millrace.watch.processes import Found, Process

Wanted = Callable[[bytes, int], bool]

SNAP = 262_144
BUFFER = 8 << 20
#: Seconds that a process may take to send its last blocks.
LAST_BLOCKS = 5.0


@dataclass
class Capture:
    """One stream. Iterate for its blocks; `stop` asks for the last ones."""

    process: Process
    pages: Sequence[Page]
    snap: int = SNAP
    buffer: int = BUFFER
    #: Which frames are wanted, by their bytes and their length on the way; by default all.
    wanted: Wanted | None = None
    #: Frames that are wanted and came, and those that came and are not.
    frames: int = 0
    others: int = 0
    #: Frames that the process saw and that found no room, by interface, once the stream has ended.
    lost: dict[str, int] = field(default_factory=dict)
    #: Whether the process sent its counts, so that `lost` is known.
    is_complete: bool = False
    interfaces: list[str] = field(default_factory=list)
    _answer: client.Answer | None = None
    _stopped_at: float | None = None

    def __enter__(self) -> Self:
        numbers = ",".join(str(page.number) for page in self.pages)
        words = ("dump", numbers, f"snap={self.snap}", f"buffer={self.buffer}")
        self._answer = client.Answer(self.process, words)
        return self

    def __exit__(self, *_: object) -> None:
        if self._answer is not None:
            self._answer.connection.close()

    def stop(self) -> None:
        """Have the process send what is left, and its counts. A second call changes nothing."""
        if self._answer is not None and self._stopped_at is None:
            self._stopped_at = time.monotonic()
            client.end(self._answer.connection)

    def blocks(self, until: float | None = None) -> Iterator[tuple[bytes, pcapng.Packet | None]]:
        """The blocks as they come, each with the frame in it if there is one.

        Ends when the process ends, after `stop`, and at `until` (of time.monotonic()), when it
        stops by itself. Raises ValueError for what is no pcapng, and OSError if the connection
        fails.
        """
        assert self._answer is not None
        connection = self._answer.connection
        stream = pcapng.Stream()
        data = self._answer.begun()
        while True:
            for block, meaning in stream.feed(data):
                if self._is_wanted(meaning):
                    yield block, self._note(meaning)
            connection.settimeout(self._patience(until))
            try:
                data = connection.recv(1 << 18)
            except TimeoutError:
                if self._stopped_at is not None:
                    return
                self.stop()
                data = b""
                continue
            if not data:
                return

    def _patience(self, until: float | None) -> float | None:
        now = time.monotonic()
        if self._stopped_at is not None:
            return max(0.01, self._stopped_at + LAST_BLOCKS - now)
        return None if until is None else max(0.001, until - now)

    def _is_wanted(self, meaning: pcapng.Packet | pcapng.Statistics | str | None) -> bool:
        if self.wanted is None or not isinstance(meaning, pcapng.Packet):
            return True
        if self.wanted(meaning.data, meaning.original):
            return True
        self.others += 1
        return False

    def _note(
        self, meaning: pcapng.Packet | pcapng.Statistics | str | None
    ) -> pcapng.Packet | None:
        if isinstance(meaning, pcapng.Packet):
            self.frames += 1
            return meaning
        if isinstance(meaning, str):
            self.interfaces.append(meaning)
        elif meaning is not None:
            self.lost[self.interface(meaning.interface)] = meaning.dropped
            self.is_complete = True
        return None

    def interface(self, number: int) -> str:
        """What an interface of the stream is called."""
        return self.interfaces[number] if number < len(self.interfaces) else f"interface {number}"

    def summary(self) -> str:
        """What came, and what was lost, in one line."""
        lost = sum(self.lost.values())
        frames = f"{self.frames:,} frames"
        if self.wanted is not None:
            frames += f" of {self.frames + self.others:,}"
        if not self.is_complete:
            return f"{frames}; the process ended before it could say what was lost"
        where = ", ".join(f"{count:,} on {name}" for name, count in self.lost.items() if count)
        return f"{frames}, {lost:,} lost" + (
            f" ({where}): they found no room in the buffer of {self.buffer:,} bytes" if lost else ""
        )


def filter_of(expression: str) -> Wanted:
    """Which frames an expression in tcpdump's language means.

    Raises ValueError, with a caret at the place, for what is none, RuntimeError where this millrace
    was built without filters, FileNotFoundError where libpcap is not installed.
    """
    try:
        filters = importlib.import_module("millrace.packets.filter")
    except ImportError as error:
        raise RuntimeError(
            f"this millrace has no packet filters ({error}); pipe to tcpdump instead: "
            "millrace dump -w - | tcpdump -r - EXPRESSION"
        ) from None
    made: Wanted = filters.Filter(expression).matches
    return made


_WAYS = {pcapng.INBOUND: "In ", pcapng.OUTBOUND: "Out"}


def line(capture: Capture, packet: pcapng.Packet) -> str:
    """A frame as one line of text."""
    seconds, nanoseconds = divmod(packet.time, 1_000_000_000)
    clock = datetime.datetime.fromtimestamp(seconds).strftime("%H:%M:%S")
    way = _WAYS.get(packet.direction, "   ")
    name = capture.interface(packet.interface)
    return f"{clock}.{nanoseconds // 1000:06} {name} {way} {frame.ethernet(packet.data)}"


def choose(found: Found, pid: int | None, port: str | None) -> tuple[Process, list[Page]]:
    """The process and the pages that are meant.

    Raises ValueError, which lists what there is, if that is none, or pages of several processes.
    """
    matching = [
        (process, page)
        for process, page in found.pages
        if (pid is None or process.pid == pid) and (port is None or port in _names(page))
    ]
    pids = {(process.pid, process.is_foreign) for process, _ in matching}
    if len(pids) == 1:
        return matching[0][0], [page for _, page in matching]
    there = [f"{process.pid} ({process.title}) {page.name}" for process, page in found.pages]
    listed = "; ".join(there) if there else "none"
    problems = "".join(f"; {problem}" for problem in found.problems)
    if not matching:
        raise ValueError(f"no Millrace process fits; there are: {listed}{problems}")
    raise ValueError(f"several processes fit; name one with --pid: {listed}")


def _names(page: Page) -> tuple[str, str]:
    return page.name, page.name.partition(":")[2]
