"""What an expression of a program can be. Every expression has one kind, known before it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class Kind:
    """The kind of an expression; compared by value."""

    def __str__(self) -> str:
        raise NotImplementedError


@dataclass(frozen=True)
class Simple(Kind):
    """A kind that is told by its name alone."""

    name: str

    def __str__(self) -> str:
        return self.name


#: An integer of 64 bits with a sign; it wraps where Python's would grow.
INT = Simple("int")
#: An integer of 64 bits without a sign.
U64 = Simple("u64")
BOOL = Simple("bool")
VERDICT = Simple("a verdict")
IPV4 = Simple("an IPv4 address")
IPV6 = Simple("an IPv6 address")
MAC = Simple("a MAC address")
PACKET = Simple("the packet")
#: The result of a function that returns none.
NOTHING = Simple("nothing")

NUMBERS = (INT, U64, BOOL)
ADDRESSES = (IPV4, IPV6, MAC)
#: By the names that `millrace.xdp.headers` and `millrace.xdp.types` use.
BY_NAME = {"int": INT, "bool": BOOL, "ipv4": IPV4, "ipv6": IPV6, "mac": MAC}


@dataclass(frozen=True)
class TupleKind(Kind):
    """Several values in a row."""

    parts: tuple[Kind, ...]

    def __str__(self) -> str:
        return f"a tuple of {len(self.parts)}"


@dataclass(frozen=True)
class HeaderKind(Kind):
    """A header, present or not."""

    name: str

    def __str__(self) -> str:
        return f"the header {self.name}"


@dataclass(frozen=True)
class RegionKind(Kind):
    """Bytes behind a header or in its variable part."""

    header: str
    name: str

    def __str__(self) -> str:
        return f"the {self.name} of {self.header}"


@dataclass(frozen=True)
class StaticKind(Kind):
    """What is known while compiling and has no value in the kernel: a map, a function, a type, a
    network, a text.
    """

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StaticKind) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)

    def __str__(self) -> str:
        return f"{type(self.value).__name__} {self.value!r}"[:60]


def join(first: Kind, second: Kind) -> Kind | None:
    """The kind of a variable that is given values of both; None if there is none."""
    if first == second:
        return first
    if first in NUMBERS and second in NUMBERS:
        return U64 if U64 in (first, second) else INT
    if isinstance(first, TupleKind) and isinstance(second, TupleKind):
        if len(first.parts) != len(second.parts):
            return None
        parts = [join(a, b) for a, b in zip(first.parts, second.parts, strict=True)]
        if all(part is not None for part in parts):
            return TupleKind(tuple(part for part in parts if part is not None))
    return None
