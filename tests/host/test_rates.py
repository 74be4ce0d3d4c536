"""Two snapshots subtract to what happened in between."""

from __future__ import annotations

import dataclasses
import socket
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.host import NotAvailable, Observer, Snapshot, Unavailable
from millrace.host.cputime import CpuTime
from millrace.host.rates import difference, differences
from millrace.host.snapshot import Origin
from millrace.host.softnet import SoftnetCpu
from millrace.lab import Lab

ORIGIN = Origin(
    time=1e9,
    clock=100.0,
    seconds=0.1,
    host="h",
    kernel="6.18",
    machine="x86_64",
    uid=0,
    namespace=1,
    initial_namespace=True,
    boot="b",
    millrace="0",
)
LATER = dataclasses.replace(ORIGIN, clock=110.0)


def pair(before: dict[str, Any], after: dict[str, Any]) -> tuple[Snapshot, Snapshot]:
    return Snapshot(ORIGIN, **before), Snapshot(LATER, **after)


@given(st.integers(0, 2**64), st.integers(0, 2**31 - 1))
def test_a_counter_goes_on(before: int, more: int) -> None:
    assert difference(before, before + more) == more


@given(st.integers(2**31 + 1, 2**32 - 1), st.integers(1, 2**31 - 1))
def test_a_counter_wraps_at_32_bits(before: int, more: int) -> None:
    after = (before + more) % 2**32
    if after < before and before - after > 2**31:
        assert difference(before, after) == more


def test_a_counter_that_was_begun_anew() -> None:
    assert difference(1000, 7) == 7
    assert difference(1 << 40, 7) == 7
    assert differences({"a": 1}, {"a": 3, "new": 5}) == {"a": 2}


def test_softnet_and_shares() -> None:
    before, after = pair(
        {
            "softnet": (SoftnetCpu(0, 100, 0, 0, 0, 0, 9), SoftnetCpu(1, 1, 1, 1, 1, 1, 1)),
            "cpu_times": {0: CpuTime(1, 0, 1, 8, 0, 0, 0, 0)},
        },
        {
            "softnet": (SoftnetCpu(0, 350, 4, 2, 1, 0, 7),),
            "cpu_times": {0: CpuTime(2, 0, 1, 10, 0, 0, 1, 0)},
        },
    )
    rates = after - before
    assert rates.seconds == 10
    assert rates.per_second(25) == 2.5
    assert rates.softnet == {0: SoftnetCpu(0, 250, 4, 2, 1, 0, 7)}
    assert rates.cpu_shares[0].softirq == 0.25
    assert rates.cpu_shares[0].idle == 0.5


@pytest.mark.parametrize(
    ("before", "after", "busy"),
    [
        # A tick of iowait was taken back: the shares are still shares.
        ((10, 0, 5, 100, 7, 0, 0, 0), (10, 0, 5, 109, 6, 0, 0, 0), 0.0),
        # Hundredths that no float is: wholly idle is not a little less than not busy.
        ((0.1, 0, 0, 1234567.81, 0.3, 0, 0, 0), (0.1, 0, 0, 1234567.84, 0.37, 0, 0, 0), 0.0),
        ((0, 0, 0, 5, 0, 0, 0, 0), (3, 0, 0, 5, 0, 0, 1, 0), 1.0),
        ((0, 0, 0, 0, 0, 0, 0, 0), (1, 0, 0, 2, 0, 0, 0, 1), 0.5),
    ],
)
def test_shares_of_a_cpu_are_never_less_than_nothing(
    before: tuple[float, ...], after: tuple[float, ...], busy: float
) -> None:
    first, second = pair({"cpu_times": {0: CpuTime(*before)}}, {"cpu_times": {0: CpuTime(*after)}})
    share = (second - first).cpu_shares[0]
    assert share.busy == pytest.approx(busy)
    assert all(0 <= getattr(share, name) <= 1 for name in CpuTime.__slots__)
    assert share.busy >= 0


def test_what_is_missing_is_said() -> None:
    before, after = pair({"counters": {"A": 1}}, {"counters": NotAvailable("gone")})
    rates = after - before
    with pytest.raises(Unavailable, match="gone"):
        _ = rates.counters
    with pytest.raises(Unavailable, match="not asked for"):
        _ = rates.links


def test_snapshots_that_do_not_belong_together() -> None:
    before, after = pair({}, {})
    with pytest.raises(ValueError, match="not taken after"):
        _ = before - after
    other = dataclasses.replace(after, origin=dataclasses.replace(LATER, boot="c"))
    with pytest.raises(ValueError, match="two machines"):
        _ = other - before


@pytest.mark.networks
def test_traffic_of_a_host(lab: Lab) -> None:
    here, there = lab.host("a"), lab.host("b")
    wire = lab.wire(here, there)
    here.run(["ping", "-c", "1", "-W", "5", wire.b.ip])
    with here.enter(), Observer() as observer:
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with receiver, sender:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            receiver.bind(("127.0.0.1", 5000))
            before = observer.snapshot()
            for _ in range(50):
                sender.sendto(bytes(1000), ("127.0.0.1", 5000))
            here.run(["ping", "-c", "5", "-i", "0.01", "-W", "5", wire.b.ip])
            time.sleep(0.01)  # the clock must have gone on
            rates = observer.snapshot() - before
    lost = rates.counter("UdpRcvbufErrors")
    assert 0 < lost < 50
    assert rates.counter("IcmpInEchoReps", "nosuch") == 5
    assert rates.links["eth0"]["tx_packets"] >= 5
    assert [(one.socket.local_port, one.drops) for one in rates.sockets if one.drops] == [
        (5000, lost)
    ]
