"""Ports on real interfaces of virtual hosts: what passes, what is chosen, and what goes wrong."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import millrace
from millrace.lab import Host, Lab, Wire
from millrace.packets import Flags, l2fwd

from .conftest import udp

pytestmark = pytest.mark.networks

KINDS = ["af_packet", "af_xdp"]


@pytest.fixture
def wire(lab: Lab) -> Wire:
    """A wire that carries nothing by itself."""
    wire = lab.wire(lab.host("a"), lab.host("b"), addresses=(None, None))
    for end in (wire.a, wire.b):
        end.host.sysctl(f"net/ipv6/conf/{end.name}/disable_ipv6", 1)
    return wire


def open_at(end: Any, kind: str, **options: Any) -> millrace.Port:
    with end.host.enter():
        return millrace.open(f"{kind}:{end.name}" if kind else end.name, **options)


def receive(port: millrace.Port, count: int) -> list[bytes]:
    """So many frames, or fewer if nothing comes for long."""
    frames: list[bytes] = []
    while len(frames) < count and (batch := port.receive(10)):
        frames += batch.tolist()
    return frames


@pytest.mark.parametrize("mode", ["throughput", "latency"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_sent_arrives(wire: Wire, kind: str, mode: str) -> None:
    frames = [udp(number, bytes(number % 1400)) for number in range(500)]
    with open_at(wire.a, kind) as left, open_at(wire.b, kind, mode=mode) as right:
        assert left.mac == wire.a.mac
        assert (left.name, left.kind, left.mtu) == (wire.a.name, kind, 1500)
        assert left.timestamps == "software"
        for start in range(0, 500, 100):
            assert left.send(frames[start : start + 100], timeout=10) == 100
            assert receive(right, 100) == frames[start : start + 100]
        for frame in frames[:10]:
            assert left.send(frame) == 1
            assert receive(right, 1) == [frame]
        assert right.stats()["rx_packets"] == 510
        assert left.stats()["tx_packets"] == 510
        assert not sum(right.stats()["drops"].values())
        kept = left.keep(frames[:64])
        for _ in range(20):
            assert left.send(kept, timeout=10) == 64
            assert receive(right, 64) == frames[:64]
        del kept
    assert right.frames[0] == right.frames[1]
    assert left.frames[0] == left.frames[1]


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_that_a_link_does_not_carry(wire: Wire, kind: str) -> None:
    with open_at(wire.a, kind) as left, open_at(wire.b, kind) as right:
        for length in (0, 13):
            with pytest.raises(ValueError, match=f"has {length} bytes, .* takes 14 to 1514"):
                left.send([udp(), bytes(length)])
        for length in (1515, 65535):
            with pytest.raises(OSError, match=f"has {length} bytes, .* takes 14 to 1514") as caught:
                left.send(bytes(length))
            assert caught.value.errno == errno.EMSGSIZE
        assert left.send([udp(), udp(1, bytes(1472))]) == 2
        assert receive(right, 2) == [udp(), udp(1, bytes(1472))]
        tagged = udp(2, bytes(1472), vlan=5)
        assert len(tagged) == 1518
        assert left.send(tagged) == 1
        assert receive(right, 1) == [tagged]


def test_the_longest_frames_there_are(lab: Lab) -> None:
    wire = lab.wire(lab.host("a"), lab.host("b"), addresses=(None, None), mtu=65535)
    for end in (wire.a, wire.b):
        end.host.sysctl(f"net/ipv6/conf/{end.name}/disable_ipv6", 1)
    frames = [udp(0, bytes(length - 42)) for length in (65535, 60, 65549, 32768, 2048)]
    with open_at(wire.a, "af_packet") as left, open_at(wire.b, "af_packet") as right:
        for frame in frames:
            assert left.send(frame, timeout=10) == 1
            assert receive(right, 1) == [frame]
        with pytest.raises(OSError, match="has 65550 bytes"):
            left.send(bytes(65550))
    with pytest.raises(ValueError, match=r"MTU of 65535.*lower the MTU"):
        open_at(wire.b, "af_xdp")


@pytest.mark.parametrize("kind", KINDS)
def test_an_interface_that_goes_down_comes_back_and_vanishes(wire: Wire, kind: str) -> None:
    with open_at(wire.a, "af_packet") as left, open_at(wire.b, kind) as right:
        left.send(udp(1))
        assert receive(right, 1) == [udp(1)]
        wire.b.set_down()
        with pytest.raises(OSError, match=f"{wire.b.name} is down") as caught:
            until_it_fails(lambda: right.send(udp()))
        assert caught.value.errno == errno.ENETDOWN
        if kind == "af_packet":
            with pytest.raises(OSError, match=f"{wire.b.name} is down") as caught:
                until_it_fails(lambda: right.receive(0.001))
            assert caught.value.errno == errno.ENETDOWN
        wire.b.set_up()
        until_it_works(lambda: left.send(udp(2)))
        assert udp(2) in until_it_works(lambda: receive(right, 1))
        wire.remove()
        # It may be seen going down on its way.
        until_it_is_gone(lambda: right.receive(0.001))
        until_it_is_gone(lambda: right.send(udp()))


def until_it_is_gone(call: Callable[[], object]) -> None:
    says = set()
    for _ in range(20_000):
        try:
            call()
        except OSError as error:
            says.add(error.errno)
            if "is gone" in str(error):
                break
    assert errno.ENOTCONN in says <= {errno.ENOTCONN, errno.ENETDOWN}


def until_it_fails(call: Callable[[], object]) -> None:
    for _ in range(20_000):
        call()


def until_it_works(call: Callable[[], Any]) -> Any:
    """What a call gives that may fail for a while, as after an interface came up."""
    for _ in range(20_000):
        try:
            if result := call():
                return result
        except OSError:
            continue
    raise AssertionError("it never worked")


@pytest.mark.parametrize("kind", KINDS)
def test_a_waiter_is_told_that_the_interface_vanished(wire: Wire, kind: str) -> None:
    right = open_at(wire.b, kind)
    heard: list[OSError] = []

    def wait() -> None:
        while not heard or heard[-1].errno == errno.ENETDOWN:
            try:
                right.receive()
            except OSError as error:
                heard.append(error)

    thread = threading.Thread(target=wait)
    with right:
        thread.start()
        wire.remove()
        thread.join()
    assert heard[-1].errno == errno.ENOTCONN
    assert "is gone" in str(heard[-1])


OTHER = """
import json, sys, millrace
with millrace.open(sys.argv[1], **json.loads(sys.argv[2])) as port:
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other() -> Iterator[Callable[..., None]]:
    """Opens a port in another process, for as long as the test runs."""
    started: list[subprocess.Popen[str]] = []

    def start(host: Host, name: str, **options: Any) -> None:
        command = [sys.executable, "-c", OTHER, name, json.dumps(options)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = host.popen(command, text=True, **pipes)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"

    yield start
    for process in started:
        process.communicate("")


def test_two_processes_on_one_queue(wire: Wire, other: Callable[..., None]) -> None:
    other(wire.b.host, f"af_xdp:{wire.b.name}")
    with pytest.raises(OSError, match=f"queue 0 of {wire.b.name} is in use") as caught:
        open_at(wire.b, "af_xdp")
    assert caught.value.errno == errno.EBUSY
    # A packet socket is no party to that.
    with open_at(wire.b, "af_packet"):
        pass


def test_the_program_of_another_process_is_named(lab: Lab, other: Callable[..., None]) -> None:
    wire = lab.wire(lab.host("a"), lab.host("b"), queues=2, addresses=(None, None))
    other(wire.b.host, f"af_xdp:{wire.b.name}#0")
    with pytest.raises(OSError, match=r"has an XDP program already: id \d+, name mr_redirector"):
        open_queue(wire.b, 1)


def open_queue(end: Any, queue: int) -> millrace.Port:
    with end.host.enter():
        return millrace.open(f"af_xdp:{end.name}#{queue}")


def test_all_queues_of_an_interface_are_one_port(lab: Lab) -> None:
    wire = lab.wire(lab.host("a"), lab.host("b"), queues=2, addresses=(None, None))
    for end in (wire.a, wire.b):
        end.host.sysctl(f"net/ipv6/conf/{end.name}/disable_ipv6", 1)
    frames = [udp(number) for number in range(200)]
    with open_at(wire.b, "") as right:
        assert right.kind == "af_xdp"
        assert right.facts["queues"] == "all 2"
        # What leaves by one queue of a veth comes in by the same of its peer.
        for queue in (0, 1):
            with wire.a.host.enter():
                left = millrace.open(f"af_xdp:{wire.a.name}#{queue}")
            with left:
                assert left.send(frames, timeout=10) == 200
                got, queues = [], set()
                while len(got) < 200 and (batch := right.receive(10)):
                    got += batch.tolist()
                    queues |= set(batch.queue.tolist())
                assert got == frames
                assert queues == {queue}
                del batch
        with open_at(wire.a, "af_packet") as left:
            assert right.send(frames[:50], timeout=10) == 50
            assert receive(left, 50) == frames[:50]
        stats = right.stats()
        assert (stats["rx_packets"], stats["tx_packets"]) == (400, 50)
        assert stats["details"]["xdp_redirected"] == 400
        assert not sum(stats["drops"].values())
    assert right.frames[0] == right.frames[1]
    with open_queue(wire.b, 1) as port:
        assert port.facts["queues"].startswith("2;")
    with pytest.raises(ValueError, match="2 queues, numbered from 0"):
        open_queue(wire.b, 7)


def test_a_bare_name_takes_nothing_away_from_linux(lab: Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    used, unused = lab.wire(a, b), lab.wire(a, b, addresses=(None, None))
    with open_at(used.b, "") as port:
        assert port.kind == "af_packet"
        assert f"Linux has {used.b.ip}" in port.facts["chosen"]
        assert "1 received" in a.run(["ping", "-c", "1", used.b.ip]).stdout
    with open_at(unused.b, "") as port:
        assert port.kind == "af_xdp"
        assert "fastest" in port.facts["chosen"]
    with b.enter(), pytest.raises(FileNotFoundError, match="tap:nosuch0 would make it"):
        millrace.open("nosuch0")


UNPRIVILEGED = """
import sys, millrace
try:
    millrace.open(sys.argv[1])
except PermissionError as error:
    print(error)
"""


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


def test_what_this_host_sends_is_seen_if_asked_for(wire: Wire) -> None:
    with (
        open_at(wire.a, "af_packet", outgoing=True) as both,
        open_at(wire.a, "af_packet") as only_in,
        open_at(wire.b, "af_packet") as other,
    ):
        # By a socket that goes through the ordinary way out, where others can look on.
        import socket

        with wire.a.host.enter():
            plain = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            plain.bind((wire.a.name, 0))
        with plain:
            plain.send(udp(1))
        assert receive(other, 1) == [udp(1)]
        other.send(udp(2))
        seen = []
        flags = []
        while len(seen) < 2 and (batch := both.receive(10)):
            seen += batch.tolist()
            flags += batch.flags.tolist()
        assert seen == [udp(1), udp(2)]
        assert flags[0] & Flags.OUTGOING
        assert not flags[1] & Flags.OUTGOING
        assert receive(only_in, 1) == [udp(2)]


def test_packets_are_cut_if_asked_for(wire: Wire) -> None:
    frame = udp(1, bytes(1000))
    with (
        open_at(wire.a, "af_packet") as left,
        open_at(wire.b, "af_packet", snap_length=96) as right,
    ):
        for sent, length, flags in ((frame, 96, Flags.CUT), (udp(2), 60, 0)):
            left.send(sent)
            batch = right.receive(10)
            assert batch is not None
            assert batch.tolist() == [sent[:length]]
            assert batch.original_length.tolist() == [len(sent)]
            assert batch.flags[0] & Flags.CUT == flags


@pytest.mark.parametrize("ring", ["v2", "v3"])
def test_either_ring_of_a_packet_socket_receives(wire: Wire, ring: str) -> None:
    with (
        open_at(wire.a, "af_packet") as left,
        open_at(wire.b, "af_packet", ring=ring, ring_bytes=1 << 20) as right,
    ):
        assert ring.upper() in right.facts["receive"]
        assert left.send([udp(number) for number in range(50)], timeout=10) == 50
        assert receive(right, 50) == [udp(number) for number in range(50)]


def test_hardware_timestamps_where_there_are_none(wire: Wire) -> None:
    with open_at(wire.b, "af_packet", timestamps="software") as port:
        assert port.timestamps == "software"
    with pytest.raises(OSError, match=f"{wire.b.name} cannot stamp what it receives") as caught:
        open_at(wire.b, "af_packet", timestamps="hardware")
    assert caught.value.errno == errno.EOPNOTSUPP


def test_a_tap_interface_is_made_and_carries_frames_both_ways(lab: Lab) -> None:
    host = lab.host("host")
    with host.enter():
        port = millrace.open("tap:mill0", mtu=9000)
        host.sysctl("net/ipv6/conf/mill0/disable_ipv6", 1)
        linux = millrace.open("af_packet:mill0")
    with port, linux:
        frames = [udp(number, bytes(number * 100)) for number in range(80)]
        for start in range(0, 80, 20):
            assert port.send(frames[start : start + 20]) == 20
            assert receive(linux, 20) == frames[start : start + 20]
            assert linux.send(frames[start : start + 20], timeout=10) == 20
            assert receive(port, 20) == frames[start : start + 20]
        assert port.timestamps == "software"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("native", [False, True], ids=["python", "native"])
def test_kernels_talk_through_a_forwarder(lab: Lab, kind: str, native: bool) -> None:
    """Unfinished checksums are finished on the way, and super-segments pass where they can."""
    a, middle, c = lab.host("a"), lab.host("middle"), lab.host("c")
    left = lab.wire(a, middle, addresses=("192.0.2.1/24", None))
    right = lab.wire(middle, c, addresses=(None, "192.0.2.2/24"))
    first = open_at(left.b, kind, linger=0)
    with middle.enter():
        second = millrace.open(f"{kind}:{right.a.name}", arena=first, linger=0)

    def forward(source: millrace.Port, sink: millrace.Port) -> None:
        for batch in source:
            rest = batch
            while len(rest) and not sink.closed:
                rest = rest[sink.send(rest, timeout=1) :]

    def run_native() -> None:
        l2fwd(first, second, both_ways=True, wait="sleep")

    threads = [threading.Thread(target=run_native)]
    if not native:
        ways = ((first, second), (second, first))
        threads = [threading.Thread(target=forward, args=way) for way in ways]
    for thread in threads:
        thread.start()
    serve = (
        "import hashlib, socket\n"
        "listener = socket.create_server(('192.0.2.2', 7))\n"
        "print('up', flush=True)\n"
        "peer, _ = listener.accept()\n"
        "sum, size = hashlib.sha256(), 0\n"
        "while data := peer.recv(1 << 20):\n"
        "    sum.update(data)\n"
        "    size += len(data)\n"
        "peer.sendall(f'{size} {sum.hexdigest()}'.encode())\n"
    )
    ask = (
        "import hashlib, os, socket\n"
        "data = os.urandom(4_000_000)\n"
        "peer = socket.create_connection(('192.0.2.2', 7), timeout=60)\n"
        "peer.sendall(data)\n"
        "peer.shutdown(socket.SHUT_WR)\n"
        "wanted = f'{len(data)} {hashlib.sha256(data).hexdigest()}'.encode()\n"
        "print(peer.recv(1000) == wanted)\n"
    )
    server = c.popen([sys.executable, "-c", serve], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    server.stdout.readline()
    assert a.run([sys.executable, "-c", ask]).stdout == "True\n"
    server.communicate()
    assert "1 received" in a.run(["ping", "-c", "1", "192.0.2.2"]).stdout
    first.close()
    second.close()
    for thread in threads:
        thread.join()
