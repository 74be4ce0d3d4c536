"""The work behind `millrace tune`: make a plan, show it, write it, prove it, take it back."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import typer

from millrace.cli.report import Row, show, write_json
from millrace.host import tune
from millrace.host.access import Access, namespace_cookie
from millrace.host.checks import Goal
from millrace.host.tune.apply import Step


@dataclass(frozen=True)
class Wanted:
    """What the command line asks a plan for."""

    interface: str | None
    goal: str | None
    fix: tuple[str, ...]
    cpus: str | None
    place: str | None
    owner: str | None
    bundle: str | None
    watch: str


@contextlib.contextmanager
def opened() -> Iterator[Access]:
    """What reads and writes this machine."""
    with Access() as access:
        yield access


def plan(wanted: Wanted, access: Access) -> tune.Plan:
    """The plan that is asked for."""
    from millrace.cli.doctor import seconds_of
    from millrace.host import doctor
    from millrace.host.snapshot import Observer, load

    goal = Goal.NONE if wanted.goal is None else _goal(wanted.goal)
    for name in wanted.fix:
        doctor.find(name)
    if wanted.fix:
        snapshots = (
            list(load(wanted.bundle)) if wanted.bundle else doctor.look(seconds_of(wanted.watch))
        )
        found = doctor.examine(
            snapshots,
            goal=goal,
            interface=wanted.interface,
            machine=True,
            checks=wanted.fix,
        )
        return tune.plan_of_findings(snapshots[-1], found.findings)
    if wanted.interface is None or wanted.goal is None:
        raise ValueError(
            "name an interface and a --goal (latency, throughput, overload), or what to --fix; "
            "or ask for --status or --undo"
        )
    if wanted.bundle:
        snapshot = load(wanted.bundle)[-1]
    else:
        with Observer() as observer:
            snapshot = observer.snapshot()
    policy = None
    if wanted.place is not None:
        if wanted.place not in list(tune.Policy):
            raise ValueError(f"no --place {wanted.place!r}; there is spread and node")
        policy = tune.Policy(wanted.place)
    return tune.make_plan(
        snapshot,
        wanted.interface,
        goal,
        policy=policy,
        cpus=wanted.cpus,
        owner=wanted.owner or tune.owner_of(snapshot, wanted.interface),
    )


def show_plan(plan: tune.Plan, json_file: str | None) -> None:
    """Print a plan: each write, then what no write does."""
    with _aside(json_file):
        print(plan.title)
        if not plan.writes:
            print("Nothing to write: everything is as it should be, or cannot be changed here.")
        for at, write in enumerate(plan.writes, 1):
            old, new = write.shown(write.old) or "?", write.shown(write.new)
            print(f"{at:3}. {write.title}: {old} -> {new}")
            print(f"     {write.why}" + (f"  (risk: {write.risk})" if write.risk else ""))
            print(f"     $ {write.shell}")
        for one in plan.advice:
            print(f"By hand: {one.what}")
            print(f"     {one.why}")
    if json_file is not None:
        rows: list[Row] = list(plan.rows())
        write_json(rows, json_file)


def export(plan: tune.Plan, wish: str) -> None:
    """Write a plan in another form, from a wish such as shell=FILE."""
    from millrace.host.tune.export import write

    form, equals, path = wish.partition("=")
    if not equals or not path:
        raise ValueError(f"--export {wish!r} is no FORM=FILE such as shell=tune.sh")
    for file in write(plan, form, path):
        print(f"wrote {file}", file=sys.stderr)


def apply(plan: tune.Plan, access: Access, json_file: str | None) -> int:
    """Write a plan; 1 if anything was refused."""
    machine = tune.Machine(access)
    with tune.Journal(_namespace()) as journal:
        steps = _told(tune.apply(plan, machine, journal), json_file)
    return _end(steps, "millrace tune --undo takes it back", json_file)


def undo(json_file: str | None) -> int:
    """Take everything back; 1 if anything was left."""
    with opened() as access, tune.Journal(_namespace()) as journal:
        damage = journal.state().damage
        steps = _told(tune.undo(tune.Machine(access), journal), json_file)
    _complain(damage)
    if not steps and not damage:
        with _aside(json_file):
            print("Nothing is ours here.")
    return max(_end(steps, "", json_file), int(bool(damage)))


def status(json_file: str | None) -> int:
    """Show what is ours."""
    from millrace.host.tune import journal

    path = journal.folder() / f"tune-{_namespace()}.journal"
    state = journal.load(path)
    with opened() as access:
        machine = tune.Machine(access)
        if state.boot and state.boot != machine.boot():
            state = journal.State()
        steps = list(tune.status(machine, state))
    rows: list[Row] = [{**step.row(), "why": step.remark} for step in steps]
    columns = ("target", "result", "old", "new", "now")
    if rows:
        show(rows, title="What is ours", columns=columns, json_file=json_file)
    else:
        with _aside(json_file):
            print("Nothing is ours here.")
        if json_file is not None:
            write_json([], json_file)
    _complain(state.damage)
    return int(bool(state.damage))


def prove(
    plan: tune.Plan,
    access: Access,
    command: str,
    *,
    rounds: int,
    metric: str | None,
    keep: bool,
    json_file: str | None,
) -> int:
    """Measure before and after; without `keep`, take it back then."""
    from millrace.host.tune.prove import compare, measure

    machine = tune.Machine(access)
    print(f"before: {rounds} runs", file=sys.stderr)
    before = measure(command, rounds, pattern=metric)
    with tune.Journal(_namespace()) as journal:
        steps = _told(tune.apply(plan, machine, journal), json_file)
        try:
            print(f"after: {rounds} runs", file=sys.stderr)
            after = measure(command, rounds, pattern=metric)
        finally:
            if not keep:
                left = _told(tune.undo(machine, journal), json_file)
    rows: list[Row] = [one.row() for one in compare(before, after)]
    show(rows, title=f"Before and after, {rounds} runs each", json_file=json_file)
    status = _end(steps, "millrace tune --undo takes it back" if keep else "", None)
    return status if keep else max(status, _end(left, "", None))


def _goal(text: str) -> Goal:
    if text not in list(Goal):
        raise ValueError(f"no goal {text!r}; there is latency, throughput and overload")
    return Goal(text)


def _namespace() -> int:
    try:
        return namespace_cookie()
    except OSError:
        return os.stat("/proc/thread-self/ns/net").st_ino


def _told(steps: Iterator[Step], json_file: str | None) -> list[Step]:
    found = []
    with _aside(json_file):
        for step in steps:
            found.append(step)
            remark = f"  ({step.remark})" if step.remark else ""
            now = f", now {step.row()['now']}" if step.now else ""
            print(f"{step.result:>17}  {step.title}{now}{remark}", flush=True)
    return found


_LEFT = (tune.Result.REFUSED, tune.Result.CHANGED, tune.Result.GONE)


def _end(steps: Sequence[Step], hint: str, json_file: str | None) -> int:
    if json_file is not None:
        rows: list[Row] = [step.row() for step in steps]
        write_json(rows, json_file)
    if hint and any(step.result in (tune.Result.WRITTEN, tune.Result.ADJUSTED) for step in steps):
        print(hint, file=sys.stderr)
    return int(any(step.result in _LEFT for step in steps))


def _complain(damage: Sequence[str]) -> None:
    for line in damage:
        typer.echo(f"millrace tune: the journal: {line}", err=True)


def _aside(json_file: str | None) -> contextlib.AbstractContextManager[object]:
    # The JSON is the rows alone; with it on standard output, nothing else may be there.
    if json_file == "-":
        return contextlib.redirect_stdout(sys.stderr)
    return contextlib.nullcontext()
