"""From runs to rows: one run is a sample, a row is the median of its rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from millrace.bench.arms import Contender, Scenario

Value = str | int | float | bool | None
Row = dict[str, Value]


@dataclass(frozen=True)
class Sample:
    """What one run showed."""

    requests: int
    requests_per_s: float
    p50_us: float
    p99_us: float
    #: Busy time of the server's core over the requests.
    server_core_us: float
    errors: int
    #: Time that the server's process ran over the requests; None where it is not counted.
    server_process_us: float | None = None


@dataclass(frozen=True)
class Outcome:
    """The rows, and what is to be said about them."""

    rows: list[Row]
    notes: list[str]


def row(contender: Contender, scenario: Scenario, samples: Sequence[Sample]) -> Row:
    """Medians over the rounds; errors are summed."""
    cores = [sample.server_core_us for sample in samples]
    own = [us for sample in samples if (us := sample.server_process_us) is not None]
    return {
        "arm": contender.arm.name,
        "port": contender.port,
        "language": contender.arm.language,
        "connections": scenario.connections,
        "keepalive": scenario.keepalive,
        "wait": contender.arm.wait_in(scenario),
        "requests_per_s": round(median(sample.requests_per_s for sample in samples), 1),
        "p50_us": median(sample.p50_us for sample in samples),
        "p99_us": median(sample.p99_us for sample in samples),
        "server_core_us_per_request": round(median(cores), 3),
        "errors": sum(sample.errors for sample in samples),
        "server_process_us_per_request": round(median(own), 3) if own else None,
        "server_core_us_min": round(min(cores), 3),
        "server_core_us_max": round(max(cores), 3),
        "rounds": len(samples),
    }


def spread_percent(rows: Sequence[Row]) -> float:
    """How far the rounds of one row lie apart, over its median; the median of all rows."""
    spreads = [
        (_number(row["server_core_us_max"]) - _number(row["server_core_us_min"]))
        / _number(row["server_core_us_per_request"])
        for row in rows
        if _number(row["server_core_us_per_request"]) > 0
    ]
    return 100 * median(spreads) if spreads else 0.0


def _number(value: Value) -> float:
    assert isinstance(value, int | float)
    return float(value)
