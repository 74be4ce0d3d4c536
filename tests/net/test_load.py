"""The load generator against our own server, and against servers that misbehave."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from millrace.apps.http import Fixed, Server
from millrace.apps.load import Load, Target
from millrace.net import READ, Channel

TARGET = Target.parse("http://192.0.2.2/x?y=z")


@pytest.fixture
def server(browse: Callable[..., Any]) -> Any:
    browser = browse(functools.partial(Server.serve, Server(Fixed(b"x" * 1024))))
    browser.connect().abort()
    return browser


def test_a_target_is_read_from_a_url() -> None:
    assert TARGET.host == "192.0.2.2"
    assert TARGET.port == 80
    assert TARGET.request.startswith(b"GET /x?y=z HTTP/1.1\r\nHost: 192.0.2.2\r\n")
    assert Target.parse("http://192.0.2.2:8080").port == 8080
    for wrong in ("https://192.0.2.2/", "192.0.2.2", "http://", "http:///x"):
        with pytest.raises(ValueError, match=r"http://192\.0\.2\.2/"):
            Target.parse(wrong)
    with pytest.raises(ValueError, match=r"nosuch\.invalid"):
        Target.parse("http://nosuch.invalid/")


def test_a_closed_loop(server: Any) -> None:
    ticks = []
    outcome = Load(server.channel, TARGET, 8).run(1.2, ticks.append)
    assert outcome.requests > 100
    assert outcome.errors == 0, outcome
    assert outcome.latencies.get_total_count() >= outcome.requests
    median, worst = outcome.percentile_us(50), outcome.percentile_us(100)
    assert median is not None
    assert worst is not None
    assert 0 < median <= worst
    assert outcome.bytes > outcome.requests * 1024
    assert len(ticks) == 1


def test_a_rate_is_kept_to(server: Any) -> None:
    outcome = Load(server.channel, TARGET, 4, rate=200).run(1.0)
    assert outcome.errors == 0, outcome
    assert 190 <= outcome.requests <= 201


def test_latencies_count_from_when_requests_were_due(browse: Callable[..., Any]) -> None:
    """A server that answers nothing for half a second is caught at it."""
    import time

    def serve(channel: Channel) -> None:
        channel.listen(80)
        stalled = False
        for batch in channel:
            for done in batch:
                if done.kind is READ:
                    if not stalled:
                        stalled = True
                        time.sleep(0.5)
                    done.handle.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    browser = browse(serve)
    outcome = Load(browser.channel, TARGET, 2, rate=100).run(1.0)
    # About 50 of 100 requests were due while it slept, and waited a quarter of a second each.
    late = outcome.percentile_us(75)
    assert late is not None
    assert late > 100_000
    assert outcome.errors == 0, outcome


@pytest.mark.parametrize(
    ("answer", "counter"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n", "bad_status"),
        (b"HTTP/1.1 200 OK\r\n\r\nendless", "malformed"),
        (b"220 mail ESMTP\r\n\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nmore than two", "malformed"),
    ],
)
def test_bad_answers_are_counted(browse: Callable[..., Any], answer: bytes, counter: str) -> None:
    def serve(channel: Channel) -> None:
        channel.listen(80)
        for batch in channel:
            for done in batch:
                if done.kind is READ:
                    done.handle.write(answer)

    outcome = Load(browse(serve).channel, TARGET, 2, rate=50).run(0.3)
    assert getattr(outcome, counter) > 0
    assert outcome.errors >= getattr(outcome, counter)


def test_a_server_that_ends_connections(browse: Callable[..., Any]) -> None:
    def serve(channel: Channel) -> None:
        channel.listen(80)
        for batch in channel:
            for done in batch:
                if done.kind is READ:
                    done.handle.abort()

    outcome = Load(browse(serve).channel, TARGET, 2, rate=50).run(0.3)
    assert outcome.broken > 0
    assert any("reset" in reason for reason in outcome.reasons)


def test_nobody_there(browse: Callable[..., Any]) -> None:
    browser = browse(lambda channel: channel.turn() and None)
    with pytest.raises(ConnectionError, match=r"192\.0\.2\.2:80"):
        Load(browser.channel, TARGET, 2).run(0.3)


def test_what_makes_no_sense(wire_name: str) -> None:
    with Channel(wire_name, "192.0.2.1/24", frames=512) as channel:
        with pytest.raises(ValueError, match="connection"):
            Load(channel, TARGET, 0)
        for rate in (0, -1, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="rate"):
                Load(channel, TARGET, 1, rate=rate)
