"""What it costs to watch drops: packets a second that a core drops with and without.

A process floods the other end of a wire, where a rule drops every packet, so each packet is a drop.
The arms take turns while it runs. What is compared is processor time for a packet, of neighbours in
time: how fast it is by the clock depends on what else the machine does.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import statistics
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from millrace.bench import core_time
from millrace.cli.report import Value
from millrace.lab import Lab
from millrace.watch.drops import SAMPLES_PER_SECOND

#: Datagrams of one call: the kernel cuts them before the wire.
_SEGMENTS = 64
_BYTES = 22
_UDP_SEGMENT = 103


def measure(seconds: float = 0.5, rounds: int = 10) -> list[dict[str, Value]]:
    """Rows `arm, drops_per_s, ns_per_packet, cost_ns, share_at_500k, ns_of_program`.

    `ns_per_packet` is processor time of the flooding core for a packet that is sent and dropped;
    `cost_ns` is by how much it is more than without, as the median of neighbours; `share_at_500k`
    is that as a share of a core that drops 500,000 packets a second.
    """
    from millrace._native import DropMonitor

    core = max(os.sched_getaffinity(0))
    found: dict[str, list[tuple[float, float]]] = {"off": [], "counting": [], "sampling": []}
    with Lab() as lab, _flood(lab, core) as flood:
        time.sleep(seconds)
        for _ in range(rounds):
            found["off"].append(flood.rate(seconds))
            with DropMonitor():
                found["counting"].append(flood.rate(seconds))
            with DropMonitor() as monitor:
                # As `millrace drops` does it at such a rate.
                monitor.keep_one_of(int(found["off"][-1][0] / SAMPLES_PER_SECOND))
                found["sampling"].append(flood.rate(seconds))
        with DropMonitor() as monitor:
            monitor.measure(True)
            flood.rate(seconds)
            count, nanoseconds, _ = monitor.runs()
    rows: list[dict[str, Value]] = []
    for arm, slices in found.items():
        more = [one - off for (_, one), (_, off) in zip(slices, found["off"], strict=True)]
        cost = statistics.median(more)
        rows.append(
            {
                "arm": arm,
                "drops_per_s": statistics.median(rate for rate, _ in slices),
                "ns_per_packet": statistics.median(time for _, time in slices),
                "cost_ns": cost,
                "share_at_500k": cost * 500_000 / 1e9,
                "ns_of_program": nanoseconds / count if arm == "counting" and count else None,
            }
        )
    return rows


@dataclass(frozen=True)
class _Flood:
    pid: int
    counted: mmap.mmap

    def rate(self, seconds: float) -> tuple[float, float]:
        """Packets a second, and nanoseconds of processor time for each."""
        begun, before, used = self._now()
        time.sleep(seconds)
        end, after, used_after = self._now()
        packets = max(1, after - before)
        return packets / (end - begun), (used_after - used) / packets * 1e9

    def _now(self) -> tuple[float, int, float]:
        used = core_time.process_seconds(self.pid)
        if used is None:
            raise RuntimeError("this kernel does not count processes' time (CONFIG_SCHED_INFO)")
        return time.perf_counter(), int.from_bytes(self.counted[:8], "little"), used


@contextmanager
def _flood(lab: Lab, core: int) -> Iterator[_Flood]:
    client, server = lab.host("client"), lab.host("server")
    # One datagram is one packet on the wire.
    wire = lab.wire(client, server, offloads={"tx-udp-segmentation": False, "gro": False})
    for line in (
        "add table inet t",
        "add chain inet t c { type filter hook prerouting priority -300; }",
        "add rule inet t c udp dport 9 drop",
    ):
        server.run(["nft", line])
    counted = mmap.mmap(-1, mmap.PAGESIZE)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.sched_setaffinity(0, {core})
            with client.enter():
                _send(str(wire.b.ip), counted, parent)
        finally:
            os._exit(0)
    try:
        yield _Flood(pid, counted)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _send(address: str, counted: mmap.mmap, parent: int) -> None:
    flood = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    flood.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, _BYTES)
    flood.connect((address, 9))
    data = bytes(_BYTES * _SEGMENTS)
    sent = 0
    while os.getppid() == parent:
        for _ in range(64):
            flood.send(data)
        sent += 64 * _SEGMENTS
        counted[:8] = struct.pack("<Q", sent)
