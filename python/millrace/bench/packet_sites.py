"""The wires of the packet bench, and what is counted on them.

    sender a -- b under test            rxdrop
    under test a -- b, Linux            txpush
    sender a -- m under test m -- c     l2fwd

Nobody has an address on any of them, so nothing passes that the bench does not send. Each tool has
wires of its own, so that they can take turns without making way for one another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any, Self

from millrace.lab import Host, Interface, Lab

_START_SECONDS = 30.0
_ANSWER_SECONDS = 60.0
#: Columns of a line of /proc/net/dev: packets and drops of both directions.
_RX_PACKETS, _TX_DROP = 1, 11


def cores() -> tuple[int, int]:
    """The core of what is under test, and that of its sender; the same where there is one only."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[min(1, len(allowed) - 1)]


@dataclass(frozen=True)
class Counters:
    """What Linux counted on an interface."""

    rx_packets: int
    tx_dropped: int

    def __sub__(self, before: Counters) -> Counters:
        return Counters(self.rx_packets - before.rx_packets, self.tx_dropped - before.tx_dropped)


def counters(end: Interface) -> Counters:
    """Of one interface, now."""
    with end.host.enter(), open("/proc/thread-self/net/dev") as table:
        for line in table:
            name, _, values = line.partition(":")
            if name.strip() == end.name:
                numbers = values.split()
                return Counters(int(numbers[_RX_PACKETS]), int(numbers[_TX_DROP]))
    raise RuntimeError(f"{end.name} of {end.host.name} is gone")


@dataclass(frozen=True)
class Site:
    """One tool's wires for one work."""

    work: str
    #: Where packets come from: the tool itself in txpush, else the sender.
    source: Interface
    #: The interfaces that the tool has.
    tested: tuple[Interface, ...]
    #: Where Linux counts what arrives; in rxdrop the tool counts.
    sink: Interface | None

    @property
    def host(self) -> Host:
        """Where the tool runs."""
        return self.tested[0].host


def lay_out(lab: Lab, work: str) -> Site:
    """Make the hosts and wires for a tool."""
    ends: list[Interface] = []

    def wire(a: Host, b: Host) -> tuple[Interface, Interface]:
        made = lab.wire(a, b, addresses=(None, None))
        for end in (made.a, made.b):
            end.host.sysctl(f"net/ipv6/conf/{end.name}/disable_ipv6", 1)
            ends.append(end)
        return made.a, made.b

    number = len(lab.hosts)
    a, b = lab.host(f"a{number}"), lab.host(f"b{number}")
    if work != "l2fwd":
        left, right = wire(a, b)
        if work == "rxdrop":
            return Site(work, left, (right,), None)
        return Site(work, left, (left,), right)
    c = lab.host(f"c{number}")
    left, first = wire(a, b)
    second, right = wire(b, c)
    return Site(work, left, (first, second), right)


class Worker:
    """A program of the bench in a process of its own; see `packet_worker`."""

    def __init__(self, host: Host, core: int, module: str = "packet_worker", **config: Any) -> None:
        command = [sys.executable, "-m", f"millrace.bench.{module}", json.dumps(config)]
        self._process = host.popen(
            command,
            core=core,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            self._hear()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def go(self) -> None:
        """Begin."""
        self._say()

    def end(self) -> dict[str, Any]:
        """End, and tell."""
        self._say()
        return self.result()

    def result(self) -> dict[str, Any]:
        """What it tells when it ends by itself."""
        return self._hear()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _say(self) -> None:
        pipe: IO[str] | None = self._process.stdin
        assert pipe is not None
        pipe.write("\n")
        pipe.flush()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, said = self._process.communicate()
            last = said.strip().splitlines()[-1:] or ["it said nothing"]
            raise RuntimeError(f"a program of the bench ended: {last[0]}")
        told: dict[str, Any] = json.loads(line)
        return told


def ports(kind: str, ends: Sequence[Interface]) -> list[str]:
    """Names of ports on interfaces."""
    return [f"{kind}:{end.name}" for end in ends]
