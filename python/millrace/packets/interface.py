"""What Linux knows of a port's interface: its counters, and the way to an address."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

#: Counters of packets that were lost on their way in, before anybody could see them.
RX_DROPS = ("rx_dropped", "rx_missed_errors", "rx_fifo_errors", "rx_over_errors")
#: Counters of packets that were lost on their way out.
TX_DROPS = ("tx_dropped", "tx_errors", "tx_fifo_errors", "tx_carrier_errors", "tx_aborted_errors")


def counters(port: str, names: Sequence[str]) -> dict[str, int]:
    """What Linux has counted at the interface of a port so far; nothing where it has none."""
    kind, _, name = port.rpartition(":")
    if kind not in ("", "af_packet", "af_xdp", "xdp_live"):
        return {}
    from pyroute2 import IPRoute, NetlinkError

    with IPRoute() as netlink:
        try:
            links = netlink.get_links(ifname=name.partition("#")[0])
        except NetlinkError:
            return {}  # opening the port says why
    found = (links[0].get("stats64") or {}) if links else {}
    return {name: int(found[name]) for name in names if name in found}


def more(port: str, before: dict[str, int]) -> dict[str, int]:
    """By how much the counters have grown, where they have."""
    after = counters(port, tuple(before))
    return {
        name: after[name] - count for name, count in before.items() if after.get(name, 0) > count
    }


def way_to(address: str, interface: str) -> tuple[str | None, str | None]:
    """The source address that Linux would use towards an address by this interface, and the
    hardware address that it has for the next hop. None for what it does not know.

    Raises ValueError for what is no address, FileNotFoundError without the interface.
    """
    from pyroute2 import IPRoute, NetlinkError

    destination = ip_address(address)
    family = socket.AF_INET6 if destination.version == 6 else socket.AF_INET
    with IPRoute() as netlink:
        found = netlink.link_lookup(ifname=interface)
        if not found:
            raise FileNotFoundError(f"there is no interface {interface}")
        index = found[0]
        try:
            route = netlink.route("get", dst=str(destination), oif=index, family=family)[0]
        except NetlinkError:
            return None, None
        source: Any = route.get_attr("RTA_PREFSRC")
        hop = str(route.get_attr("RTA_GATEWAY") or destination)
        for entry in netlink.get_neighbours(family=family, ifindex=index):
            if entry.get_attr("NDA_DST") == hop and entry.get_attr("NDA_LLADDR"):
                return source, entry.get_attr("NDA_LLADDR")
        return source, None
