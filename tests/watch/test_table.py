"""Tables that were damaged or lie are refused, never believed in part."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.watch import table

GOOD = (
    b"\x01x\x03\x00\x01n\x01\x01t\x02\x01a\x02\0\0\0\x09\0\0\0"
    b"\x02\x01\0\0\0\0\0\0\x02ab\x04\xc0\0\x02\x01\x50\0"
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x00\0\0\0"
)


def test_rows_are_read() -> None:
    (found,) = table.parse(GOOD)
    assert (found.name, found.columns, found.total) == ("x", ("n", "t", "a"), 9)
    assert list(found) == [
        {"n": 258, "t": "ab", "a": ("192.0.2.1", 80)},
        {"n": 2**64 - 1, "t": "", "a": None},
    ]
    assert len(table.parse(GOOD * 3)) == 3


def test_every_cut_is_noticed() -> None:
    for end in range(1, len(GOOD)):
        with pytest.raises(ValueError, match="cut"):
            table.parse(GOOD[:end])


def test_control_characters_do_not_reach_a_terminal() -> None:
    hostile = b"\x01x\x01\x01\x01t\x01\0\0\0\x01\0\0\0\x08\x1b]0;a\x07\r\n"
    (found,) = table.parse(hostile)
    assert not any(c in found.rows[0][0] for c in "\x1b\x07\r\n")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x01x\x01\x07\x01n\0\0\0\0\0\0\0\0", "kind 7"),
        (b"\x01x\x01\x02\x01a\x01\0\0\0\x01\0\0\0\x05\0\0", "family 5"),
        (b"\x01x\x00\xff\xff\xff\xff\0\0\0\0", "rows"),
        (b"\x01x\x01\x00\x01n\xff\xff\xff\x7f\0\0\0\0", "rows"),
        (b"\x01x\x02\x00\x01n\x00\x01n\0\0\0\0\0\0\0\0", "two columns"),
    ],
)
def test_lies_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        table.parse(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_tables_or_an_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        table.parse(data)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_a_changed_byte_is_a_table_or_an_error(at: int, value: int) -> None:
    changed = bytearray(GOOD)
    changed[at] = value
    with contextlib.suppress(ValueError):
        table.parse(bytes(changed))
