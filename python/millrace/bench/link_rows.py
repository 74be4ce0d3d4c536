"""From flows over bad links to rows: medians, ratios to Linux, and what to say of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from millrace.bench.figures import Row
from millrace.bench.link_cells import Cell
from millrace.bench.link_log import Run

OURS, LINUX = "millrace", "linux"
ARMS = (OURS, LINUX)

#: What each cell is to reach, as a multiple of Linux, and all of them in the median.
LEAST_RATIO, MEDIAN_RATIO = 0.95, 1.0
#: So many of the lowest cells are named.
_WORST = 8

_FIGURE = "goodput_mbit_per_s"
_LINK = ("congestion_control", "loss", "rtt_ms", "reorder", "queue_bdp", "rate_mbit_per_s")


def rows(runs: Mapping[tuple[Cell, str], Sequence[Run]]) -> list[Row]:
    """One for each cell and arm that has been measured."""
    return [_row(cell, arm, seen) for (cell, arm), seen in runs.items() if seen]


def _row(cell: Cell, arm: str, runs: Sequence[Run]) -> Row:
    goodputs = [run.goodput_mbit for run in runs]
    return {
        "arm": arm,
        **cell.columns,
        _FIGURE: round(statistics.median(goodputs), 3),
        "lowest": round(min(goodputs), 3),
        "highest": round(max(goodputs), 3),
        "second_half_mbit_per_s": round(statistics.median(run.second_half_mbit for run in runs), 3),
        "late_share": round(max(run.late_share for run in runs), 5),
        "runs": len(runs),
    }


def compare(measured: Sequence[Row]) -> list[Row]:
    """One row for each cell that both arms have: their figures and the ratio, lowest first.

    `overlap`: a flow of one arm was within what the other's showed, so luck has a say.
    """
    linux = {_link(row): row for row in measured if row["arm"] == LINUX}
    found: list[Row] = []
    for row in measured:
        other = linux.get(_link(row))
        if row["arm"] != OURS or other is None:
            continue
        ours, theirs = _number(row[_FIGURE]), _number(other[_FIGURE])
        found.append(
            {
                **{name: row[name] for name in _LINK},
                OURS: ours,
                LINUX: theirs,
                "ratio": round(ours / theirs, 3) if theirs else None,
                "overlap": _number(row["highest"]) >= _number(other["lowest"])
                and _number(other["highest"]) >= _number(row["lowest"]),
            }
        )
    return sorted(found, key=lambda row: _number(row["ratio"]) if row["ratio"] else float("inf"))


def _link(row: Row) -> tuple[object, ...]:
    return tuple(row[name] for name in _LINK)


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)


def summary(compared: Sequence[Row]) -> list[str]:
    """The median, how many cells are below what each should reach, and the worst."""
    ratios = [(_number(row["ratio"]), row) for row in compared if row["ratio"] is not None]
    if not ratios:
        return []
    own: dict[str, list[float]] = {}
    for ratio, row in ratios:
        own.setdefault(str(row["congestion_control"]), []).append(ratio)
    said = [f"Ratio to Linux: {_told([ratio for ratio, _ in ratios])}"]
    said += [f"  {name}: {_told(seen)}" for name, seen in own.items()]
    said.append("The lowest:")
    for ratio, row in sorted(ratios, key=lambda pair: pair[0])[:_WORST]:
        luck = "; the arms overlap" if row.get("overlap") else ""
        said.append(f"  {ratio:.3f} ({_named(row)}{luck})")
    return said


def _told(ratios: Sequence[float]) -> str:
    low = sum(ratio < LEAST_RATIO for ratio in ratios)
    return (
        f"median {statistics.median(ratios):.3f} (wanted: above {MEDIAN_RATIO:g}), "
        f"lowest {min(ratios):.3f}, below {LEAST_RATIO:g}: {low} of {len(ratios)}."
    )


def _named(row: Row) -> str:
    order = ", reordering" if row["reorder"] else ""
    return (
        f"{row['congestion_control']}, {row['rate_mbit_per_s']:g} Mbit/s, {row['rtt_ms']:g} ms, "
        f"loss {row['loss']:.1%}{order}, queue {row['queue_bdp']:g} BDP"
    )


def wire_notes(runs: Sequence[Run]) -> list[str]:
    """What the wire did that it should not have."""
    notes = []
    late = [run.late_share for run in runs]
    if late:
        notes.append(
            f"Packets that left the wire over 1 ms late: {statistics.mean(late):.3%} on average, "
            f"at most {max(late):.2%} in a run."
        )
    failures: dict[str, int] = {}
    for run in runs:
        for name, count in run.failures.items():
            failures[name] = failures.get(name, 0) + count
    if failures:
        told = ", ".join(f"{name} {count}" for name, count in failures.items())
        notes.append(f"THE WIRE ITSELF DROPPED PACKETS: {told}.")
    return notes
