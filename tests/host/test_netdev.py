"""NAPI instances, queues and XDP features, by netdev's netlink family."""

from __future__ import annotations

import pytest

from millrace.host.access import Access
from millrace.host.netdev import read_napis, read_queue_counters, read_xdp_features
from millrace.lab import Lab

pytestmark = pytest.mark.networks


def test_a_veth_with_gro(lab: Lab) -> None:
    here = lab.host("a")
    wire = lab.wire(here, lab.host("b"), queues=2)
    with here.enter(), Access() as access:
        assert read_napis(access) == ()
        wire.a.set_offloads({"gro": True})
        napis = read_napis(access)
        queues = read_queue_counters(access)
        features = read_xdp_features(access)
    assert [napi.index for napi in napis] == [wire.a.ifindex] * 2
    assert {napi.threaded for napi in napis} == {False}
    mine = [(queue.way, queue.queue) for queue in queues if queue.index == wire.a.ifindex]
    assert mine == [("rx", 0), ("rx", 1), ("tx", 0), ("tx", 1)]
    assert {"basic", "redirect"} <= set(features[wire.a.ifindex])


def test_threads_of_napi(lab: Lab) -> None:
    here = lab.host("a")
    lab.wire(here, lab.host("b"), offloads={"gro": True})
    with here.enter(), Access() as access:
        here.run(["sh", "-c", "echo 1 > /sys/class/net/eth0/threaded"])
        (napi,) = read_napis(access)
    assert napi.threaded
    assert napi.pid > 0
