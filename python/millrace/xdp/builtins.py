"""Functions that a program may call beside its own. In plain Python they do what they can."""

from __future__ import annotations

import os
import random as _random
import time

from millrace.xdp.verdict import REDIRECT, Verdict


def redirect(interface: str | int) -> Verdict:
    """The verdict that sends the frame out of an interface. A name is looked up when the program is
    loaded. To redirect by number in a table, to a CPU or to a socket, see DevMap, CpuMap and
    XskMap.
    """
    return REDIRECT


def now() -> int:
    """Nanoseconds of the monotonic clock (bpf_ktime_get_ns, as `time.monotonic_ns`)."""
    return time.monotonic_ns()


def random() -> int:
    """A random number of 32 bits (bpf_get_prandom_u32)."""
    return _random.getrandbits(32)


def cpu() -> int:
    """The number of the CPU that the program runs on (bpf_get_smp_processor_id)."""
    return min(os.sched_getaffinity(0))
