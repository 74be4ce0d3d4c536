"""`millrace dump`: a tcpdump for what bypasses the kernel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from millrace.watch.dump import Capture


def command(
    expression: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILTER]...", help="Only these frames, in tcpdump's language."),
    ] = None,
    pid: Annotated[
        int | None, typer.Option(help="Of this process; needless if there is only one.")
    ] = None,
    port: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of this port, as af_packet:eth1 or eth1.")
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option("-w", "--write", metavar="FILE", help="Write pcapng; - is standard output."),
    ] = None,
    count: Annotated[
        int | None, typer.Option("-c", "--count", help="End after so many frames.", min=1)
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="End after so long.", min=0.001)] = None,
    snap: Annotated[
        int,
        typer.Option("-s", "--snap", help="Bytes kept of each frame.", min=1, max=262_144),
    ] = 262_144,
    buffer: Annotated[
        int,
        typer.Option(help="Bytes that may wait in the process.", min=4096, max=256 << 20),
    ] = 8 << 20,
) -> int:
    """Show the frames of a running Millrace process, without stopping it.

    They are those that pass between its port and its stack: super-segments are whole, and checksums
    that the port will finish are not finished. The last line says what was lost: in the process,
    which knows nothing of the filter.
    """
    import sys
    import time

    from millrace.watch import dump, processes

    wanted = dump.filter_of(" ".join(expression)) if expression else None
    process, pages = dump.choose(processes.find(), pid, port)
    until = None if seconds is None else time.monotonic() + seconds
    with dump.Capture(process, pages, snap, buffer, wanted) as capture:
        # The frames are asked for by now; who waits for this line may cause some.
        names = ", ".join(page.name for page in pages)
        print(f"watching {names} of {process.title}; Ctrl-C ends it", file=sys.stderr, flush=True)
        try:
            _copy(capture, write, count, until)
        finally:
            print(capture.summary(), file=sys.stderr)
    return 0


def _copy(capture: Capture, write: Path | None, count: int | None, until: float | None) -> None:
    import sys
    from typing import BinaryIO

    from millrace.watch import dump

    with contextlib.ExitStack() as stack:
        file: BinaryIO | None = None
        if write is not None:
            file = (
                sys.stdout.buffer if str(write) == "-" else stack.enter_context(open(write, "wb"))
            )
        stack.enter_context(_stopped_by_signals(capture))
        for block, packet in capture.blocks(until):
            if packet is not None and count is not None and capture.frames > count:
                # It was on its way already; the counts are still to come.
                capture.frames -= 1
                continue
            if file is not None:
                file.write(block)
                # A reader at the other end of a pipe wants to see each as it comes.
                file.flush()
            elif packet is not None:
                print(dump.line(capture, packet), flush=True)
            if capture.frames == count:
                capture.stop()


@contextlib.contextmanager
def _stopped_by_signals(capture: Capture) -> Iterator[None]:
    """The first Ctrl-C asks the process for its last blocks; the second waits for nothing."""
    import signal

    def stop(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        capture.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
