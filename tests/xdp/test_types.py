"""Types: what Python gives and gets, and the bytes in the kernel."""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.xdp import MAC, IPv4, IPv6, be16, be32, i8, i32, u8, u16, u32, u64
from millrace.xdp.types import Tuple, Type, as_type


@pytest.mark.parametrize(
    ("declared", "value", "data"),
    [
        (u8, 255, b"\xff"),
        (u16, 0x1234, struct.pack("=H", 0x1234)),
        (u64, 1 << 63, struct.pack("=Q", 1 << 63)),
        (i8, -1, b"\xff"),
        (i32, -2, struct.pack("=i", -2)),
        (be16, 53, b"\0\x35"),
        (be32, 1, b"\0\0\0\1"),
        (IPv4, "192.0.2.1", bytes([192, 0, 2, 1])),
        (IPv4, ipaddress.IPv4Address("192.0.2.1"), bytes([192, 0, 2, 1])),
        (IPv4, 0xC0000201, bytes([192, 0, 2, 1])),
        (IPv6, "::1", bytes(15) + b"\1"),
        (MAC, "02:00:00:00:00:01", bytes.fromhex("020000000001")),
        (MAC, "02-00-00-00-00-01", bytes.fromhex("020000000001")),
        (MAC, bytes(6), bytes(6)),
    ],
)
def test_values_are_these_bytes(declared: Type, value: Any, data: bytes) -> None:
    assert declared.encode(value) == data
    assert declared.encode(declared.decode(data)) == data


@pytest.mark.parametrize(
    ("declared", "value", "error"),
    [
        (u8, 256, ValueError),
        (u8, -1, ValueError),
        (i8, 128, ValueError),
        (u16, "1", TypeError),
        (u16, 1.0, TypeError),
        (IPv4, "192.0.2.256", ValueError),
        (IPv4, "::1", ValueError),
        (IPv4, ipaddress.IPv6Address("::1"), TypeError),
        (IPv4, 1 << 32, ValueError),
        (IPv4, b"\0\0\0", ValueError),
        (IPv4, None, TypeError),
        (IPv4, True, TypeError),
        (IPv6, "192.0.2.1", ValueError),
        (MAC, "02:00:00:00:00", ValueError),
        (MAC, "02:00-00:00:00:01", ValueError),
    ],
)
def test_wrong_values_are_refused(declared: Type, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        declared.encode(value)


def test_conversions_cut_to_their_width() -> None:
    assert u8(300) == 44
    assert i8(200) == -56
    assert u64(-1) == (1 << 64) - 1
    assert i32(1 << 31) == -(1 << 31)


def test_a_tuple_is_laid_out_as_a_c_struct() -> None:
    flow = Tuple((IPv4, u16, u8, u32))
    assert flow.offsets == [0, 4, 6, 8]
    assert flow.size == 12
    data = flow.encode(("192.0.2.1", 53, 17, 7))
    assert data == bytes([192, 0, 2, 1]) + struct.pack("=HBxI", 53, 17, 7)
    assert flow.decode(data) == (ipaddress.IPv4Address("192.0.2.1"), 53, 17, 7)
    assert Tuple((u8, u64)).size == 16
    with pytest.raises(TypeError, match="tuple of 4"):
        flow.encode(("192.0.2.1", 53))


@given(st.integers(), st.sampled_from([u8, u16, u32, u64, i8, i32, be16, be32]))
def test_what_a_program_holds_survives(value: int, declared: Any) -> None:
    held = declared(value)
    assert declared.unpack(declared.pack(value)) == held
    assert (held - value) % (1 << declared.bits) == 0
    assert declared.lowest <= held <= declared.highest


@pytest.mark.parametrize("declared", [int, "u8", (), (u8, (u8,)), None, (u8, int)])
def test_what_is_no_type_is_refused(declared: Any) -> None:
    with pytest.raises(TypeError, match="key"):
        as_type(declared, "key")
