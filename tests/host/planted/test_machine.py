"""Captures, files, CPUs: faults planted for real."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from millrace.host.finding import Verdict
from millrace.lab import Wire
from planted.clinic import Clinic
from planted.crafted import frame, ip_packet, send_frames
from planted.hands import on, send_datagrams

pytestmark = pytest.mark.networks


def test_a_capture_loses_frames(wire: Wire, clinic: Clinic) -> None:
    with on(wire.a.host, socket.SOCK_RAW, socket.AF_PACKET) as capture:
        capture.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
        capture.bind((wire.a.name, 3))
        (found,) = clinic.sick("packet-sockets", lambda: send_datagrams(wire, 100, 5000))
        assert "frames dropped" in found.evidence
    with on(wire.a.host, socket.SOCK_RAW, socket.AF_PACKET) as capture:
        capture.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        capture.bind((wire.a.name, 3))
        clinic.well("packet-sockets", lambda: send_datagrams(wire, 100, 5000))


def test_somebody_listens_to_everything(wire: Wire, clinic: Clinic) -> None:
    wire.a.host.run(["ip", "link", "set", "eth0", "promisc", "on"])
    (found,) = clinic.look("promiscuous")
    assert found.verdict is Verdict.INFO
    wire.a.host.run(found.shell.split())
    (found,) = clinic.look("promiscuous")
    assert found.verdict is Verdict.OK


HOARD = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 80))
files = [open("/dev/null") for _ in range(60)]
print("ready", flush=True)
sys.stdin.read()
"""


def test_files_run_out(wire: Wire, clinic: Clinic) -> None:
    host = wire.a.host
    command = ["sh", "-c", 'ulimit -S -n 70; exec "$0" -c "$1"', sys.executable, HOARD]
    program = host.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert program.stdout.readline() == "ready\n"
    (found,) = clinic.sick("open-files")
    assert f"[{program.pid}]" in found.evidence
    _, hard = resource.prlimit(program.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (min(1000, hard), hard))
    clinic.well("open-files")
    program.send_signal(signal.SIGKILL)
    program.communicate()


def attach_slow_filter(capture: socket.socket) -> None:
    """A filter that divides four thousand times and takes nothing (linux/filter.h)."""
    divide = struct.pack("=HBBI", 0x34, 0, 0, 3)  # BPF_ALU | BPF_DIV | BPF_K
    begin, end = struct.pack("=HBBI", 0x80, 0, 0, 0), struct.pack("=HBBI", 0x06, 0, 0, 0)
    program = ctypes.create_string_buffer(begin + divide * 4000 + end)
    pointer = struct.pack("=H6xQ", 4002, ctypes.addressof(program))
    capture.setsockopt(socket.SOL_SOCKET, 26, pointer)  # SO_ATTACH_FILTER


def test_the_backlog_of_a_cpu_overflows(wire: Wire, clinic: Clinic) -> None:
    """Its remedy is the whole machine's, so it is only looked for here."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("needs two CPUs")
    if int(Path("/proc/sys/net/core/netdev_max_backlog").read_text()) > 5000:
        pytest.skip("a sender's buffer fills no backlog of over 5000 packets")
    mask = f"{1 << cpus[1]:x}"
    wire.a.host.run(["sh", "-c", f"echo {mask} > /sys/class/net/eth0/queues/rx-0/rps_cpus"])
    with contextlib.ExitStack() as stack:
        # Captures with slow filters make each packet slow to receive, so the backlog fills.
        for _ in range(3):
            capture = stack.enter_context(on(wire.a.host, socket.SOCK_RAW, socket.AF_PACKET))
            attach_slow_filter(capture)
            capture.bind((wire.a.name, 3))
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {cpus[0]})
        try:
            flood = [frame(wire, ip_packet(wire.b.ip, wire.a.ip, 17, bytes(20)))] * 20_000
            found = clinic.look("softnet-drops", lambda: send_frames(wire.b, flood), machine=True)
        finally:
            os.sched_setaffinity(0, before)
    assert found[0].verdict is Verdict.BAD
    assert "netdev_max_backlog" in found[0].remedy
