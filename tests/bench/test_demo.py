"""The demo from end to end, small: every row is there and nothing fails."""

from __future__ import annotations

import importlib.util
import shutil
import sys

import pytest

from millrace.bench import binary, demo, serving, targets
from millrace.bench.arms import ARMS, SCENARIOS
from millrace.bench.figures import Outcome
from millrace.cli import probe
from millrace.lab import Lab, LabError

pytestmark = pytest.mark.networks


@pytest.fixture(autouse=True)
def tools() -> None:
    try:
        binary.find()
    except binary.BinaryMissing as missing:
        pytest.skip(str(missing))
    for tool in ("wrk", "curl", "nginx"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


def measured(kinds: tuple[str, ...], names: set[str]) -> Outcome:
    for kind in kinds:
        if not (finding := {f.name: f for f in probe.all_findings()}[kind]).available:
            pytest.skip(f"{kind} takes {finding.needs}")
    return demo.measure(kinds, seconds=0.3, rounds=1, names=frozenset(names))


def check(outcome: Outcome, rows: int) -> None:
    assert len(outcome.rows) == rows * len(SCENARIOS)
    for row in outcome.rows:
        assert row["errors"] == 0, row
        for name in ("requests_per_s", "p50_us", "p99_us", "server_core_us_per_request"):
            value = row[name]
            assert isinstance(value, int | float)
            assert value > 0, (name, row)
    keys = ("arm", "language", "connections", "keepalive")
    assert len({tuple(row[key] for key in keys) for row in outcome.rows}) == len(outcome.rows)


def test_the_kernels_arms() -> None:
    pytest.importorskip("uvloop", reason="uvloop is not installed")
    names = {arm.name for arm in ARMS if arm.on_kernel}
    outcome = measured(("af_xdp",), names)
    check(outcome, rows=len(names))
    assert any("/proc/stat" in note for note in outcome.notes)


@pytest.mark.parametrize("kind", ["af_xdp", "af_packet", "tap"])
def test_the_floor(kind: str) -> None:
    outcome = measured((kind,), {"floor"})
    check(outcome, rows=1)
    assert {row["port"] for row in outcome.rows} == {kind}


@pytest.mark.parametrize("kind", ["af_xdp", "af_packet", "tap"])
def test_millrace_itself(kind: str) -> None:
    if importlib.util.find_spec("millrace._native") is None:
        pytest.skip("the native module is not built")
    outcome = measured((kind,), {"floor", "millrace"})
    check(outcome, rows=3)
    languages = {row["language"] for row in outcome.rows if row["arm"] == "millrace"}
    assert languages == {"native", "python"}
    compared = targets.ratios(outcome.rows)
    assert {row["over"] for row in compared} == {"floor"}
    assert {row["language"] for row in compared} == languages


def test_a_server_that_does_not_start_is_quoted(lab: Lab) -> None:
    client, server = lab.host("client"), lab.host("server")
    wire = lab.wire(client, server)
    command = [sys.executable, "-c", "raise SystemExit('no port is free')"]
    with (
        pytest.raises(LabError, match="ended with status 1: no port is free"),
        serving.serving(command, server=server, client=client, ip=wire.b.ip, core=None),
    ):
        pass


def test_a_server_that_answers_wrongly_is_not_measured(lab: Lab) -> None:
    client, server = lab.host("client"), lab.host("server")
    wire = lab.wire(client, server)
    command = [sys.executable, "-m", "http.server", "80", "--directory", "/proc/self/task"]
    with (
        pytest.raises(LabError, match="not 200 and 1024"),
        serving.serving(command, server=server, client=client, ip=wire.b.ip, core=None),
    ):
        pass
