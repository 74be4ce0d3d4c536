"""Capture files sent again: what leaves, when, and what a damaged file does."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import millrace
from millrace.lab import Lab
from millrace.packets import Capture, FilterError, Replay, sender

from .conftest import udp

Pair = tuple[millrace.Port, millrace.Port]


def pcap(packets: list[tuple[float, bytes]], *, originals: dict[int, int] | None = None) -> bytes:
    """A file with nanoseconds, of packets with their seconds."""
    data = struct.pack("<IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)
    for number, (when, frame) in enumerate(packets):
        nanoseconds = round(when * 1e9)
        original = (originals or {}).get(number, len(frame))
        data += struct.pack(
            "<IIII", nanoseconds // 10**9, nanoseconds % 10**9, len(frame), original
        )
        data += frame
    return data


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    """Writes a file."""

    def write(data: bytes) -> Path:
        path = tmp_path / "trace.pcap"
        path.write_bytes(data)
        return path

    return write


def receive(port: millrace.Port) -> list[bytes]:
    """All that is there."""
    frames: list[bytes] = []
    while batch := port.receive(0):
        frames += batch.tolist()
    return frames


def test_what_is_in_the_file_leaves(pair: Pair, write: Callable[[bytes], Path]) -> None:
    left, right = pair
    frames = [udp(number, bytes(number)) for number in range(200)]
    path = write(pcap([(100.0, frame) for frame in frames]))
    report = Replay(path, fastest=True).run(left)
    assert (report.packets, report.read, report.times) == (200, 200, 1)
    assert report.bytes == sum(map(len, frames))
    assert (report.lost, report.cut, report.filtered) == (0, 0, 0)
    assert receive(right) == frames


def test_it_takes_as_long_as_the_capture_did(pair: Pair, write: Callable[[bytes], Path]) -> None:
    left, right = pair
    frames = [udp(number) for number in range(5)]
    path = write(pcap([(50 + number * 0.05, frame) for number, frame in enumerate(frames)]))
    assert Replay(path).run(left).seconds >= 0.19
    assert Replay(path, speed=2).run(left).seconds >= 0.09
    assert receive(right) == frames * 2
    batch_times: list[int] = []
    Replay(path, speed=10).run(left)
    while batch := right.receive(0):
        batch_times += batch.timestamp.tolist()
    assert (batch_times[-1] - batch_times[0]) >= 19_000_000


def test_times_that_lie_keep_nobody_waiting(pair: Pair, write: Callable[[bytes], Path]) -> None:
    left, right = pair
    frames = [udp(number) for number in range(4)]
    # A year later, then a year back.
    path = write(pcap(list(zip([0.0, 3e7, 1.0, 1.01], frames, strict=True))))
    report = Replay(path, longest_gap=0.01).run(left)
    assert report.packets == 4
    assert report.gaps_cut >= 1
    assert receive(right) == frames


def test_a_part_of_it_over_and_over(pair: Pair, write: Callable[[bytes], Path]) -> None:
    left, right = pair
    frames = [udp(number, port=53 + number % 2) for number in range(10)]
    path = write(pcap([(1.0, frame) for frame in frames]))
    report = Replay(path, "udp port 53", fastest=True, times=3).run(left)
    assert (report.packets, report.read, report.filtered, report.times) == (15, 30, 15, 3)
    assert receive(right) == frames[::2] * 3
    report = Replay(path, fastest=True, times=1000, packets=12).run(left)
    assert report.packets == 12
    assert receive(right) == [*frames, *frames[:2]]


@pytest.mark.networks
@pytest.mark.parametrize("kind", ["af_packet", "af_xdp", "xdp_live"])
def test_what_does_not_fit_the_link_is_left_out_and_counted(
    lab: Lab, write: Callable[[bytes], Path], kind: str
) -> None:
    wire = lab.wire(lab.host("a"), lab.host("b"), addresses=(None, None))
    for end in (wire.a, wire.b):
        end.host.sysctl(f"net/ipv6/conf/{end.name}/disable_ipv6", 1)
    sizes = [0, 13, 14, 60, 1514, 1515, 65535]
    path = write(pcap([(1.0, udp(1, bytes(65500))[:size]) for size in sizes], originals={3: 1000}))
    with wire.b.host.enter():
        right = millrace.open(f"af_xdp:{wire.b.name}")
    with right, wire.a.host.enter(), sender(f"{kind}:{wire.a.name}") as port:
        report = Replay(path, fastest=True).run(port)
        assert (report.too_short, report.too_long, report.cut) == (2, 2, 1)
        assert (report.packets, report.lost) == (3, 0)
        found: list[bytes] = []
        while len(found) < 3 and (batch := right.receive(10)):
            found += batch.tolist()
        assert list(map(len, found)) == [14, 60, 1514]


@pytest.mark.parametrize("cut", [1, 15, 17, 60])
def test_all_before_a_damage_is_sent(pair: Pair, write: Callable[[bytes], Path], cut: int) -> None:
    left, right = pair
    frames = [udp(number) for number in range(20)]
    whole = pcap([(1.0, frame) for frame in frames])
    replay = Replay(write(whole[:-cut]), fastest=True)
    with pytest.raises(OSError, match=r"trace\.pcap"):
        replay.run(left)
    assert replay.progress()["packets"] == 19
    assert receive(right) == frames[:19]


def test_a_length_that_lies(pair: Pair, write: Callable[[bytes], Path]) -> None:
    left, right = pair
    data = pcap([(1.0, udp()), (1.0, udp())])
    at = 24 + 16 + 60 + 8
    path = write(data[:at] + struct.pack("<I", 0x7FFFFFFF) + data[at + 4 :])
    with pytest.raises(OSError, match=r"trace\.pcap"):
        Replay(path, fastest=True).run(left)
    assert receive(right) == [udp()]


def test_what_is_no_capture_file(write: Callable[[bytes], Path], tmp_path: Path) -> None:
    for data in (b"", b"x" * 100, pcap([])[:20]):
        with pytest.raises(OSError, match=r"trace\.pcap"):
            Replay(write(data))
    with pytest.raises(FileNotFoundError, match="none"):
        Replay(tmp_path / "none.pcap")
    with pytest.raises(IsADirectoryError):
        Replay(tmp_path)


def test_a_file_without_packets_ends(pair: Pair, write: Callable[[bytes], Path]) -> None:
    assert Replay(write(pcap([])), times=1000).run(pair[0]).packets == 0


def test_what_makes_no_sense(write: Callable[[bytes], Path]) -> None:
    path = write(pcap([(1.0, udp())]))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"speed": 2, "fastest": True}, "one pace"),
        ({"packets_per_s": 2, "bits_per_s": 5}, "one pace"),
        ({"speed": 0}, "a speed is a number above 0"),
        ({"speed": float("nan")}, "a speed is a number above 0"),
        ({"packets_per_s": -1}, "a pace is a number above 0"),
        ({"times": 0}, "times is a whole number from 1 to"),
        ({"batch": 0}, "batch is a whole number from 1 to 64, not 0"),
        ({"longest_gap": -1}, "longest_gap"),
    ]
    for options, text in cases:
        with pytest.raises(ValueError, match=text):
            Replay(path, **options)
    with pytest.raises(FilterError):
        Replay(path, "udp prot 7")


def test_it_ends_when_it_is_told(pair: Pair, write: Callable[[bytes], Path]) -> None:
    path = write(pcap([(float(number), udp()) for number in range(1000)]))
    replay = Replay(path)
    report = replay.run(pair[0], lambda _: replay.stop(), interval=0.01)
    assert 1 <= report.packets < 1000


@pytest.mark.networks
@pytest.mark.parametrize("kind", ["af_packet", "af_xdp", "xdp_live"])
def test_a_capture_leaves_again_as_it_came(lab: Lab, tmp_path: Path, kind: str) -> None:
    wire = lab.wire(lab.host("a"), lab.host("b"), addresses=(None, None))
    for end in (wire.a, wire.b):
        end.host.sysctl(f"net/ipv6/conf/{end.name}/disable_ipv6", 1)
    path = tmp_path / "trace.pcapng"
    frames = [udp(number, bytes(number * 7), vlan=number % 3 or None) for number in range(200)]
    with wire.a.host.enter(), millrace.open(f"af_packet:{wire.a.name}") as left:
        with wire.b.host.enter():
            capture = Capture(wire.b.name, path, packets=200)
        for start in range(0, 200, 50):
            assert left.send(frames[start : start + 50], timeout=10) == 50
        assert capture.run().packets == 200
    with wire.b.host.enter():
        right = millrace.open(f"af_xdp:{wire.b.name}")
    with right, wire.a.host.enter(), sender(f"{kind}:{wire.a.name}") as port:
        # Fewer at once than a veth has room for.
        report = Replay(path, packets_per_s=20_000).run(port)
        assert (report.packets, report.lost) == (200, 0)
        found: list[bytes] = []
        while len(found) < 200 and (batch := right.receive(10)):
            found += batch.tolist()
        assert found == frames
