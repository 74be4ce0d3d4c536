"""Tables for people, flat rows for programs, progress for the impatient."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path

import pytest

from millrace.cli import report

ROWS: list[dict[str, report.Value]] = [
    {"arm": "floor", "p50_us": 21.64, "requests": 123456, "ok": True, "note": None},
    {"arm": "[b]epoll", "p50_us": 2164.2, "requests": 7, "ok": False, "note": "x"},
]


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    report.show(ROWS, title="arms")
    out = capsys.readouterr().out
    for text in ("arms", "p50 us", "21.64", "2,164", "123,456", "yes", "no", "[b]epoll"):
        assert text in out


def test_columns_limit_the_table_only(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    report.show(ROWS, columns=["arm"], json_file=str(file))
    assert "p50" not in capsys.readouterr().out
    assert json.loads(file.read_text()) == ROWS


def test_json_on_standard_output_is_alone(capsys: pytest.CaptureFixture[str]) -> None:
    report.show(ROWS, json_file="-")
    streams = capsys.readouterr()
    assert json.loads(streams.out) == ROWS
    assert "floor" in streams.err


def test_no_rows(capsys: pytest.CaptureFixture[str]) -> None:
    report.show([], json_file="-")
    assert json.loads(capsys.readouterr().out) == []


def test_rows_must_be_flat() -> None:
    with pytest.raises(TypeError, match="column list holds list; a row must be flat"):
        report.show([{"list": [1]}])  # type: ignore[dict-item]


def test_no_number_that_json_lacks() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.show([{"x": float("nan")}], json_file="-")


def test_json_file_is_checked_early(tmp_path: Path) -> None:
    report.check_json_file(None)
    report.check_json_file("-")
    with pytest.raises(FileNotFoundError):
        report.check_json_file(str(tmp_path / "none" / "rows.json"))


def test_steps_in_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(report.time, "monotonic", lambda: clock[0])
    with report.Steps("measuring", 2) as steps:
        steps.begin("first")
        clock[0] = 2.5
        steps.begin("second")
    assert capsys.readouterr().err == "measuring 2/2: second\n"


def test_steps_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(report, "PROGRESS_AFTER_SECONDS", 0.0)
    with report.Steps("measuring", 2) as steps:
        steps.begin("first")
        while "first" not in terminal.getvalue():  # drawn by its own thread
            time.sleep(0.01)
        assert "measuring" in terminal.getvalue()


def test_short_work_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with report.Steps("measuring", 1) as steps:
        steps.begin("first")
    assert terminal.getvalue() == ""
