"""The table of checks, what a check is given, and what it gives.

A check is one small function. It looks at a `Context`, writes nothing, and yields an outcome for
each thing it judged:

    @check("softnet-drops", Layer.SOFTNET, 3, HOST, why="...", source="...")
    def softnet_drops(context: Context) -> Outcomes:
        \"\"\"What it looks at and when it complains; `--explain` shows this.\"\"\"
        dropped = sum(row.dropped for row in context.rates.softnet.values())
        if dropped:
            yield bad(context.amount(dropped, "packets dropped"), steps=[...])
        else:
            yield ok("no packet dropped")

What it reads through `known` or `context.rates` may be missing: then it is skipped, with the
reason.
"""

from __future__ import annotations

import enum
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from millrace.host import targets
from millrace.host.ethtool import Device
from millrace.host.finding import HOST, Finding, Layer, Scope, Step, Verdict
from millrace.host.links import Link
from millrace.host.rates import Rates
from millrace.host.snapshot import Snapshot
from millrace.host.unavailable import NotAvailable, Unavailable, known


class Goal(enum.StrEnum):
    """What the machine is for. Some settings are right for one and wrong for another."""

    NONE = "none"
    LATENCY = "latency"
    THROUGHPUT = "throughput"
    OVERLOAD = "overload"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check says of one thing."""

    verdict: Verdict
    evidence: str
    #: None: the check's own scope.
    scope: Scope | None = None
    steps: tuple[Step, ...] = field(default_factory=tuple)
    advice: str = ""
    risk: str = ""
    command: str = ""


Outcomes = Iterator[Outcome]


def _outcome(verdict: Verdict) -> Callable[..., Outcome]:
    def make(
        evidence: str,
        scope: Scope | None = None,
        *,
        steps: Sequence[Step] = (),
        advice: str = "",
        risk: str = "",
        command: str = "",
    ) -> Outcome:
        return Outcome(verdict, evidence, scope, tuple(steps), advice, risk, command)

    return make


bad = _outcome(Verdict.BAD)
warn = _outcome(Verdict.WARN)
info = _outcome(Verdict.INFO)
ok = _outcome(Verdict.OK)
skip = _outcome(Verdict.SKIP)


@dataclass(frozen=True)
class Context:
    """What checks look at."""

    now: Snapshot
    #: What happened in the window; None with only one snapshot.
    window: Rates | None
    goal: Goal = Goal.NONE
    #: Only this interface; None for all.
    interface: str | None = None
    #: Judge what the whole machine shares even from inside a namespace of it.
    machine: bool = False

    @property
    def rates(self) -> Rates:
        """What happened in the window, or `Unavailable` where there is none."""
        if self.window is None:
            raise Unavailable(NotAvailable("it takes two snapshots; give --watch a time"))
        return self.window

    def count(self, *names: str) -> int:
        """How far counters of nstat's went on in the window, together."""
        return self.rates.counter(*names)

    def per_second(self, count: float) -> float:
        """A count of the window as a rate."""
        return self.rates.per_second(count)

    def total(self, *names: str) -> int:
        """Counters of nstat's since the namespace began, together."""
        counters = known(self.now.counters)
        return sum(counters.get(name, 0) for name in names)

    def amount(self, count: int, what: str) -> str:
        """ "1,200 packets dropped in 10.0 s (120/s)"."""
        rate = self.per_second(count)
        return f"{count:,} {what} in {self.rates.seconds:.1f} s ({_round(rate)}/s)"

    def none(self, what: str) -> str:
        """ "no packets dropped in 10.0 s"."""
        return f"no {what} in {self.rates.seconds:.1f} s"

    def sysctl(self, key: str) -> str:
        """A setting's value, or `Unavailable`."""
        sysctls = known(self.now.sysctls)
        return known(sysctls.get(key, NotAvailable(f"{key} is not in this snapshot")))

    def number(self, key: str) -> int:
        """A setting that is one number, or `Unavailable`."""
        return self.numbers(key)[0]

    def numbers(self, key: str, count: int = 1) -> tuple[int, ...]:
        """A setting that is so many numbers, or `Unavailable`."""
        text = self.sysctl(key)
        try:
            found = tuple(int(word) for word in text.split())
        except ValueError:
            found = ()
        if len(found) < count:
            raise Unavailable(NotAvailable(f"{key} holds {text[:40]!r}, not {count} number(s)"))
        return found[:count]

    @functools.cached_property
    def links(self) -> tuple[Link, ...]:
        """The interfaces to judge: those that are up, without loopback."""
        return tuple(
            link
            for link in known(self.now.links)
            if link.is_up and not link.is_loopback and self.concerns(link.name)
        )

    @functools.cached_property
    def devices(self) -> Mapping[str, Device]:
        """What drivers say, of the interfaces to judge."""
        names = {link.name for link in self.links}
        return {one.name: one for one in known(self.now.devices) if one.name in names}

    def concerns(self, interface: str) -> bool:
        """Whether an interface is one to judge."""
        return self.interface is None or interface == self.interface

    def set(self, key: str, value: object) -> Step:
        """The step that gives a sysctl a value."""
        try:
            old = self.sysctl(key)
        except Unavailable:
            old = ""
        return Step(f"sysctl:{key}", old, str(value))


Function = Callable[[Context], Outcomes]


@dataclass(frozen=True, slots=True)
class Check:
    """One check, as the table has it."""

    id: str
    layer: Layer
    #: Its number in the list that the set of checks grew from; 0 for a later one.
    number: int
    scope: Scope
    #: Two lines at most: why anybody should care.
    why: str
    #: Where the knowledge comes from.
    source: str
    #: Why it finds nothing to judge, if it finds nothing.
    nothing: str
    function: Function

    @property
    def explanation(self) -> str:
        """What it looks at, and when it complains."""
        return inspect.cleandoc(self.function.__doc__ or "")

    def run(self, context: Context) -> list[Finding]:
        """Its findings; one at least."""
        outcomes: list[Outcome] = []
        try:
            outcomes += self.function(context)
        except Unavailable as missing:
            needs = missing.reading.needs
            reason = missing.reading.why + (f"; needs {needs}" if needs else "")
            outcomes.append(skip(reason))
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            # One check's defect must not hide what the others found; it is told, not swallowed.
            outcomes.append(skip(f"a defect of this check: {type(error).__name__}: {error}"))
        if not outcomes:
            outcomes.append(skip(self.nothing))
        return [self._finding(context, one) for one in outcomes]

    def _finding(self, context: Context, outcome: Outcome) -> Finding:
        scope = outcome.scope or self.scope
        verdict, evidence = outcome.verdict, outcome.evidence
        inside = not context.now.origin.initial_namespace and not context.machine
        if inside and scope.kind == HOST.kind and verdict in (Verdict.WARN, Verdict.BAD):
            verdict = Verdict.INFO
            evidence += "; the whole machine's, which this namespace shares (--machine judges it)"
        return Finding(
            check=self.id,
            layer=self.layer,
            scope=scope,
            verdict=verdict,
            evidence=evidence,
            why="" if verdict in (Verdict.OK, Verdict.SKIP) else self.why,
            steps=tuple(filter(_changes, outcome.steps)),
            advice=outcome.advice,
            risk=outcome.risk,
            command=outcome.command,
        )


def _changes(step: Step) -> bool:
    """Whether a step changes anything, and may be taken at all.

    A recording may name what nobody may write: no CPU has a negative number.
    """
    if not targets.is_known(step.target):
        return False
    return not step.old or not targets.parse(step.target).same(step.old, step.new)


#: Every check by its name, in the order of the receive path.
CHECKS: dict[str, Check] = {}


def check(
    name: str,
    layer: Layer,
    number: int,
    scope: Scope,
    *,
    why: str,
    source: str,
    nothing: str = "there is nothing here that it is about",
) -> Callable[[Function], Function]:
    """Put a function into the table."""

    def register(function: Function) -> Function:
        if name in CHECKS:
            raise ValueError(f"there are two checks {name}")
        CHECKS[name] = Check(name, layer, number, scope, why, source, nothing, function)
        return function

    return register


def device(link: Link | str) -> Scope:
    """The scope of one interface."""
    return Scope("device", link if isinstance(link, str) else link.name)


def judge(context: Context, limit: float, value: float) -> Callable[..., Outcome]:
    """`bad` above a limit, otherwise `warn`."""
    return bad if value > limit else warn


def file_step(path: str, old: object, new: object) -> Step:
    """The step that writes a file of the kernel's."""
    return Step(f"file:{path}", "" if isinstance(old, NotAvailable) else str(old), str(new))


def setting_step(link: Link | str, group: str, setting: str, old: object, new: object) -> Step:
    """The step that gives a driver's setting a value."""
    name = link if isinstance(link, str) else link.name

    def word(value: object) -> str:
        return ("on" if value else "off") if isinstance(value, bool) else str(value)

    return Step(f"{group}:{name}:{setting}", word(old), word(new))


def with_scope(outcome: Outcome, scope: Scope) -> Outcome:
    """The same outcome about something else."""
    return replace(outcome, scope=scope)


def _round(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
