"""Looks at a lab in which something is going on."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from millrace.lab import Lab
from millrace.watch.top.sample import Sampler
from millrace.watch.top.tick import Ticker

# Other programs of Millrace on this machine are no part of what is looked at.
pytestmark = [pytest.mark.networks, pytest.mark.usefixtures("run_folder")]


class Road:
    """Two hosts, and looks from the client's side."""

    def __init__(self, lab: Lab) -> None:
        self.client, self.server = lab.host("client"), lab.host("server")
        self.wire = lab.wire(self.client, self.server)
        self.a, self.b = str(self.wire.a.ip), str(self.wire.b.ip)


@pytest.fixture
def road(lab: Lab) -> Road:
    return Road(lab)


def ticks_of(
    host: Any, busy: Callable[[], object], done: Callable[[dict[str, Any]], object], **options: Any
) -> dict[str, Any]:
    """The first tick that is as wanted, with `busy` done before each."""
    tick: dict[str, Any] = {}
    with host.enter(), Sampler(**options) as sampler:
        ticker = Ticker()
        before = sampler.look()
        for _ in range(50):
            busy()
            time.sleep(0.05)
            after = sampler.look()
            tick = ticker.tick(before, after)
            before = after
            if done(tick["views"]):
                return tick
    raise AssertionError(f"never as wanted: {tick}")


def test_packets_are_seen_where_they_pass(road: Road) -> None:
    def ping() -> None:
        road.client.run(["ping", "-q", "-c", "20", "-i", "0.002", road.b])

    def done(views: Any) -> bool:
        (mine,) = [row for row in views["interfaces"] if row["interface"] == road.wire.a.name]
        return mine["rx"] > 0 and mine["tx"] > 0

    tick = ticks_of(road.client, ping, done, drops=False, napi=False)
    assert tick["notes"] == []
    assert tick["views"]["overview"][0]["what"] == "received"
    assert tick["views"]["overview"][0]["value"] > 0
    assert sum(row["packets"] for row in tick["views"]["cpus"]) > 0
    assert all(0 <= row["busy"] <= 1 for row in tick["views"]["cpus"])
    layers = [row["layer"] for row in tick["views"]["ladder"]]
    assert layers == ["nic", "ring", "softnet", "protocol", "socket", "application", "millrace"]


@pytest.mark.usefixtures("tracing")
def test_drops_are_on_the_ladder_in_the_list_and_on_the_timeline(road: Road) -> None:
    with road.client.enter():
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def flood() -> None:
        for _ in range(500):
            with contextlib.suppress(OSError):
                one.sendto(b"x", (road.b, 9))

    def done(views: Any) -> bool:
        return any(
            row["reason"] == "NO_SOCKET" and row["interface"] == road.wire.b.name
            for row in views["drops"]
            if row["rate"] > 10
        )

    with one:
        tick = ticks_of(road.server, flood, done, napi=False)
    # Drops are seen of the whole machine.
    (row, *_) = [
        row
        for row in tick["views"]["drops"]
        if row["reason"] == "NO_SOCKET" and row["interface"] == road.wire.b.name
    ]
    assert row["kind"] == "loss"
    assert row["remedy"]
    assert any("NO_SOCKET" in str(row["text"]) for row in tick["views"]["timeline"])
    rungs = {row["layer"]: row for row in tick["views"]["ladder"]}
    assert rungs["application"]["lost"] > 0
    assert "UdpNoPorts" in rungs["application"]["what"]


@contextlib.contextmanager
def bulk(road: Road, pause: float) -> Iterator[None]:
    """The client sends, and the server reads slowly, or does not at all."""
    with road.server.enter():
        listener = socket.create_server((road.b, 5001))
    with road.client.enter():
        one = socket.create_connection((road.b, 5001))
    peer, _ = listener.accept()
    end = threading.Event()

    def send() -> None:
        with contextlib.suppress(OSError):
            while not end.is_set():
                one.sendall(bytes(65536))

    def receive() -> None:
        while not end.is_set():
            if pause:
                end.wait(pause)
            elif not peer.recv(1 << 20):
                return

    threads = [threading.Thread(target=work) for work in (send, receive)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for end_of in (one, peer):
            end_of.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for end_of in (one, peer, listener):
            end_of.close()


def test_flows_and_sockets_name_process_host_and_connection(road: Road) -> None:
    def done(views: Any) -> bool:
        return any(row["kind"] == "host" and row["out_2s"] > 1e6 for row in views["flows"])

    with bulk(road, 0.0):
        tick = ticks_of(road.client, lambda: None, done, drops=False, napi=False)
    flows = {row["kind"]: row for row in tick["views"]["flows"] if row["total_out"] > 0}
    assert flows["host"]["name"] == road.b
    assert flows["connection"]["name"].endswith(f" {road.b}:5001")
    assert Path("/proc/self/comm").read_text().strip() in flows["process"]["name"]
    assert flows["host"]["connections"] == 1
    (row,) = [row for row in tick["views"]["sockets"] if row["peer"] == f"{road.b}:5001"]
    assert row["out"] > 1e5
    assert row["rtt_us"] > 0


def test_a_reader_that_does_not_read_is_what_limits(road: Road) -> None:
    def done(views: Any) -> bool:
        return any(row["limited_by"] == "receiver" for row in views["sockets"])

    with bulk(road, 0.01):
        tick = ticks_of(road.client, lambda: None, done, drops=False, napi=False)
    (row,) = [row for row in tick["views"]["sockets"] if row["limited_by"] == "receiver"]
    assert row["peer"] == f"{road.b}:5001"
    (line,) = [row for row in tick["views"]["overview"] if row["what"] == "sockets"]
    assert "1 limited by receiver" in line["note"]


def test_a_full_accept_queue_is_first_and_an_event(road: Road) -> None:
    with road.server.enter():
        listener = socket.socket()
        listener.bind((road.b, 80))
        listener.listen(1)
    with road.client.enter():
        ones = [socket.create_connection((road.b, 80)) for _ in range(2)]

    def done(views: Any) -> bool:
        return any("accept queue is full" in str(row["text"]) for row in views["timeline"])

    tick = ticks_of(road.server, lambda: None, done, drops=False, napi=False)
    for one in (*ones, listener):
        one.close()
    (first, *_) = tick["views"]["listeners"]
    assert (first["local"], first["waiting"], first["limit"]) == (f"{road.b}:80", 2, 1)


@pytest.mark.usefixtures("tracing")
def test_polls_of_napi_are_counted_by_work(lab: Lab) -> None:
    client, server = lab.host("client"), lab.host("server")
    wire = lab.wire(client, server, offloads={"tso": False, "gro": True})
    with client.enter():
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def flood() -> None:
        for _ in range(200):
            with contextlib.suppress(OSError):
                one.sendto(b"x", (str(wire.b.ip), 9))

    def done(views: Any) -> bool:
        return any(server.netns in row["interface"] and row["polls"] > 0 for row in views["napi"])

    with one:
        tick = ticks_of(client, flood, done, drops=False)
    (row,) = [row for row in tick["views"]["napi"] if server.netns in row["interface"]]
    buckets = [value for name, value in row.items() if name.startswith("le_") or name == "full"]
    assert sum(buckets) == pytest.approx(row["polls"])
    assert 0 <= row["full_share"] <= 1


def test_millraces_stacks_are_shown_with_what_they_do(
    lab: Lab, watched: Callable[..., Any]
) -> None:
    program = watched()

    def work() -> None:
        program.do("[(handle.write(bytes(1000)), turn()) for _ in range(30)]")

    def done(views: Any) -> bool:
        return (
            any(row["rx"] > 0 and row["ns_per_frame"] for row in views["stacks"])
            and any(
                row["owner"].endswith(f":{program.process.pid}") and (row["out"] or 0) > 0
                for row in views["sockets"]
            )
            and "[::]:80" in [row["local"] for row in views["listeners"]]
        )

    tick = ticks_of(lab.host("alone"), work, done, drops=False, napi=False)
    row = tick["views"]["stacks"][0]
    assert row["port"] == "memory:wire"
    assert row["process"].endswith(f":{program.process.pid}")
    assert 0 < row["frames_free"] <= 1
    assert 0 <= row["busy"] <= 1
    assert row["burst"] >= 1


def test_a_stuck_process_does_not_hold_up_a_look(lab: Lab, watched: Callable[..., Any]) -> None:
    program = watched()
    while not program.found().pages[1].tables["connections"].rows:
        pass
    program.process.stdin.write("print('busy', flush=True); os.read(0, 1)\n")
    program.process.stdin.flush()
    program.expect("busy")
    with lab.host("alone").enter(), Sampler(drops=False, napi=False) as sampler:
        before = sampler.look()
        begun = time.monotonic()
        after = sampler.look()
        # The process would take two seconds to say no.
        assert time.monotonic() - begun < 1.9
        tick = Ticker().tick(before, after)
    own = [row for row in tick["views"]["sockets"] if row["owner"] != "kernel"]
    assert {row["state"] for row in own} >= {"ESTAB"}
    assert all(row["out"] is None for row in own if row["protocol"] == "tcp")


def test_interfaces_that_come_go_and_fall_are_events(lab: Lab) -> None:
    host, other = lab.host("host"), lab.host("other")
    wire = lab.wire(host, other)
    steps = iter(
        (
            ["ip", "link", "set", wire.a.name, "down"],
            ["ip", "link", "add", "new0", "type", "veth", "peer", "name", "new1"],
            ["ip", "link", "del", "new0"],
        )
    )

    def step() -> None:
        words = next(steps, None)
        if words is not None:
            host.run(words)

    def done(views: Any) -> bool:
        texts = {str(row["text"]) for row in views["timeline"]}
        return texts >= {f"{wire.a.name} went down", "new0 appeared, down", "new0 is gone"}

    ticks_of(host, step, done, drops=False, napi=False)
