"""pcapng, as far as streams of frames from Millrace need it: blocks as they come in, and a writer
for frames that carry a remark.

Format: draft-ietf-opsawg-pcapng. The reader takes what Millrace's own writer makes (little-endian,
nanoseconds) from a process that may be hostile, so every length is checked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

SECTION_HEADER = 0x0A0D0D0A
INTERFACE = 1
STATISTICS = 5
PACKET = 6
_BYTE_ORDER = 0x1A2B3C4D
_ETHERNET = 1
_COMMENT, _IF_NAME, _IF_TSRESOL, _EPB_FLAGS = 1, 2, 9, 2
_ISB_IFRECV, _ISB_IFDROP = 4, 5

#: Largest block: a frame of 262,144 bytes, its head and its options.
MOST_BLOCK = 262_144 + 4096

INBOUND, OUTBOUND = 1, 2


@dataclass(frozen=True)
class Packet:
    """One frame of a stream."""

    interface: int
    #: Nanoseconds since 1970.
    time: int
    data: bytes
    #: Bytes that the frame had on its way.
    original: int
    #: INBOUND, OUTBOUND or 0.
    direction: int


@dataclass(frozen=True)
class Statistics:
    """What an interface of a stream came to."""

    interface: int
    received: int
    dropped: int


class Stream:
    """Blocks of a stream that comes in pieces."""

    def __init__(self) -> None:
        self._rest = b""
        self._begun = False

    def feed(self, data: bytes) -> Iterator[tuple[bytes, Packet | Statistics | str | None]]:
        """The blocks that are whole now: their bytes, and what they mean (an interface is its
        name).

        Raises ValueError for what is no pcapng.
        """
        self._rest += data
        at = 0
        try:
            while len(self._rest) - at >= 12:
                kind, length = struct.unpack_from("<II", self._rest, at)
                if not self._begun and kind != SECTION_HEADER:
                    raise ValueError("the stream does not begin as pcapng does")
                if not 12 <= length <= MOST_BLOCK or length % 4:
                    raise ValueError(f"a pcapng block claims {length} bytes")
                if len(self._rest) - at < length:
                    break
                block = self._rest[at : at + length]
                self._begun = True
                at += length
                yield block, _meaning(kind, block[8:-4])
        finally:
            self._rest = self._rest[at:]


def _meaning(kind: int, body: bytes) -> Packet | Statistics | str | None:
    if kind == PACKET:
        if len(body) < 20:
            raise ValueError("a packet block without a head")
        interface, high, low, length, original = struct.unpack_from("<IIIII", body)
        if length > len(body) - 20:
            raise ValueError(f"a packet claims {length} bytes in a block of {len(body)}")
        options = _options(body[20 + (length + 3) // 4 * 4 :])
        flags = int.from_bytes(options.get(_EPB_FLAGS, b"")[:4], "little")
        data = body[20 : 20 + length]
        return Packet(interface, high << 32 | low, data, original, flags & 3)
    if kind == STATISTICS and len(body) >= 12:
        options = _options(body[12:])
        received, dropped = (
            int.from_bytes(options.get(code, b"")[:8], "little")
            for code in (_ISB_IFRECV, _ISB_IFDROP)
        )
        return Statistics(struct.unpack_from("<I", body)[0], received, dropped)
    if kind == INTERFACE and len(body) >= 8:
        return _options(body[8:]).get(_IF_NAME, b"").decode("utf-8", "replace")
    return None


def _options(data: bytes) -> dict[int, bytes]:
    options = {}
    at = 0
    while len(data) - at >= 4:
        code, length = struct.unpack_from("<HH", data, at)
        if code == 0:
            break
        options[code] = data[at + 4 : at + 4 + length]
        at += 4 + (length + 3) // 4 * 4
    return options


class Writer:
    """Writes a stream with one or several Ethernet interfaces."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._interfaces: dict[str, int] = {}
        body = struct.pack("<IHHq", _BYTE_ORDER, 1, 0, -1)
        self._block(SECTION_HEADER, body)

    def interface(self, name: str) -> int:
        """The number of an interface; one that is new is described first."""
        number = self._interfaces.get(name)
        if number is None:
            number = self._interfaces[name] = len(self._interfaces)
            options = _option(_IF_NAME, name.encode()[:255]) + _option(_IF_TSRESOL, b"\x09")
            body = struct.pack("<HHI", _ETHERNET, 0, 262_144)
            self._block(INTERFACE, body + options + _option(0, b""))
        return number

    def packet(
        self, interface: str, time: int, data: bytes, original: int, comment: str = ""
    ) -> None:
        """Add a frame; `time` is nanoseconds since 1970."""
        number = self.interface(interface)
        head = struct.pack("<IIIII", number, time >> 32, time & 0xFFFFFFFF, len(data), original)
        padding = bytes(-len(data) % 4)
        remark = _option(_COMMENT, comment.encode()[:1024]) + _option(0, b"") if comment else b""
        self._block(PACKET, head + data + padding + remark)

    def statistics(self, interface: str, time: int, received: int, dropped: int) -> None:
        """Add what an interface came to."""
        head = struct.pack("<III", self.interface(interface), time >> 32, time & 0xFFFFFFFF)
        counts = ((_ISB_IFRECV, received), (_ISB_IFDROP, dropped))
        options = b"".join(_option(code, struct.pack("<Q", count)) for code, count in counts)
        self._block(STATISTICS, head + options + _option(0, b""))

    def _block(self, kind: int, body: bytes) -> None:
        length = struct.pack("<I", len(body) + 12)
        self._file.write(struct.pack("<I", kind) + length + body + length)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)
