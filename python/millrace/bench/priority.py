"""Let what is measured run before whatever else the machine does.

A nice value does not do that: Linux weighs sessions against each other first (sched_autogroup). A
real-time policy does, where this user may ask for it; the kernel leaves other programs a twentieth.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

#: Less than that of a wire's forwarder (`millrace.lab.forwarder`), which sleeps when it is done.
PRIORITY = 1


def prefer(pid: int, priority: int = PRIORITY) -> bool:
    """Run a process's threads, and those they start from now on, before ordinary ones.

    Among them the higher priority runs. Whether that was allowed. One that has ended is no error.
    """
    try:
        threads = [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return False
    for thread in threads:
        with contextlib.suppress(ProcessLookupError):
            try:
                os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(priority))
            except PermissionError:
                return False
    return True
