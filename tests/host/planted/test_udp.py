"""UDP: faults planted for real."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct

import pytest

from millrace.lab import Wire
from planted.clinic import Clinic
from planted.crafted import checksum, frame, ip_packet, send_frames
from planted.hands import drain, on, send_datagrams

pytestmark = pytest.mark.networks


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
