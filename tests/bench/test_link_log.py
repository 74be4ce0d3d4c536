"""A log of flows, written and read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from millrace.bench.link_cells import Cell, Link
from millrace.bench.link_log import Flow, Log, Run

FLOW = Flow("millrace", Cell("bbr", Link(0.001, 20.0, True, 0.1, 1000.0)), 3, 2.5, "af_xdp", "1a")


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = str(tmp_path / "flows")
    log = Log(path)
    assert FLOW not in log
    log.add(FLOW, Run(1.5, 2.5, 0.01, {"no_frame": 2}))
    other = replace(FLOW, arm="linux", build="6.18")
    log.add(other, Run(1.0, 2.0, 0.0))
    again = Log(path)
    assert again[FLOW] == Run(1.5, 2.5, 0.01, {"no_frame": 2})
    assert again[other] == Run(1.0, 2.0, 0.0)


@pytest.mark.parametrize(
    "other",
    [
        replace(FLOW, seed=4),
        replace(FLOW, seconds=2.0),
        replace(FLOW, port="af_packet"),
        replace(FLOW, build="1b"),
        replace(FLOW, cell=replace(FLOW.cell, link=replace(FLOW.cell.link, reorder=False))),
    ],
)
def test_another_flow_is_not_in_it(other: Flow, tmp_path: Path) -> None:
    log = Log(str(tmp_path / "flows"))
    log.add(FLOW, Run(1.5, 2.5, 0.01))
    assert other not in log


@pytest.mark.parametrize("line", ["no json", "[1]", "{}", '{"arm": "linux", "loss": "x"}'])
def test_a_line_of_something_else_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "flows"
    Log(str(path)).add(FLOW, Run(1.5, 2.5, 0.01))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=r"flows:2 is no flow that --log wrote"):
        Log(str(path))
