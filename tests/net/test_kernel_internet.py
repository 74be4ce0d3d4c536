"""Fragments, groups and leases, between a channel and the kernel on a veth."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from millrace.lab import Host, Lab
from millrace.net import DATAGRAM, Channel, Completion, Handle

pytestmark = pytest.mark.networks

OURS, KERNEL, GROUP = "192.0.2.2", "192.0.2.1", "239.1.2.3"
LONG = 20_000


class Wired:
    """A channel on one end of a veth, and the kernel of a host at the other end."""

    def __init__(
        self, lab: Lab, address: str | None = f"{OURS}/24", kind: str = "af_packet"
    ) -> None:
        self.kind = kind
        self.sockets: list[socket.socket] = []
        self.host, self.kernel = lab.host("ours"), lab.host("kernel")
        lab.wire(self.host, self.kernel, addresses=(None, f"{KERNEL}/24"))
        if address is not None:
            self.open(address)

    def open(self, address: str, **options: Any) -> Channel:
        """Open the channel."""
        with self.host.enter():
            self.channel = Channel(f"{self.kind}:eth0", address, hugepages=False, **options)
        return self.channel

    def udp(self, port: int = 0) -> socket.socket:
        """A UDP socket of the kernel's."""
        with self.kernel.enter():
            bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.bind(("", port))
        bound.setblocking(False)
        self.sockets.append(bound)
        return bound

    def close(self) -> None:
        """Close the channel and the sockets."""
        self.channel.close(0)
        for bound in self.sockets:
            bound.close()

    def until(self, done: Callable[[list[Completion]], object], seconds: float = 10.0) -> None:
        """Turn until `done` says so."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if done(self.channel.turn(0.01) or []):
                return
        counters = {name: value for name, value in self.channel.counters().items() if value}
        raise AssertionError(f"it never came to this: {counters}")

    def received(self, handle: Handle) -> Completion:
        """The next datagram of a socket of ours."""
        told: list[Completion] = []

        def done(batch: list[Completion]) -> bool:
            told.extend(one for one in batch if one.kind is DATAGRAM and one.handle is handle)
            return bool(told)

        self.until(done)
        return told[0]

    def kernel_received(self, bound: socket.socket) -> tuple[bytes, Any]:
        """The next datagram of a socket of the kernel's."""
        got: list[tuple[bytes, Any]] = []

        def done(_: list[Completion]) -> bool:
            with contextlib.suppress(BlockingIOError):
                got.append(bound.recvfrom(65_535))
            return bool(got)

        self.until(done)
        return got[0]


KINDS = ["af_packet", "af_xdp"]


@pytest.fixture(params=KINDS)
def wired(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Wired]:
    wired = Wired(lab, kind=request.param)
    yield wired
    wired.close()


@pytest.mark.parametrize("size", [1473, 8000, 65_507])
def test_the_kernel_pings_with_fragments(wired: Wired, size: int) -> None:
    ping = wired.kernel.popen(
        ["ping", "-c", "3", "-i", "0.2", "-W", "3", "-s", str(size), OURS],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wired.until(lambda _: ping.poll() is not None, 20.0)
    text = ping.communicate()[0]
    assert ping.returncode == 0, text
    assert "3 received" in text, text
    assert wired.channel.counters()["datagrams_reassembled"] == 3


@pytest.mark.parametrize("size", [1473, LONG, 65_507])
def test_long_datagrams_pass_both_ways(wired: Wired, size: int) -> None:
    ours, theirs = wired.channel.datagram(53), wired.udp(4000)
    data = os.urandom(size)
    ours.send(data, (KERNEL, 4000))
    got, source = wired.kernel_received(theirs)
    assert got == data
    assert source == (OURS, 53)
    theirs.sendto(data[::-1], (OURS, 53))
    told = wired.received(ours)
    assert told.tobytes() == data[::-1]
    assert told.source == (KERNEL, 4000)


def test_the_kernel_is_told_of_fragments_that_never_came(wired: Wired) -> None:
    # A first fragment, written by hand: an IPv4 header without an end of the datagram.
    with wired.kernel.enter():
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 0, 77, 0x2000, 64, 17, 0,
        socket.inet_aton(KERNEL), socket.inet_aton(OURS),
    )  # fmt: skip
    raw.sendto(header + bytes(64), (OURS, 0))
    wired.until(lambda _: wired.channel.counters()["fragments_in"] == 1)
    raw.close()
    assert wired.channel.counters()["datagrams_reassembled"] == 0


def joined(host: Host, group: str) -> bool:
    """Whether a host's kernel is a member, as /proc/net/igmp tells."""
    word = "".join(f"{int(part):02X}" for part in reversed(group.split(".")))
    return word in host.run(["cat", "/proc/net/igmp"]).stdout


def test_groups_pass_both_ways(wired: Wired) -> None:
    ours, theirs = wired.channel.datagram(5000), wired.udp(5000)
    ours.join_group(GROUP)
    member = struct.pack("4s4s", socket.inet_aton(GROUP), socket.inet_aton(KERNEL))
    theirs.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    assert joined(wired.kernel, GROUP)
    ours.multicast_loop(False)
    for data in (b"from ours", os.urandom(LONG)):
        ours.send(data, (GROUP, 5000))
        got, source = wired.kernel_received(theirs)
        assert got == data
        assert source == (OURS, 5000)
    theirs.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
    theirs.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(KERNEL))
    for data in (b"from the kernel", os.urandom(LONG)):
        theirs.sendto(data, (GROUP, 5000))
        told = wired.received(ours)
        assert told.tobytes() == data
        assert told.source == (KERNEL, 5000)
    # What the kernel sends to a group that nobody here joined is dropped and counted.
    theirs.sendto(b"other", ("239.9.9.9", 5000))
    wired.until(lambda _: wired.channel.counters()["drop_multicast_not_joined"] > 0)


def has_bridge(host: Host) -> bool:
    made = host.run(["ip", "link", "add", "br0", "type", "bridge"], check=False)
    return made.returncode == 0 and shutil.which("bridge") is not None


def members(host: Host) -> str:
    """Groups that the kernel's bridge knows a member of, as its querier learned them."""
    return host.run(["bridge", "-d", "mdb", "show", "dev", "br0"]).stdout


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("protocol", "version"), [("igmp", 3), ("igmp", 2), ("mld", 2), ("mld", 1)]
)
def test_the_kernels_bridge_knows_our_groups(protocol: str, version: int, kind: str) -> None:
    if protocol == "mld":
        ours, bridge, group = "2001:db8::2/64", "2001:db8::1/64", "ff15::1234"
        chosen, source = "ff35::99", "2001:db8:9::1"
    else:
        ours, bridge, group = f"{OURS}/24", f"{KERNEL}/24", GROUP
        chosen, source = "232.1.1.1", "198.51.100.1"
    with Lab(ipv6=protocol == "mld") as lab:
        wired = Wired(lab, None, kind)
        if not has_bridge(wired.kernel):
            pytest.skip("no bridges here")
        run = wired.kernel.run
        snooping = "mcast_snooping 1 mcast_querier 1 mcast_startup_query_interval 100"
        timing = f"mcast_query_response_interval 100 mcast_{protocol}_version {version}"
        run(f"ip link set br0 type bridge {snooping} {timing}".split())
        run(["ip", "address", "flush", "dev", "eth0"])
        run(["ip", "link", "set", "eth0", "master", "br0"])
        run(["ip", "address", "add", bridge, "dev", "br0"])
        wired.open(ours)
        try:
            run(["ip", "link", "set", "br0", "up"])
            wired.until(lambda _: wired.channel.counters()["multicast_queries"] > 0, 20.0)
            member = wired.channel.datagram(5000)
            member.join_group(group)
            with_sources = (protocol, version) in {("igmp", 3), ("mld", 2)}
            if with_sources:
                member.join_group(chosen, source)
            wired.until(lambda _: f"grp {group}" in members(wired.kernel))
            if with_sources:
                wired.until(lambda _: f"grp {chosen} src {source}" in members(wired.kernel))
            member.leave_group(group)
            # The bridge asks whether anybody else listens, and forgets the group.
            wired.until(lambda _: f"grp {group}" not in members(wired.kernel), 20.0)
        finally:
            wired.channel.close(0)


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., Path]:
    """Starts dnsmasq on a host; gives the file of its leases."""
    if shutil.which("dnsmasq", path=os.environ["PATH"] + ":/usr/sbin") is None:
        pytest.skip("needs dnsmasq; apt-get install dnsmasq-base")

    def start(host: Host, *options: str) -> Path:
        leases, pid = tmp_path / "leases", tmp_path / "pid"
        quiet = [
            "--keep-in-foreground",
            "--no-resolv",
            "--no-hosts",
            "--port=0",
            "--conf-file=/dev/null",
        ]
        quiet += ["--user=root", "--interface=eth0", "--no-ping"]
        host.popen(
            ["dnsmasq", *quiet, f"--dhcp-leasefile={leases}", f"--pid-file={pid}", *options],
            env={"PATH": os.environ["PATH"] + ":/usr/sbin"},
            stderr=subprocess.DEVNULL,
        )
        return leases

    return start


@pytest.mark.parametrize("kind", KINDS)
def test_a_real_server_gives_an_address(lab: Lab, serve: Callable[..., Path], kind: str) -> None:
    wired = Wired(lab, None, kind)
    leases = serve(
        wired.kernel,
        "--dhcp-range=192.0.2.100,192.0.2.110,255.255.255.0,1h",
        f"--dhcp-option=option:router,{KERNEL}",
        "--dhcp-option=option:dns-server,192.0.2.53",
        "--dhcp-option=option:mtu,1400",
        "--dhcp-option=121,10.0.0.0/8,192.0.2.9,0.0.0.0/0,192.0.2.1",
        "--domain=example.org",
        "--dhcp-option=option:domain-search,lab.example.org,example.org,example.net",
    )
    channel = wired.open("dhcp", host_name="mill", dhcp_timeout=40.0)
    try:
        lease = channel.lease
        assert lease is not None
        address, _, prefix = lease["address"].partition("/")
        assert address.startswith("192.0.2.1")
        assert prefix == "24"
        assert lease["server"] == KERNEL
        assert lease["routes"] == [("10.0.0.0/8", "192.0.2.9"), ("0.0.0.0/0", KERNEL)]
        assert lease["name_servers"] == channel.name_servers == ["192.0.2.53"]
        domains = ["lab.example.org", "example.org", "example.net"]
        assert lease["search_domains"] == channel.search_domains == domains
        assert (lease["domain"], lease["mtu"]) == ("example.org", 1400)
        assert 3500 < lease["expires"] <= 3600
        assert 1700 < lease["renewal"] <= 1800
        assert f" {address} mill " in leases.read_text()
        # The address works.
        ping = wired.kernel.popen(
            ["ping", "-c", "1", "-W", "3", address], stdout=subprocess.PIPE, text=True
        )
        wired.until(lambda _: ping.poll() is not None)
        assert ping.communicate()[0]
        assert ping.returncode == 0
    finally:
        channel.close(0)
    assert channel.closed
    end = time.monotonic() + 5
    while address in leases.read_text() and time.monotonic() < end:
        time.sleep(0.05)
    assert address not in leases.read_text(), "the address was not given back"


@pytest.mark.parametrize("kind", KINDS)
def test_an_address_that_another_host_has_is_declined(
    lab: Lab, serve: Callable[..., Path], kind: str
) -> None:
    wired = Wired(lab, None, kind)
    # The server does not know that its own host has the first address as well.
    wired.kernel.run(["ip", "address", "add", "192.0.2.100/24", "dev", "eth0"])
    serve(wired.kernel, "--dhcp-range=192.0.2.100,192.0.2.101,255.255.255.0,1h")
    try:
        channel = wired.open("dhcp", dhcp_timeout=60.0)
    except OSError as error:
        raise AssertionError(str(error)) from error
    try:
        assert channel.lease is not None
        assert channel.lease["address"] == "192.0.2.101/24"
        assert channel.counters()["address_conflicts"] <= 1
    finally:
        channel.close(0)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_server_it_says_so(lab: Lab, kind: str) -> None:
    wired = Wired(lab, None, kind)
    with pytest.raises(TimeoutError, match=f"no DHCP server on {kind}:eth0"):
        wired.open("dhcp", dhcp_timeout=0.3)
