"""The least of an AF_XDP socket that receives, by ctypes: what a redirect to one is tested with."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import socket
import struct
from collections.abc import Iterator

AF_XDP, SOL_XDP = 44, 283
XDP_MMAP_OFFSETS, XDP_RX_RING, XDP_UMEM_REG = 1, 2, 4
XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING = 5, 6
XDP_COPY = 1 << 1
FILL_OFFSET = 0x1_0000_0000
FRAMES, SIZE = 64, 2048


class Receiver:
    """A socket on one queue of an interface, with all its frames in the fill ring."""

    def __init__(self, ifindex: int, queue: int = 0) -> None:
        self._socket = socket.socket(AF_XDP, socket.SOCK_RAW)
        self._memory = mmap.mmap(-1, FRAMES * SIZE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        region = struct.pack("=QQIIII", address, FRAMES * SIZE, SIZE, 0, 0, 0)
        option = self._socket.setsockopt
        option(SOL_XDP, XDP_UMEM_REG, region)
        for ring in (XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING):
            option(SOL_XDP, ring, FRAMES)
        offsets = struct.unpack("=16Q", self._socket.getsockopt(SOL_XDP, XDP_MMAP_OFFSETS, 128))
        self._rx, self._fill = offsets[0:4], offsets[8:12]
        fileno = self._socket.fileno()
        self._rx_ring = mmap.mmap(fileno, self._rx[2] + FRAMES * 16, offset=0)
        self._fill_ring = mmap.mmap(fileno, self._fill[2] + FRAMES * 8, offset=FILL_OFFSET)
        for index in range(FRAMES):
            struct.pack_into("=Q", self._fill_ring, self._fill[2] + 8 * index, index * SIZE)
        struct.pack_into("=I", self._fill_ring, self._fill[0], FRAMES)
        libc = ctypes.CDLL(None, use_errno=True)
        name = struct.pack("=HHIII", AF_XDP, XDP_COPY, ifindex, queue, 0)
        if libc.bind(fileno, name, len(name)):
            raise OSError(ctypes.get_errno(), "bind of an AF_XDP socket")

    def fileno(self) -> int:
        return self._socket.fileno()

    def frames(self) -> list[bytes]:
        """The frames that have come in."""
        (producer,) = struct.unpack_from("=I", self._rx_ring, self._rx[0])
        (consumer,) = struct.unpack_from("=I", self._rx_ring, self._rx[1])
        found = []
        for index in range(consumer, producer):
            place = self._rx[2] + 16 * (index % FRAMES)
            address, length, _ = struct.unpack_from("=QII", self._rx_ring, place)
            found.append(self._memory[address : address + length])
        return found

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def receiver(ifindex: int, queue: int = 0) -> Iterator[Receiver]:
    """A socket that is closed at the end. Call it in the network namespace of the interface."""
    made = Receiver(ifindex, queue)
    try:
        yield made
    finally:
        made.close()
        os.sched_yield()
