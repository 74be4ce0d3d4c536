"""Headers of frames that are whole, cut and malformed."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.watch import frame

MACS = bytes(12)
V4 = b"\x45\0\0\x2c\x12\x34\0\0\x40\x06\0\0\xc0\0\x02\x01\xc6\x33\x64\x02"
TCP = struct.pack(">HHIIBBHHH", 443, 50000, 1000, 2000, 0x60, 0x12, 512, 0, 0) + bytes(4)
V6 = b"\x60\0\0\0\0\x08\x11\x40" + bytes(15) + b"\x01" + bytes(15) + b"\x02"
UDP = b"\x00\x35\x14\xe9\0\x08\0\0"

EXAMPLES = {
    "TCP 192.0.2.1:443 > 198.51.100.2:50000 [S.] seq 1000 ack 2000 win 512 length 0": (
        MACS + b"\x08\0" + V4 + TCP
    ),
    "UDP [::1]:53 > [::2]:5353 length 0": MACS + b"\x86\xdd" + V6 + UDP,
    "ARP 192.0.2.1 > 192.0.2.2 request": (
        MACS + b"\x08\x06\0\x01\x08\0\x06\x04\0\x01" + bytes(6) + b"\xc0\0\x02\x01" + bytes(6)
        + b"\xc0\0\x02\x02"
    ),
    "ICMP 192.0.2.1 > 198.51.100.2 echo request, length 24": (
        MACS + b"\x08\0" + V4[:9] + b"\x01" + V4[10:] + b"\x08\0" + bytes(22)
    ),
    "UDP 192.0.2.1 > 198.51.100.2 fragment 4660 at 1480, length 24": (
        MACS + b"\x08\0" + V4[:6] + b"\0\xb9\x40\x11" + V4[10:] + bytes(24)
    ),
    "LLDP length 3": MACS + b"\x88\xcc" + b"abc",
    "ether type 0x1234 length 0": MACS + b"\x12\x34",
}  # fmt: skip


@pytest.mark.parametrize("text", EXAMPLES)
def test_frames_are_read(text: str) -> None:
    assert str(frame.ethernet(EXAMPLES[text])) == text


def test_behind_vlan_tags_and_extension_headers() -> None:
    tagged = MACS + b"\x88\xa8\0\x05\x81\0\x20\x07" + EXAMPLES["LLDP length 3"][12:]
    assert frame.ethernet(tagged).vlan == 7
    options = V6[:6] + b"\0" + V6[7:] + b"\x11\0" + bytes(6) + UDP
    found = frame.network(options, frame.ETHER_IPV6)
    assert (found.protocol_name, found.source_port) == ("UDP", 53)


@given(st.sampled_from(sorted(EXAMPLES)), st.integers(0, 60), st.binary(max_size=8))
def test_what_is_cut_or_changed_is_text_all_the_same(text: str, cut: int, junk: bytes) -> None:
    data = EXAMPLES[text]
    assert str(frame.ethernet(data[:cut]))
    changed = data[:cut] + junk + data[cut + len(junk) :]
    assert str(frame.ethernet(changed))


@given(st.binary(max_size=120))
def test_any_bytes_are_text(data: bytes) -> None:
    assert str(frame.ethernet(data))
    for ether_type in (frame.ETHER_IPV4, frame.ETHER_IPV6, frame.ETHER_ARP):
        assert str(frame.network(data, ether_type))
