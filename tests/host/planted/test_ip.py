"""IP: faults planted for real."""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path

import pytest

from millrace.lab import Lab, Wire
from planted.clinic import Clinic
from planted.crafted import checksum, frame, ip_packet, send_frames
from planted.hands import on, until

pytestmark = pytest.mark.networks


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
