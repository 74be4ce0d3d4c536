"""`millrace simulate`: scenarios, random worlds, and how a failing seed is named."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from millrace.cli import main

SCENARIO = """
def scenario(sim):
    a, b = sim.host("a"), sim.host("b")
    sim.wire(a, b, loss="5%", delay="10ms")
    sim.bulk(a, b, bytes=20_000)

def check(result):
    assert result.flows[0].duration < LIMIT, "too slow"
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "lossy.py"
    path.write_text(SCENARIO.replace("LIMIT", "1000"))
    return path


def test_a_scenario_is_run_and_shown(
    scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "x.pcapng"
    assert (
        main(["simulate", str(scenario), "--seed", "3", "--trace", str(trace), "--json", "-"]) == 0
    )
    out, err = capsys.readouterr()
    (row,) = json.loads(out)
    assert (row["client"], row["sent"], row["complete"]) == ("a", 20_000, True)
    assert "digest" in err
    assert trace.stat().st_size > 20_000


def test_a_failing_seed_is_named_with_its_replay(
    scenario: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario.write_text(SCENARIO.replace("LIMIT", "0"))
    assert main(["simulate", str(scenario), "--seed", "5", "--seeds", "2"]) == 1
    err = capsys.readouterr().err
    assert "seed 5 failed: AssertionError: too slow" in err
    assert f"millrace simulate {scenario} --seed 6 --trace seed-6.pcapng" in err
    assert "2 seeds, 2 failed" in err


def test_the_replay_is_of_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a scenario.py"
    text = SCENARIO.replace("20_000", "20_000, ipv6=True").replace("LIMIT", "0")
    path.write_text(text + "\nnameless = lambda sim: scenario(sim)\n")
    monkeypatch.chdir(tmp_path)
    words = ["--function", "nameless", "--ipv6", "--until", "30", "--seed", "5"]
    assert main(["simulate", str(path), *words]) == 1
    first, told = capsys.readouterr().err.splitlines()
    command = shlex.split(told.removeprefix("to see it again: "))
    assert command[0] == "millrace"
    assert main(command[1:]) == 1
    assert capsys.readouterr().err.splitlines() == [first, told]


def test_random_worlds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--random", "--seed", "7"]) == 0
    out = capsys.readouterr().out
    assert "wire" in out
    assert "kept its promises" in out
    assert main(["simulate", "--integrity", "5", "--jobs", "2", "--json", "-"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["worlds"], row["broken"]) == (5, 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--random", "--seeds", "3"], "--seeds is for a scenario"),
        (["--random", "--ipv6", "--until", "1"], "--until, --ipv6 is for a scenario"),
        (["--integrity", "1", "--function", "other"], "--function is for a scenario"),
        (["--random", "--jobs", "2"], "--jobs is for --integrity"),
    ],
)
def test_no_option_is_passed_over(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", *words]) == 1
    assert said in capsys.readouterr().err


def test_a_scenario_may_import_what_lies_beside_it(
    scenario: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (scenario.parent / "limits_of_lossy.py").write_text("LIMIT = 1000")
    scenario.write_text("from limits_of_lossy import LIMIT\n" + SCENARIO)
    assert main(["simulate", str(scenario)]) == 0


def test_a_seed_has_64_bits(scenario: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last = str((1 << 64) - 1)
    assert main(["simulate", str(scenario), "--seed", last]) == 0
    for words in (["--seed", str(1 << 64)], ["--seed", last, "--seeds", "2"]):
        capsys.readouterr()
        assert main(["simulate", str(scenario), *words]) != 0
        (said,) = capsys.readouterr().err.splitlines()
        assert "18446744073709551615" in said


def test_one_thing_is_asked_for(
    scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([], [str(scenario), "--random"], [str(scenario), "--function", "nothing"]):
        assert main(["simulate", *words]) == 1
    assert "has no function nothing(sim)" in capsys.readouterr().err
