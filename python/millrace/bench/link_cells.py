"""Links, and what is tried on each: the cells of the table of `millrace bench links`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from millrace.bench.figures import Row

LOSSES = (0.0, 0.001, 0.01, 0.03, 0.1)
ROUND_TRIPS_MS = (1.0, 20.0, 100.0)
QUEUES_BDP = (0.1, 1.0)
RATES_MBIT = (100.0, 1000.0)
CONGESTION = ("cubic", "bbr")
#: With reordering, this share of packets is overtaken, by so much of a round trip.
REORDER = 0.02
REORDER_ROUND_TRIPS = 0.125

#: More than any product of bandwidth and delay here, with its queue.
MOST_BUFFER = 128 << 20
_LEAST_BUFFER = 4 << 20
_BUFFERED_PRODUCTS = 12

#: How long a flow is watched: so many round trips, and no less or more than so many seconds. A
#: window that follows losses, on a link that has some, needs more of them before luck evens out;
#: a model of the path goes through its longest cycle once in five seconds.
_ROUND_TRIPS, _ROUND_TRIPS_OF_LUCK = 50, 200
_LEAST_SECONDS, _LEAST_SECONDS_OF_A_MODEL, _MOST_SECONDS = 2.0, 5.0, 10.0

#: How long two flows are watched. They come to share a queue by losing: what CUBIC gives up and
#: how long it takes to have it again (β, C and K of RFC 9438), so often; BBR looks for its round
#: trip anew, and thereby makes room, every ten seconds, and probes every 63 round trips or sooner.
_BETA, _SCALE = 0.7, 0.4
_PERIODS = 12
_SEGMENT_BYTES = 1448
_SHARED_SECONDS, _SHARED_SECONDS_OF_A_MODEL, _SHARED_ROUND_TRIPS_OF_A_MODEL = 20.0, 60.0, 800


@dataclass(frozen=True)
class Link:
    """What a link is like."""

    loss: float
    rtt_ms: float
    reorder: bool
    queue_bdp: float
    rate_mbit: float

    @property
    def bdp_bytes(self) -> float:
        """The bandwidth-delay product."""
        return self.rate_mbit * 1e6 / 8 * self.rtt_ms / 1e3

    @property
    def buffer(self) -> int:
        """A send buffer that never limits the flow.

        What is sent again may be lost again, twice in a row at 10 %, and all the while the window
        goes on.
        """
        wanted = _BUFFERED_PRODUCTS * self.bdp_bytes * (1 + self.queue_bdp)
        return int(min(max(wanted, _LEAST_BUFFER), MOST_BUFFER))

    @property
    def columns(self) -> Row:
        """As columns of a row."""
        return {
            "loss": self.loss,
            "rtt_ms": self.rtt_ms,
            "reorder": REORDER if self.reorder else 0.0,
            "queue_bdp": self.queue_bdp,
            "rate_mbit_per_s": self.rate_mbit,
        }

    def __str__(self) -> str:
        order = ", reordering" if self.reorder else ""
        return (
            f"{self.rate_mbit:g} Mbit/s, {self.rtt_ms:g} ms, loss {self.loss:.1%}{order}, "
            f"queue {self.queue_bdp:g} BDP"
        )


@dataclass(frozen=True)
class Cell:
    """A link and the congestion control that is tried on it."""

    congestion: str
    link: Link

    @property
    def seconds(self) -> float:
        """How long a flow is watched, if nobody says."""
        modelled = self.congestion == "bbr"
        lucky = self.link.loss > 0 and not modelled
        rounds = _ROUND_TRIPS_OF_LUCK if lucky else _ROUND_TRIPS
        least = _LEAST_SECONDS_OF_A_MODEL if modelled else _LEAST_SECONDS
        return min(max(rounds * self.link.rtt_ms / 1e3, least), _MOST_SECONDS)

    @property
    def seconds_to_share(self) -> float:
        """How long two flows are watched, if nobody says."""
        if self.congestion == "bbr":
            rounds = _SHARED_ROUND_TRIPS_OF_A_MODEL * self.link.rtt_ms / 1e3
            return max(rounds, _SHARED_SECONDS_OF_A_MODEL)
        if self.link.loss > 0:
            # Windows stay small and are cut all the time.
            return _SHARED_SECONDS
        window = self.link.bdp_bytes * (1 + self.link.queue_bdp) / 2 / _SEGMENT_BYTES
        period = math.cbrt(window * (1 - _BETA) / _SCALE)
        return float(math.ceil(max(_PERIODS * period, _SHARED_SECONDS)))

    @property
    def columns(self) -> Row:
        """As columns of a row."""
        return {"congestion_control": self.congestion, **self.link.columns}

    def __str__(self) -> str:
        return f"{self.congestion}, {self.link}"


def cells(
    *,
    congestion: Sequence[str] = CONGESTION,
    losses: Sequence[float] = LOSSES,
    rtts_ms: Sequence[float] = ROUND_TRIPS_MS,
    reorder: Sequence[bool] = (False, True),
    queues_bdp: Sequence[float] = QUEUES_BDP,
    rates_mbit: Sequence[float] = RATES_MBIT,
) -> list[Cell]:
    """Every combination."""
    return [
        Cell(name, Link(loss, rtt, order, queue, rate))
        for name, rate, queue, order, rtt, loss in itertools.product(
            congestion, rates_mbit, queues_bdp, reorder, rtts_ms, losses
        )
    ]
