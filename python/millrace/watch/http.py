"""A small HTTP server for what is shown to a browser or a scraper on this machine.

One thread a client and few of them; a client that is slow, silent or talks nonsense is let go after
a while and holds up nobody. On loopback only requests that name this machine are answered, so that
no web page can read along by a name that it makes lead here (DNS rebinding).
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

#: Bytes of a request's head.
MOST_HEAD = 16 << 10
#: Seconds for a request's head, and for a piece of the answer.
PATIENCE = 5.0
MOST_CLIENTS = 32

_REASONS = {200: "OK", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed"}
_REASONS |= {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}
_REASONS |= {500: "Internal Server Error", 503: "Service Unavailable"}


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]


@dataclass(frozen=True)
class Answer:
    """What is answered."""

    body: bytes
    kind: str = "text/plain; charset=utf-8"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):
    """A request that gets no answer but a status and a sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


Handler = Callable[[Request], Answer]


class Server:
    """Serves from `__enter__` to `__exit__`, in threads of its own."""

    def __init__(self, address: str, port: int, handler: Handler) -> None:
        """Bind. Raises OSError with the address where that is not possible."""
        self._handler = handler
        self._is_local = _is_loopback(address)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind((address, port))
            self._listener.listen(16)
        except OSError as error:
            self._listener.close()
            raise OSError(error.errno, f"{address} port {port}: {error.strerror}") from error
        self.address = address
        self.port: int = self._listener.getsockname()[1]
        self._slots = threading.BoundedSemaphore(MOST_CLIENTS)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="millrace-http", daemon=True)

    @property
    def url(self) -> str:
        """Where it is."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                # No descriptor left, or the end.
                self._ended.wait(0.1)
                continue
            if not self._slots.acquire(blocking=False):
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(0.1)
                    connection.sendall(_bytes(_failure(503, "too many clients")))
                continue
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                try:
                    request = self._request(_head(connection))
                    answer = self._handler(request)
                except Refused as refused:
                    answer = _failure(refused.status, str(refused))
                except TimeoutError:
                    answer = _failure(408, "the request takes too long")
                except OSError:
                    return
                except Exception as error:
                    # One request must not end the server, and its sender is told what is wrong.
                    answer = _failure(500, f"{type(error).__name__}: {error}")
                connection.settimeout(PATIENCE)
                with contextlib.suppress(OSError):
                    connection.sendall(_bytes(answer))
                    connection.shutdown(socket.SHUT_WR)
        finally:
            self._slots.release()

    def _request(self, head: bytes) -> Request:
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise Refused(400, "that is no HTTP/1 request")
        method, target, _ = words
        if method not in ("GET", "HEAD"):
            raise Refused(405, "only GET is answered")
        headers = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise Refused(400, "a header without a colon")
            headers[name.strip().lower()] = value.strip()
        if self._is_local and not _names_this_machine(headers.get("host", "")):
            raise Refused(403, "ask for localhost, or for an address of this machine")
        try:
            parts = urlsplit(target)
            return Request(parts.path, parse_qs(parts.query, max_num_fields=16), headers)
        except ValueError:
            raise Refused(400, "that is no path") from None


def _head(connection: socket.socket) -> bytes:
    deadline = time.monotonic() + PATIENCE
    data = b""
    while b"\r\n\r\n" not in data:
        if len(data) > MOST_HEAD:
            raise Refused(431, f"a request of more than {MOST_HEAD} bytes")
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        piece = connection.recv(4096)
        if not piece:
            raise Refused(400, "the request ends in the middle")
        data += piece
    return data.partition(b"\r\n\r\n")[0]


def _bytes(answer: Answer) -> bytes:
    headers = {
        "Content-Type": answer.kind,
        "Content-Length": str(len(answer.body)),
        "Connection": "close",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        **answer.headers,
    }
    lines = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Error')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + answer.body


def _failure(status: int, text: str) -> Answer:
    return Answer(f"{text}\n".encode(), status=status)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def _names_this_machine(host: str) -> bool:
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    return name.lower() == "localhost" or _is_loopback(name.strip("[]"))
