"""A child that fork(2) makes has a copy of a channel, and the channel stays its parent's."""

from __future__ import annotations

import functools
import os
import signal
import socket
import time
from collections.abc import Callable

import pytest

from millrace.lab import Lab
from millrace.net import ACCEPTED, CONNECTED, READ, Channel, Handle, Kind

pytestmark = pytest.mark.networks

KERNEL = ("192.0.2.1", 80)


def until(channel: Channel, kind: Kind, seconds: float = 10.0) -> None:
    """Turn until this is told."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if any(one.kind is kind for one in channel.turn(0.1) or []):
            return
    raise AssertionError(f"no {kind} within {seconds} s")


def use_and_close_in_a_child(channel: Channel) -> None:
    """What a child does that ends in order: its finalizers close what it has copies of."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            try:
                channel.turn(0)
            except PermissionError as error:
                status = 0 if "parent" in str(error) else 2
            channel.close(1.0)
        finally:
            os._exit(status)
    end = time.monotonic() + 10
    ended, status = 0, 0
    while not ended:
        ended, status = os.waitpid(child, os.WNOHANG)
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError("the child did not end")
        time.sleep(0.01)
    assert status == 0


@pytest.mark.parametrize("port", ["af_packet", "af_xdp"])
def test_a_child_that_ends_takes_nothing_from_its_parent(lab: Lab, port: str) -> None:
    ours, kernel = lab.host("ours"), lab.host("kernel")
    lab.wire(ours, kernel, addresses=(None, "192.0.2.1/24"))
    with kernel.enter():
        listener = socket.create_server(KERNEL)
    with ours.enter():
        channel = Channel(f"{port}:eth0", "192.0.2.2/24", hugepages=False)
    with listener, channel:
        handle = channel.connect(KERNEL)
        until(channel, CONNECTED)
        channel.turn(0)
        listener.settimeout(10)
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(10)
            use_and_close_in_a_child(channel)
            handle.write(b"still here")
            channel.turn(0)
            assert peer.recv(100) == b"still here"
            peer.sendall(b"and heard")
            until(channel, READ)
            # Nothing that comes anew is lost either.
            channel.listen(81)
            with kernel.enter():
                other = socket.socket()
            with other:
                other.setblocking(False)
                other.connect_ex(("192.0.2.2", 81))
                until(channel, ACCEPTED)


HANDLE: dict[str, Callable[[Handle], object]] = {
    "write": lambda handle: handle.write(b"lost"),
    "send": lambda handle: handle.send(b"lost"),
    "write_room": lambda handle: handle.write_room,
    "waiting": lambda handle: handle.waiting,
    "pause": lambda handle: handle.pause(),
    "resume": lambda handle: handle.resume(),
    "shutdown": lambda handle: handle.shutdown(),
    "linger": lambda handle: handle.linger(1.0),
    "no_delay": lambda handle: handle.no_delay(True),
    "set_option": lambda handle: handle.set_option("TCP_KEEPIDLE", 10),
    "option": lambda handle: handle.option("TCP_KEEPIDLE"),
    "tcp_info": lambda handle: handle.tcp_info(),
    "info": lambda handle: handle.info(),
    "local": lambda handle: handle.local,
    "remote": lambda handle: handle.remote,
}


def believed_in_a_child(uses: dict[str, Callable[[], object]]) -> str:
    """What a child may do of this without being told that the channel is its parent's."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for name, use in uses.items():
                try:
                    use()
                except PermissionError as error:
                    if "parent" in str(error):
                        continue
                except Exception:
                    pass
                os.write(write, name.encode() + b" ")
        finally:
            os._exit(0)
    os.close(write)
    with open(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def test_a_child_is_told_that_handles_are_its_parents(lab: Lab) -> None:
    ours, kernel = lab.host("ours"), lab.host("kernel")
    lab.wire(ours, kernel, addresses=(None, "192.0.2.1/24"))
    with kernel.enter():
        listener = socket.create_server(KERNEL)
    with ours.enter():
        channel = Channel("af_packet:eth0", "192.0.2.2/24", hugepages=False)
    with listener, channel:
        handle = channel.connect(KERNEL)
        until(channel, CONNECTED)
        uses: dict[str, Callable[[], object]] = {
            name: functools.partial(use, handle) for name, use in HANDLE.items()
        }
        # The kernel begins to count anew, and the parent would miss what was lost.
        uses["statistics"] = channel.statistics
        assert believed_in_a_child(uses) == ""
        # To close a copy is no error, and takes nothing from the parent.
        assert believed_in_a_child({"close": handle.close}) == "close "
        assert not handle.closed
