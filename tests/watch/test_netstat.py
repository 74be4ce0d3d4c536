"""The one table of connections, against what ss says and what Millrace's stacks know."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from millrace.host import Observer
from millrace.lab import Lab
from millrace.watch import netstat, processes
from millrace.watch.limits import limit
from millrace.watch.netstat import Connection

MILLRACE = [sys.executable, "-m", "millrace"]


def rows_of(*words: str, **environment: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [*MILLRACE, "netstat", "--json", "-", *words],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_millraces_connections_and_the_kernels_are_in_one_table(
    watched: Callable[..., Any],
) -> None:
    program = watched()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            rows = rows_of("-a", "-t")
    own = [row for row in rows if row["owner"].endswith(f":{program.process.pid}")]
    assert {row["port"] for row in own} == {"memory:wire"}
    (client,) = [row for row in own if row["peer"] == "192.0.2.2:80"]
    assert client["state"] == "ESTAB"
    assert client["congestion"] == "cubic"
    assert client["tcpi_snd_mss"] > 0
    (listening,) = [row for row in own if row["state"] == "LISTEN"]
    assert listening["local"] == "[::]:80"
    assert (listening["recv_q"], listening["send_q"]) == (0, 7)
    (kernel,) = [
        row for row in rows if row["local"] == f"127.0.0.1:{port}" and row["state"] == "LISTEN"
    ]
    assert kernel["owner"] == "kernel"
    assert kernel["process"] == f"{Path('/proc/self/comm').read_text().strip()}:{os.getpid()}"
    assert kernel["skmem_rb"] > 0


@pytest.mark.networks
def test_the_words_are_those_of_ss(lab: Lab) -> None:
    client, server = lab.host("client"), lab.host("server")
    wire = lab.wire(client, server)
    with server.enter():
        listener = socket.create_server((str(wire.b.ip), 80), backlog=5)
    with client.enter(), listener:
        one = socket.create_connection((str(wire.b.ip), 80))
        peer, _ = listener.accept()
        with one, peer:
            one.sendall(bytes(200_000))
            peer.recv(1)
            with Observer() as observer:
                snapshot = observer.snapshot(("sockets", "processes"))
            said = client.run(["ss", "-tmin", "dst", str(wire.b.ip)]).stdout
            found = [row for row in netstat.of_kernel(snapshot) if row.peer == str(wire.b.ip)]
    (row,) = found
    ours = f"{netstat.memory_text(row)} {netstat.info_text(row)}"
    # What does not change between the two looks.
    for pattern in (
        r"skmem:\(r\d+,rb\d+,t\d+,tb\d+",
        r"\b(?:cubic|bbr|reno)\b",
        r"wscale:\d+,\d+",
        r"mss:\d+",
        r"pmtu:\d+",
        r"rcvmss:\d+",
        r"advmss:\d+",
    ):
        theirs = re.search(pattern, said)
        assert theirs is not None, (pattern, said)
        mine = re.search(pattern, ours)
        assert mine is not None, (pattern, ours)
        assert mine[0] == theirs[0]
    names = set(re.findall(r"([a-z_]+):", said.split("skmem", 1)[1]))
    # ss has some words that are older than its manual; all of ours are its own.
    assert set(re.findall(r"([a-z_]+):", ours)) - {"skmem"} <= names | {
        "bytes_acked",
        "bytes_received",
        "unacked",
        "notsent",
        "minrtt",
        "lastsnd",
        "lastrcv",
        "lastack",
        "delivered",
        "busy",
        "rwnd_limited",
        "sndbuf_limited",
        "ssthresh",
        "ato",
        "rtt",
        "segs_in",
        "segs_out",
        "data_segs_out",
        "snd_wnd",
        "rcv_wnd",
        "rcv_ssthresh",
    }
    assert row.memory["rb"] > 0
    assert row.info["rcv_wscale"] == int(re.search(r"wscale:\d+,(\d+)", said)[1])  # type: ignore[index]


def test_a_stuck_process_is_shown_by_its_page_and_said(watched: Callable[..., Any]) -> None:
    program = watched()
    while not program.found().pages[1].tables["connections"].rows:
        pass
    program.process.stdin.write("print('busy', flush=True); os.read(0, 1)\n")
    program.process.stdin.flush()
    program.expect("busy")
    own = netstat.of_millrace(processes.find())
    assert any("did not turn for 2 s" in problem for problem in own.problems)
    assert any(re.search(r"shown are 1 connections of \d+\.\d s ago", one) for one in own.problems)
    (server,) = [row for row in own.connections if row.local_port == 80 and row.state == "ESTAB"]
    assert server.age > 0


def test_routes_of_both(watched: Callable[..., Any]) -> None:
    watched()
    rows = rows_of("-r")
    own = [row for row in rows if row["owner"] != "kernel"]
    assert {(row["port"], row["destination"], row["note"]) for row in own} == {
        ("memory:wire", "192.0.2.0/24", "address")
    }


def test_filters(watched: Callable[..., Any]) -> None:
    watched()
    assert {row["state"] for row in rows_of("-l", "-t", "--no-kernel")} == {"LISTEN"}
    assert {row["protocol"] for row in rows_of("-a", "-u", "--no-kernel")} == {"udp"}
    assert all(row["owner"] == "kernel" for row in rows_of("-a", "--no-millrace"))
    assert len(rows_of("-a", "-t", "--port", "80", "--no-kernel")) == 3
    assert rows_of("--port", "9", "--no-kernel") == []


def test_nothing_is_said_to_be_nothing(run_folder: Path) -> None:
    done = subprocess.run(
        [*MILLRACE, "netstat", "--no-kernel"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert "nothing to show: there is none" in done.stderr


def connection(**info: int) -> Connection:
    return Connection("kernel", "", "tcp", "ESTAB", 0, 0, "::1", 1, "::1", 2, info=info)


def test_addresses_are_written_as_ss_does() -> None:
    one = connection()
    assert one.local_address == "[::1]:1"
    assert netstat.endpoint("::", 0) == "[::]:*"
    assert netstat.endpoint("0.0.0.0", 80) == "0.0.0.0:80"
    assert netstat.endpoint("", 0) == "*:*"


def test_numbers_are_written_as_ss_does() -> None:
    text = netstat.info_text(
        connection(
            options=7,
            snd_wscale=7,
            rcv_wscale=9,
            rto=204_000,
            rtt=125,
            rttvar=62,
            snd_mss=1448,
            snd_cwnd=10,
            snd_ssthresh=0x7FFFFFFF,
            pacing_rate=2**64 - 1,
            delivery_rate=1_448_000,
            busy_time=10_000,
            rwnd_limited=2_500,
            retrans=1,
            total_retrans=3,
            min_rtt=0xFFFFFFFF,
        )
    )
    assert text == (
        "ts sack wscale:7,9 rto:204 rtt:0.125/0.062 mss:1448 cwnd:10 send 927Mbps "
        "delivery_rate 11.6Mbps busy:10ms rwnd_limited:2ms(25.0%) retrans:1/3"
    )


@pytest.mark.parametrize(
    ("info", "before", "wanted"),
    [
        ({}, None, "idle"),
        ({"busy_time": 100, "rwnd_limited": 50, "sndbuf_limited": 20}, None, "receiver"),
        ({"busy_time": 100, "rwnd_limited": 5, "sndbuf_limited": 20}, None, "send buffer"),
        ({"busy_time": 100, "notsent_bytes": 9}, None, "network"),
        ({"busy_time": 100, "snd_cwnd": 10, "unacked": 10}, None, "network"),
        ({"busy_time": 100, "snd_cwnd": 10, "unacked": 1}, None, "program"),
        # Only what happened since the last look counts.
        (
            {"busy_time": 200, "rwnd_limited": 50, "snd_cwnd": 10, "unacked": 1},
            {"busy_time": 100, "rwnd_limited": 50},
            "program",
        ),
        ({"busy_time": 100, "rwnd_limited": 50}, {"busy_time": 100, "rwnd_limited": 50}, "idle"),
    ],
)
def test_the_side_that_limits(
    info: dict[str, int], before: dict[str, int] | None, wanted: str
) -> None:
    assert limit(info, before) == wanted
