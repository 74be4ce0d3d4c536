"""Addresses are handed out once, and bad ones are refused with a sentence."""

from __future__ import annotations

import ipaddress

import pytest

from millrace.lab import LabError
from millrace.lab.addresses import Pools


def test_lowest_first_and_never_twice() -> None:
    pool = Pools("192.0.2.0/29").first_without([])
    pool.mark("192.0.2.2/29")
    assert [pool.take() for _ in range(5)] == [f"192.0.2.{n}/29" for n in (1, 3, 4, 5, 6)]
    with pytest.raises(LabError, match="all addresses of 192"):
        pool.take()


def test_first_network_that_is_free() -> None:
    pools = Pools(["192.0.2.0/24", "198.51.100.0/24"])
    used = ipaddress.ip_network("192.0.2.128/25")
    assert str(pools.first_without([used]).network) == "198.51.100.0/24"
    ipv6 = ipaddress.ip_network("2001:db8::/64")
    assert str(pools.first_without([ipv6]).network) == "192.0.2.0/24"


def test_networks_of_given_addresses_are_remembered() -> None:
    pools = Pools("192.0.2.0/24")
    pools.of("10.0.0.1/8").mark("10.0.0.1/8")
    assert pools.of("10.9.9.9/8").take() == "10.0.0.2/8"
    assert pools.of("2001:db8::1/64").take() == "2001:db8::1/64"


@pytest.mark.parametrize("network", ["", "192.0.2.1/24", "192.0.2.0/33", "host"])
def test_bad_network(network: str) -> None:
    with pytest.raises(LabError, match="is no network"):
        Pools(network)


def test_no_network() -> None:
    with pytest.raises(LabError, match="at least one network"):
        Pools([])
