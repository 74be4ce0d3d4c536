"""TCP at work: faults planted for real."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

import pytest

from millrace.host import Observer
from millrace.host.finding import Verdict
from millrace.lab import Lab, Wire
from planted.clinic import Clinic
from planted.hands import PATIENCE, clients, connection, drain, fill, listener, on, until

pytestmark = pytest.mark.networks


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
