"""`millrace tune`: mend the network path, and take it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from millrace.cli.report import JsonOption

if TYPE_CHECKING:
    from millrace.host.access import Access
    from millrace.host.tune import Plan


def command(
    interface: Annotated[
        str | None, typer.Argument(metavar="[IFACE]", help="What to tune.", show_default=False)
    ] = None,
    goal: Annotated[
        str | None, typer.Option(help="latency, throughput or overload.", show_default=False)
    ] = None,
    fix: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK", help="Mend what this check finds; repeatable."),
    ] = None,
    cpus: Annotated[
        str | None, typer.Option(metavar="LIST", help="Only these CPUs, such as 0-3,8.")
    ] = None,
    place: Annotated[
        str | None, typer.Option(help="spread, or node for the device's own; by itself: the best.")
    ] = None,
    owner: Annotated[
        str | None, typer.Option(help="Who receives from it: kernel or millrace.")
    ] = None,
    plan_only: Annotated[bool, typer.Option("--plan", help="Only show the plan.")] = False,
    apply_now: Annotated[bool, typer.Option("--apply", help="Write it.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take back what was written.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Show what is ours.")] = False,
    prove: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Measure before and after with this command; without --apply, undo then.",
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="The number in what it prints, as the first group."),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Runs before, and runs after.", min=2)] = 5,
    export: Annotated[
        list[str] | None,
        typer.Option(metavar="FORM=FILE", help="shell, systemd or tuned (a folder); repeatable."),
    ] = None,
    bundle: Annotated[
        str | None, typer.Option(metavar="FILE", help="Plan for the machine of a bundle.")
    ] = None,
    watch: Annotated[
        str, typer.Option(metavar="TIME", help="How long --fix looks before it plans.")
    ] = "1s",
    json_file: JsonOption = None,
) -> int:
    """Plan settings for a goal or for findings, write them, and take them back.

    Without --apply it shows the plan and writes nothing. What --apply writes is journaled on disk
    first, and --undo restores it in reverse order; what somebody else has changed since is left
    alone and named. Exit status 1 if anything was refused or left.
    """
    from millrace.cli import tune_run as run
    from millrace.cli.report import check_json_file

    check_json_file(json_file)
    if undo or status:
        if undo and status:
            raise ValueError("--undo and --status are two things; ask for one")
        if interface or goal or fix or apply_now or plan_only or prove or export or bundle:
            raise ValueError("--undo and --status are for everything that is ours, and go alone")
        return run.undo(json_file) if undo else run.status(json_file)
    if plan_only and (apply_now or prove):
        raise ValueError("--plan writes nothing; leave it out to write")
    if bundle is not None and (apply_now or prove):
        raise ValueError("a plan for another machine cannot be written here; export it")
    wanted = run.Wanted(interface, goal, tuple(fix or ()), cpus, place, owner, bundle, watch)
    with run.opened() as access:
        plan = _plan(wanted, access)
        run.show_plan(plan, json_file if not (apply_now or prove) else None)
        for one in export or ():
            run.export(plan, one)
        if prove is not None:
            return run.prove(
                plan, access, prove, rounds=rounds, metric=metric, keep=apply_now,
                json_file=json_file,
            )  # fmt: skip
        if apply_now:
            return run.apply(plan, access, json_file)
    return 0


def _plan(wanted: object, access: Access) -> Plan:
    from millrace.cli import tune_run as run

    assert isinstance(wanted, run.Wanted)
    return run.plan(wanted, access)
