"""Ports on wires in memory and capture files: receiving, sending, closing, and what is refused."""

from __future__ import annotations

import errno
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import millrace

from .conftest import udp

Pair = tuple[millrace.Port, millrace.Port]


def test_it_says_what_it_is(pair: Pair) -> None:
    left, right = pair
    assert left.kind == "memory"
    assert (left.mtu, left.mac, right.mac) == (1500, "02:00:00:00:00:01", "02:00:00:00:00:02")
    assert left.timestamps == "software"
    assert left.facts == {"impairment": "none"}
    assert left.batch == 64
    assert repr(left) == f"<Port memory:{left.name}>"
    before = time.time_ns()
    left.send([udp()])
    batch = right.receive()
    assert batch is not None
    assert before - 10**9 < batch.timestamp[0] < time.time_ns() + 10**9


def test_a_loop_over_batches_ends_with_the_wire(pair: Pair) -> None:
    left, right = pair
    left.send([udp(number) for number in range(130)])
    left.close()
    assert [len(batch) for batch in right] == [64, 64, 2]
    assert right.receive() is None


def test_nothing_in_time_is_an_empty_batch(pair: Pair) -> None:
    batch = pair[0].receive(0)
    assert batch is not None
    assert not batch
    assert pair[0].receive(0.001) is not None


@pytest.mark.parametrize("options", [{}, {"mode": "latency"}, {"wait": 200}])
def test_a_waiting_receiver_gets_what_another_thread_sends(
    make_pair: Callable[..., Pair], options: dict[str, Any]
) -> None:
    left, right = make_pair(**options)
    got: list[bytes] = []

    def receive() -> None:
        while len(got) < 100:
            batch = right.receive(30)
            assert batch
            got.extend(batch.tolist())

    thread = threading.Thread(target=receive)
    thread.start()
    sent = 0
    while sent < 100:
        sent += left.send([udp(number) for number in range(sent, min(sent + 7, 100))])
    thread.join()
    assert got == [udp(number) for number in range(100)]
    if options.get("mode") == "latency":
        assert right.batch == 1


def test_a_thread_sends_on_the_port_that_another_waits_on(pair: Pair) -> None:
    left, right = pair
    heard: list[Any] = []
    thread = threading.Thread(target=lambda: heard.append(right.receive(30)))
    thread.start()
    assert right.send([udp(1)]) == 1
    answer = left.receive(30)
    assert answer is not None
    assert left.send(answer) == 1
    thread.join()
    assert heard[0].tolist() == [udp(1)]


@pytest.mark.parametrize("mode", ["throughput", "latency"])
def test_closing_ends_the_wait_of_another_thread(make_pair: Callable[..., Pair], mode: str) -> None:
    _, right = make_pair(mode=mode)
    heard: list[Any] = []
    waits = threading.Event()

    def receive() -> None:
        waits.set()
        heard.append(right.receive())

    thread = threading.Thread(target=receive)
    thread.start()
    waits.wait()
    right.close()
    thread.join()
    # It may have begun to wait only when the port was closed.
    assert heard == [None] or not heard


def test_a_closed_port_says_so(pair: Pair) -> None:
    left, _ = pair
    left.close()
    left.close()
    assert left.closed
    assert list(left) == []
    assert repr(left).startswith("<closed Port memory:")
    for call in (lambda: left.receive(), lambda: left.send([udp()]), left.fileno):
        with pytest.raises(OSError, match=r"the port memory:.* is closed") as caught:
            call()
        assert caught.value.errno == errno.ENOTCONN


def test_ctrl_c_ends_a_wait(program: Callable[..., Any]) -> None:
    process = program(
        "import millrace\n"
        "port = millrace.open('memory:here', hugepages=False)\n"
        "try:\n"
        "    print('waits', flush=True)\n"
        "    port.receive()\n"
        "except KeyboardInterrupt:\n"
        "    print('ended')\n"
    )
    assert process.stdout.readline() == "waits\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "ended\n"


def test_everything_bytes_like_can_be_sent(pair: Pair) -> None:
    left, right = pair
    rows = np.frombuffer(udp(1) + udp(2), np.uint8).reshape(2, 60)
    for frames, count in [
        (udp(1), 1),
        ([bytearray(udp(1)), memoryview(udp(2)), rows[0]], 3),
        (rows, 2),
        (millrace.Batch([udp(1), udp(2)]), 2),
        ((udp(number) for number in range(3)), 3),
        ([], 0),
    ]:
        assert left.send(frames) == count  # type: ignore[arg-type]
        batch = right.receive(0)
        assert batch is not None
        assert batch.tolist() == [udp(1), udp(2), udp(1)][:count] or count == 3


def test_what_is_too_long_is_refused_with_its_size(pair: Pair) -> None:
    left, right = pair
    with pytest.raises(OSError, match=r"packet 1 has 1515 bytes, and .* takes 0 to 1514") as caught:
        left.send([udp(), bytes(1515)])
    assert caught.value.errno == errno.EMSGSIZE
    with pytest.raises(OSError, match="has 65535 bytes"):
        left.send(millrace.Batch([bytes(65535)]))
    assert not right.receive(0)


def test_frames_of_every_length_pass(make_pair: Callable[..., Pair]) -> None:
    left, right = make_pair(mtu=65535)
    frames = [bytes(length) for length in (0, 13, 14, 2048, 9000, 65535, 65549)]
    assert left.send(frames) == len(frames)
    batch = right.receive(0)
    assert batch is not None
    assert batch.tolist() == frames
    assert batch.headers()["length"].tolist() == [len(frame) for frame in frames]


def test_kept_frames_leave_without_a_copy(pair: Pair) -> None:
    left, right = pair
    kept = left.keep([udp(number) for number in range(64)])
    for _ in range(5):
        assert left.send(kept) == 64
        assert right.receive(0)
    assert left.stats()["tx_copied"] == 0
    with pytest.raises(OSError, match="no room to keep 500 frames") as caught:
        left.keep([udp()] * 500)
    assert caught.value.errno == errno.ENOBUFS
    del kept
    assert left.frames == (512, 512)


def test_ports_that_share_frames_pass_batches_on_without_a_copy(
    make_pair: Callable[..., Pair],
) -> None:
    first, second = make_pair()
    third = millrace.open("memory:packets-shared", arena=second, linger=0)
    fourth = millrace.open("memory:packets-shared", hugepages=False, frames=512, linger=0)
    with third, fourth:
        first.send([udp(number) for number in range(10)])
        batch = second.receive(0)
        assert batch
        assert third.send(batch) == 10
        assert third.stats()["tx_copied"] == 0
        answer = fourth.receive(0)
        assert answer is not None
        assert answer.tolist() == batch.tolist()


def test_a_batch_waits_a_little_to_become_full(make_pair: Callable[..., Pair]) -> None:
    # So long that a test which did not end it by filling the batch would be noticed.
    left, right = make_pair(batch=4, linger=60)
    left.send([udp(number) for number in range(4)])
    batch = right.receive()
    assert batch is not None
    assert len(batch) == 4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mode": "fast"}, "mode is 'throughput' or 'latency', not 'fast'"),
        ({"batch": 0}, "batch is a whole number from 1 to 4096, not 0"),
        ({"batch": 64, "frames": 128}, "batches of 64 packets take at least 256 frames"),
        ({"linger": -1}, "linger is a number of seconds"),
        ({"frames": -1}, "frames is a whole number from 0 to 4294967295, not -1"),
        ({"frame_size": 100}, "a frame is a power of two"),
        ({"xdp": "driver"}, "xdp is 'auto', 'native' or 'generic', not 'driver'"),
        ({"arena": 5}, "arena is a port to share frames with, not 5"),
        ({"mtu": 7}, "the MTU is 68 to 65535 bytes"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        millrace.open("memory:packets-wrong", **{"hugepages": False, **options})


def test_an_option_that_is_not_there() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        millrace.open("memory:packets-wrong", colour="red")


@pytest.mark.parametrize("name", ["nosuch:eth1", "", "memory:", "af_xdp:x#y"])
def test_what_is_no_port(name: str) -> None:
    with pytest.raises(ValueError, match="is no port"):
        millrace.open(name)


def test_a_file_is_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcapng"
    frames = [udp(number) for number in range(200)]
    with millrace.open(f"pcap:,{path}", hugepages=False) as port:
        assert port.send(frames) == 200
        assert port.timestamps == "file"
    with millrace.open(f"pcap:{path}", hugepages=False) as port:
        assert [len(batch) for batch in port] == [64, 64, 64, 8]
    with millrace.open(f"pcap:{path}", batch=256, hugepages=False) as port:
        batch = port.receive()
        assert batch is not None
        assert batch.tolist() == frames
        assert abs(int(batch.timestamp[0]) - time.time_ns()) < 60 * 10**9
        assert port.receive() is None


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.pcap"):
        millrace.open(f"pcap:{tmp_path}/missing.pcap")


@pytest.mark.parametrize(
    ("name", "cut", "frames", "says"),
    [
        ("trace.pcap", 5, 2, r"expected a packet's bytes, 60 bytes, but the file ends after 55"),
        # Behind the last packet there is a block of counters.
        ("trace.pcapng", 5, 3, r"expected .*, but the file ends after"),
        ("trace.pcapng", 100, 2, r"expected .*, but the file ends after"),
    ],
)
def test_a_damaged_file_is_read_up_to_the_damage(
    tmp_path: Path, name: str, cut: int, frames: int, says: str
) -> None:
    path = tmp_path / name
    with millrace.open(f"pcap:,{path}", hugepages=False) as port:
        port.send([udp(number) for number in range(3)])
    path.write_bytes(path.read_bytes()[:-cut])
    with millrace.open(f"pcap:{path}", hugepages=False) as port:
        batch = port.receive()
        assert batch is not None
        assert batch.tolist() == [udp(number) for number in range(frames)]
        for _ in range(2):
            with pytest.raises(OSError, match=rf"{name}: byte \d+: {says}"):
                port.receive()


def test_a_lying_file_is_refused_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "trace.pcap"
    with millrace.open(f"pcap:,{path}", hugepages=False) as port:
        port.send([udp(number) for number in range(2)])
    good = path.read_bytes()
    # The second packet says that it has four gigabytes.
    second = 24 + 16 + 60
    path.write_bytes(good[: second + 8] + b"\xff\xff\xff\xff" + good[second + 12 :])
    with millrace.open(f"pcap:{path}", hugepages=False) as port:
        assert len(port.receive() or ()) == 1
        with pytest.raises(OSError, match="a packet of at most 262144 bytes, found 4294967295"):
            port.receive()
    path.write_bytes(b"\0" * 100)
    with pytest.raises(OSError, match="expected the magic number of pcap or pcapng"):
        millrace.open(f"pcap:{path}")


def test_a_full_disk_is_told_when_the_file_is_ended() -> None:
    with pytest.raises(OSError, match="No space left"), millrace.open("pcap:,/dev/full") as port:
        port.send([udp()])
