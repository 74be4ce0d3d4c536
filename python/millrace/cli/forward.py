"""`millrace forward`: a host in the middle of two ports."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from millrace.cli.report import JsonOption, Row

if TYPE_CHECKING:
    import threading

    from millrace.packets import Totals

_BOTH = '; "there,back" for two'


def command(
    a: Annotated[str, typer.Argument(help="A port, such as eth1 or af_xdp:eth1.")],
    b: Annotated[str, typer.Argument(help="Another.")],
    filter: Annotated[
        str | None,
        typer.Option(metavar="EXPRESSION", help="Only these packets, in tcpdump's language."),
    ] = None,
    loss: Annotated[str | None, typer.Option(help='Packets lost, "1%"' + _BOTH)] = None,
    burst: Annotated[str | None, typer.Option(help="Mean length of a burst of losses.")] = None,
    delay: Annotated[str | None, typer.Option(help='Time on the way, "10ms"' + _BOTH)] = None,
    jitter: Annotated[str | None, typer.Option(help="Up to so much more time.")] = None,
    reorder: Annotated[str | None, typer.Option(help='Packets that others overtake, "1%".')] = None,
    reorder_delay: Annotated[str | None, typer.Option(help="By so much; 1 ms.")] = None,
    duplicate: Annotated[str | None, typer.Option(help='Packets that arrive twice, "1%".')] = None,
    corrupt: Annotated[str | None, typer.Option(help='Packets with a flipped bit, "1%".')] = None,
    rate: Annotated[str | None, typer.Option(help='Bits a second, "100M"' + _BOTH)] = None,
    queue: Annotated[
        str | None, typer.Option(help='What waits at that rate: "64KiB", "50packets", "1bdp".')
    ] = None,
    mark: Annotated[
        str | None, typer.Option(help="More waiting marks packets with Congestion Experienced.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Where the dice start.", min=0)] = 0,
    one_way: Annotated[bool, typer.Option("--one-way", help="Only from A to B.")] = False,
    swap: Annotated[bool, typer.Option("--swap", help="Exchange the hardware addresses.")] = False,
    duration: Annotated[
        float | None, typer.Option(help="End after so many seconds.", min=0)
    ] = None,
    count: Annotated[int | None, typer.Option(help="End after so many packets.", min=0)] = None,
    spin: Annotated[
        bool, typer.Option("--spin", help="Spin; never sleep. One whole core.")
    ] = False,
    xdp: Annotated[
        str | None, typer.Option(metavar="MODE", help="auto, native or generic.")
    ] = None,
    json_file: JsonOption = None,
) -> int:
    """Forward between two ports, both ways, with what goes wrong on the way.

    Each packet of A leaves by B and each of B by A, in the frame in which it came where both are
    AF_XDP. A terminal shows rates while it runs; the end says what was forwarded and where packets
    were lost. Ctrl-C ends it.
    """
    import sys

    from millrace.cli.report import check_json_file, show
    from millrace.packets import ForwardError
    from millrace.packets import forward as run

    check_json_file(json_file)
    wishes: dict[str, Any] = {
        "loss": loss,
        "burst": burst,
        "delay": delay,
        "jitter": jitter,
        "reorder": reorder,
        "reorder_delay": reorder_delay or ("1ms" if reorder else None),
        "duplicate": duplicate,
        "corrupt": corrupt,
        "rate": rate,
        "queue": queue,
        "mark": mark,
    }
    wishes = {name: _both(name, text) for name, text in wishes.items() if text is not None}
    failed: ForwardError | None = None
    with _stopped_by_signals() as stop, _live() as progress:
        print(f"forwarding {a} to {b}{' one way' * one_way}; Ctrl-C ends it", file=sys.stderr)
        try:
            totals = run(
                a,
                b,
                filter=filter,
                one_way=one_way,
                swap=swap,
                count=count,
                duration=duration,
                stop=stop,
                progress=progress,
                wait="spin" if spin else "sleep",
                seed=seed,
                options={} if xdp is None else {"xdp": xdp},
                **wishes,
            )
        except ForwardError as error:
            failed, totals = error, error.totals
    show(rows(totals), title="Forwarded", columns=_COLUMNS, json_file=json_file)
    aside = sys.stderr if json_file == "-" else sys.stdout
    for line in told(totals):
        print(line, file=aside)
    if failed is not None:
        # A plain one: the totals are told.
        raise OSError(failed.errno, failed.strerror)
    return 0


#: Of the table; the JSON has all.
_COLUMNS = (
    *("source", "destination", "received", "forwarded"),
    *("mbit_per_s", "filtered", "lost", "dropped"),
)


def rows(totals: Totals) -> list[Row]:
    """One row for each direction."""
    import dataclasses

    found: list[Row] = []
    for direction in totals.directions:
        row = dataclasses.asdict(direction)
        drops = row.pop("drops")
        seconds = max(totals.seconds, 1e-9)
        row |= {
            "dropped": direction.dropped,
            "drops": ", ".join(f"{name}: {count}" for name, count in drops.items()),
            "mpps": direction.forwarded / seconds / 1e6,
            "mbit_per_s": direction.forwarded_bytes * 8 / seconds / 1e6,
            "seconds": totals.seconds,
            "zero_copy": totals.zero_copy,
        }
        found.append(row)
    return found


def told(totals: Totals) -> Iterator[str]:
    """What is to be said below the table."""
    yield f"{totals.seconds:.1f} s; {totals.how}"
    for direction in totals.directions:
        for place, count in direction.drops.items():
            yield f"{count:,} lost: {place}"
        changed = {
            "dropped by the queue before the rate": direction.queue_dropped,
            "on their way at the end": direction.in_flight,
            "overtaken": direction.reordered,
            "sent twice": direction.duplicated,
            "damaged": direction.corrupted,
            "marked": direction.marked,
            f"more than 1 ms late (at most {direction.latest * 1e3:.1f} ms)": direction.late,
            "left to Linux by the filter": direction.left_to_linux,
        }
        for what, count in changed.items():
            if count:
                yield f"{direction.source} to {direction.destination}: {count:,} {what}"


def _both(name: str, text: str) -> Any:
    """One value, or one for each direction. `burst` is a number."""
    parts = [part.strip() for part in text.split(",")]
    values: list[Any] = parts
    if name == "burst":
        try:
            values = [float(part) for part in parts]
        except ValueError:
            raise ValueError(f"burst is a number of packets, not {text!r}") from None
    return values[0] if len(values) == 1 else tuple(values)


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """The first Ctrl-C ends the forwarder with its totals; the second ends the program."""
    import signal
    import threading

    stop = threading.Event()

    def end(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _live() -> Iterator[Any]:
    """Shows rates on a terminal while it runs; elsewhere nothing."""
    from rich.console import Console
    from rich.live import Live

    from millrace.cli.report import table

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield None
        return
    before: list[Totals] = []
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(totals: Totals) -> None:
            last = before[-1] if before else None
            live.update(table(rates(totals, last), title="Now"), refresh=True)
            before[:] = [totals]

        yield show


def rates(totals: Totals, before: Totals | None) -> list[Row]:
    """What passed a second since `before`, or since the beginning."""
    seconds = max(totals.seconds - (before.seconds if before else 0.0), 1e-9)
    found: list[Row] = []
    for index, now in enumerate(totals.directions):
        then = before.directions[index] if before else None
        found.append(
            {
                "from": now.source,
                "to": now.destination,
                "packets_per_s": (now.forwarded - (then.forwarded if then else 0)) / seconds,
                "mbit_per_s": (now.forwarded_bytes - (then.forwarded_bytes if then else 0))
                * 8
                / seconds
                / 1e6,
                "lost_per_s": (_gone(now) - (_gone(then) if then else 0)) / seconds,
                "in_flight": now.in_flight,
            }
        )
    return found


def _gone(direction: Any) -> int:
    lost: int = direction.lost + direction.queue_dropped + direction.dropped
    return lost
