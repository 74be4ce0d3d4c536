"""How much of the memory is in use, and what a connection holds of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from millrace.net import READ


def test_a_reader_that_pauses_holds_its_share_and_no_more(make_pair: Callable[..., Any]) -> None:
    pair = make_pair(frames=1024, frame_reserve=64)
    pair.server.listen(80)
    ours, theirs = pair.connect()
    before = pair.server.memory
    assert before["state"] == "plenty"
    assert 0 <= before["in_use"] < before["low"] < before["pressure"] < before["high"]
    theirs.pause()
    ours.write(bytes(1 << 20))
    pair.until(lambda *_: theirs.info().receive_window < 2000)
    info, held = theirs.info(), pair.server.memory
    assert info.memory >= info.receive_queue > 0
    assert held["in_use"] * held["frame_size"] >= info.memory
    assert held["state"] == "plenty"
    assert info.memory < held["high"] * held["frame_size"] / 3
    # Nothing that was announced had to be refused.
    assert pair.server.counters()["drop_tcp_receive_queue_full"] == 0
    theirs.resume()
    read = 0

    def done(_: list[Any], server: list[Any]) -> bool:
        nonlocal read
        read += sum(len(one) for one in server if one.kind is READ)
        return read == 1 << 20

    pair.until(done)
    assert theirs.info().memory == 0


@pytest.mark.parametrize(
    ("options", "wrong"),
    [({"ecn": "maybe"}, "'off', 'on', 'accurate', 'passive'"), ({"congestion": "vegas"}, "vegas")],
)
def test_names_that_there_are_not(
    make_pair: Callable[..., Any], options: dict[str, Any], wrong: str
) -> None:
    with pytest.raises(ValueError, match=wrong):
        make_pair(**options)
