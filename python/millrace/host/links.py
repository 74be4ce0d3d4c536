"""Interfaces, addresses, routes, neighbours and queueing disciplines, by rtnetlink (pyroute2).

Routes are read without pyroute2, which reads a table to its end before it gives the first one; a
router's has a million.
"""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from millrace.host.access import Access
from millrace.host.netlink import NETLINK_ROUTE, Netlink, attribute, attributes, unsigned

#: More of a table than this is not read; the snapshot says where it was cut.
MAX_ROUTES = 4096
MAX_NEIGHBOURS = 16384

IFF_UP = 0x1  # linux/if.h
IFF_LOOPBACK = 0x8
IFF_RUNNING = 0x40
IFF_PROMISC = 0x100

IFA_F_DADFAILED = 0x08  # linux/if_addr.h

NUD_NAMES = {  # linux/neighbour.h
    0x01: "incomplete",
    0x02: "reachable",
    0x04: "stale",
    0x08: "delay",
    0x10: "probe",
    0x20: "failed",
    0x40: "noarp",
    0x80: "permanent",
}


@dataclass(frozen=True, slots=True)
class Link:
    """One interface, as `ip -s -d link` shows it."""

    name: str
    index: int
    #: "veth", "bridge", "bond", ...; "" for a device without a kind, as hardware is.
    kind: str
    mac: str
    mtu: int
    min_mtu: int
    max_mtu: int
    flags: int
    #: "up", "down", "lowerlayerdown", "unknown", ... (RFC 2863).
    operstate: str
    carrier: bool
    carrier_changes: int
    txqlen: int
    rx_queues: int
    tx_queues: int
    qdisc: str
    #: The number of the bridge or bond that it belongs to; 0 for none.
    master: int
    #: The number of the interface below or at the other end; 0 for none.
    lower: int
    #: The number of the namespace that `lower` is in; None for this one.
    lower_namespace: int | None
    gso_max_size: int
    gro_max_size: int
    #: "", "native", "generic" or "offloaded".
    xdp: str
    #: Of struct rtnl_link_stats64, by its names.
    statistics: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_up(self) -> bool:
        """Whether it was set up."""
        return bool(self.flags & IFF_UP)

    @property
    def is_loopback(self) -> bool:
        """Whether it is the namespace's loopback."""
        return bool(self.flags & IFF_LOOPBACK)


@dataclass(frozen=True, slots=True)
class Address:
    """An address on an interface."""

    index: int
    #: 4 or 6.
    family: int
    address: str
    prefix: int
    #: IFA_F_... of linux/if_addr.h.
    flags: int

    @property
    def is_duplicate(self) -> bool:
        """Whether somebody else was found to have this IPv6 address."""
        return bool(self.flags & IFA_F_DADFAILED)


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table."""

    family: int
    #: "default" or a prefix.
    destination: str
    gateway: str
    index: int
    metric: int
    source: str
    mtu: int


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entry of the ARP or neighbour-discovery table."""

    index: int
    family: int
    address: str
    mac: str
    #: "reachable", "stale", "failed", ...
    state: str


@dataclass(frozen=True, slots=True)
class Qdisc:
    """A queueing discipline, with what it counted."""

    index: int
    kind: str
    handle: int
    parent: int
    bytes: int
    packets: int
    drops: int
    overlimits: int
    requeues: int
    backlog: int
    queue_length: int


def read_links(access: Access) -> tuple[Link, ...]:
    """Every interface of this namespace."""
    return tuple(sorted(map(_link, access.route().get_links()), key=lambda link: link.index))


def read_addresses(access: Access) -> tuple[Address, ...]:
    """Every address of this namespace."""
    return tuple(
        Address(
            index=entry["index"],
            family=_family(entry["family"]),
            address=_text(entry.get("local") or entry.get("address")),
            prefix=entry["prefixlen"],
            flags=_number(entry.get("flags")),
        )
        for entry in access.route().get_addr()
    )


_ROUTE = struct.Struct("=8BI")  # struct rtmsg of linux/rtnetlink.h
_NEXT_HOP = struct.Struct("=HBBi")  # struct rtnexthop
_RTM_GETROUTE = 26
_RT_TABLE_MAIN = 254
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY = 1, 4, 5, 6
_RTA_PREFSRC, _RTA_METRICS, _RTA_MULTIPATH, _RTA_TABLE, _RTA_VIA = 7, 8, 9, 15, 18
_RTAX_MTU = 2


def read_routes(access: Access) -> tuple[Route, ...]:
    """The main table's routes, at most `MAX_ROUTES`."""
    access.need_live()
    found: list[Route] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        head = _ROUTE.pack(family, 0, 0, 0, _RT_TABLE_MAIN, 0, 0, 0, 0)
        request = head + attribute(_RTA_TABLE, _RT_TABLE_MAIN)
        # A socket for itself, so that what is left unread is in nobody's way.
        with Netlink(NETLINK_ROUTE) as netlink:
            entries = itertools.chain.from_iterable(
                map(_routes, netlink.dump(_RTM_GETROUTE, request))
            )
            found += itertools.islice(entries, MAX_ROUTES - len(found))
    return tuple(found)


def read_neighbours(access: Access) -> tuple[Neighbour, ...]:
    """The neighbour tables of both families, at most `MAX_NEIGHBOURS` entries."""
    found: list[Neighbour] = []
    for family in (2, 10):
        entries = access.route().get_neighbours(family=family)
        found += map(_neighbour, itertools.islice(entries, MAX_NEIGHBOURS - len(found)))
    return tuple(found)


def read_qdiscs(access: Access) -> tuple[Qdisc, ...]:
    """Every queueing discipline of this namespace."""
    return tuple(map(_qdisc, access.route().get_qdiscs()))


def _link(entry: Any) -> Link:
    info = entry.get("linkinfo")
    return Link(
        name=_text(entry.get("ifname")),
        index=entry["index"],
        kind=_text(info.get("kind")) if info else "",
        mac=_text(entry.get("address")),
        mtu=_number(entry.get("mtu")),
        min_mtu=_number(entry.get("min_mtu")),
        max_mtu=_number(entry.get("max_mtu")),
        flags=entry["flags"],
        operstate=_text(entry.get("operstate")).lower(),
        carrier=bool(entry.get("carrier")),
        carrier_changes=_number(entry.get("carrier_changes")),
        txqlen=_number(entry.get("txqlen")),
        rx_queues=_number(entry.get("num_rx_queues")),
        tx_queues=_number(entry.get("num_tx_queues")),
        qdisc=_text(entry.get("qdisc")),
        master=_number(entry.get("master")),
        lower=_number(entry.get("link")),
        lower_namespace=entry.get("link_netnsid"),
        gso_max_size=_number(entry.get("gso_max_size")),
        gro_max_size=_number(entry.get("gro_max_size")),
        xdp=_xdp(entry.get("xdp")),
        statistics={
            name: value
            for name, value in (entry.get("stats64") or {}).items()
            if isinstance(value, int)
        },
    )


def _xdp(nest: Any) -> str:
    # IFLA_XDP_ATTACHED of linux/if_link.h
    if not nest:
        return ""
    names = {1: "native", 2: "generic", 3: "offloaded", 4: "native"}
    value = nest.get("attached")
    if isinstance(value, str):
        return "" if value in ("", "none") else value
    return names.get(_number(value), "")


def _routes(answer: bytes) -> Iterator[Route]:
    """The route in an answer; one with several next hops is as many."""
    family, length, *_ = _ROUTE.unpack_from(answer)
    parts = attributes(answer[_ROUTE.size :])
    metrics = attributes(parts.get(_RTA_METRICS, b""))
    destination = _address(family, parts.get(_RTA_DST, b""))
    plain = Route(
        family=_family(family),
        destination=f"{destination}/{length}" if destination else "default",
        gateway=_gateway(family, parts),
        index=unsigned(parts.get(_RTA_OIF, b"")),
        metric=unsigned(parts.get(_RTA_PRIORITY, b"")),
        source=_address(family, parts.get(_RTA_PREFSRC, b"")),
        mtu=unsigned(metrics.get(_RTAX_MTU, b"")),
    )
    hops = parts.get(_RTA_MULTIPATH, b"")
    if not hops:
        yield plain
    while len(hops) >= _NEXT_HOP.size:
        size, _, _, index = _NEXT_HOP.unpack_from(hops)
        if not _NEXT_HOP.size <= size <= len(hops):
            return
        gateway = _gateway(family, attributes(hops[_NEXT_HOP.size : size]))
        yield replace(plain, gateway=gateway, index=index)
        hops = hops[size + 3 & ~3 :]


def _gateway(family: int, parts: Mapping[int, bytes]) -> str:
    # An IPv4 route by way of an IPv6 neighbour names it with its family before it.
    via = parts.get(_RTA_VIA, b"")
    if via:
        return _address(unsigned(via[:2]), via[2:])
    return _address(family, parts.get(_RTA_GATEWAY, b""))


def _address(family: int, data: bytes) -> str:
    size = _ADDRESS_BYTES.get(family, 0)
    return socket.inet_ntop(family, data[:size]) if size and len(data) >= size else ""


_ADDRESS_BYTES: Mapping[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 16}


def _neighbour(entry: Any) -> Neighbour:
    state = entry["state"]
    return Neighbour(
        index=entry["ifindex"],
        family=_family(entry["family"]),
        address=_text(entry.get("dst")),
        mac=_text(entry.get("lladdr")),
        state=NUD_NAMES.get(state, "none" if state == 0 else f"{state:#x}"),
    )


def _qdisc(entry: Any) -> Qdisc:
    basic: Mapping[str, int] = {}
    queue: Mapping[str, int] = {}
    nest = entry.get("stats2")
    if nest:
        basic = nest.get("TCA_STATS_BASIC") or {}
        queue = nest.get("TCA_STATS_QUEUE") or {}
    return Qdisc(
        index=entry["index"],
        kind=_text(entry.get("kind")),
        handle=entry["handle"],
        parent=entry["parent"],
        bytes=_number(basic.get("bytes")),
        packets=_number(basic.get("packets")),
        drops=_number(queue.get("drops")),
        overlimits=_number(queue.get("overlimits")),
        requeues=_number(queue.get("requeues")),
        backlog=_number(queue.get("backlog")),
        queue_length=_number(queue.get("qlen")),
    )


def by_index(links: Iterable[Link]) -> dict[int, Link]:
    """Interfaces by their numbers."""
    return {link.index: link for link in links}


def _family(number: int) -> int:
    return 6 if number == 10 else 4


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
