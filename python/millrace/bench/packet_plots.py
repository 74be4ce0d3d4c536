"""The tables of the packet bench as pictures: SVG, by matplotlib, which is an extra."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from millrace.cli.report import Row

_NEEDS = "plots take matplotlib; pip install 'millrace[plot]'"
#: Of each work: a picture by sizes, and one by batches.
_WORKS = ("rxdrop", "txpush", "l2fwd")


def check(folder: str) -> None:
    """Fail now, not after minutes of measuring, if nothing could be written."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise RuntimeError(_NEEDS) from None
    Path(folder).mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} cannot be written to")


def write(rows: Sequence[Row], folder: str) -> list[Path]:
    """Write a picture of each work that was measured, and one of what Scapy does beside it."""
    check(folder)
    import matplotlib

    matplotlib.use("svg")
    # The same rows give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "millrace"
    files = []
    for work in _WORKS:
        of_work = [row for row in rows if row["work"] == work and row["tool"] != "scapy"]
        if of_work:
            files.append(_by_size_and_batch(of_work, work, Path(folder)))
    bars = [row for row in rows if row["work"] in _WORKS and row["frame_bytes"] == 64]
    if bars:
        files.append(_beside(bars, Path(folder)))
    return files


def _by_size_and_batch(rows: Sequence[Row], work: str, folder: Path) -> Path:
    from matplotlib.figure import Figure

    sizes = sorted({_number(row, "frame_bytes") for row in rows})
    figure = Figure(figsize=(3.2 * len(sizes) + 1, 3.4), layout="constrained")
    axes = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
    for axis, size in zip(axes, sizes, strict=True):
        lines: dict[str, list[Row]] = {}
        for row in rows:
            if row["frame_bytes"] == size:
                lines.setdefault(f"{row['tool']}, {row['port']}", []).append(row)
        for name, points in lines.items():
            points.sort(key=lambda row: _number(row, "batch"))
            axis.plot(
                [_number(row, "batch") for row in points],
                [_number(row, "mpps") for row in points],
                marker="o",
                linestyle="-" if name.startswith("millrace") else "--",
                label=name,
            )
        axis.set_title(f"{size:g} bytes")
        axis.set_xlabel("packets of a batch")
        axis.set_xscale("log", base=2)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("million packets/s")
    axes[-1].legend(fontsize="small")
    figure.suptitle(f"{work} on veth, one core")
    return _save(figure, folder / f"{work}.svg")


def _beside(rows: Sequence[Row], folder: Path) -> Path:
    from matplotlib.figure import Figure

    best: dict[tuple[str, str], float] = {}
    for row in rows:
        key = (str(row["work"]), f"{row['tool']}, {row['port']}")
        best[key] = max(best.get(key, 0.0), _number(row, "mpps"))
    figure = Figure(figsize=(7, 0.4 * len(best) + 1.2), layout="constrained")
    axis = figure.subplots()
    names = [f"{work}: {tool}" for work, tool in best]
    drawn = axis.barh(names, [rate * 1e6 for rate in best.values()])
    axis.bar_label(drawn, [f"{rate * 1e3:,.1f} k" for rate in best.values()], fontsize="small")
    axis.set_xscale("log")
    axis.margins(x=0.2)
    axis.invert_yaxis()
    axis.set_xlabel("packets/s at 64 bytes, the best batch")
    return _save(figure, folder / "packets.svg")


def _save(figure: Any, file: Path) -> Path:
    # Without the date, so that the same rows give the same file.
    figure.savefig(file, metadata={"Date": None})
    return file


def _number(row: Row, name: str) -> float:
    value = row[name]
    assert isinstance(value, int | float)
    return float(value)
