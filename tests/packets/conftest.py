"""Two ends of a wire in memory, and frames to send over it."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import millrace

_names = (f"memory:packets{number}" for number in itertools.count())


def udp(number: int = 0, payload: bytes = b"", *, port: int = 53, vlan: int | None = None) -> bytes:
    """A datagram from port 1024 + `number`, padded to Ethernet's least."""
    total = 28 + len(payload)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, total, 0, 0, 64, 17, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
    tag = b"" if vlan is None else struct.pack("!HH", 0x8100, vlan)
    header = b"\x02\0\0\0\0\2\x02\0\0\0\0\1" + tag + b"\x08\0"
    datagram = struct.pack("!HHHH", 1024 + number, port, 8 + len(payload), 0) + payload
    return (header + ip + datagram).ljust(60, b"\0")


@pytest.fixture
def make_pair() -> Iterator[Callable[..., tuple[millrace.Port, millrace.Port]]]:
    """Makes both ends of a wire; keywords are given to both."""
    made: list[millrace.Port] = []

    def make(**options: Any) -> tuple[millrace.Port, millrace.Port]:
        name = next(_names)
        options = {"frames": 512, "hugepages": False, "linger": 0, **options}
        made.extend(millrace.open(name, **options) for _ in range(2))
        return made[-2], made[-1]

    yield make
    for port in made:
        port.close()


@pytest.fixture
def pair(
    make_pair: Callable[..., tuple[millrace.Port, millrace.Port]],
) -> tuple[millrace.Port, millrace.Port]:
    """Both ends of a wire."""
    return make_pair()
