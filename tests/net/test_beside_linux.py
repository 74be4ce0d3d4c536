"""A channel on an interface that Linux uses as well: each has what is for it."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from millrace.lab import Host, Lab
from millrace.net import DATAGRAM, Channel, Completion

OURS, SECOND, LINUX, PEER = "192.0.2.2", "192.0.2.3", "192.0.2.9", "192.0.2.1"
OURS6, PEER6 = "2001:db8::2", "2001:db8::1"
GROUP = "239.1.2.3"


class Shared:
    """A channel and Linux on one end of a veth, and the kernel of a host at the other end."""

    def __init__(self, lab: Lab, kind: str) -> None:
        self.kind = kind
        self.host, self.peer = lab.host("ours"), lab.host("peer")
        lab.wire(self.host, self.peer, addresses=(f"{LINUX}/24", f"{PEER}/24"))
        self.peer.run(["ip", "address", "add", f"{PEER6}/64", "dev", "eth0", "nodad"])
        self.sockets: list[socket.socket] = []
        self.open([f"{OURS}/24", f"{OURS6}/64"])

    def open(self, address: str | list[str], **options: Any) -> None:
        """Open the channel."""
        with self.host.enter():
            self.channel = Channel(
                f"{self.kind}:eth0", address, hugepages=False, frames=2048, **options
            )

    def udp(self, host: Host, own: str, port: int) -> socket.socket:
        """A UDP socket of a host's kernel."""
        with host.enter():
            bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sockets.append(bound)
        bound.bind((own, port))
        bound.setblocking(False)
        return bound

    def until(self, done: Callable[[list[Completion]], object], seconds: float = 10.0) -> None:
        """Turn until `done` says so."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if done(self.channel.turn(0.01) or []):
                return
        counters = {name: value for name, value in self.channel.counters().items() if value}
        raise AssertionError(f"it never came to this: {counters}")

    def both_get(self, linux: socket.socket, text: bytes) -> None:
        """Wait until a socket of Linux's and one of the channel's have this datagram."""
        ours: list[bytes] = []
        theirs: list[bytes] = []

        def done(batch: list[Completion]) -> bool:
            ours.extend(one.tobytes() for one in batch if one.kind is DATAGRAM)
            with contextlib.suppress(BlockingIOError):
                theirs.append(linux.recv(2048))
            return bool(ours and theirs)

        self.until(done)
        assert (ours, theirs) == ([text], [text])

    def answers(self, address: str) -> bool:
        """Whether the peer's ping to the address is answered."""
        ping = self.peer.popen(
            ["ping", "-c", "2", "-i", "0.2", "-W", "1", address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.until(lambda _: ping.poll() is not None)
        return bool(ping.returncode == 0)

    def close(self) -> None:
        """Close the channel and the sockets."""
        self.channel.close(0)
        for bound in self.sockets:
            bound.close()


@pytest.fixture(params=["af_packet", "af_xdp"])
def shared(request: pytest.FixtureRequest) -> Iterator[Shared]:
    with Lab(ipv6=True) as lab:
        shared = Shared(lab, request.param)
        yield shared
        shared.close()


def test_members_of_a_group_on_both_sides_get_it(shared: Shared) -> None:
    ours = shared.channel.datagram(5000)
    ours.join_group(GROUP)
    linux = shared.udp(shared.host, "", 5000)
    member = struct.pack("4s4s", socket.inet_aton(GROUP), socket.inet_aton(LINUX))
    linux.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    sender = shared.udp(shared.peer, PEER, 0)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(PEER))
    for text in (b"once", b"again"):
        sender.sendto(text, (GROUP, 5000))
        shared.both_get(linux, text)


def test_broadcasts_come_to_both_sides(shared: Shared) -> None:
    shared.channel.datagram(5000)
    linux = shared.udp(shared.host, "", 5000)
    sender = shared.udp(shared.peer, PEER, 0)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    for to in ("192.0.2.255", "255.255.255.255"):
        sender.sendto(to.encode(), (to, 5000))
        shared.both_get(linux, to.encode())


def test_addresses_that_come_later_are_ours_while_they_are_there(shared: Shared) -> None:
    channel = shared.channel
    assert shared.answers(OURS)
    assert not shared.answers(SECOND)
    channel.add_address(f"{SECOND}/24")
    channel.add_address("2001:db8::3/64")
    shared.until(lambda _: all(state == "preferred" for _, state in channel.addresses))
    for address in (OURS, SECOND, LINUX, OURS6, "2001:db8::3"):
        assert shared.answers(address), address
    channel.remove_address(SECOND)
    channel.remove_address("2001:db8::3")
    for address, expected in ((SECOND, False), ("2001:db8::3", False), (OURS6, True)):
        assert shared.answers(address) == expected, address


def test_an_address_of_linuxs_that_shares_our_solicited_node_group_is_found(
    shared: Shared,
) -> None:
    shared.host.run(["ip", "address", "add", "2001:db8:1::2/64", "dev", "eth0", "nodad"])
    shared.peer.run(["ip", "address", "add", "2001:db8:1::1/64", "dev", "eth0", "nodad"])
    shared.until(lambda _: all(state == "preferred" for _, state in shared.channel.addresses))
    for address in (OURS6, "2001:db8:1::2"):
        assert shared.answers(address), address


def test_a_host_that_forwards_leaves_ours_to_us(shared: Shared) -> None:
    shared.host.sysctl("net.ipv4.ip_forward", 1)
    shared.host.sysctl("net.ipv6.conf.all.forwarding", 1)
    shared.host.sysctl("net.ipv4.conf.eth0.proxy_arp", 1)
    shared.until(lambda _: all(state == "preferred" for _, state in shared.channel.addresses))
    # Linux would send us what comes for us, ask for us in vain, and tell the peer of both.
    with shared.peer.enter():
        errors = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        errors6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    shared.sockets += [errors, errors6]
    for address in (OURS, OURS6):
        ping = shared.peer.popen(
            ["ping", "-c", "9", "-i", "0.5", address], stdout=subprocess.PIPE, text=True
        )
        shared.until(lambda _, ping=ping: ping.poll() is not None)  # type: ignore[misc]
        text = ping.communicate()[0]
        assert "9 received" in text, text
        assert "errors" not in text, text
    kinds: set[int] = set()
    for bound, skipped in ((errors, 20), (errors6, 0)):
        bound.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                kinds.add(bound.recv(2048)[skipped])
    # Unreachable and redirect, of either family.
    assert kinds.isdisjoint({3, 5, 1, 137}), kinds
    assert shared.answers(LINUX)


def test_an_address_of_linuxs_is_not_taken_later_either(shared: Shared) -> None:
    shared.host.run(["ip", "address", "add", "2001:db8::9/64", "dev", "eth0", "nodad"])
    for address in (f"{LINUX}/24", "2001:db8::9/64"):
        with pytest.raises(OSError, match="is taken: Linux has it") as failure:
            shared.channel.add_address(address)
        assert failure.value.errno == errno.EADDRINUSE
    assert shared.answers(LINUX)
    shared.host.run(["ip", "address", "delete", f"{LINUX}/24", "dev", "eth0"])
    shared.channel.add_address(f"{LINUX}/24")
    assert shared.answers(LINUX)


def test_linux_keeps_its_own_where_an_address_is_looked_for(shared: Shared) -> None:
    shared.channel.close(0)
    # Nobody gives one, and the peer's questions to Linux are answered all the same.
    ping = shared.peer.popen(
        ["ping", "-c", "10", "-i", "0.1", "-W", "1", LINUX], stdout=subprocess.PIPE, text=True
    )
    patience: dict[str, Any] = {"dhcp_timeout": 1.0, "slaac_timeout": 1.0}
    for address in ("dhcp", "slaac"):
        with pytest.raises(TimeoutError):
            shared.open(address, **patience)
    assert " 0% packet loss" in ping.communicate()[0]


def test_neighbours_mend_what_they_remember(shared: Shared) -> None:
    channel = shared.channel
    shared.until(lambda _: all(state == "preferred" for _, state in channel.addresses))
    mac = channel.facts["hardware address"]
    wrong = "02:00:00:00:00:77"
    for own in (OURS, OURS6):
        entry = [own, "lladdr", wrong, "dev", "eth0", "nud", "stale"]
        shared.peer.run(["ip", "neighbour", "replace", *entry])

    def known() -> dict[str, str]:
        lines = shared.peer.run(["ip", "neighbour"]).stdout.splitlines()
        words = [line.split() for line in lines]
        return {one[0]: one[one.index("lladdr") + 1] for one in words if "lladdr" in one}

    before: dict[str, Any] = known()
    assert (before[OURS], before[OURS6]) == (wrong, wrong)
    channel.announce()
    shared.until(lambda _: [known().get(own) for own in (OURS, OURS6)] == [mac, mac])


def test_the_interface_is_asked_for_a_hardware_address_of_ours(shared: Shared) -> None:
    shared.channel.close(0)
    mac = "02:00:00:00:00:55"

    def asked() -> bool:
        return mac in shared.host.run(["bridge", "fdb", "show", "dev", "eth0"]).stdout

    assert not asked()
    shared.open(f"{OURS}/24", mac=mac)
    assert asked()
    assert shared.answers(OURS)
    assert mac in shared.peer.run(["ip", "neighbour", "show", OURS]).stdout
    shared.channel.close(0)
    assert not asked()


def test_an_address_of_another_host_is_found_out(shared: Shared) -> None:
    shared.channel.add_address(f"{PEER6}/64")
    shared.until(lambda _: (f"{PEER6}/64", "duplicate") in shared.channel.addresses)
