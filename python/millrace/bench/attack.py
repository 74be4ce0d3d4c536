"""A server under attack, and what its well-behaved clients see of it: `millrace bench attack`.

The server has a core to itself; the attacker and the clients share the other, the clients first.
All of them run before whatever else the machine does, where this user may ask for that.
They reach the server over one veth pair, the attacker by a packet socket on the clients' own
interface. The clients ask at a given rate, some on connections that they keep and some on new ones,
before the attack and during it. For comparison the same attack is made on a kernel's server.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from millrace.bench import binary
from millrace.bench.figures import Row
from millrace.bench.priority import PRIORITY, prefer
from millrace.bench.serving import stop
from millrace.cli.report import Steps
from millrace.lab import Lab, LabError, Wire

OURS, LINUX = "millrace", "linux"
ARMS = (OURS, LINUX)

#: What each is, in a few words.
ATTACKS: Mapping[str, str] = {
    "syn": "SYNs from random addresses",
    "ack": "ACKs from random addresses",
    "rst": "resets from random addresses",
    "fin": "FINs from random addresses",
    "syn-near": "SYNs on the clients' connections, near their windows",
    "ack-near": "ACKs on the clients' connections, near their windows",
    "rst-near": "resets on the clients' connections, near their windows",
    "fin-near": "FINs on the clients' connections, near their windows",
    "slow-readers": "a thousand connections that ask and do not read",
    "slow-writers": "a thousand connections that send a byte a second",
    "tiny": "a thousand connections that send single bytes behind gaps",
    "out-of-order": "a thousand connections that send all but the first segment",
}
#: Clients must keep so much of their request rate.
LEAST_RATIO = 0.9

_TCP_PORT = 80
_BODY_BYTES = 1024
#: Addresses that nobody has; the server's way to them leads to the clients' host.
_SOURCES = "198.18.0.0/15"
_SERVER_CORE, _OTHER_CORE = 1, 0
#: Of server and clients: above the attacker's, who gets the rest of the clients' core.
_PRIORITY = PRIORITY + 1
_REPORT_SECONDS = 0.2
_SETTLE_SECONDS = 1.0
_START_SECONDS = 10.0
#: What the program itself, its rings and its stacks may take beside what it counts.
_PROGRAM_BYTES = 48 << 20
_TABLE_BYTES_PER_CONNECTION = 512


@dataclass
class Phase:
    """What the clients saw between two moments."""

    seconds: float
    kept: int = 0
    new: int = 0
    failed: int = 0
    missed: int = 0
    latencies: dict[int, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Requests answered in a second."""
        return (self.kept + self.new) / self.seconds

    def quantile_us(self, share: float) -> float | None:
        """The latency that this share of the requests did not exceed."""
        total = sum(self.latencies.values())
        seen = 0
        for latency, count in sorted(self.latencies.items()):
            seen += count
            if seen >= share * total:
                return float(latency)
        return None

    @classmethod
    def between(cls, lines: Sequence[Mapping[str, Any]], begin: float, end: float) -> Phase:
        """From the clients' reports; each is about the time since the one before it."""
        chosen = [
            (line, line["at_ns"] - before["at_ns"])
            for before, line in itertools.pairwise(lines)
            if begin <= before["at_ns"] and line["at_ns"] <= end
        ]
        phase = cls(seconds=sum(time for _, time in chosen) / 1e9)
        for line, _ in chosen:
            phase.kept += line["kept"]
            phase.new += line["new"]
            phase.failed += line["failed_kept"] + line["failed_new"]
            phase.missed += line["missed"]
            for latency, count in line["latencies_us"]:
                phase.latencies[latency] = phase.latencies.get(latency, 0) + count
        return phase


@dataclass(frozen=True)
class Load:
    """What the clients ask for."""

    rate: float
    new_rate: float
    clients: int = 16


class Lines:
    """The JSON lines of a process, read as they come."""

    def __init__(self, pipe: IO[str]) -> None:
        self.lines: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._thread.start()

    def _read(self, pipe: IO[str]) -> None:
        with pipe:
            for line in pipe:
                with contextlib.suppress(json.JSONDecodeError):  # cut off when it was killed
                    self.lines.append(json.loads(line))

    def join(self) -> list[dict[str, Any]]:
        """All of them, once the process has ended."""
        self._thread.join(5.0)
        return self.lines

    def last(self) -> dict[str, Any]:
        """The latest; empty before the first."""
        return self.lines[-1] if self.lines else {}


class Site:
    """A server and those who come to it."""

    def __init__(self, lab: Lab, arm: str, port: str) -> None:
        self.arm = arm
        self.visitors, self.server = lab.host("visitors"), lab.host("server")
        self.wire: Wire = lab.wire(self.visitors, self.server)
        self._port = port
        self._binary = str(binary.find())
        address = self.wire.address() if arm == OURS else self.wire.b.address
        assert address is not None
        #: The server's, with its prefix length.
        self.address = address
        self.visitors.sysctl("net.ipv4.ip_local_port_range", "1024 65535")
        self.visitors.sysctl("net.ipv4.tcp_max_tw_buckets", 1024)
        # Answers to invented addresses go to the visitors' host, which drops them. Linux would ask
        # for the hardware address of each otherwise.
        self.server.run(["ip", "route", "add", _SOURCES, "via", self.wire.a.ip])
        self.server.sysctl("net.core.somaxconn", 4096)

    @property
    def target(self) -> str:
        """Where the server listens."""
        return f"{self.address.partition('/')[0]}:{_TCP_PORT}"

    @contextlib.contextmanager
    def serving(self) -> Iterator[tuple[subprocess.Popen[Any], Lines]]:
        """The server, for the length of a `with`."""
        if self.arm == OURS:
            args = [self._binary, "http", "--port", f"{self._port}:{self.wire.b.name}"]
            args += ["--address", self.address, "--report", str(_REPORT_SECONDS)]
            args += ["--gateway", self.wire.a.ip]
        else:
            args = [self._binary, "epoll", "--address", self.target]
        args += ["--body", str(_BODY_BYTES)]
        process = self.server.popen(
            args, core=_SERVER_CORE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        lines = Lines(process.stdout)
        try:
            self._wait(process)
            yield process, lines
            if process.poll() is not None:
                raise _ended(process)
        finally:
            stop(process)
            lines.join()
            _close_errors(process)

    def _wait(self, process: subprocess.Popen[Any]) -> None:
        args = ["curl", "-s", "-o", "/dev/null", "--max-time", "1", f"http://{self.target}/"]
        deadline = time.monotonic() + _START_SECONDS
        while self.visitors.run(args, check=False).returncode != 0:
            if process.poll() is not None:
                raise _ended(process)
            if time.monotonic() > deadline:
                raise LabError(f"the server does not answer at {self.target}")

    def visit(self, load: Load, seconds: float) -> subprocess.Popen[Any]:
        """Well-behaved clients."""
        args = [self._binary, "visitors", "--to", self.target, "--seconds", str(seconds)]
        args += ["--rate", str(load.rate), "--new-rate", str(load.new_rate)]
        args += ["--clients", str(load.clients), "--body", str(_BODY_BYTES)]
        process = self.visitors.popen(
            args, core=_OTHER_CORE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        return process

    def attack(
        self, kind: str, seconds: float, pps: int, connections: int
    ) -> subprocess.Popen[Any]:
        """The attacker."""
        args = [self._binary, "attack", "--kind", kind, "--to", self.target]
        args += ["--seconds", str(seconds), "--pps", str(pps), "--connections", str(connections)]
        args += ["--port", self.wire.a.name, "--sources", _SOURCES, "--client", self.wire.a.ip]
        args += ["--to-mac", self.wire.b.mac, "--from-mac", self.wire.a.mac]
        process = self.visitors.popen(
            args, core=_OTHER_CORE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        return process

    def received(self) -> int:
        """Packets that have reached the server's interface."""
        return self.counters()["rx_packets"]

    def counters(self) -> dict[str, int]:
        """Of the server's interface."""
        with self.server.netlink() as netlink:
            (link,) = netlink.get_links(self.wire.b.ifindex)
            told = link.get("stats64")
        return {name: int(told[name]) for name in ("rx_packets", "rx_dropped", "tx_packets")}


def _close_errors(process: subprocess.Popen[Any]) -> None:
    if process.stderr is not None:
        process.stderr.close()


def _ended(process: subprocess.Popen[Any]) -> LabError:
    said = process.stderr.read().strip() if process.stderr else ""
    return LabError(f"the server ended with status {process.returncode}: {said}")


def once(site: Site, kind: str, *, load: Load, seconds: float, pps: int, connections: int) -> Row:
    """One attack on a fresh server: before it, during it, after it."""
    warm = _SETTLE_SECONDS
    # Slow peers need time to come.
    ramp = 3.0 if kind.startswith("slow") else _SETTLE_SECONDS
    total = warm + seconds + ramp + seconds + 2.0
    with site.serving() as (process, reports):
        time.sleep(2 * _REPORT_SECONDS)
        counters_before = dict(reports.last())
        interface_before = site.counters()
        clients = site.visit(load, total)
        assert clients.stdout is not None
        seen = Lines(clients.stdout)
        attacker = None
        try:
            time.sleep(warm)
            # Its threads are there by now.
            preferred = all(prefer(one.pid, _PRIORITY) for one in (process, clients))
            begin = time.monotonic_ns()
            time.sleep(seconds)
            before = (begin, time.monotonic_ns())
            memory_before = _memory(site.arm, process.pid)
            attacker = site.attack(kind, ramp + seconds, pps, connections)
            if pps == 0:
                prefer(attacker.pid)
            time.sleep(ramp)
            attacked_since, arrived_since = time.monotonic(), site.received()
            begin = time.monotonic_ns()
            memory_during = _most_memory(site.arm, process, seconds)
            during = (begin, time.monotonic_ns())
            arrived = site.received() - arrived_since
            offered = arrived / (time.monotonic() - attacked_since)
            out, err = attacker.communicate(timeout=ramp + seconds + 20)
            if attacker.returncode != 0:
                raise LabError(f"the attacker failed: {err.strip()}")
            figures: dict[str, int] = json.loads(out)
            ended = time.monotonic_ns()
            clients.wait(total + 20)
        finally:
            if clients.poll() is None:
                clients.kill()
                clients.wait()
            lines = seen.join()
            _close_errors(clients)
            if attacker is not None and attacker.poll() is None:
                attacker.kill()
                attacker.communicate()
        time.sleep(2 * _REPORT_SECONDS)
        counters_after = dict(reports.last())
        interface_after = site.counters()
        memory_after = _memory(site.arm, process.pid)
    phases = [Phase.between(lines, *phase) for phase in (before, during)]
    after = Phase.between(lines, ended, time.monotonic_ns())
    quiet, hard = phases
    ratio = hard.rate / quiet.rate if quiet.rate else None
    bound = _bound(counters_after)
    return {
        "arm": site.arm,
        "attack": kind,
        "offered_packets_per_s": round(offered),
        "requests_per_s_before": round(quiet.rate, 1),
        "requests_per_s_during": round(hard.rate, 1),
        "ratio": None if ratio is None else round(ratio, 3),
        "kept_ratio": _ratio(hard.kept / hard.seconds, quiet.kept / quiet.seconds),
        "new_ratio": _ratio(hard.new / hard.seconds, quiet.new / quiet.seconds),
        "requests_per_s_after": round(after.rate, 1) if after.seconds else None,
        "failed_during": hard.failed,
        "missed_during": hard.missed,
        "p99_ms_before": _milliseconds(quiet.quantile_us(0.99)),
        "p99_ms_during": _milliseconds(hard.quantile_us(0.99)),
        "memory_mib_before": round(memory_before / 2**20, 1),
        "memory_mib_during": round(memory_during / 2**20, 1),
        "memory_mib_after": round(memory_after / 2**20, 1),
        "memory_mib_bound": None if bound is None else round(bound / 2**20, 1),
        "within_bound": None if bound is None else memory_during <= bound,
        "uncounted_packets": _uncounted(
            counters_before, counters_after, interface_before, interface_after
        ),
        "counted": _differences(counters_before, counters_after),
        "preferred": preferred,
        "attacker": ", ".join(f"{name} {value}" for name, value in figures.items()),
    }


def _ratio(during: float, before: float) -> float | None:
    return round(during / before, 3) if before else None


def _milliseconds(micros: float | None) -> float | None:
    return None if micros is None else round(micros / 1e3, 3)


def _memory(arm: str, pid: int) -> int:
    """Our server's resident memory; of Linux, what its TCP sockets hold."""
    if arm == OURS:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        return 0
    for line in Path(f"/proc/{pid}/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            words = line.split()
            return int(words[words.index("mem") + 1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _most_memory(arm: str, process: subprocess.Popen[Any], seconds: float) -> int:
    """The greatest use of memory in the next seconds."""
    end = time.monotonic() + seconds
    most = 0
    while (left := end - time.monotonic()) > 0:
        most = max(most, _memory(arm, process.pid))
        time.sleep(min(0.1, left))
    return most


def _bound(counters: Mapping[str, int]) -> int | None:
    """What our server may take: its arena, its tables, requests that are not whole, the program."""
    if not counters:
        return None
    arena = counters["frames"] * counters["frame_size"]
    tables = counters["connections_most"] * _TABLE_BYTES_PER_CONNECTION
    return arena + tables + counters["partial_bytes"] + _PROGRAM_BYTES


def _uncounted(
    before: Mapping[str, int],
    after: Mapping[str, int],
    interface_before: Mapping[str, int],
    interface_after: Mapping[str, int],
) -> int | None:
    """Packets that reached our server's interface and are in none of its port's counters."""
    if not before or not after:
        return None
    arrived = interface_after["rx_packets"] - interface_before["rx_packets"]
    names = [name for name in after if name.startswith("rx_")] + ["port_rx_packets"]
    return arrived - sum(after[name] - before[name] for name in names)


def _differences(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """What the server counted from before its clients came until after they had left."""
    quiet = ("at_ns", "frames", "partial_bytes", "turns", "completions", "sleeps", "port_")
    parts = []
    for name, value in after.items():
        more = value - before.get(name, 0)
        if more > 0 and not name.startswith(quiet):
            parts.append(f"{name} {more}")
    return ", ".join(parts)


@dataclass
class Outcome:
    """Rows and what to say beneath them."""

    rows: list[Row]
    notes: list[str]


def measure(
    attacks: Sequence[str],
    *,
    arms: Sequence[str] = ARMS,
    port: str = "af_packet",
    load: Load,
    seconds: float,
    pps: int,
    connections: int,
) -> Outcome:
    """Every attack on every arm, each on a server of its own."""
    if len(os.sched_getaffinity(0)) < 2:
        raise LabError("an attack takes two cores: one for the server, one for all others")
    rows = []
    with Steps("attacks", total=len(attacks) * len(arms)) as steps:
        for kind in attacks:
            for arm in arms:
                steps.begin(f"{kind} on {arm}")
                with Lab() as lab:
                    rows.append(
                        once(
                            Site(lab, arm, port),
                            kind,
                            load=load,
                            seconds=seconds,
                            pps=pps,
                            connections=connections,
                        )
                    )
    return Outcome(rows, _notes(rows, pps))


def _notes(rows: Sequence[Row], pps: int) -> list[str]:
    ours = [row for row in rows if row["arm"] == OURS]
    low = [
        f"{row['attack']} ({row['ratio']})"
        for row in ours
        if row["ratio"] is None or float(row["ratio"]) < LEAST_RATIO
    ]
    over = [str(row["attack"]) for row in ours if row["within_bound"] is False]
    limit = f"at most {pps:,} packets/s" if pps else "as many packets as the machine sends"
    notes = [
        f"The attacker sends {limit}; it shares a core with the clients, and the server has one."
    ]
    if not all(row["preferred"] for row in rows):
        notes.append(
            "This user may not let the server and the clients run before other programs, so these "
            "are figures of an idle machine only if it was one."
        )
    if ours:
        notes.append(
            f"Below {LEAST_RATIO:g} of the request rate before: {', '.join(low) or 'none'}. "
            f"Memory over its bound: {', '.join(over) or 'none'}."
        )
        notes += [f"{row['attack']}: {row['counted'] or 'nothing counted'}" for row in ours]
    return notes
