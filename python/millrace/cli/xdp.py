"""`millrace xdp`: XDP programs of files, on interfaces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from millrace.cli.report import JsonOption

if TYPE_CHECKING:
    from millrace.xdp import Program

app = typer.Typer(add_completion=False, no_args_is_help=True)

ProgramArgument = Annotated[
    str, typer.Argument(metavar="FILE.py:NAME", help="A program of a Python file.")
]
InterfaceArgument = Annotated[str, typer.Argument(metavar="IFACE", help="An interface.")]


@app.callback()
def _xdp() -> None:
    """XDP programs written in Python: look at them, attach them, see what is attached."""


@app.command()
def show(interface: InterfaceArgument, json_file: JsonOption = None) -> None:
    """The XDP programs of an interface, whoever attached them."""
    from millrace.cli.report import check_json_file, show
    from millrace.xdp import attached

    check_json_file(json_file)
    rows: list[dict[str, Any]] = [
        {
            "interface": interface,
            "id": found.id,
            "name": found.name or "",
            "mode": found.mode or "",
            "link": found.link if found.link is not None else "",
            "run_count": found.run_count,
            "run_nanoseconds": found.run_nanoseconds,
        }
        for found in attached(interface)
    ]
    if not rows and json_file != "-":
        print(f"{interface} has no XDP program")
        return
    show(rows, title=f"XDP programs of {interface}", json_file=json_file)


@app.command()
def explain(program: ProgramArgument) -> None:
    """The instructions of a program beside its source."""
    print(_load(program).explain())


@app.command()
def attach(
    program: ProgramArgument,
    interface: InterfaceArgument,
    generic: Annotated[
        bool, typer.Option("--generic", help="Run in the generic mode, on any driver.")
    ] = False,
    pin: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Keep it attached, under this name in a BPF file system."),
    ] = None,
) -> None:
    """Attach a program until Ctrl-C, or until `millrace xdp detach` where it is pinned."""
    import contextlib
    import signal

    from millrace.xdp import timing

    loaded = _load(program)
    link = loaded.attach(interface, "generic" if generic else "native", pin=pin)
    print(f"{loaded.name} is on {interface}, {link.mode} mode", flush=True)
    if pin is not None:
        print(f"it stays there; `millrace xdp detach {pin}` ends it")
        link.close()
        return
    with link, timing():
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
        statistics = link.statistics()
    print(f"{statistics.run_count} frames, {statistics.nanoseconds_per_run:.0f} ns each on average")
    for verdict, count in statistics.verdicts.items():
        if count:
            print(f"  {verdict}: {count}")
    if statistics.errors:
        print(f"  errors: {statistics.errors}")


@app.command()
def detach(
    pin: Annotated[str, typer.Argument(metavar="DIR", help="What --pin was given.")],
) -> None:
    """Detach a program that was pinned, and remove the names of its link and maps."""
    from millrace.xdp import open_link

    open_link(pin).detach()


def _load(place: str) -> Program:
    """The program that FILE.py:NAME means."""
    import runpy
    import sys
    import traceback

    from millrace.xdp import CompileError, Program

    path, colon, name = place.rpartition(":")
    if not colon:
        raise ValueError(f"{place} is no FILE.py:NAME; name the program behind a colon")
    try:
        names = runpy.run_path(path)
    except CompileError as error:
        print("".join(traceback.format_exception_only(error)).rstrip(), file=sys.stderr)
        raise typer.Exit(1) from None
    found = names.get(name)
    if isinstance(found, Program):
        return found
    programs = [key for key, value in names.items() if isinstance(value, Program)]
    raise ValueError(
        f"{path} has no XDP program {name}; it has {', '.join(programs) or 'none at all'}"
    )
