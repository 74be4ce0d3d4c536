"""Flows by process, by host and by connection: averages over some seconds, and totals that stay
when
a connection has ended.

Counted are the bytes of TCP connections, the kernel's and Millrace's, as their ends know them; of
datagrams nobody keeps books for each flow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from millrace.host.rates import difference
from millrace.watch.netstat import Connection

Value = str | int | float | bool | None

#: Seconds that the averages reach back, about.
REACH = (2.0, 10.0, 40.0)
#: Flows that are kept of each kind; those that moved nothing for longest make way.
MOST_FLOWS = 512

KINDS = ("process", "host", "connection")

Key = tuple[str, str, str, int, str, int]


@dataclass
class _Flow:
    averages: dict[str, list[float]] = field(
        default_factory=lambda: {"in": [0.0] * len(REACH), "out": [0.0] * len(REACH)}
    )
    totals: dict[str, int] = field(default_factory=lambda: {"in": 0, "out": 0})
    moved: dict[str, int] = field(default_factory=lambda: {"in": 0, "out": 0})
    quiet: float = 0.0
    connections: int = 0

    def advance(self, seconds: float) -> None:
        for way, averages in self.averages.items():
            rate = self.moved[way] / seconds
            for at, reach in enumerate(REACH):
                # An exponential average: of a steady rate it is that rate.
                weight = 1 - math.exp(-seconds / reach)
                averages[at] += (rate - averages[at]) * weight
            self.totals[way] += self.moved[way]
        self.quiet = 0.0 if any(self.moved.values()) else self.quiet + seconds
        self.moved = {"in": 0, "out": 0}


class Flows:
    """Adds up what connections moved, tick by tick."""

    def __init__(self) -> None:
        self._flows: dict[tuple[str, str], _Flow] = {}

    def rows(
        self,
        connections: Iterable[Connection],
        earlier: Mapping[Key, Connection],
        seconds: float,
    ) -> list[dict[str, Value]]:
        """All flows, the fastest first."""
        for flow in self._flows.values():
            flow.connections = 0
        for one in connections:
            if one.protocol != "tcp" or one.is_listener or not one.info:
                continue
            key = (one.owner, one.port, one.protocol, one.local_port, one.peer, one.peer_port)
            old = earlier.get(key)
            moved = {
                way: difference(old.info.get(name, 0), one.info.get(name, 0)) if old else 0
                for way, name in (("in", "bytes_received"), ("out", "bytes_acked"))
            }
            names = (one.process or one.owner, one.peer, f"{one.local_address} {one.peer_address}")
            for kind, name in zip(KINDS, names, strict=True):
                flow = self._flows.setdefault((kind, name), _Flow())
                flow.connections += 1
                for way, count in moved.items():
                    flow.moved[way] += count
        for flow in self._flows.values():
            flow.advance(seconds)
        self._forget()
        rows = [self._row(kind, name, flow) for (kind, name), flow in self._flows.items()]
        return sorted(rows, key=_speed, reverse=True)

    def _forget(self) -> None:
        for kind in KINDS:
            there = [key for key in self._flows if key[0] == kind]
            if len(there) > MOST_FLOWS:
                there.sort(key=lambda key: self._flows[key].quiet)
                for key in there[MOST_FLOWS:]:
                    del self._flows[key]

    @staticmethod
    def _row(kind: str, name: str, flow: _Flow) -> dict[str, Value]:
        row: dict[str, Value] = {"kind": kind, "name": name}
        for way, averages in flow.averages.items():
            for reach, average in zip(REACH, averages, strict=True):
                row[f"{way}_{reach:.0f}s"] = round(8 * average, 1)
        row |= {f"total_{way}": total for way, total in flow.totals.items()}
        return row | {"connections": flow.connections, "ended": flow.connections == 0}


def _speed(row: Mapping[str, Value]) -> float:
    return sum(float(row[name] or 0) for name in ("in_2s", "out_2s"))
