"""Heads and bodies of requests, in any pieces, and none that could be taken for another."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.apps.http.body import Chunked, Sized
from millrace.apps.http.request import Malformed, parse


def test_a_usual_head() -> None:
    request = parse(b"GET /a/b?c=d HTTP/1.1\r\nHost: mill\r\nACCEPT: a\r\nAccept:  b \r\nX-Empty:")
    assert (request.method, request.target) == ("GET", "/a/b?c=d")
    assert request.fields == {"host": "mill", "accept": "a, b", "x-empty": ""}
    assert request.keep_alive
    assert request.length == 0
    assert not request.has_body


@pytest.mark.parametrize(
    ("head", "keep_alive"),
    [
        (b"GET / HTTP/1.1\r\nHost: m\r\nConnection: close", False),
        (b"GET / HTTP/1.1\r\nHost: m\r\nConnection: Upgrade, CLOSE", False),
        (b"GET / HTTP/1.1\r\nHost: m\r\nConnection: keep-alive", True),
        (b"GET / HTTP/1.0", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive", True),
    ],
)
def test_who_ends_the_connection(head: bytes, keep_alive: bool) -> None:
    assert parse(head).keep_alive is keep_alive


def test_lengths() -> None:
    head = b"PUT / HTTP/1.1\r\nHost: m\r\n"
    assert parse(head + b"Content-Length: 12").length == 12
    assert parse(head + b"Content-Length: 12\r\nContent-Length: 12").length == 12
    assert parse(head + b"Content-Length: 12, 12").length == 12
    chunked = parse(head + b"Transfer-Encoding: Chunked\r\nExpect: 100-Continue")
    assert chunked.length is None
    assert chunked.has_body
    assert chunked.expects_continue


HOST = b"\r\nHost: m\r\n"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"", 400),
        (b"GET", 400),
        (b"GET / HTTP/1.1", 400),
        (b"GET  / HTTP/1.1" + HOST, 400),
        (b"GET / HTTP/1.1 " + HOST, 400),
        (b" GET / HTTP/1.1" + HOST, 400),
        (b"GET / http/1.1" + HOST, 400),
        (b"GET / HTTP/11" + HOST, 400),
        (b"G@T / HTTP/1.1" + HOST, 400),
        (b"GET /\x00 HTTP/1.1" + HOST, 400),
        (b"GET / HTTP/2.0" + HOST, 505),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b", 400),
        (b"GET / HTTP/1.1\r\nHost : m", 400),
        (b"GET / HTTP/1.1\r\nHost: m\r\n folded: x", 400),
        (b"GET / HTTP/1.1\r\nHost: m\r\nno colon", 400),
        (b"GET / HTTP/1.1\r\nHost: m\r\nX: a\nb", 400),
        (b"GET / HTTP/1.1\r\nHost: m\r\nX: a\rb", 400),
        (b"GET / HTTP/1.1\r\nHost: m\r\nX: a\0b", 400),
        (b"GET / HTTP/1.1\r\nHost: m\r\n: nameless", 400),
        (b"PUT / HTTP/1.1\r\nHost: m\r\nContent-Length: +1", 400),
        (b"PUT / HTTP/1.1\r\nHost: m\r\nContent-Length: -1", 400),
        (b"PUT / HTTP/1.1\r\nHost: m\r\nContent-Length: 1 2", 400),
        (b"PUT / HTTP/1.1\r\nHost: m\r\nContent-Length: 1, 2", 400),
        (b"PUT / HTTP/1.1\r\nHost: m\r\nContent-Length: \xb2", 400),
        (b"PUT / HTTP/1.1\r\nHost: m\r\nContent-Length: " + b"9" * 30, 400),
        (b"PUT / HTTP/1.1\r\nHost: m\r\nContent-Length: 1\r\nContent-Length: 2", 400),
        (
            b"PUT / HTTP/1.1\r\nHost: m\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
            400,
        ),
        (b"PUT / HTTP/1.0\r\nHost: m\r\nTransfer-Encoding: chunked", 400),
        (b"PUT / HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: gzip", 501),
        (b"PUT / HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: gzip, chunked", 501),
    ],
)
def test_malformed_heads(head: bytes, status: int) -> None:
    with pytest.raises(Malformed) as raised:
        parse(head.removesuffix(b"\r\n") if head.endswith(HOST) else head)
    assert raised.value.status == status


@given(st.binary(max_size=300))
def test_no_bytes_break_the_parser(head: bytes) -> None:
    with contextlib.suppress(Malformed):
        parse(head)


@given(st.binary(max_size=200))
def test_no_field_breaks_the_parser(value: bytes) -> None:
    try:
        request = parse(b"GET / HTTP/1.1\r\nHost: m\r\nX: " + value)
    except Malformed:
        return
    assert b"\r" not in value.replace(b"\r\n", b"") or b"\r\n" in value
    assert "x" in request.fields


def feed(framing: Sized | Chunked, pieces: list[bytes]) -> tuple[bytes, bytes | None]:
    """The body, and what came behind it; None if it is not complete."""
    got = bytearray()
    for number, piece in enumerate(pieces):
        used = framing.feed(memoryview(piece), got.extend)
        if used is not None:
            return bytes(got), piece[used:] + b"".join(pieces[number + 1 :])
    return bytes(got), None


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(marks)]


PLACES = st.lists(st.integers(0, 10_000), max_size=12)


@given(st.binary(min_size=1, max_size=300), st.binary(max_size=50), PLACES)
def test_a_sized_body_ends_where_it_says(body: bytes, behind: bytes, places: list[int]) -> None:
    got, rest = feed(Sized(len(body)), cut(body + behind, places))
    assert (got, rest) == (body, behind)


@given(
    st.lists(st.binary(min_size=1, max_size=200), max_size=6),
    st.sampled_from([b"", b"Trailer: x\r\n", b"A: b\r\nC: d\r\n"]),
    st.sampled_from([b"", b";name=value", b" ;x"]),
    st.binary(max_size=50),
    PLACES,
)
def test_a_chunked_body_in_any_pieces(
    chunks: list[bytes], trailer: bytes, extension: bytes, behind: bytes, places: list[int]
) -> None:
    coded = b"".join(b"%x%s\r\n%s\r\n" % (len(one), extension, one) for one in chunks)
    coded += b"0\r\n" + trailer + b"\r\n"
    got, rest = feed(Chunked(), cut(coded + behind, places))
    assert (got, rest) == (b"".join(chunks), behind)


@pytest.mark.parametrize(
    ("coded", "status"),
    [
        (b"x\r\n", 400),
        (b"\r\n", 400),
        (b"-1\r\n", 400),
        (b"0x1\r\n", 400),
        (b"1\n", 400),
        (b"f" * 16 + b"\r\n", 400),
        (b"3\r\nabcd\r\n", 400),
        (b"3\r\nabc\n0\r\n", 400),
        (b"1;" + b"x" * 2000, 400),
        (b"0\r\n" + b"A: b\r\n" * 3000, 431),
        (b"0\r\n" + b"A" * 3000, 400),
    ],
)
def test_malformed_chunks(coded: bytes, status: int) -> None:
    for places in ([], list(range(len(coded)))[:500]):
        with pytest.raises(Malformed) as raised:
            feed(Chunked(), cut(coded, places))
        assert raised.value.status == status
