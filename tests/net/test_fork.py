"""A child that fork(2) makes has a copy of a channel, and the channel stays its parent's."""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest

from millrace.lab import Lab
from millrace.net import ACCEPTED, CONNECTED, READ, Channel, Kind

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
