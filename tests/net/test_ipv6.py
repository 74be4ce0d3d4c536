"""Channels that speak IPv6: with each other on a memory wire, and with the kernel on a veth."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from millrace.lab import Host, Lab
from millrace.net import (
    ACCEPTED,
    CONNECTED,
    DATAGRAM,
    FINISHED,
    READ,
    Channel,
    Completion,
    Handle,
)

OURS, KERNEL = "2001:db8::2", "2001:db8::1"
OURS4, KERNEL4 = "192.0.2.2", "192.0.2.1"
PREFIX = "2001:db8:77::"


def test_addresses_of_both_families_are_served_at_one_port(wire_name: str) -> None:
    options: dict[str, Any] = {"frames": 1024, "hugepages": False, "dad_transmits": 0}
    with (
        Channel(wire_name, ["192.0.2.1/24", "2001:db8::1/64"], **options) as client,
        Channel(wire_name, ["192.0.2.2/24", "2001:db8::2/64"], **options) as server,
    ):
        listener = server.listen(80)
        assert listener.local == ("::", 80)
        reached = {}
        for host in (OURS4, OURS):
            ours = client.connect((host, 80))
            told: dict[Any, Completion] = {}
            while not {ACCEPTED, CONNECTED} <= told.keys():
                for done in (*(client.turn(0.001) or []), *(server.turn(0.001) or [])):
                    told[done.kind] = done
            reached[host] = told[ACCEPTED].handle.remote[0]
            assert ours.remote == (host, 80)
        assert reached == {OURS4: "192.0.2.1", OURS: "2001:db8::1"}


def test_a_port_may_be_one_familys(wire_name: str) -> None:
    options: dict[str, Any] = {"frames": 1024, "hugepages": False}
    with Channel(wire_name, ["192.0.2.1/24", "2001:db8::1/64"], **options) as channel:
        channel.listen(80, "0.0.0.0")
        channel.listen(80, "::", v6_only=True)
        with pytest.raises(OSError, match="taken"):
            channel.listen(80)


def test_addresses_and_routes_come_and_go(wire_name: str) -> None:
    options: dict[str, Any] = {"frames": 1024, "hugepages": False, "dad_transmits": 0}
    gateways = ["192.0.2.254", "fe80::1"]
    with Channel(wire_name, "192.0.2.1/24", gateway=gateways[0], **options) as channel:
        assert channel.addresses == [("192.0.2.1/24", "preferred")]
        channel.add_address("2001:db8::5/64")
        texts = [address for address, state in channel.addresses if state == "preferred"]
        assert "2001:db8::5/64" in texts
        assert any(ipaddress.ip_interface(text).ip.is_link_local for text in texts)
        channel.add_route("2001:db8:9::/48", gateways[1])
        assert ("2001:db8:9::/48", "fe80::1") in channel.routes
        assert ("0.0.0.0/0", "192.0.2.254") in channel.routes
        channel.remove_route("2001:db8:9::/48", gateways[1])
        with pytest.raises(FileNotFoundError, match=r"9::/48 by fe80::1 was"):
            channel.remove_route("2001:db8:9::/48", gateways[1])
        with pytest.raises(FileNotFoundError, match=r"0\.0\.0\.0/0 on the link was"):
            channel.remove_route("0.0.0.0/0")
        with pytest.raises(FileExistsError):
            channel.add_address("2001:db8::5/64")
        channel.remove_address("2001:db8::5")
        with pytest.raises(OSError, match="not an address of this stack"):
            channel.remove_address("2001:db8::5")
    with Channel(wire_name, ["192.0.2.1/24", "2001:db8::5/64"], gateway=gateways) as channel:
        assert {("0.0.0.0/0", gateways[0]), ("::/0", gateways[1])} <= set(channel.routes)


def test_without_a_router_there_is_no_address(wire_name: str) -> None:
    with pytest.raises(TimeoutError, match="no IPv6 router"):
        Channel(wire_name, "slaac", hugepages=False, frames=1024, slaac_timeout=0.5)


class Wired:
    """A channel on one end of a veth, and the kernel of a host at the other end."""

    def __init__(self, lab: Lab, kind: str) -> None:
        self.kind = kind
        self.host, self.kernel = lab.host("ours"), lab.host("kernel")
        lab.wire(self.host, self.kernel, addresses=(None, f"{KERNEL}/64"))
        self.kernel.run(["ip", "address", "add", f"{KERNEL4}/24", "dev", "eth0"])
        # The wire's end here is ours alone.
        self.host.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
        self.sockets: list[socket.socket] = []
        self.channel: Channel
        end = time.monotonic() + 5.0
        while "tentative" in self.kernel.run(["ip", "-6", "address"]).stdout:
            assert time.monotonic() < end, "the kernel's address stays tentative"
            time.sleep(0.05)

    def open(self, address: str | list[str], **options: Any) -> Channel:
        """Open the channel."""
        with self.host.enter():
            self.channel = Channel(f"{self.kind}:eth0", address, hugepages=False, **options)
        return self.channel

    def socket(self, kind: int, port: int = 0) -> socket.socket:
        """A socket of the kernel's."""
        with self.kernel.enter():
            made = socket.socket(socket.AF_INET6, kind)
        if port:
            made.bind(("::", port))
        made.setblocking(False)
        self.sockets.append(made)
        return made

    def close(self) -> None:
        """Close the channel and the sockets."""
        if hasattr(self, "channel"):
            self.channel.close(0)
        for made in self.sockets:
            made.close()

    def until(self, done: Callable[[list[Completion]], object], seconds: float = 15.0) -> None:
        """Turn until `done` says so."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if done(self.channel.turn(0.01) or []):
                return
        counters = {name: value for name, value in self.channel.counters().items() if value}
        raise AssertionError(f"it never came to this: {counters}")

    def ready(self) -> None:
        """Until no address is looked for on the link any more."""
        self.until(lambda _: all(state == "preferred" for _, state in self.channel.addresses))


@pytest.fixture(params=["af_packet", "af_xdp"])
def wired(request: pytest.FixtureRequest) -> Iterator[Wired]:
    with Lab(ipv6=True) as lab:
        wired = Wired(lab, request.param)
        yield wired
        wired.close()


networks = pytest.mark.networks


@networks
def test_the_kernel_pings_us(wired: Wired) -> None:
    wired.open(f"{OURS}/64")
    wired.ready()
    link_local = next(
        str(ipaddress.ip_interface(text).ip)
        for text, _ in wired.channel.addresses
        if text.startswith("fe80")
    )
    for target in (OURS, f"{link_local}%eth0", "ff02::1%eth0"):
        ping = wired.kernel.popen(
            ["ping", "-6", "-c", "3", "-i", "0.2", "-W", "3", "-s", "1200", target],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        wired.until(lambda _, ping=ping: ping.poll() is not None)  # type: ignore[misc]
        text = ping.communicate()[0]
        assert ping.returncode == 0, text
        if "ff02" in target:
            assert link_local in text, text
    counters = wired.channel.counters()
    assert counters["echo_replies"] == 9
    assert counters["neighbour_advertisements_sent"] > 0


@networks
def test_the_kernel_fetches_from_us(wired: Wired) -> None:
    wired.open([f"{OURS}/64", f"{OURS4}/24"])
    wired.channel.listen(80)
    body = os.urandom(500_000)
    fetches = []
    for host in (f"[{OURS}]", OURS4):
        fetch = wired.kernel.popen(
            ["curl", "-s", "-S", "--max-time", "15", f"http://{host}/"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        got: list[bytes] = []

        def turn(
            batch: list[Completion],
            fetch: subprocess.Popen[Any] = fetch,
            got: list[bytes] = got,
        ) -> bool:
            for done in batch:
                if done.kind is READ:
                    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
                    done.handle.write(head + body)
                elif done.kind is FINISHED:
                    done.handle.close()
            assert fetch.stdout is not None
            os.set_blocking(fetch.stdout.fileno(), False)
            while part := fetch.stdout.read(1 << 16):
                got.append(part)
            return fetch.poll() is not None

        wired.until(turn)
        rest, complaint = fetch.communicate()
        fetches.append((b"".join(got) + (rest or b""), complaint))
    assert [(text == body, complaint) for text, complaint in fetches] == [(True, b"")] * 2


@networks
def test_we_connect_to_the_kernel(wired: Wired) -> None:
    wired.open(f"{OURS}/64")
    listening = wired.socket(socket.SOCK_STREAM, 5000)
    listening.listen()
    # Before our address is found to be ours alone: the connection waits for that.
    handle = wired.channel.connect((KERNEL, 5000))
    data = os.urandom(300_000)
    handle.write(data)
    handle.shutdown()
    taken: list[socket.socket] = []
    got = bytearray()

    def done(_: list[Completion]) -> bool:
        with contextlib.suppress(BlockingIOError):
            if not taken:
                accepted, peer = listening.accept()
                assert peer[0] == OURS
                accepted.setblocking(False)
                taken.append(accepted)
                wired.sockets.append(accepted)
            while part := taken[0].recv(1 << 16):
                got.extend(part)
            return True
        return False

    wired.until(done)
    assert got == data


@networks
def test_datagrams_pass_both_ways_and_closed_ports_are_told(wired: Wired) -> None:
    wired.open(f"{OURS}/64")
    wired.ready()
    ours, theirs = wired.channel.datagram(53), wired.socket(socket.SOCK_DGRAM, 4000)
    ours.send(b"question", (KERNEL, 4000))
    got: list[Any] = []

    def arrived(_: list[Completion]) -> bool:
        with contextlib.suppress(BlockingIOError):
            got.append(theirs.recvfrom(2000))
        return bool(got)

    wired.until(arrived)
    assert (got[0][0], got[0][1][:2]) == (b"question", (OURS, 53))
    theirs.sendto(b"answer", (OURS, 53))
    told: list[Completion] = []

    def answered(batch: list[Completion]) -> bool:
        told.extend(done for done in batch if done.kind is DATAGRAM)
        return bool(told)

    wired.until(answered)
    assert (told[0].tobytes(), told[0].source) == (b"answer", (KERNEL, 4000))
    refused = wired.socket(socket.SOCK_DGRAM)
    refused.connect((OURS, 54))
    refused.send(b"anybody?")
    errors: list[OSError] = []

    def complained(_: list[Completion]) -> bool:
        try:
            refused.recv(100)
        except BlockingIOError:
            return False
        except ConnectionRefusedError as error:
            errors.append(error)
        return True

    wired.until(complained)
    assert errors


@networks
def test_an_address_that_the_kernel_has_is_not_used(wired: Wired) -> None:
    wired.open(f"{KERNEL}/64")
    wired.until(lambda _: (f"{KERNEL}/64", "duplicate") in wired.channel.addresses)
    assert wired.channel.counters()["duplicate_addresses"] == 1


@networks
def test_the_kernel_sees_that_we_have_its_address(wired: Wired) -> None:
    wired.open(f"{OURS}/64")
    wired.ready()
    add = ["ip", "-6", "address", "add", f"{OURS}/64", "dev", "eth0"]
    wired.kernel.run(add)

    def failed(_: list[Completion]) -> bool:
        return "dadfailed" in wired.kernel.run(["ip", "-6", "address"]).stdout

    wired.until(failed)


def advertise(kernel: Host, lifetime: int = 1800) -> None:
    """One router advertisement of the kernel's host, by hand: a prefix, an MTU, names."""
    index = int(kernel.run(["cat", "/sys/class/net/eth0/ifindex"]).stdout)
    mac = bytes.fromhex(
        kernel.run(["cat", "/sys/class/net/eth0/address"]).stdout.strip().replace(":", "")
    )
    message = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, lifetime, 0, 0)
    message += bytes([1, 1]) + mac
    message += bytes([5, 1, 0, 0]) + struct.pack("!I", 1400)
    message += bytes([3, 4, 64, 0xC0]) + struct.pack("!III", 7200, 3600, 0)
    message += ipaddress.IPv6Address(PREFIX).packed
    message += bytes([25, 3, 0, 0]) + struct.pack("!I", 600)
    message += ipaddress.IPv6Address(f"{PREFIX}53").packed
    message += bytes([31, 3, 0, 0]) + struct.pack("!I", 600) + b"\x03lab\x07example\0\0\0\0"
    with kernel.enter():
        raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    raw.sendto(message, ("ff02::1", 0, 0, index))
    raw.close()


@networks
def test_a_router_gives_us_addresses_and_the_way_out(wired: Wired) -> None:
    kernel = wired.kernel
    kernel.run(["ip", "-6", "address", "add", f"{PREFIX}1/64", "dev", "eth0", "nodad"])
    # An address behind the router.
    kernel.run(["ip", "-6", "address", "add", "2001:db8:ffff::9/128", "dev", "lo"])
    # The channel waits for the advertisement, so another thread must send it.
    stop = threading.Event()

    def router() -> None:
        while not stop.wait(0.3):
            advertise(kernel)

    thread = threading.Thread(target=router)
    thread.start()
    try:
        channel = wired.open("slaac", slaac_timeout=15.0)
    finally:
        stop.set()
        thread.join()
    made = [text for text, state in channel.addresses if text.startswith("2001:db8:77:")]
    assert len(made) == 2, channel.addresses
    assert (f"{PREFIX}/64", None) in channel.routes
    assert channel.name_servers == [f"{PREFIX}53"]
    assert channel.search_domains == ["lab.example"]
    assert any(network == "::/0" and via for network, via in channel.routes)
    listening = wired.socket(socket.SOCK_STREAM, 5000)
    listening.listen()
    handle: Handle = channel.connect(("2001:db8:ffff::9", 5000))
    told: list[Any] = []

    def connected(batch: list[Completion]) -> bool:
        told.extend(done for done in batch if done.handle is handle)
        return bool(told)

    wired.until(connected)
    assert told[0].kind is CONNECTED
    peers: list[str] = []

    def taken(_: list[Completion]) -> bool:
        with contextlib.suppress(BlockingIOError):
            accepted, peer = listening.accept()
            accepted.close()
            peers.append(peer[0])
        return bool(peers)

    wired.until(taken)
    assert ipaddress.ip_address(peers[0]) in ipaddress.ip_network(f"{PREFIX}/64")
