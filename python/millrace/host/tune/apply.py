"""Write a plan, read it back, and take it back later.

Each write is announced in the journal first. One that the kernel refuses is told and the others go
on. Undoing goes backwards, and leaves alone and names what somebody else has changed since.
"""

from __future__ import annotations

import contextlib
import enum
import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from millrace.host import targets
from millrace.host.access import Access
from millrace.host.targets import Target
from millrace.host.tune.journal import Entry, Journal, State
from millrace.host.tune.plan import Plan
from millrace.host.unavailable import Unavailable


class Result(enum.StrEnum):
    """What became of one write, or of taking it back."""

    WRITTEN = "written"
    #: It was as wanted already.
    SAME = "same"
    #: The kernel took it and made another value of it.
    ADJUSTED = "adjusted"
    REFUSED = "refused"
    RESTORED = "restored"
    #: Somebody else has changed it since: left alone.
    CHANGED = "changed by others"
    #: The interface or the file is no longer there.
    GONE = "gone"
    #: Announced, and not written before the process was ended.
    NEVER = "never written"
    OURS = "ours"


@dataclass(frozen=True, slots=True)
class Step:
    """What became of one write."""

    target: str
    result: Result
    old: str
    new: str
    #: What it is now; "" if that cannot be read.
    now: str
    remark: str = ""

    @property
    def title(self) -> str:
        """What it is, for people."""
        return targets.parse(self.target).title

    def row(self) -> dict[str, str]:
        """A flat row."""
        show = targets.parse(self.target).show
        return {
            "target": self.title,
            "result": str(self.result),
            "old": self.old and show(self.old),
            "new": self.new and show(self.new),
            "now": self.now and show(self.now),
            "remark": self.remark,
        }


class Machine:
    """Reads and writes targets; a test may put another in its place."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def read(self, target: Target) -> str:
        """A target's value. Raises `OSError`."""
        try:
            return target.read(self._access)
        except Unavailable as missing:
            raise OSError(errno.EOPNOTSUPP, str(missing)) from None

    def write(self, target: Target, value: str) -> None:
        """Give a target a value. Raises `OSError`."""
        try:
            target.write(self._access, value)
        except Unavailable as missing:
            raise OSError(errno.EOPNOTSUPP, str(missing)) from None

    def boot(self) -> str:
        """What tells this boot from others."""
        return str(self._access.files.text("/proc/sys/kernel/random/boot_id"))


def apply(plan: Plan, machine: Machine, journal: Journal) -> Iterator[Step]:
    """Write a plan, step by step. Raises `OSError` as soon as the journal cannot be written.

    What earlier runs changed stays theirs: a target's first old value is what undoing restores.
    """
    state = _of_this_boot(machine, journal)
    if state.damage:
        _begin_anew(machine, journal, state.entries.values())
    journal.begin(machine.boot(), plan.goal)
    number = max(state.entries, default=-1) + 1
    for write in plan.writes:
        target = targets.parse(write.target)
        try:
            old = machine.read(target)
        except OSError as error:
            yield Step(write.target, Result.REFUSED, "", write.new, "", _reason(error))
            continue
        if target.same(old, write.new):
            yield Step(write.target, Result.SAME, old, write.new, old)
            continue
        journal.intend(Entry(number, write.target, old, write.new, write.why, None, plan.goal))
        yield _write(machine, journal, target, number, old, write.new)
        number += 1


def _write(
    machine: Machine, journal: Journal, target: Target, number: int, old: str, new: str
) -> Step:
    remark = ""
    try:
        machine.write(target, new)
    except OSError as error:
        remark = _reason(error)
    try:
        now = machine.read(target)
    except OSError as error:
        journal.forget(number, "gone")
        return Step(target.name, Result.GONE, old, new, "", _reason(error))
    if remark and target.same(now, old):
        journal.forget(number, "refused")
        return Step(target.name, Result.REFUSED, old, new, now, remark)
    journal.done(number, now)
    if target.same(now, new):
        return Step(target.name, Result.WRITTEN, old, new, now, remark)
    return Step(target.name, Result.ADJUSTED, old, new, now, remark or "the kernel made it so")


def undo(machine: Machine, journal: Journal) -> Iterator[Step]:
    """Take everything back, the last write first.

    A full disk does not stop it: what is restored and stays in the journal is found restored by the
    next undo.
    """
    state = _of_this_boot(machine, journal)
    kept = []
    for entry in sorted(state.entries.values(), key=lambda entry: -entry.number):
        step = _take_back(machine, entry)
        if step.result is Result.REFUSED:
            kept.append(entry)
        else:
            with contextlib.suppress(OSError):
                journal.forget(entry.number, str(step.result))
        yield step
    if state.damage:
        _begin_anew(machine, journal, reversed(kept))
    elif not kept:
        journal.clear()


def _take_back(machine: Machine, entry: Entry) -> Step:
    target = targets.parse(entry.target)

    def step(result: Result, now: str, remark: str = "") -> Step:
        return Step(entry.target, result, entry.old, entry.new, now, remark)

    try:
        now = machine.read(target)
    except OSError as error:
        return step(Result.GONE, "", _reason(error))
    ours = entry.new if entry.value is None else entry.value
    if target.same(now, entry.old):
        if entry.value is None:
            return step(Result.NEVER, now)
        return step(Result.RESTORED, now, "it had its old value already")
    if not target.same(now, ours):
        return step(Result.CHANGED, now, f"it was {ours} when we left it")
    remark = ""
    try:
        machine.write(target, entry.old)
    except OSError as error:
        remark = _reason(error)
    try:
        now = machine.read(target)
    except OSError as error:
        return step(Result.GONE, "", _reason(error))
    if target.same(now, entry.old):
        return step(Result.RESTORED, now)
    return step(Result.REFUSED, now, remark or "the kernel did not take the old value")


def status(machine: Machine, state: State) -> Iterator[Step]:
    """What is ours, and what others have changed since, in the order of writing."""
    for entry in sorted(state.entries.values(), key=lambda entry: entry.number):
        target = targets.parse(entry.target)
        try:
            now = machine.read(target)
        except OSError as error:
            yield Step(entry.target, Result.GONE, entry.old, entry.new, "", _reason(error))
            continue
        ours = entry.new if entry.value is None else entry.value
        if target.same(now, ours):
            result = Result.OURS
        elif entry.value is None and target.same(now, entry.old):
            result = Result.NEVER
        else:
            result = Result.CHANGED
        yield Step(entry.target, result, entry.old, entry.new, now, entry.why)


def _begin_anew(machine: Machine, journal: Journal, entries: Iterable[Entry]) -> None:
    """Set a damaged journal aside and write what could be read of it into a new one."""
    journal.set_aside()
    kept = list(entries)
    if kept:
        journal.begin(machine.boot(), kept[0].goal)
    for entry in kept:
        journal.intend(entry)
        if entry.value is not None:
            journal.done(entry.number, entry.value)


def _of_this_boot(machine: Machine, journal: Journal) -> State:
    """What the journal says; what an earlier boot wrote is gone with it."""
    state = journal.state()
    if state.boot and state.boot != machine.boot():
        journal.clear()
        return State()
    return state


def _reason(error: OSError) -> str:
    if error.errno == errno.EIO:
        return "the kernel refuses it (EIO): a managed interrupt is placed by its driver"
    return error.strerror or str(error)
