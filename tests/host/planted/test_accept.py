"""Accepting: faults planted for real."""

from __future__ import annotations

import contextlib
import socket
import struct
import time

import pytest

from millrace.host.finding import Verdict
from millrace.lab import Wire
from planted.clinic import Clinic
from planted.crafted import frame, send_frames, syn
from planted.hands import clients, listener, until

pytestmark = pytest.mark.networks


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
