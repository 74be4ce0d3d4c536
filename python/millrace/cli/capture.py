"""`millrace capture`: the packets of an interface into files, with a live view of what passes."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from millrace.cli.report import JsonOption

if TYPE_CHECKING:
    from millrace.packets import CaptureReport

#: What is lost at each place, and what to do about it.
_REASONS = {
    "rx_ring_full": "found the kernel's ring full: give it more (--buffer), keep less of each "
    "packet (--snap-length), or choose fewer by an expression",
    "rx_no_frame": "found no free frame",
    "rx_too_long": "were longer than a frame",
    "unwritten": "could not be written",
}


def command(
    interface: Annotated[
        str,
        typer.Argument(
            metavar="IFACE", help="An interface, or a port as af_xdp:eth1, pcap:trace.pcapng."
        ),
    ],
    expression: Annotated[
        list[str] | None,
        typer.Argument(metavar="[EXPRESSION]", help="Which packets, in tcpdump's language."),
    ] = None,
    write: Annotated[
        str | None,
        typer.Option(
            "--write",
            "-w",
            metavar="FILE",
            help="pcapng, or by its suffix .pcap or .parquet (columns of the headers); - is "
            "standard output, for a pipe. Without it packets are only counted.",
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", "-c", help="End after so many packets.", min=1)
    ] = None,
    duration: Annotated[
        str | None,
        typer.Option("--duration", "-d", metavar="TIME", help='End after "10s", "5min".'),
    ] = None,
    snap_length: Annotated[
        int,
        typer.Option(
            "--snap-length", "-s", help="Keep so many bytes of a packet; 0: all.", min=0, max=262144
        ),
    ] = 0,
    direction: Annotated[
        str, typer.Option("--direction", "-Q", metavar="in|out|both", help="Which way.")
    ] = "both",
    promiscuous: Annotated[bool, typer.Option(help="Also what is addressed to others.")] = True,
    buffer: Annotated[
        str, typer.Option("--buffer", "-B", metavar="SIZE", help="The kernel's ring.")
    ] = "64MiB",
    rotate_size: Annotated[
        str | None,
        typer.Option("--rotate-size", "-C", metavar="SIZE", help='Next file after "100MB".'),
    ] = None,
    rotate_time: Annotated[
        str | None,
        typer.Option("--rotate-time", "-G", metavar="TIME", help='Next file after "60s".'),
    ] = None,
    files: Annotated[
        int | None,
        typer.Option("--files", "-W", help="Keep the last so many files.", min=1),
    ] = None,
    top: Annotated[int, typer.Option(help="Flows in the live view; 0: none.", min=0, max=100)] = 10,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No live view.")] = False,
    json_file: JsonOption = None,
) -> int:
    """Capture packets into a file, and say what was lost and where.

    On a terminal a live view shows rates and the largest flows. Ctrl-C ends the capture; what came
    before is in the file, which is readable at any moment.
    """
    from millrace.cli.report import check_json_file, write_json
    from millrace.lab.impairment import size, time
    from millrace.packets import Capture

    check_json_file(json_file)
    output: str | int | None = write
    if write == "-":
        if sys.stdout.isatty():
            raise ValueError(
                "-w - writes to standard output, which is a terminal; pipe it, as in "
                "millrace capture eth1 -w - | wireshark -k -i -"
            )
        if json_file == "-":
            raise ValueError("-w - and --json - both want standard output")
        output = sys.stdout.fileno()
    # What is about the capture goes where the packets do not.
    about = sys.stderr if write == "-" or json_file == "-" else sys.stdout
    live = not quiet and about.isatty()

    def bytes_of(name: str, text: str | None) -> int | None:
        return None if text is None else size(name, text, None, 0.0, 1500)

    capture = Capture(
        interface,
        output,
        " ".join(expression or ()),
        packets=count,
        seconds=None if duration is None else time("--duration", duration),
        snap_length=snap_length,
        direction=direction,  # type: ignore[arg-type]  # it says what is wrong
        promiscuous=promiscuous,
        buffer_bytes=bytes_of("--buffer", buffer),
        rotate_bytes=bytes_of("--rotate-size", rotate_size),
        rotate_seconds=None if rotate_time is None else time("--rotate-time", rotate_time),
        keep=files,
        flows=live and top > 0,
    )

    def end(number: int, frame: FrameType | None) -> None:
        capture.stop()

    previous = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if live:
            from millrace.cli.capture_view import CaptureView

            with CaptureView(interface, about, top) as view:
                report = capture.run(view.show)
        else:
            print(f"capturing on {interface}; Ctrl-C ends it", file=sys.stderr, flush=True)
            report = capture.run()
    except OSError:
        # What was kept until then is worth knowing, too.
        progress = capture.progress()
        print(_until_then(progress["packets"] - progress["unwritten"]), file=sys.stderr)
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    for line in summary(report, interface, write):
        print(line, file=about)
    if json_file is not None:
        write_json([_row(report, interface)], json_file)
    return 0


def summary(report: CaptureReport, interface: str, file: str | None) -> list[str]:
    """What is said at the end: what was kept, what was lost, and where."""
    where = ""
    if file is not None:
        name = "standard output" if file == "-" else file
        pieces = f"{report.files:,} files, " if report.files > 1 else ""
        where = f" in {name} ({pieces}{report.written:,} bytes)"
    cut = f", {report.cut:,} of them cut" if report.cut else ""
    lines = [
        f"{report.packets:,} packets of {report.bytes:,} bytes in {report.seconds:.3f} s from "
        f"{interface}{where}{cut}"
    ]
    if report.filtered:
        lines.append(f"{report.filtered:,} packets did not match the expression")
    lines.append(f"{report.lost:,} packets were lost" + (":" if report.lost else ""))
    for name, number in report.drops.items():
        lines.append(f"  {number:,} {_REASONS.get(name, name)}")
    for name, number in report.interface_drops.items():
        lines.append(
            f"the interface counted {number:,} {name} meanwhile; they may not all have been for us"
        )
    return lines


def _until_then(packets: int) -> str:
    return f"{packets:,} packets were kept until then; what was written stays readable"


def _row(report: CaptureReport, interface: str) -> dict[str, str | int | float]:
    return {
        "interface": interface,
        "end": report.end,
        "packets": report.packets,
        "bytes": report.bytes,
        "seconds": report.seconds,
        "cut": report.cut,
        "files": report.files,
        "written": report.written,
        "filtered": report.filtered,
        "lost": report.lost,
        **{f"lost_{name}": count for name, count in report.drops.items()},
        **{f"interface_{name}": count for name, count in report.interface_drops.items()},
    }
