"""Serve HTTP with every arm in turn, load it with wrk from the other host, and compare.

The rounds are interleaved: each runs every arm in every scenario once, so that what else the
machine does strikes all arms. One veth wire carries the kernel's arms, af_xdp and af_packet, with
the kernel's default offloads; a TAP interface is its own wire, with wrk on its kernel side. While
XDP is attached to the server's end, its peer does not send super-segments; the kernel's arms run
while it is not attached. Answers of this size are one segment either way.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from millrace.bench import arms, binary, core_time, figures, serving, wrk
from millrace.bench.arms import KERNEL, SCENARIOS, TCP_PORT, Contender, Scenario
from millrace.bench.figures import Outcome, Row, Sample
from millrace.bench.wiring import Wiring, lay_out
from millrace.cli.report import Steps
from millrace.lab import Lab

_IDLE_SECONDS = 0.5
#: A core that is busier than this before the first round has other work.
_BUSY_SHARE = 0.1


@dataclass(frozen=True)
class Cores:
    """Which core does what. On a machine with one core both share it."""

    load: int
    server: int

    @classmethod
    def of_this_machine(cls) -> Cores:
        cores = sorted(os.sched_getaffinity(0))
        return cls(cores[0], cores[min(1, len(cores) - 1)])


def measure(
    kinds: tuple[str, ...],
    *,
    seconds: float,
    rounds: int,
    names: frozenset[str] | None = None,
    scenarios: Sequence[Scenario] = SCENARIOS,
) -> Outcome:
    """Measure every arm on the kernel or on each of the port kinds."""
    program = binary.find()
    if shutil.which("wrk") is None:
        raise RuntimeError("wrk is not installed; it makes the load (apt-get install wrk)")
    contenders, notes = runnable(arms.contenders(kinds, names))
    if not contenders:
        raise RuntimeError("; ".join(notes))
    cores = Cores.of_this_machine()
    samples: dict[tuple[Contender, Scenario], list[Sample]] = {
        (contender, scenario): [] for scenario in scenarios for contender in contenders
    }
    with Lab() as lab, _on_core(cores.load):
        wirings = lay_out(lab, kinds)
        idle = _idle_share(cores.server)
        with Steps("demo", total=rounds * len(samples)) as steps:
            for number in range(rounds):
                for (contender, scenario), runs in samples.items():
                    steps.begin(f"{contender.title}, {scenario.title}")
                    wiring = wirings[contender.port]
                    run = _Run(contender, scenario, wiring, program, cores, seconds)
                    runs.append(run.sample(check=number == 0))
    rows = [
        figures.row(contender, scenario, runs) for (contender, scenario), runs in samples.items()
    ]
    return Outcome(rows, [*notes, *_method(rows, samples, cores, seconds, idle)])


@dataclass(frozen=True)
class _Run:
    """One arm in one scenario, once."""

    contender: Contender
    scenario: Scenario
    wiring: Wiring
    program: Path
    cores: Cores
    seconds: float

    def sample(self, *, check: bool) -> Sample:
        wait = self.contender.arm.wait_in(self.scenario)
        wiring = self.wiring
        with tempfile.TemporaryDirectory(prefix="millrace-") as folder:
            site = wiring.site(self.contender.port, self.program, Path(folder))
            command = self.contender.arm.command(site, wait)
            wiring.forget_neighbours()
            with (
                wiring.followed(),
                serving.serving(
                    command,
                    server=wiring.server,
                    client=wiring.client,
                    ip=site.ip,
                    core=self.cores.server,
                ) as process,
            ):
                if check:
                    serving.check_with_curl(wiring.client, site.ip)
                return self._load(f"http://{site.ip}:{TCP_PORT}/", process.pid)

    def _load(self, url: str, pid: int) -> Sample:
        before = core_time.busy_seconds(self.cores.server)
        own_before = core_time.process_seconds(pid)
        load = wrk.run(
            self.wiring.client,
            url,
            connections=self.scenario.connections,
            keepalive=self.scenario.keepalive,
            seconds=self.seconds,
            core=self.cores.load,
        )
        busy = core_time.busy_seconds(self.cores.server) - before
        own = core_time.process_seconds(pid)
        if load.requests == 0:
            raise RuntimeError(f"{self.contender.title} answered no request, {self.scenario.title}")
        return Sample(
            requests=load.requests,
            requests_per_s=load.requests_per_s,
            p50_us=load.p50_us,
            p99_us=load.p99_us,
            server_core_us=busy * 1e6 / load.requests,
            errors=load.errors,
            server_process_us=(
                None
                if own is None or own_before is None
                else (own - own_before) * 1e6 / load.requests
            ),
        )


def runnable(contenders: list[Contender]) -> tuple[list[Contender], list[str]]:
    """Those that have what they need, and a line for each arm left out."""
    found: list[Contender] = []
    notes: list[str] = []
    for contender in contenders:
        if missing := contender.arm.missing():
            notes.append(f"{contender.title} is left out: {', '.join(missing)} is not installed")
        else:
            found.append(contender)
    return found, notes


@contextlib.contextmanager
def _on_core(core: int) -> Iterator[None]:
    """Keep this process off the server's core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _idle_share(core: int) -> float:
    """How busy a core is while nothing is measured, as a share of its time."""
    before, start = core_time.busy_seconds(core), time.monotonic()
    time.sleep(_IDLE_SECONDS)
    return (core_time.busy_seconds(core) - before) / (time.monotonic() - start)


def _method(
    rows: list[Row],
    samples: dict[tuple[Contender, Scenario], list[Sample]],
    cores: Cores,
    seconds: float,
    idle: float,
) -> list[str]:
    """What must be known to read the figures."""
    fewest = min(sample.requests for runs in samples.values() for sample in runs)
    most = max(sample.requests for runs in samples.values() for sample in runs)
    tick_ms = core_time.TICK_SECONDS * 1e3
    notes = [
        f"Medians; rounds: {rows[0]['rounds']} of {seconds:g} s, every arm once in each; "
        f"server on core {cores.server}, wrk on core {cores.load}, body {arms.BODY_BYTES} bytes.",
        f"Server core time is the core's busy time in /proc/stat (all but idle, iowait and steal) "
        f"over wrk's requests. It is sampled in ticks of {tick_ms:g} ms: one tick is "
        f"{core_time.rounding_us(most):.2g} to {core_time.rounding_us(fewest):.2g} µs a request. "
        f"Rounds of one row lay {figures.spread_percent(rows):.0f} % apart in the median "
        f"(min and max are in the JSON rows). Before the first round the core was "
        f"{100 * idle:.1f} % busy; that is not taken off. Server process time is what the "
        f"scheduler counted for the server alone, in nanoseconds.",
    ]
    if idle > _BUSY_SHARE:
        notes.append(
            "The server's core was not idle before the measurement: something else runs on this "
            "machine, and the figures are not to be trusted."
        )
    if any(row["wait"] == "spin" for row in rows):
        notes.append(
            "A server that spins is busy all the time, so its core time says nothing. nginx and "
            "uvloop cannot spin; they sleep."
        )
    if any(row["port"] != KERNEL for row in rows):
        notes.append(
            "Kernel arms were measured on the same wire without XDP attached; a transmit runs "
            "the peer's receive path on the sender's core, in every arm alike."
        )
    if cores.load == cores.server:
        notes.append("Only one core may be used: server and load share it.")
    return notes
