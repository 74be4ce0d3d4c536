"""Every error that the documentation names, with words that tell what to do."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from millrace.lab import Lab
from millrace.net import CLOSED, Channel, Completion

SERVER = "192.0.2.2"


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("nosuch:x", "192.0.2.1/24"), {}, "af_xdp, af_packet, tap, memory, pcap"),
        (("", "192.0.2.1/24"), {}, "a name is missing"),
        (("memory:", "192.0.2.1/24"), {}, "a name is missing"),
        (("memory:e", "192.0.2.1"), {}, "192.0.2.2/24"),
        (("memory:e", "192.0.2.0/24"), {}, "the number or the broadcast address"),
        (("memory:e", "127.0.0.1/8"), {}, "no single host"),
        (("memory:e", "2001:db8::/64"), {}, "any router of its network"),
        (("memory:e", "2001:db8::1/64"), {"mtu": 1000}, "1280"),
        (("memory:e", "2001:db8::1/64"), {"gateway": ["2001:db8:1::1"]}, "not in a network"),
        (("memory:e", []), {}, "address of its own"),
        (("memory:e", "192.0.2.1/24"), {"gateway": "198.51.100.1"}, "not in a network"),
        (("memory:e", "192.0.2.1/24"), {"gateway": "router"}, "no IP address"),
        (("memory:e", "192.0.2.1/24"), {"mac": "02:00"}, "02:00:00:00:00:01"),
        (("memory:e", "192.0.2.1/24"), {"wait": "doze"}, "'sleep', 'spin'"),
        (("memory:e", "192.0.2.1/24"), {"wait": -1.0}, "'sleep', 'spin'"),
        (("memory:e", "192.0.2.1/24"), {"frames": 0}, "frames"),
        (("memory:e", "192.0.2.1/24"), {"frame_size": 3000}, "power of two"),
        (("memory:e", "192.0.2.1/24"), {"frames": 100}, "frame_reserve"),
        (("memory:e", "192.0.2.1/24"), {"mtu": 500}, "576"),
        (("memory:e", "192.0.2.1/24"), {"connections": 0}, "connections"),
        (
            ("memory:e", "192.0.2.1/24"),
            {"connections": -1},
            "connections is a whole number from 0 to",
        ),
        (
            ("memory:e", "192.0.2.1/24"),
            {"retries": 256},
            "retries is a whole number from 0 to 255, not 256",
        ),
        (("memory:e", "192.0.2.1/24"), {"time_wait": -0.5}, "time_wait"),
        (("memory:e", "192.0.2.1/24"), {"send_buffer": 1}, "send_buffer"),
        (("memory:e", "192.0.2.1/24"), {"ephemeral_ports": (9, 8)}, "ephemeral ports"),
        (("pcap:", "192.0.2.1/24"), {}, "a name is missing"),
    ],
)
def test_what_makes_no_sense_is_named(
    arguments: tuple[Any, ...], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        Channel(*arguments, **options)
    # Nothing is left of it: the wire's two places are free.
    Channel("memory:e", "192.0.2.1/24", frames=512).close()


def test_an_option_that_is_not_there_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="argument 'conections'"):
        Channel("memory:e", "192.0.2.1/24", conections=5)
    with pytest.raises(TypeError, match="time_wait is a number of seconds"):
        Channel("memory:e", "192.0.2.1/24", time_wait="long")
    with pytest.raises(TypeError, match="syn_patience is a number of seconds"):
        Channel("memory:e", "192.0.2.1/24", syn_patience="none")
    with pytest.raises(TypeError):
        Channel("memory:e")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "name",
    [
        "keepalive",
        "abort_on_overflow",
        "user_timeout_option",
        "temporary_addresses",
        "redirects",
        "ecn",
        "syn_cookies",
        "congestion",
    ],
)
def test_a_setting_of_another_type_is_named(name: str) -> None:
    with pytest.raises(TypeError, match=f"^{name} is"):
        Channel("memory:e", "192.0.2.1/24", **{name: 5})


@pytest.mark.parametrize("name", ["frames", "frame_size", "mtu", "write_queue", "read_budget"])
def test_a_number_that_no_channel_can_have_is_named(name: str) -> None:
    for number in (-1, -(1 << 64), 1 << 64, 1 << 100):
        with pytest.raises(
            ValueError, match=f"^{name} is a whole number from 0 to .*, not {number}"
        ):
            Channel("memory:e", "192.0.2.1/24", **{name: number})
    for number in (1 << 200, -(1 << 200)):
        with pytest.raises(ValueError, match=f"^{name} is .*, not a number of more than 127 bits"):
            Channel("memory:e", "192.0.2.1/24", **{name: number})
    for wrong in (True, 1.5, "7"):
        with pytest.raises(TypeError, match=f"{name}"):
            Channel("memory:e", "192.0.2.1/24", **{name: wrong})


@pytest.mark.parametrize("name", ["connections", "retries", "send_buffer"])
def test_a_bound_that_no_stack_can_have_is_named(name: str) -> None:
    for number in (-1, 1 << 70):
        with pytest.raises(
            ValueError, match=f"^{name} is a whole number from 0 to .*, not {number}"
        ):
            Channel("memory:e", "192.0.2.1/24", **{name: number})
    for wrong in (True, 1.5, "7"):
        with pytest.raises(TypeError, match=f"^{name} is a whole number, not {wrong!r}"):
            Channel("memory:e", "192.0.2.1/24", **{name: wrong})


def test_ports_and_addresses_of_operations(pair: Any) -> None:
    channel = pair.client
    for port in (-1, 65536, 1 << 70):
        for use in (
            lambda port: channel.listen(port),
            lambda port: channel.datagram(port),
            lambda port: channel.connect((SERVER, port)),
        ):
            with pytest.raises(
                ValueError, match=f"^port is a whole number from 0 to 65535, not {port}"
            ):
                use(port)
    for name in ("backlog", "syn_queue", "fast_open"):
        for number in (-1, 1 << 70):
            with pytest.raises(
                ValueError, match=f"^{name} is a whole number from 0 to .*, not {number}"
            ):
                channel.listen(80, **{name: number})
    with pytest.raises(ValueError, match="port"):
        channel.listen(0)
    with pytest.raises(OSError, match="not an address of this stack") as raised:
        channel.listen(80, "192.0.2.9")
    assert raised.value.errno == errno.EADDRNOTAVAIL
    channel.listen(80)
    with pytest.raises(OSError, match="taken by another listener") as raised:
        channel.listen(80)
    assert raised.value.errno == errno.EADDRINUSE
    with pytest.raises(ValueError, match=r"socket\.gethostbyname"):
        channel.connect(("localhost", 80))
    with pytest.raises(TypeError, match=r"\('192\.0\.2\.1', 80\)"):
        channel.connect(("192.0.2.2",))
    with pytest.raises(OSError, match="gateway") as raised:
        channel.connect(("198.51.100.1", 80))
    assert raised.value.errno == errno.ENETUNREACH
    with pytest.raises(OSError, match="no loopback"):
        channel.connect(("192.0.2.1", 80))
    channel.datagram(53)
    with pytest.raises(OSError, match="UDP") as raised:
        channel.datagram(53)
    assert raised.value.errno == errno.EADDRINUSE


NO_MEMORY = """
import resource, millrace
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
try:
    millrace.Channel("memory:e", "192.0.2.1/24", frames=1024, hugepages=False, connections=1 << 24)
except OSError as error:
    print(error)
"""


def test_tables_for_which_there_is_no_memory(program: Callable[..., Any]) -> None:
    process = program(NO_MEMORY)
    out, errors = process.communicate()
    assert "[Errno 12] no memory for 16777216 connections" in out, errors


def test_full_tables_are_errors(make_pair: Callable[..., Any]) -> None:
    pair = make_pair(connections=2, listeners=1, datagram_sockets=1)
    pair.client.listen(1)
    with pytest.raises(OSError, match="all 1 listeners") as raised:
        pair.client.listen(2)
    assert raised.value.errno == errno.ENOBUFS
    pair.client.datagram(1)
    with pytest.raises(OSError, match="all 1 datagram sockets"):
        pair.client.datagram(2)
    for _ in range(2):
        pair.client.connect((SERVER, 80))
    with pytest.raises(OSError, match="all 2 connections"):
        pair.client.connect((SERVER, 80))


def test_a_refused_connection_and_a_host_that_is_not_there(pair: Any) -> None:
    refused = pair.client.connect((SERVER, 81))
    silent = pair.client.connect(("192.0.2.77", 80))
    errors: dict[Any, OSError | None] = {}

    def both(first: list[Completion], _: list[Completion]) -> bool:
        for done in first:
            assert done.kind is CLOSED
            errors[done.handle] = done.error
        return len(errors) == 2

    pair.until(both)
    assert isinstance(errors[refused], ConnectionRefusedError)
    error = errors[silent]
    assert error is not None
    assert error.errno == errno.EHOSTUNREACH
    assert "does not answer" in str(error)


def test_a_peer_that_vanishes_is_a_timeout(make_pair: Callable[..., Any]) -> None:
    pair = make_pair(client={"retries": 2, "initial_rto": 0.02, "min_rto": 0.02, "max_rto": 0.05})
    pair.server.listen(80)
    client, _ = pair.connect()
    client.write(b"anybody?")
    # From here on only the client has turns.
    told = []
    while not told:
        told = pair.client.turn()
    assert told[0].kind is CLOSED
    assert isinstance(told[0].error, TimeoutError)
    assert "did not answer" in str(told[0].error)


def test_a_wire_has_two_ends(wire_name: str) -> None:
    first = Channel(wire_name, "192.0.2.1/24", frames=512)
    with pytest.raises(ValueError, match="other settings"):
        Channel(wire_name, "192.0.2.2/24", frames=512, mtu=9000)
    second = Channel(wire_name, "192.0.2.2/24", frames=512)
    with pytest.raises(OSError, match="both ends") as raised:
        Channel(wire_name, "192.0.2.3/24", frames=512)
    assert raised.value.errno == errno.EBUSY
    first.close()
    second.close()


def test_a_capture_file_that_is_not_there_or_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.pcap"):
        Channel(f"pcap:{tmp_path}/missing.pcap", "192.0.2.1/24", frames=512)
    (tmp_path / "text.pcap").write_text("this is no capture file, but some text")
    with pytest.raises((OSError, ValueError), match=r"text\.pcap"):
        Channel(f"pcap:{tmp_path}/text.pcap", "192.0.2.1/24", frames=512)


def test_a_capture_file_is_written_and_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "out.pcapng"
    with Channel(f"pcap:,{path}", "192.0.2.1/24", frames=512) as channel:
        channel.connect((SERVER, 80))
        assert channel.turn() is None
    assert path.stat().st_size > 100
    with Channel(f"pcap:{path}", f"{SERVER}/24", frames=512) as channel:
        channel.listen(80)
        assert list(channel) == []
        assert channel.counters()["packets_in"] >= 1


@pytest.mark.parametrize("kind", ["af_xdp:", "af_packet:", ""])
def test_an_interface_that_is_not_there(kind: str) -> None:
    with pytest.raises(OSError, match="nosuch0"):
        Channel(f"{kind}nosuch0", "192.0.2.1/24", frames=512)


@pytest.mark.networks
@pytest.mark.parametrize("kind", ["af_xdp:", "af_packet:", ""])
def test_an_interface_that_is_down(lab: Lab, kind: str) -> None:
    client, server = lab.host("client"), lab.host("server")
    wire = lab.wire(client, server)
    wire.b.set_down()
    with server.enter(), pytest.raises(OSError, match=f"ip link set {wire.b.name} up") as raised:
        Channel(f"{kind}{wire.b.name}", wire.address(), frames=512)
    assert raised.value.errno == errno.ENETDOWN


@pytest.mark.networks
@pytest.mark.parametrize("kind", ["af_xdp:", "af_packet:", ""])
def test_an_address_that_linux_has_is_taken(lab: Lab, kind: str) -> None:
    client, server = lab.host("client"), lab.host("server")
    wire = lab.wire(client, server)
    assert wire.b.address is not None
    with server.enter(), pytest.raises(OSError, match=f"{wire.b.ip} is taken") as raised:
        Channel(f"{kind}{wire.b.name}", wire.b.address, frames=512)
    assert raised.value.errno == errno.EADDRINUSE


@pytest.mark.networks
def test_a_queue_that_the_interface_does_not_have(lab: Lab) -> None:
    client, server = lab.host("client"), lab.host("server")
    wire = lab.wire(client, server)
    with server.enter(), pytest.raises(ValueError, match="queue"):
        Channel(f"af_xdp:{wire.b.name}#7", wire.address(), frames=1024)


@pytest.mark.networks
def test_an_interface_with_several_queues(lab: Lab) -> None:
    client, server = lab.host("client"), lab.host("server")
    wire = lab.wire(client, server, queues=2)
    name = wire.b.name
    with server.enter():
        with pytest.raises(ValueError, match=f"2 queues.*af_xdp:{name}#0"):
            Channel(f"af_xdp:{name}", wire.address(), frames=1024)
        with Channel(f"af_xdp:{name}#1", wire.address(), frames=1024) as channel:
            assert channel.facts["queue"] == "1 of 2"
        with Channel(name, wire.address(), frames=1024) as channel:
            assert channel.facts["port"] == f"af_packet:{name}"
            assert "2 queues" in channel.facts["chosen"]


@pytest.mark.networks
def test_an_interface_chooses_its_best_kind_and_says_so(lab: Lab) -> None:
    client, server = lab.host("client"), lab.host("server")
    wire = lab.wire(client, server)
    with server.enter(), Channel(wire.b.name, wire.address(), frames=2048) as first:
        assert first.facts["port"] == f"af_xdp:{wire.b.name}"
        assert "best" in first.facts["chosen"]
        # XDP is taken now, so a second channel on the same interface gets what is left.
        with Channel(wire.b.name, wire.address(), frames=2048) as second:
            assert second.facts["port"] == f"af_packet:{wire.b.name}"
            assert "because" in second.facts["chosen"]


UNPRIVILEGED = """
import sys, millrace
try:
    millrace.Channel(sys.argv[1], "192.0.2.2/24", frames=1024)
except PermissionError as error:
    print(error)
"""


@pytest.mark.networks
@pytest.mark.parametrize(
    ("port", "words"),
    [
        ("af_xdp:lo", "CAP_"),
        ("af_packet:lo", "CAP_NET_RAW"),
        ("tap:mill0", "CAP_NET_ADMIN"),
        ("lo", "CAP_NET_RAW"),
    ],
)
def test_a_missing_capability_is_named(lab: Lab, port: str, words: str) -> None:
    without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    result = lab.host("host").run([*without, sys.executable, "-c", UNPRIVILEGED, port])
    assert words in result.stdout, result.stderr


class Rang(Exception):
    """The alarm."""


def test_times_beyond_all_clocks_are_waited_for_all_the_same(wire_name: str) -> None:
    def ring(*_: object) -> None:
        raise Rang

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with Channel(wire_name, "192.0.2.1/24", frames=1024) as channel:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(Rang):
                channel.turn(1e20)
        for how in ("dhcp", "slaac"):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(Rang):
                Channel(wire_name, how, frames=1024, dhcp_timeout=1e19, slaac_timeout=1e19)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
