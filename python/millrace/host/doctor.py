"""Run the checks on snapshots, from this machine or from a file."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from millrace.host.checks import CHECKS, Check, Context, Goal
from millrace.host.finding import Finding, Verdict, worst_first
from millrace.host.own import counting_drops
from millrace.host.snapshot import Observer, Snapshot

#: Without a wish for another: long enough for rates, short enough to wait for.
DEFAULT_WINDOW_SECONDS = 1.0


@dataclass(frozen=True)
class Diagnosis:
    """What was looked at, and what was found."""

    context: Context
    findings: tuple[Finding, ...]
    #: Seconds beside the window.
    seconds: float

    def counts(self) -> dict[Verdict, int]:
        """How many findings have each verdict."""
        counted = Counter(one.verdict for one in self.findings)
        return {verdict: counted[verdict] for verdict in Verdict}

    @property
    def is_bad(self) -> bool:
        """Whether anything is bad."""
        return any(one.verdict is Verdict.BAD for one in self.findings)


def look(
    seconds: float = DEFAULT_WINDOW_SECONDS,
    *,
    wait: Callable[[float], None] = time.sleep,
    observer: Observer | None = None,
) -> list[Snapshot]:
    """Snapshots of this machine at both ends of a window; of no length: one alone."""
    mine = observer or Observer()
    try:
        if seconds <= 0:
            return [mine.snapshot()]
        with counting_drops() as (begin, counted):
            before = replace(mine.snapshot(), drops=begin)
            wait(seconds)
            after = mine.snapshot()
            return [before, replace(after, drops=counted())]
    finally:
        if observer is None:
            mine.close()


def examine(
    snapshots: Sequence[Snapshot],
    *,
    goal: Goal = Goal.NONE,
    interface: str | None = None,
    machine: bool = False,
    checks: Collection[str] | None = None,
) -> Diagnosis:
    """Run the checks on the first and the last of some snapshots.

    Raises `ValueError` for an interface or a check that does not exist.
    """
    begun = time.monotonic()
    before, after = snapshots[0], snapshots[-1]
    if interface is not None:
        names = [link.name for link in after.links or ()]
        if interface not in names:
            raise ValueError(f"there is no interface {interface!r}; there is {', '.join(names)}")
    context = Context(
        now=after,
        window=after - before if len(snapshots) > 1 else None,
        goal=goal,
        interface=interface,
        machine=machine,
    )
    findings = [finding for one in _chosen(checks) for finding in one.run(context)]
    read = sum(one.origin.seconds for one in {id(one): one for one in snapshots}.values())
    return Diagnosis(context, tuple(worst_first(findings)), read + time.monotonic() - begun)


def _chosen(names: Collection[str] | None) -> list[Check]:
    if names is None:
        return list(CHECKS.values())
    return [find(name) for name in names]


def find(name: str) -> Check:
    """A check by its name. Raises `ValueError` with the names that are like it."""
    if name in CHECKS:
        return CHECKS[name]
    import difflib

    near = difflib.get_close_matches(name, CHECKS, 3, 0.4)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(f"there is no check {name!r}{hint} (millrace doctor --list)")
