"""Our stack and Linux's on the same bad link: `millrace bench links`.

Two hosts are joined by an impaired wire. The sender is the arm under test, our stack on a port or
the kernel's TCP; the receiver is always a kernel socket, which counts what arrives. Both arms meet
the same link: rate, delay, queue, and dice from the same seed. They take turns.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from millrace.bench import binary
from millrace.bench.figures import Row
from millrace.bench.priority import prefer
from millrace.cli.report import Steps
from millrace.lab import Host, Lab, LabError, Statistics, Wire

OURS, LINUX = "millrace", "linux"
ARMS = (OURS, LINUX)

LOSSES = (0.0, 0.001, 0.01, 0.03, 0.1)
ROUND_TRIPS_MS = (1.0, 20.0, 100.0)
QUEUES_BDP = (0.1, 1.0)
RATES_MBIT = (100.0, 1000.0)
CONGESTION = ("cubic", "bbr")
#: With reordering, this share of packets is overtaken, by so much of a round trip.
REORDER = 0.02
REORDER_ROUND_TRIPS = 0.125

#: What each cell is to reach, as a multiple of Linux, and all of them in the median.
LEAST_RATIO, MEDIAN_RATIO = 0.95, 1.0
#: Linux must reach so much of a clean link, or it is not the link that is measured.
PLAUSIBLE_SHARE = 0.9

SHORT_BYTES = (10 << 10, 100 << 10)
SHORT_LOSSES = (0.001, 0.01, 0.03)
SHORT_RATE_MBIT = 100.0
SHORT_ROUND_TRIP_MS = 20.0

#: Linux's on the sender, the receiver's, and our stack's on the sender.
_KERNEL_ADDRESS, _SINK_ADDRESS, _OWN_ADDRESS = "192.0.2.1/24", "192.0.2.2/24", "192.0.2.3/24"
_PORT = 5001
#: More than any product of bandwidth and delay here, with its queue.
_MOST_BUFFER = 128 << 20
_LEAST_BUFFER = 4 << 20
_START_SECONDS = 10.0
_GRACE_SECONDS = 20.0


@dataclass(frozen=True)
class Link:
    """What a link is like."""

    loss: float
    rtt_ms: float
    reorder: bool
    queue_bdp: float
    rate_mbit: float

    @property
    def bdp_bytes(self) -> float:
        """The bandwidth-delay product."""
        return self.rate_mbit * 1e6 / 8 * self.rtt_ms / 1e3

    @property
    def buffer(self) -> int:
        """A send buffer that never limits the flow."""
        wanted = 4 * self.bdp_bytes * (1 + self.queue_bdp)
        return int(min(max(wanted, _LEAST_BUFFER), _MOST_BUFFER))

    @property
    def columns(self) -> Row:
        """As columns of a row."""
        return {
            "loss": self.loss,
            "rtt_ms": self.rtt_ms,
            "reorder": REORDER if self.reorder else 0.0,
            "queue_bdp": self.queue_bdp,
            "rate_mbit_per_s": self.rate_mbit,
        }

    def __str__(self) -> str:
        order = ", reordering" if self.reorder else ""
        return (
            f"{self.rate_mbit:g} Mbit/s, {self.rtt_ms:g} ms, loss {self.loss:.1%}{order}, "
            f"queue {self.queue_bdp:g} BDP"
        )


@dataclass(frozen=True)
class Cell:
    """A link and the congestion control that is tried on it."""

    congestion: str
    link: Link

    def __str__(self) -> str:
        return f"{self.congestion}, {self.link}"


@dataclass
class Run:
    """What one flow came to."""

    goodput_mbit: float
    second_half_mbit: float
    #: Packets that left the wire over a millisecond late, of all.
    late_share: float
    #: What the wire failed at, by reason.
    failures: dict[str, int] = field(default_factory=dict)


def cells(
    *,
    congestion: Sequence[str] = CONGESTION,
    losses: Sequence[float] = LOSSES,
    rtts_ms: Sequence[float] = ROUND_TRIPS_MS,
    reorder: Sequence[bool] = (False, True),
    queues_bdp: Sequence[float] = QUEUES_BDP,
    rates_mbit: Sequence[float] = RATES_MBIT,
) -> list[Cell]:
    """Every combination."""
    return [
        Cell(name, Link(loss, rtt, order, queue, rate))
        for name, rate, queue, order, rtt, loss in itertools.product(
            congestion, rates_mbit, queues_bdp, reorder, rtts_ms, losses
        )
    ]


class Range:
    """Two hosts between which links are made, one after the other."""

    def __init__(self, lab: Lab, port: str) -> None:
        self.sender, self.receiver = lab.host("sender"), lab.host("receiver")
        self._lab = lab
        self._port = port
        self._binary = binary.find()
        for host in (self.sender, self.receiver):
            _prepare(host)

    @contextlib.contextmanager
    def link(self, link: Link, seed: int) -> Iterator[Wire]:
        """A link for the length of a `with`."""
        milliseconds = link.rtt_ms
        wire = self._lab.wire(
            self.sender,
            self.receiver,
            addresses=(_KERNEL_ADDRESS, _SINK_ADDRESS),
            rate=link.rate_mbit * 1e6,
            delay=milliseconds / 2e3,
            queue=f"{link.queue_bdp}bdp",
            loss=link.loss,
            reorder=REORDER if link.reorder else 0.0,
            reorder_delay=milliseconds / 1e3 * REORDER_ROUND_TRIPS,
            seed=seed,
        )
        try:
            yield wire
        finally:
            wire.remove()

    def available(self) -> list[str]:
        """The kernel's congestion controls."""
        names = self.sender.sysctl("net.ipv4.tcp_available_congestion_control")
        return names.split()

    def send(
        self, arm: str, wire: Wire, command: str, congestion: str, buffer: int, *options: str
    ) -> list[str]:
        """The command line of a sender."""
        args = [str(self._binary), command, "--to", f"{wire.b.ip}:{_PORT}"]
        args += ["--congestion", congestion, *options]
        if arm == OURS:
            args += ["--port", f"{self._port}:{wire.a.name}", "--address", _OWN_ADDRESS]
            args += ["--buffer", str(buffer)]
        return args

    @contextlib.contextmanager
    def sink(self, wire: Wire, *options: str) -> Iterator[subprocess.Popen[str]]:
        """A receiver for the length of a `with`."""
        args = [str(self._binary), "sink", "--address", f"{wire.b.ip}:{_PORT}", *options]
        process = self.receiver.popen(
            args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        prefer(process.pid)
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                _, said = process.communicate(timeout=_START_SECONDS)
                raise LabError(said.strip())
            yield process
        finally:
            process.kill()
            process.communicate()


def _prepare(host: Host) -> None:
    # Buffers must not be what limits a flow; both arms send to the same receiver.
    host.sysctl("net.ipv4.tcp_rmem", f"4096 131072 {2 * _MOST_BUFFER}")
    host.sysctl("net.ipv4.tcp_wmem", f"4096 65536 {_MOST_BUFFER}")
    # What one flow learned must not help the next.
    host.sysctl("net.ipv4.tcp_no_metrics_save", 1)
    host.sysctl("net.ipv4.ip_local_port_range", "1024 65535")


def bulk(place: Range, cell: Cell, arm: str, *, seed: int, seconds: float) -> Run:
    """One flow of so many seconds, from its acceptance on; nothing is left out."""
    with place.link(cell.link, seed) as wire:
        args = place.send(arm, wire, "bulk", cell.congestion, cell.link.buffer)
        args += ["--seconds", str(seconds + _GRACE_SECONDS)]
        with place.sink(wire, "--flows", "1", "--seconds", str(seconds)) as sink:
            (flow,) = _flows(place, [args], sink, seconds)
        return _run(flow, wire.statistics())


def _flows(
    place: Range, senders: Sequence[list[str]], sink: subprocess.Popen[str], seconds: float
) -> list[dict[str, Any]]:
    """Start the senders and give what the sink tells of their flows."""
    processes = []
    try:
        for args in senders:
            process = place.sender.popen(
                args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            processes.append(process)
            prefer(process.pid)
        try:
            out, err = sink.communicate(timeout=seconds + _GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            said = [_ended(process) for process in processes]
            reason = "; ".join(filter(None, said)) or "no flow came"
            raise LabError(f"{' '.join(senders[0][1:])}: {reason}") from None
        if sink.returncode != 0:
            raise LabError(err.strip())
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return [json.loads(line) for line in out.splitlines()]


def _ended(process: subprocess.Popen[str]) -> str:
    """What a process that has failed said."""
    if process.poll() in (None, 0) or process.stderr is None:
        return ""
    return process.stderr.read().strip()


def _run(flow: dict[str, Any], told: tuple[Statistics, Statistics]) -> Run:
    steps = flow["steps"]
    half = len(steps) // 2
    later = (steps[-1] - steps[half - 1]) / ((len(steps) - half) * flow["step_ms"] / 1e3)
    sent = sum(way.sent for way in told)
    failures: dict[str, int] = {}
    for way in told:
        for name, count in way.failures.items():
            if count:
                failures[name] = failures.get(name, 0) + count
    return Run(
        goodput_mbit=flow["bytes"] * 8e-6 / flow["seconds"],
        second_half_mbit=later * 8e-6,
        late_share=sum(way.late for way in told) / sent if sent else 0.0,
        failures=failures,
    )


@dataclass
class Outcome:
    """Rows for the table and what to say beneath it."""

    rows: list[Row]
    compared: list[Row]
    notes: list[str]


def measure(
    wanted: Sequence[Cell],
    *,
    port: str = "af_packet",
    seconds: float = 3.0,
    repeat: int = 3,
    seed: int = 1,
    arms: Sequence[str] = ARMS,
    keep: Callable[[Sequence[Row]], None] = lambda rows: None,
) -> Outcome:
    """Every cell by both arms in turn, so often; medians.

    `keep` is given the rows so far after each cell: it all may take an hour, and be interrupted.
    """
    notes = []
    with Lab() as lab:
        place = Range(lab, port)
        wanted, left_out = _possible(wanted, place.available())
        notes += left_out
        notes.append(_plausibility(place, wanted, seed, seconds))
        runs: dict[tuple[Cell, str], list[Run]] = {
            (cell, arm): [] for cell in wanted for arm in arms
        }
        with Steps("links", total=len(runs) * repeat) as steps:
            for number in range(repeat):
                for index, cell in enumerate(wanted):
                    # Who begins changes, so that neither always meets a machine that is warm.
                    turn = arms if (index + number) % 2 == 0 else tuple(reversed(arms))
                    for arm in turn:
                        steps.begin(f"{arm} {cell}")
                        run = bulk(place, cell, arm, seed=seed + number, seconds=seconds)
                        runs[cell, arm].append(run)
                    keep(_rows(runs))
    rows = _rows(runs)
    compared = compare(rows)
    notes += _wire_notes([run for seen in runs.values() for run in seen])
    notes.append(f"Medians of {repeat} flows of {seconds:g} s; the wire's seeds: {seed} and on.")
    return Outcome(rows, compared, notes + summary(compared))


def _possible(wanted: Sequence[Cell], available: Sequence[str]) -> tuple[list[Cell], list[str]]:
    """The cells whose congestion control the kernel has, and what to say of the others."""
    missing = sorted({cell.congestion for cell in wanted} - set(available))
    if not missing:
        return list(wanted), []
    left = [cell for cell in wanted if cell.congestion in available]
    if not left:
        raise LabError(
            f"this kernel has no congestion control {', '.join(missing)} to compare with; "
            f"it has {', '.join(available)}"
        )
    return left, [f"Left out, because this kernel has it not: {', '.join(missing)}."]


def _plausibility(place: Range, wanted: Sequence[Cell], seed: int, seconds: float) -> str:
    """Whether Linux fills a clean link of each rate, which says that the wire can."""
    said = []
    for rate in sorted({cell.link.rate_mbit for cell in wanted}):
        link = Link(loss=0.0, rtt_ms=20.0, reorder=False, queue_bdp=1.0, rate_mbit=rate)
        run = bulk(place, Cell("cubic", link), LINUX, seed=seed, seconds=max(seconds, 3.0))
        share = run.second_half_mbit / rate
        verdict = "plausible" if share >= PLAUSIBLE_SHARE else "THE WIRE OR THE MACHINE IS TOO SLOW"
        said.append(
            f"{run.second_half_mbit:.1f} of {rate:g} Mbit/s once it runs: {verdict}, "
            f"{run.late_share:.2%} of packets late"
        )
    return f"Linux's cubic alone on a clean link of 20 ms: {'; '.join(said)}."


def _rows(runs: Mapping[tuple[Cell, str], Sequence[Run]]) -> list[Row]:
    return [_row(cell, arm, seen) for (cell, arm), seen in runs.items() if seen]


def _row(cell: Cell, arm: str, runs: Sequence[Run]) -> Row:
    goodputs = [run.goodput_mbit for run in runs]
    return {
        "arm": arm,
        "congestion_control": cell.congestion,
        **cell.link.columns,
        "goodput_mbit_per_s": round(statistics.median(goodputs), 3),
        "lowest": round(min(goodputs), 3),
        "highest": round(max(goodputs), 3),
        "second_half_mbit_per_s": round(statistics.median(run.second_half_mbit for run in runs), 3),
        "late_share": round(max(run.late_share for run in runs), 5),
        "runs": len(runs),
    }


def compare(rows: Sequence[Row], figure: str = "goodput_mbit_per_s") -> list[Row]:
    """One row for each cell that both arms have: their figures and the ratio."""
    links = ("congestion_control", "loss", "rtt_ms", "reorder", "queue_bdp", "rate_mbit_per_s")
    linux = {tuple(row[name] for name in links): row[figure] for row in rows if row["arm"] == LINUX}
    found: list[Row] = []
    for row in rows:
        theirs = linux.get(tuple(row[name] for name in links))
        ours = row[figure]
        if row["arm"] != OURS or theirs is None:
            continue
        assert isinstance(ours, float)
        assert isinstance(theirs, float)
        found.append(
            {
                **{name: row[name] for name in links},
                OURS: ours,
                LINUX: theirs,
                "ratio": round(ours / theirs, 3) if theirs else None,
            }
        )
    return found


def summary(compared: Sequence[Row]) -> list[str]:
    """The worst cell, the median, and how many are below what each should reach."""
    ratios: list[tuple[float, Row]] = []
    for row in compared:
        if isinstance(ratio := row["ratio"], float):
            ratios.append((ratio, row))
    if not ratios:
        return []
    median = statistics.median(ratio for ratio, _ in ratios)
    worst, row = min(ratios, key=lambda pair: pair[0])
    low = sum(ratio < LEAST_RATIO for ratio, _ in ratios)
    order = ", reordering" if row["reorder"] else ""
    where = (
        f"{row['congestion_control']}, {row['rate_mbit_per_s']:g} Mbit/s, {row['rtt_ms']:g} ms, "
        f"loss {row['loss']:.1%}{order}, queue {row['queue_bdp']:g} BDP"
    )
    return [
        f"Ratio to Linux over {len(ratios)} cells: median {median:.3f} "
        f"(wanted: above {MEDIAN_RATIO:g}), worst {worst:.3f} ({where}), "
        f"below {LEAST_RATIO:g}: {low}.",
        *(
            f"  {name}: median {statistics.median(own):.3f}, worst {min(own):.3f}, "
            f"below {LEAST_RATIO:g}: {sum(ratio < LEAST_RATIO for ratio in own)} of {len(own)}."
            for name, own in _by_congestion(ratios).items()
        ),
    ]


def _by_congestion(ratios: Sequence[tuple[float, Row]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for ratio, row in ratios:
        found.setdefault(str(row["congestion_control"]), []).append(ratio)
    return found


def _wire_notes(runs: Sequence[Run]) -> list[str]:
    """What the wire did that it should not have."""
    notes = []
    late = [run.late_share for run in runs]
    if late:
        notes.append(
            f"Packets that left the wire over 1 ms late: {statistics.mean(late):.3%} on average, "
            f"at most {max(late):.2%} in a run."
        )
    failures: dict[str, int] = {}
    for run in runs:
        for name, count in run.failures.items():
            failures[name] = failures.get(name, 0) + count
    if failures:
        told = ", ".join(f"{name} {count}" for name, count in failures.items())
        notes.append(f"THE WIRE ITSELF DROPPED PACKETS: {told}.")
    return notes


def fairness(
    wanted: Sequence[Cell], *, port: str, seconds: float, repeat: int, seed: int
) -> Outcome:
    """Two flows, ours and Linux's, on one link: what share each gets."""
    rows: list[Row] = []
    notes = []
    with Lab() as lab, Steps("fairness", total=len(wanted) * repeat) as steps:
        place = Range(lab, port)
        wanted, left_out = _possible(wanted, place.available())
        notes += left_out
        for cell in wanted:
            shares: list[tuple[float, float]] = []
            for number in range(repeat):
                steps.begin(str(cell))
                # The first to come has an advantage, so they take turns.
                order = ARMS if number % 2 == 0 else tuple(reversed(ARMS))
                shares.append(_share(place, cell, order, seed + number, seconds))
            ours = statistics.median(ours for ours, _ in shares)
            linux = statistics.median(linux for _, linux in shares)
            total = ours + linux
            share = statistics.median(ours / (ours + linux) for ours, linux in shares)
            rows.append(
                {
                    "congestion_control": cell.congestion,
                    **cell.link.columns,
                    "millrace_mbit_per_s": round(ours, 2),
                    "linux_mbit_per_s": round(linux, 2),
                    "millrace_share": round(share, 3),
                    "lowest_share": round(min(o / (o + x) for o, x in shares), 3),
                    "highest_share": round(max(o / (o + x) for o, x in shares), 3),
                    "jain": round(total**2 / (2 * (ours**2 + linux**2)), 3),
                    "fair": 0.4 <= share <= 0.6,
                }
            )
    unfair = sum(not row["fair"] for row in rows)
    notes.append(
        f"Medians of {repeat} runs of {seconds:g} s, without the first third; "
        f"outside 40:60 of {len(rows)}: {unfair}."
    )
    return Outcome(rows, [], notes)


def _share(
    place: Range, cell: Cell, order: Sequence[str], seed: int, seconds: float
) -> tuple[float, float]:
    """Megabits a second of ours and of Linux's while both run, after the first third."""
    with place.link(cell.link, seed) as wire:
        senders = []
        for arm in order:
            args = place.send(arm, wire, "bulk", cell.congestion, cell.link.buffer)
            senders.append([*args, "--seconds", str(seconds + _GRACE_SECONDS)])
        # The one that came first is watched for as long, so the last part of one is alone.
        with place.sink(wire, "--flows", "2", "--seconds", str(seconds)) as sink:
            flows = _flows(place, senders, sink, seconds)
        kernel = wire.a.ip
    begun = max(flow["begun_ns"] for flow in flows)
    end = min(flow["begun_ns"] for flow in flows) + seconds * 1e9
    since = begun + (end - begun) / 3
    rates = {
        (LINUX if flow["peer"] == kernel else OURS): _between(flow, since, end) for flow in flows
    }
    return rates[OURS], rates[LINUX]


def _between(flow: dict[str, Any], since: float, until: float) -> float:
    """Megabits a second of a flow between two moments."""

    def bytes_at(moment: float) -> float:
        place = (moment - flow["begun_ns"]) / 1e6 / flow["step_ms"]
        index = min(max(int(place), 0), len(flow["steps"]) - 1)
        return float(flow["steps"][index])

    return (bytes_at(until) - bytes_at(since)) * 8e-6 / ((until - since) / 1e9)


def short(
    *,
    port: str,
    congestion: Sequence[str],
    losses: Sequence[float] = SHORT_LOSSES,
    sizes: Sequence[int] = SHORT_BYTES,
    count: int = 400,
    parallel: int = 4,
    seed: int = 1,
    repeat: int = 1,
) -> Outcome:
    """Many short flows on lossy links: how long each takes, from connecting to the peer's end."""
    rows: list[Row] = []
    plan = list(itertools.product(congestion, losses, sizes))
    with Lab() as lab, Steps("short flows", total=len(plan) * 2 * repeat) as steps:
        place = Range(lab, port)
        for name, loss, size in plan:
            link = Link(loss, SHORT_ROUND_TRIP_MS, False, 1.0, SHORT_RATE_MBIT)
            times: dict[str, list[float]] = {arm: [] for arm in ARMS}
            failed = dict.fromkeys(ARMS, 0)
            for number in range(repeat):
                for arm in ARMS if number % 2 == 0 else reversed(ARMS):
                    steps.begin(f"{arm} {name}, {size >> 10} KiB, loss {loss:.1%}")
                    told = _short(place, link, arm, name, size, count, parallel, seed + number)
                    times[arm] += [micros / 1e3 for micros in told["times_us"]]
                    failed[arm] += told["failed"]
            for arm in ARMS:
                rows.append(
                    {
                        "arm": arm,
                        "congestion_control": name,
                        "bytes": size,
                        "loss": loss,
                        "rtt_ms": link.rtt_ms,
                        "p50_ms": round(_quantile(times[arm], 0.5), 2),
                        "p90_ms": round(_quantile(times[arm], 0.9), 2),
                        "p99_ms": round(_quantile(times[arm], 0.99), 2),
                        "flows": len(times[arm]),
                        "failed": failed[arm],
                    }
                )
    return Outcome(rows, _short_compared(rows), [])


def _short(
    place: Range,
    link: Link,
    arm: str,
    congestion: str,
    size: int,
    count: int,
    parallel: int,
    seed: int,
) -> dict[str, Any]:
    with place.link(link, seed) as wire, place.sink(wire):
        args = place.send(arm, wire, "short", congestion, 1 << 20)
        args += ["--bytes", str(size), "--count", str(count), "--parallel", str(parallel)]
        # A flow takes a few round trips, or some seconds where a timer must run out.
        ran = place.sender.run(args, timeout=60 + count * 2.0)
        told: dict[str, Any] = json.loads(ran.stdout)
        return told


def _short_compared(rows: Sequence[Row]) -> list[Row]:
    found: list[Row] = []
    keys = ("congestion_control", "bytes", "loss")
    linux = {tuple(row[key] for key in keys): row for row in rows if row["arm"] == LINUX}
    for row in rows:
        if row["arm"] != OURS:
            continue
        other = linux[tuple(row[key] for key in keys)]
        compared: dict[str, Any] = {key: row[key] for key in keys}
        for name in ("p50_ms", "p99_ms"):
            ours, theirs = row[name], other[name]
            assert isinstance(ours, float)
            assert isinstance(theirs, float)
            compared[f"{name}_ratio"] = round(ours / theirs, 3) if theirs else None
        found.append(compared)
    return found


def _quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of the others does not exceed (nearest rank)."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    rank = max(0, min(len(ordered) - 1, -int(-share * len(ordered) // 1) - 1))
    return ordered[rank]
