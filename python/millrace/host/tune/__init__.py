"""Plans and how they are written, journaled, proved, exported and taken back."""

from millrace.host.tune.apply import Machine, Result, Step, apply, status, undo
from millrace.host.tune.goals import make_plan, owner_of
from millrace.host.tune.journal import Journal, Locked
from millrace.host.tune.placement import Policy
from millrace.host.tune.plan import Plan, plan_of_findings

__all__ = [
    "Journal",
    "Locked",
    "Machine",
    "Plan",
    "Policy",
    "Result",
    "Step",
    "apply",
    "make_plan",
    "owner_of",
    "plan_of_findings",
    "status",
    "undo",
]
