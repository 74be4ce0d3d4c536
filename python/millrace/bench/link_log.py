"""What was measured of each flow, a line of JSON each: a table of an hour can be made in parts.

A flow that is in the log is not measured again. What it depends on is in its line: another seed,
length or port is another flow, and so is one that another build or kernel sent.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from millrace.bench.link_cells import Cell, Link


@dataclass(frozen=True)
class Flow:
    """One flow that is to be measured."""

    arm: str
    cell: Cell
    #: Of the wire's dice.
    seed: int
    #: How long it is watched.
    seconds: float
    #: Of our stack.
    port: str
    #: What sent it: a digest of `millrace-bench`, or the kernel's release.
    build: str


@dataclass
class Run:
    """What one flow came to."""

    goodput_mbit: float
    second_half_mbit: float
    #: Packets that left the wire over a millisecond late, of all.
    late_share: float
    #: What the wire failed at, by reason.
    failures: dict[str, int] = field(default_factory=dict)


class Log:
    """The flows that were measured, in a file or, without a path, in memory alone.

    Raises ValueError for a line that is none of ours, with its number.
    """

    def __init__(self, path: str | None = None) -> None:
        self._path = Path(path) if path is not None else None
        self._runs: dict[Flow, Run] = {}
        if self._path is None or not self._path.exists():
            return
        for number, line in enumerate(self._path.read_text().splitlines(), 1):
            try:
                flow, run = _read(json.loads(line))
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(
                    f"{path}:{number} is no flow that --log wrote ({error}); "
                    "take the line out, or name another file"
                ) from None
            self._runs[flow] = run

    def __contains__(self, flow: Flow) -> bool:
        return flow in self._runs

    def __getitem__(self, flow: Flow) -> Run:
        return self._runs[flow]

    def add(self, flow: Flow, run: Run) -> None:
        """Note what a flow came to, at once: an interruption costs no more than a flow."""
        self._runs[flow] = run
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(_line(flow, run)) + "\n")


def _line(flow: Flow, run: Run) -> dict[str, Any]:
    link = asdict(flow.cell.link)
    named = {"arm": flow.arm, "congestion_control": flow.cell.congestion, **link}
    return {
        **named,
        "seed": flow.seed,
        "seconds": flow.seconds,
        "port": flow.port,
        "build": flow.build,
        **asdict(run),
    }


def _read(line: dict[str, Any]) -> tuple[Flow, Run]:
    link = Link(
        loss=float(line["loss"]),
        rtt_ms=float(line["rtt_ms"]),
        reorder=bool(line["reorder"]),
        queue_bdp=float(line["queue_bdp"]),
        rate_mbit=float(line["rate_mbit"]),
    )
    flow = Flow(
        arm=str(line["arm"]),
        cell=Cell(str(line["congestion_control"]), link),
        seed=int(line["seed"]),
        seconds=float(line["seconds"]),
        port=str(line["port"]),
        build=str(line["build"]),
    )
    run = Run(
        goodput_mbit=float(line["goodput_mbit"]),
        second_half_mbit=float(line["second_half_mbit"]),
        late_share=float(line["late_share"]),
        failures={str(name): int(count) for name, count in dict(line["failures"]).items()},
    )
    return flow, run
