"""Payloads that are kept: they keep their bytes, and cannot take all frames."""

from __future__ import annotations

import gc
import hashlib
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

from millrace.net import READ, Channel, Completion


def exchange(pair: Any, handle: Any, data: bytes) -> list[Completion]:
    """What the server reads of it."""
    handle.write(data)
    told: list[Completion] = []

    def done(_: list[Completion], second: list[Completion]) -> bool:
        told.extend(one for one in second if one.kind is READ)
        return sum(map(len, told)) == len(data)

    pair.until(done)
    return told


def test_kept_views_keep_their_bytes(pair: Any) -> None:
    client, _ = pair.connect()
    kept: list[tuple[memoryview, bytes]] = []
    for _ in range(300):
        data = os.urandom(500)
        for done in exchange(pair, client, data):
            kept.append((done.data, done.tobytes()))
    # All 2048 frames have been used again and again since.
    for _ in range(3000):
        exchange(pair, client, b"n" * 500)
    assert all(view == data for view, data in kept)
    assert pair.server.counters()["payloads_copied"] == 0


def test_a_completion_that_is_kept_keeps_its_bytes(pair: Any) -> None:
    client, _ = pair.connect()
    done = exchange(pair, client, b"early")[0]
    for _ in range(50):
        exchange(pair, client, b"later")
    assert done.data == b"early"
    assert done.tobytes() == b"early"


def test_every_view_of_a_payload_is_the_same(pair: Any) -> None:
    client, _ = pair.connect()
    done = exchange(pair, client, b"0123456789")[0]
    first, second = done.data, done.data[2:5]
    del done
    exchange(pair, client, b"x" * 1000)
    assert first == b"0123456789"
    assert second == b"234"
    assert second.obj is not None
    assert hashlib.sha256(first).digest() == hashlib.sha256(b"0123456789").digest()


def test_a_program_that_keeps_everything_gets_copies(make_pair: Callable[..., Any]) -> None:
    pair = make_pair(frames=512, frame_reserve=16)
    pair.server.listen(80)
    client, _ = pair.connect()
    kept: list[tuple[memoryview, bytes]] = []
    for _ in range(1000):
        data = os.urandom(300)
        for done in exchange(pair, client, data):
            kept.append((done.data, done.tobytes()))
    copied = pair.server.counters()["payloads_copied"]
    assert copied >= 1000 - 512
    free, total = pair.server.frames
    assert free >= total // 8
    assert all(view == data for view, data in kept)
    kept.clear()
    del done
    gc.collect()
    exchange(pair, client, b"and on it goes")
    pair.turn()
    free, total = pair.server.frames
    assert free > total - 64


def test_views_outlive_the_channel(wire_name: str) -> None:
    client = Channel(wire_name, "192.0.2.1/24", frames=512)
    server = Channel(wire_name, "192.0.2.2/24", frames=512)
    server.listen(80)
    client.connect(("192.0.2.2", 80)).write(b"survivor")
    view = None
    while view is None:
        client.turn(0)
        for done in server.turn(0) or []:
            if done.kind is READ:
                view = done.data
    free, total = server.frames
    assert free < total
    server.close(0)
    client.close(0)
    del server, client, done
    gc.collect()
    assert view == b"survivor"


def test_a_view_may_be_dropped_in_another_thread(pair: Any) -> None:
    client, _ = pair.connect()
    for _ in range(50):
        views = [done.data for done in exchange(pair, client, b"handed over" * 100)]
        thread = threading.Thread(target=views.clear)
        thread.start()
        thread.join()
    exchange(pair, client, b"x")
    pair.turn()
    free, total = pair.server.frames
    assert free >= total - 8


def test_cycles_through_handles_are_collected(make_pair: Callable[..., Any]) -> None:
    pair = make_pair()
    pair.server.listen(80)
    client, server = pair.connect()

    class Canary:
        pass

    canary = Canary()
    dead: list[int] = []
    weakref.finalize(canary, dead.append, 1)
    done = exchange(pair, client, b"x")[0]
    server.state = {"done": done, "channel": pair.server, "canary": canary}
    server.close()
    del done, server, canary
    gc.collect()
    assert dead == [1]
