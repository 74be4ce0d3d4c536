"""Asks a Millrace process through its socket: whole tables, and frames as they pass.

The other side may be anything that has a socket in the right place, so every answer has a bound in
bytes and in time. What may be asked is described in crates/watch/src/request.rs.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from millrace.watch import table
from millrace.watch.processes import Process
from millrace.watch.table import Table

#: Bytes of all parts of one table.
MOST_BYTES = 64 << 20
#: Longest line of an answer.
_MOST_LINE = 4096
#: Seconds that the other side may take for one part; a channel's thread has two of them.
PATIENCE = 5.0
_ERROR = 0xFFFF_FFFF


class RequestError(OSError):
    """A process did not answer, or said no."""


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(PATIENCE)
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        raise RequestError(error.errno or 5, f"{path} does not answer: {error}") from error
    return connection


class Answer:
    """What comes after a request, read with a time limit for all of it."""

    def __init__(self, process: Process, words: Sequence[str]) -> None:
        if process.socket is None:
            raise RequestError(2, f"{process.title} has no socket for requests")
        self._path = process.socket
        self._rest = b""
        self.connection = _connect(process.socket)
        try:
            self.connection.sendall(" ".join(words).encode() + b"\n")
            line = self._line()
            if line != "ok":
                kind, _, reason = line.partition(" ")
                if kind != "error":
                    raise self._wrong(f"answers {line[:80]!r}")
                raise RequestError(5, f"{process.title}: {reason}")
        except BaseException:
            self.connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def _wrong(self, what: str) -> RequestError:
        return RequestError(71, f"{self._path} {what}, which is no answer of Millrace")

    def _more(self, deadline: float) -> bytes:
        left = deadline - time.monotonic()
        if left <= 0:
            raise RequestError(110, f"{self._path} takes more than {PATIENCE:.0f} s to answer")
        self.connection.settimeout(left)
        try:
            data = self.connection.recv(1 << 16)
        except TimeoutError:
            raise RequestError(
                110, f"{self._path} takes more than {PATIENCE:.0f} s to answer"
            ) from None
        except OSError as error:
            raise RequestError(error.errno or 5, f"{self._path}: {error}") from error
        if not data:
            raise self._wrong("ends in the middle of an answer")
        return data

    def _line(self) -> str:
        deadline = time.monotonic() + PATIENCE
        while b"\n" not in self._rest:
            if len(self._rest) > _MOST_LINE:
                raise self._wrong(f"sends a line of more than {_MOST_LINE} bytes")
            self._rest += self._more(deadline)
        line, _, self._rest = self._rest.partition(b"\n")
        text = line[:_MOST_LINE].decode("utf-8", "replace")
        return "".join(c if c.isprintable() else "?" for c in text)

    def exactly(self, count: int) -> bytes:
        """So many bytes."""
        deadline = time.monotonic() + PATIENCE
        pieces = [self._rest]
        have = len(self._rest)
        while have < count:
            pieces.append(self._more(deadline))
            have += len(pieces[-1])
        data = b"".join(pieces)
        self._rest = data[count:]
        return data[:count]

    def begun(self) -> bytes:
        """What came together with the first line."""
        rest, self._rest = self._rest, b""
        return rest


def _parts(answer: Answer) -> Iterator[Table]:
    total = 0
    while True:
        length = int.from_bytes(answer.exactly(4), "little")
        if length == 0:
            return
        if length == _ERROR:
            length = int.from_bytes(answer.exactly(4), "little")
            reason = answer.exactly(min(length, _MOST_LINE)).decode("utf-8", "replace")
            raise RequestError(5, reason)
        total += length
        if total > MOST_BYTES:
            raise RequestError(71, f"a table of more than {MOST_BYTES >> 20} MiB; it was cut off")
        try:
            yield from table.parse(answer.exactly(length))
        except ValueError as error:
            raise RequestError(71, str(error)) from None


def rows(process: Process, page: int, name: str) -> Table:
    """A whole table of one of a process's pages.

    Raises RequestError when the process does not answer, or says why not.
    """
    with Answer(process, ("table", str(page), name)) as answer:
        parts = list(_parts(answer))
    if not parts:
        raise RequestError(71, f"{process.title} answered without a table {name}")
    if any(part.columns != parts[0].columns for part in parts):
        raise RequestError(71, f"{process.title} sent parts of different tables")
    every = tuple(row for part in parts for row in part.rows)
    return Table(name, parts[0].columns, every, max(part.total for part in parts))


def end(connection: socket.socket) -> None:
    """Tell the process that this client wants no more; it then sends its last and closes."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
