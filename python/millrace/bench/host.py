"""What one step costs on this machine beside what was published, and what looking at it costs.

The steps are measured by `millrace-bench latency`: a load from each cache and from memory, a system
call, a switch between threads with and without affinity, a wake-up across cores, and 1 KiB there
and back through loopback. The published figures are of other machines and other years; they give
the order of magnitude.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from millrace.bench import binary
from millrace.bench.figures import Outcome, Row
from millrace.host.files import Files
from millrace.host.unavailable import NotAvailable

HANGS_AFTER_SECONDS = 300.0
#: A run of the doctor takes at most this long beside its window.
DOCTOR_SECONDS = 2.0

_DEAN = "J. Dean and C. Carruth, latency numbers"
_SIGOURE = "B. Sigoure 2010, Xeon L5630"
_BENDERSKY = "E. Bendersky 2018, threads and pipes"
_STACKMAP = "StackMap (ATC'16): HTTP, 1 KiB, 10 GbE, Linux 4.2 sleeping"


@dataclass(frozen=True)
class Published:
    """A figure that somebody else measured."""

    nanoseconds: float
    source: str


PUBLISHED: Mapping[str, Published] = {
    "L1 cache": Published(0.5, _DEAN),
    "L2 cache": Published(7, _DEAN),
    "memory": Published(100, _DEAN),
    "system call": Published(50, _SIGOURE),
    "switch, one core": Published(1500, _BENDERSKY),
    "switch, no affinity": Published(2200, _BENDERSKY),
    "loopback 1 KiB, two cores": Published(25_540, _STACKMAP),
}


def measure(*, batches: int = 15, runs: int = 5) -> Outcome:
    """The table of latencies, and what the doctor takes."""
    sizes = working_sets(Files())
    rows = latencies(sizes, batches=batches)
    seconds = doctor_seconds(runs)
    notes = [
        f"millrace doctor takes {max(seconds):.2f} s at most of {runs} runs beside its window "
        f"(median {sorted(seconds)[len(seconds) // 2]:.2f} s, with starting Python); "
        f"the limit is {DOCTOR_SECONDS:g} s: "
        + ("held" if max(seconds) <= DOCTOR_SECONDS else "NOT held"),
        "Medians of batches of 4 ms; `least` is the quickest batch. A switch is half of a round "
        "trip through two pipes, so it holds a write and a read as well.",
    ]
    return Outcome(rows, notes)


def working_sets(files: Files) -> dict[str, int]:
    """Bytes that stay in each cache, and some that stay in none: {"L1 cache": 24576, ...}."""
    caches: dict[int, int] = {}
    base = "/sys/devices/system/cpu/cpu0/cache"
    for name in files.names(base):
        level = files.number(f"{base}/{name}/level")
        kind = files.text(f"{base}/{name}/type")
        size = files.text(f"{base}/{name}/size")
        if kind == "Instruction" or isinstance(size, NotAvailable) or not isinstance(level, int):
            continue
        if size.endswith("K") and size[:-1].isdecimal():
            caches[level] = int(size[:-1]) << 10
    found: dict[str, int] = {}
    below = 0
    for level, size_bytes in sorted(caches.items()):
        # Well beyond the cache below it, and never more than half of its own: others use it too.
        found[f"L{level} cache"] = min(size_bytes // 2, 4 * below or size_bytes)
        below = size_bytes
    return {**found, "memory": min(max(4 * below, 256 << 20), 512 << 20)}


def latencies(sizes: Mapping[str, int], *, batches: int) -> list[Row]:
    """The rows of the table."""
    by_bytes = {size: name for name, size in sizes.items()}
    measured = _run(sorted(by_bytes), batches)
    rows: list[Row] = []
    for one in measured:
        step = by_bytes.get(_whole(one["bytes"]), "load") if one["what"] == "load" else one["what"]
        published = PUBLISHED.get(str(step))
        rows.append(
            {
                "step": str(step),
                "bytes": _whole(one["bytes"]) or None,
                "ns": one["ns"],
                "least_ns": one["least_ns"],
                "published_ns": published.nanoseconds if published else None,
                "published": published.source if published else None,
            }
        )
    return rows


def _run(sizes: Sequence[int], batches: int) -> list[Row]:
    cpus = sorted(os.sched_getaffinity(0))[:2]
    command = [
        *(str(binary.find()), "latency", "--batches", str(batches)),
        *("--bytes", ",".join(map(str, sizes)), "--cpus", ",".join(map(str, cpus))),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=HANGS_AFTER_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{binary.NAME} did not end within {HANGS_AFTER_SECONDS:g} s") from None
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().removeprefix(f"{binary.NAME}: "))
    rows: list[Row] = json.loads(done.stdout)
    return rows


def doctor_seconds(runs: int) -> list[float]:
    """Wall time of whole runs of `millrace doctor` at a glance, each a process of its own."""
    found = []
    for _ in range(runs):
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "millrace", "doctor", "--watch", "0"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=HANGS_AFTER_SECONDS,
            check=False,
        )
        found.append(time.perf_counter() - begun)
        if done.returncode not in (0, 3):
            raise RuntimeError(f"millrace doctor failed: {done.stderr.strip()}")
    return found


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
