"""Sending a capture file again: at its own pace, faster, slower, or at a given one.

from millrace.packets import Replay
from millrace.packets.sender import sender

with sender("eth1") as port:
    report = Replay("trace.pcapng", speed=2).run(port)
print(report.packets, report.late)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from millrace._native import packets as native
from millrace.packets.filter import Filter
from millrace.packets.stats import ReplayProgress

_SLICE = 0.1


@dataclass(frozen=True)
class ReplayReport:
    """What was sent of a file, and what was not."""

    #: Packets that the port took, and their bytes.
    packets: int
    bytes: int
    seconds: float
    #: Packets that were read.
    read: int
    #: Of these, packets that the expression let not through, and those that are too long or too
    #: short for the link.
    filtered: int
    too_long: int
    too_short: int
    #: Packets that were sent as they are in the file, which has not all of their bytes.
    cut: int
    #: Times without a packet that were cut to the longest that is allowed.
    gaps_cut: int
    #: Packets that left more than a millisecond after their time.
    late: int
    #: How often the file was sent.
    times: int
    #: Packets that were taken and lost on the way out, by reason.
    drops: dict[str, int] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """Packets that the port took and that did not leave."""
        return sum(self.drops.values())

    @property
    def packets_per_s(self) -> float:
        """Packets a second."""
        return self.packets / self.seconds if self.seconds else 0.0

    @property
    def bits_per_s(self) -> float:
        """Bits of frames a second, without preamble, check sequence and gap."""
        return self.bytes * 8 / self.seconds if self.seconds else 0.0


class Replay:
    """The packets of a pcap or pcapng file, to be sent by a port. It can be run once."""

    def __init__(
        self,
        file: str | os.PathLike[str],
        expression: str | Filter | None = None,
        *,
        speed: float | None = None,
        packets_per_s: float | None = None,
        bits_per_s: float | None = None,
        fastest: bool = False,
        longest_gap: float = 60.0,
        times: int = 1,
        packets: int | None = None,
        seconds: float | None = None,
        batch: int = 64,
    ) -> None:
        """Open the file. Packets of all its interfaces are sent, in the file's order.

        They are sent as long after one another as they were captured, `speed` times faster (1
        without another pace), or at a pace in packets or in bits of frames a second, or as fast as
        they go. What is longer than `longest_gap` seconds in the file is cut to it; a time that
        goes back is no time at all.

        `expression`: which packets, in tcpdump's language. The file is sent so many `times`;
        `packets` and `seconds` end it.

        Raises ValueError for what makes no sense, OSError for what is no capture file.
        """
        paces = [speed, packets_per_s, bits_per_s, fastest or None]
        if sum(pace is not None for pace in paces) > 1:
            raise ValueError(
                "a file is sent at one pace: speed, packets_per_s, bits_per_s or fastest"
            )
        if not any(pace is not None for pace in paces):
            speed = 1.0
        if isinstance(expression, str):
            expression = Filter(expression) if expression.strip() else None
        self._native = native.Replay(
            os.fspath(file),
            speed=speed,
            longest_gap=longest_gap,
            packets_per_s=packets_per_s,
            bits_per_s=bits_per_s,
            times=times,
            packets=packets,
            seconds=seconds,
            filter=expression,
            batch=batch,
        )
        self._stopped = False

    def run(
        self,
        port: native.Port,
        watch: Callable[[ReplayProgress], None] | None = None,
        *,
        interval: float = 0.5,
    ) -> ReplayReport:
        """Send to the end; `watch` is called every `interval` seconds.

        Raises OSError: a damaged file, after all before the damage was sent; an interface that is
        gone or down; a port that takes nothing for long (TimeoutError).
        """
        before = port.stats()["drops"]
        looked = 0.0
        try:
            while not self._stopped and not self._native.step(port, min(_SLICE, interval)):
                progress = self._native.done()
                if watch is not None and progress["seconds"] - looked >= interval:
                    looked = progress["seconds"]
                    watch(progress)
        finally:
            self._native.finish(port)
        if watch is not None:
            watch(self._native.done())
        after = port.stats()["drops"]
        drops = {
            name: count - before.get(name, 0)
            for name, count in after.items()
            if name.startswith("tx_") and count > before.get(name, 0)
        }
        return ReplayReport(**self._native.done(), drops=drops)

    def stop(self) -> None:
        """End `run`, from another thread or from a signal handler."""
        self._stopped = True

    def progress(self) -> ReplayProgress:
        """What was sent so far."""
        return self._native.done()
