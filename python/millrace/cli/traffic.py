"""What the commands that make traffic share: paces, an end by a signal, a line of progress."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Protocol

_TIMES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


class _Report(Protocol):
    @property
    def packets(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def packets_per_s(self) -> float: ...
    @property
    def bits_per_s(self) -> float: ...
    @property
    def drops(self) -> dict[str, int]: ...


def packets_per_second(text: str | None) -> float | None:
    """A pace such as "1000", "1.5M", "200k"."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([kmg]?)(pps)?", text.strip().lower())
    if match is None:
        raise ValueError(
            f'--pps is a number of packets a second such as 1000 or "1.5M", not {text!r}'
        )
    return float(match[1]) * _TIMES[match[2]]


def bits_per_second(text: str | None) -> float | None:
    """A pace such as "100M", "1.5Gbit/s"."""
    from millrace.lab.impairment import rate

    return None if text is None else float(rate("--rate", text))


def span(name: str, text: str | None) -> float | None:
    """Seconds of an option, such as "10s" or "5min"."""
    from millrace.lab.impairment import time as seconds

    return None if text is None else seconds(name, text)


@contextlib.contextmanager
def ended_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the work, and not the command, which then says what it did."""

    def end(number: int, frame: FrameType | None) -> None:
        stop()

    previous = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class ProgressLine:
    """One line on a terminal that is written over, and gone at the end."""

    def __init__(self, quiet: bool) -> None:
        self._shown = not quiet and sys.stderr.isatty()
        self._last: tuple[float, int, int] | None = None

    def show(self, packets: int, size: int) -> None:
        """Show the packets and bytes so far, and their rate since the line was shown last."""
        if not self._shown:
            return
        now = time.monotonic()
        if self._last is not None:
            before, had_packets, had_bytes = self._last
            seconds = max(now - before, 1e-9)
            text = rates((packets - had_packets) / seconds, (size - had_bytes) * 8 / seconds)
            print(f"\r\x1b[K{packets:,} packets, {text}", end="", file=sys.stderr, flush=True)
        self._last = (now, packets, size)

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def rates(packets_per_s: float, bits_per_s: float) -> str:
    """Rates as people read them."""
    for unit, times in (("M ", 1e6), ("k ", 1e3), ("", 1.0)):
        if packets_per_s >= times or times == 1.0:
            return f"{packets_per_s / times:.4g} {unit}packets/s, {bits_per_s / 1e9:.4g} Gbit/s"
    raise AssertionError


def sent_lines(report: _Report, how: str, interface_drops: dict[str, int]) -> list[str]:
    """What is said of what was sent, and of what was lost on the way out."""
    lines = [
        f"{report.packets:,} packets of {report.bytes:,} bytes in {report.seconds:.3f} s by {how}: "
        f"{rates(report.packets_per_s, report.bits_per_s)}"
    ]
    for name, count in report.drops.items():
        lines.append(f"{count:,} of them were lost on the way out: {name}")
    for name, count in interface_drops.items():
        lines.append(f"the interface counted {count:,} {name} meanwhile")
    return lines
