"""Frames of a running process, as pcapng and as text."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from millrace.watch import dump, pcapng, processes
from millrace.watch.pcapng import Packet

MILLRACE = [sys.executable, "-m", "millrace"]


def start(*words: str) -> subprocess.Popen[bytes]:
    """`millrace dump`, watching by the time this returns."""
    process = subprocess.Popen(
        [*MILLRACE, "dump", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    assert process.stderr is not None
    assert b"watching" in process.stderr.readline()
    return process


def tcpdump(*words: str) -> list[str]:
    found = subprocess.run(["tcpdump", "-n", *words], capture_output=True, check=True, text=True)
    return found.stdout.splitlines()


def test_frames_of_both_ways_are_seen_by_tcpdump(
    watched: Callable[..., Any], tmp_path: Path
) -> None:
    program = watched()
    file = tmp_path / "out.pcapng"
    process = start("--port", "memory:wire", "-w", str(file))
    # Some turns later the frames have passed, and those of the end.
    program.do("handle.write(b'hello'); [turn() for _ in range(50)]")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert b" frames, 0 lost" in said
    lines = tcpdump("-r", str(file), "-tttt", "port", "80")
    # Each of the two channels has seen it once: it was sent, and received.
    assert sum("192.0.2.2.80" in line and "length 5" in line for line in lines) == 2
    packets = [
        meaning
        for _, meaning in pcapng.Stream().feed(file.read_bytes())
        if isinstance(meaning, Packet)
    ]
    hello = [packet for packet in packets if packet.data.endswith(b"hello")]
    assert {(packet.interface, packet.direction) for packet in hello} == {
        (0, pcapng.OUTBOUND),
        (1, pcapng.INBOUND),
    }


def test_text_has_one_line_a_frame_and_ends_after_a_count(watched: Callable[..., Any]) -> None:
    program = watched()
    process = start("-c", "2")
    program.do("handle.write(b'hello'); [turn() for _ in range(50)]")
    out, said = process.communicate(timeout=30)
    lines = out.decode().splitlines()
    assert len(lines) == 2
    assert "memory:wire Out TCP 192.0.2.1:" in lines[0]
    assert "[P.]" in lines[0]
    assert "length 5" in lines[0]
    assert b"2 frames, 0 lost" in said


def test_a_pipe_to_another_program(watched: Callable[..., Any]) -> None:
    program = watched()
    process = start("-w", "-", "-s", "80")
    reader = subprocess.Popen(
        ["tcpdump", "-n", "-r", "-"], stdin=process.stdout, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    program.do("handle.write(bytes(1000)); [turn() for _ in range(50)]")
    process.send_signal(signal.SIGTERM)
    out, _ = reader.communicate(timeout=30)
    assert "length 1000" in out
    assert process.wait(30) == 0
    process.communicate()


def test_super_segments_are_whole_and_small_buffers_lose_and_say_so(
    watched: Callable[..., Any],
) -> None:
    program = watched()
    found = program.found()
    with dump.Capture(found, found.pages[:1], buffer=4096) as capture:
        # Nobody reads meanwhile, so what fits neither the buffers nor the socket is lost.
        program.do("[(handle.write(bytes(65000)), [turn() for _ in range(20)]) for _ in range(50)]")
        capture.stop()
        packets = [packet for _, packet in capture.blocks() if packet is not None]
        assert capture.is_complete
        assert capture.lost["memory:wire"] > 0
        assert "found no room in the buffer of 4,096 bytes" in capture.summary()
    # Frames that are too large for the whole buffer are lost; those behind them are not.
    assert all(len(packet.data) == packet.original for packet in packets)
    with dump.Capture(found, found.pages[:1]) as capture:
        program.do("handle.write(bytes(65000)); [turn() for _ in range(99)]")
        capture.stop()
        sizes = [packet.original for _, packet in capture.blocks() if packet is not None]
        assert sum(capture.lost.values()) == 0
    assert max(sizes) > 1514


def test_the_last_frames_are_seen_of_a_process_that_ends_at_once(
    watched: Callable[..., Any],
) -> None:
    program = watched()
    process = start()
    assert program.process.stdin is not None
    program.process.stdin.write("client.close(0); server.close(0); os._exit(0)\n")
    program.process.stdin.close()
    out, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert b"[R" in out
    assert b"0 lost" in said


def test_one_too_many_is_told(watched: Callable[..., Any]) -> None:
    program = watched()
    looking = [start() for _ in range(4)]
    found = program.found()
    with (
        pytest.raises(OSError, match="as many as can look at the frames of memory:wire"),
        dump.Capture(found, found.pages),
    ):
        pass
    # A place that is free again is found, at once or a little later.
    gone = looking.pop()
    gone.kill()
    gone.communicate()
    looking.append(start())
    program.end()
    for process in looking:
        assert b"[R" in process.communicate(timeout=30)[0]


def test_the_process_goes_on_when_its_watcher_is_killed_and_ends_when_it_does(
    watched: Callable[..., Any],
) -> None:
    program = watched()
    for _ in range(6):
        process = start()
        process.kill()
        process.communicate()
        program.do("handle.write(b'x' * 1000); [turn() for _ in range(20)]")
    last = start()
    program.end()
    out, said = last.communicate(timeout=30)
    assert last.returncode == 0
    assert b"[R" in out  # its channels reset what was open
    assert b"0 lost" in said


def test_a_killed_process_ends_the_stream_and_the_loss_is_unknown(
    watched: Callable[..., Any],
) -> None:
    program = watched()
    process = start()
    program.kill()
    _, said = process.communicate(timeout=30)
    assert b"ended before it could say what was lost" in said


def test_a_full_disk_is_an_error_with_the_files_name(watched: Callable[..., Any]) -> None:
    program = watched()
    process = start("-w", "/dev/full")
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert b"No space left on device" in said
    program.do("pass")


def test_a_reader_that_goes_away_is_no_error_of_ours(watched: Callable[..., Any]) -> None:
    program = watched()
    process = start("-w", "-")
    assert process.stdout is not None
    process.stdout.close()
    program.do("[(handle.write(b'x'), turn()) for _ in range(200)]")
    assert process.wait(30) == 141
    assert process.stderr is not None
    process.stderr.close()


def test_what_is_meant_must_be_clear(watched: Callable[..., Any], run_folder: Path) -> None:
    with pytest.raises(ValueError, match="there are: none"):
        dump.choose(processes.find(), None, None)
    first, second = watched(), watched()
    with pytest.raises(ValueError, match=r"several processes fit.*--pid"):
        dump.choose(processes.find(), None, None)
    process, pages = dump.choose(processes.find(), second.process.pid, "wire")
    assert process.pid == second.process.pid
    assert len(pages) == 2
    with pytest.raises(ValueError, match="memory:wire"):
        dump.choose(processes.find(), first.process.pid, "eth9")


def test_a_filter_chooses_frames(watched: Callable[..., Any]) -> None:
    pytest.importorskip("millrace.packets.filter")
    program = watched()
    process = start("tcp", "dst", "port", "80", "and", "greater", "500", "-c", "1")
    program.do("handle.write(b'x' * 10); [turn() for _ in range(50)]")
    program.do("handle.write(b'x' * 1000); [turn() for _ in range(50)]")
    out, said = process.communicate(timeout=30)
    (line,) = out.decode().splitlines()
    assert "length 1000" in line
    assert re.search(rb"1 frames of \d+, 0 lost", said)
    wrong = subprocess.run([*MILLRACE, "dump", "tcp prot 80"], capture_output=True, timeout=30)
    assert wrong.returncode == 1
    assert b"no packet filter" in wrong.stderr


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n", "does not begin"),
        (b"\x0a\x0d\x0d\x0a\xff\xff\xff\xff" + bytes(8), "claims 4294967295"),
        (b"\x0a\x0d\x0d\x0a\x0d\0\0\0" + bytes(8), "claims 13"),
        (
            b"\x0a\x0d\x0d\x0a\x1c\0\0\0" + bytes(16) + b"\x1c\0\0\0"
            b"\x06\0\0\0\x20\0\0\0" + bytes(12) + b"\xff\0\0\0" + bytes(12),
            "claims 255 bytes",
        ),
    ],
)
def test_a_stream_that_lies_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        list(pcapng.Stream().feed(data))
