"""How long a core was busy, from /proc/stat.

Busy is all that is not idle, iowait or steal: programs, kernel, interrupts and softirqs. Guest time
is part of user time already (proc_stat(5)). The kernel counts in ticks of 1/`SC_CLK_TCK` second,
usually 10 ms. Unless it was built for exact accounting it books each whole tick on whatever the
timer interrupt finds running, so a figure is a sample of as many looks as there were ticks.

What a process spent itself is counted by the scheduler in nanoseconds. That leaves out what the
kernel does on the core while the process sleeps, and is a second opinion for what it does not.
"""

from __future__ import annotations

import os
from pathlib import Path

TICK_SECONDS = 1.0 / os.sysconf("SC_CLK_TCK")

_STAT = Path("/proc/stat")


def busy_seconds(core: int) -> float:
    """How long a core has been busy since the machine started."""
    return parse(_STAT.read_text(), core) * TICK_SECONDS


def parse(text: str, core: int) -> int:
    """Busy ticks of a core in the text of /proc/stat."""
    for line in text.splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq = map(int, fields[:7])
            return user + nice + system + irq + softirq
    raise ValueError(f"/proc/stat has no line for core {core}; is it offline?")


def rounding_us(requests: float) -> float:
    """Microseconds a request by which one tick, at either end of the window, can be off."""
    return TICK_SECONDS * 1e6 / requests if requests else float("inf")


def process_seconds(pid: int) -> float | None:
    """How long the threads of a process have run; None where the kernel does not count it."""
    total = 0
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            # CONFIG_SCHED_INFO; Documentation/scheduler/sched-stats.rst
            total += int((thread / "schedstat").read_text().split()[0])
    except OSError:
        return None
    return total / 1e9
