"""Interfaces, addresses, routes, neighbours and qdiscs of a host in the lab."""

from __future__ import annotations

import pytest

from millrace.host.access import Access
from millrace.host.links import (
    by_index,
    read_addresses,
    read_links,
    read_neighbours,
    read_qdiscs,
    read_routes,
)
from millrace.lab import Lab

pytestmark = pytest.mark.networks


def test_a_veth_and_what_is_on_it(lab: Lab) -> None:
    here, there = lab.host("a"), lab.host("b")
    wire = lab.wire(here, there, queues=2, mtu=1400)
    here.run(["ip", "route", "add", "198.51.100.0/24", "via", wire.b.ip, "mtu", "1300"])
    here.run(["ping", "-c", "1", "-W", "5", wire.b.ip])
    with here.enter(), Access() as access:
        link = by_index(read_links(access))[wire.a.ifindex]
        addresses = read_addresses(access)
        routes = read_routes(access)
        neighbours = read_neighbours(access)
    assert (link.name, link.kind, link.mac, link.mtu) == ("eth0", "veth", wire.a.mac, 1400)
    assert (link.rx_queues, link.tx_queues, link.operstate) == (2, 2, "up")
    assert link.is_up
    assert link.carrier
    assert not link.is_loopback
    assert link.lower == wire.b.ifindex
    assert link.lower_namespace is not None
    assert link.statistics["tx_packets"] >= 2
    assert ("192.0.2.1", 24) in [(one.address, one.prefix) for one in addresses]
    route = next(one for one in routes if one.gateway)
    assert (route.destination, route.gateway, route.mtu) == ("198.51.100.0/24", wire.b.ip, 1300)
    assert (route.index, route.family) == (wire.a.ifindex, 4)
    entry = next(one for one in neighbours if one.address == wire.b.ip)
    assert entry.mac == wire.b.mac
    assert entry.state in ("reachable", "delay", "stale", "probe")


def test_qdisc_counts_its_drops(lab: Lab) -> None:
    here = lab.host("a")
    wire = lab.wire(here, lab.host("b"))
    here.run(
        [
            "tc",
            "qdisc",
            "add",
            "dev",
            "eth0",
            "root",
            "tbf",
            "rate",
            "8kbit",
            "burst",
            "2000",
            "limit",
            "2000",
        ]
    )
    here.run(["ping", "-q", "-f", "-c", "20", "-s", "1000", "-W", "0.1", wire.b.ip], check=False)
    with here.enter(), Access() as access:
        (found,) = [one for one in read_qdiscs(access) if one.kind == "tbf"]
    assert found.index == wire.a.ifindex
    assert found.drops > 0
    assert found.packets > 0


def test_several_next_hops_are_several_routes() -> None:
    with Lab(ipv6=True) as lab:
        here = lab.host("a")
        first, second = lab.wire(here, lab.host("b")), lab.wire(here, lab.host("c"))
        hops = [word for wire, dev in ((first, "eth0"), (second, "eth1"))
                for word in ("nexthop", "via", wire.b.ip, "dev", dev)]  # fmt: skip
        here.run(["ip", "route", "add", "203.0.113.0/24", *hops])
        here.run(["ip", "route", "add", "203.0.114.0/24", "via", "inet6", "fe80::1", "dev", "eth0"])
        here.run(["ip", "-6", "route", "add", "default", "via", "fe80::2", "dev", "eth1"])
        with here.enter(), Access() as access:
            found = {(one.destination, one.gateway, one.index) for one in read_routes(access)}
    assert ("203.0.113.0/24", first.b.ip, first.a.ifindex) in found
    assert ("203.0.113.0/24", second.b.ip, second.a.ifindex) in found
    assert ("203.0.114.0/24", "fe80::1", first.a.ifindex) in found
    assert ("default", "fe80::2", second.a.ifindex) in found


def test_many_routes_are_bounded(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from millrace.host import links

    monkeypatch.setattr(links, "MAX_ROUTES", 10)
    here = lab.host("a")
    wire = lab.wire(here, lab.host("b"))
    batch = "\n".join(f"route add 10.0.{n}.0/24 via {wire.b.ip}" for n in range(50))
    here.run(["ip", "-batch", "-"], input=batch)
    with here.enter(), Access() as access:
        assert len(read_routes(access)) == 10
        # What was left unread is not in the way of the next question.
        assert len(read_links(access)) == 2
