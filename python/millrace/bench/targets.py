"""What Millrace is to reach beside the other arms, and whether it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from millrace.bench.arms import CONNECTING, SLEEPING, SPINNING, Scenario
from millrace.bench.figures import Row, Value

CORE = "server_core_us_per_request"
MEDIAN = "p50_us"


@dataclass(frozen=True)
class Target:
    """A figure of Millrace's over the same figure of another arm, at most so much."""

    scenario: Scenario
    figure: str
    over: str
    native: float
    python: float

    def limit(self, language: str) -> float:
        return self.native if language == "native" else self.python


#: The port that the targets are for; the ratios of the others are shown without one.
PORT = "af_xdp"

TARGETS = (
    Target(SLEEPING, CORE, "floor", 1.25, 1.6),
    Target(SLEEPING, CORE, "epoll", 0.8, 1.0),
    Target(SLEEPING, CORE, "nginx", 0.45, 0.6),
    Target(SLEEPING, CORE, "uvloop", 0.6, 0.7),
    Target(SPINNING, MEDIAN, "epoll", 1.1, 1.3),
    Target(SPINNING, MEDIAN, "nginx", 0.45, 0.5),
    Target(CONNECTING, CORE, "epoll", 0.7, 0.9),
)

_WAITING = {"sleep": "sleeping", "spin": "spinning"}
_FIGURES = {CORE: "server core time", MEDIAN: "median latency"}


def ratios(rows: Sequence[Row], targets: Sequence[Target] = TARGETS) -> list[Row]:
    """One row for each target, language and port that was measured."""
    found: list[Row] = []
    for target in targets:
        for ours in rows:
            if ours["arm"] != "millrace" or not _is_of(ours, target.scenario):
                continue
            other = _other(rows, target, ours["port"])
            if other is None or (base := _number(other, target.figure)) == 0:
                continue
            language = str(ours["language"])
            limit = target.limit(language) if ours["port"] == PORT else None
            ratio = _number(ours, target.figure) / base
            found.append(
                {
                    "figure": _describe(target),
                    "over": target.over,
                    "port": ours["port"],
                    "language": language,
                    "ratio": round(ratio, 3),
                    "target": limit,
                    "result": "" if limit is None else "met" if ratio <= limit else "missed",
                }
            )
    return found


def _describe(target: Target) -> str:
    connections, keepalive = target.scenario.key
    many = f"{connections} connection{'s' if connections > 1 else ''}"
    how = _WAITING[target.scenario.wait] if keepalive else "new for each request"
    return f"{_FIGURES[target.figure]}, {many}, {how}"


def _is_of(row: Row, scenario: Scenario) -> bool:
    return (row["connections"], row["keepalive"]) == scenario.key


def _other(rows: Sequence[Row], target: Target, port: Value) -> Row | None:
    """The row to compare with: on the kernel, or, as the floor, on the same port."""
    for row in rows:
        same = row["port"] in ("kernel", port)
        if row["arm"] == target.over and same and _is_of(row, target.scenario):
            return row
    return None


def _number(row: Row, name: str) -> float:
    value = row[name]
    assert isinstance(value, int | float)
    return float(value)
