"""Capture: the packets of an interface into files.

    from millrace.packets import Capture

    report = Capture("eth1", "trace.pcapng", "udp port 53", seconds=10).run()
    print(report.packets, report.lost)

Packets go from the kernel's ring into the file without an object of Python each. A file whose name
ends in `.parquet` gets the columns of the headers (`Batch.headers`) instead of the bytes.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from millrace._native import packets as native
from millrace.packets import interface
from millrace.packets.filter import Filter
from millrace.packets.stats import CaptureProgress

if TYPE_CHECKING:
    import numpy as np

    from millrace.packets.parquet import HeaderFiles

Direction = Literal["in", "out", "both"]
Format = Literal["pcapng", "pcap", "parquet"]

#: Flows that are followed where somebody wants to see them.
_FLOWS = 8192
#: Rows of a row group of a Parquet file.
_ROWS = 1 << 16


@dataclass(frozen=True)
class TopFlow:
    """A flow, both directions of it."""

    #: The headers of a packet of it, a row of `Batch.headers`.
    headers: np.void
    packets: int
    bytes: int


@dataclass(frozen=True)
class CaptureReport:
    """What a capture came to."""

    #: "packets", "time", "stopped", or "exhausted" (a file or a wire has ended).
    end: str
    #: Packets that were kept, and their bytes on the wire.
    packets: int
    bytes: int
    seconds: float
    #: Of these packets, those that were cut.
    cut: int
    #: Files, and their bytes.
    files: int
    written: int
    #: Packets that a filter in this process let not through.
    filtered: int
    #: Packets that were lost on the way to us, by reason; those of the kernel's ring among them.
    drops: dict[str, int] = field(default_factory=dict)
    #: What Linux counted at the interface meanwhile, whoever it was for; not part of `lost`.
    interface_drops: dict[str, int] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """Packets that should have been kept and were not."""
        return sum(self.drops.values())


class Capture:
    """Packets of a port into files, or nowhere. It can be run once."""

    def __init__(
        self,
        port: str,
        file: str | os.PathLike[str] | int | None = None,
        expression: str | Filter | None = None,
        *,
        packets: int | None = None,
        seconds: float | None = None,
        snap_length: int = 0,
        direction: Direction = "both",
        promiscuous: bool = True,
        buffer_bytes: int | None = None,
        format: Format | None = None,
        rotate_bytes: int | None = None,
        rotate_seconds: float | None = None,
        keep: int | None = None,
        flows: bool = False,
    ) -> None:
        """Open the port and the file; from now on packets are kept in the kernel's ring.

        `port` is as for `millrace.open`, but an interface's name alone is a packet socket, which
        takes nothing away from Linux. `file` is a name, a descriptor that is open, or None: then
        packets are only counted. `format` is what the name says, else "pcapng".

        `expression`: which packets, in tcpdump's language. `packets` and `seconds` end it.
        `snap_length`: bytes kept of a packet at most (0: all). `buffer_bytes`: the kernel's ring
        (64 MiB; at most 2 GiB); what finds it full is lost, and counted.

        Files follow one another (`trace-00001.pcapng` and on) with `rotate_bytes` and
        `rotate_seconds`; the oldest are deleted when there are more than `keep`. `flows`: follow
        flows, for `top`.

        Raises ValueError for what makes no sense (FilterError for an expression), ImportError for
        Parquet without pyarrow, or an OSError that says what is in the way.
        """
        if direction not in ("in", "out", "both"):
            raise ValueError(f"direction is 'in', 'out' or 'both', not {direction!r}")
        if format is None:
            format = _format_of(file)
        if format not in ("pcapng", "pcap", "parquet"):
            raise ValueError(f"format is 'pcapng', 'pcap' or 'parquet', not {format!r}")
        if isinstance(expression, str):
            expression = Filter(expression) if expression.strip() else None
        #: What `millrace.open` would call the port.
        self.port = port
        self._files: HeaderFiles | None = None
        options: dict[str, Any] = {}
        if format == "parquet" and file is not None:
            if isinstance(file, int):
                raise ValueError("a Parquet file is written by name: its index is at its end")
            from millrace.packets.parquet import HeaderFiles

            self._files = HeaderFiles(
                Path(file),
                rotate_bytes=rotate_bytes,
                rotate_seconds=rotate_seconds,
                keep=keep,
                about={"interface": port, "filter": expression.expression if expression else ""},
            )
            options["rows"] = _ROWS
        elif file is not None:
            options["descriptor" if isinstance(file, int) else "path"] = file
            options["format"] = format
            options["rotate_bytes"] = rotate_bytes
            options["rotate_seconds"] = rotate_seconds
            options["keep"] = keep
        self._before = interface.counters(port, interface.RX_DROPS)
        self._native = native.Capture(
            port,
            filter=expression,
            packets=packets,
            seconds=seconds,
            snap_length=snap_length,
            promiscuous=promiscuous,
            incoming=direction != "out",
            outgoing=direction != "in",
            buffer_bytes=buffer_bytes,
            flows=_FLOWS if flows else None,
            **options,
        )

    @property
    def facts(self) -> dict[str, str]:
        """How packets are taken, by name."""
        return self._native.facts

    def run(
        self, watch: Callable[[Capture], None] | None = None, *, interval: float = 0.5
    ) -> CaptureReport:
        """Capture until a limit, `stop`, or an error; `watch` is called every `interval` seconds.

        Packets are taken in a thread of their own, whatever `watch` does.

        Raises OSError: an interface that is gone or down, a full disk, a pipe without a reader.
        What was written before stays readable.
        """
        ended: list[str] = []
        failed: list[BaseException] = []

        def capture() -> None:
            try:
                ended.append(self._native.run())
            except BaseException as error:  # of any kind: it is raised below
                failed.append(error)

        thread = threading.Thread(target=capture, name="capture")
        thread.start()
        try:
            self._follow(thread, watch, interval)
        except BaseException:
            self._native.stop()
            # Nobody takes the rest of the rows, so the capture must not wait for that.
            thread.join()
            raise
        finally:
            if self._files is not None:
                with contextlib.ExitStack() as steps:
                    steps.callback(self._files.close, self._counts())
        if failed:
            raise failed[0]
        return self._report(ended[0])

    def _follow(
        self,
        thread: threading.Thread,
        watch: Callable[[Capture], None] | None,
        interval: float,
    ) -> None:
        next_look = time.monotonic() + interval
        over = False
        while not over:
            left = max(0.0, next_look - time.monotonic())
            if self._files is None:
                thread.join(left)
                over = not thread.is_alive()
            else:
                table, over = self._native.rows(left)
                if table is not None:
                    self._files.write(table)
            if time.monotonic() >= next_look:
                if watch is not None:
                    watch(self)
                next_look = time.monotonic() + interval
        thread.join()
        if watch is not None:
            watch(self)

    def stop(self) -> None:
        """End `run`, from another thread or from a signal handler. What came before is kept."""
        self._native.stop()

    def progress(self) -> CaptureProgress:
        """What it has done so far."""
        return self._native.progress()

    def top(self, count: int = 10) -> tuple[list[TopFlow], int]:
        """The flows with the most bytes, and how many others were given up for want of room."""
        headers, packets, sizes, given_up = self._native.top(count)
        return [TopFlow(*row) for row in zip(headers, packets, sizes, strict=True)], given_up

    def _counts(self) -> dict[str, int]:
        progress = self.progress()
        return {"packets": progress["packets"], "lost": sum(progress["drops"].values())}

    def _report(self, end: str) -> CaptureReport:
        progress = self.progress()
        drops = {name: count for name, count in progress["drops"].items() if count}
        if progress["unwritten"]:
            drops["unwritten"] = progress["unwritten"]
        files, written = progress["files"], progress["written"]
        if self._files is not None:
            files, written = self._files.begun, self._files.written
        return CaptureReport(
            end=end,
            packets=progress["packets"] - progress["unwritten"],
            bytes=progress["bytes"],
            seconds=progress["seconds"],
            cut=progress["cut"],
            files=files,
            written=written,
            filtered=progress["filtered"],
            drops=drops,
            interface_drops=interface.more(self.port, self._before),
        )


def _format_of(file: str | os.PathLike[str] | int | None) -> Format:
    """What the suffix of a name says."""
    suffix = Path(file).suffix if isinstance(file, str | os.PathLike) else ""
    return {".pcap": "pcap", ".parquet": "parquet"}.get(suffix, "pcapng")  # type: ignore[return-value]
