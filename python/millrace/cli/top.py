"""`millrace top`: the network path, second by second."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from millrace.watch.top.source import Source
    from millrace.watch.top.views import View


def command(
    view: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[VIEW]...",
            help="overview, cpus, queues, napi, ladder, drops, sockets, processes, hosts, "
            "connections, listeners, stacks, timeline. By default overview; with --once all.",
        ),
    ] = None,
    interval: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1)] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Write one look as text, and end.")] = False,
    count: Annotated[
        int | None, typer.Option("-n", "--count", help="End after so many looks.", min=1)
    ] = None,
    json_file: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="Write a line a look; - is standard output."),
    ] = None,
    record: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write looks to a file while showing them.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Show a recording instead of this machine.")
    ] = None,
    speed: Annotated[float, typer.Option(help="Of a replay.", min=0.01)] = 1.0,
    serve: Annotated[
        bool, typer.Option("--serve", help="Show it in a browser, at the address that is printed.")
    ] = False,
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to serve; by default this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Of --serve; 0: any.", min=0, max=65535)] = 0,
    drops: Annotated[bool, typer.Option(help="Count the kernel's drops; it takes root.")] = True,
    napi: Annotated[bool, typer.Option(help="Count NAPI polls; it takes root.")] = True,
) -> int:
    """Show packets, drops, CPUs, queues, sockets, flows and Millrace's stacks as they change.

    ? on the screen shows the keys. What could not be read, and why, is under n. Recordings and
    --json have the same form: one JSON object a line.
    """
    import contextlib

    from millrace.watch.top import record as recordings
    from millrace.watch.top import source as sources
    from millrace.watch.top.views import BY_NAME, VIEWS

    wanted = []
    for name in view or ():
        if name not in BY_NAME:
            raise ValueError(f"there is no view {name!r}; there are: {', '.join(BY_NAME)}")
        wanted.append(BY_NAME[name])
    if sum((once, json_file is not None, serve)) > 1:
        raise ValueError("--once, --json and --serve are different ways to show it; name one")
    with contextlib.ExitStack() as stack:
        source: Source = sources.live(interval, drops=drops, napi=napi)
        if replay is not None:
            # A file that is none is an error now, and not on the screen.
            next(recordings.read(replay))
            source = sources.replay(replay, speed)
        if serve and replay is None:
            source = sources.live(interval, drops=drops, napi=napi, picture=True)
        if record is not None:
            source = sources.recorded(source, stack.enter_context(open(record, "w")))
        if serve:
            return _serve(source, listen, port)
        if json_file is not None:
            return _json(source, json_file, count)
        if once or count is not None:
            return _text(source, wanted or list(VIEWS), count or 1)
        return _screen(source, wanted[0] if wanted else VIEWS[0])


def _screen(source: Source, view: View) -> int:
    import sys

    from millrace.watch.top.app import Top

    if not sys.stdout.isatty():
        raise ValueError("this is no terminal; --once writes text, --json FILE a line a look")
    app = Top(source, view)
    app.run()
    if app.failure is not None:
        raise app.failure
    return 0


def _text(source: Source, views: list[View], count: int) -> int:
    import itertools
    import shutil
    import sys
    import threading

    from millrace.watch.top import render

    # A file has no edge, but lines that are too long cannot be read.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 120
    for tick in itertools.islice(source(threading.Event()), count):
        for view in views:
            print("\n".join(render.once(view, tick, width)))
        for note in tick.get("notes", []):
            print(note, file=sys.stderr)
        sys.stdout.flush()
    return 0


def _json(source: Source, json_file: str, count: int | None) -> int:
    import contextlib
    import itertools
    import sys
    import threading

    from millrace.watch.top import record

    with contextlib.ExitStack() as stack:
        file = sys.stdout if json_file == "-" else stack.enter_context(open(json_file, "w"))
        for tick in itertools.islice(source(threading.Event()), count):
            record.write(file, tick)
    return 0


def _serve(source: Source, listen: str, port: int) -> int:
    import signal
    import sys
    import threading

    from millrace.watch.http import Server
    from millrace.watch.top.serve import Board

    ended = threading.Event()
    with Board(source) as board, Server(listen, port, board.answer) as server:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        print(f"open {server.url}/?token={board.token}", file=sys.stderr, flush=True)
        while not ended.wait(3600.0):
            pass
    return 0
