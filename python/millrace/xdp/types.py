"""The types of maps' keys and values. In a program, those of integers are conversions as well."""

from __future__ import annotations

import ipaddress
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

_MAC = re.compile(r"[0-9A-Fa-f]{2}([:-])[0-9A-Fa-f]{2}(?:\1[0-9A-Fa-f]{2}){4}")


class Type(ABC):
    """How values look in a map (`encode`, `decode`), and what a program computes with, which is
    always an integer (`pack`, `unpack`).
    """

    name: str
    #: Bytes in a map.
    size: int
    #: Its offset within a tuple is a multiple of this, as in C.
    align: int

    @abstractmethod
    def encode(self, value: Any) -> bytes:
        """The bytes of a value of Python's. Raises TypeError or ValueError for a wrong one."""

    @abstractmethod
    def decode(self, data: bytes) -> Any:
        """The value of Python's for these bytes."""

    @abstractmethod
    def pack(self, value: Any) -> bytes:
        """The bytes of what a program holds, cut to the size."""

    @abstractmethod
    def unpack(self, data: bytes) -> Any:
        """What a program holds, from the bytes."""

    def __repr__(self) -> str:
        return self.name


class Integer(Type):
    """An integer of a fixed width. Called, it cuts a number to that width: `u8(300)` is 44."""

    def __init__(
        self,
        name: str,
        bits: int,
        *,
        signed: bool = False,
        order: Literal["little", "big"] = sys.byteorder,
    ) -> None:
        self.name = name
        self.bits = bits
        self.signed = signed
        #: "big" where the bytes are in network order, whatever the machine's is.
        self.order = order
        self.size = self.align = bits // 8
        self.lowest = -(1 << (bits - 1)) if signed else 0
        self.highest = (1 << (bits - signed)) - 1

    def __call__(self, value: int) -> int:
        value = int(value) & ((1 << self.bits) - 1)
        return value - (1 << self.bits) if value > self.highest else value

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, int):
            raise TypeError(f"{self.name} takes an int, not {type(value).__name__}")
        if not self.lowest <= value <= self.highest:
            raise ValueError(f"{value} is outside {self.name}: {self.lowest} to {self.highest}")
        return self.pack(value)

    def decode(self, data: bytes) -> int:
        return self.unpack(data)

    def pack(self, value: int) -> bytes:
        return self(value).to_bytes(self.size, self.order, signed=self.signed)

    def unpack(self, data: bytes) -> int:
        return int.from_bytes(data, self.order, signed=self.signed)


class Address(Type):
    """An address; its bytes in a map are those of the packet, in network order."""

    def __init__(self, name: str, size: int, align: int) -> None:
        self.name = name
        self.size = size
        self.align = align

    def encode(self, value: Any) -> bytes:
        return self.pack(self.number(value))

    def number(self, value: Any) -> int:
        """An address as a number, from any of its forms."""
        if isinstance(value, bool) or not isinstance(
            value, (int, str, bytes, ipaddress.IPv4Address, ipaddress.IPv6Address)
        ):
            raise TypeError(f"{self.name} takes an address, not {type(value).__name__}")
        if isinstance(value, (bytes, int)):
            number = int.from_bytes(value, "big") if isinstance(value, bytes) else value
            wrong_length = isinstance(value, bytes) and len(value) != self.size
            if wrong_length or not 0 <= number < 1 << (8 * self.size):
                raise ValueError(f"{value!r} is no {self.name} address: it has {self.size} bytes")
            return number
        return self._parse(value)

    def _parse(self, value: Any) -> int:
        raise NotImplementedError

    def pack(self, value: int) -> bytes:
        return (value & ((1 << (8 * self.size)) - 1)).to_bytes(self.size, "big")

    def unpack(self, data: bytes) -> int:
        return int.from_bytes(data, "big")

    def decode(self, data: bytes) -> Any:
        raise NotImplementedError


class _IPv4(Address):
    def _parse(self, value: Any) -> int:
        if isinstance(value, ipaddress.IPv6Address):
            raise TypeError(f"IPv4 takes an IPv4 address, not {value}")
        return int(ipaddress.IPv4Address(value))

    def decode(self, data: bytes) -> ipaddress.IPv4Address:
        return ipaddress.IPv4Address(data)


class _IPv6(Address):
    def _parse(self, value: Any) -> int:
        if isinstance(value, ipaddress.IPv4Address):
            raise TypeError(f"IPv6 takes an IPv6 address, not {value}")
        return int(ipaddress.IPv6Address(value))

    def decode(self, data: bytes) -> ipaddress.IPv6Address:
        return ipaddress.IPv6Address(data)


class _Mac(Address):
    def _parse(self, value: Any) -> int:
        if not isinstance(value, str) or not _MAC.fullmatch(value):
            raise ValueError(f"{value!r} is no MAC address; one looks like 02:00:00:00:00:01")
        return int(value.replace(value[2], ""), 16)

    def decode(self, data: bytes) -> str:
        return data.hex(":")


class Tuple(Type):
    """Several values in a row, laid out as a C struct; what is between them is zero."""

    def __init__(self, parts: Sequence[Type]) -> None:
        self.parts = tuple(parts)
        self.name = f"({', '.join(part.name for part in parts)}{',' if len(parts) == 1 else ''})"
        self.align = max(part.align for part in parts)
        self.offsets: list[int] = []
        end = 0
        for part in parts:
            end = -(-end // part.align) * part.align
            self.offsets.append(end)
            end += part.size
        self.size = -(-end // self.align) * self.align

    def _join(self, pieces: list[bytes]) -> bytes:
        data = bytearray(self.size)
        for offset, piece in zip(self.offsets, pieces, strict=True):
            data[offset : offset + len(piece)] = piece
        return bytes(data)

    def _split(self, data: bytes) -> list[bytes]:
        return [
            data[at : at + part.size] for at, part in zip(self.offsets, self.parts, strict=True)
        ]

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, (tuple, list)) or len(value) != len(self.parts):
            raise TypeError(f"{self.name} takes a tuple of {len(self.parts)}, not {value!r}")
        return self._join([t.encode(v) for t, v in zip(self.parts, value, strict=True)])

    def decode(self, data: bytes) -> tuple[Any, ...]:
        pieces = self._split(data)
        return tuple(t.decode(piece) for t, piece in zip(self.parts, pieces, strict=True))

    def pack(self, value: Sequence[Any]) -> bytes:
        return self._join([t.pack(v) for t, v in zip(self.parts, value, strict=True)])

    def unpack(self, data: bytes) -> tuple[Any, ...]:
        pieces = self._split(data)
        return tuple(t.unpack(piece) for t, piece in zip(self.parts, pieces, strict=True))


#: What may be said where a type is wanted.
TypeLike: TypeAlias = "Type | tuple[Type, ...] | list[Type]"

u8 = Integer("u8", 8)
u16 = Integer("u16", 16)
u32 = Integer("u32", 32)
u64 = Integer("u64", 64)
i8 = Integer("i8", 8, signed=True)
i16 = Integer("i16", 16, signed=True)
i32 = Integer("i32", 32, signed=True)
i64 = Integer("i64", 64, signed=True)
#: Unsigned, with the bytes in network order: what programs in C often leave in their maps.
be16 = Integer("be16", 16, order="big")
be32 = Integer("be32", 32, order="big")
be64 = Integer("be64", 64, order="big")
IPv4: Address = _IPv4("IPv4", 4, 4)
IPv6: Address = _IPv6("IPv6", 16, 4)
MAC: Address = _Mac("MAC", 6, 1)


def as_type(declared: TypeLike, what: str) -> Type:
    """The type that a declaration means. Raises TypeError for what is none."""
    if isinstance(declared, Type):
        return declared
    if isinstance(declared, (tuple, list)) and declared:
        if not all(isinstance(part, (Integer, Address)) for part in declared):
            raise TypeError(f"{what} is {declared!r}; a tuple's parts are integers and addresses")
        return Tuple(declared)
    raise TypeError(
        f"{what} is {declared!r}, which is no type; there is u8 to u64, i8 to i64, be16 to be64, "
        "IPv4, IPv6, MAC, and tuples of these"
    )
