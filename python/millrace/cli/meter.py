"""`millrace meter`: what became of the packets of `millrace send`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from millrace.cli.report import JsonOption

if TYPE_CHECKING:
    from millrace.packets.generator import MeterReport

_SHOWN = (0.0, 50.0, 99.0, 99.9, 100.0)


def command(
    interface: Annotated[str, typer.Argument(metavar="IFACE", help="An interface or a port.")],
    count: Annotated[
        int | None, typer.Option("--count", "-c", help="End after so many stamped packets.", min=1)
    ] = None,
    duration: Annotated[
        str | None, typer.Option("--duration", "-d", metavar="TIME", help='End after "10s".')
    ] = None,
    idle: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="End when nothing stamped has come for so long."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No line of progress.")] = False,
    json_file: JsonOption = None,
) -> int:
    """Receive the packets of `millrace send --stream N`, and say for each stream how many were
    lost, came out of order or twice, and how long they took.

    Times are from the sender's clock to the receiver's: on one machine they are exact, between two
    they are as good as the clocks are one. Ctrl-C ends it.
    """
    import millrace
    from millrace.cli import traffic
    from millrace.cli.report import check_json_file, write_json
    from millrace.packets.generator import Meter

    check_json_file(json_file)
    about = sys.stderr if json_file == "-" else sys.stdout
    with millrace.open(interface) as port:
        meter = Meter(
            port,
            packets=count,
            seconds=traffic.span("--duration", duration),
            idle=traffic.span("--idle", idle),
        )
        print(f"metering on {interface}; Ctrl-C ends it", file=sys.stderr, flush=True)
        line = traffic.ProgressLine(quiet)

        def show(report: MeterReport) -> None:
            line.show(report.stamped, sum(stream.bytes for stream in report.streams))

        with traffic.ended_by_signals(meter.stop):
            try:
                report = meter.run(show)
            finally:
                line.clear()
        drops = {name: count for name, count in port.stats()["drops"].items() if count}
    for text in meter_lines(report, {}):
        print(text, file=about)
    for name, number in drops.items():
        print(f"{number:,} packets were lost here, not on the way: {name}", file=about)
    if json_file is not None:
        write_json(meter_rows(report, interface, {}), json_file)
    return 0


def meter_lines(report: MeterReport, sent: Mapping[int, int]) -> list[str]:
    """What a meter has seen, for people. `sent`: packets that each stream had, where that is
    known.
    """
    lines = []
    for one in report.streams:
        lost = _lost(one.unique, one.lost, sent.get(one.stream))
        share = lost / max(one.unique + lost, 1)
        lines.append(
            f"stream {one.stream}: {one.unique:,} packets came, {lost:,} were lost ({share:.3%}), "
            f"{one.reordered:,} out of order, {one.duplicated:,} twice"
            + (f", {one.late:,} too late to tell" if one.late else "")
        )
        times = ", ".join(
            f"{_name(percentile)} {one.latency_ns[percentile] / 1000:.4g} µs"
            for percentile in _SHOWN
        )
        lines.append(f"  on the way: {times}")
        if one.negative:
            lines.append(
                f"  {one.negative:,} came before they were sent: the clocks of the machines differ"
            )
    if not report.streams:
        lines.append("no packet of millrace send --stream has come")
    if report.other_streams:
        lines.append(f"{report.other_streams:,} packets of streams beyond the first 64")
    if report.unstamped:
        lines.append(f"{report.unstamped:,} packets of others")
    return lines


def meter_rows(
    report: MeterReport, interface: str, sent: Mapping[int, int]
) -> list[dict[str, str | int | float]]:
    """What a meter has seen, a row for each stream."""
    return [
        {
            "interface": interface,
            "stream": one.stream,
            "packets": one.unique,
            "bytes": one.bytes,
            "seconds": one.seconds,
            "lost": _lost(one.unique, one.lost, sent.get(one.stream)),
            "reordered": one.reordered,
            "duplicated": one.duplicated,
            "late": one.late,
            "negative": one.negative,
            "latency_mean_ns": one.latency_mean_ns,
            **{
                f"latency_{_name(percentile)}_ns": value
                for percentile, value in one.latency_ns.items()
            },
        }
        for one in report.streams
    ]


def _lost(unique: int, lost: int, sent: int | None) -> int:
    return lost if sent is None else max(sent - unique, 0)


def _name(percentile: float) -> str:
    return {0.0: "min", 100.0: "max"}.get(percentile, f"p{percentile:g}")
