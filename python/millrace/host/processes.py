"""Processes that matter to packets: who owns a socket, who polls, who moves interrupts about."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from millrace.host.access import Access
from millrace.host.cpuset import parse_list
from millrace.host.files import Files

#: More open files than this are not looked at in search of sockets' owners.
MAX_FILES = 1 << 18
#: More threads than this are not looked at.
MAX_THREADS = 1 << 15
#: A process with more threads than this has its first ones shown.
MAX_THREADS_OF_PROCESS = 256


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread with what it may run on and how it was run."""

    pid: int
    tid: int
    name: str
    #: CPUs that it may run on.
    allowed: tuple[int, ...]
    #: The CPU that it ran on last.
    cpu: int
    #: Seconds of CPU since it began.
    seconds: float
    #: How often it was made to give its CPU away.
    involuntary_switches: int
    #: How often it was moved to another CPU; None where the kernel does not count it.
    migrations: int | None
    #: "other", "fifo", "rr", "deadline", ...
    policy: str


@dataclass(frozen=True, slots=True)
class Process:
    """A process that has sockets."""

    pid: int
    name: str
    #: The inodes of its sockets.
    inodes: tuple[int, ...]
    threads: tuple[Thread, ...]
    #: Memory that is locked, and the limit for it; bytes, None for no limit.
    locked: int
    locked_limit: int | None
    #: Open files, and the limit for them.
    files: int
    files_limit: int | None


_POLICIES = {0: "other", 1: "fifo", 2: "rr", 3: "batch", 5: "idle", 6: "deadline", 7: "ext"}
_TICKS = os.sysconf("SC_CLK_TCK")


def read_processes(access: Access) -> tuple[Process, ...]:
    """Every process of this network namespace that has sockets, as far as this user may look."""
    files = access.files
    ours = _namespace(files, "thread-self") if access.is_live else ""
    found = []
    budget, threads = MAX_FILES, MAX_THREADS
    for pid in _pids(files):
        if ours and _namespace(files, str(pid)) != ours:
            continue
        inodes, seen = _sockets_of(files, pid, budget)
        budget -= seen
        if inodes:
            found.append(_process(files, pid, inodes, seen))
            threads -= len(found[-1].threads)
        if budget <= 0 or threads <= 0:
            break
    return tuple(found)


def read_kernel_threads(access: Access) -> tuple[Thread, ...]:
    """The threads of the kernel's that do network work: ksoftirqd and those of threaded NAPI."""
    files = access.files
    found: list[Thread] = []
    for pid in _pids(files):
        name = files.text(f"/proc/{pid}/comm")
        if isinstance(name, str) and re.match(r"ksoftirqd/\d|napi/|backlog_napi/", name):
            found += _threads(files, pid, [pid])
    return tuple(found)


def read_services(access: Access) -> Mapping[str, int]:
    """Which programs run that change network settings by themselves, and their process numbers."""
    wanted = ("irqbalance", "tuned", "NetworkManager", "systemd-networkd")
    found: dict[str, int] = {}
    for pid in _pids(access.files):
        name = access.files.text(f"/proc/{pid}/comm")
        for service in wanted:
            # The kernel keeps 15 bytes of a name.
            if isinstance(name, str) and name == service[:15]:
                found.setdefault(service, pid)
    return found


def owners(processes: Iterable[Process]) -> dict[int, Process]:
    """The process that has the socket with an inode; of several the first."""
    found: dict[int, Process] = {}
    for process in processes:
        for inode in process.inodes:
            found.setdefault(inode, process)
    return found


def _pids(files: Files) -> Iterator[int]:
    yield from sorted(int(name) for name in files.names("/proc/.") if name.isdecimal())


def _namespace(files: Files, pid: str) -> str:
    try:
        return os.readlink(files.path(f"/proc/{pid}/ns/net"))
    except OSError:
        return ""


def _sockets_of(files: Files, pid: int, budget: int) -> tuple[list[int], int]:
    """The inodes of a process's sockets, and how many files it has open."""
    base = files.path(f"/proc/{pid}/fd")
    found: list[int] = []
    try:
        names = os.listdir(base)
    except OSError:
        return [], 0
    for name in names[:budget]:
        try:
            target = os.readlink(f"{base}/{name}")
        except OSError:
            continue
        if target.startswith("socket:[") and target[8:-1].isdecimal():
            found.append(int(target[8:-1]))
    return found, len(names)


def _process(files: Files, pid: int, inodes: list[int], open_files: int) -> Process:
    status = _status(files, f"/proc/{pid}/status")
    limits = _limits(files, pid)
    tids = [int(name) for name in files.names(f"/proc/{pid}/task") if name.isdecimal()]
    return Process(
        pid=pid,
        name=status.get("Name", ""),
        inodes=tuple(sorted(inodes)),
        threads=tuple(_threads(files, pid, tids[:MAX_THREADS_OF_PROCESS])),
        locked=_first_number(status.get("VmLck", "")) << 10,
        locked_limit=limits.get("Max locked memory"),
        files=open_files,
        files_limit=limits.get("Max open files"),
    )


def _threads(files: Files, pid: int, tids: list[int]) -> Iterator[Thread]:
    for tid in tids:
        base = f"/proc/{pid}/task/{tid}"
        stat = files.text(f"{base}/stat")
        if not isinstance(stat, str):
            continue
        # The name may hold spaces and parentheses, so the rest begins after the last one.
        name, _, rest = stat.partition("(")[2].rpartition(")")
        words = rest.split()
        if len(words) < 39:
            continue
        status = _status(files, f"{base}/status")
        migrations = re.search(r"nr_migrations\s*:\s*(\d+)", str(files.text(f"{base}/sched")))
        yield Thread(
            pid=pid,
            tid=tid,
            name=name,
            allowed=_cpus(status.get("Cpus_allowed_list", "")),
            cpu=int(words[36]),
            seconds=(int(words[11]) + int(words[12])) / _TICKS,
            involuntary_switches=_first_number(status.get("nonvoluntary_ctxt_switches", "")),
            migrations=int(migrations[1]) if migrations else None,
            policy=_POLICIES.get(int(words[38]), words[38]),
        )


def _status(files: Files, path: str) -> dict[str, str]:
    text = files.text(path)
    if not isinstance(text, str):
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _limits(files: Files, pid: int) -> dict[str, int | None]:
    """The soft limits of proc_pid_limits(5) by their names."""
    text = files.text(f"/proc/{pid}/limits")
    found: dict[str, int | None] = {}
    if isinstance(text, str):
        for line in text.splitlines():
            if row := re.match(r"(Max [a-z ]+?)\s{2,}(\d+|unlimited)\s", line):
                found[row[1]] = None if row[2] == "unlimited" else int(row[2])
    return found


def _cpus(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted(parse_list(text)))
    except ValueError:
        return ()


def _first_number(text: str) -> int:
    words = text.split()
    return int(words[0]) if words and words[0].isdecimal() else 0
