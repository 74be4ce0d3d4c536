"""Faults planted for real: the doctor names each, and mending it takes the finding away.

Where a write mends it, `tune` does it, and taking that back brings the finding back. Otherwise it
is mended by hand, as the finding advises. Nothing of the machine's own is changed.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from millrace.host import Observer, tune
from millrace.host.access import Access
from millrace.host.checks import CHECKS, Goal
from millrace.host.doctor import examine
from millrace.host.finding import Finding, Verdict
from millrace.lab import Host, Interface, Lab, Wire

pytestmark = pytest.mark.networks

LOUD = (Verdict.BAD, Verdict.WARN)
#: Only ends a hang.
PATIENCE = 60.0


class Clinic:
    """Looks at a host of the lab, mends what is found, and takes it back."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host = host
        self._folder = folder

    def look(
        self, check: str, act: Callable[[], object] = lambda: None, **options: Any
    ) -> list[Finding]:
        """What one check finds while something happens."""
        with self.host.enter(), Observer() as observer:
            before = observer.snapshot()
            act()
            time.sleep(0.01)  # the window must have a length
            after = observer.snapshot()
        found = list(examine([before, after], checks=[check], **options).findings)
        assert all("a defect of this check" not in one.evidence for one in found)
        return found

    def sick(
        self, check: str, act: Callable[[], object] = lambda: None, **options: Any
    ) -> list[Finding]:
        """As `look`, and it must find something."""
        found = [one for one in self.look(check, act, **options) if one.verdict in LOUD]
        assert found, f"{check} found nothing"
        assert all(one.why and (one.remedy or one.shell) for one in found)
        return found

    def well(self, check: str, act: Callable[[], object] = lambda: None, **options: Any) -> None:
        """As `look`, and it must find nothing."""
        loud = [one for one in self.look(check, act, **options) if one.verdict in LOUD]
        assert not loud, loud

    def mend(self, found: list[Finding]) -> None:
        """Let tune do what the findings say."""
        with self.host.enter(), Access() as access, tune.Journal(1, self._folder) as journal:
            with Observer() as observer:
                plan = tune.plan_of_findings(observer.snapshot(), found)
            assert plan.writes
            results = {step.result for step in tune.apply(plan, tune.Machine(access), journal)}
        assert results <= {tune.Result.WRITTEN, tune.Result.SAME}

    def undo(self) -> None:
        """Let tune take it back."""
        with self.host.enter(), Access() as access, tune.Journal(1, self._folder) as journal:
            results = {step.result for step in tune.undo(tune.Machine(access), journal)}
        assert results == {tune.Result.RESTORED}

    def cured_by_tune(
        self, check: str, act: Callable[[], object] = lambda: None, **options: Any
    ) -> None:
        """Sick, mended by tune, well, taken back, sick again."""
        self.mend(self.sick(check, act, **options))
        self.well(check, act, **options)
        self.undo()
        self.sick(check, act, **options)


@pytest.fixture
def wire(lab: Lab) -> Wire:
    """The patient is end `a`."""
    return lab.wire(lab.host("patient"), lab.host("peer"))


@pytest.fixture
def clinic(wire: Wire, tmp_path: Path) -> Clinic:
    return Clinic(wire.a.host, tmp_path)


@contextlib.contextmanager
def on(host: Host, kind: int = socket.SOCK_DGRAM, family: int = socket.AF_INET) -> Iterator[Any]:
    with host.enter():
        handle = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    with handle:
        yield handle


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def send_datagrams(wire: Wire, count: int, port: int, size: int = 1000) -> None:
    """From the peer to the patient."""
    with on(wire.b.host) as sender:
        for _ in range(count):
            sender.sendto(bytes(size), (wire.a.ip, port))


def frame(wire: Wire, payload: bytes, ethertype: int = 0x0800) -> bytes:
    """A frame from the peer to the patient."""
    macs = [bytes.fromhex(end.mac.replace(":", "")) for end in (wire.a, wire.b)]
    return macs[0] + macs[1] + struct.pack("!H", ethertype) + payload


def send_frames(end: Interface, frames: list[bytes]) -> None:
    with on(end.host, socket.SOCK_RAW, socket.AF_PACKET) as handle:
        handle.bind((end.name, 0))
        # What waits at the receiver counts here, and must not hold the sender back.
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)
        for one in frames:
            # A receiver whose backlog is full tells so across a veth (ENOBUFS).
            with contextlib.suppress(OSError):
                handle.send(one)


def checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip_packet(
    source: str, target: str, protocol: int, payload: bytes, fragment: int = 0, ttl: int = 64
) -> bytes:
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 7, fragment, ttl, protocol, 0)
    total = checksum(head + addresses)
    return head[:10] + struct.pack("!H", total) + addresses + payload


def syn(source: str, target: str, port: int, number: int) -> bytes:
    head = struct.pack("!HHIIBBHHH", 1024 + number % 60000, port, number, 0, 0x50, 2, 65535, 0, 0)
    pseudo = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    total = checksum(pseudo + struct.pack("!HH", 6, len(head)) + head)
    return ip_packet(source, target, 6, head[:16] + struct.pack("!H", total) + head[18:])


# UDP.


def test_datagrams_find_no_room(wire: Wire, clinic: Clinic) -> None:
    with on(wire.a.host) as receiver:
        receiver.bind((wire.a.ip, 5000))
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        (found,) = clinic.sick("udp-receive-buffer", lambda: send_datagrams(wire, 300, 5000))
        assert "net.core.rmem_default" in found.remedy
        # The machine's own settings are not the lab's to change; a quicker reader is a cure too.
        drain(receiver)
        clinic.well("udp-receive-buffer", lambda: send_datagrams(wire, 20, 5000))


def test_the_socket_that_drops_is_named(wire: Wire, clinic: Clinic) -> None:
    with on(wire.a.host) as receiver:
        receiver.bind((wire.a.ip, 5000))
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        (found,) = clinic.sick("socket-drops", lambda: send_datagrams(wire, 100, 5000))
        assert found.scope.name == f"udp {wire.a.ip}:5000"
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        clinic.well("socket-drops", lambda: send_datagrams(wire, 100, 5000))


def test_a_buffer_was_cut(wire: Wire, clinic: Clinic) -> None:
    most = int(wire.a.host.sysctl("net.core.rmem_max"))
    enough = 2 * most // 1000
    with on(wire.a.host) as receiver:
        receiver.bind((wire.a.ip, 5000))
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 30)
        (found,) = clinic.sick("socket-buffer-limit", lambda: send_datagrams(wire, enough, 5000))
        assert "net.core.rmem_max" in found.remedy
        drain(receiver)
        clinic.well("socket-buffer-limit", lambda: send_datagrams(wire, 20, 5000))


def test_nobody_listens_for_datagrams(wire: Wire, clinic: Clinic) -> None:
    clinic.sick("udp-no-port", lambda: send_datagrams(wire, 200, 5000))
    with on(wire.a.host) as receiver:
        receiver.bind((wire.a.ip, 5000))
        clinic.well("udp-no-port", lambda: send_datagrams(wire, 50, 5000))


def test_datagrams_do_not_leave(wire: Wire, clinic: Clinic) -> None:
    limit = ["tc", "qdisc", "add", "dev", "eth0", "root", "tbf"]
    wire.a.host.run([*limit, "rate", "8kbit", "burst", "2000", "limit", "2000"])

    def send() -> None:
        with on(wire.a.host) as sender:
            sender.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR of linux/in.h
            for _ in range(50):
                with contextlib.suppress(OSError):
                    sender.sendto(bytes(1000), (wire.b.ip, 9))

    clinic.sick("udp-send-buffer", send)
    wire.a.host.run(["tc", "qdisc", "del", "dev", "eth0", "root"])
    clinic.well("udp-send-buffer", send)


@pytest.mark.parametrize("right", [False, True])
def test_wrong_checksums(wire: Wire, clinic: Clinic, right: bool) -> None:
    head = struct.pack("!HHHH", 9, 5000, 16, 0)
    pseudo = ipaddress.ip_address(wire.b.ip).packed + ipaddress.ip_address(wire.a.ip).packed
    total = checksum(pseudo + struct.pack("!HH", 17, 16) + head + bytes(8))
    datagram = struct.pack("!HHHH", 9, 5000, 16, total if right else total ^ 0x55) + bytes(8)
    packet = frame(wire, ip_packet(wire.b.ip, wire.a.ip, 17, datagram))
    with on(wire.a.host) as receiver:
        receiver.bind((wire.a.ip, 5000))
        judge = clinic.well if right else clinic.sick
        judge("checksum-errors", lambda: send_frames(wire.b, [packet] * 20))


# Accepting.


@contextlib.contextmanager
def listener(end: Interface, backlog: int, port: int = 80) -> Iterator[socket.socket]:
    with on(end.host, socket.SOCK_STREAM) as handle:
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        handle.bind((end.ip, port))
        handle.listen(backlog)
        yield handle


@contextlib.contextmanager
def clients(wire: Wire, count: int, port: int = 80) -> Iterator[list[socket.socket]]:
    """Connections from the peer that are begun; not all of them will be accepted."""
    with contextlib.ExitStack() as stack:
        handles = []
        for _ in range(count):
            handle = stack.enter_context(on(wire.b.host, socket.SOCK_STREAM))
            handle.setblocking(False)
            with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                handle.connect((wire.a.ip, port))
            handles.append(handle)
        yield handles


def waiting(server: socket.socket) -> int:
    """Connections that a listener has not accepted yet: its tcpi_unacked."""
    info = server.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    unacked: int = struct.unpack_from("=I", info, 24)[0]
    return unacked


def test_the_accept_queue_overflows(wire: Wire, clinic: Clinic) -> None:
    wire.a.host.sysctl("net.core.somaxconn", 2)

    def crowd() -> None:
        with listener(wire.a, 4096), clients(wire, 20):
            time.sleep(0.05)

    # The finding must see the queue that was cut, so the listener stays until after the window.
    with listener(wire.a, 4096), contextlib.ExitStack() as stack:
        found = clinic.sick("accept-overflow", lambda: stack.enter_context(clients(wire, 20)))
    clinic.mend(found)
    clinic.well("accept-overflow", crowd)
    clinic.undo()
    clinic.sick("accept-overflow", crowd)


def test_connections_wait_to_be_accepted(wire: Wire, clinic: Clinic) -> None:
    with listener(wire.a, 20) as server, clients(wire, 15):
        until(lambda: waiting(server) == 15)
        (found,) = clinic.sick("accept-queue")
        assert "15 of 20 wait" in found.evidence
        accepted = [server.accept()[0] for _ in range(15)]
        clinic.well("accept-queue")
        for one in accepted:
            one.close()


def test_a_short_queue_is_told(wire: Wire, clinic: Clinic) -> None:
    wire.a.host.sysctl("net.core.somaxconn", 64)
    with listener(wire.a, 4096):
        (found,) = clinic.look("listen-backlog")
        assert (found.verdict, found.scope.kind) == (Verdict.INFO, "socket")
        clinic.mend([found])
    with listener(wire.a, 4096):
        (found,) = clinic.look("listen-backlog")
        assert found.verdict is Verdict.OK
    clinic.undo()


def flood(wire: Wire, count: int = 400) -> None:
    """SYNs from many addresses that are nobody's."""
    sources = (f"198.51.100.{1 + n % 250}" for n in range(count))
    packets = [frame(wire, syn(one, wire.a.ip, 80, n)) for n, one in enumerate(sources)]
    send_frames(wire.b, packets)


def test_a_flood_of_syns(wire: Wire, clinic: Clinic) -> None:
    wire.a.host.run(["ip", "route", "add", "198.51.100.0/24", "via", wire.b.ip])
    wire.a.host.sysctl("net.ipv4.tcp_syncookies", 1)
    with listener(wire.a, 16):
        (found,) = clinic.sick("syn-flood", lambda: flood(wire))
        assert found.verdict is Verdict.WARN
    with listener(wire.a, 16):
        clinic.well("syn-flood")


def test_a_flood_without_cookies(wire: Wire, clinic: Clinic) -> None:
    wire.a.host.run(["ip", "route", "add", "198.51.100.0/24", "via", wire.b.ip])
    wire.a.host.sysctl("net.ipv4.tcp_syncookies", 0)
    with listener(wire.a, 16):
        clinic.sick("syncookies-off")
        found = clinic.sick("syn-flood", lambda: flood(wire))
        assert found[0].verdict is Verdict.BAD
    clinic.mend(found)
    with listener(wire.a, 16):
        clinic.well("syncookies-off")
        (better,) = clinic.sick("syn-flood", lambda: flood(wire))
        assert better.verdict is Verdict.WARN
    clinic.undo()
    with listener(wire.a, 16):
        clinic.sick("syncookies-off")


def test_refused_connections(wire: Wire, clinic: Clinic) -> None:
    def knock() -> None:
        with clients(wire, 30):
            time.sleep(0.02)

    clinic.sick("tcp-refused", knock)
    with listener(wire.a, 100):
        clinic.well("tcp-refused", lambda: None)


# Settings.


@pytest.mark.parametrize(
    ("check", "key", "value"),
    [
        ("tcp-features", "net.ipv4.tcp_sack", "0"),
        ("tcp-features", "net.ipv4.tcp_window_scaling", "0"),
        ("abort-on-overflow", "net.ipv4.tcp_abort_on_overflow", "1"),
        ("local-ports", "net.ipv4.ip_local_port_range", "40000 40999"),
        ("tcp-buffers", "net.ipv4.tcp_rmem", "4096 16384 65536"),
        ("tcp-buffers", "net.ipv4.tcp_wmem", "4096 16384 65536"),
    ],
)
def test_a_setting(clinic: Clinic, check: str, key: str, value: str) -> None:
    clinic.well(check)
    clinic.host.sysctl(key, value)
    clinic.cured_by_tune(check)
    assert clinic.host.sysctl(key).split() == value.split()


def test_offloads_are_off(wire: Wire, clinic: Clinic) -> None:
    wire.a.set_offloads({"tso": False, "gso": False})
    clinic.cured_by_tune("tx-offloads")


@pytest.mark.parametrize(
    ("queues", "mask", "check"), [(1, "2", "rps-one-cpu"), (2, "3", "rps-redundant")]
)
def test_steering(lab: Lab, tmp_path: Path, queues: int, mask: str, check: str) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")
    wire = lab.wire(lab.host("patient"), lab.host("peer"), queues=queues)
    clinic = Clinic(wire.a.host, tmp_path)
    for queue in range(queues):
        path = f"/sys/class/net/eth0/queues/rx-{queue}/rps_cpus"
        wire.a.host.run(["sh", "-c", f"echo {mask} > {path}"])
    clinic.cured_by_tune(check)


def test_napi_threads_run_about(lab: Lab, tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")
    wire = lab.wire(lab.host("patient"), lab.host("peer"), offloads={"gro": True})
    clinic = Clinic(wire.a.host, tmp_path)
    wire.a.host.run(["sh", "-c", "echo 1 > /sys/class/net/eth0/threaded"])
    (found,) = clinic.sick("threaded-napi")
    # By hand, with the line that the finding gives.
    subprocess.run(["sh", "-ec", found.shell], check=True, stdout=subprocess.DEVNULL)
    clinic.well("threaded-napi")


# IP.


def test_strict_reverse_path(lab: Lab, tmp_path: Path) -> None:
    patient, left, right = lab.host("patient"), lab.host("left"), lab.host("right")
    first, second = lab.wire(patient, left), lab.wire(patient, right)
    clinic = Clinic(patient, tmp_path)
    for key in ("all", "eth0", "eth1"):
        patient.sysctl(f"net.ipv4.conf.{key}.rp_filter", 0)
    patient.sysctl("net.ipv4.conf.eth1.rp_filter", 1)

    def stray() -> None:
        # From the left network, by the right wire.
        mac = bytes.fromhex(second.a.mac.replace(":", ""))
        other = bytes.fromhex(second.b.mac.replace(":", ""))
        packet = ip_packet(first.b.ip, first.a.ip, 17, struct.pack("!HHHH", 9, 9, 8, 0))
        send_frames(second.b, [mac + other + b"\x08\x00" + packet] * 20)

    clinic.cured_by_tune("rp-filter-drops", stray)


def test_strict_filter_and_two_uplinks(lab: Lab, tmp_path: Path) -> None:
    patient = lab.host("patient")
    first, second = lab.wire(patient, lab.host("left")), lab.wire(patient, lab.host("right"))
    patient.run(["ip", "route", "add", "default", "via", first.b.ip])
    patient.run(["ip", "route", "add", "default", "via", second.b.ip, "metric", "100"])
    patient.sysctl("net.ipv4.conf.all.rp_filter", 0)
    for name in ("eth0", "eth1"):
        patient.sysctl(f"net.ipv4.conf.{name}.rp_filter", 1)
    Clinic(patient, tmp_path).cured_by_tune("rp-filter")


def test_two_interfaces_in_one_network(lab: Lab, tmp_path: Path) -> None:
    patient = lab.host("patient")
    lab.wire(patient, lab.host("left"), addresses=("192.0.2.1/24", None))
    lab.wire(patient, lab.host("right"), addresses=("192.0.2.7/24", None))
    Clinic(patient, tmp_path).cured_by_tune("arp-flux")


def test_an_address_that_others_have(tmp_path: Path) -> None:
    with Lab(ipv6=True) as lab:
        wire = lab.wire(lab.host("patient"), lab.host("peer"))
        clinic = Clinic(wire.a.host, tmp_path)
        wire.b.host.run(["ip", "addr", "add", "2001:db8::1/64", "dev", "eth0", "nodad"])
        wire.a.host.run(["ip", "addr", "add", "2001:db8::1/64", "dev", "eth0"])
        shown = ["ip", "-6", "addr", "show", "dev", "eth0"]
        until(lambda: "dadfailed" in wire.a.host.run(shown).stdout)
        (found,) = clinic.sick("duplicate-address")
        assert "2001:db8::1" in found.evidence
        wire.a.host.run(["ip", "addr", "del", "2001:db8::1/64", "dev", "eth0"])
        clinic.well("duplicate-address")


def test_nowhere_to_go(wire: Wire, clinic: Clinic) -> None:
    def send() -> None:
        with on(wire.a.host) as sender:
            for _ in range(20):
                with contextlib.suppress(OSError):
                    sender.sendto(b"x", ("203.0.113.9", 9))

    clinic.sick("no-route", send)
    wire.a.host.run(["ip", "route", "add", "default", "via", wire.b.ip])
    clinic.well("no-route", send)


def test_a_loop_of_routes(lab: Lab, tmp_path: Path) -> None:
    client, patient, other = lab.host("client"), lab.host("patient"), lab.host("other")
    first, second = lab.wire(client, patient), lab.wire(patient, other)
    clinic = Clinic(patient, tmp_path)
    client.run(["ip", "route", "add", "default", "via", first.b.ip])
    other.run(["ip", "route", "add", "192.0.2.0/24", "via", second.a.ip])
    for here, there in ((second.a, second.b), (second.b, second.a)):
        here.host.sysctl("net.ipv4.ip_forward", 1)
        here.host.run(["ip", "route", "add", "203.0.113.0/24", "via", there.ip])

    def send() -> None:
        with on(client) as sender:
            # Odd, so that it is used up at the patient.
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 63)
            for _ in range(30):
                sender.sendto(b"x", ("203.0.113.9", 9))

    clinic.sick("ip-header-errors", send)
    patient.run(["ip", "route", "replace", "blackhole", "203.0.113.0/24"])
    clinic.well("ip-header-errors", send)


def test_packets_for_others(lab: Lab, tmp_path: Path) -> None:
    client, patient, server = lab.host("client"), lab.host("patient"), lab.host("server")
    first, second = lab.wire(client, patient), lab.wire(patient, server)
    client.run(["ip", "route", "add", "default", "via", first.b.ip])
    server.run(["ip", "route", "add", "default", "via", second.a.ip])
    patient.sysctl("net.ipv4.ip_forward", 0)

    def send() -> None:
        with on(client) as sender:
            for _ in range(30):
                sender.sendto(b"x", (second.b.ip, 9))

    Clinic(patient, tmp_path).cured_by_tune("ip-wrong-address", send)


def test_fragments_find_no_memory(wire: Wire, clinic: Clinic) -> None:
    for key, value in (("ipfrag_low_thresh", 1), ("ipfrag_high_thresh", 1000)):
        wire.a.host.sysctl(f"net.ipv4.{key}", value)
    more = 0x2000  # IP_MF
    piece = struct.pack("!HHHH", 9, 5000, 3008, 0) + bytes(1000)

    def send() -> None:
        packets = []
        for n in range(20):
            packet = bytearray(ip_packet(wire.b.ip, wire.a.ip, 17, piece, more))
            packet[4:6] = struct.pack("!H", 100 + n)
            packet[10:12] = b"\0\0"
            packet[10:12] = struct.pack("!H", checksum(bytes(packet[:20])))
            packets.append(frame(wire, bytes(packet)))
        send_frames(wire.b, packets)

    clinic.cured_by_tune("reassembly", send)


def test_a_path_that_is_too_narrow(lab: Lab, tmp_path: Path) -> None:
    client, patient, server = lab.host("client"), lab.host("patient"), lab.host("server")
    first, second = lab.wire(client, patient), lab.wire(patient, server, mtu=1400)
    client.run(["ip", "route", "add", "default", "via", first.b.ip])
    patient.sysctl("net.ipv4.ip_forward", 1)
    clinic = Clinic(patient, tmp_path)

    def send() -> None:
        with on(client) as sender:
            sender.setsockopt(socket.IPPROTO_IP, 10, 3)  # IP_MTU_DISCOVER, IP_PMTUDISC_PROBE
            for _ in range(20):
                sender.sendto(bytes(1450), (second.b.ip, 9))

    clinic.sick("pmtu-failures", send)
    for end in (second.a, second.b):
        end.host.run(["ip", "link", "set", "eth1" if end is second.a else "eth0", "mtu", "1500"])
    clinic.well("pmtu-failures", send)


def test_a_bridge_of_different_mtus(lab: Lab, tmp_path: Path) -> None:
    patient = lab.host("patient")
    lab.wire(patient, lab.host("left"), addresses=(None, None))
    lab.wire(patient, lab.host("right"), addresses=(None, None), mtu=9000)
    patient.run(["ip", "link", "add", "br0", "type", "bridge"])
    for name in ("eth0", "eth1"):
        patient.run(["ip", "link", "set", name, "master", "br0"])
    patient.run(["ip", "link", "set", "br0", "up"])
    Clinic(patient, tmp_path).cured_by_tune("mtu-mismatch")


def test_no_carrier(wire: Wire, clinic: Clinic) -> None:
    clinic.well("link-down")
    wire.b.set_down()
    clinic.sick("link-down")
    clinic.sick("link-down", wire.b.set_up)  # it came back within the window
    clinic.well("link-down")


def test_a_dead_gateway(wire: Wire, clinic: Clinic) -> None:
    gateway = wire.address().partition("/")[0]
    host = wire.a.host
    host.run(["ip", "route", "add", "default", "via", gateway])
    host.sysctl("net.ipv4.neigh.eth0.retrans_time_ms", 10)
    host.run(["ping", "-c", "1", "-W", "1", "203.0.113.9"], check=False)
    until(lambda: "FAILED" in host.run(["ip", "neigh", "show", gateway]).stdout)
    (found,) = clinic.sick("neighbour-failed")
    assert gateway in found.evidence
    host.run(["ip", "route", "replace", "default", "via", wire.b.ip])
    clinic.well("neighbour-failed")


def test_frames_that_nobody_handles(wire: Wire, clinic: Clinic) -> None:
    strange = frame(wire, bytes(60), ethertype=0x88B5)  # IEEE 802: for local experiments
    clinic.sick("stack-drops", lambda: send_frames(wire.b, [strange] * 200))
    with on(wire.a.host, socket.SOCK_RAW, socket.AF_PACKET) as handler:
        handler.bind((wire.a.name, 0x88B5))
        clinic.well("stack-drops", lambda: send_frames(wire.b, [strange] * 200))


# TCP at work.


@contextlib.contextmanager
def connection(wire: Wire, port: int = 80) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The patient's end and the peer's."""
    with listener(wire.a, 10, port) as server, on(wire.b.host, socket.SOCK_STREAM) as client:
        client.settimeout(PATIENCE)
        client.connect((wire.a.ip, port))
        accepted, _ = server.accept()
        accepted.settimeout(PATIENCE)
        with accepted:
            yield accepted, client


def fill(handle: socket.socket) -> None:
    """Send until nothing goes any more."""
    handle.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            handle.send(bytes(1 << 16))


def drain(handle: socket.socket) -> None:
    """Read what there is."""
    handle.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while handle.recv(1 << 20):
            pass


def test_nobody_reads(wire: Wire, clinic: Clinic) -> None:
    with connection(wire) as (here, there):
        there.sendall(bytes(60_000))
        until(lambda: len(here.recv(60_000, socket.MSG_PEEK)) == 60_000)
        (found,) = clinic.sick("receive-queue-standing")
        assert "60,000 bytes unread" in found.evidence
        drain(here)
        clinic.well("receive-queue-standing")


def test_windows_close(wire: Wire, clinic: Clinic) -> None:
    with connection(wire) as (here, there):

        def closed() -> int:
            with Observer() as observer:
                counters = observer.snapshot(["counters"]).counters
            return counters["TcpExtTCPToZeroWindowAdv"]

        def stuff() -> None:
            before = closed()

            def more() -> bool:
                fill(there)
                return closed() > before

            until(more)

        clinic.sick("zero-window", stuff)
        drain(here)
        clinic.well("zero-window")


def test_memory_for_small_segments_is_short(wire: Wire, clinic: Clinic) -> None:
    def crumbs() -> None:
        with connection(wire) as (here, there):
            here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
            there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            there.setblocking(False)
            for _ in range(3000):
                try:
                    there.send(b"x")
                except BlockingIOError:
                    break

    clinic.sick("tcp-memory-drops", crumbs)
    # By hand: let the kernel size the buffer.
    with connection(wire) as (here, there):
        clinic.well("tcp-memory-drops", lambda: (there.sendall(b"x" * 3000), drain(here)))


def test_connections_that_are_never_closed(wire: Wire, clinic: Clinic) -> None:
    with listener(wire.a, 20) as server, clients(wire, 12) as handles:
        accepted = [server.accept()[0] for _ in range(12)]
        for one in handles:
            one.close()
        until(lambda: all(one.recv(1) == b"" for one in accepted))
        (found,) = clinic.sick("close-wait")
        assert "12 connections" in found.evidence
        for one in accepted:
            one.close()
        clinic.well("close-wait")


def test_time_wait_does_not_fit(wire: Wire, clinic: Clinic) -> None:
    wire.a.host.sysctl("net.ipv4.tcp_max_tw_buckets", 1)

    def close_first() -> None:
        with listener(wire.a, 20) as server:
            for _ in range(10):
                with on(wire.b.host, socket.SOCK_STREAM) as client:
                    client.connect((wire.a.ip, 80))
                    accepted, _ = server.accept()
                    accepted.close()
                    client.settimeout(PATIENCE)
                    client.recv(1)

    clinic.cured_by_tune("time-wait", close_first)


def test_nobody_answers(wire: Wire, clinic: Clinic) -> None:
    silent = wire.address().partition("/")[0]
    wire.a.host.run(["ip", "neigh", "add", silent, "lladdr", "02:00:00:00:00:99", "dev", "eth0"])
    wire.a.host.sysctl("net.ipv4.tcp_syn_linear_timeouts", 4)

    def again() -> int:
        with wire.a.host.enter(), Observer() as observer:
            return observer.snapshot(["counters"]).counters["TcpExtTCPSynRetrans"]

    with contextlib.ExitStack() as stack:

        def knock() -> None:
            for _ in range(3):
                handle = stack.enter_context(on(wire.a.host, socket.SOCK_STREAM))
                handle.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    handle.connect((silent, 443))
            until(lambda: again() >= 3)

        (found,) = clinic.sick("syn-retransmissions", knock)
        assert f"{silent}:443" in found.evidence
    clinic.well("syn-retransmissions")


def test_the_peer_does_not_read(wire: Wire, clinic: Clinic) -> None:
    with connection(wire) as (here, there):
        there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)

        def stuff() -> None:
            fill(here)
            time.sleep(0.3)

        (found,) = clinic.look("tcp-limited", stuff)
        assert found.verdict is Verdict.INFO
        assert "the peer's window was full" in found.evidence
        drain(there)
        here.setblocking(True)


def test_a_lossy_path(lab: Lab, tmp_path: Path) -> None:
    pytest.importorskip("millrace._native")
    wire = lab.wire(lab.host("patient"), lab.host("peer"), loss="5%", seed=1)
    clinic = Clinic(wire.a.host, tmp_path)

    def transfer() -> None:
        with connection(wire) as (here, there):
            for _ in range(200):
                here.sendall(bytes(2000))
                there.recv(1 << 20)
            here.shutdown(socket.SHUT_WR)
            while there.recv(1 << 20):
                pass

    clinic.sick("retransmissions", transfer)
    wire.impair(loss=0)
    clinic.well("retransmissions", transfer)


# The way out.


def tbf(host: Host, limit: int) -> None:
    shape = ["rate", "80kbit", "burst", "2000", "limit", str(limit)]
    host.run(["tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", *shape])


def test_a_rate_limit_drops(wire: Wire, clinic: Clinic) -> None:
    tbf(wire.a.host, 3000)

    def send() -> None:
        with on(wire.a.host) as sender:
            for _ in range(100):
                with contextlib.suppress(OSError):
                    sender.sendto(bytes(1000), (wire.b.ip, 9))

    (found,) = clinic.sick("qdisc-drops", send)
    assert "tbf" in found.evidence
    wire.a.host.run(["tc", "qdisc", "del", "dev", "eth0", "root"])
    clinic.well("qdisc-drops", send)


def test_a_queue_stands(wire: Wire, clinic: Clinic) -> None:
    tbf(wire.a.host, 1_000_000)
    with on(wire.a.host) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        for _ in range(300):
            sender.sendto(bytes(1000), (wire.b.ip, 9))
        (found,) = clinic.sick("qdisc-backlog")
        assert "packets stand in tbf" in found.evidence
        wire.a.host.run(["tc", "qdisc", "del", "dev", "eth0", "root"])
        clinic.well("qdisc-backlog")


# Captures, files, CPUs.


def test_a_capture_loses_frames(wire: Wire, clinic: Clinic) -> None:
    with on(wire.a.host, socket.SOCK_RAW, socket.AF_PACKET) as capture:
        capture.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
        capture.bind((wire.a.name, 3))
        (found,) = clinic.sick("packet-sockets", lambda: send_datagrams(wire, 100, 5000))
        assert "frames dropped" in found.evidence
    with on(wire.a.host, socket.SOCK_RAW, socket.AF_PACKET) as capture:
        capture.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        capture.bind((wire.a.name, 3))
        clinic.well("packet-sockets", lambda: send_datagrams(wire, 100, 5000))


def test_somebody_listens_to_everything(wire: Wire, clinic: Clinic) -> None:
    wire.a.host.run(["ip", "link", "set", "eth0", "promisc", "on"])
    (found,) = clinic.look("promiscuous")
    assert found.verdict is Verdict.INFO
    wire.a.host.run(found.shell.split())
    (found,) = clinic.look("promiscuous")
    assert found.verdict is Verdict.OK


HOARD = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 80))
files = [open("/dev/null") for _ in range(60)]
print("ready", flush=True)
sys.stdin.read()
"""


def test_files_run_out(wire: Wire, clinic: Clinic) -> None:
    host = wire.a.host
    command = ["sh", "-c", 'ulimit -S -n 70; exec "$0" -c "$1"', sys.executable, HOARD]
    program = host.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert program.stdout.readline() == "ready\n"
    (found,) = clinic.sick("open-files")
    assert f"[{program.pid}]" in found.evidence
    _, hard = resource.prlimit(program.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (min(1000, hard), hard))
    clinic.well("open-files")
    program.send_signal(signal.SIGKILL)
    program.communicate()


def attach_slow_filter(capture: socket.socket) -> None:
    """A filter that divides four thousand times and takes nothing (linux/filter.h)."""
    divide = struct.pack("=HBBI", 0x34, 0, 0, 3)  # BPF_ALU | BPF_DIV | BPF_K
    begin, end = struct.pack("=HBBI", 0x80, 0, 0, 0), struct.pack("=HBBI", 0x06, 0, 0, 0)
    program = ctypes.create_string_buffer(begin + divide * 4000 + end)
    pointer = struct.pack("=H6xQ", 4002, ctypes.addressof(program))
    capture.setsockopt(socket.SOL_SOCKET, 26, pointer)  # SO_ATTACH_FILTER


def test_the_backlog_of_a_cpu_overflows(wire: Wire, clinic: Clinic) -> None:
    """Its remedy is the whole machine's, so it is only looked for here."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("needs two CPUs")
    if int(Path("/proc/sys/net/core/netdev_max_backlog").read_text()) > 5000:
        pytest.skip("a sender's buffer fills no backlog of over 5000 packets")
    mask = f"{1 << cpus[1]:x}"
    wire.a.host.run(["sh", "-c", f"echo {mask} > /sys/class/net/eth0/queues/rx-0/rps_cpus"])
    with contextlib.ExitStack() as stack:
        # Captures with slow filters make each packet slow to receive, so the backlog fills.
        for _ in range(3):
            capture = stack.enter_context(on(wire.a.host, socket.SOCK_RAW, socket.AF_PACKET))
            attach_slow_filter(capture)
            capture.bind((wire.a.name, 3))
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {cpus[0]})
        try:
            flood = [frame(wire, ip_packet(wire.b.ip, wire.a.ip, 17, bytes(20)))] * 20_000
            found = clinic.look("softnet-drops", lambda: send_frames(wire.b, flood), machine=True)
        finally:
            os.sched_setaffinity(0, before)
    assert found[0].verdict is Verdict.BAD
    assert "netdev_max_backlog" in found[0].remedy


# Health.


@pytest.mark.parametrize("queues", [1, 2])
def test_a_healthy_host(lab: Lab, tmp_path: Path, queues: int) -> None:
    wire = lab.wire(lab.host("patient"), lab.host("peer"), queues=queues)
    with connection(wire) as (here, there), wire.a.host.enter(), Observer() as observer:
        before = observer.snapshot()
        for _ in range(50):
            there.sendall(b"x" * 1000)
            here.sendall(here.recv(65_536))
            there.recv(65_536)
        after = observer.snapshot()
    found = examine([before, after]).findings
    assert {one.check for one in found} == set(CHECKS)
    assert [(one.check, one.evidence) for one in found if one.verdict in LOUD] == []
    assert [one.check for one in found if "defect" in one.evidence] == []
    for goal in (Goal.THROUGHPUT, Goal.OVERLOAD):
        assert not examine([before, after], goal=goal).is_bad
