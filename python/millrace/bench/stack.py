"""Two stacks joined by memory: run `millrace-bench stack`, and hold it against its targets."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from millrace.bench import binary
from millrace.bench.figures import Row
from millrace.cli.report import Steps

OURS = "millrace"
PEER = "smoltcp"


@dataclass(frozen=True)
class Target:
    """What one work is to reach: so many times smoltcp, or an absolute figure."""

    work: str
    connections: int
    figure: str
    #: At least so many times the peer's figure.
    ratio: float | None = None
    #: At least so much.
    least: float | None = None
    #: At most so much.
    most: float | None = None


TARGETS = (
    Target("rr64", 1, "ops_per_s", ratio=2),
    Target("rr1k", 1, "ops_per_s", ratio=2),
    Target("rr64", 1000, "ops_per_s", ratio=5),
    Target("rr1k", 1000, "ops_per_s", ratio=5),
    Target("crr", 64, "ops_per_s", least=1e6),
    Target("idle", 1_000_000, "bytes_per_connection", most=320),
)


def measure(
    *, seconds: float, rounds: int, works: Sequence[str] = (), arms: Sequence[str] = ()
) -> list[Row]:
    """Run it and give its rows."""
    command = [str(binary.find()), "stack", "--json", "-"]
    command += ["--seconds", str(seconds), "--rounds", str(rounds)]
    if works:
        command += ["--work", ",".join(works)]
    if arms:
        command += ["--arm", ",".join(arms)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        # The rows come at the end and fit no pipe, so both ends are read at once.
        said: list[str] = []
        reader = threading.Thread(target=_follow, args=(process.stderr, said))
        reader.start()
        try:
            out = process.stdout.read()
        except BaseException:
            process.kill()
            raise
        finally:
            reader.join()
    if process.returncode != 0:
        reason = " ".join(said) or f"it ended with status {process.returncode}"
        raise RuntimeError(reason.removeprefix(f"{binary.NAME}: "))
    rows: list[Row] = json.loads(out)
    return rows


def _follow(lines: IO[str], said: list[str]) -> None:
    """Show progress from lines as `3/40 rr64 1 smoltcp`; keep all other lines."""
    steps: Steps | None = None
    try:
        for line in lines:
            place, _, what = line.strip().partition(" ")
            number, slash, total = place.partition("/")
            if not (slash and number.isdigit() and total.isdigit()):
                said.append(line.strip())
                continue
            if steps is None:
                steps = Steps("stack", total=int(total)).__enter__()
            steps.begin(what)
    finally:
        if steps is not None:
            steps.__exit__(None, None, None)


def held(rows: Sequence[Row]) -> list[Row]:
    """One row for each work of ours: the peer's figure, the target and whether it was met."""
    found: list[Row] = []
    for row in rows:
        if row["arm"] != OURS:
            continue
        figure = "bytes_per_connection" if row["work"] == "idle" else "ops_per_s"
        value = _number(row, figure)
        peer = _peer(rows, row)
        other = None if peer is None else _number(peer, figure)
        ratio = round(value / other, 2) if value and other else None
        wanted = _target(row)
        found.append(
            {
                "work": row["work"],
                "connections": row["connections"],
                "figure": figure,
                OURS: value,
                PEER: other,
                "ratio": ratio,
                "target": _wish(wanted),
                "result": _result(wanted, value, ratio),
            }
        )
    return found


def _peer(rows: Sequence[Row], ours: Row) -> Row | None:
    """The peer's row for the same work. Idle connections cost it the same however many."""
    for row in rows:
        same = row["connections"] == ours["connections"] or row["work"] == "idle"
        if row["arm"] == PEER and row["work"] == ours["work"] and same:
            return row
    return None


def _target(row: Row) -> Target | None:
    for target in TARGETS:
        if (target.work, target.connections) == (row["work"], row["connections"]):
            return target
    return None


def _wish(target: Target | None) -> str:
    if target is None:
        return ""
    if target.ratio is not None:
        return f"{target.ratio:g} times {PEER}"
    if target.least is not None:
        return f"at least {target.least:,.0f}"
    return f"at most {target.most:g}"


def _result(target: Target | None, value: float | None, ratio: float | None) -> str:
    if target is None:
        return ""
    if target.ratio is not None:
        if ratio is None:
            return "not measured"
        return "met" if ratio >= target.ratio else "missed"
    if value is None:
        return "not measured"
    if target.least is not None:
        return "met" if value >= target.least else "missed"
    return "met" if target.most is not None and value <= target.most else "missed"


def _number(row: Row, name: str) -> float | None:
    value = row[name]
    return float(value) if isinstance(value, int | float) else None
