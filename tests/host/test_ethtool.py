"""What drivers say and take, by ethtool's netlink family."""

from __future__ import annotations

import errno
import re

import pytest

from millrace.host import ethtool
from millrace.host.access import Access
from millrace.host.unavailable import NotAvailable
from millrace.lab import Lab

pytestmark = pytest.mark.networks


def test_a_veth(lab: Lab) -> None:
    here = lab.host("a")
    lab.wire(here, lab.host("b"), queues=4)
    with here.enter(), Access() as access:
        device = next(one for one in ethtool.read_devices(access) if one.name == "eth0")
    assert isinstance(device.driver, ethtool.Driver)
    assert device.driver.name == "veth"
    assert device.channels == ethtool.Channels(4, 4, 4, 4, 0, 0)
    assert device.speed == 10_000
    assert isinstance(device.statistics, dict)
    assert device.statistics["peer_ifindex"] > 0
    for part in (device.rings, device.coalescing, device.rss, device.pause):
        assert isinstance(part, NotAvailable)
        assert "does not have it" in part.why


def test_offloads_agree_with_ethtool(lab: Lab) -> None:
    here = lab.host("a")
    wire = lab.wire(here, lab.host("b"))
    with here.enter(), Access() as access:
        netlink = access.generic()
        before = ethtool.features(netlink, "eth0")
        assert {
            name: one.active for name, one in before.items()
        }.items() <= wire.a.offloads().items()
        ethtool.set_features(netlink, "eth0", {"rx-gro": True, "tx-tcp-segmentation": False})
        device = ethtool.read_device(netlink, "eth0")
    shown = here.run(["ethtool", "-k", "eth0"]).stdout
    assert "generic-receive-offload: on" in shown
    assert re.search(r"tx-tcp-segmentation: off", shown)
    assert device.feature("gro") is True
    assert device.feature("tso") is True  # one of its family is still on
    assert device.feature("lro") is None  # a veth has none
    assert device.can_switch("gso")
    assert not device.can_switch("lro")


def test_queues_are_set_and_refused(lab: Lab) -> None:
    here = lab.host("a")
    lab.wire(here, lab.host("b"), queues=2)
    with here.enter(), Access() as access:
        netlink = access.generic()
        ethtool.set_channels(netlink, "eth0", rx=1)
        assert ethtool.channels(netlink, "eth0").receive == 1
        with pytest.raises(OSError, match="exceeds maximum") as refused:
            ethtool.set_channels(netlink, "eth0", rx=3)
        assert refused.value.errno == errno.EINVAL
        with pytest.raises(OSError, match="not supported"):
            ethtool.set_rings(netlink, "eth0", rx=512)
        with pytest.raises(OSError, match="not supported"):
            ethtool.set_coalescing(netlink, "eth0", rx_usecs=3, adaptive_rx=False)


def test_an_interface_that_is_gone(lab: Lab) -> None:
    with lab.host("a").enter(), Access() as access:
        device = ethtool.read_device(access.generic(), "gone0")
        assert "no device matches name" in str(device.features) or "No such device" in str(
            device.features
        )
