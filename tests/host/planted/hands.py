"""Hands that plant a fault: sockets of the hosts, and what fills and drains them."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from millrace.lab import Host, Interface, Wire

#: Only ends a hang.
PATIENCE = 60.0


@contextlib.contextmanager
def on(host: Host, kind: int = socket.SOCK_DGRAM, family: int = socket.AF_INET) -> Iterator[Any]:
    with host.enter():
        handle = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    with handle:
        yield handle


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def send_datagrams(wire: Wire, count: int, port: int, size: int = 1000) -> None:
    """From the peer to the patient."""
    with on(wire.b.host) as sender:
        for _ in range(count):
            sender.sendto(bytes(size), (wire.a.ip, port))


@contextlib.contextmanager
def listener(end: Interface, backlog: int, port: int = 80) -> Iterator[socket.socket]:
    with on(end.host, socket.SOCK_STREAM) as handle:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        handle.bind((end.ip, port))
        handle.listen(backlog)
        yield handle


@contextlib.contextmanager
def clients(wire: Wire, count: int, port: int = 80) -> Iterator[list[socket.socket]]:
    """Connections from the peer that are begun; not all of them will be accepted."""
    with contextlib.ExitStack() as stack:
        handles = []
        for _ in range(count):
            handle = stack.enter_context(on(wire.b.host, socket.SOCK_STREAM))
            handle.setblocking(False)
            with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                handle.connect((wire.a.ip, port))
            handles.append(handle)
        yield handles


@contextlib.contextmanager
def connection(wire: Wire, port: int = 80) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The patient's end and the peer's."""
    with listener(wire.a, 10, port) as server, on(wire.b.host, socket.SOCK_STREAM) as client:
        client.settimeout(PATIENCE)
        client.connect((wire.a.ip, port))
        accepted, _ = server.accept()
        accepted.settimeout(PATIENCE)
        with accepted:
            yield accepted, client


def fill(handle: socket.socket) -> None:
    """Send until nothing goes any more."""
    handle.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            handle.send(bytes(1 << 16))


def drain(handle: socket.socket) -> None:
    """Read what there is."""
    handle.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while handle.recv(1 << 20):
            pass
