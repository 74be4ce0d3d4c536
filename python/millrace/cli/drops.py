"""`millrace drops`: who drops packets, and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millrace.cli.report import JsonOption

if TYPE_CHECKING:
    from rich.console import RenderableType

    from millrace.cli.report import Value
    from millrace.watch.drops import Kept, Row, Selection, Watch
    from millrace.watch.pcapng import Writer

_COLUMNS = ("packets", "per_second", "reason", "kind", "where", "interface", "protocol", "example")


def command(
    interface: Annotated[
        list[str] | None,
        typer.Option("-i", "--interface", help="Of this interface, as eth1 or NAMESPACE/eth1."),
    ] = None,
    address: Annotated[
        list[str] | None, typer.Option(help="To or from this address or network.")
    ] = None,
    port: Annotated[list[int] | None, typer.Option(help="To or from this port.")] = None,
    reason: Annotated[list[str] | None, typer.Option(help="For this reason.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Also what nobody misses, such as frames for others.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(help="End after so long; by default at Ctrl-C.", min=0.05)
    ] = None,
    interval: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1)] = 1.0,
    write: Annotated[
        Path | None,
        typer.Option("-w", "--write", metavar="FILE", help="Write dropped frames as pcapng."),
    ] = None,
    snap: Annotated[
        int, typer.Option("-s", "--snap", help="Bytes kept of a frame.", min=64, max=2048)
    ] = 256,
    explain: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Say what a reason means; 'all' lists them."),
    ] = None,
    json_file: JsonOption = None,
) -> int:
    """Show which packets are dropped, where and why, and what helps.

    The kernel's drops in all network namespaces (this takes root), and those of Millrace's own
    stacks and ports. Several options of one kind mean any of them, options of different kinds all
    of them. By address and by port only frames that were looked at can be told; the last lines say
    how many were not.
    """
    from millrace.cli.report import check_json_file, show
    from millrace.watch import drops

    if explain is not None:
        return _explain(explain)
    check_json_file(json_file)
    wanted = drops.selection(
        interface or (),
        address or (),
        port or (),
        reason or (),
        benign=every,
        known=_known(),
    )
    rows, watch = _watch(wanted, seconds, interval, write, snap // 8 * 8)
    flat: list[dict[str, Value]] = [_flat(row) for row in rows]
    if flat or json_file is not None:
        show(flat, columns=_COLUMNS, json_file=json_file)
    _say(watch, rows, wanted)
    return 0


def _known() -> list[str]:
    """The reasons there are; none where this kernel does not tell, so that any may be asked for."""
    from millrace._native import drop_reasons

    try:
        return list(drop_reasons().values())
    except ValueError:
        return []


def _watch(
    wanted: Selection, seconds: float | None, interval: float, write: Path | None, snap: int
) -> tuple[list[Row], Watch]:
    import contextlib
    import sys
    import time

    from rich.console import Console
    from rich.live import Live

    from millrace.watch import drops, pcapng

    console = Console(stderr=not sys.stdout.isatty(), highlight=False, markup=False)
    end = None if seconds is None else time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        keep = None
        if write is not None:
            file = pcapng.Writer(stack.enter_context(open(write, "wb")))
            keep = _keeper(file)
        watch = stack.enter_context(
            drops.Watch(wanted, every_frame=write is not None, snap=snap, keep=keep)
        )
        print("watching drops; Ctrl-C ends it", file=sys.stderr, flush=True)
        live = None
        if sys.stdout.isatty():
            live = stack.enter_context(Live(console=console, transient=True, auto_refresh=False))
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                left = interval if end is None else min(interval, end - time.monotonic())
                if left <= 0:
                    break
                watch.wait(left)
                if live is not None:
                    live.update(_table(watch.rows(), console.height), refresh=True)
        rows = watch.rows()
        if write is not None:
            _finish(file, watch)
    return rows, watch


def _keeper(file: Writer) -> Callable[[Kept], None]:
    def keep(one: Kept) -> None:
        remark = f"{one.reason} at {one.where}"
        file.packet(one.interface, one.time, one.data, one.original, remark)

    return keep


def _finish(file: Writer, watch: Watch) -> None:
    import time

    for name, (kept, missed) in watch.interfaces().items():
        file.statistics(name, time.time_ns(), kept + missed, missed)


def _table(rows: list[Row], height: int) -> RenderableType:
    from millrace.cli.report import table

    return table([_flat(row) for row in rows[: max(1, height - 6)]], columns=_COLUMNS)


def _flat(row: Row) -> dict[str, Value]:
    from dataclasses import asdict

    flat: dict[str, Value] = asdict(row)
    if row.namespace:
        flat["interface"] = f"{row.namespace}/{row.interface}"
    flat["where"] = row.where if row.source == "kernel" else f"{row.source} {row.where}"
    return flat


def _say(watch: Watch, rows: list[Row], wanted: Selection) -> None:
    """What the rows mean, what was not seen, and what it cost."""
    seen = set()
    for row in rows:
        if row.reason not in seen:
            seen.add(row.reason)
            typer.echo(f"{row.reason}: {row.why}" + (f"\n  {row.remedy}" if row.remedy else ""))
    if watch.blind:
        typer.echo(f"the kernel's drops were not seen: {watch.blind}", err=True)
    elif not rows:
        which = "fitting packets" if wanted != type(wanted)() else "packets that somebody misses"
        benign = f" ({watch.benign:,} that nobody misses: --all)" if watch.benign else ""
        typer.echo(f"no {which} were dropped in {watch.seconds:.1f} s{benign}")
    cost = watch.cost()
    words = [f"frames of {watch.missed:,} drops were not looked at"]
    words += [f"{count:,} {name} lost" for name, count in watch.lost.items() if count]
    if cost.per_drop is not None:
        words.append(f"watching took {cost.per_drop:.0f} ns a drop (clock included)")
    words.append(f"{cost.process:.1%} of a core for this process")
    typer.echo("; ".join(words), err=True)


def _explain(name: str) -> int:
    from millrace.watch import reasons

    if name.lower() == "all":
        for every in (reasons.KERNEL, reasons.OWN):
            for one, meaning in every.items():
                typer.echo(f"{one} ({meaning.kind}): {meaning.why}")
        return 0
    short = name.upper().removeprefix("SKB_DROP_REASON_")
    meaning = reasons.KERNEL.get(short) or reasons.of_own(name.lower())
    if meaning is reasons.UNKNOWN:
        raise ValueError(f"{name} is no reason that is known here; --explain all lists them")
    title = short if short in reasons.KERNEL else name.lower()
    typer.echo(f"{title} ({meaning.kind}): {meaning.why}")
    if meaning.remedy:
        typer.echo(f"  {meaning.remedy}")
    return 0
