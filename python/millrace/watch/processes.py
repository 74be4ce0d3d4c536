"""The Millrace processes of this machine, as far as their pages may be read.

Every user has a folder of pages (`folders`). A file's name begins with the process that made it, so
that what a killed process left is told from what lives, and removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from millrace.watch import page
from millrace.watch.page import Page, PageError

#: Environment variable that names the folder.
VARIABLE = "MILLRACE_RUN_DIR"

_NAME = re.compile(r"(\d{1,10})-(\d{1,20})-(\d{1,20})\.(?:(sock)|(\d{1,10})\.page)", re.ASCII)

#: Files of one folder that are looked at.
MOST_FILES = 4096


@dataclass(frozen=True)
class Process:
    """A process that shows itself."""

    pid: int
    uid: int
    #: Its command line, as far as it may be seen.
    command: str
    pages: tuple[Page, ...]
    #: Where it takes requests; None if it takes none.
    socket: Path | None
    #: In a PID namespace that is not ours, where `pid` means another process.
    is_foreign: bool = False

    @property
    def title(self) -> str:
        """What a table calls it: the program or the script, and the number."""
        return f"{program_of(self.command.split(' '))[:24]}:{self.pid}"


def program_of(words: list[str]) -> str:
    """What people call the program of a command line: of Python the script or the module."""
    name = os.path.basename(words[0]) if words else ""
    if not name.startswith("python"):
        return name or "?"
    for at, word in enumerate(words[1:], 1):
        if word == "-m" and at + 1 < len(words):
            return words[at + 1]
        if word == "-c":
            break
        if not word.startswith("-"):
            return os.path.basename(word) or name
    return name


@dataclass(frozen=True)
class Found:
    """What `find` found, and what it could not make sense of."""

    processes: tuple[Process, ...]
    #: A line for each file or folder that could not be read, and why.
    problems: tuple[str, ...]

    @property
    def pages(self) -> Iterator[tuple[Process, Page]]:
        """All pages, each with its process."""
        return ((process, one) for process in self.processes for one in process.pages)


def folders() -> list[Path]:
    """The folders in which pages may be: the own one; for root those of all users."""
    named = os.environ.get(VARIABLE)
    if named:
        return [Path(named)]
    if os.geteuid() == 0:
        every = [Path("/run/millrace"), *Path("/run/user").glob("*/millrace")]
        return every + list(Path("/tmp").glob("millrace-*"))
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return [Path(runtime, "millrace") if runtime else Path(f"/tmp/millrace-{os.geteuid()}")]


def find() -> Found:
    """Read the pages of all processes that live; remove what dead ones left, where allowed."""
    processes: list[Process] = []
    problems: list[str] = []
    for folder in folders():
        try:
            names = _names(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f"{folder}: {error.strerror}")
            continue
        except ValueError as error:
            problems.append(str(error))
            continue
        processes += _of_folder(folder, names, problems)
    processes.sort(key=lambda process: (process.is_foreign, process.pid))
    return Found(tuple(processes), tuple(problems))


def _names(folder: Path) -> list[str]:
    # In /tmp anybody may have put it there, or a link to somewhere else.
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise ValueError(f"{folder} is no folder, and its pages are not read")
    if found.st_mode & 0o022:
        raise ValueError(f"{folder} may be written by others, and its pages are not read")
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            names.append(entry.name)
            if len(names) >= MOST_FILES:
                break
    return sorted(names)


@dataclass
class _Files:
    pages: list[Path]
    socket: Path | None = None


def _of_folder(folder: Path, names: list[str], problems: list[str]) -> Iterator[Process]:
    files: dict[tuple[int, int, int], _Files] = {}
    for name in names:
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        own = files.setdefault((int(match[1]), int(match[2]), int(match[3])), _Files([]))
        if match[4]:
            own.socket = folder / name
        else:
            own.pages.append(folder / name)
    namespace = os.stat("/proc/self/ns/pid").st_ino
    for (pid, start, where), own in files.items():
        is_foreign = where != namespace
        if not is_foreign and start_time(pid) != start:
            _remove([*own.pages, *([own.socket] if own.socket else [])])
            continue
        pages = []
        for path in own.pages:
            try:
                one = page.read(path)
            except FileNotFoundError:
                continue  # it has just ended
            except PageError as error:
                problems.append(str(error))
                continue
            except OSError as error:
                problems.append(f"{path}: {error.strerror}")
                continue
            if (one.pid, one.start, one.namespace) != (pid, start, where):
                problems.append(f"{path} claims to be of process {one.pid}, unlike its name")
            elif one.boot != _boot():
                _remove([path])
            elif not is_foreign and one.uid != _owner(pid):
                problems.append(f"{path} was not made by the user of process {pid}")
            else:
                pages.append(one)
        if pages:
            pages.sort(key=lambda one: one.number)
            command = "" if is_foreign else _command(pid)
            yield Process(pid, pages[0].uid, command, tuple(pages), own.socket, is_foreign)


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in brackets and may hold anything, so count from its
    # end: "state" is field 3, the start time field 22 (proc_pid_stat(5)).
    fields = text.rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in ("Z", "X"):
        return None
    return int(fields[19])


def _remove(paths: list[Path]) -> None:
    for path in paths:
        # Not ours to remove, or somebody else was quicker.
        with contextlib.suppress(OSError):
            path.unlink()


def _boot() -> bytes:
    text = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    return bytes.fromhex(text)


def _owner(pid: int) -> int | None:
    try:
        # Of the process and not of its folder: a program that may not be dumped has root's.
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return None
    uids = next((line.split() for line in status.splitlines() if line.startswith("Uid:")), [])
    return int(uids[2]) if len(uids) > 2 else None


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(4096).split(b"\0")
    except OSError:
        return ""
    text = " ".join(word.decode("utf-8", "replace") for word in words if word)
    return "".join(c if c.isprintable() else "?" for c in text)
