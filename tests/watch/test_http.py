"""The small HTTP server, and clients that mean it no good."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from millrace.watch import http
from millrace.watch.http import Answer, Refused, Request, Server


def handler(request: Request) -> Answer:
    if request.path == "/none":
        raise Refused(404, "no such thing")
    if request.path == "/broken":
        raise ZeroDivisionError("a mistake")
    return Answer(f"{request.path} {request.query}".encode())


@pytest.fixture
def server() -> Iterator[Server]:
    with Server("127.0.0.1", 0, handler) as server:
        yield server


def talk(server: Server, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(65536):
                answer += piece
        return answer


def get(path: str, host: str = "localhost") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1")


def test_a_path_and_a_query_are_answered(server: Server) -> None:
    answer = talk(server, get("/a?b=c&b=d"))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\n/a {'b': ['c', 'd']}")
    assert b"Content-Length: 20\r\n" in answer


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n\r\n", 400),
        (b"hello\r\n\r\n", 400),
        (b"GET / SPDY/3\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET http://[/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000, 431),
        (get("/?" + "&".join(["a=b"] * 99)), 400),
        (get("/none"), 404),
        (get("/broken"), 500),
        (get("/", "evil.example"), 403),
        (get("/", "evil.example:80"), 403),
        (get("/", "192.0.2.1"), 403),
        (get("/", ""), 403),
        (get("/", "127.0.0.1:80"), 200),
        (get("/", "[::1]:80"), 200),
        (get("/", "[::1]"), 200),
        (get("/", "LOCALHOST"), 200),
    ],
)
def test_what_is_wrong_gets_a_status(server: Server, data: bytes, status: int) -> None:
    assert talk(server, data).startswith(f"HTTP/1.1 {status} ".encode())


def test_a_silent_client_is_let_go(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PATIENCE", 0.2)
    begun = time.monotonic()
    assert b"408" in talk(server, b"GET / HTTP/1.1\r\n")
    assert time.monotonic() - begun < 20


def test_many_silent_clients_are_bounded_and_the_others_served_afterwards(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(40)]
    answers = b"".join(read_now(one) for one in silent)
    # As far as they came to be accepted; none of them waits for the others.
    assert b"503" in answers
    for one in silent:
        one.close()
    for _ in range(1000):
        if talk(server, get("/")).startswith(b"HTTP/1.1 200"):
            return
    raise AssertionError("it serves nobody any more")


def read_now(connection: socket.socket) -> bytes:
    connection.settimeout(0.2)
    try:
        return connection.recv(4096)
    except (TimeoutError, ConnectionResetError):
        return b""


def test_an_address_in_use_is_named(server: Server) -> None:
    with pytest.raises(OSError, match=f"127.0.0.1 port {server.port}"):
        Server("127.0.0.1", server.port, handler)


def test_ipv6_has_brackets() -> None:
    try:
        with Server("::1", 0, handler) as server:
            assert server.url == f"http://[::1]:{server.port}"
    except OSError:
        pytest.skip("this machine has no IPv6")


@hypothesis_settings(max_examples=60)
@given(st.binary(max_size=200))
def test_any_bytes_get_an_answer(data: bytes) -> None:
    with Server("127.0.0.1", 0, handler) as server:
        assert talk(server, data + b"\r\n\r\n").startswith(b"HTTP/1.1 ")
