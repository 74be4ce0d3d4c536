"""Programs that clang compiled, without libbpf: what of an ELF object the kernel needs.

Only what the peers here have: one program in a section "xdp", maps of five words each in a section
"maps", no calls between functions, no constants in sections of their own.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

_WIDE = 0x18
_MAP_DESCRIPTOR = 1
_SYMBOL_TABLE = 2
_RELOCATIONS = 9


@dataclass(frozen=True)
class MapDefinition:
    """A map as its source declares it."""

    name: str
    kind: int
    key_size: int
    value_size: int
    entries: int
    flags: int


@dataclass(frozen=True)
class BpfObject:
    """A program, its maps, and the slots whose constant is one of them."""

    code: bytes
    maps: list[MapDefinition]
    uses: list[tuple[int, int]]

    @property
    def instructions(self) -> int:
        """Instructions; one of two slots counts once."""
        slots = len(self.code) // 8
        return slots - sum(self.code[8 * slot] == _WIDE for slot in range(slots))

    def with_maps(self, descriptors: list[int]) -> bytes:
        """The program with its maps' descriptors."""
        code = bytearray(self.code)
        for slot, index in self.uses:
            code[8 * slot + 1] = (code[8 * slot + 1] & 0x0F) | _MAP_DESCRIPTOR << 4
            struct.pack_into("<i", code, 8 * slot + 4, descriptors[index])
        return bytes(code)


def read(path: Path) -> BpfObject:
    """Read an object file. Raises ValueError where it is not what this knows."""
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError(f"{path} is no little-endian ELF object of 64 bits")
    table, entry, count, names_at = struct.unpack_from("<Q10xHHH", data, 40)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, table + entry * i) for i in range(count)]

    def body(index: int) -> bytes:
        offset, size = sections[index][4], sections[index][5]
        return data[offset : offset + size]

    names = [_text(body(names_at), section[0]) for section in sections]
    if "xdp" not in names:
        raise ValueError(f"{path} has no section xdp")
    symbols_at = next(i for i, section in enumerate(sections) if section[1] == _SYMBOL_TABLE)
    strings = body(sections[symbols_at][6])
    symbols = [
        (_text(strings, name), section, value)
        for name, _, _, section, value, _ in struct.iter_unpack("<IBBHQQ", body(symbols_at))
    ]
    maps: list[MapDefinition] = []
    index_of: dict[int, int] = {}
    if "maps" in names:
        maps_at = names.index("maps")
        for name, section, value in symbols:
            if section == maps_at and name:
                index_of[value] = len(maps)
                maps.append(MapDefinition(name, *struct.unpack_from("<5I", body(maps_at), value)))
    program_at = names.index("xdp")
    uses: list[tuple[int, int]] = []
    for i, section in enumerate(sections):
        if section[1] != _RELOCATIONS or section[7] != program_at:
            continue
        for offset, info in struct.iter_unpack("<QQ", body(i)):
            name, symbol_section, value = symbols[info >> 32]
            if not maps or symbol_section != names.index("maps"):
                raise ValueError(f"{path} refers to {name}, which is no map")
            uses.append((offset // 8, index_of[value]))
    return BpfObject(body(program_at), maps, uses)


def _text(strings: bytes, at: int) -> str:
    return strings[at : strings.index(b"\0", at)].decode()
