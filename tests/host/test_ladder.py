"""Loss is told at the place where it happened, in the order of the receive path."""

from __future__ import annotations

from typing import Any

import pytest

from millrace.host import NotAvailable, Unavailable
from millrace.host.checks import Context
from millrace.host.finding import Layer
from millrace.host.ladder import Rung, ladder


def rungs(server: Any) -> dict[Layer, Rung]:
    found = ladder(Context(server.after, server.after - server.before))
    assert [rung.layer for rung in found] == [
        Layer.NIC,
        Layer.RING,
        Layer.SOFTNET,
        Layer.PROTOCOL,
        Layer.SOCKET,
        Layer.APPLICATION,
    ]
    return {rung.layer: rung for rung in found}


def test_a_healthy_machine_loses_nothing(server: Any) -> None:
    found = rungs(server)
    assert all(rung.lost == 0 and not rung.counters for rung in found.values())
    assert found[Layer.NIC].arrived == 160_000
    assert found[Layer.SOFTNET].arrived == 160_000
    assert found[Layer.APPLICATION].arrived is None


def test_each_loss_is_on_its_rung(server: Any, make_socket: Any) -> None:
    server.link_counts(rx_crc_errors=1, rx_missed_errors=2, rx_dropped=5)
    server.softnet(0, dropped=3).softnet(1, flow_limit=1)
    server.counters(IpInHdrErrors=6, TcpExtIPReversePathFilter=7, UdpRcvbufErrors=8, UdpNoPorts=9)
    found = rungs(server)
    assert found[Layer.NIC].counters == {"eth0 rx_crc_errors": 1}
    assert found[Layer.RING].counters == {"eth0 rx_missed_errors": 2}
    assert found[Layer.SOFTNET].counters == {"backlog full": 3, "flow limit": 1}
    assert found[Layer.PROTOCOL].counters == {
        "eth0 rx_dropped": 5,
        "IpInHdrErrors": 6,
        "TcpExtIPReversePathFilter": 7,
    }
    assert found[Layer.SOCKET].lost == 8
    assert found[Layer.APPLICATION].lost == 9


def test_what_is_not_known_is_said(server: Any) -> None:
    server.set(softnet=NotAvailable("no softnet"))
    found = rungs(server)[Layer.SOFTNET]
    assert (found.arrived, found.unknown) == (None, "no softnet")
    with pytest.raises(Unavailable, match="two snapshots"):
        ladder(Context(server.after, None))
