"""`millrace interfaces`: what ip and ethtool say, in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from millrace.cli.report import JsonOption

if TYPE_CHECKING:
    from millrace.cli.report import Value

_COLUMNS = ("interface", "kind", "driver", "state", "mtu", "speed_mbit", "queues")
_COUNTS = ("rx_packets", "tx_packets", "trouble")
_RATES = ("rx_pps", "tx_pps", "rx_bps", "tx_bps", "trouble")
_LAST = ("addresses", "millrace")


def command(
    name: Annotated[
        str | None, typer.Argument(metavar="[INTERFACE]", help="All there is to say of this one.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Rates over so long, instead of totals.", min=0.05)
    ] = None,
    json_file: JsonOption = None,
) -> int:
    """Show the interfaces of this network namespace, or one of them in detail.

    trouble is the sum of all counters of errors and drops. What a driver does not tell is shown as
    not available, with the reason.
    """
    import time
    from dataclasses import asdict

    from millrace.cli.report import check_json_file, show, write_json
    from millrace.host import Observer
    from millrace.watch import interfaces, processes

    check_json_file(json_file)
    channels = list(processes.find().pages)
    with Observer() as observer:
        before = observer.snapshot(("links",)) if seconds is not None else None
        if seconds is not None:
            time.sleep(seconds)
        snapshot = observer.snapshot(interfaces.PARTS)
    for part, missing in snapshot.missing().items():
        typer.echo(f"{part}: {missing}", err=True)
    if name is not None:
        sections = interfaces.details(snapshot, name, channels)
        flat: list[dict[str, Value]] = [
            {"interface": name, "section": section, "name": title, "text": text}
            for section, rows in sections
            for title, text in rows
        ]
        if json_file != "-":
            for section, rows in sections:
                typer.echo(f"{section}:")
                for title, text in rows:
                    typer.echo(f"  {title}: {text}" if title else f"  {text}")
        if json_file is not None:
            write_json(flat, json_file)
        return 0
    rows_of = [asdict(line) for line in interfaces.lines(snapshot, channels, before)]
    columns = (*_COLUMNS, *(_COUNTS if seconds is None else _RATES), *_LAST)
    show(rows_of, columns=columns, json_file=json_file)
    return 0
