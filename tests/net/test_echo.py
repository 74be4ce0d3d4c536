"""The echo server over a wire in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from millrace.apps import echo
from millrace.net import DATAGRAM, FINISHED, READ, Channel


def serve(channel: Channel) -> None:
    echo.serve(channel, 80)


def test_what_comes_in_goes_out(browse: Callable[..., Any]) -> None:
    browser = browse(serve)
    handle = browser.connect()
    data = os.urandom(5_000_000)
    handle.write(data)
    handle.shutdown()
    got, ended = bytearray(), False
    while not ended:
        for done in browser.turn():
            if done.kind is READ:
                got += done.data
            ended |= done.kind is FINISHED
    assert got == data


def test_who_does_not_read_is_held_back(browse: Callable[..., Any]) -> None:
    buffers = ("send_buffer", "send_buffer_max", "receive_buffer", "receive_buffer_max")
    browser = browse(serve, write_queue=65_536, **dict.fromkeys(buffers, 65_536))
    handle = browser.connect()
    handle.pause()
    data = os.urandom(2_000_000)
    handle.write(data)
    for _ in range(300):
        browser.channel.turn(0.001)
    assert handle.waiting > 1_000_000
    handle.resume()
    got = bytearray()
    while len(got) < len(data):
        for done in browser.turn():
            got += done.data
    assert got == data


def test_datagrams(browse: Callable[..., Any]) -> None:
    browser = browse(serve)
    browser.connect().close()
    socket = browser.channel.datagram(peer=("192.0.2.2", 80))
    socket.send(b"mill")
    got = []
    while not got:
        got = [done.tobytes() for done in browser.turn() if done.kind is DATAGRAM]
    assert got == [b"mill"]
