"""Netlink attributes are read back, and cut ones do no harm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.host.netlink import GenericNetlink, attribute, attributes, each_attribute, text

LISTS = st.lists(st.tuples(st.integers(1, 0x3FFF), st.binary(max_size=40)), max_size=8)


@given(LISTS)
def test_attributes_are_read_back(pairs: list[tuple[int, bytes]]) -> None:
    data = b"".join(attribute(kind, value) for kind, value in pairs)
    assert list(each_attribute(data)) == pairs


@given(LISTS, st.integers(0, 400))
def test_cut_attributes_end_early(pairs: list[tuple[int, bytes]], keep: int) -> None:
    data = b"".join(attribute(kind, value) for kind, value in pairs)[:keep]
    found = list(each_attribute(data))
    assert found == pairs[: len(found)]


@given(st.binary(max_size=200))
def test_any_bytes_can_be_read(data: bytes) -> None:
    list(each_attribute(data))


def test_nests_numbers_and_texts() -> None:
    nest = attributes(attribute(1, [attribute(2, 7), attribute(3, "eth0")]))
    inner = attributes(nest[1])
    assert int.from_bytes(inner[2], "little") == 7
    assert text(inner[3]) == "eth0"


def test_unknown_family_is_named() -> None:
    with (
        GenericNetlink() as netlink,
        pytest.raises(FileNotFoundError, match="no nosuch family of generic netlink"),
    ):
        netlink.family("nosuch")
