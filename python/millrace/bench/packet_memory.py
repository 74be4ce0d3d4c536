"""How fast the table of headers is made and a filter chooses, on frames in memory, from Python."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import millrace
from millrace.bench.packet_worker import frame
from millrace.cli.report import Row

_FRAMES = 1024
#: What is asked of each frame, as `tcpdump` would be.
EXPRESSION = "udp port 9"


def measure(seconds: float, rounds: int) -> list[Row]:
    """Rows of `headers` and `filter`, one core, 64-byte frames."""
    batch = millrace.Batch([frame(64)] * _FRAMES)
    wanted = millrace.Filter(EXPRESSION)
    if not wanted.mask(batch).all():
        raise RuntimeError(f"{EXPRESSION!r} does not match what it must")
    found: list[Row] = []
    for work, call in (("headers", batch.headers), ("filter", lambda: wanted.mask(batch))):
        rates = [_rate(call, seconds / 2) for _ in range(rounds)]
        rate = median(rates)
        found.append(
            {
                "work": work,
                "tool": "millrace",
                "port": "memory",
                "frame_bytes": 64,
                "batch": _FRAMES,
                "mpps": rate / 1e6,
                "gbit_per_s": rate * 64 * 8 / 1e9,
                "lost": 0,
                "cpu_cores": 1.0,
                "mpps_min": min(rates) / 1e6,
                "mpps_max": max(rates) / 1e6,
                "rounds": rounds,
            }
        )
    return found


def _rate(call: Callable[[], object], seconds: float) -> float:
    """Frames for a second of processor time: what else the machine does is not measured."""
    call()
    used = begun = time.process_time()
    calls = 0
    while used - begun < seconds:
        for _ in range(64):
            call()
        calls += 64
        used = time.process_time()
    return calls * _FRAMES / (used - begun)
