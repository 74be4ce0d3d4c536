"""The demo without a network: two stacks joined by memory."""

from __future__ import annotations

import importlib.util

import pytest

from millrace.bench import binary, memory
from millrace.bench.arms import SCENARIOS, Scenario
from millrace.bench.figures import Sample


def check(sample: Sample) -> None:
    assert sample.errors == 0
    assert sample.requests > 0
    assert sample.requests_per_s > 0
    assert 0 < sample.p50_us <= sample.p99_us
    assert sample.server_core_us > 0


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.title)
def test_native_at_both_ends(scenario: Scenario) -> None:
    try:
        binary.find()
    except binary.BinaryMissing as missing:
        pytest.skip(str(missing))
    check(memory.run_native(scenario, 0.2))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.title)
def test_python_at_both_ends(scenario: Scenario) -> None:
    if importlib.util.find_spec("millrace._native") is None:
        pytest.skip("the native module is not built")
    from millrace.bench import memory_python

    check(memory_python.run(scenario, 0.2))


def test_it_runs_with_what_is_there_and_says_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("millrace._native") is None:
        pytest.skip("the native module is not built")

    def missing() -> None:
        raise binary.BinaryMissing("millrace-bench is not built")

    monkeypatch.setattr(binary, "find", missing)
    outcome = memory.measure(seconds=0.1, rounds=1)
    assert [row["language"] for row in outcome.rows] == ["python"] * len(SCENARIOS)
    assert {row["port"] for row in outcome.rows} == {"memory"}
    assert any("native arm is left out" in note for note in outcome.notes)


def test_with_nothing_it_says_what_to_build(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise binary.BinaryMissing("millrace-bench is not built")

    monkeypatch.setattr(binary, "find", missing)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="make build"):
        memory.measure(seconds=0.1, rounds=1)
