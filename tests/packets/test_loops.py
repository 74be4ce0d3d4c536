"""The native loops from Python: what they say they did, and how they end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import millrace
from millrace.packets import l2fwd, rxdrop, txpush

from .conftest import udp

Pair = tuple[millrace.Port, millrace.Port]


def test_push_and_drop(pair: Pair) -> None:
    left, right = pair
    kept = left.keep([udp(number) for number in range(32)])
    sent = txpush(left, kept, packets=1000, batch=8)
    assert (sent["packets"], sent["bytes"]) == (1000, 60_000)
    assert sent["bursts"] >= 125
    done = rxdrop(right, packets=1000)
    assert (done["packets"], done["bytes"], done["filtered"]) == (1000, 60_000, 0)
    assert done["seconds"] > 0
    assert right.stats()["rx_packets"] == 1000
    # So long that a loop which did not look at the time would be noticed.
    idle = rxdrop(right, seconds=0.03, wait="sleep")
    assert (idle["packets"], idle["bursts"]) == (0, 0)
    assert idle["seconds"] >= 0.02


def test_what_waits_in_a_half_used_burst_is_dropped_too(pair: Pair) -> None:
    left, right = pair
    left.send([udp(number) for number in range(10)])
    right.receive(0)
    left.send([udp()])
    assert rxdrop(right, packets=1)["packets"] == 1
    assert right.frames == (512, 512)


def test_forwarding_through_a_filter(make_pair: Callable[..., Pair]) -> None:
    left, first = make_pair()
    options: dict[str, Any] = {"linger": 0, "hugepages": False}
    third = millrace.open("memory:packets-fwd", arena=first, **options)
    right = millrace.open("memory:packets-fwd", frames=512, **options)
    with third, right:
        left.send([udp(number, port=53 + number % 2) for number in range(20)])
        done = l2fwd(first, third, packets=20)
        assert done["packets"] == 20
        batch = right.receive(0)
        assert batch is not None
        assert len(batch) == 20


def test_a_loop_ends_when_its_port_is_closed(pair: Pair) -> None:
    _, right = pair
    told: list[Any] = []
    thread = threading.Thread(target=lambda: told.append(rxdrop(right, wait="sleep")))
    thread.start()
    # Another thread may ask meanwhile.
    while not right.stats()["rx_bursts"] and thread.is_alive() and not right.closed:
        right.close()
    thread.join()
    assert not told or told[0]["packets"] == 0


def test_a_loop_ends_with_its_wire(pair: Pair) -> None:
    left, right = pair
    left.send([udp()] * 5)
    left.close()
    assert rxdrop(right)["packets"] == 5


def test_what_makes_no_sense(pair: Pair, make_pair: Callable[..., Pair]) -> None:
    left, right = pair
    kept = left.keep([udp()])
    for batch in (0, 65):
        with pytest.raises(ValueError, match=f"batch is a whole number from 1 to 64, not {batch}"):
            rxdrop(right, packets=1, batch=batch)
    with pytest.raises(ValueError, match="do not lie in the frames"):
        txpush(right, kept, packets=1)
    with pytest.raises(ValueError, match="do not lie in the frames"):
        txpush(left, millrace.Batch([udp()]), packets=1)
    with pytest.raises(ValueError, match="open the second with arena="):
        l2fwd(left, right, packets=1)
    with pytest.raises(ValueError, match="cannot forward to itself"):
        l2fwd(left, left, packets=1)
    with pytest.raises(ValueError, match="linger"):
        rxdrop(right, packets=1, linger=-1)
    left.close()
    with pytest.raises(OSError, match="is closed"):
        txpush(left, kept, packets=1)
