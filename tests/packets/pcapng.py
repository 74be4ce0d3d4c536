"""What a test sees of a pcapng file: its blocks, by a reader of its own."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Contents:
    """One section with one interface."""

    #: Options of the section, of the interface and of its counters, by their codes.
    section: dict[int, bytes] = field(default_factory=dict)
    interface: dict[int, bytes] = field(default_factory=dict)
    counters: dict[int, bytes] = field(default_factory=dict)
    snap_length: int = 0
    #: Nanoseconds since 1970, length on the wire, bytes.
    packets: list[tuple[int, int, bytes]] = field(default_factory=list)

    def count(self, code: int) -> int:
        """A counter of 64 bits."""
        return int(struct.unpack("<Q", self.counters[code])[0])

    @property
    def frames(self) -> list[bytes]:
        return [data for _, _, data in self.packets]


def read(path: Path) -> Contents:
    """All of a file, every byte of which belongs to a whole block."""
    data, contents, at = path.read_bytes(), Contents(), 0
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        assert length % 4 == 0
        assert struct.unpack_from("<I", data, at + length - 4) == (length,)
        body = data[at + 8 : at + length - 4]
        if kind == 0x0A0D0D0A:
            assert struct.unpack_from("<IHH", body) == (0x1A2B3C4D, 1, 0)
            contents.section = _options(body[16:])
        elif kind == 1:
            link, _, contents.snap_length = struct.unpack_from("<HHI", body)
            assert link == 1
            contents.interface = _options(body[8:])
        elif kind == 5:
            contents.counters = _options(body[12:])
        else:
            assert kind == 6
            _, high, low, kept, original = struct.unpack_from("<5I", body)
            contents.packets.append((high << 32 | low, original, body[20 : 20 + kept]))
        at += length
    return contents


def _options(data: bytes) -> dict[int, bytes]:
    options, at = {}, 0
    while at + 4 <= len(data):
        code, length = struct.unpack_from("<HH", data, at)
        if code == 0:
            break
        options[code] = data[at + 4 : at + 4 + length]
        at += 4 + (length + 3) // 4 * 4
    return options
