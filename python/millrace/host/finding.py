"""What a check found: verdict, evidence, why it matters, and what mends it."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

from millrace.host import targets


class Verdict(enum.StrEnum):
    """How it stands, best last in `SEVERITY`."""

    BAD = "bad"
    WARN = "warn"
    INFO = "info"
    OK = "ok"
    SKIP = "skip"


#: The order in which findings are shown.
SEVERITY = {
    verdict: rank
    for rank, verdict in enumerate(
        (Verdict.BAD, Verdict.WARN, Verdict.INFO, Verdict.SKIP, Verdict.OK)
    )
}


class Layer(enum.StrEnum):
    """Where on the path of a packet, in the order a received one passes them."""

    NIC = "nic"
    RING = "ring"
    INTERRUPT = "interrupt"
    SOFTNET = "softnet"
    PROTOCOL = "protocol"
    SOCKET = "socket"
    APPLICATION = "application"
    TRANSMIT = "transmit"
    CPU = "cpu"
    MEMORY = "memory"
    PLATFORM = "platform"
    MILLRACE = "millrace"


LAYERS = {layer: rank for rank, layer in enumerate(Layer)}


@dataclass(frozen=True, slots=True)
class Scope:
    """What a finding is about."""

    #: "host", "namespace", "device", "queue" or "socket".
    kind: str
    #: Which one; "" for the only one.
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".strip()


HOST = Scope("host")
NAMESPACE = Scope("namespace")


@dataclass(frozen=True, slots=True)
class Step:
    """One write that mends something: what is written, what was there, what comes."""

    #: As `millrace.host.targets` reads it: "sysctl:net.core.somaxconn".
    target: str
    #: "" where it could not be read.
    old: str
    new: str

    @property
    def shell(self) -> str:
        """The same as a line for a shell."""
        return targets.parse(self.target).shell(self.new)

    def __str__(self) -> str:
        target = targets.parse(self.target)
        new = target.show(self.new)
        return (
            f"{target.title}: {target.show(self.old)} -> {new}"
            if self.old
            else (f"{target.title}: {new}")
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check for one thing."""

    check: str
    layer: Layer
    scope: Scope
    verdict: Verdict
    evidence: str
    why: str = ""
    #: Writes that `millrace tune --fix` does, in this order.
    steps: tuple[Step, ...] = field(default_factory=tuple)
    #: What is to be done where no write of ours does it.
    advice: str = ""
    #: What the remedy may cost.
    risk: str = ""
    #: A line to paste that no step stands for.
    command: str = ""

    @property
    def remedy(self) -> str:
        """What mends it, for people."""
        parts = [str(step) for step in self.steps]
        return "; ".join([*parts, self.advice] if self.advice else parts)

    @property
    def shell(self) -> str:
        """What mends it, as lines for a shell."""
        lines = [step.shell for step in self.steps]
        return "\n".join([*lines, self.command] if self.command else lines)

    def row(self) -> dict[str, str]:
        """A flat row for `--json`."""
        return {
            "check": self.check,
            "layer": str(self.layer),
            "scope": str(self.scope),
            "verdict": str(self.verdict),
            "evidence": self.evidence,
            "why": self.why,
            "remedy": self.remedy,
            "shell": self.shell,
            "risk": self.risk,
        }


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Bad ones first, then in the order of the receive path."""
    return sorted(
        findings,
        key=lambda one: (SEVERITY[one.verdict], LAYERS[one.layer], one.check, str(one.scope)),
    )
