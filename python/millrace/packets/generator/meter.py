"""What became of generated packets, from what each of them carries."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from millrace._native import packets as native

_SLICE = 0.1


@dataclass(frozen=True)
class StreamReport:
    """What became of one stream."""

    #: The number that its sender gave it.
    stream: int
    #: Packets that came, doubled ones among them, and their bytes.
    received: int
    bytes: int
    #: Packets that came once at least.
    unique: int
    #: The least and the greatest number that came; packets are numbered from 0 on.
    first: int
    last: int
    #: Packets between these two that did not come. What was lost before the first and after the
    #: last only the sender knows.
    lost: int
    #: Packets that came after one that was sent later (RFC 4737).
    reordered: int
    #: Packets that had come before (RFC 5560).
    duplicated: int
    #: Packets so late that it is not known whether they had come before.
    late: int
    #: Packets that came before they were sent: the clocks of the two machines differ.
    negative: int
    #: From the first that came to the last.
    seconds: float
    #: From the sender's stamp to the port's timestamp, in nanoseconds: the mean, and percentiles by
    #: their number (0, 50, 90, 99 and so on). Two machines must have one clock.
    latency_mean_ns: float
    latency_ns: dict[float, int]
    #: The whole histogram: the greatest nanoseconds of each bucket that is not empty, and how many
    #: packets it has. It is exact to three digits (HDR histogram).
    histogram: list[tuple[int, int]]


@dataclass(frozen=True)
class MeterReport:
    """What a meter has seen."""

    #: Each stream, in the order in which they began; 64 are told apart.
    streams: tuple[StreamReport, ...]
    #: Packets with a stamp, those of streams that were not told apart, and packets without one.
    stamped: int
    other_streams: int
    unstamped: int


class Meter:
    """Receives generated packets and tells what became of them. It can be run once.

    As a context manager it runs in a thread of its own: what is sent within the block is metered,
    and `result` waits for the end.
    """

    def __init__(
        self,
        port: native.Port,
        *,
        packets: int | None = None,
        seconds: float | None = None,
        idle: float | None = None,
    ) -> None:
        """Ends after so many stamped `packets`, after so many `seconds`, or once nothing stamped
        has come for `idle` seconds, after something had.
        """
        self._port = port
        self._native = native.Meter(packets=packets, seconds=seconds, idle=idle)
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._failed: BaseException | None = None

    def run(
        self, watch: Callable[[MeterReport], None] | None = None, *, interval: float = 0.5
    ) -> MeterReport:
        """Receive to the end; `watch` is called every `interval` seconds or so.

        Raises OSError as `Port.receive`.
        """
        waited = 0.0
        while not self._stopped and not self._native.step(self._port, _SLICE, None):
            waited += _SLICE
            if watch is not None and waited >= interval:
                waited = 0.0
                watch(self.report())
        return self.report()

    def report(self) -> MeterReport:
        """What it has seen so far."""
        stamped, other_streams, unstamped = self._native.counts()
        streams = tuple(StreamReport(**stream) for stream in self._native.streams())
        return MeterReport(streams, stamped, other_streams, unstamped)

    def stop(self) -> None:
        """End `run`, from another thread or from a signal handler."""
        self._stopped = True

    def result(self) -> MeterReport:
        """Wait for the end of what runs in its own thread.

        Raises what `run` raises.
        """
        if self._thread is not None:
            self._thread.join()
        if self._failed is not None:
            raise self._failed
        return self.report()

    def __enter__(self) -> Self:
        def run() -> None:
            try:
                self.run()
            except BaseException as error:  # of any kind: `result` raises it
                self._failed = error

        self._thread = threading.Thread(target=run, name="meter")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.stop()
        if self._thread is not None:
            self._thread.join()
