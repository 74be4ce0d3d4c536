"""Machines with many interfaces."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.lab import Lab
from millrace.watch.top import many
from millrace.watch.top.sample import Sampler
from millrace.watch.top.tick import Ticker

TEXT = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo
    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
 a:b@c: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
  eth0: 1 2 3
  eth1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 x
"""


def test_lines_are_read_and_broken_ones_left_out() -> None:
    found = many.counters(TEXT)
    assert list(found) == ["lo"]
    assert (found["lo"]["rx_bytes"], found["lo"]["tx_packets"]) == (1, 10)
    assert many.counters("") == {}


@pytest.mark.networks
def test_counters_are_those_of_rtnetlink(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "MANY", 2)
    client, server = lab.host("client"), lab.host("server")
    wire = lab.wire(client, server)
    with client.enter(), Sampler(drops=False, napi=False) as sampler:
        before = sampler.look()
        client.run(["ping", "-q", "-c", "5", "-i", "0.01", str(wire.b.ip)])
        after = sampler.look()
        tick = Ticker().tick(before, after)
        said = Path("/proc/thread-self/net/dev").read_text()
    # The second look has read no more than that one file for all interfaces.
    assert not after.machine.devices
    (row,) = [row for row in tick["views"]["interfaces"] if row["interface"] == wire.a.name]
    assert row["rx"] * tick["seconds"] >= 5
    assert many.counters(said)[wire.a.name]["rx_packets"] >= 5
