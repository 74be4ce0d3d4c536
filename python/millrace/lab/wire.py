"""A veth pair between two hosts."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

from millrace.lab import ethtool
from millrace.lab.addresses import Network, Pool, Pools
from millrace.lab.errors import LabError
from millrace.lab.impairment import whole

if TYPE_CHECKING:
    from millrace.lab.host import Host
    from millrace.lab.impaired import Statistics
    from millrace.lab.impairment import Wishes

MAX_QUEUES = 4096
MIN_MTU, MAX_MTU = 68, 65535
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.IGNORECASE)


@dataclass(frozen=True)
class Interface:
    """One end of a wire, on one host."""

    host: Host
    name: str
    mac: str
    ifindex: int
    #: The address that Linux has here with its prefix length, or None: nobody has one.
    address: str | None
    queues: int
    mtu: int

    @property
    def ip(self) -> str:
        """The address alone, without its prefix length."""
        if self.address is None:
            raise LabError(f"{self.name} on host {self.host.name} has no address of Linux's")
        return self.address.partition("/")[0]

    def set_up(self) -> None:
        """Bring this end up."""
        self._set_state("up")

    def set_down(self) -> None:
        """Take this end down; the other end of a plain wire loses its carrier. Behind a middle it
        keeps it, as behind a switch, and what it sends is lost.
        """
        self._set_state("down")

    def set_offloads(self, offloads: Mapping[str, bool]) -> None:
        """Switch offloads of this end, see `millrace.lab.ethtool.set_offloads`."""
        with self.host.enter():
            ethtool.set_offloads(self.name, offloads)

    def offloads(self) -> dict[str, bool]:
        """Which offloads are on, by the kernel's names."""
        with self.host.enter():
            found = ethtool.features(self.name)
        return {name: feature.active for name, feature in found.items()}

    def _set_state(self, state: str) -> None:
        with self.host.netlink() as netlink:
            netlink.link("set", index=self.ifindex, state=state)


class Wire:
    """Two interfaces: what one sends, the other receives."""

    def __init__(self, a: Interface, b: Interface, pool: Pool) -> None:
        self.a = a
        self.b = b
        self._pool = pool

    def __repr__(self) -> str:
        return f"<Wire {self.a.host.name}:{self.a.name} - {self.b.host.name}:{self.b.name}>"

    @property
    def network(self) -> Network:
        """The network of this wire's addresses."""
        return self._pool.network

    def address(self) -> str:
        """A further address of this wire's network that nobody has, with its prefix length.

        It is for a stack of ours: Linux does not get it.
        """
        return self._pool.take()

    def set_up(self) -> None:
        """Bring both ends up."""
        self.a.set_up()
        self.b.set_up()

    def set_down(self) -> None:
        """Take both ends down. Linux drops its routes and neighbours on them."""
        self.a.set_down()
        self.b.set_down()

    def statistics(self) -> tuple[Statistics, Statistics]:
        """What was done to the packets of both directions; only an impaired wire knows."""
        raise LabError(f"{self} does nothing to packets; give Lab.wire a loss, a delay or a rate")

    def impair(self, **_wishes: Unpack[Wishes]) -> None:
        """Do this to packets from now on; only a wire that was made impaired can."""
        raise LabError(
            f"{self} has no middle; give Lab.wire a loss, a delay or a rate to begin with"
        )

    def remove(self) -> None:
        """Take the wire away; it is no error if it or its hosts are gone."""
        for end in (self.a, self.b):
            if end in end.host.interfaces:
                end.host.interfaces.remove(end)
        if not self.a.host.netns_path.exists():
            return
        from pyroute2 import NetlinkError

        with self.a.host.netlink() as netlink:
            try:
                netlink.link("del", index=self.a.ifindex)
            except NetlinkError as error:
                if error.code != errno.ENODEV:
                    raise


def pick_addresses(
    pools: Pools,
    a: Host,
    b: Host,
    addresses: tuple[str | None, str | None] | None,
) -> tuple[Pool, tuple[str | None, str | None]]:
    """The network of a new wire, and what its two ends are called in it."""
    used = [
        ipaddress.ip_interface(interface.address).network
        for host in (a, b)
        for interface in host.interfaces
        if interface.address is not None
    ]
    if addresses is None:
        pool = pools.first_without(used)
        return pool, (pool.take(), pool.take())
    given = [pools.of(address) for address in addresses if address is not None]
    for pool, address in zip(given, filter(None, addresses), strict=True):
        pool.mark(address)
    return (given[0] if given else pools.first_without(used)), addresses


def join(
    a: Host,
    b: Host,
    pool: Pool,
    *,
    queues: int,
    mtu: int,
    addresses: tuple[str | None, str | None],
    offloads: Mapping[str, bool],
    macs: tuple[str, str],
    names: tuple[str, str],
) -> Wire:
    """Make the pair, address it, switch its offloads and bring it up."""
    whole("queues", queues, 1, MAX_QUEUES)
    whole("mtu", mtu, MIN_MTU, MAX_MTU)
    if a is b and names[0] == names[1]:
        raise LabError(f"both ends on host {a.name} would be called {names[0]}")
    for host, name, mac in zip((a, b), names, macs, strict=True):
        if not 1 <= len(name.encode()) <= 15 or re.search(r"[\s/:]", name) or name in (".", ".."):
            raise LabError(f"{name!r} is no interface name: 1 to 15 bytes, no space, '/' or ':'")
        if any(interface.name == name for interface in host.interfaces) or name == "lo":
            raise LabError(f"host {host.name} already has an interface {name}")
        if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1:
            raise LabError(f"{mac!r} is no unicast MAC address such as 02:00:00:00:00:01")

    _create(a, b, queues=queues, mtu=mtu, macs=macs, names=names)
    try:
        ends = [
            _configure(host, name, address, offloads)
            for host, name, address in zip((a, b), names, addresses, strict=True)
        ]
        wire = Wire(ends[0], ends[1], pool)
        wire.set_up()
    except BaseException:
        with a.netlink() as netlink:
            netlink.link("del", ifname=names[0])
        raise
    a.interfaces.append(wire.a)
    b.interfaces.append(wire.b)
    return wire


def _create(
    a: Host,
    b: Host,
    *,
    queues: int,
    mtu: int,
    macs: tuple[str, str],
    names: tuple[str, str],
) -> None:
    # Without the queue counts veth makes as many as there are cores and uses one.
    shape: dict[str, Any] = {"num_tx_queues": queues, "num_rx_queues": queues, "mtu": mtu}
    peer_namespace = os.open(b.netns_path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with a.netlink() as netlink:
            netlink.link(
                "add",
                ifname=names[0],
                kind="veth",
                address=macs[0],
                peer={
                    "ifname": names[1],
                    "address": macs[1],
                    "net_ns_fd": peer_namespace,
                    **shape,
                },
                **shape,
            )
    finally:
        os.close(peer_namespace)


def _configure(
    host: Host, name: str, address: str | None, offloads: Mapping[str, bool]
) -> Interface:
    from pyroute2 import NetlinkError

    with host.netlink() as netlink:
        (link,) = netlink.get_links(ifname=name)
        index: int = link["index"]
        if address is not None:
            own, _, prefix = address.partition("/")
            try:
                netlink.addr(
                    "add", index=index, address=own, prefixlen=int(prefix), flags=_flags(own)
                )
            except NetlinkError as error:
                if error.code == errno.EACCES and ":" in own:
                    raise LabError(
                        f"host {host.name} has no IPv6 for {address}; "
                        "its lab has when it is made as Lab(ipv6=True)"
                    ) from error
                raise
        mac: str = link.get("address")
        mtu: int = link.get("mtu")
        queues: int = link.get("num_rx_queues")
    with host.enter():
        ethtool.set_offloads(name, offloads)
    return Interface(host, name, mac, index, address, queues, mtu)


def _flags(address: str) -> int:
    # Linux would look for duplicates first, and refuse to use the address until it has.
    no_duplicates = 0x02  # IFA_F_NODAD of linux/if_addr.h
    return no_duplicates if ":" in address else 0
