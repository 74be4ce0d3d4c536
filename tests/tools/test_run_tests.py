"""The count at the end of `make test` can be trusted."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "tools" / "run_tests.py"


@pytest.fixture(scope="module")
def run_tests() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("run_tests", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_tests"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


CARGO = """
running 4 tests
test ring::full ... ok
test ring::empty ... ok
test ring::slow ... ignored, takes an hour
test ring::bad ... FAILED

---- ring::full stdout ----
SKIP ring::full: needs CAP_NET_RAW: run as root
SKIP ring::full: needs CAP_NET_RAW: run as root

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

running 2 tests
test ring::full ... ok
test odd ... ignored
test holder ... ignored, not a test: the process that odd starts

---- ring::full stdout ----
SKIP ring::full: no /dev/net/tun

test result: ok. 1 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s
"""


def test_cargo(run_tests: types.ModuleType) -> None:
    count = run_tests.count_cargo(101, CARGO)
    assert count.line() == "1 passed, 1 failed, 4 skipped"
    assert count.failures == ["ring::bad"]
    assert count.skips == [
        "ring::full: needs CAP_NET_RAW: run as root",
        "ring::slow: takes an hour",
        "ring::full: no /dev/net/tun",
        "odd: ignored without a reason",
    ]


@pytest.mark.parametrize("output", ["", "error: could not compile\n", CARGO.split("running 2")[1]])
def test_cargo_that_breaks_off(run_tests: types.ModuleType, output: str) -> None:
    assert run_tests.count_cargo(101, output).failed == 1


def test_cargo_without_tests_is_a_failure(run_tests: types.ModuleType) -> None:
    assert run_tests.count_cargo(0, "").failed == 1


def test_pytest(run_tests: types.ModuleType, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="a" name="good"/>'
        '<testcase classname="a" name="bad"><failure message="no"/></testcase>'
        '<testcase classname="a" name="broken"><error message="no"/></testcase>'
        '<testcase classname="a" name="off"><skipped message="needs root"/></testcase>'
        "</testsuite></testsuites>"
    )
    count = run_tests.count_pytest(1, report)
    assert count.line() == "1 passed, 2 failed, 1 skipped"
    assert count.failures == ["a::bad", "a::broken"]
    assert count.skips == ["a::off: needs root"]


def test_pytest_that_breaks_off(run_tests: types.ModuleType, tmp_path: Path) -> None:
    assert run_tests.count_pytest(2, tmp_path / "none.xml").failed == 1


def test_it_goes_on_after_a_failure(
    run_tests: types.ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    made = [
        run_tests.Stage("bad", ["false"]),
        run_tests.Stage("missing", ["no-such-program"]),
        run_tests.Stage("good", ["echo", "said"]),
    ]
    monkeypatch.setattr(run_tests, "stages", lambda _: made)
    assert run_tests.main([]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert "said" in lines
    assert lines[-3:] == ["FAILED bad", "FAILED missing", "1 passed, 2 failed, 0 skipped"]
    assert run_tests.main(["good"]) == 0
    assert run_tests.main(["nosuch"]) == 2


def test_what_hangs_is_stopped(
    run_tests: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_tests, "HANGS_AFTER_SECONDS", 0.0)
    count = run_tests.run(run_tests.Stage("hang", ["sleep", "1000"]))
    assert count.line() == "0 passed, 1 failed, 0 skipped"
