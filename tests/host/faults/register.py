"""A fault, and the list of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from millrace.host.checks import Goal
from millrace.host.finding import Verdict

BAD, WARN, INFO, OK, SKIP = Verdict.BAD, Verdict.WARN, Verdict.INFO, Verdict.OK, Verdict.SKIP


@dataclass(frozen=True)
class Fault:
    check: str
    verdict: Verdict
    says: str
    spoil: Callable[..., Any]
    goal: Goal
    #: A part of the shell line that mends it; "" where nothing that can be pasted does.
    shell: str

    def __str__(self) -> str:
        return f"{self.check}: {self.spoil.__name__}"


FAULTS: list[Fault] = []


def fault(
    check: str, verdict: Verdict, says: str, shell: str = "", goal: Goal = Goal.NONE
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The function beneath spoils a server; the check then says so, in one of these words (`|`)."""

    def register(spoil: Callable[..., Any]) -> Callable[..., Any]:
        FAULTS.append(Fault(check, verdict, says, spoil, goal, shell))
        return spoil

    return register
