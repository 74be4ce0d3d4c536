"""What clients reported becomes phases and ratios; and one flood, where the machine allows."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest

from millrace.bench import attack, binary
from millrace.cli import main


def line(at_ms: int, kept: int, new: int = 0, **others: Any) -> dict[str, Any]:
    quiet = {"failed_kept": 0, "failed_new": 0, "missed": 0, "latencies_us": []}
    return {**quiet, "at_ns": at_ms * 1_000_000, "kept": kept, "new": new, **others}


def test_a_phase_has_whole_reports_only() -> None:
    lines = [
        line(0, 1000),
        line(250, 10, latencies_us=[[100, 9], [5000, 1]]),
        line(500, 20, 5, failed_new=2, missed=1, latencies_us=[[100, 25]]),
        line(750, 1000),
    ]
    phase = attack.Phase.between(lines, 0, 600e6)
    assert (phase.kept, phase.new, phase.failed, phase.missed) == (30, 5, 2, 1)
    assert phase.seconds == pytest.approx(0.5)
    assert phase.rate == pytest.approx(70)
    assert phase.quantile_us(0.5) == 100
    assert phase.quantile_us(0.99) == 5000


def test_a_phase_without_an_answer() -> None:
    phase = attack.Phase.between([line(0, 0), line(250, 0, failed_kept=3)], 0, 250e6)
    assert (phase.rate, phase.failed, phase.quantile_us(0.99)) == (0, 3, None)


def test_what_was_counted_is_told_by_name() -> None:
    before = {"at_ns": 1, "drop_tcp_no_connection": 5, "resets_sent": 1, "frames_free": 10}
    after = {"at_ns": 9, "drop_tcp_no_connection": 25, "resets_sent": 1, "frames_free": 3}
    assert attack._differences(before, after) == "drop_tcp_no_connection 20"


def test_every_packet_must_be_counted() -> None:
    before = {"port_rx_packets": 10, "rx_ring_full": 0, "rx_no_frame": 1}
    after = {"port_rx_packets": 100, "rx_ring_full": 7, "rx_no_frame": 4}
    interface = [{"rx_packets": 10}, {"rx_packets": 115}]
    assert attack._uncounted(before, after, *interface) == 5
    assert attack._uncounted({}, {}, *interface) is None


def test_the_bound_is_what_the_server_was_given() -> None:
    counters = {
        "frames": 1000,
        "frame_size": 2048,
        "connections_most": 100,
        "partial_bytes": 5,
    }
    bound = attack._bound(counters)
    assert bound is not None
    assert bound - attack._PROGRAM_BYTES == 1000 * 2048 + 100 * 512 + 5
    assert attack._bound({}) is None


def test_every_attack_is_one_of_the_program_s() -> None:
    tree = Path(__file__).parents[2]
    source = (tree / "crates" / "bench" / "src" / "attack" / "mod.rs").read_text()
    for kind in attack.ATTACKS:
        assert f'"{kind}" => ' in source


def test_wrong_names_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in [
        (["--kind", "ping"], "no attack 'ping'; there is syn"),
        (["--arm", "bsd"], "no arm 'bsd'"),
    ]:
        assert main(["bench", "attack", *arguments]) == 1
        assert said in capsys.readouterr().err


@pytest.mark.networks
@pytest.mark.parametrize("kind", ["rst-near", "syn", "tiny", "slow-writers"])
def test_an_attack_on_our_server(tmp_path: Path, kind: str) -> None:
    try:
        binary.find()
    except binary.BinaryMissing as missing:
        pytest.skip(str(missing))
    if importlib.util.find_spec("millrace._native") is None:
        pytest.skip("the native module is not built")
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("takes two cores")
    file = tmp_path / "attack.json"
    gentle = ["--pps", "2000", "--connections", "50", "--rate", "100", "--new-rate", "20"]
    ran = ["--kind", kind, "--arm", "millrace", "--seconds", "1", "--json", str(file)]
    assert main(["bench", "attack", *gentle, *ran]) == 0
    (row,) = json.loads(file.read_text())
    assert (row["arm"], row["attack"]) == ("millrace", kind)
    # A gentle attack does no harm, and it did arrive.
    assert row["ratio"] > 0.8
    assert row["within_bound"] is True
    if kind in ("rst-near", "syn"):
        assert row["offered_packets_per_s"] > 1500
        assert "drop_" in row["counted"] or "cookie" in row["counted"]
