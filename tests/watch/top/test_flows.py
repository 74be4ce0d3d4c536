"""Averages and totals of flows."""

from __future__ import annotations

import pytest

from millrace.watch.netstat import Connection
from millrace.watch.top import flows
from millrace.watch.top.flows import Flows, Key


def connection(sent: int, *, peer: str = "192.0.2.2", port: int = 80) -> Connection:
    return Connection(
        "kernel",
        "",
        "tcp",
        "ESTAB",
        0,
        0,
        "192.0.2.1",
        4000,
        peer,
        port,
        process="client:1",
        info={"bytes_acked": sent, "bytes_received": 2 * sent},
    )


def key(one: Connection) -> Key:
    return (one.owner, one.port, one.protocol, one.local_port, one.peer, one.peer_port)


def test_a_steady_rate_is_the_average_of_every_reach() -> None:
    every = Flows()
    before = connection(0)
    for at in range(1, 200):
        after = connection(1000 * at)
        rows = every.rows([after], {key(before): before}, 1.0)
        before = after
    assert [row["kind"] for row in rows] == list(flows.KINDS)
    for row in rows:
        for reach in ("2s", "10s", "40s"):
            assert row[f"out_{reach}"] == pytest.approx(8000, rel=0.02)
            assert row[f"in_{reach}"] == pytest.approx(16000, rel=0.02)
        assert (row["total_out"], row["total_in"]) == (199_000, 398_000)
    assert rows[1]["name"] == "192.0.2.2"


def test_a_burst_fades_sooner_the_shorter_the_reach() -> None:
    every = Flows()
    before, after = connection(0), connection(1_000_000)
    every.rows([after], {key(before): before}, 1.0)
    for _ in range(5):
        (row, *_) = every.rows([after], {key(after): after}, 1.0)
    assert row["out_2s"] < row["out_10s"]
    assert row["out_2s"] < 8_000_000 * 0.1


def test_totals_stay_when_a_connection_has_ended() -> None:
    every = Flows()
    before, after = connection(0), connection(1000)
    every.rows([after], {key(before): before}, 1.0)
    (row, *_) = every.rows([], {key(after): after}, 1.0)
    assert (row["ended"], row["connections"], row["total_out"]) == (True, 0, 1000)


def test_a_connection_that_is_new_counts_from_its_second_look() -> None:
    every = Flows()
    (row, *_) = every.rows([connection(5000)], {}, 1.0)
    assert row["total_out"] == 0


def test_flows_are_bounded_and_the_quiet_make_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "MOST_FLOWS", 4)
    every = Flows()
    busy_before, busy_after = connection(0, peer="203.0.113.1"), connection(9, peer="203.0.113.1")
    for at in range(20):
        quiet = connection(1, peer=f"192.0.2.{at}")
        rows = every.rows([quiet, busy_after], {key(busy_before): busy_before}, 1.0)
    hosts = [row["name"] for row in rows if row["kind"] == "host"]
    assert len(hosts) == 4
    assert "203.0.113.1" in hosts
