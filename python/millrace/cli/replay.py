"""`millrace replay`: a capture file sent again."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from millrace.cli.report import JsonOption


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="pcap or pcapng.")],
    interface: Annotated[
        str, typer.Argument(metavar="IFACE", help="Where to; af_packet:eth1 and so on, too.")
    ],
    expression: Annotated[
        list[str] | None,
        typer.Argument(metavar="[EXPRESSION]", help="Which packets, in tcpdump's language."),
    ] = None,
    speed: Annotated[
        float | None, typer.Option("--speed", metavar="TIMES", help="So many times faster.")
    ] = None,
    pps: Annotated[
        str | None, typer.Option("--pps", metavar="RATE", help='Packets a second, as "1.5M".')
    ] = None,
    rate: Annotated[
        str | None, typer.Option("--rate", metavar="RATE", help='Bits a second, as "100M".')
    ] = None,
    fastest: Annotated[bool, typer.Option("--fastest", help="As fast as they go.")] = False,
    longest_gap: Annotated[
        str,
        typer.Option(metavar="TIME", help="A longer time without a packet is cut to it."),
    ] = "60s",
    times: Annotated[int, typer.Option("--times", "-n", help="So often.", min=1)] = 1,
    count: Annotated[
        int | None, typer.Option("--count", "-c", help="End after so many packets.", min=1)
    ] = None,
    duration: Annotated[
        str | None, typer.Option("--duration", "-d", metavar="TIME", help='End after "10s".')
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No line of progress.")] = False,
    json_file: JsonOption = None,
) -> int:
    """Send the packets of a capture file, by default at the pace at which they were captured.

    An interface's name alone is sent by in the fastest way there is, and which that was is said.
    Packets are sent as they are in the file. Ctrl-C ends it.
    """
    from millrace.cli import traffic
    from millrace.cli.report import check_json_file, write_json
    from millrace.packets import Replay, sender
    from millrace.packets import interface as link

    check_json_file(json_file)
    about = sys.stderr if json_file == "-" else sys.stdout
    pace = traffic.packets_per_second(pps)
    replay = Replay(
        file,
        " ".join(expression or ()),
        speed=speed,
        packets_per_s=pace,
        bits_per_s=traffic.bits_per_second(rate),
        fastest=fastest,
        longest_gap=traffic.span("--longest-gap", longest_gap) or 0.0,
        times=times,
        packets=count,
        seconds=traffic.span("--duration", duration),
    )
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(sender(interface, pace))
        before = link.counters(interface, link.TX_DROPS)
        line = traffic.ProgressLine(quiet)
        with traffic.ended_by_signals(replay.stop):
            try:
                report = replay.run(port, lambda done: line.show(done["packets"], done["bytes"]))
            except (OSError, ValueError):
                line.clear()
                sent = replay.progress()["packets"]
                print(f"{sent:,} packets were sent until then", file=sys.stderr)
                raise
        line.clear()
        how, chosen = f"{port.kind}:{port.name}", port.facts.get("chosen")
    drops = link.more(interface, before)
    for text in traffic.sent_lines(report, how, drops):
        print(text, file=about)
    if chosen:
        print(f"the way out was {chosen}", file=about)
    for number, text in (
        (report.filtered, "did not match the expression"),
        (report.too_long, "are longer than the link takes and were left out"),
        (report.too_short, "are shorter than an Ethernet header and were left out"),
        (report.cut, "are cut in the file, and were sent so"),
        (report.late, "left more than a millisecond after their time"),
    ):
        if number:
            print(f"{number:,} packets {text}", file=about)
    if report.gaps_cut:
        print(f"{report.gaps_cut:,} gaps were cut to {longest_gap}", file=about)
    if json_file is not None:
        row: dict[str, str | int | float] = {
            "file": str(file),
            "interface": interface,
            "port": how,
            "packets": report.packets,
            "bytes": report.bytes,
            "seconds": report.seconds,
            "packets_per_s": report.packets_per_s,
            "bits_per_s": report.bits_per_s,
            "read": report.read,
            "filtered": report.filtered,
            "too_long": report.too_long,
            "too_short": report.too_short,
            "cut": report.cut,
            "late": report.late,
            "gaps_cut": report.gaps_cut,
            "times": report.times,
            "lost": report.lost,
            **{f"lost_{name}": number for name, number in report.drops.items()},
            **{f"interface_{name}": number for name, number in drops.items()},
        }
        write_json([row], json_file)
    return 0
