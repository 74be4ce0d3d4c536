"""Redirects of Linux's routers: packets really take the way that they name."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from millrace.lab import Host, Lab
from millrace.net import Channel, Completion, Handle

pytestmark = pytest.mark.networks

FAR, FAR6 = "198.51.100.9", "2001:db8:ffff::9"
#: Of ip(7).
IP_RECVTTL = 12
#: What a datagram that left with 64 has when a router forwarded it, and when none did.
FORWARDED, DIRECT = 63, 64


class Link:
    """A channel and two routers on one link. `near` is our gateway, and sends on to `right`, which
    is where the far addresses are."""

    def __init__(self, lab: Lab) -> None:
        self.host, self.near, self.right = (lab.host(name) for name in ("ours", "near", "right"))
        switch = lab.host("switch")
        switch.run(["ip", "link", "add", "br0", "type", "bridge"])
        switch.run(["ip", "link", "set", "br0", "up"])
        for number, host in enumerate((self.host, self.near, self.right)):
            name = f"port{number}"
            lab.wire(host, switch, addresses=(None, None), names=(None, name))
            switch.run(["ip", "link", "set", name, "master", "br0"])
        self.host.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
        for host, address in ((self.near, "192.0.2.1/24"), (self.right, "192.0.2.3/24")):
            host.sysctl("net.ipv4.ip_forward", 1)
            host.sysctl("net.ipv4.conf.all.send_redirects", 1)
            host.sysctl("net.ipv4.conf.eth0.send_redirects", 1)
            host.sysctl("net.ipv6.conf.all.forwarding", 1)
            host.run(["ip", "address", "add", address, "dev", "eth0"])
        self.right.run(["ip", "address", "add", f"{FAR}/32", "dev", "lo"])
        self.right.run(["ip", "-6", "address", "add", f"{FAR6}/128", "dev", "lo"])
        self.right.run(["ip", "-6", "route", "add", "2001:db8::/64", "dev", "eth0"])
        self.near.run(["ip", "-6", "route", "add", "2001:db8::/64", "dev", "eth0"])
        self.near.run(["ip", "route", "add", f"{FAR}/32", "via", "192.0.2.3"])
        via = ["via", link_local(self.right), "dev", "eth0"]
        self.near.run(["ip", "-6", "route", "add", f"{FAR6}/128", *via])
        with self.right.enter():
            self.far = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self.far.bind(("::", 7))
        self.far.setblocking(False)
        self.far.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        self.far.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        self.channel: Channel

    def open(self, **options: Any) -> Handle:
        """Open the channel and a datagram socket of it."""
        own = ["192.0.2.2/24", "2001:db8::2/64"]
        options |= {"gateway": ["192.0.2.1", link_local(self.near)], "dad_transmits": 0}
        with self.host.enter():
            self.channel = Channel("af_packet:eth0", own, hugepages=False, **options)
        return self.channel.datagram(53)

    def hops(self, ours: Handle, to: str) -> int:
        """What is left of a datagram's 64 when it has arrived."""
        end = time.monotonic() + 15.0
        sent = 0.0
        while time.monotonic() < end:
            if time.monotonic() > sent + 0.5:
                # The first may find nobody who knows the next hop.
                sent = time.monotonic()
                ours.send(b"?", (to, 7))
            self.turn()
            with contextlib.suppress(BlockingIOError):
                _, ancillary, _, _ = self.far.recvmsg(100, 256)
                return int(struct.unpack("i", ancillary[0][2])[0])
        raise AssertionError(f"nothing arrived: {self.counters()}")

    def turn(self) -> list[Completion]:
        """One turn of the channel."""
        return self.channel.turn(0.01) or []

    def counters(self) -> dict[str, int]:
        """Those that counted something."""
        return {name: value for name, value in self.channel.counters().items() if value}

    def redirected(self) -> None:
        """Until what the router said has come."""
        end = time.monotonic() + 15.0
        while not any(name in self.counters() for name in TOLD):
            assert time.monotonic() < end, self.counters()
            self.turn()

    def close(self) -> None:
        """Close the channel and the socket."""
        self.channel.close(0)
        self.far.close()


#: What became of a redirect.
TOLD = ("redirects_taken", "drop_icmp_redirect", "drop_icmp_ignored", "drop_ndp_not_ours")


def link_local(host: Host) -> str:
    """The link-local address of a router, once it may be used."""
    end = time.monotonic() + 15.0
    command = ["ip", "-6", "-o", "address", "show", "dev", "eth0", "scope", "link", "-tentative"]
    while not (words := host.run(command).stdout.split()):
        assert time.monotonic() < end, "no link-local address"
        time.sleep(0.05)
    return str(ipaddress.ip_interface(words[3]).ip)


@pytest.fixture
def link() -> Iterator[Link]:
    with Lab(ipv6=True) as lab:
        link = Link(lab)
        yield link
        link.close()


@pytest.mark.parametrize("far", [FAR, FAR6])
def test_the_way_that_a_router_names_is_taken(link: Link, far: str) -> None:
    ours = link.open()
    assert link.hops(ours, far) == FORWARDED
    link.redirected()
    assert link.counters().get("redirects_taken") == 1, link.counters()
    router = "192.0.2.3" if far == FAR else link_local(link.right)
    network = ipaddress.ip_network(far)
    assert (str(network), router) in link.channel.routes
    assert link.hops(ours, far) == DIRECT


@pytest.mark.parametrize("far", [FAR, FAR6])
def test_redirects_can_be_switched_off(link: Link, far: str) -> None:
    ours = link.open(redirects=False)
    assert link.hops(ours, far) == FORWARDED
    link.redirected()
    assert "redirects_taken" not in link.counters()
    assert link.hops(ours, far) == FORWARDED
