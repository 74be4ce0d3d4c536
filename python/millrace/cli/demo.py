"""`millrace demo`: serve HTTP through our own stack, beside the kernel, and show the figures."""

from __future__ import annotations

from typing import Annotated

import typer

from millrace.cli.report import JsonOption


def command(
    json_file: JsonOption = None,
    seconds: Annotated[float, typer.Option(help="Length of one run.", min=0.1)] = 2.0,
    rounds: Annotated[int, typer.Option(help="Runs of each row.", min=1)] = 3,
    port: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="af_xdp, af_packet, tap or memory; default: the best."),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Measure every kind of port.")] = False,
    arm: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Measure this arm only; repeatable.")
    ] = None,
) -> None:
    """Serve HTTP with each arm in turn, load it from another host, and compare.

    Arms are the floor (what any TCP costs at least), an epoll server, nginx and uvloop on the
    kernel's TCP, and Millrace with a native and with a Python program. The hosts are network
    namespaces, gone afterwards.
    """
    import contextlib
    import sys

    from millrace.bench import choice
    from millrace.bench.arms import ARMS
    from millrace.bench.demo import measure
    from millrace.bench.targets import ratios
    from millrace.cli.report import check_json_file, show

    check_json_file(json_file)
    names = frozenset(arm) if arm else None
    known = {entry.name for entry in ARMS}
    if unknown := sorted((names or frozenset()) - known):
        raise ValueError(f"no arm {', '.join(unknown)}; there is {', '.join(sorted(known))}")
    chosen = choice.choose(port, full)
    print(chosen.because, file=sys.stderr)
    if chosen.is_memory:
        from millrace.bench import memory

        outcome = memory.measure(seconds=seconds, rounds=rounds)
    else:
        outcome = measure(chosen.kinds, seconds=seconds, rounds=rounds, names=names)
    # How far the rounds lie apart is said below the table, and in full in the JSON.
    aside_columns = ("server_core_us_min", "server_core_us_max", "rounds")
    columns = [name for name in outcome.rows[0] if name not in aside_columns]
    show(outcome.rows, title="HTTP, 1 KiB", columns=columns, json_file=json_file)
    # The JSON is the rows alone; with it on standard output, nothing else may be there.
    aside = contextlib.redirect_stdout(sys.stderr) if json_file == "-" else contextlib.nullcontext()
    with aside:
        if held := ratios(outcome.rows):
            show(held, title="Millrace over the others")
        for note in outcome.notes:
            print(note)
