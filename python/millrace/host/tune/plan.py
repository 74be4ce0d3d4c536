"""A plan: every write with its old and new value and the reason, and what cannot be written.

Made from a snapshot alone, so that it can be looked at, exported, and made for another machine. It
writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from millrace.host import targets
from millrace.host.finding import Finding, Step
from millrace.host.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Write:
    """One write that is planned."""

    target: str
    #: "" where it could not be read.
    old: str
    new: str
    why: str
    risk: str = ""

    @property
    def title(self) -> str:
        """What it is, for people."""
        return targets.parse(self.target).title

    def shown(self, value: str) -> str:
        """A value of it for people."""
        return targets.parse(self.target).show(value) if value else ""

    @property
    def shell(self) -> str:
        """The line of a shell that does the same."""
        return targets.parse(self.target).shell(self.new)

    @property
    def shell_back(self) -> str:
        """The line that takes it back; "" where the old value is unknown."""
        return targets.parse(self.target).shell(self.old) if self.old else ""


@dataclass(frozen=True, slots=True)
class Advice:
    """What no write of ours does: a reboot, another namespace, a program's own settings."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be written, in this order."""

    title: str
    interface: str
    goal: str
    writes: tuple[Write, ...]
    advice: tuple[Advice, ...] = field(default_factory=tuple)

    def rows(self) -> list[dict[str, str]]:
        """Flat rows for tables and `--json`."""
        return [
            {
                "target": write.title,
                "old": write.shown(write.old),
                "new": write.shown(write.new),
                "why": write.why,
                "shell": write.shell,
                "risk": write.risk,
            }
            for write in self.writes
        ]


class Builder:
    """Collects writes, without those that change nothing or cannot be made from here."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._writes: dict[str, Write] = {}
        self._advice: list[Advice] = []

    def step(self, step: Step, why: str, risk: str = "") -> None:
        """Add a write; a later one to the same target replaces its value."""
        target = targets.parse(step.target)
        if step.old and target.same(step.old, step.new):
            self._writes.pop(step.target, None)
            return
        if target.is_host_wide and not self.snapshot.origin.initial_namespace:
            self.advise(
                f"{target.shell(step.new)}  (the whole machine's: outside this namespace)", why
            )
            return
        self._writes[step.target] = Write(step.target, step.old, step.new, why, risk)

    def steps(self, steps: Iterable[Step], why: str, risk: str = "") -> None:
        """Add several writes for one reason."""
        for step in steps:
            self.step(step, why, risk)

    def advise(self, what: str, why: str) -> None:
        """Add what no write does."""
        one = Advice(what, why)
        if one not in self._advice:
            self._advice.append(one)

    def plan(self, title: str, interface: str = "", goal: str = "") -> Plan:
        """The plan so far."""
        return Plan(title, interface, goal, tuple(self._writes.values()), tuple(self._advice))


def plan_of_findings(snapshot: Snapshot, findings: Iterable[Finding]) -> Plan:
    """What mends some findings, as far as a write does."""
    builder = Builder(snapshot)
    names = []
    for one in findings:
        if one.check not in names:
            names.append(one.check)
        for step in one.steps:
            builder.step(step, f"{one.check}: {one.evidence}", one.risk)
        if one.advice:
            builder.advise(one.advice, f"{one.check}: {one.evidence}")
        if one.command:
            builder.advise(one.command, f"{one.check}: {one.evidence}")
    return builder.plan(f"mend {', '.join(names) or 'nothing'}")
