"""The page on which a channel or port of some process shows counters and small tables.

A page is read with pread(2) and not mapped: a mapping of a file that its owner makes shorter would
kill the reader. Nobody is waited for: a block that its writer is replacing is looked at again, for
a few milliseconds at most. The layout is described in crates/watch/src/page.rs.
"""

from __future__ import annotations

import os
import stat
import struct
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from millrace.watch import table
from millrace.watch.table import Table

MAGIC = b"MILLPAGE"
VERSION = 1

_HEAD_BYTES = 128
_HEAD = struct.Struct("<8sIIIIQQ16sQ")
_BLOCK = struct.Struct("<II")
_BLOCK_HEAD = struct.Struct("<QQIIII")
_FACTS, _NAMES, _VALUES, _TABLES = range(4)
_BLOCKS = ("facts", "names", "values", "tables")

#: No page is larger; this bounds what a hostile file can cost.
MOST_BYTES = 1 << 20

_TRIES = 40
_PAUSE = 0.000_1


class PageError(ValueError):
    """A file that is no page, or one that cannot be trusted."""


@dataclass(frozen=True)
class Value:
    """One number of a page."""

    #: Who counts: "stack", "channel", "port", "port_drop" (lost, by reason), "port_detail" or
    #: "state".
    group: str
    name: str
    #: Whether it only grows.
    is_counter: bool
    number: int


@dataclass(frozen=True)
class Page:
    """What a page held when it was read. Times are seconds of time.monotonic()."""

    path: Path
    uid: int
    pid: int
    #: Of its process: the page's number, by which the socket knows it.
    number: int
    #: When the process started, in clock ticks since boot.
    start: int
    #: Inode of the process's PID namespace.
    namespace: int
    boot: bytes
    made_at: float
    facts: Mapping[str, str]
    values: tuple[Value, ...]
    #: When the values were written; they are written soon after something happened, and not again
    #: until something happens.
    values_at: float
    tables: Mapping[str, Table]
    tables_at: float
    #: Blocks that could not be read, and why: a process that was killed while it wrote leaves one.
    damaged: Mapping[str, str] = field(default_factory=dict)

    def number_of(self, group: str, name: str) -> int:
        """One value; 0 where there is none of this name."""
        return self.by_name.get((group, name), 0)

    @property
    def by_name(self) -> Mapping[tuple[str, str], int]:
        """The values by group and name."""
        return {(value.group, value.name): value.number for value in self.values}

    @property
    def name(self) -> str:
        """The port, such as af_packet:eth1."""
        return self.facts.get("port", "?")


@dataclass(frozen=True)
class _Content:
    data: bytes
    written_at: float
    generation: int


def read(path: Path) -> Page:
    """Read a page.

    Raises FileNotFoundError when it is gone (its process has ended), PermissionError when it is
    somebody else's, PageError when it is no page.
    """
    # Not what a link leads to, and no waiting for the other end of a pipe.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(path, flags)
    except OSError as error:
        if error.errno == 40:  # ELOOP
            raise PageError(f"{path} is a link, and no page") from None
        raise
    try:
        return _read(path, fd)
    finally:
        os.close(fd)


def _read(path: Path, fd: int) -> Page:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise PageError(f"{path} is no file, and no page")
    if not _HEAD_BYTES <= found.st_size <= MOST_BYTES:
        raise PageError(f"{path} has {found.st_size} bytes, which no page has")
    head = os.pread(fd, _HEAD_BYTES, 0)
    if len(head) < _HEAD_BYTES or head[:8] != MAGIC:
        raise PageError(f"{path} is no page of Millrace: it does not begin with {MAGIC!r}")
    _, version, blocks, pid, number, start, namespace, boot, made = _HEAD.unpack_from(head)
    if version != VERSION:
        raise PageError(
            f"{path} has layout {version}, and this millrace reads {VERSION}; "
            "use the millrace that the process was started with"
        )
    if blocks < len(_BLOCKS):
        raise PageError(f"{path} has {blocks} blocks, and needs {len(_BLOCKS)}")
    damaged: dict[str, str] = {}

    def content(index: int) -> _Content:
        offset, capacity = _BLOCK.unpack_from(head, _HEAD.size + _BLOCK.size * index)
        if offset < len(head) or offset + _BLOCK_HEAD.size + capacity > found.st_size:
            raise PageError(f"{path}: block {_BLOCKS[index]} lies outside of the file")
        try:
            return _content(fd, offset, capacity)
        except ValueError as error:
            damaged[_BLOCKS[index]] = str(error)
            return _Content(b"", 0.0, 0)

    facts = {}
    tables = {}
    values: tuple[Value, ...] = ()
    written = _Content(b"", 0.0, 0)
    shown = content(_TABLES)
    try:
        for row in _only(content(_FACTS).data, "facts"):
            facts[str(row.get("name"))] = str(row.get("text"))
        tables = {one.name: one for one in table.parse(shown.data)}
        for _ in range(_TRIES):
            names, written = content(_NAMES), content(_VALUES)
            # Between the two the names may have become others.
            if names.generation == written.generation or "values" in damaged or "names" in damaged:
                break
            time.sleep(_PAUSE)
        else:
            damaged["values"] = "its names change all the time"
        if not {"names", "values"} & damaged.keys():
            values = _values(names.data, written.data)
    except ValueError as error:
        raise PageError(f"{path}: {error}") from None
    return Page(
        path=path,
        uid=found.st_uid,
        pid=pid,
        number=number,
        start=start,
        namespace=namespace,
        boot=boot,
        made_at=made / 1e9,
        facts=facts,
        values=values,
        values_at=written.written_at,
        tables=tables,
        tables_at=shown.written_at,
        damaged=damaged,
    )


def _only(data: bytes, name: str) -> Table | tuple[()]:
    tables = table.parse(data)
    if not tables:
        return ()
    if len(tables) != 1 or tables[0].name != name:
        raise ValueError(f"where its {name} belong is something else")
    return tables[0]


def _values(names: bytes, values: bytes) -> tuple[Value, ...]:
    numbers = struct.unpack(f"<{len(values) // 8}Q", values[: len(values) // 8 * 8])
    rows = _only(names, "names")
    return tuple(
        Value(str(row.get("group")), str(row.get("name")), row.get("kind") == "counter", number)
        for row, number in zip(rows, numbers, strict=False)
    )


def _content(fd: int, offset: int, capacity: int) -> _Content:
    """A block's content, as it is at one moment. Raises ValueError if there is no such moment."""
    for _ in range(_TRIES):
        head = os.pread(fd, _BLOCK_HEAD.size, offset)
        if len(head) < _BLOCK_HEAD.size:
            raise ValueError("the file has become shorter")
        sequence, written, length, checksum, generation, _ = _BLOCK_HEAD.unpack(head)
        if sequence % 2 == 0:
            if length > capacity:
                raise ValueError(f"it claims {length} bytes of at most {capacity}")
            data = os.pread(fd, length, offset + _BLOCK_HEAD.size)
            again = os.pread(fd, 8, offset)
            if (
                again == head[:8]
                and len(data) == length
                and (sequence == 0 or zlib.adler32(data) == checksum)
            ):
                return _Content(data, written / 1e9, generation)
        time.sleep(_PAUSE)
    raise ValueError("it was being written all the time, or its writer was killed in the middle")
