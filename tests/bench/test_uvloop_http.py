"""The uvloop arm's HTTP is honest: pieces, pipelines, refusals."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("uvloop", reason="uvloop is not installed")

from millrace.bench.uvloop_http import REMEMBERED, Answers, Http, answer

KEEP, CLOSE = b"keep", b"close"
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


@pytest.fixture
def connection() -> tuple[Http, Transport]:
    http, transport = Http(Answers(KEEP, CLOSE)), Transport()
    http.connection_made(transport)
    return http, transport


def test_a_request_in_pieces_is_answered_once(connection: tuple[Http, Transport]) -> None:
    http, transport = connection
    for byte in REQUEST * 2:
        http.data_received(bytes([byte]))
    assert transport.written == [KEEP, KEEP]


def test_pipelined_requests_are_each_answered(connection: tuple[Http, Transport]) -> None:
    http, transport = connection
    http.data_received(REQUEST * 3 + REQUEST[:5])
    http.data_received(REQUEST[5:])
    assert transport.written == [KEEP] * 4


def test_a_request_that_was_seen_before_is_answered_by_heart_and_memory_is_bounded(
    connection: tuple[Http, Transport],
) -> None:
    http, transport = connection
    for number in range(REMEMBERED + 10):
        http.data_received(b"GET /%d HTTP/1.1\r\n\r\n" % number)
    for _ in range(2):
        http.data_received(REQUEST)
    assert transport.written == [KEEP] * (REMEMBERED + 12)
    assert len(http._known) <= REMEMBERED


def test_close_is_honoured_and_nothing_is_answered_after_it(
    connection: tuple[Http, Transport],
) -> None:
    http, transport = connection
    closing = b"GET / HTTP/1.1\r\nHost: a\r\nCONNECTION: Close\r\n\r\n"
    http.data_received(closing + REQUEST)
    assert transport.written == [CLOSE]
    assert transport.closed


def test_nonsense_and_endless_heads_are_refused() -> None:
    for data, status in ((b"POST / HTTP/1.1\r\n\r\n", b"405"), (b"x" * 9000, b"431")):
        http, transport = Http(Answers(KEEP, CLOSE)), Transport()
        http.connection_made(transport)
        http.data_received(data)
        assert transport.written[0].startswith(b"HTTP/1.1 " + status)
        assert transport.closed


def test_an_answer_says_its_length() -> None:
    assert answer("200 OK", b"mill").endswith(b"\r\nContent-Length: 4\r\n\r\nmill")
