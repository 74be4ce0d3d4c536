"""Our stack and Linux's on the same bad link: `millrace bench links`.

Two hosts are joined by an impaired wire. The sender is the arm under test, our stack on a port or
the kernel's TCP; the receiver is always a kernel socket, which counts what arrives. Both arms meet
the same link: rate, delay, queue, and dice from the same seed. They take turns.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import platform
import statistics
import subprocess
import time as clock
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from millrace.bench import binary, link_rows
from millrace.bench.figures import Row
from millrace.bench.link_cells import MOST_BUFFER, REORDER, REORDER_ROUND_TRIPS, Cell, Link
from millrace.bench.link_log import Flow, Log, Run
from millrace.bench.link_rows import ARMS, LINUX, OURS
from millrace.bench.priority import favour
from millrace.cli.report import Steps
from millrace.lab import Host, Lab, LabError, Statistics, Wire

#: Linux must reach so much of a clean link, or it is not the link that is measured.
PLAUSIBLE_SHARE = 0.9
#: More packets than this that left the wire late, and the flow is measured once more.
DISTURBED_SHARE = 0.01

SHORT_BYTES = (10 << 10, 100 << 10)
SHORT_LOSSES = (0.001, 0.01, 0.03)
SHORT_RATE_MBIT = 100.0
SHORT_ROUND_TRIP_MS = 20.0

#: Linux's on the sender, the receiver's, and our stack's on the sender.
_KERNEL_ADDRESS, _SINK_ADDRESS, _OWN_ADDRESS = "192.0.2.1/24", "192.0.2.2/24", "192.0.2.3/24"
_PORT = 5001
_START_SECONDS = 10.0
_GRACE_SECONDS = 20.0


class Range:
    """Two hosts between which links are made, one after the other."""

    def __init__(self, lab: Lab, port: str) -> None:
        self.sender, self.receiver = lab.host("sender"), lab.host("receiver")
        self._lab = lab
        self._port = port
        self._binary = binary.find()
        #: What is measured was weighed heavier than the rest of the machine, as far as is known.
        self.is_favoured = True
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

    def notes(self) -> list[str]:
        """What is to be known of the flows that were measured here."""
        if self.is_favoured:
            return []
        return [
            "Whatever else runs here took time from the flows as it liked: to weigh them heavier "
            "takes CAP_SYS_NICE (run as root)."
        ]

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
        self.is_favoured &= favour(process.pid)
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
    host.sysctl("net.ipv4.tcp_rmem", f"4096 131072 {2 * MOST_BUFFER}")
    host.sysctl("net.ipv4.tcp_wmem", f"4096 65536 {MOST_BUFFER}")
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
            place.is_favoured &= favour(process.pid)
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
    #: Flows that there was no time for.
    left: int = 0


def plan(
    wanted: Sequence[Cell],
    *,
    arms: Sequence[str],
    repeat: int,
    seed: int,
    seconds: float | None,
    port: str,
    builds: Mapping[str, str],
) -> list[Flow]:
    """Every flow of a table, in the order in which they are measured.

    Who begins in a cell changes, so that neither arm always meets a machine that is warm.
    """
    flows = []
    for number in range(repeat):
        for index, cell in enumerate(wanted):
            turn = arms if (index + number) % 2 == 0 else tuple(reversed(arms))
            length = cell.seconds if seconds is None else seconds
            flows += [Flow(arm, cell, seed + number, length, port, builds[arm]) for arm in turn]
    return flows


def measure(
    wanted: Sequence[Cell],
    *,
    port: str = "af_packet",
    seconds: float | None = None,
    repeat: int = 3,
    seed: int = 1,
    arms: Sequence[str] = ARMS,
    keep: Callable[[Sequence[Row]], None] = lambda rows: None,
    log: Log | None = None,
    time: float | None = None,
) -> Outcome:
    """Every cell by both arms in turn, so often; medians.

    `keep` is given the rows so far, again and again: it all may take an hour, and be interrupted.
    What is in `log` is not measured again, and no flow is begun once `time` seconds have passed.
    """
    log = Log() if log is None else log
    notes = []
    left = 0
    begun = clock.monotonic()
    with Lab() as lab:
        place = Range(lab, port)
        wanted, left_out = _possible(wanted, place.available())
        notes += left_out
        flows = plan(
            wanted,
            arms=arms,
            repeat=repeat,
            seed=seed,
            seconds=seconds,
            port=port,
            builds=_builds(),
        )
        runs: dict[tuple[Cell, str], list[Run]] = {
            (cell, arm): [] for cell in wanted for arm in arms
        }
        missing = [flow for flow in flows if flow not in log]
        if missing:
            notes.append(_plausibility(place, missing))
        with Steps("links", total=len(missing)) as steps:
            for flow in flows:
                if flow not in log:
                    if time is not None and clock.monotonic() - begun >= time:
                        left += 1
                        continue
                    steps.begin(f"{flow.arm} {flow.cell}")
                    log.add(flow, calm(place, flow))
                    keep(link_rows.rows(runs))
                runs[flow.cell, flow.arm].append(log[flow])
    notes += place.notes()
    rows = link_rows.rows(runs)
    compared = link_rows.compare(rows)
    notes += link_rows.wire_notes([run for seen in runs.values() for run in seen])
    length = "2 to 10 s" if seconds is None else f"{seconds:g} s"
    notes.append(f"Medians of {repeat} flows of {length}; the wire's seeds: {seed} and on.")
    if left:
        notes.append(f"{left} of {len(flows)} flows are left: run the same command again.")
    return Outcome(rows, compared, notes + link_rows.summary(compared), left)


def _builds() -> dict[str, str]:
    """What sends in each arm."""
    with binary.find().open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {OURS: digest[:16], LINUX: platform.release()}


def calm(place: Range, flow: Flow) -> Run:
    """A flow; once more if the machine was too busy for the wire, and then the calmer of both."""
    run = bulk(place, flow.cell, flow.arm, seed=flow.seed, seconds=flow.seconds)
    if run.late_share <= DISTURBED_SHARE:
        return run
    again = bulk(place, flow.cell, flow.arm, seed=flow.seed, seconds=flow.seconds)
    return min(run, again, key=lambda one: one.late_share)


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


def _plausibility(place: Range, flows: Sequence[Flow]) -> str:
    """Whether Linux fills a clean link of each rate, which says that the wire can."""
    said = []
    for rate in sorted({flow.cell.link.rate_mbit for flow in flows}):
        link = Link(loss=0.0, rtt_ms=20.0, reorder=False, queue_bdp=1.0, rate_mbit=rate)
        run = bulk(place, Cell("cubic", link), LINUX, seed=flows[0].seed, seconds=3.0)
        share = run.second_half_mbit / rate
        verdict = "plausible" if share >= PLAUSIBLE_SHARE else "THE WIRE OR THE MACHINE IS TOO SLOW"
        said.append(
            f"{run.second_half_mbit:.1f} of {rate:g} Mbit/s once it runs: {verdict}, "
            f"{run.late_share:.2%} of packets late"
        )
    return f"Linux's cubic alone on a clean link of 20 ms: {'; '.join(said)}."


def fairness(
    wanted: Sequence[Cell],
    *,
    port: str,
    seconds: float | None,
    repeat: int,
    seed: int,
    keep: Callable[[Sequence[Row]], None] = lambda rows: None,
) -> Outcome:
    """Two flows, ours and Linux's, on one link: what share each gets.

    And what share the first of two flows of Linux's gets there, and what both get together: on some
    links its flows do not come to share within the time either, on some they do not fill the link.
    `keep` is given the rows so far.
    """
    rows: list[Row] = []
    notes = []
    itself = 0
    with Lab() as lab, Steps("fairness", total=2 * len(wanted) * repeat) as steps:
        place = Range(lab, port)
        wanted, left_out = _possible(wanted, place.available())
        notes += left_out
        for cell in wanted:
            length = cell.seconds_to_share if seconds is None else seconds
            shares: list[tuple[float, float]] = []
            control: list[tuple[float, float]] = []
            for number in range(repeat):
                steps.begin(str(cell))
                # The first to come has an advantage, so they take turns.
                order = ARMS if number % 2 == 0 else tuple(reversed(ARMS))
                first, second = _share(place, cell, order, seed + number, length)
                shares.append((first, second) if order[0] == OURS else (second, first))
                steps.begin(f"{cell}, Linux beside itself")
                control.append(_share(place, cell, (LINUX, LINUX), seed + number, length))
            pair = statistics.median(first / (first + second) for first, second in control)
            itself += not _fair(pair)
            ours = statistics.median(ours for ours, _ in shares)
            linux = statistics.median(linux for _, linux in shares)
            total = ours + linux
            share = statistics.median(ours / (ours + linux) for ours, linux in shares)
            rows.append(
                {
                    "congestion_control": cell.congestion,
                    **cell.link.columns,
                    "seconds": length,
                    "millrace_mbit_per_s": round(ours, 2),
                    "linux_mbit_per_s": round(linux, 2),
                    "millrace_share": round(share, 3),
                    "lowest_share": round(min(o / (o + x) for o, x in shares), 3),
                    "highest_share": round(max(o / (o + x) for o, x in shares), 3),
                    "jain": round(total**2 / (2 * (ours**2 + linux**2)), 3),
                    "fair": _fair(share),
                    "linux_beside_itself": round(pair, 3),
                    "linux_pair_mbit_per_s": round(statistics.median(map(sum, control)), 2),
                }
            )
            keep(rows)
    notes += place.notes()
    unfair = sum(not row["fair"] for row in rows)
    notes.append(
        f"Medians of {repeat} runs, without the first third of each; outside 40:60 of "
        f"{len(rows)}: {unfair} of ours and Linux's, {itself} of Linux's own pairs."
    )
    return Outcome(rows, [], notes)


def _fair(share: float) -> bool:
    return 0.4 <= share <= 0.6


def _share(
    place: Range, cell: Cell, order: Sequence[str], seed: int, seconds: float
) -> tuple[float, float]:
    """Megabits a second of each of two flows while both run, after the first third."""
    with place.link(cell.link, seed) as wire:
        senders = []
        for arm in order:
            args = place.send(arm, wire, "bulk", cell.congestion, cell.link.buffer)
            senders.append([*args, "--seconds", str(seconds + _GRACE_SECONDS)])
        # The one that came first is watched for as long, so the last part of one is alone.
        with place.sink(wire, "--flows", "2", "--seconds", str(seconds)) as sink:
            flows = _flows(place, senders, sink, seconds)
        kernel = wire.a.ip
    # Two of one kind come from one address; the one that was started first begins first.
    flows.sort(key=lambda flow: (order.index(_arm(flow, kernel)), flow["begun_ns"]))
    begun = max(flow["begun_ns"] for flow in flows)
    end = min(flow["begun_ns"] for flow in flows) + seconds * 1e9
    since = begun + (end - begun) / 3
    first, second = (_between(flow, since, end) for flow in flows)
    return first, second


def _arm(flow: dict[str, Any], kernel: str) -> str:
    return LINUX if flow["peer"] == kernel else OURS


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
    return Outcome(rows, _short_compared(rows), place.notes())


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
