"""The table of latencies: working sets from sysfs, real figures, published ones beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from millrace import cli
from millrace.bench import binary, host
from millrace.host.files import Files


def cache(tmp_path: Path, *rows: tuple[str, str, str]) -> Files:
    for at, (level, kind, size) in enumerate(rows):
        folder = tmp_path / f"sys/devices/system/cpu/cpu0/cache/index{at}"
        folder.mkdir(parents=True)
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(text + "\n")
    return Files(tmp_path)


def test_working_sets_fit_their_caches(tmp_path: Path) -> None:
    rows = [("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "2048K"),
            ("3", "Unified", "32768K")]  # fmt: skip
    assert host.working_sets(cache(tmp_path, *rows)) == {
        "L1 cache": 24 << 10,
        "L2 cache": 192 << 10,
        "L3 cache": 8 << 20,
        "memory": 256 << 20,
    }


def test_a_machine_that_shows_no_caches(tmp_path: Path) -> None:
    assert host.working_sets(cache(tmp_path, ("x", "Data", "many"))) == {"memory": 256 << 20}


def built() -> None:
    try:
        binary.find()
    except binary.BinaryMissing as missing:
        pytest.skip(str(missing))


def test_every_step_has_a_figure() -> None:
    built()
    rows = host.latencies({"L1 cache": 4096, "memory": 1 << 20}, batches=1)
    steps = {row["step"] for row in rows}
    assert {"L1 cache", "memory", "system call", "switch, one core", "switch, no affinity"} <= steps
    assert all(isinstance(row["ns"], float) and row["ns"] >= row["least_ns"] > 0 for row in rows)
    (call,) = [row for row in rows if row["step"] == "system call"]
    assert call["published_ns"] == 50
    assert set(host.PUBLISHED) <= steps | {"L2 cache", "loopback 1 KiB, two cores"}


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built()
    path = tmp_path / "rows.json"
    assert cli.main(["bench", "host", "--batches", "1", "--runs", "1", "--json", str(path)]) == 0
    out = capsys.readouterr().out
    assert "system call" in out
    assert "millrace doctor takes" in out
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    assert {"step", "bytes", "ns", "least_ns", "published_ns", "published"} == set(rows[0])


def test_a_program_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "millrace-bench"
    program.write_text("#!/bin/sh\necho 'millrace-bench: no such thing' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv(binary.VARIABLE, str(program))
    with pytest.raises(RuntimeError, match=r"^no such thing$"):
        host.latencies({"memory": 4096}, batches=1)
