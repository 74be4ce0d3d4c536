"""Networks in virtual time, as a user writes them."""

from __future__ import annotations

import errno
import runpy
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from millrace.lab import LabError, Simulation, simulate
from millrace.lab.simulation import Connection


def lossy(sim: Simulation) -> None:
    client, server, router = sim.host("client"), sim.host("server"), sim.router("router")
    sim.wire(client, router, delay="5ms")
    sim.wire(router, server, delay="20ms", rate="10M", loss="1%")
    sim.bulk(client, server, bytes=500_000)
    sim.requests(client, server, count=20, request=10, response=2000)
    sim.short_flows(client, server, count=5, interval="100ms")


def test_every_flow_is_told_of() -> None:
    result = simulate(lossy, seed=1, check=True)
    assert [flow.port for flow in result.flows].count(5003) == 5
    assert all(flow.complete for flow in result.flows)
    bulk, requests = (
        next(one for one in result.flows if one.port == port) for port in (5001, 5002)
    )
    assert bulk.sides[1].received == 500_000
    assert 0 < bulk.goodput < 10e6
    assert len(requests.latencies) == 20
    assert min(requests.latencies) > 0.05
    assert bulk.sides[0].info.local[0] == "10.0.0.1"
    assert result.wires["router-server"][0]["lost"] > 0
    assert result.hosts["client"]["segments_retransmitted"] > 0
    assert result.routers["router"]["forwarded"] > 0
    assert not result.violations


def test_a_seed_is_the_same_to_the_byte() -> None:
    first, again, other = (simulate(lossy, seed=seed).digest for seed in (3, 3, 4))
    assert first == again != other


def test_a_scenario_drives_its_own_connections() -> None:
    heard: list[tuple[str, object]] = []

    def scenario(sim: Simulation) -> None:
        client, server = sim.host("client"), sim.host("server")
        sim.wire(client, server, delay="10ms", loss="5%")

        def serve(peer: Connection) -> None:
            peer.on_data = peer.write
            peer.on_closed = lambda error: heard.append(("server", error))

        server.listen(7, serve)

        def ask() -> None:
            connection = client.connect(server, 7)
            answer = bytearray()

            def take(data: bytes) -> None:
                answer.extend(data)
                if len(answer) == 200_000:
                    heard.append(("answer", bytes(answer) == b"mill" * 50_000))
                    connection.close()

            connection.on_connected = lambda: connection.write(b"mill" * 50_000)
            connection.on_data = take

        sim.at("1s", ask)
        sim.after(0.5, lambda: heard.append(("now", sim.now)))

    simulate(scenario, seed=5)
    assert heard[:2] == [("now", 0.5), ("answer", True)]


def test_a_refused_connection_says_so() -> None:
    said: list[OSError | None] = []

    def scenario(sim: Simulation) -> None:
        client, server = sim.host(), sim.host()
        sim.wire(client, server)
        client.connect(server, 9).on_closed = said.append

    simulate(scenario)
    (error,) = said
    assert isinstance(error, ConnectionRefusedError)


def test_nothing_is_told_of_what_was_closed() -> None:
    told: list[str] = []

    def scenario(sim: Simulation) -> None:
        client, server = sim.host(), sim.host()
        sim.wire(client, server)

        def serve(peer: Connection) -> None:
            def answer(_: bytes) -> None:
                told.append("data")
                peer.write(b"answer")
                peer.close()

            peer.on_data = answer
            peer.on_drained = lambda: told.append("drained")
            peer.on_finished = lambda: told.append("finished")
            peer.on_closed = lambda _: told.append("closed")

        def ask() -> None:
            connection.write(b"question")
            # The end comes with it.
            connection.finish()

        server.listen(7, serve)
        connection = client.connect(server, 7)
        connection.on_connected = ask

    simulate(scenario)
    assert told == ["data"]


def test_an_end_is_told_to_who_has_not_closed() -> None:
    told: list[str] = []

    def scenario(sim: Simulation) -> None:
        client, server = sim.host(), sim.host()
        sim.wire(client, server)

        def serve(peer: Connection) -> None:
            # Without on_finished it is closed when the client has finished.
            peer.on_closed = lambda _: told.append("server")

        server.listen(7, serve)
        connection = client.connect(server, 7)
        connection.on_connected = connection.finish
        connection.on_finished = lambda: told.append("finished")
        connection.on_closed = lambda error: told.append(f"client {error}")

    simulate(scenario)
    assert told == ["finished", "client None"]


def test_one_call_after_the_other_goes_on_for_hours() -> None:
    seen: list[float] = []

    def scenario(sim: Simulation) -> None:
        sim.wire(sim.host(), sim.host())

        def look() -> None:
            seen.append(sim.now)
            if len(seen) < 5:
                sim.after("30min", look)

        sim.after("30min", look)

    simulate(scenario)
    assert seen == [1800.0 * times for times in range(1, 6)]


def test_every_time_is_seconds_or_a_text_and_may_be_hours_away() -> None:
    seen: list[float] = []

    def scenario(sim: Simulation) -> None:
        client, server = sim.host("client"), sim.host("server")
        wire = sim.wire(client, server)
        wire.down("50min", until=4000)
        wire.impair("70min", rate="1M")
        sim.at("100min", lambda: seen.append(sim.now))
        sim.after(7200, lambda: seen.append(sim.now))
        sim.at(1, lambda: sim.after("2000min", lambda: seen.append(sim.now)))
        sim.bulk(client, server, seconds="2s", start="150min")

    result = simulate(scenario, until="1999min")
    assert seen == [6000.0, 7200.0]
    assert result.seconds == 1999 * 60
    (flow,) = result.flows
    assert flow.started == 9000
    assert flow.sides[1].last_byte is not None
    assert flow.sides[1].last_byte > 9002
    with pytest.raises(LabError, match=r"at is a time from the start .*not -1"):
        Simulation().at(-1, print)


def test_a_connection_is_looked_at_while_it_lives_and_after() -> None:
    seen: list[dict[str, int] | None] = []

    def scenario(sim: Simulation) -> None:
        client, server = sim.host(), sim.host()
        sim.wire(client, server, delay="10ms")

        def serve(peer: Connection) -> None:
            peer.on_data = peer.write

        def close(_: bytes) -> None:
            seen.append(connection.tcp_info)
            connection.close()
            sim.after("1s", lambda: seen.append(connection.tcp_info))

        server.listen(7, serve)
        connection = client.connect(server, 7)
        connection.on_connected = lambda: connection.write(b"m")
        connection.on_data = close

    simulate(scenario)
    for info in seen:
        assert info is not None
        assert 20_000 <= info["tcpi_min_rtt"] < 21_000
        assert info["tcpi_bytes_received"] == 1
    assert len(seen) == 2


def test_outages_and_hosts_that_vanish() -> None:
    def scenario(sim: Simulation) -> None:
        client, server = sim.host(), sim.host()
        wire = sim.wire(client, server, rate="1M")
        sim.bulk(client, server, bytes=1_000_000)
        wire.down(1, until=5)
        wire.impair("6s", rate="2M", delay="1ms")
        server.vanish("7s")

    (flow,) = simulate(scenario).flows
    assert flow.sides[0].errno == errno.ETIMEDOUT
    assert flow.sides[1].vanished


def test_a_trace_is_written(tmp_path: Path) -> None:
    path = tmp_path / "run.pcapng"
    simulate(lossy, seed=1, trace=path)
    content = path.read_bytes()
    assert content[:4] == b"\x0a\x0d\x0d\x0a"
    assert b"client.0" in content


BROKEN = """
import functools

def broken(sim):
    sim.wire(sim.host(), sim.host())
    sim.at(1, lambda: 1 / 0)

def decorated(function):
    @functools.wraps(function)
    def inner(sim):
        function(sim)
    return inner

@decorated
def wrapped(sim):
    broken(sim)

def outer():
    def inner(sim):
        broken(sim)
    return inner

class Kept:
    def method(self, sim):
        broken(sim)

inner, method = outer(), Kept().method
nameless = lambda sim: broken(sim)
partly = functools.partial(broken)
"""


@pytest.mark.parametrize(
    ("name", "again"),
    [
        ("broken", "millrace simulate {file} --function broken --seed 17 --trace seed-17.pcapng"),
        ("wrapped", "millrace simulate {file} --function wrapped --seed 17 --trace seed-17.pcapng"),
        ("inner", 'simulate(inner, seed=17, trace="seed-17.pcapng")'),
        ("method", 'simulate(method, seed=17, trace="seed-17.pcapng")'),
        ("nameless", 'simulate(scenario, seed=17, trace="seed-17.pcapng")'),
        ("partly", 'simulate(scenario, seed=17, trace="seed-17.pcapng")'),
    ],
)
def test_what_a_scenario_raises_names_what_runs_it_again(
    tmp_path: Path, name: str, again: str
) -> None:
    file = tmp_path / "broken.py"
    file.write_text(BROKEN)
    names = runpy.run_path(str(file))
    with pytest.raises(ZeroDivisionError) as caught:
        simulate(names[name], seed=17)
    (note,) = caught.value.__notes__
    assert note == f"this was seed 17; to see it again: {again.format(file=file)}"


ENDLESS = """
import sys
from millrace.lab import simulate

def scenario(sim):
    a, b = sim.host("a"), sim.host("b")
    sim.wire(a, b, rate="1G", delay="1ms")
    sim.bulk(a, b, seconds=1e6)
    sim.at("10ms", lambda: print("running", flush=True))

try:
    simulate(scenario)
except KeyboardInterrupt:
    sys.exit(5)
"""


def test_a_simulation_can_be_interrupted(program: Callable[..., subprocess.Popen[str]]) -> None:
    process = program(ENDLESS)
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 5


def test_more_flows_than_a_host_has_listeners_take_an_option() -> None:
    def scenario(sim: Simulation, **options: int) -> None:
        client, server = sim.host("client"), sim.host("server", **options)
        sim.wire(client, server)
        for _ in range(70):
            sim.bulk(client, server, bytes=1000)

    with pytest.raises(OSError, match="all 64 listeners are in use; `listeners` allows more"):
        simulate(scenario)
    result = simulate(lambda sim: scenario(sim, listeners=70))
    assert [flow.complete for flow in result.flows] == [True] * 70


def test_numbers_out_of_bounds_are_named() -> None:
    sim = Simulation()
    a, b = sim.host("a"), sim.host("b")
    wire = sim.wire(a, b)
    for use, said in (
        (lambda: Simulation(-1), "seed is a whole number from 0 to 18446744073709551615, not -1"),
        (lambda: sim.wire(a, b, mtu=70_000), "mtu is .* from 576 to 65535, not 70000"),
        (lambda: wire.set_mtu(1, -1), "mtu is .* not -1"),
        (lambda: b.listen(1 << 16, print), "port is .* from 1 to 65535, not 65536"),
        (lambda: a.connect(b, -7), "port is .* not -7"),
        (lambda: sim.converse(a, b, port=0), "port is .* not 0"),
        (lambda: sim.bulk(a, b, bytes=-1), "bytes is .* not -1"),
        (lambda: sim.short_flows(a, b, count=-1, interval=1), "count is .* not -1"),
        (lambda: sim.requests(a, b, count="many"), "count is .* not 'many'"),  # type: ignore[arg-type]
        (lambda: sim.requests(a, b, count=1, request=1 << 32), "request is .* to 4294967295, not"),
        (lambda: sim.requests(a, b, count=1, response=1.5), "response is .* not 1.5"),  # type: ignore[arg-type]
        (
            lambda: sim.short_flows(a, b, count=1, interval=1, request=True),
            "request is .* not True",
        ),
        (lambda: sim.converse(a, b, exchange=(1, -1, 0)), "response is .* not -1"),
    ):
        with pytest.raises(LabError, match=said):
            use()


@pytest.mark.parametrize(
    ("side", "said"),
    [
        ({"bytes": 1 << 70}, "bytes is a whole number from 0 to 18446744073709551615, not"),
        ({"manner": "rude", "after": -1}, "after is .* not -1"),
        ({"pause": 1, "frames": 1 << 32}, "frames is .* from 0 to 4294967295, not"),
        ({"pause": 1, "size": 1.5}, "size is .* not 1.5"),
        ({"seconds": "long"}, "seconds is a time.* not 'long'"),
        ({"pause": -1}, "pause is a time.* not -1"),
        ({"linger": True}, "linger is a time.* not True"),
        ({"no_delay": 1}, "no_delay is True or False, not 1"),
        ({"manner": 5}, "manner is one of patient, .*, not 5"),
    ],
)
def test_what_a_side_cannot_do_is_named(side: Any, said: str) -> None:
    sim = Simulation()
    a, b = sim.host(), sim.host()
    sim.wire(a, b)
    with pytest.raises(LabError, match=said):
        sim.converse(a, b, server_side=side)


def test_mistakes_are_named() -> None:
    sim = Simulation()
    a, b = sim.host("a"), sim.host("b")
    with pytest.raises(ValueError, match='no option "sendbuffer"'):
        sim.host(sendbuffer=1)
    with pytest.raises(TypeError, match="send_buffer is a whole number, not 'much'"):
        sim.host(send_buffer="much")
    with pytest.raises(ValueError, match="retries is a whole number from 0 to 255, not 256"):
        sim.host(retries=256)
    with pytest.raises(LabError, match="loss is a probability"):
        sim.wire(a, b, loss=2)
    wire = sim.wire(a, b)
    with pytest.raises(LabError, match="either bytes or seconds"):
        sim.bulk(a, b)
    with pytest.raises(LabError, match=r"up again at 3 s.* down at 5 s"):
        wire.down(5, until="3s")
    other = Simulation()
    stranger = other.host("stranger")
    for use in (
        lambda: sim.wire(a, stranger),
        lambda: sim.bulk(a, stranger, bytes=1),
        lambda: a.connect(stranger, 7),
    ):
        with pytest.raises(LabError, match="host stranger belongs to another simulation"):
            use()
    for use in (
        lambda: sim.wire("a", b),  # type: ignore[arg-type]
        lambda: sim.bulk("a", b, bytes=1),  # type: ignore[arg-type]
        lambda: a.connect("a", 7),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match="a host, a switch or a router is wanted, not 'a'"):
            use()
    with pytest.raises(TypeError, match="a connection goes to a host, not to <Router r>"):
        a.connect(sim.router("r"), 7)  # type: ignore[arg-type]
    for use in (
        lambda: a.ipv6,
        lambda: a.connect(b, 7, ipv6=True),
        lambda: sim.bulk(a, b, bytes=1, ipv6=True),
    ):
        with pytest.raises(ValueError, match="this simulation has no IPv6; ask for it when it is"):
            use()
    sim.bulk(a, b, bytes=1)
    with pytest.raises(RuntimeError, match="the network is alive"):
        sim.host("late")
