"""`millrace doctor`: what is wrong with this machine's network path, and what mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from millrace.cli.report import JsonOption

if TYPE_CHECKING:
    from millrace.host.doctor import Diagnosis

#: The exit status where something is bad. 1 is a failure of the command, 2 wrong usage.
EXIT_BAD = 3


def command(
    interface: Annotated[
        str | None, typer.Argument(metavar="[IFACE]", help="Only this interface.")
    ] = None,
    goal: Annotated[
        str, typer.Option(help="latency, throughput, overload, or none.", show_default=False)
    ] = "none",
    watch: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long to look, such as 10s; 0: a glance.")
    ] = None,
    bundle: Annotated[
        str | None, typer.Option(metavar="FILE", help="Look at what --save wrote instead.")
    ] = None,
    save: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write what was looked at to a file.")
    ] = None,
    check: Annotated[
        list[str] | None, typer.Option(metavar="CHECK", help="Only this check; repeatable.")
    ] = None,
    show_all: Annotated[
        bool, typer.Option("--all", help="Also what is well and what was skipped.")
    ] = False,
    machine: Annotated[
        bool,
        typer.Option("--machine", help="Judge the whole machine even from a namespace of it."),
    ] = False,
    explain: Annotated[
        str | None, typer.Option(metavar="CHECK", help="Explain a check and end.")
    ] = None,
    list_checks: Annotated[bool, typer.Option("--list", help="List all checks and end.")] = False,
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write a page to look at.")
    ] = None,
    svg: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the picture of the path.")
    ] = None,
    json_file: JsonOption = None,
) -> int:
    """Look for what loses packets and time, and say what mends it.

    It looks for a second, or as long as --watch says, and tells rates over that time. Nothing is
    changed. Exit status 3 if anything is bad.
    """
    import contextlib
    import sys

    from millrace.cli import doctor_text
    from millrace.cli.report import check_json_file, write_json
    from millrace.host import doctor
    from millrace.host.checks import Goal
    from millrace.host.snapshot import load
    from millrace.host.snapshot import save as save_bundle

    if explain is not None:
        print(doctor_text.explanation(doctor.find(explain)))
        return 0
    if list_checks:
        doctor_text.show_checks(json_file)
        return 0
    if goal not in list(Goal):
        raise ValueError(f"no goal {goal!r}; there is {', '.join(Goal)}")
    for name in check or ():
        doctor.find(name)
    check_json_file(json_file)
    for path in (html, svg):
        check_json_file(path)
    if bundle is not None:
        if watch is not None:
            raise ValueError("--watch looks at this machine, --bundle at a file; ask for one")
        snapshots = list(load(bundle))
    else:
        snapshots = doctor.look(seconds_of(watch))
    if save is not None:
        save_bundle(snapshots, save)
    found = doctor.examine(
        snapshots, goal=Goal(goal), interface=interface, machine=machine, checks=check
    )
    _write_pictures(found, html, svg)
    if json_file is not None:
        write_json([one.row() for one in found.findings], json_file)
    # The JSON is the rows alone; with it on standard output, nothing else may be there.
    aside = contextlib.redirect_stdout(sys.stderr) if json_file == "-" else contextlib.nullcontext()
    with aside:
        doctor_text.show(found, show_all=show_all)
    return EXIT_BAD if found.is_bad else 0


def seconds_of(text: str | None) -> float:
    """A time of the command line's, or how long the doctor looks by itself."""
    from millrace.host.doctor import DEFAULT_WINDOW_SECONDS
    from millrace.lab import impairment

    if text is None:
        return DEFAULT_WINDOW_SECONDS
    return impairment.time("--watch", float(text) if text.isdecimal() else text)


def _write_pictures(found: Diagnosis, html: str | None, svg: str | None) -> None:
    from pathlib import Path

    if html is not None:
        from millrace.host.page import page

        Path(html).write_text(page(found))
    if svg is not None:
        from millrace.host import picture_svg
        from millrace.host.path import picture

        Path(svg).write_text(picture_svg.draw(picture(found.context, found.findings)) + "\n")
