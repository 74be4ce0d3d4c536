"""Capture to a file beside tcpdump: how many packets of the same flood each keeps.

One tool after the other takes what comes in at one end of a veth, at several offered rates, with a
ring of the same size, on the same core; the sender is always ours, on AF_XDP, on the other core.
What arrived is what the interface counted, what was kept is what the tool said at its end, and what
it says it lost must make up the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from millrace.bench import core_time
from millrace.cli.report import Row
from millrace.lab import Interface, Lab, Wire

#: Packets a second that are offered; None: as many as the sender can.
RATES = (100_000.0, 300_000.0, 500_000.0, None)
SIZES = (64, 1514)
TOOLS = ("millrace", "tcpdump")
#: The kernel's ring of either tool.
_RING_BYTES = 64 << 20
#: More than a tool takes to begin or to end; longer is a hang.
_PATIENCE_SECONDS = 60.0
#: What tcpdump says.
_CAPTURED = re.compile(r"(\d+) packets? captured")
_DROPPED = re.compile(r"(\d+) packets? dropped by kernel")


@dataclass(frozen=True)
class Run:
    """What one run showed."""

    seconds: float
    #: Packets that the sender's port took, that the receiving interface counted, that the tool
    #: kept, and that it says it has lost.
    offered: int
    arrived: int
    kept: int
    told_lost: int
    cpu_cores: float


def missing() -> str | None:
    """Why tcpdump cannot be measured here, if it cannot."""
    return None if shutil.which("tcpdump") else "tcpdump is not installed (apt install tcpdump)"


def measure(
    lab: Lab,
    seconds: float = 1.0,
    rounds: int = 3,
    *,
    sizes: Sequence[int] = SIZES,
    rates: Sequence[float | None] = RATES,
    tools: Sequence[str] = TOOLS,
    begin: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """A row for each tool, size and offered rate: of several runs the medians and all packets.

    `begin` is told of each step.
    """
    cores = sorted(os.sched_getaffinity(0))
    under_test, other = cores[-1], cores[0]
    wire = lab.wire(lab.host("sender"), lab.host("capturer"), addresses=(None, None))
    for end in (wire.a, wire.b):
        end.host.sysctl(f"net/ipv6/conf/{end.name}/disable_ipv6", 1)
    rows: list[Row] = []
    with _folder() as folder:
        for size in sizes:
            for rate in rates:
                offered = "as many as go" if rate is None else f"{rate / 1e6:g} M/s"
                begin(f"capture, {size} bytes, {offered}")
                runs: dict[str, list[Run]] = {tool: [] for tool in tools}
                for number in range(rounds):
                    # Whoever comes first is another one each time.
                    for tool in tools if number % 2 == 0 else reversed(tools):
                        path = folder / f"{tool}.pcap"
                        runs[tool].append(
                            _run(tool, wire, path, size, rate, seconds, under_test, other)
                        )
                        path.unlink()
                rows += [_row(tool, size, rate, found) for tool, found in runs.items()]
    return rows


def _row(tool: str, size: int, rate: float | None, runs: Sequence[Run]) -> Row:
    kept = median(run.kept / run.seconds for run in runs)
    arrived = sum(run.arrived for run in runs)
    return {
        "work": "capture",
        "tool": tool,
        "port": "af_packet",
        "frame_bytes": size,
        "batch": 64,
        "mpps": kept / 1e6,
        "gbit_per_s": kept * size * 8 / 1e9,
        "lost": arrived - sum(run.kept for run in runs),
        "cpu_cores": median(run.cpu_cores for run in runs),
        "wanted_mpps": None if rate is None else rate / 1e6,
        "offered": sum(run.offered for run in runs),
        "delivered": arrived,
        "kept": sum(run.kept for run in runs) / max(arrived, 1),
        "unaccounted": sum(run.arrived - run.kept - run.told_lost for run in runs),
        "rounds": len(runs),
    }


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Where files are written: memory if there is some, since no disk is to be measured."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


def _run(
    tool: str,
    wire: Wire,
    path: Path,
    size: int,
    rate: float | None,
    seconds: float,
    under_test: int,
    other: int,
) -> Run:
    start = {"millrace": _millrace, "tcpdump": _tcpdump}[tool]
    with start(wire.b, path, under_test) as process:
        before = _received(wire.b)
        spent, begun = core_time.process_seconds(process.pid), time.monotonic()
        sent = _send(wire.a, size, rate, seconds, other)
        passed = time.monotonic() - begun
        spent_after = core_time.process_seconds(process.pid)
        arrived = _received(wire.b) - before
        if tool == "tcpdump":
            _settle(process, arrived)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=_PATIENCE_SECONDS)
    kept, lost = _ended(tool, out, err)
    cores = 0.0 if spent is None or spent_after is None else (spent_after - spent) / passed
    return Run(sent["seconds"], sent["packets"], arrived, kept, lost, cores)


def _millrace(
    end: Interface, path: Path, core: int
) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    return _started(
        end,
        [
            *(sys.executable, "-m", "millrace", "capture", end.name, "-w", str(path)),
            *("--buffer", str(_RING_BYTES), "--json", "-"),
        ],
        core,
        "capturing on",
    )


def _tcpdump(
    end: Interface, path: Path, core: int
) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    return _started(
        end,
        [
            *("tcpdump", "-n", "-Z", "root", "-i", end.name, "-w", str(path)),
            *("-B", str(_RING_BYTES >> 10), "--time-stamp-precision=nano"),
        ],
        core,
        "listening on",
    )


@contextlib.contextmanager
def _started(
    end: Interface, command: list[str], core: int, ready: str
) -> Iterator[subprocess.Popen[str]]:
    process: subprocess.Popen[str] = end.host.popen(
        command, core=core, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stderr is not None
            told = process.stderr.readline()
            if ready not in told:
                raise RuntimeError(f"{command[0]} did not begin to capture: {told.strip()}")
            yield process
        finally:
            process.kill()


def _settle(process: subprocess.Popen[str], arrived: int) -> None:
    """Wait until tcpdump has taken all from its ring: it throws away what is in there at its end.

    Its ring gives a block that is not full only after a second. SIGUSR1 makes it tell its counts.
    """
    assert process.stderr is not None
    end = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < end:
        process.send_signal(signal.SIGUSR1)
        if not select.select([process.stderr], [], [], _PATIENCE_SECONDS)[0]:
            return
        told = process.stderr.readline()
        kept, lost = _CAPTURED.search(told), _DROPPED.search(told)
        if kept is None or lost is None or int(kept[1]) + int(lost[1]) >= arrived:
            return
        time.sleep(0.05)


def _send(
    end: Interface, size: int, rate: float | None, seconds: float, core: int
) -> dict[str, Any]:
    pace = [] if rate is None else ["--pps", str(rate)]
    done = end.host.run(
        [
            *(sys.executable, "-m", "millrace", "send", f"af_xdp:{end.name}"),
            *("--destination", "192.0.2.2", "--destination-mac", "02:00:00:00:00:02"),
            *("--source", "192.0.2.1", "--source-port", "1024-2047", "--size", str(size)),
            *("--duration", f"{seconds}s", *pace, "--json", "-"),
        ],
        core=core,
        timeout=seconds + _PATIENCE_SECONDS,
    )
    told: dict[str, Any] = json.loads(done.stdout)[0]
    return told


def _ended(tool: str, out: str, err: str) -> tuple[int, int]:
    """Packets that a tool has kept, and that it says it has lost."""
    if tool == "millrace":
        told = json.loads(out)[0]
        return told["packets"], told["lost"]
    kept, lost = _CAPTURED.search(err), _DROPPED.search(err)
    if kept is None or lost is None:
        raise RuntimeError(f"tcpdump did not say what it has captured: {err.strip()}")
    return int(kept[1]), int(lost[1])


def _received(end: Interface) -> int:
    """Packets that an interface has counted."""
    with end.host.enter():
        text = Path("/proc/thread-self/net/dev").read_text()
    for line in text.splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == end.name:
            return int(counts.split()[1])
    raise RuntimeError(f"{end.name} is gone")
