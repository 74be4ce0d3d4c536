"""Bundles are read back as they were; cut, flipped and hostile ones are refused with a place."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.host import codec
from millrace.host.unavailable import NotAvailable, Reading


@dataclass(frozen=True, slots=True)
class Stone:
    name: str
    weight: int
    share: float
    whole: bool
    grain: str | None
    reading: Reading[int]
    parts: tuple[int, ...]
    pair: tuple[int, str] | None
    by_number: Mapping[int, int] = field(default_factory=dict)
    inner: Reading[tuple[Inner, ...]] = field(default=NotAvailable("no inner"))


@dataclass(frozen=True, slots=True)
class Inner:
    rows: Mapping[str, Mapping[int, int]]


TEXTS = st.text(st.characters(exclude_categories=("C", "Z")), max_size=8)
NUMBERS = st.integers(-(2**63), 2**64 - 1)
STONES = st.builds(
    Stone,
    name=TEXTS,
    weight=NUMBERS,
    share=st.floats(-1e9, 1e9),
    whole=st.booleans(),
    grain=st.none() | TEXTS,
    reading=NUMBERS | st.builds(NotAvailable, TEXTS, TEXTS),
    parts=st.lists(NUMBERS, max_size=3).map(tuple),
    pair=st.none() | st.tuples(NUMBERS, TEXTS),
    by_number=st.dictionaries(st.integers(-9, 9), NUMBERS, max_size=3),
    inner=st.builds(NotAvailable, TEXTS)
    | st.lists(
        st.builds(Inner, rows=st.dictionaries(TEXTS, st.dictionaries(st.integers(0, 9), NUMBERS))),
        max_size=2,
    ).map(tuple),
)


@given(STONES)
def test_what_was_written_is_read_back(stone: Stone) -> None:
    assert codec.from_json(Stone, json.loads(json.dumps(codec.to_json(stone)))) == stone


@given(STONES, st.data())
def test_a_cut_file_is_refused(stone: Stone, data: st.DataObject) -> None:
    text = json.dumps(codec.to_json(stone))
    keep = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(codec.BadData, match="no whole JSON file"):
        codec.parse(text[:keep], "a bundle")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@given(STONES, st.data())
def test_a_value_of_another_type_is_refused_or_fits(stone: Stone, data: st.DataObject) -> None:
    written: dict[str, Any] = codec.to_json(stone)
    name = data.draw(st.sampled_from([*Stone.__slots__, "unknown"]))
    written[name] = data.draw(JSON)
    with contextlib.suppress(codec.BadData):
        codec.from_json(Stone, written)


def test_unknown_fields_are_ignored_and_missing_readings_say_so() -> None:
    stone = codec.from_json(Stone, {"name": "x", "later": [1, 2]})
    assert stone.reading == NotAvailable("not in this file")
    assert stone.weight == 0


def test_control_characters_never_come_out() -> None:
    stone = codec.from_json(Stone, {"name": "a\x1b[31m\u202eb\r\n\x9b", "grain": "tab\there"})
    assert stone.name == "a\ufffd[31m\ufffdb\ufffd\n\ufffd"
    assert stone.grain == "tab\there"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"name": NaN}', "NaN is no number"),
        ('{"name": ' + "1" * 5000 + "}", "no whole JSON file"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": "\\ud8', "no whole JSON file"),
        ("", "no whole JSON file"),
    ],
)
def test_hostile_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bundle.json"
    path.write_text(text)
    with pytest.raises(codec.BadData, match=message):
        codec.load(path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "bundle.json"
    path.write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(codec.BadData, match="no whole JSON file"):
        codec.load(path)


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bundle.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(codec.BadData, match="larger than 64 MiB"):
        codec.load(path)
