"""The way out: faults planted for real."""

from __future__ import annotations

import contextlib
import socket

import pytest

from millrace.lab import Host, Wire
from planted.clinic import Clinic
from planted.hands import on

pytestmark = pytest.mark.networks


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
