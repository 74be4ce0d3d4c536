"""Which ports the demo runs on: the best that this machine allows, and why no better one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from millrace.cli.probe import Finding, all_findings

#: From the best to the one that always works.
KINDS = ("af_xdp", "af_packet", "tap", "memory")
#: Those that `--full` measures.
FULL = ("af_xdp", "af_packet", "tap")


@dataclass(frozen=True)
class Choice:
    """The port kinds to measure and one line that says why."""

    kinds: tuple[str, ...]
    because: str

    @property
    def is_memory(self) -> bool:
        return self.kinds == ("memory",)


def choose(wanted: str | None, full: bool) -> Choice:
    """Choose by what works here. A kind that was asked for and does not work is an error."""
    return decide({finding.name: finding for finding in all_findings()}, wanted, full)


def decide(findings: Mapping[str, Finding], wanted: str | None, full: bool) -> Choice:
    """`choose` without trying anything."""
    if wanted is not None:
        if wanted not in KINDS:
            raise ValueError(f"no port kind {wanted!r}; there is {', '.join(KINDS)}")
        if full:
            raise ValueError("--full measures every port kind; leave out --port")
        if not findings[wanted].available:
            raise RuntimeError(f"{wanted} does not work here; it takes {findings[wanted].needs}")
        return Choice((wanted,), f"ports: {wanted}, as asked for")
    if full:
        kinds = tuple(kind for kind in FULL if findings[kind].available)
        if kinds:
            return Choice(kinds, f"ports: {', '.join(kinds)}{_without(findings, FULL, kinds)}")
    for kind in KINDS:
        finding = findings[kind]
        if finding.available:
            better = KINDS[: KINDS.index(kind)]
            where = " in a user namespace" if finding.where == "user namespace" else ""
            why = _without(findings, better, ()) or "; the fastest there is"
            return Choice((kind,), f"ports: {kind}{where}{why}")
    raise RuntimeError(f"no port works here; memory takes {findings['memory'].needs}")


def _without(
    findings: Mapping[str, Finding], kinds: tuple[str, ...], chosen: tuple[str, ...]
) -> str:
    missing = [kind for kind in kinds if kind not in chosen]
    return "".join(f"; not {kind}, which takes {findings[kind].needs}" for kind in missing)
