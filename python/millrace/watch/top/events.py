"""The timeline: what changed and when, so that nobody has to watch all the time."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millrace.watch.top.sample import Sample

Value = str | int | float | bool | None
Rows = list[dict[str, Value]]

#: Events that are kept.
MOST_EVENTS = 256
#: Drops a second from which on a reason is worth an event, and by how much it must have grown.
BURST = 10.0
GROWTH = 10.0
#: Share of segments that are sent again from which on that is worth one.
RETRANSMITS = 0.03
#: How full an accept queue must be.
FULL = 0.9


class Timeline:
    """Notices changes from one tick to the next."""

    def __init__(self) -> None:
        self._events: deque[dict[str, Value]] = deque(maxlen=MOST_EVENTS)
        self._links: dict[str, str] | None = None
        self._processes: dict[int, str] = {}
        self._bursts: dict[str, float] = {}
        self._full: set[str] = set()
        self._again = False

    def rows(self, views: Mapping[str, Rows], before: Sample, sample: Sample) -> Rows:
        """All events that are kept, the latest first."""
        now = sample.time
        if self._links is None:
            self._links, self._processes = _links(before), _own(before)

        def add(kind: str, text: str) -> None:
            self._events.appendleft({"time": round(now, 3), "kind": kind, "text": text})

        self._interfaces(sample, add)
        self._own(sample, add)
        self._drops(views["drops"], add)
        for row in views["listeners"]:
            where = str(row["local"])
            if float(row["fill"] or 0) < FULL:
                self._full.discard(where)
            elif where not in self._full:
                self._full.add(where)
                add("listener", f"{where} of {row['process']}: its accept queue is full")
        for row in views["overview"]:
            if row["what"] == "TCP sent again":
                share = float(row["value"] or 0)
                if share >= RETRANSMITS and not self._again:
                    add("TCP", f"{share:.1%} of all segments are sent again")
                self._again = share >= RETRANSMITS
        return list(self._events)

    def _interfaces(self, sample: Sample, add: object) -> None:
        assert callable(add)
        before, self._links = self._links or {}, _links(sample)
        links = self._links
        for name in sorted(set(links) | set(before)):
            if name not in before:
                add("interface", f"{name} appeared, {links[name]}")
            elif name not in links:
                add("interface", f"{name} is gone")
            elif links[name] != before[name]:
                add("interface", f"{name} went {links[name]}")

    def _own(self, sample: Sample, add: object) -> None:
        assert callable(add)
        there = _own(sample)
        before, self._processes = self._processes, there
        for pid in sorted(set(there) - set(before)):
            add("millrace", f"{there[pid]} opened a channel")
        for pid in sorted(set(before) - set(there)):
            add("millrace", f"{before[pid]} ended, or closed its channels")

    def _drops(self, drops: Rows, add: object) -> None:
        assert callable(add)
        rates: dict[str, float] = {}
        for row in drops:
            if row["kind"] == "loss":
                key = f"{row['reason']} at {row['interface'] or row['where']}"
                rates[key] = rates.get(key, 0.0) + float(row["rate"] or 0)
        for key, rate in rates.items():
            known = self._bursts.get(key, 0.0)
            if rate >= BURST and rate >= GROWTH * max(known, BURST / GROWTH):
                add("drops", f"{key}: {rate:,.0f} a second")
                self._bursts[key] = rate
            elif rate < BURST and known:
                add("drops", f"{key}: it is over")
                del self._bursts[key]


def _links(sample: Sample) -> dict[str, str]:
    return {
        link.name: "up" if link.is_up and link.carrier else "down"
        for link in sample.machine.links or ()
    }


def _own(sample: Sample) -> dict[int, str]:
    return {process.pid: process.title for process, _ in sample.own}
