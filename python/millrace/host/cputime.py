"""What each CPU spent its time on, and what it did in softirqs.

proc_stat(5); /proc/softirqs is in Documentation/filesystems/proc.rst.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from millrace.host.access import Access

#: /proc/stat counts in ticks of this length.
TICK_SECONDS = 1.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Seconds of one CPU since the machine started."""

    user: float
    nice: float
    system: float
    idle: float
    iowait: float
    irq: float
    softirq: float
    #: Seconds that the hypervisor gave to others while this CPU wanted to run.
    steal: float

    @property
    def busy(self) -> float:
        """All but idle and waiting for a disk."""
        return self.user + self.nice + self.system + self.irq + self.softirq + self.steal


def read_cpu_times(access: Access) -> Mapping[int, CpuTime]:
    """Every CPU's seconds, by its number."""
    found = {}
    for line in access.files.read("/proc/stat").splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdecimal() and len(fields) >= 8:
            found[int(name[3:])] = CpuTime(*(int(word) * TICK_SECONDS for word in fields[:8]))
    return found


def read_softirqs(access: Access) -> Mapping[str, Mapping[int, int]]:
    """How often each kind of softirq ran on each CPU: {"NET_RX": {0: 12, 1: 7}, ...}."""
    lines = access.files.read("/proc/softirqs").splitlines()
    cpus = [int(word[3:]) for word in lines[0].split()] if lines else []
    found = {}
    for line in lines[1:]:
        name, _, words = line.partition(":")
        counts = dict(zip(cpus, map(int, words.split()), strict=False))
        found[name.strip()] = counts
    return found
