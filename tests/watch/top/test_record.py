"""Recordings: there and back, cut off, and made by somebody who means harm."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from millrace.watch.top import record, source

from . import made_up


def written(path: Path, *ticks: Any) -> Path:
    with open(path, "w") as file:
        for tick in ticks:
            record.write(file, tick)
    return path


def test_what_was_recorded_comes_back(tmp_path: Path) -> None:
    ticks = [made_up.tick(time) for time in (1.0, 2.0, 3.0)]
    assert list(record.read(written(tmp_path / "r", *ticks))) == ticks


def test_a_replay_keeps_the_order_and_can_be_ended(tmp_path: Path) -> None:
    path = written(tmp_path / "r", *(made_up.tick(time) for time in (1.0, 1.5, 9999.0)))
    times = [tick["time"] for tick in source.replay(path, speed=1e9)(threading.Event())]
    assert times == [1.0, 1.5, 9999.0]
    end = threading.Event()
    ticks = source.replay(path)(end)
    assert next(ticks)["time"] == 1.0
    end.set()
    assert list(ticks) == []


def test_what_passes_is_recorded_at_once(tmp_path: Path) -> None:
    path = written(tmp_path / "r", made_up.tick(1.0), made_up.tick(2.0))
    with open(tmp_path / "copy", "w") as file:
        ticks = source.recorded(source.replay(path, 1e9), file)(threading.Event())
        next(ticks)
        assert len((tmp_path / "copy").read_text().splitlines()) == 1


def test_a_recording_that_was_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    path = written(tmp_path / "r", made_up.tick(1.0), made_up.tick(2.0))
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    assert [tick["time"] for tick in record.read(path)] == [1.0]


def changed(**changes: Any) -> str:
    return json.dumps(made_up.tick() | changes)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("\n", "line 1"),
        ("no json\n", "line 1"),
        ("no end", "no recording"),
        ("[]\n", "no tick"),
        ('{"format": "millrace-top"}\n', "version None"),
        (changed(version=2) + "\n", "version 2, and this millrace reads 1"),
        (changed(time="now") + "\n", "its time is now"),
        (changed(time=-1) + "\n", "its time"),
        (changed(seconds=1e400).replace("Infinity", "1e400") + "\n", "its seconds is inf"),
        (changed(views=[]) + "\n", "no views"),
        (changed(views={"cpus": 5}) + "\n", "no list of rows"),
        (changed(views={"cpus": [5]}) + "\n", "not flat"),
        (changed(views={"cpus": [{"a": [1]}]}) + "\n", "not flat"),
        (changed(views={"cpus": [{"a": 10**400}]}) + "\n", "beyond all measure"),
        ('{"a": NaN}\n', "NaN is no number"),
        ("[" * 100_000 + "\n", "line 1"),
        ("\xff\xfe\n", "line 1"),
    ],
)
def test_what_is_no_recording_is_refused_with_its_line(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "r"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=why):
        list(record.read(path))


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "MOST_LINE", 1000)
    path = tmp_path / "r"
    path.write_text("x" * 5000)
    with pytest.raises(ValueError, match="line 1: more than"):
        list(record.read(path))
