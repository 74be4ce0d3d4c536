"""Names that tell which process made a namespace, and removal of what dead processes left.

A namespace is called `mr-<pid>-<start>-<lab>.<host>`: the start time of the process (field 22 of
/proc/<pid>/stat, clock ticks since boot, in base 36) tells it from a later process that was given
the same number. What carries the name of a process that is gone belongs to nobody.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import time
from pathlib import Path

from millrace.lab import syscalls

NETNS_FOLDER = Path("/run/netns")

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_NAME = re.compile(r"mr-(\d+)-([0-9a-z]+)-.+")


def base36(number: int) -> str:
    """A number that is not negative, in base 36."""
    text = ""
    while True:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
        if number == 0:
            return text


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in brackets and may hold anything, so count from
    # its end: "state" is field 3.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in ("Z", "X"):
        return None
    return int(fields[19])


def namespace_name(lab: str, host: str) -> str:
    """The name of a host's namespace, marked as this process's."""
    pid = os.getpid()
    started = start_time(pid)
    if started is None:
        raise RuntimeError(f"/proc does not show process {pid}; a lab needs /proc mounted")
    return f"mr-{pid}-{base36(started)}-{lab}.{host}"


def is_leftover(name: str) -> bool:
    """Whether a namespace was made by a process that is gone."""
    match = _NAME.fullmatch(name)
    if match is None:
        return False
    started = start_time(int(match[1]))
    return started is None or base36(started) != match[2]


def remove_leftovers() -> list[str]:
    """Remove the namespaces of dead processes, with all that runs in them; give their names."""
    if not NETNS_FOLDER.is_dir():
        return []
    names = [entry.name for entry in NETNS_FOLDER.iterdir() if is_leftover(entry.name)]
    for name in names:
        remove_namespace(name)
    return names


def processes_in(namespace: Path) -> list[int]:
    """The processes whose main thread is in a network namespace, without this process."""
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return [pid for pid in pids if pid != os.getpid() and _is_in(pid, namespace)]


def _is_in(pid: int, namespace: Path) -> bool:
    try:
        return namespace.samefile(f"/proc/{pid}/ns/net")
    except OSError:  # it ended, or belongs to another user
        return False


def kill_processes_in(namespace: Path, seconds: float = 5.0) -> None:
    """Kill all that runs in a namespace and wait until it is gone."""
    deadline = time.monotonic() + seconds
    while (pids := processes_in(namespace)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                _kill_if_in(pid, namespace, deadline)


def _kill_if_in(pid: int, namespace: Path, deadline: float) -> None:
    fd = os.pidfd_open(pid)
    try:
        # The number may have passed to another process since it was listed; the descriptor
        # cannot, so look again before the signal.
        if _is_in(pid, namespace):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
    finally:
        os.close(fd)


def remove_namespace(name: str) -> None:
    """Kill what runs in a namespace and take its name away; one that is gone is no error."""
    path = NETNS_FOLDER / name
    if not path.exists():
        return
    kill_processes_in(path)
    with contextlib.suppress(OSError):  # never mounted: its maker died between the two steps
        syscalls.unmount(str(path))
    path.unlink(missing_ok=True)
