"""Where the body of a request ends: by its length, or by its chunks (RFC 9112, section 7.1)."""

from __future__ import annotations

import re
from collections.abc import Callable

from millrace.apps.http.request import Malformed

Take = Callable[[memoryview], None]

#: A chunk's size with extensions, and all trailer fields together.
_MAX_LINE = 1024
_MAX_TRAILER = 8 * 1024
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")


class Sized:
    """A body of so many bytes."""

    def __init__(self, length: int) -> None:
        self._left = length

    def feed(self, data: memoryview, take: Take) -> int | None:
        """Hand the body's part of `data` to `take`.

        Gives how many bytes of `data` were the body's once it is complete, None while it is not.
        """
        part = data[: self._left]
        if part:
            take(part)
        self._left -= len(part)
        return None if self._left else len(part)


class Chunked:
    """A body in chunks."""

    def __init__(self) -> None:
        self._line = bytearray()
        #: Bytes of the chunk that are to come, its line end included.
        self._left = 0
        self._in_trailer = False
        self._trailer = 0

    def feed(self, data: memoryview, take: Take) -> int | None:
        """As `Sized.feed`. Raises `Malformed`."""
        at = 0
        while at < len(data):
            if self._left:
                at += self._chunk(data[at:], take)
                continue
            used, line = self._read_line(data[at:])
            at += used
            if line is None:
                continue
            if self._in_trailer:
                if not line:
                    return at
                self._trailer += len(line)
                if self._trailer > _MAX_TRAILER:
                    raise Malformed(431, "the trailer is too long")
                continue
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise Malformed(400, "a chunk has no size")
            size = int(match[1], 16)
            self._in_trailer = size == 0
            self._left = size + 2 if size else 0
        return None

    def _chunk(self, data: memoryview, take: Take) -> int:
        body = data[: max(0, self._left - 2)]
        if body:
            take(body)
            self._left -= len(body)
        at = len(body)
        while self._left and at < len(data) and self._left <= 2:
            if data[at] != b"\r\n"[2 - self._left]:
                raise Malformed(400, "a chunk is longer than its size")
            self._left -= 1
            at += 1
        return at

    def _read_line(self, data: memoryview) -> tuple[int, bytes | None]:
        piece = data[:_MAX_LINE].tobytes()
        end = piece.find(b"\n")
        used = len(piece) if end < 0 else end + 1
        self._line += piece[:used]
        if len(self._line) > _MAX_LINE:
            raise Malformed(400, "a line of a chunked body is too long")
        if end < 0:
            return used, None
        line = bytes(self._line)
        self._line.clear()
        if not line.endswith(b"\r\n"):
            raise Malformed(400, "a line of a chunked body does not end in CR LF")
        return used, line[:-2]
