"""The capture side of the packet bench: rows that add up."""

from __future__ import annotations

import pytest

from millrace.bench import packet_capture
from millrace.lab import Lab


@pytest.mark.networks
def test_what_arrives_is_kept_or_counted_as_lost(lab: Lab) -> None:
    assert packet_capture.missing() is None
    told: list[str] = []
    rows = packet_capture.measure(lab, 0.2, 1, sizes=(64,), rates=(5_000.0,), begin=told.append)
    assert told == ["capture, 64 bytes, 0.005 M/s"]
    assert [row["tool"] for row in rows] == ["millrace", "tcpdump"]
    for row in rows:
        assert (row["work"], row["port"], row["frame_bytes"]) == ("capture", "af_packet", 64)
        assert row["offered"] == row["delivered"]
        assert row["unaccounted"] == 0
        assert isinstance(row["mpps"], float)
        assert row["mpps"] > 0


def test_what_tcpdump_says() -> None:
    text = "12 packets captured\n15 packets received by filter\n3 packets dropped by kernel\n"
    assert packet_capture._ended("tcpdump", "", text) == (12, 3)
    with pytest.raises(RuntimeError, match="did not say"):
        packet_capture._ended("tcpdump", "", "killed")
