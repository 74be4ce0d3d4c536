"""Two channels on a memory wire, turned by one test."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from millrace.net import ACCEPTED, CLOSED, CONNECTED, FINISHED, Channel, Completion, Handle

CLIENT, SERVER = "192.0.2.1", "192.0.2.2"

_names = (f"memory:test{number}" for number in itertools.count())


class Pair:
    """A client and a server, with what each was told."""

    def __init__(self, client: dict[str, Any], server: dict[str, Any]) -> None:
        name = next(_names)
        self.client = Channel(name, f"{CLIENT}/24", **client)
        self.server = Channel(name, f"{SERVER}/24", **server)

    def turn(self) -> tuple[list[Completion], list[Completion]]:
        """One turn of each; what the client and what the server was told."""
        return self.client.turn(0.001) or [], self.server.turn(0.001) or []

    def until(self, done: Callable[[list[Completion], list[Completion]], object]) -> None:
        """Turns until `done` says so; in a broken program until many."""
        for _ in range(50_000):
            if done(*self.turn()):
                return
        raise AssertionError("it never came to this")

    def connect(self, port: int = 80) -> tuple[Handle, Handle]:
        """A connection: the client's handle and the server's. Somebody must listen."""
        ours = self.client.connect((SERVER, port))
        found: dict[Any, Handle] = {}

        def done(client: list[Completion], server: list[Completion]) -> bool:
            for told in (*client, *server):
                found[told.kind] = told.handle
            return ACCEPTED in found and CONNECTED in found

        self.until(done)
        assert found[CONNECTED] is ours
        return ours, found[ACCEPTED]

    def close(self) -> None:
        self.client.close(0)
        self.server.close(0)


@pytest.fixture
def make_pair() -> Iterator[Callable[..., Pair]]:
    """Makes pairs; keywords are given to both channels, `client` and `server` to one."""
    made: list[Pair] = []

    def make(
        *, client: dict[str, Any] | None = None, server: dict[str, Any] | None = None, **both: Any
    ) -> Pair:
        both = {"frames": 2048, "hugepages": False, **both}
        pair = Pair({**both, **(client or {})}, {**both, **(server or {})})
        made.append(pair)
        return pair

    yield make
    for pair in made:
        pair.close()


@pytest.fixture
def pair(make_pair: Callable[..., Pair]) -> Pair:
    """A pair whose server listens on port 80."""
    pair = make_pair()
    pair.server.listen(80)
    return pair


@pytest.fixture
def wire_name() -> str:
    """The name of a memory wire that nobody else has."""
    return next(_names)


class Browser:
    """A client of a server that runs in another thread, on a wire between them."""

    def __init__(self, serve: Callable[[Channel], None], **options: Any) -> None:
        name = next(_names)
        options = {"frames": 4096, "hugepages": False, **options}
        self.channel = Channel(name, f"{CLIENT}/24", **options)
        self.failure: BaseException | None = None
        #: The server's counters at its end.
        self.counters: dict[str, int] = {}

        def run() -> None:
            try:
                with Channel(name, f"{SERVER}/24", **options) as channel:
                    serve(channel)
                    self.counters = channel.counters()
            except BaseException as error:
                self.failure = error

        self._thread = threading.Thread(target=run, name="server")
        self._thread.start()

    def connect(self) -> Handle:
        """A connection to port 80, as soon as somebody listens there."""
        while True:
            handle = self.channel.connect((SERVER, 80))
            while True:
                told = [done for done in self.turn() if done.handle is handle]
                if told:
                    break
            if told[0].kind is CONNECTED:
                return handle

    def turn(self) -> list[Completion]:
        """What the client is told next."""
        batch = self.channel.turn(30.0)
        assert batch, f"nothing happens any more: {self.failure}"
        return batch

    def ask(self, *pieces: bytes, answers: int | None = None) -> bytes:
        """What comes back for pieces that are sent in segments of their own.

        Reads until the server ends the connection, or until there are so many answers.
        """
        handle = self.connect()
        got = bytearray()
        ended = False

        def take(batch: list[Completion]) -> bool:
            for done in batch:
                if done.handle is handle:
                    got.extend(done.data)
                    if done.kind in (FINISHED, CLOSED):
                        return True
            return False

        for piece in pieces:
            if not ended:
                handle.write(piece)
                ended = take(self.channel.turn(0) or [])
        while not ended and (answers is None or len(split(got)) < answers):
            ended = take(self.turn())
        handle.abort()
        return bytes(got)

    def close(self) -> None:
        """Leave, which ends the server."""
        self.channel.close(0)
        self._thread.join()
        assert self.failure is None, self.failure


def split(data: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """The complete answers in `data`: status, fields, body."""
    found = []
    while True:
        head, mark, rest = bytes(data).partition(b"\r\n\r\n")
        if not mark:
            return found
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines)
        status = int(first.split(" ")[1])
        length = int(fields.get("content-length", 0))
        if len(rest) < length:
            return found
        found.append((status, fields, rest[:length]))
        data = rest[length:]


@pytest.fixture
def browse() -> Iterator[Callable[..., Browser]]:
    """Starts servers, each with a client."""
    started: list[Browser] = []

    def start(serve: Callable[[Channel], None], **options: Any) -> Browser:
        browser = Browser(serve, **options)
        started.append(browser)
        return browser

    yield start
    for browser in started:
        browser.close()
