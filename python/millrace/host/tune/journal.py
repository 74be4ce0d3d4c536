"""The journal: what was changed, on disk before it is changed.

One line a record: a checksum and JSON. A record is appended and synced before what it announces is
done, so a process that is killed leaves at most one write that may or may not have happened, and
says which. A line that was cut at the end announced nothing that was done. A damaged line before it
is reported, and the others still count.

Only its owner may write it, because what it says is written with his rights.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from millrace.host import targets
from millrace.host.codec import clean

#: Where journals are kept, unless MILLRACE_STATE names another folder.
STATE_FOLDER = Path("/var/lib/millrace")
MAX_BYTES = 16 << 20
_MAX_TEXT = 1 << 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One write, as far as the journal knows."""

    number: int
    target: str
    old: str
    new: str
    why: str
    #: What was read back after the write; None while nobody knows whether it was done.
    value: str | None = None
    #: Of the run that wrote it.
    goal: str = ""
    time: float = 0.0


@dataclass(frozen=True, slots=True)
class State:
    """What a journal says is ours."""

    #: By number, in the order of writing; undone ones are gone.
    entries: Mapping[int, Entry] = field(default_factory=dict)
    #: The machine's boot in which they were written.
    boot: str = ""
    #: What could not be read of the journal, for people.
    damage: tuple[str, ...] = ()


class Locked(BlockingIOError):
    """Another tune is at work."""


def folder() -> Path:
    """The folder of journals; it is made, for its owner alone, when it is first needed."""
    return Path(os.environ.get("MILLRACE_STATE") or STATE_FOLDER)


class Journal:
    """The journal of one network namespace, locked against every other tune of the machine."""

    def __init__(self, namespace: int, where: Path | None = None) -> None:
        """Opens and locks it. Raises `Locked`, or `OSError` where it cannot be written safely."""
        base = where or folder()
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(base)
        self._folder = base
        self.path = base / f"tune-{namespace}.journal"
        self._lock: int | None = _lock(base / "tune.lock")
        self._fd: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def state(self) -> State:
        """What it says now."""
        return load(self.path)

    def begin(self, boot: str, goal: str) -> None:
        """A run begins."""
        self._append({"kind": "begin", "boot": boot, "goal": goal, "time": time.time()})

    def intend(self, entry: Entry) -> None:
        """This will be written next."""
        self._append(
            {
                "kind": "intent",
                "number": entry.number,
                "target": entry.target,
                "old": entry.old,
                "new": entry.new,
                "why": entry.why,
                "goal": entry.goal,
                "time": time.time(),
            }
        )

    def done(self, number: int, value: str) -> None:
        """It was written, and this was read back."""
        self._append({"kind": "done", "number": number, "value": value})

    def forget(self, number: int, reason: str) -> None:
        """It is no longer ours: undone, refused, or changed by somebody else."""
        self._append({"kind": "forgotten", "number": number, "reason": reason})

    def clear(self) -> None:
        """Take the journal away, once nothing in it is ours."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        self.path.unlink(missing_ok=True)
        self._sync_folder()

    def set_aside(self) -> Path:
        """Rename a damaged journal, so that it can be looked at, and begin anew."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        aside = self.path.with_suffix(".damaged")
        os.replace(self.path, aside)
        self._sync_folder()
        return aside

    def _append(self, record: Mapping[str, Any]) -> None:
        if self._fd is None:
            self._fd = os.open(
                self.path,
                os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
                0o600,
            )
            self._sync_folder()
            _check_owner(self.path)
        line = encode(record)
        before = os.fstat(self._fd).st_size
        try:
            if before and not self._ends_with_newline(before):
                # A record that was cut: end its line, so that ours begins one.
                _write_all(self._fd, b"\n")
            _write_all(self._fd, line)
            os.fsync(self._fd)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, before)
            raise OSError(
                error.errno,
                f"the journal cannot be written, so no more is changed: {error.strerror}",
                str(self.path),
            ) from error

    def _ends_with_newline(self, size: int) -> bool:
        with open(self.path, "rb") as file:
            file.seek(size - 1)
            return file.read(1) == b"\n"

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def encode(record: Mapping[str, Any]) -> bytes:
    """A record as a line."""
    text = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
    return b"%08x " % zlib.crc32(text) + text + b"\n"


def load(path: Path) -> State:
    """What a journal says; one that is not there says nothing. Raises `OSError`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return State()
    with open(descriptor, "rb") as file:
        _check_mode(os.fstat(file.fileno()), path)
        data = file.read(MAX_BYTES + 1)
    damage = []
    if len(data) > MAX_BYTES:
        damage.append(f"{path} is larger than {MAX_BYTES >> 20} MiB; its end was not read")
        data = data[:MAX_BYTES]
    return parse(data, damage)


def parse(data: bytes, damage: list[str] | None = None) -> State:
    """What the bytes of a journal say."""
    told = list(damage or ())
    state = State()
    lines = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            state = _take(state, _decode(line))
        except ValueError as error:
            last = number == len(lines)
            told.append(
                f"line {number} is cut; what it announced was not begun"
                if last
                else f"line {number} is damaged: {clean(str(error))[:200]}"
            )
    return replace(state, damage=tuple(told))


def _decode(line: bytes) -> dict[str, Any]:
    check, _, text = line.partition(b" ")
    if len(check) != 8 or int(check, 16) != zlib.crc32(text):
        raise ValueError("its checksum is wrong")
    try:
        record = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(record, dict):
        raise ValueError("it is no record")
    return record


def _take(state: State, record: Mapping[str, Any]) -> State:
    kind = record.get("kind")
    if kind == "begin":
        return replace(state, boot=_word(record, "boot"))
    number = record.get("number")
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << 31:
        raise ValueError("it has no number")
    entries = dict(state.entries)
    if kind == "intent":
        entry = Entry(
            number=number,
            target=_word(record, "target"),
            old=_word(record, "old"),
            new=_word(record, "new"),
            why=_word(record, "why"),
            goal=_word(record, "goal"),
        )
        targets.parse(entry.target)
        entries[number] = entry
    elif kind == "done" and number in entries:
        entries[number] = replace(entries[number], value=_word(record, "value"))
    elif kind == "forgotten":
        entries.pop(number, None)
    else:
        raise ValueError(f"it has kind {str(kind)[:20]!r}")
    return replace(state, entries=entries)


def _word(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise ValueError(f"it has no {name}")
    return clean(value)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode(errors="replace").strip()
        os.close(descriptor)
        who = f" (process {holder})" if holder.isdecimal() else ""
        raise Locked(
            errno.EWOULDBLOCK,
            f"another millrace tune is at work{who}; wait until it has ended",
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def _check_owner(path: Path) -> None:
    _check_mode(os.stat(path, follow_symlinks=False), path)


def _check_mode(found: os.stat_result, path: Path) -> None:
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(
            errno.EPERM,
            "others could have written it; it must belong to this user, who alone may write it",
            str(path),
        )
