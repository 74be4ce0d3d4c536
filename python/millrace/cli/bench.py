"""`millrace bench`: measurements that need no network."""

from __future__ import annotations

from typing import Annotated

import typer

from millrace.cli.report import JsonOption

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def _bench() -> None:
    """Measure parts of Millrace beside others."""


@app.command()
def stack(
    json_file: JsonOption = None,
    seconds: Annotated[float, typer.Option(help="Length of one run.", min=0.01)] = 1.0,
    rounds: Annotated[int, typer.Option(help="Runs of each row.", min=1)] = 3,
    work: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="rr64, rr1k, crr, bulk, bulk_super, idle; repeatable."),
    ] = None,
    arm: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="millrace, smoltcp; repeatable.")
    ] = None,
) -> None:
    """Join two stacks by memory in one thread, without a kernel, beside smoltcp.

    rr64 and rr1k: request and response of 64 and 1024 bytes. crr: connect, request, response,
    close. bulk, bulk_super: one direction, in packets of 1460 and up to 64 Ki bytes (operations of
    64 KiB). idle: resident memory of a connection that does nothing.
    """
    import contextlib
    import sys

    from millrace.bench import stack as stack_bench
    from millrace.cli.report import check_json_file, show

    check_json_file(json_file)
    rows = stack_bench.measure(seconds=seconds, rounds=rounds, works=work or (), arms=arm or ())
    show(rows, title="Two stacks joined by memory, one thread", json_file=json_file)
    # The JSON is the rows alone; with it on standard output, nothing else may be there.
    aside = contextlib.redirect_stdout(sys.stderr) if json_file == "-" else contextlib.nullcontext()
    with aside:
        if compared := stack_bench.held(rows):
            show(compared, title="Millrace beside smoltcp")
        print(
            f"Medians; rounds: {rounds} of {seconds:g} s, the arms in turn. Seconds are processor "
            "time. A segment's time is "
            "that of both sides and their programs. smoltcp has no super-segments: it has an MTU "
            "of 65,535 and no checksums there."
        )
