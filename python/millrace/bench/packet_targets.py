"""What Millrace is to reach beside the other tools, and whether it did."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from millrace.cli.report import Row, Value

#: At least so many times the rate of testpmd on the same interface, at every size and batch.
TESTPMD = 1.0
#: At least so many times Scapy's rate.
SCAPY = 100.0
#: At least so many of the packets that tcpdump keeps, at every offered rate.
TCPDUMP = 1.0
#: At least so many million frames a second on one core.
MEMORY = {"headers": 10.0, "filter": 20.0}


def compare(rows: Sequence[Row]) -> list[Row]:
    """One row for each target: beside testpmd the median of the cells and the worst of them."""
    return [
        *_beside_testpmd(rows),
        *_beside_scapy(rows),
        *_beside_tcpdump(rows),
        *_in_memory(rows),
    ]


def _beside_testpmd(rows: Sequence[Row]) -> list[Row]:
    theirs = {_cell(row): row for row in rows if row["tool"] == "testpmd"}
    ratios: dict[tuple[Value, Value], list[tuple[float, Row]]] = {}
    by_time: dict[tuple[Value, Value], list[float]] = {}
    for row in rows:
        other = theirs.get(_cell(row))
        if row["tool"] == "millrace" and other is not None and _rate(other) > 0:
            cores = _number(row, "cpu_cores") / max(_number(other, "cpu_cores"), 1e-9)
            by_time.setdefault((row["work"], row["port"]), []).append(
                _rate(row) / _rate(other) / max(cores, 1e-9)
            )
            ratios.setdefault((row["work"], row["port"]), []).append(
                (_rate(row) / _rate(other), row)
            )
    found: list[Row] = []
    for (work, port), cells in ratios.items():
        cells.sort(key=lambda cell: cell[0])
        middle, (least, worst) = median(ratio for ratio, _ in cells), cells[0]
        at = f"{worst['frame_bytes']} bytes, batches of {worst['batch']}"
        time = median(by_time[work, port])
        said = f"least {least:.2f} at {at}; by processor time {time:.2f}"
        found.append(_row(work, "testpmd", port, middle, TESTPMD, said))
    return found


def _beside_scapy(rows: Sequence[Row]) -> list[Row]:
    found = []
    for theirs in (row for row in rows if row["tool"] == "scapy" and _rate(row) > 0):
        for kind in ("af_xdp", "af_packet"):
            ours = [
                _rate(row)
                for row in rows
                if row["tool"] == "millrace"
                and (row["work"], row["port"]) == (theirs["work"], kind)
                and row["frame_bytes"] == theirs["frame_bytes"]
            ]
            if ours:
                ratio = max(ours) / _rate(theirs)
                said = f"Scapy: {_rate(theirs) * 1e3:.1f} thousand a second"
                found.append(_row(theirs["work"], "scapy", kind, ratio, SCAPY, said))
    return found


def _beside_tcpdump(rows: Sequence[Row]) -> list[Row]:
    captures = [row for row in rows if row["work"] == "capture"]
    theirs = {_offer(row): row for row in captures if row["tool"] == "tcpdump"}
    shares = [
        (_number(row, "kept") / max(_number(theirs[_offer(row)], "kept"), 1e-9), row)
        for row in captures
        if row["tool"] == "millrace" and _offer(row) in theirs
    ]
    if not shares:
        return []
    least, row = min(shares, key=lambda share: share[0])
    wanted = row["wanted_mpps"]
    rate = "as many as go" if wanted is None else f"{wanted} M/s"
    kept, other = _number(row, "kept"), _number(theirs[_offer(row)], "kept")
    said = f"least at {row['frame_bytes']} bytes, {rate}: {kept:.1%} of what came, and {other:.1%}"
    return [_row("capture", "tcpdump", row["port"], least, TCPDUMP, said)]


def _in_memory(rows: Sequence[Row]) -> list[Row]:
    return [
        _row(row["work"], "million a second", "memory", _rate(row), MEMORY[str(row["work"])], "")
        for row in rows
        if row["work"] in MEMORY
    ]


def _row(work: Value, over: str, port: Value, figure: float, target: float, detail: str) -> Row:
    return {
        "work": work,
        "over": over,
        "port": port,
        "figure": round(figure, 3),
        "target": target,
        "result": "met" if figure >= target else "missed",
        "detail": detail,
    }


def _cell(row: Row) -> tuple[Value, ...]:
    return tuple(row[name] for name in ("work", "port", "frame_bytes", "batch"))


def _offer(row: Row) -> tuple[Value, ...]:
    return row["frame_bytes"], row["wanted_mpps"]


def _rate(row: Row) -> float:
    return _number(row, "mpps")


def _number(row: Row, name: str) -> float:
    value = row[name]
    assert isinstance(value, int | float)
    return float(value)


def spread(rows: Sequence[Row]) -> float:
    """How far the runs of one cell lie apart, over its median; the median of all cells."""
    spreads = [
        (_number(row, "mpps_max") - _number(row, "mpps_min")) / _rate(row)
        for row in rows
        if row.get("mpps_max") is not None and _rate(row) > 0
    ]
    return median(spreads) if spreads else 0.0
