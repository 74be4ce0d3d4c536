"""What a field of a generated packet is, from packet to packet.

A value is a number, or what the field is made of: an address as text, of IPv4, IPv6 or hardware.
Chance comes from a seed: the same seed gives the same packets.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, TypeAlias

#: A number, or an address as text.
Value: TypeAlias = int | str | IPv4Address | IPv6Address
#: Makes a number of a value.
ToNumber: TypeAlias = Callable[[Value], int]

_MAC = re.compile(r"[0-9a-fA-F]{1,2}([:-][0-9a-fA-F]{1,2}){5}")
#: Most values that are drawn by weights.
_MOST_WEIGHTED = 1 << 20


class Values(ABC):
    """The values of a field, one after the other."""

    @abstractmethod
    def spec(self, number: ToNumber) -> tuple[Any, ...]:
        """As the native generator takes them.

        Raises ValueError for what makes no sense.
        """

    @abstractmethod
    def example(self) -> Value:
        """One of them."""


@dataclass(frozen=True)
class Sequence(Values):
    """`first`, `first + step` and so on up to `last`, and again."""

    first: Value
    last: Value
    step: int = 1

    def spec(self, number: ToNumber) -> tuple[Any, ...]:
        first, last = number(self.first), number(self.last)
        if not self.step or (last - first) * self.step < 0:
            raise ValueError(f"no steps of {self.step} lead from {self.first} to {self.last}")
        count = (last - first) // self.step + 1
        if count >= 1 << 64:
            raise ValueError(f"there are too many values from {self.first} to {self.last}")
        return ("sequence", first, count, self.step)

    def example(self) -> Value:
        return self.first


@dataclass(frozen=True)
class Random(Values):
    """Any from `first` to `last`, each as likely."""

    first: Value
    last: Value
    seed: int = 1

    def spec(self, number: ToNumber) -> tuple[Any, ...]:
        first, last = number(self.first), number(self.last)
        if not 0 <= last - first < 1 << 64:
            raise ValueError(
                f"values by chance are from the least to the greatest of at most 2^64, not from "
                f"{self.first} to {self.last}"
            )
        # All of 64 bits are one value too many for the native generator; nobody misses it.
        return ("random", first, min(last - first + 1, (1 << 64) - 1), _seed(self.seed))

    def example(self) -> Value:
        return self.first


@dataclass(frozen=True)
class Cycle(Values):
    """These, in turn."""

    values: tuple[Value, ...]

    def __init__(self, values: Iterable[Value]) -> None:
        object.__setattr__(self, "values", tuple(values))
        if not self.values:
            raise ValueError("a list of values has one at least")

    def spec(self, number: ToNumber) -> tuple[Any, ...]:
        return ("list", [number(value) for value in self.values])

    def example(self) -> Value:
        return self.values[0]


@dataclass(frozen=True)
class Weighted(Values):
    """These by chance, each as often as its weight says."""

    weights: Mapping[Value, float]
    seed: int = 1

    def spec(self, number: ToNumber) -> tuple[Any, ...]:
        weights = [float(weight) for weight in self.weights.values()]
        if (
            not 0 < len(weights) <= _MOST_WEIGHTED
            or not all(0 <= weight < float("inf") for weight in weights)
            or not 0 < sum(weights) < float("inf")
        ):
            raise ValueError(
                f"weights are numbers from 0 on, at most {_MOST_WEIGHTED} and not all 0, "
                f"not {list(self.weights.values())[:8]}"
            )
        values = [number(value) for value in self.weights]
        return ("weighted", values, weights, _seed(self.seed))

    def example(self) -> Value:
        return next(iter(self.weights))


@dataclass(frozen=True)
class Zipf(Values):
    """From `first` to `last` by chance, the k-th as likely as 1 / k^`exponent` (Zipf's law), as
    the flows of many networks are.
    """

    first: Value
    last: Value
    exponent: float = 1.0
    seed: int = 1

    def spec(self, number: ToNumber) -> tuple[Any, ...]:
        first = number(self.first)
        count = number(self.last) - first + 1
        if not 1 <= count <= _MOST_WEIGHTED:
            raise ValueError(
                f"by Zipf's law go 1 to {_MOST_WEIGHTED} values, not {count} "
                f"(from {self.first} to {self.last})"
            )
        if not 0 <= self.exponent <= 100:
            raise ValueError(f"the exponent of Zipf's law is 0 to 100, not {self.exponent}")
        return ("zipf", first, count, float(self.exponent), _seed(self.seed))

    def example(self) -> Value:
        return self.first


#: Sizes as the Internet is said to have them, seven small packets to four to one large (64, 594 and
#: 1518 bytes with the frame check sequence), in a fixed order.
IMIX = Cycle([60, 590, 60, 60, 590, 60, 1514, 60, 590, 60, 60, 590])


def number_of(value: Value) -> int:
    """The number of a field: one that is given as such, or an address.

    Raises ValueError.
    """
    if isinstance(value, bool):
        raise ValueError(f"{value} is no number")
    if isinstance(value, int):
        return value
    if isinstance(value, IPv4Address | IPv6Address):
        return int(value)
    text = value.strip()
    if _MAC.fullmatch(text):
        return int.from_bytes(bytes(int(part, 16) for part in re.split("[:-]", text)), "big")
    try:
        return int(text, 0)
    except ValueError:
        pass
    try:
        return int(ip_address(text))
    except ValueError:
        raise ValueError(f"{value!r} is no number and no address") from None


def parse(text: str) -> Value | Values:
    """Values as commands take them.

    "10.0.0.1" is that, "10.0.0.1-10.0.0.9" and "10.0.0.0/24" are sequences, "1,2,7" a list,
    "60*7,1514*1" weighted; "random:1024-65535", "zipf:1-100" and "zipf@1.2:10.0.0.0/16" are by
    chance.

    Raises ValueError.
    """
    text = text.strip()
    kind = re.match(r"(random|zipf)(?:@([0-9.]+))?:(.+)$", text)
    if kind is None:
        if "*" in text:
            return Weighted(dict(_weighted(part) for part in text.split(",")))
        if "," in text:
            return Cycle([_one(part) for part in text.split(",")])
        span = _span(text)
        return _one(text) if span is None else Sequence(*span)
    span = _span(kind[3])
    if span is None:
        raise ValueError(
            f"{text!r}: {kind[1]} is followed by a range, such as 1-100 or 10.0.0.0/24"
        )
    if kind[1] == "random":
        if kind[2] is not None:
            raise ValueError(f"{text!r}: chance without a law has no exponent")
        return Random(*span)
    try:
        return Zipf(*span, exponent=float(kind[2] or 1.0))
    except ValueError:
        raise ValueError(f"{text!r}: {kind[2]!r} is no exponent") from None


def _span(text: str) -> tuple[Value, Value] | None:
    """The first and the last of a range."""
    if "/" in text:
        try:
            network = ip_network(text.strip())
        except ValueError as error:
            raise ValueError(f"{text!r} is no network: {error}") from None
        return network[0], network[-1]
    if _MAC.fullmatch(text) or "-" not in text[1:]:
        return None
    first, _, last = text.rpartition("-")
    return _one(first), _one(last)


def _weighted(part: str) -> tuple[Value, float]:
    value, star, weight = part.partition("*")
    try:
        return _one(value), float(weight) if star else 1.0
    except ValueError as error:
        raise ValueError(f"{part!r} is no value with a weight, as in 60*7: {error}") from None


def _one(text: str) -> Value:
    number_of(text)
    return text.strip()


def _seed(seed: int) -> int:
    return seed % (1 << 64)
