"""Where the native half is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.bench import binary


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(binary.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(binary, "_built", list)


def program(path: Path) -> Path:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_variable_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built, named = program(tmp_path / "built"), program(tmp_path / "named")
    monkeypatch.setattr(binary, "_built", lambda: [built])
    assert binary.find() == built
    monkeypatch.setenv(binary.VARIABLE, str(named))
    assert binary.find() == named


def test_a_variable_that_names_nothing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(binary.VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(binary.BinaryMissing, match="gone"):
        binary.find()


def test_path_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = program(tmp_path / binary.NAME)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert binary.find() == found


def test_nowhere_says_how_to_build_it() -> None:
    with pytest.raises(binary.BinaryMissing, match="cargo build --release -p millrace-bench"):
        binary.find()
