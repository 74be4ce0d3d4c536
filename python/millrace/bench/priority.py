"""Let what is measured run before whatever else the machine does.

A nice value alone does not do that: Linux weighs sessions against each other first
(sched_autogroup). A real-time policy does, where this user may ask for it: `prefer`. But of what
real-time programs leave nothing, the kernel gives others 50 ms in each second, in one piece (the
fair server of Documentation/scheduler/sched-deadline.rst). Where programs that are measured fill
both cores, they stand still for as long; `favour` gives a session the greatest weight instead.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

#: Less than that of a wire's forwarder (`millrace.lab.forwarder`), which sleeps when it is done.
PRIORITY = 1
#: The least nice value, which is the greatest weight.
_NICE = -20


def favour(pid: int) -> bool:
    """Weigh a process that leads a session twenty nice levels heavier than ordinary ones.

    Whether that was allowed. One that has ended is no error.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, pid, _NICE)
        Path(f"/proc/{pid}/autogroup").write_text(f"{_NICE}", encoding="ascii")
    except PermissionError:
        return False
    except OSError:
        # Without sched_autogroup sessions weigh nothing, and the nice value is enough.
        return True
    return True


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
