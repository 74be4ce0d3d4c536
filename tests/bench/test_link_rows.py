"""Medians, ratios and what is said of them."""

from __future__ import annotations

from typing import Any

from millrace.bench import link_cells, link_rows
from millrace.bench.figures import Row
from millrace.bench.link_log import Run

LINK = link_cells.Link(loss=0.01, rtt_ms=20.0, reorder=False, queue_bdp=1.0, rate_mbit=100.0)


def row(arm: str, goodput: float, **others: Any) -> Row:
    cell = {"arm": arm, "congestion_control": "cubic", **LINK.columns}
    spread = {"lowest": goodput - 1, "highest": goodput + 1}
    return {**cell, "goodput_mbit_per_s": goodput, **spread, **others}


def test_ratios_and_their_summary() -> None:
    rows = [
        row("millrace", 12.0, loss=0.0),
        row("linux", 10.0, loss=0.0),
        row("millrace", 90.0),
        row("linux", 100.0),
        row("millrace", 5.0, loss=0.5),
    ]
    compared = link_rows.compare(rows)
    assert [one["ratio"] for one in compared] == [0.9, 1.2]
    assert [one["overlap"] for one in compared] == [False, True]
    said = link_rows.summary(compared)
    assert "median 1.050" in said[0]
    assert "lowest 0.900, below 0.95: 1 of 2" in said[0]
    assert "  0.900 (cubic, 100 Mbit/s, 20 ms, loss 1.0%, queue 1 BDP)" in said
    assert link_rows.summary([]) == []


def test_a_cell_in_which_linux_got_nothing_has_no_ratio() -> None:
    (compared,) = link_rows.compare([row("millrace", 1.0), row("linux", 0.0)])
    assert compared["ratio"] is None
    assert link_rows.summary([compared]) == []


def test_a_row_is_the_median_with_its_spread() -> None:
    cell = link_cells.Cell("bbr", LINK)
    runs = [Run(goodput, goodput, 0.001) for goodput in (3.0, 1.0, 8.0)]
    (made,) = link_rows.rows({(cell, "linux"): runs, (cell, "millrace"): []})
    assert made["goodput_mbit_per_s"] == 3.0
    assert (made["lowest"], made["highest"], made["runs"]) == (1.0, 8.0, 3)


def test_what_the_wire_dropped_is_said() -> None:
    (late, dropped) = link_rows.wire_notes([Run(1, 1, 0.5, {"no_frame": 2}), Run(1, 1, 0.1)])
    assert "at most 50.00%" in late
    assert "THE WIRE ITSELF DROPPED PACKETS: no_frame 2." in dropped
