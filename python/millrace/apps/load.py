"""An HTTP client that loads a server over our own stack and measures latencies.

Without a rate each connection sends its next request as soon as it has an answer (a closed loop).
With a rate requests are due at fixed times whatever the server does, and a latency counts from the
time its request was due, so a server that stalls cannot hide the requests that it kept from being
sent (coordinated omission).
"""

from __future__ import annotations

import math
import re
import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

from millrace.net import CLOSED, CONNECTED, FINISHED, READ, Channel, Completion, Handle

#: Latencies from a microsecond to a minute, to three digits.
_LOWEST_US, _HIGHEST_US, _DIGITS = 1, 60_000_000, 3
_MAX_HEAD = 64 * 1024
#: How long connections may take to be opened, and the last answers to come.
_PATIENCE = 5.0
#: Latencies that are kept one by one before they go into the histogram.
_KEEP = 100_000

_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """What is asked for, and of whom."""

    host: str
    port: int
    request: bytes

    @classmethod
    def parse(cls, url: str) -> Target:
        """A target from `http://HOST[:PORT]/PATH`. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url} is no URL that can be loaded: write http://192.0.2.2/")
        path = parts.path or "/"
        if parts.query:
            path += f"?{parts.query}"
        try:
            host = socket.gethostbyname(parts.hostname)
        except OSError as error:
            raise ValueError(f"there is no address for {parts.hostname}: {error}") from error
        request = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: millrace\r\n\r\n"
        return cls(host, parts.port or 80, request.encode("ascii"))


@dataclass
class Outcome:
    """What was measured."""

    seconds: float = 0.0
    requests: int = 0
    bytes: int = 0
    #: Answers that were not 2xx or 3xx.
    bad_status: int = 0
    #: Answers that were not to be understood.
    malformed: int = 0
    #: Connections that ended with an answer outstanding, or that could not be opened.
    broken: int = 0
    #: Requests without an answer at the end.
    unanswered: int = 0
    #: Why connections ended, with numbers.
    reasons: Counter[str] = field(default_factory=Counter)
    latencies: HdrHistogram = field(
        default_factory=lambda: HdrHistogram(_LOWEST_US, _HIGHEST_US, _DIGITS)
    )

    @property
    def errors(self) -> int:
        """All that went wrong."""
        return self.bad_status + self.malformed + self.broken + self.unanswered

    def percentile_us(self, percent: float) -> float | None:
        """The latency that so many percent of the requests did not exceed; None without any."""
        if not self.latencies.get_total_count():
            return None
        return float(self.latencies.get_value_at_percentile(percent))


class _Connection:
    """A connection with a request outstanding or none."""

    __slots__ = ("head", "left", "since")

    def __init__(self) -> None:
        #: When the request was sent or was due; 0: none is outstanding.
        self.since = 0
        #: Bytes of the answer's body that are to come, once its head is complete.
        self.left = 0
        #: The part of its head that came.
        self.head = b""


class Load:
    """Loads one target over a channel."""

    def __init__(
        self, channel: Channel, target: Target, connections: int, rate: float | None = None
    ) -> None:
        """`rate`: requests a second, over all connections; None: as many as go."""
        if connections < 1:
            raise ValueError(f"a load needs at least one connection, not {connections}")
        if rate is not None and not (rate > 0 and math.isfinite(rate)):
            raise ValueError(f"a rate is a number of requests a second above 0, not {rate}")
        self.outcome = Outcome()
        self._channel = channel
        self._target = target
        self._wanted = connections
        self._rate = rate
        self._measuring = False
        # When the next request is due, and the time from one to the next, in nanoseconds.
        self._due = 0.0
        self._interval = 1e9 / rate if rate is not None else math.inf
        self._kept: list[int] = []
        self._connections: dict[Handle, _Connection] = {}
        self._opening: set[Handle] = set()
        # With a rate: connections that have nothing to do, and requests that nobody could send.
        self._free: deque[Handle] = deque()
        self._overdue: deque[int] = deque()
        # The last answer's head and the length of the whole, to know the next at a glance.
        self._known_head = b""
        self._known_length = -1

    def run(self, seconds: float, tick: Callable[[Outcome], None] | None = None) -> Outcome:
        """Open the connections, load the target for `seconds`, and give what was measured.

        `tick` is called about once a second. Raises OSError when no connection can be opened.
        """
        self._connect_all()
        self._measuring = True
        begin = time.monotonic_ns()
        end = begin + int(seconds * 1e9)
        self._due = float(begin)
        if self._rate is None:
            for handle in list(self._connections):
                self._send(handle, begin)
        ticked = begin
        while (now := time.monotonic_ns()) < end:
            if self._rate is not None:
                self._send_due(now)
                until = min(end, int(self._due))
            else:
                until = end
            self._turn(min(0.1, max(0, until - now) / 1e9))
            if tick is not None and now - ticked >= 1_000_000_000:
                ticked = now
                tick(self.outcome)
        self.outcome.seconds = (time.monotonic_ns() - begin) / 1e9
        self._finish()
        return self.outcome

    def _connect_all(self) -> None:
        for _ in range(self._wanted):
            self._open()
        deadline = time.monotonic() + _PATIENCE
        while self._opening and (left := deadline - time.monotonic()) > 0:
            self._turn(left)
        if not self._connections:
            why = ", ".join(self.outcome.reasons) or f"no answer within {_PATIENCE:g} s"
            where = f"{self._target.host}:{self._target.port}"
            raise ConnectionError(f"no connection to {where}: {why}")

    def _finish(self) -> None:
        """What was sent in time may still be answered."""
        self._measuring = False
        deadline = time.monotonic() + min(1.0, _PATIENCE)
        while self._outstanding() and time.monotonic() < deadline:
            self._turn(0.1)
        self.outcome.unanswered += self._outstanding() + len(self._overdue)
        self._flush()
        for handle in list(self._connections):
            handle.abort()

    def _outstanding(self) -> int:
        return sum(1 for connection in self._connections.values() if connection.since)

    def _open(self) -> None:
        self._opening.add(self._channel.connect((self._target.host, self._target.port)))

    def _send(self, handle: Handle, since: int) -> None:
        self._connections[handle].since = since
        handle.write(self._target.request)

    def _send_due(self, now: int) -> None:
        while self._due <= now:
            self._overdue.append(int(self._due))
            self._due += self._interval
        while self._overdue and self._free:
            handle = self._free.popleft()
            if handle in self._connections:
                self._send(handle, self._overdue.popleft())

    def _turn(self, timeout: float) -> None:
        batch = self._channel.turn(timeout)
        if batch is None:
            raise ConnectionError("the other end of the wire has left")
        now = time.monotonic_ns()
        for done in batch:
            kind = done.kind
            if kind is READ:
                connection = self._connections.get(done.handle)
                if connection is not None and self._answered(connection, done):
                    self._next(done.handle, connection, now)
            elif kind is CONNECTED:
                self._opening.discard(done.handle)
                self._connections[done.handle] = _Connection()
                self._idle(done.handle, now)
            elif kind is FINISHED:
                done.handle.close()
                self._lost(done.handle, "the server closed the connection")
            elif kind is CLOSED:
                self._lost(done.handle, str(done.error or "the server closed the connection"))
        if len(self._kept) > _KEEP:
            self._flush()

    def _next(self, handle: Handle, connection: _Connection, now: int) -> None:
        """An answer is complete."""
        self._kept.append((now - connection.since) // 1000)
        connection.since = 0
        self.outcome.requests += self._measuring
        self._idle(handle, now)

    def _idle(self, handle: Handle, now: int) -> None:
        if not self._measuring:
            if self._rate is not None:
                self._free.append(handle)
        elif self._rate is None:
            self._send(handle, now)
        elif self._overdue:
            self._send(handle, self._overdue.popleft())
        else:
            self._free.append(handle)

    def _lost(self, handle: Handle, why: str) -> None:
        connection = self._connections.pop(handle, None)
        opening = handle in self._opening
        self._opening.discard(handle)
        if opening or (connection is not None and connection.since):
            self.outcome.broken += 1
            self.outcome.reasons[why] += 1
        # A server may end a connection between two requests; another takes its place.
        if self._measuring:
            self._open()

    def _answered(self, connection: _Connection, done: Completion) -> bool:
        """Take a part of an answer. Whether it was the last."""
        self.outcome.bytes += len(done)
        if connection.left:
            connection.left -= len(done)
            return self._complete(connection, done.handle)
        data = done.tobytes()
        if not connection.head and self._known_length >= 0 and data.startswith(self._known_head):
            connection.left = self._known_length - len(data)
            return self._complete(connection, done.handle)
        data = connection.head + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            connection.head = data
            if len(data) > _MAX_HEAD:
                self._garbled(done.handle)
            return False
        head = data[: end + 4]
        status, length = _STATUS.match(head), _LENGTH.search(head)
        if status is None or length is None:
            self._garbled(done.handle)
            return False
        connection.head = b""
        if status[1][:1] == b"1":
            # Go on, the answer comes behind it.
            connection.head = data[end + 4 :]
            return False
        good = status[1][:1] in b"23"
        self.outcome.bad_status += not good
        if good:
            self._known_head = head
            self._known_length = len(head) + int(length[1])
        connection.left = len(head) + int(length[1]) - len(data)
        return self._complete(connection, done.handle)

    def _complete(self, connection: _Connection, handle: Handle) -> bool:
        if connection.left < 0:
            # One request is outstanding at a time, so nothing may follow its answer.
            self._garbled(handle)
            return False
        return connection.left == 0

    def _garbled(self, handle: Handle) -> None:
        self.outcome.malformed += 1
        self.outcome.reasons["an answer that is no HTTP/1.1 with a Content-Length"] += 1
        handle.abort()
        if self._connections.pop(handle, None) is not None and self._measuring:
            self._open()

    def _flush(self) -> None:
        for latency, count in Counter(self._kept).items():
            self.outcome.latencies.record_value(min(max(latency, 1), _HIGHEST_US), count)
        self._kept.clear()
