"""One expression decides the same everywhere: in this process, in the kernel, and for tcpdump."""

from __future__ import annotations

import ctypes
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import millrace
from millrace.lab import Lab
from millrace.packets import Filter, FilterError
from millrace.packets import filter as filter_module

from . import corpus
from .conftest import udp

FRAMES = corpus.frames()

tcpdump = pytest.mark.skipif(shutil.which("tcpdump") is None, reason="needs tcpdump")


def write(path: Path, frames: list[bytes]) -> None:
    """A capture file, by this test alone."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        for number, frame in enumerate(frames):
            file.write(struct.pack("<IIII", number, 0, len(frame), len(frame)) + frame)


def chosen_by_tcpdump(path: Path, expression: str) -> list[int]:
    """The numbers of the frames in the file that tcpdump lets through."""
    command = ["tcpdump", "-Z", "root", "-r", str(path), "-w", "-", expression]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    numbers, at = [], 24
    while at < len(done.stdout):
        number, _, length, _ = struct.unpack_from("<IIII", done.stdout, at)
        numbers.append(number)
        at += 16 + length
    return numbers


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("capture") / "frames.pcap"
    write(path, FRAMES)
    return path


@tcpdump
def test_every_expression_chooses_what_tcpdump_chooses(capture: Path) -> None:
    assert len(corpus.EXPRESSIONS) > 300
    batch = millrace.Batch(FRAMES)
    telling = 0
    for expression in corpus.EXPRESSIONS:
        mask = Filter(expression).mask(batch)
        assert np.flatnonzero(mask).tolist() == chosen_by_tcpdump(capture, expression), expression
        telling += 0 < mask.sum() < len(FRAMES)
    # An expression that is true of all or of none shows little.
    assert telling > 250


@tcpdump
@settings(max_examples=150)
@given(
    frames=st.lists(st.binary(max_size=120), min_size=1, max_size=20),
    seed=st.integers(0, 2**32),
    expression=st.sampled_from(corpus.EXPRESSIONS),
)
def test_random_frames_are_chosen_as_tcpdump_chooses_them(
    tmp_path_factory: pytest.TempPathFactory, frames: list[bytes], seed: int, expression: str
) -> None:
    frames = frames + corpus.frames(20, seed)
    path = tmp_path_factory.getbasetemp() / "random.pcap"
    write(path, frames)
    wanted = chosen_by_tcpdump(path, expression)
    filter = Filter(expression)
    assert [number for number, frame in enumerate(frames) if filter.matches(frame)] == wanted
    with millrace.open(f"pcap:{path}", filter=filter, batch=256, hugepages=False) as port:
        found = [frame for batch in port for frame in batch.tolist()]
    assert found == [frames[number] for number in wanted]


@tcpdump
@pytest.mark.networks
def test_captured_traffic_is_chosen_as_tcpdump_chooses_it(lab: Lab, tmp_path: Path) -> None:
    a, b = lab.host("a"), lab.host("b")
    wire = lab.wire(a, b)
    path = tmp_path / "traffic.pcap"
    with a.enter():
        port = millrace.open(f"af_packet:{wire.a.name}", outgoing=True, batch=1024)
    with port:
        a.run(["ping", "-c", "3", "-i", "0.01", wire.b.ip])
        serve = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8080)"
        server = b.popen([sys.executable, "-c", serve], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        server.stdout.readline()
        for _ in range(5):
            a.run(["curl", "-s", f"http://{wire.b.ip}:8080/pyproject.toml"])
        server.terminate()
        server.communicate()
        frames = []
        while batch := port.receive(0):
            frames += batch.tolist()
    assert len(frames) > 40
    write(path, frames)
    batch = millrace.Batch(frames)
    for expression in corpus.EXPRESSIONS:
        mask = Filter(expression).mask(batch)
        assert np.flatnonzero(mask).tolist() == chosen_by_tcpdump(path, expression), expression


#: What a wire carries: at least an Ethernet header, at most the MTU with one tag.
CARRIED = [frame for frame in FRAMES if 60 <= len(frame) <= 1514]


@pytest.fixture
def sender(lab: Lab) -> Iterator[tuple[Callable[..., millrace.Port], millrace.Port]]:
    """Opens ports at one end of a quiet wire; and a port at the other end."""
    a, b = lab.host("a"), lab.host("b")
    wire = lab.wire(a, b, addresses=(None, None))
    for end in (wire.a, wire.b):
        end.host.sysctl(f"net/ipv6/conf/{end.name}/disable_ipv6", 1)
    with a.enter():
        port = millrace.open(f"af_packet:{wire.a.name}")

    def open_other(kind: str, **options: Any) -> millrace.Port:
        with b.enter():
            return millrace.open(f"{kind}:{wire.b.name}", **options)

    with port:
        yield open_other, port


def received(port: millrace.Port, count: int) -> list[bytes]:
    """So many frames; fewer, if nothing comes any more."""
    frames: list[bytes] = []
    while len(frames) < count:
        batch = port.receive(5)
        if not batch:
            break
        frames += batch.tolist()
    batch = port.receive(0)
    return frames + (batch.tolist() if batch else [])


@pytest.mark.networks
def test_a_socket_of_the_kernel_chooses_the_same(
    sender: tuple[Callable[..., millrace.Port], millrace.Port],
) -> None:
    open_other, port = sender
    batch = millrace.Batch(CARRIED)
    assert {0x8100, 0x88A8} <= {int.from_bytes(frame[12:14]) for frame in CARRIED}
    # The wire carries everything unchanged, tags as well.
    with open_other("af_packet") as other:
        assert port.send(CARRIED, timeout=10) == len(CARRIED)
        assert received(other, len(CARRIED)) == CARRIED
    for expression in corpus.EXPRESSIONS[::2]:
        filter = Filter(expression)
        wanted = batch[filter.mask(batch)].tolist()
        # Whatever does not pass shows by coming before the frame that ends the round.
        with open_other("af_packet", filter=filter) as other:
            assert "socket's program" in other.facts["filter"]
            assert port.send(CARRIED, timeout=10) == len(CARRIED)
            assert received(other, len(wanted)) == wanted, expression


@pytest.mark.networks
def test_an_xdp_program_chooses_the_same_and_leaves_the_rest_to_linux(
    sender: tuple[Callable[..., millrace.Port], millrace.Port],
) -> None:
    open_other, port = sender
    batch = millrace.Batch(CARRIED)
    for expression in corpus.EXPRESSIONS[::9]:
        filter = Filter(expression)
        wanted = batch[filter.mask(batch)].tolist()
        with open_other("af_packet") as linux, open_other("af_xdp", filter=filter) as other:
            assert "XDP program" in other.facts["filter"]
            assert port.send(CARRIED, timeout=10) == len(CARRIED)
            assert received(other, len(wanted)) == wanted, expression
            rest = received(linux, len(CARRIED) - len(wanted))
            assert len(rest) + len(wanted) == len(CARRIED)
            assert other.stats()["details"]["xdp_passed"] == len(rest)


def test_a_port_in_memory_gives_only_what_passes(make_pair: Callable[..., Any]) -> None:
    left, right = make_pair(filter="udp dst port 53", mtu=9000)
    frames = [udp(number, port=53 + number % 3) for number in range(100)]
    frames.append(udp(0, bytes(5000)))
    assert left.send(frames) == len(frames)
    assert received(right, 35) == [*frames[:100:3], frames[100]]
    assert right.stats()["rx_filtered"] == 66
    assert right.facts["filter"] == "in this process"
    assert right.frames == (512, 512)


def test_the_length_on_the_wire_counts_and_not_what_is_there() -> None:
    filter = Filter("greater 1000")
    assert not filter.matches(bytes(60))
    assert filter.matches(bytes(60), 1514)
    assert not filter.matches(bytes(1200), 999)


def test_it_shows_its_instructions() -> None:
    filter = Filter("ip")
    assert filter.expression == "ip"
    assert filter.instructions[0] == (0x28, 0, 0, 12)
    assert str(filter).splitlines()[:2] == [
        "(000) ldh      [12]",
        "(001) jeq      #0x800           jt 2\tjf 3",
    ]
    assert repr(filter) == "<Filter 'ip', 4 instructions>"
    # Where there is no tag it asks for what is on the wire.
    assert (0x20, 0, 0, 0xFFFFF030) in filter.socket_instructions()
    assert Filter("").matches(b"")


@tcpdump
def test_its_text_is_tcpdumps(capture: Path) -> None:
    for expression in ("tcp port 80", "vlan 5 and ip6", "ip[2:2] * 2 > ip[6:2] & 0x1fff"):
        command = ["tcpdump", "-d", "-r", str(capture), expression]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        words = [line.split() for line in done.stdout.splitlines()]
        assert [line.split() for line in str(Filter(expression)).splitlines()] == words


def test_a_filter_without_libpcap() -> None:
    instructions = [(0x28, 0, 0, 12), (0x15, 0, 1, 0x0800), (6, 0, 0, 1), (6, 0, 0, 0)]
    filter = Filter.from_instructions(instructions)
    assert filter.matches(udp())
    assert not filter.matches(bytes(60))
    with pytest.raises(ValueError, match="instruction 0 of the packet filter jumps backwards"):
        Filter.from_instructions([(5, 0, 0, 0xFFFFFFFF), (6, 0, 0, 0)])


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("tcp prot 80\n    ^", "syntax error"),
        ("tcp and and udp\n        ^", "syntax error"),
        ("tcp port\n        ^", "syntax error"),
        ("(tcp\n    ^", "syntax error"),
        ("tcp)\n   ^", "syntax error"),
        ("ip[0] = = 1\n        ^", "syntax error"),
        ("tcp port 80 $ 1\n            ^", "syntax error"),
        ("src host 1.2.3.4 dst port 80\n                 ^", "syntax error"),
        ("vlan 5000\n     ^", "VLAN tag 5000 greater than maximum 4095"),
        ("net 10.0.0.1/33\n    ^", "mask length must be <= 32"),
        ("port htpp\n     ^", "unknown port 'htpp'"),
        ("host 1.2.3.400\n     ^", "invalid IPv4 address '1.2.3.400'"),
        ("port 70000\n     ^", "illegal port number 70000 > 65535"),
        ("udp and tcp[0]/0=1\n               ^", "division by zero"),
        ("host ünï\n     ^", "syntax error"),
        ("ip6 protochain 6\n    ^", "protochain takes a loop"),
        ("tcp and inbound\n        ^", "inbound, outbound and ifindex ask for"),
    ],
)
def test_the_caret_is_at_the_place(expression: str, reason: str) -> None:
    text, caret = expression.split("\n")
    with pytest.raises(FilterError) as caught:
        Filter(text)
    error = caught.value
    assert isinstance(error, ValueError)
    assert reason in error.reason
    assert error.expression == text
    assert error.position == caret.index("^")
    first, shown, mark = str(error).split("\n")
    assert first == f"this is no packet filter: {error.reason}"
    assert (shown, mark) == (f"  {text}", f"  {caret}")


def test_an_expression_that_is_hostile() -> None:
    for expression in ("(" * 20_000, "tcp\0udp", "not " * 5_000, "1 + " * 3_000 + "= 1", "\ud800"):
        with pytest.raises(ValueError, match="packet filter"):
            Filter(expression)


def test_what_can_never_be_has_no_place() -> None:
    with pytest.raises(FilterError, match="rejects all packets") as caught:
        Filter("ip and arp")
    assert caught.value.position is None


def test_without_libpcap_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file")

    filter_module._libpcap.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(FileNotFoundError, match=r"apt-get install libpcap0\.8"):
        Filter("tcp")
    monkeypatch.undo()
    assert Filter("tcp")
