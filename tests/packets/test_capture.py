"""Captures on real interfaces: what is in the file, what is counted, and what ends them."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import millrace
from millrace.lab import Interface, Lab, Wire
from millrace.packets import Capture, CaptureReport, FilterError

from . import pcapng
from .conftest import udp

pytestmark = pytest.mark.networks


@pytest.fixture
def wire(lab: Lab) -> Wire:
    """A wire that carries nothing by itself."""
    wire = lab.wire(lab.host("a"), lab.host("b"), addresses=(None, None))
    for end in (wire.a, wire.b):
        end.host.sysctl(f"net/ipv6/conf/{end.name}/disable_ipv6", 1)
    return wire


@pytest.fixture
def sender(wire: Wire) -> Iterator[millrace.Port]:
    """A port at the other end."""
    with wire.a.host.enter():
        port = millrace.open(f"af_packet:{wire.a.name}")
    yield port
    port.close()


def capture_at(end: Interface, *arguments: Any, **options: Any) -> Capture:
    with end.host.enter():
        return Capture(end.name, *arguments, **options)


def running(capture: Capture, work: Callable[[], None], enough: int) -> CaptureReport:
    """Runs a capture, does some work, and stops it once it has so many packets."""
    reports: list[CaptureReport] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            reports.append(capture.run())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        work()
        while thread.is_alive() and capture.progress()["packets"] < enough:
            time.sleep(0.005)
    finally:
        capture.stop()
        thread.join()
    if failed:
        raise failed[0]
    return reports[0]


def send(port: millrace.Port, frames: list[bytes]) -> None:
    for start in range(0, len(frames), 64):
        assert port.send(frames[start : start + 64], timeout=10) == len(frames[start : start + 64])


def tcpdump(path: Path, *expression: str) -> list[str]:
    """What tcpdump reads, a line for each packet."""
    done = subprocess.run(
        ["tcpdump", "-n", "-t", "-r", str(path), *expression], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_what_came_is_in_the_file_with_its_times_and_counts(
    wire: Wire, sender: millrace.Port, tmp_path: Path
) -> None:
    path = tmp_path / "trace.pcapng"
    frames = [udp(number, bytes(number % 1400)) for number in range(500)]
    before = time.time_ns()
    capture = capture_at(wire.b, path, "udp port 53")
    others = [udp(number, port=54) for number in range(20)]
    report = running(capture, lambda: send(sender, [*frames, *others]), 500)
    after = time.time_ns()
    assert (report.packets, report.lost, report.end) == (500, 0, "stopped")
    assert report.bytes == sum(map(len, frames))
    assert report.written == path.stat().st_size
    found = pcapng.read(path)
    assert found.frames == frames
    times = [when for when, _, _ in found.packets]
    assert before <= times[0]
    assert times[-1] <= after
    assert times == sorted(times)
    assert any(when % 1000 for when in times), "nanoseconds"
    assert found.section[4].startswith(b"millrace ")
    assert found.interface[2] == wire.b.name.encode()
    assert found.interface[9] == b"\x09"
    assert found.interface[11] == b"\0udp port 53"
    # Accepted by the filter, lost by the system, delivered.
    assert (found.count(6), found.count(7), found.count(8)) == (500, 0, 500)
    assert len(tcpdump(path)) == 500


def test_tcpdump_beside_it_sees_the_same(wire: Wire, sender: millrace.Port, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs.pcap", tmp_path / "ours.pcapng"
    expression = "udp port 53 or vlan"
    other = wire.b.host.popen(
        [
            # Its ring has room for so many of the longest packets only.
            *("tcpdump", "-i", wire.b.name, "-w", theirs, "-c", "400", "-B", "16384", "-s", "2048"),
            *("--immediate-mode", "--time-stamp-precision=nano", expression),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert other.stderr is not None
    assert "listening" in "".join(itertools.islice(other.stderr, 1))
    capture = capture_at(wire.b, ours, expression)
    frames = [udp(n, bytes(n % 900), vlan=n % 7 + 1 if n % 3 else None) for n in range(400)]
    running(capture, lambda: send(sender, [*frames, udp(0, port=54)]), 400)
    other.communicate(timeout=30)
    assert other.returncode == 0
    with millrace.open(f"pcap:{theirs}") as file:
        theirs_read = [
            (int(when), bytes(frame))
            for batch in file
            for when, frame in zip(batch.timestamp, batch.tolist(), strict=True)
        ]
    found = pcapng.read(ours)
    assert found.frames == frames
    assert [frame for _, frame in theirs_read] == frames
    # The kernel stamps each packet once for both.
    assert [when for when, _ in theirs_read] == [when for when, _, _ in found.packets]


def test_a_packet_is_cut_and_its_length_is_kept(
    wire: Wire, sender: millrace.Port, tmp_path: Path
) -> None:
    path = tmp_path / "cut.pcapng"
    frames = [udp(number, bytes(number * 10)) for number in range(50)]
    capture = capture_at(wire.b, path, packets=50, snap_length=96)
    report = running(capture, lambda: send(sender, frames), 50)
    assert (report.end, report.packets) == ("packets", 50)
    found = pcapng.read(path)
    assert found.snap_length == 96
    assert found.frames == [frame[:96] for frame in frames]
    assert [original for _, original, _ in found.packets] == [len(frame) for frame in frames]
    assert report.cut == sum(len(frame) > 96 for frame in frames)


def test_which_way_packets_went(wire: Wire, sender: millrace.Port, tmp_path: Path) -> None:
    # Not one of our ports: other sockets do not see what passes by the queueing discipline.
    with wire.b.host.enter():
        back = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        back.bind((wire.b.name, 0))
    with back:
        for direction, wanted in (("in", [udp(1)]), ("out", [udp(2)]), ("both", [udp(1), udp(2)])):
            path = tmp_path / f"{direction}.pcapng"
            capture = capture_at(wire.b, path, direction=direction)

            def both(before: int = wire_count(wire)) -> None:
                send(sender, [udp(1)])
                while wire_count(wire) < before + 1:
                    time.sleep(0.005)
                back.send(udp(2))

            running(capture, both, len(wanted))
            assert pcapng.read(path).frames == wanted


def test_what_finds_the_ring_full_is_counted_to_the_packet(
    wire: Wire, sender: millrace.Port, tmp_path: Path
) -> None:
    path = tmp_path / "full.pcapng"
    # The ring is there before the capture runs, and nobody empties it.
    capture = capture_at(wire.b, path, buffer_bytes=1 << 20)
    frames = [udp(number % 60000, bytes(1000)) for number in range(4000)]
    send(sender, frames)
    while wire_count(wire) < 4000:
        time.sleep(0.005)
    report = running(capture, lambda: None, 1)
    assert report.drops["rx_ring_full"] > 0
    assert report.packets + report.lost == 4000
    found = pcapng.read(path)
    assert found.frames == frames[: report.packets]
    assert found.count(7) == report.lost
    assert found.count(8) == report.packets


def wire_count(wire: Wire) -> int:
    """Packets that the receiving end has counted."""
    with wire.b.host.enter():
        text = Path("/proc/net/dev").read_text()
    line = next(line for line in text.splitlines() if line.strip().startswith(f"{wire.b.name}:"))
    return int(line.split(":")[1].split()[1])


def test_files_follow_one_another_and_the_oldest_go(
    wire: Wire, sender: millrace.Port, tmp_path: Path
) -> None:
    frames = [udp(number, bytes(1000)) for number in range(1000)]
    capture = capture_at(wire.b, tmp_path / "part.pcapng", packets=1000, rotate_bytes=100_000)
    report = running(capture, lambda: send(sender, frames), 1000)
    paths = sorted(tmp_path.glob("part-*.pcapng"))
    assert len(paths) == report.files > 5
    assert paths[0].name == "part-00001.pcapng"
    assert [frame for path in paths for frame in pcapng.read(path).frames] == frames
    assert report.written == sum(path.stat().st_size for path in paths)
    assert sum(len(tcpdump(path)) for path in paths) == 1000
    capture = capture_at(
        wire.b, tmp_path / "last.pcapng", packets=1000, rotate_bytes=100_000, keep=2
    )
    report = running(capture, lambda: send(sender, frames), 1000)
    paths = sorted(tmp_path.glob("last-*.pcapng"))
    assert [path.name for path in paths] == [
        f"last-{number:05}.pcapng" for number in (report.files - 1, report.files)
    ]
    kept = [frame for path in paths for frame in pcapng.read(path).frames]
    assert kept == frames[-len(kept) :]


def test_a_time_ends_it(wire: Wire, tmp_path: Path) -> None:
    capture = capture_at(wire.b, tmp_path / "short.pcapng", seconds=0.05)
    report = capture.run()
    assert (report.end, report.packets) == ("time", 0)
    assert report.seconds >= 0.04
    assert pcapng.read(tmp_path / "short.pcapng").frames == []


def test_a_pcap_file_by_its_name(wire: Wire, sender: millrace.Port, tmp_path: Path) -> None:
    path = tmp_path / "trace.pcap"
    frames = [udp(number) for number in range(10)]
    running(capture_at(wire.b, path, packets=10), lambda: send(sender, frames), 10)
    assert path.read_bytes()[:4] == b"\x4d\x3c\xb2\xa1"
    assert len(tcpdump(path)) == 10
    with millrace.open(f"pcap:{path}") as port:
        batch = port.receive()
        assert batch is not None
        assert batch.tolist() == frames


def test_columns_of_headers_in_parquet(wire: Wire, sender: millrace.Port, tmp_path: Path) -> None:
    from pyarrow import parquet  # type: ignore[import-untyped]

    path = tmp_path / "headers.parquet"
    frames = [udp(number, bytes(number), vlan=number % 5) for number in range(300)]
    capture = capture_at(wire.b, path, "vlan or udp", packets=300)
    report = running(capture, lambda: send(sender, frames), 300)
    assert (report.packets, report.files) == (300, 1)
    assert report.written == path.stat().st_size
    assert not path.with_name("headers.parquet.part").exists()
    table = parquet.read_table(path)
    wanted = millrace.Batch(frames).headers()
    for name in wanted.dtype.names or ():
        if name != "timestamp":
            assert np.array_equal(table[name].to_numpy(), wanted[name]), name
    assert set(table["source"].to_pylist()) == {"10.0.0.1"}
    about = table.schema.metadata
    assert about[b"millrace.interface"] == wire.b.name.encode()
    assert parquet.read_metadata(path).metadata[b"lost"] == b"0"


def test_without_pyarrow_it_says_what_to_install(
    wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install millrace\[parquet\]"):
        capture_at(wire.b, tmp_path / "headers.parquet")
    assert list(tmp_path.iterdir()) == []


def test_the_largest_flows(wire: Wire, sender: millrace.Port) -> None:
    capture = capture_at(wire.b, None, flows=True)
    frames = [udp(1, bytes(1000))] * 30 + [udp(2, bytes(100))] * 60 + [udp(3)] * 5
    report = running(capture, lambda: send(sender, frames), 95)
    assert (report.packets, report.files, report.written) == (95, 0, 0)
    flows, given_up = capture.top(2)
    assert given_up == 0
    assert [(int(flow.headers["source_port"]), flow.packets) for flow in flows] == [
        (1025, 30),
        (1026, 60),
    ]
    assert flows[0].bytes == 30 * 1042


def test_a_full_disk_is_told_and_what_was_written_stays(
    wire: Wire, sender: millrace.Port, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], check=True)
    try:
        path = disk / "trace.pcapng"
        frames = [udp(number, bytes(1000)) for number in range(1000)]
        capture = capture_at(wire.b, path)
        with pytest.raises(OSError, match=r"trace\.pcapng: .*[Nn]o space left") as caught:
            running(capture, lambda: send(sender, frames), 10**9)
        assert caught.value.errno == errno.ENOSPC
        found = pcapng.read(path)
        assert 50 < len(found.frames) < 260
        assert found.frames == frames[: len(found.frames)]
        progress = capture.progress()
        assert progress["packets"] - progress["unwritten"] == len(found.frames)
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("kind", ["af_packet", "af_xdp"])
def test_an_interface_that_goes_is_told_and_what_was_written_stays(
    wire: Wire, sender: millrace.Port, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "trace.pcapng"
    with wire.b.host.enter():
        capture = Capture(f"{kind}:{wire.b.name}", path)
    frames = [udp(number) for number in range(100)]

    def work() -> None:
        send(sender, frames)
        while capture.progress()["packets"] < 100:
            time.sleep(0.005)
        with wire.b.host.netlink() as netlink:
            netlink.link("del", index=wire.b.ifindex)

    with pytest.raises(OSError, match=wire.b.name) as caught:
        running(capture, work, 10**9)
    # An interface that is deleted goes down first.
    assert caught.value.errno in (errno.ENOTCONN, errno.ENODEV, errno.ENETDOWN)
    assert pcapng.read(path).frames == frames


def test_an_interface_that_goes_down(wire: Wire, sender: millrace.Port, tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    capture = capture_at(wire.b, path)

    def work() -> None:
        send(sender, [udp()])
        while capture.progress()["packets"] < 1:
            time.sleep(0.005)
        wire.b.set_down()

    with pytest.raises(OSError, match=f"{wire.b.name} is down") as caught:
        running(capture, work, 10**9)
    assert caught.value.errno == errno.ENETDOWN
    assert pcapng.read(path).frames == [udp()]


def test_frames_of_any_length(lab: Lab, tmp_path: Path) -> None:
    wire = lab.wire(lab.host("a"), lab.host("b"), addresses=(None, None), mtu=65535)
    for end in (wire.a, wire.b):
        end.host.sysctl(f"net/ipv6/conf/{end.name}/disable_ipv6", 1)
    path = tmp_path / "trace.pcapng"
    frames = [udp(0, bytes(length - 42)) for length in (65549, 60, 65535, 9000)]
    # A header and nothing behind it, which is the shortest that a wire carries.
    frames.insert(1, udp()[:14])
    with wire.a.host.enter():
        port = millrace.open(f"af_packet:{wire.a.name}")
    with port:
        capture = capture_at(wire.b, path, packets=5)
        running(capture, lambda: [port.send(f, timeout=10) for f in frames] and None, 5)
    assert pcapng.read(path).frames == frames


def test_what_makes_no_sense(wire: Wire, tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    with pytest.raises(FilterError):
        capture_at(wire.b, path, "tcp prot 80")
    with pytest.raises(FileNotFoundError, match="nosuch"), wire.b.host.enter():
        Capture("nosuch", path)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"direction": "up"}, "direction is 'in', 'out' or 'both'"),
        ({"format": "csv"}, "format is 'pcapng', 'pcap' or 'parquet'"),
        ({"keep": 3}, "keep"),
        ({"rotate_bytes": 10}, "bytes"),
    ]
    for options, text in wrong:
        with pytest.raises(ValueError, match=text):
            capture_at(wire.b, path, **options)
    with pytest.raises(OSError, match="trace"):
        capture_at(wire.b, tmp_path / "none" / "trace.pcapng")
    capture = capture_at(wire.b, path, seconds=0.01)
    capture.run()
    with pytest.raises(RuntimeError, match="has ended"):
        capture.run()


Command = Callable[..., subprocess.Popen[Any]]
MILLRACE = [sys.executable, "-m", "millrace"]


@pytest.fixture
def command() -> Iterator[Callable[..., subprocess.Popen[Any]]]:
    """Starts `millrace capture` on a host; it has begun then."""
    with contextlib.ExitStack() as stack:

        def start(end: Interface, *arguments: object, **options: Any) -> subprocess.Popen[Any]:
            process: subprocess.Popen[Any] = end.host.popen(
                [*MILLRACE, "capture", end.name, *map(str, arguments)],
                stderr=subprocess.PIPE,
                **options,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stderr is not None
            assert b"capturing on" in process.stderr.readline()
            return process

        yield start


def test_the_command_says_what_was_kept_and_lost(
    wire: Wire, sender: millrace.Port, tmp_path: Path, command: Command
) -> None:
    path = tmp_path / "trace.pcapng"
    process = command(wire.b, "udp", "-w", path, "-c", 100, stdout=subprocess.PIPE)
    send(sender, [udp(number) for number in range(100)])
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "100 packets of 6,000 bytes in" in out.decode()
    assert "0 packets were lost" in out.decode()
    assert len(pcapng.read(path).frames) == 100


def test_the_command_ends_with_a_signal_and_keeps_all(
    wire: Wire, sender: millrace.Port, tmp_path: Path, command: Command
) -> None:
    path = tmp_path / "trace.pcapng"
    process = command(wire.b, "-w", path, stdout=subprocess.PIPE)
    frames = [udp(number) for number in range(100)]
    send(sender, frames)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert pcapng.read(path).frames == frames
    assert b"100 packets" in out


def test_what_was_written_survives_a_killed_process(
    wire: Wire, sender: millrace.Port, tmp_path: Path, command: Command
) -> None:
    path = tmp_path / "trace.pcapng"
    process = command(wire.b, "-w", path)
    frames = [udp(number) for number in range(100)]
    send(sender, frames)
    while len(pcapng.read(path).frames) < 100:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait(30)
    assert pcapng.read(path).frames == frames
    assert len(tcpdump(path)) == 100


def test_a_pipe_into_another_program(wire: Wire, sender: millrace.Port, command: Command) -> None:
    process = command(wire.b, "-w", "-", "-c", 50, stdout=subprocess.PIPE)
    reader = subprocess.Popen(
        ["tcpdump", "-n", "-r", "-"],
        stdin=process.stdout,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    send(sender, [udp(number) for number in range(50)])
    out, _ = reader.communicate(timeout=60)
    assert len(out.splitlines()) == 50
    assert process.wait(60) == 0
    assert process.stderr is not None
    assert b"50 packets of 3,000 bytes" in process.stderr.read()


def test_a_reader_of_the_pipe_that_goes_ends_it(wire: Wire, command: Command) -> None:
    read, write = os.pipe()
    process = command(wire.b, "-w", "-", stdout=write)
    os.close(write)
    # No packet comes, and it ends all the same.
    os.close(read)
    assert process.wait(60) != 0
    assert process.stderr is not None
    assert b"0 packets were kept until then" in process.stderr.read()


def test_without_permission_it_says_what_is_missing(wire: Wire, tmp_path: Path) -> None:
    process = wire.b.host.popen(
        [
            *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
            *("--bounding-set=-all", "--inh-caps=-all"),
            *(*MILLRACE, "capture", wire.b.name, "-c", "1"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "CAP_NET_RAW" in error
    assert len(error.splitlines()) == 1


def test_an_error_in_the_expression_has_its_place(wire: Wire) -> None:
    process = wire.b.host.popen(
        [*MILLRACE, "capture", wire.b.name, "tcp prot 80"], stderr=subprocess.PIPE, text=True
    )
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.splitlines()[1:] == ["  tcp prot 80", "      ^"]
