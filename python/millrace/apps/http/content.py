"""What a server answers with: a fixed body, a folder of files, and what becomes of uploads."""

from __future__ import annotations

import errno
import hashlib
import json
import mimetypes
import os
import stat
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Protocol, Self
from urllib.parse import unquote_to_bytes, urlsplit

from millrace.apps.http.request import Request

#: What is read of a file at a time, and so what a connection holds in memory beside its buffers.
CHUNK = 256 * 1024


class Stream:
    """A file's bytes, up to the length that was announced; fewer when it has shrunk since."""

    def __init__(self, descriptor: int, length: int) -> None:
        """Takes the descriptor over."""
        self._file = os.fdopen(descriptor, "rb", buffering=0)
        self._left = length

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        data = self._file.read(min(CHUNK, self._left)) if self._left else b""
        if not data:
            raise StopIteration
        self._left -= len(data)
        return data

    def close(self) -> None:
        """Let the file go. A second call does nothing."""
        self._file.close()


@dataclass(slots=True)
class Response:
    """An answer. A body that is not there at once comes from `stream`, `length` bytes in all."""

    status: int = 200
    content_type: str = "text/plain; charset=utf-8"
    body: bytes = b""
    length: int | None = None
    stream: Stream | None = None
    fields: dict[str, str] = field(default_factory=dict)
    #: Whether the same request has the same answer for as long as the server runs.
    repeats: bool = False

    @classmethod
    def plain(cls, status: int, why: str = "") -> Response:
        """A status with a line of text."""
        phrase = HTTPStatus(status).phrase
        return cls(status, body=f"{status} {phrase}{': ' if why else ''}{why}\n".encode())

    def head(self, keep_alive: bool) -> bytes:
        """The status line and the header fields, with the empty line."""
        length = len(self.body) if self.length is None else self.length
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {length}",
            *(f"{name}: {value}" for name, value in self.fields.items()),
        ]
        if not keep_alive:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


class Receiver(Protocol):
    """What takes the body of a request."""

    def take(self, data: memoryview) -> None:
        """The next bytes; they need not be there later."""

    def finish(self) -> Response:
        """The body is complete: the answer."""


class Content(Protocol):
    """What a server serves."""

    def answer(self, request: Request) -> Response:
        """The answer to a request without a body. One to HEAD has the body that GET would have."""

    def receive(self, request: Request) -> Receiver | Response:
        """What takes the request's body, or an answer that refuses it."""


class Digest:
    """Hashes a body and keeps none of it. The answer is JSON: `bytes` and `sha256`."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._bytes = 0

    def take(self, data: memoryview) -> None:
        self._hash.update(data)
        self._bytes += len(data)

    def finish(self) -> Response:
        report = {"bytes": self._bytes, "sha256": self._hash.hexdigest()}
        return Response(content_type="application/json", body=json.dumps(report).encode() + b"\n")


class _Uploads:
    """Hashes what PUT and POST bring."""

    def receive(self, request: Request) -> Receiver | Response:
        if request.method in ("PUT", "POST"):
            return Digest()
        return Response.plain(400, f"{request.method} with a body")


class Fixed(_Uploads):
    """One body for every path."""

    def __init__(self, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self._response = Response(content_type=content_type, body=body, repeats=True)

    def answer(self, request: Request) -> Response:
        if request.method in ("GET", "HEAD"):
            return self._response
        if request.method in ("PUT", "POST"):
            return Digest().finish()
        return _not_allowed()


class Files(_Uploads):
    """The files of a folder. Links may not lead out of it."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Raises OSError for what is no folder."""
        self._root = Path(root).resolve(strict=True)
        if not self._root.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(root))

    def answer(self, request: Request) -> Response:
        if request.method in ("PUT", "POST"):
            return Digest().finish()
        if request.method not in ("GET", "HEAD"):
            return _not_allowed()
        path = self._path(request.target)
        if path is None:
            return Response.plain(404)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except PermissionError:
            return Response.plain(403)
        except OSError:
            return Response.plain(404)
        status = os.fstat(descriptor)
        # Not a pipe or device, which might never end.
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            return Response.plain(404)
        kind, encoding = mimetypes.guess_type(path.name)
        return Response(
            content_type=kind if kind and not encoding else "application/octet-stream",
            length=status.st_size,
            stream=Stream(descriptor, status.st_size),
        )

    def _path(self, target: str) -> Path | None:
        """The file of a target, None where it cannot be one of ours."""
        name = os.fsdecode(unquote_to_bytes(urlsplit(target).path))
        if "\0" in name or not name.startswith("/"):
            return None
        if name.endswith("/"):
            name += "index.html"
        try:
            path = (self._root / name.lstrip("/")).resolve(strict=True)
        except (OSError, RuntimeError):
            return None
        return path if path.is_relative_to(self._root) else None


def _not_allowed() -> Response:
    response = Response.plain(405)
    response.fields["Allow"] = "GET, HEAD, PUT, POST"
    return response
