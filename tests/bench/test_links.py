"""What is measured and in which order; and one flow of each arm, where the machine allows."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from millrace.bench import binary, link_cells, links
from millrace.cli import main


def test_a_run_counts_every_byte() -> None:
    flow = {"bytes": 3_000_000, "seconds": 3.0, "step_ms": 1000, "steps": [500_000, 1_000_000]}
    run = links._run(flow, ())  # type: ignore[arg-type]
    assert run.goodput_mbit == pytest.approx(8.0)
    assert run.second_half_mbit == pytest.approx(4.0)


def test_arms_take_turns_and_seeds_come_one_after_the_other() -> None:
    cells = link_cells.cells(congestion=["cubic"], losses=[0, 0.01], rates_mbit=[100])[:2]
    builds = {"millrace": "1a", "linux": "6.18"}
    flows = links.plan(
        cells,
        arms=("millrace", "linux"),
        repeat=2,
        seed=7,
        seconds=None,
        port="af_packet",
        builds=builds,
    )
    assert [flow.seed for flow in flows] == [7] * 4 + [8] * 4
    arms = [flow.arm for flow in flows]
    assert arms[:4] == ["millrace", "linux", "linux", "millrace"]
    assert arms[4:] == ["linux", "millrace", "millrace", "linux"]
    assert all(flow.seconds == flow.cell.seconds for flow in flows)
    assert {(flow.arm, flow.build) for flow in flows} == set(builds.items())


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
        (["--short", "--log", "flows"], "--log and --for are for the table"),
        (["--for", "100s"], "--for takes --log"),
        (["--for", "soon", "--log", "flows"], "--for is a time"),
    ]:
        assert main(["bench", "links", *arguments]) == 1
        assert said in capsys.readouterr().err


CHOSEN = ["--cc", "cubic", "--loss", "0", "--rtt", "2ms", "--rate", "20M", "--queue", "1"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the rows go; skips where nothing can be sent."""
    try:
        binary.find()
    except binary.BinaryMissing as missing:
        pytest.skip(str(missing))
    if importlib.util.find_spec("millrace._native") is None:
        pytest.skip("the native module is not built")
    return tmp_path / "links.json"


@pytest.mark.networks
def test_two_flows_share_a_link(file: Path) -> None:
    ran = ["--fairness", "--seconds", "1", "--repeat", "1", "--json", str(file)]
    assert main(["bench", "links", *CHOSEN, *ran]) == 0
    (row,) = json.loads(file.read_text())
    ours, linux = row["millrace_mbit_per_s"], row["linux_mbit_per_s"]
    assert 12 < ours + linux < 20
    assert row["millrace_share"] == pytest.approx(ours / (ours + linux), abs=0.001)
    assert row["fair"] == (0.4 <= row["millrace_share"] <= 0.6)
    assert 12 < row["linux_pair_mbit_per_s"] < 20
    assert (row["seconds"], row["lowest_share"]) == (1, row["millrace_share"])


@pytest.mark.networks
def test_short_flows_of_each_arm(file: Path) -> None:
    ran = ["--short", "--count", "8", "--repeat", "1", "--json", str(file)]
    assert main(["bench", "links", "--cc", "cubic", "--loss", "0", *ran]) == 0
    rows = json.loads(file.read_text())
    assert [(one["arm"], one["bytes"]) for one in rows] == [
        (arm, size) for size in (10_240, 102_400) for arm in ("millrace", "linux")
    ]
    for one in rows:
        assert (one["flows"], one["failed"]) == (8, 0)
        # A round trip to connect, and one or more to send.
        assert one["p50_ms"] >= 2 * one["rtt_ms"]


@pytest.mark.networks
def test_a_flow_of_each_arm(file: Path, tmp_path: Path) -> None:
    ran = ["--seconds", "1", "--repeat", "1", "--no-reorder", "--json", str(file)]
    parts = ["--log", str(tmp_path / "flows"), "--for", "1ms"]
    # There is always time for none, and what was measured stays so.
    assert main(["bench", "links", *CHOSEN, *ran, *parts]) == 75
    assert main(["bench", "links", *CHOSEN, *ran, *parts[:2]]) == 0
    lines = (tmp_path / "flows").read_text()
    assert len(lines.splitlines()) == 2
    assert main(["bench", "links", *CHOSEN, *ran, *parts]) == 0
    assert (tmp_path / "flows").read_text() == lines
    rows = json.loads(file.read_text())
    assert {one["arm"] for one in rows} == {"millrace", "linux"}
    for one in rows:
        assert 12 < one["goodput_mbit_per_s"] < 20
        assert (one["loss"], one["rtt_ms"], one["rate_mbit_per_s"]) == (0, 2, 20)
