"""What goes wrong on a wire, as people write it: "1%", "10ms", "100M", "1bdp".

Numbers without a unit are probabilities from 0 to 1, seconds, bits per second and bytes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import Any, TypeAlias, TypedDict, TypeVar

from millrace.lab.errors import LabError

#: `0.01` or `"1%"`.
Probability: TypeAlias = float | str
#: Seconds, or `"10ms"`.
Time: TypeAlias = float | str
#: Bits per second, or `"100M"`.
Rate: TypeAlias = float | str
#: Bytes, or `"64KiB"`, `"50packets"`, `"1bdp"`.
Size: TypeAlias = int | str

T = TypeVar("T")
#: One value for both directions, or one for what `a` sends and one for what `b` sends.
Both: TypeAlias = T | tuple[T, T]

_NUMBER = r"([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)"
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "min": 60.0}
_TIMES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_BYTES = {
    "": 1,
    "b": 1,
    "k": 1000,
    "kb": 1000,
    "m": 10**6,
    "mb": 10**6,
    "kib": 1024,
    "mib": 1 << 20,
    "g": 10**9,
    "gb": 10**9,
    "gib": 1 << 30,
}
_ETHERNET_HEADER = 14
#: The least queue that is asked for in bandwidth-delay products, in packets of full size: the one
#: that is leaving and three behind it.
BDP_QUEUE_PACKETS = 4


class Wishes(TypedDict, total=False):
    """What may be asked of a wire; see `Lab.wire`."""

    loss: Both[Probability]
    burst: Both[float]
    duplicate: Both[Probability]
    corrupt: Both[Probability]
    delay: Both[Time]
    jitter: Both[Time]
    jitter_reorders: Both[bool]
    reorder: Both[Probability]
    reorder_delay: Both[Time]
    rate: Both[Rate]
    queue: Both[Size]
    mark: Both[Size]


@dataclass(frozen=True)
class Impairment:
    """What happens to the packets of one direction, in numbers. The default is nothing."""

    #: Probability that a packet is lost, each by itself.
    loss: float = 0.0
    #: A Gilbert-Elliott channel: the probabilities of turning bad and good again at each packet,
    #: and of a loss while it is good and while it is bad.
    bursts: tuple[float, float, float, float] | None = None
    #: Probability that a packet arrives twice.
    duplicate: float = 0.0
    #: Probability that one bit behind the Ethernet header arrives flipped.
    corrupt: float = 0.0
    #: Seconds on the way.
    delay: float = 0.0
    #: Up to so many seconds more.
    jitter: float = 0.0
    #: Whether jitter may change the order of packets.
    jitter_reorders: bool = False
    #: Probability that a packet takes `reorder_delay` seconds longer and is overtaken.
    reorder: float = 0.0
    reorder_delay: float = 0.0
    #: Bits of Ethernet frames a second; None: as many as come.
    rate: int | None = None
    #: Bytes that may wait for their turn when there is a rate.
    queue: int | None = None
    #: More bytes waiting than this mark a packet with Congestion Experienced (RFC 3168).
    mark: int | None = None

    def native(self) -> dict[str, Any]:
        """The fields that are set, as `millrace._native.Forwarder` takes them."""
        named = ((field.name, getattr(self, field.name), field.default) for field in fields(self))
        return {name: value for name, value, default in named if value != default}

    def packets_on_the_way(self, mtu: int) -> int:
        """About how many packets of full size are on the wire and in its queue at once."""
        seconds = self.delay + self.jitter + self.reorder_delay
        size = (self.rate or 10**9) / 8 * seconds + (self.queue or 0)
        return math.ceil(size / (mtu + _ETHERNET_HEADER))


def read(wishes: Wishes, mtu: int) -> tuple[Impairment, Impairment]:
    """The impairments of both directions of a wire."""
    for name in wishes:
        if name not in Wishes.__annotations__:
            known = ", ".join(Wishes.__annotations__)
            raise LabError(f"no impairment is called {name}; there are: {known}")
    sides = [_side(wishes, index) for index in (0, 1)]
    delays = [time("delay", side.get("delay", 0.0)) for side in sides]
    return (
        _read_side(sides[0], sum(delays), mtu),
        _read_side(sides[1], sum(delays), mtu),
    )


def _side(wishes: Wishes, index: int) -> dict[str, Any]:
    side: dict[str, Any] = {}
    for name, value in wishes.items():
        if isinstance(value, tuple):
            if len(value) != 2:
                raise LabError(f"{name} is one value or two, for each direction one, not {value}")
            value = value[index]
        if value is not None:
            side[name] = value
    return side


def _read_side(side: dict[str, Any], round_trip: float, mtu: int) -> Impairment:
    loss = probability("loss", side.get("loss", 0.0))
    bursts = None
    if "burst" in side:
        bursts, loss = _bursts(side["burst"], loss), 0.0
    bits = rate("rate", side["rate"]) if "rate" in side else None
    for name in ("queue", "mark"):
        if name in side and bits is None:
            raise LabError(f"{name} takes a rate: without one, nothing waits")
    reorder = probability("reorder", side.get("reorder", 0.0))
    reorder_delay = time("reorder_delay", side.get("reorder_delay", 0.0))
    if reorder > 0 and reorder_delay == 0:
        raise LabError("reorder takes reorder_delay: how much longer such a packet takes")
    default = "1bdp" if round_trip > 0 else "256KiB"
    return Impairment(
        loss=loss,
        bursts=bursts,
        duplicate=probability("duplicate", side.get("duplicate", 0.0)),
        corrupt=probability("corrupt", side.get("corrupt", 0.0)),
        delay=time("delay", side.get("delay", 0.0)),
        jitter=time("jitter", side.get("jitter", 0.0)),
        jitter_reorders=flag("jitter_reorders", side.get("jitter_reorders", False)),
        reorder=reorder,
        reorder_delay=reorder_delay,
        rate=bits,
        queue=None
        if bits is None
        else size("queue", side.get("queue", default), bits, round_trip, mtu),
        mark=size("mark", side["mark"], bits, round_trip, mtu) if "mark" in side else None,
    )


def _bursts(length: Any, loss: float) -> tuple[float, float, float, float]:
    if not isinstance(length, int | float) or not 1 <= length <= 1e6:
        raise LabError(f"burst is the mean length of a burst of losses, from 1 on, not {length!r}")
    if not 0 < loss < 1:
        raise LabError(f"burst takes a loss above 0 and below 1, not {loss:g}")
    to_good = 1 / length
    to_bad = to_good * loss / (1 - loss)
    if to_bad > 1:
        raise LabError(
            f"bursts of {length:g} packets cannot make a loss of {loss:g}; make them longer"
        )
    return (to_bad, to_good, 0.0, 1.0)


def probability(name: str, value: Any) -> float:
    """A number from 0 to 1, or a text such as "1%"."""
    number = _plain(value)
    if number is None and isinstance(value, str):
        match = re.fullmatch(_NUMBER + r"\s*(%?)", value.strip())
        if match:
            number = float(match[1]) / (100 if match[2] else 1)
    if number is None or not 0 <= number <= 1:
        raise LabError(f'{name} is a probability such as 0.01 or "1%", not {value!r}')
    return number


def time(
    name: str, value: Any, *, what: str = "a time up to an hour", most: float = 3600.0
) -> float:
    """Seconds up to `most`, or a text such as "10ms"."""
    number = _plain(value)
    if number is None and isinstance(value, str):
        match = re.fullmatch(_NUMBER + r"\s*([a-zµ]+)", value.strip())
        if match and match[2] in _SECONDS:
            number = float(match[1]) * _SECONDS[match[2]]
    if number is None or not 0 <= number <= most:
        units = ", ".join(_SECONDS)
        raise LabError(f'{name} is {what}, in seconds or as "10ms" ({units}), not {value!r}')
    return number


def rate(name: str, value: Any) -> int:
    """Bits per second, or a text such as "100M", "1.5Gbit/s"."""
    number = _plain(value)
    if number is None and isinstance(value, str):
        match = re.fullmatch(_NUMBER + r"\s*([kmgt]?)(bit|bit/s|bps|)", value.strip().lower())
        if match:
            number = float(match[1]) * _TIMES[match[2]]
    if number is None or not 1 <= number <= 1e12:
        raise LabError(
            f'{name} is a rate in bit/s such as 100e6, "100M" or "1Gbit/s", not {value!r}'
        )
    return round(number)


def size(name: str, value: Any, bits_per_s: int | None, round_trip: float, mtu: int) -> int:
    """Bytes, or a text such as "64KiB", "50packets" (of full size) or "1bdp"."""
    number = _plain(value)
    if number is None and isinstance(value, str):
        match = re.fullmatch(_NUMBER + r"\s*([a-z]*)", value.strip().lower())
        if match and match[2] in _BYTES:
            number = float(match[1]) * _BYTES[match[2]]
        elif match and match[2] in ("p", "packet", "packets"):
            number = float(match[1]) * (mtu + _ETHERNET_HEADER)
        elif match and match[2] == "bdp":
            if bits_per_s is None or round_trip == 0:
                raise LabError(f"{name} of {value!r} takes a rate and a delay to multiply")
            least = BDP_QUEUE_PACKETS * (mtu + _ETHERNET_HEADER)
            number = max(least, float(match[1]) * bits_per_s / 8 * round_trip)
    if number is None or not 0 <= number <= 1 << 40:
        raise LabError(
            f'{name} is a size such as 65536 (bytes), "64KiB", "50packets" or "1bdp", not {value!r}'
        )
    return round(number)


def whole(name: str, value: int, least: int = 0, most: int = (1 << 64) - 1) -> int:
    """A whole number within its bounds."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or not least <= value <= most:
        raise LabError(f"{name} is a whole number from {least} to {most}, not {value!r}")
    return value


def flag(name: str, value: Any) -> bool:
    """Yes or no."""
    if not isinstance(value, bool):
        raise LabError(f"{name} is True or False, not {value!r}")
    return value


def _plain(value: Any) -> float | None:
    """A number that is given as one; NaN and infinities are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
