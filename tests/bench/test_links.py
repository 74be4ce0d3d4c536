"""Cells, ratios and what is said of them; and one flow of each arm, where the machine allows."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from millrace.bench import binary, links
from millrace.bench.figures import Row
from millrace.cli import main


def row(arm: str, goodput: float, **others: Any) -> Row:
    link = links.Link(loss=0.01, rtt_ms=20.0, reorder=False, queue_bdp=1.0, rate_mbit=100.0)
    cell = {"arm": arm, "congestion_control": "cubic", **link.columns}
    return {**cell, "goodput_mbit_per_s": goodput, **others}


def test_every_combination_is_a_cell() -> None:
    cells = links.cells()
    assert len(cells) == len(set(cells)) == 2 * 2 * 2 * 2 * 3 * 5
    assert len(links.cells(congestion=["cubic"], losses=[0], rates_mbit=[100])) == 2 * 2 * 3


def test_a_buffer_never_limits_a_flow() -> None:
    for cell in links.cells():
        assert cell.link.buffer >= 2 * cell.link.bdp_bytes * (1 + cell.link.queue_bdp)


def test_ratios_and_their_summary() -> None:
    rows = [
        row("millrace", 90.0),
        row("linux", 100.0),
        row("linux", 10.0, loss=0.0),
        row("millrace", 12.0, loss=0.0),
        row("millrace", 5.0, loss=0.5),
    ]
    compared = links.compare(rows)
    assert [one["ratio"] for one in compared] == [0.9, 1.2]
    said = links.summary(compared)
    assert "median 1.050" in said[0]
    assert "worst 0.900 (cubic, 100 Mbit/s, 20 ms, loss 1.0%, queue 1 BDP)" in said[0]
    assert "below 0.95: 1." in said[0]
    assert links.summary([]) == []


def test_a_cell_in_which_linux_got_nothing_has_no_ratio() -> None:
    (compared,) = links.compare([row("millrace", 1.0), row("linux", 0.0)])
    assert compared["ratio"] is None
    assert links.summary([compared]) == []


def test_a_run_counts_every_byte() -> None:
    flow = {"bytes": 3_000_000, "seconds": 3.0, "step_ms": 1000, "steps": [500_000, 1_000_000]}
    run = links._run(flow, ())  # type: ignore[arg-type]
    assert run.goodput_mbit == pytest.approx(8.0)
    assert run.second_half_mbit == pytest.approx(4.0)


def test_quantiles_are_values_that_were_seen() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [links._quantile(values, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert links._quantile([7.0], 0.5) == 7


def test_wrong_options_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in [
        (["--loss", "lots"], "--loss is a probability"),
        (["--rtt", "20"], "--rtt is a time"),
        (["--rate", "quick"], "--rate is a rate"),
        (["--arm", "bsd"], "no arm 'bsd'"),
        (["--short", "--fairness"], "ask for one"),
    ]:
        assert main(["bench", "links", *arguments]) == 1
        assert said in capsys.readouterr().err


@pytest.mark.networks
def test_a_flow_of_each_arm(tmp_path: Path) -> None:
    try:
        binary.find()
    except binary.BinaryMissing as missing:
        pytest.skip(str(missing))
    if importlib.util.find_spec("millrace._native") is None:
        pytest.skip("the native module is not built")
    file = tmp_path / "links.json"
    chosen = ["--cc", "cubic", "--loss", "0", "--rtt", "2ms", "--rate", "20M", "--queue", "1"]
    ran = ["--seconds", "1", "--repeat", "1", "--no-reorder", "--json", str(file)]
    assert main(["bench", "links", *chosen, *ran]) == 0
    rows = json.loads(file.read_text())
    assert {one["arm"] for one in rows} == {"millrace", "linux"}
    for one in rows:
        assert 12 < one["goodput_mbit_per_s"] < 20
        assert (one["loss"], one["rtt_ms"], one["rate_mbit_per_s"]) == (0, 2, 20)
