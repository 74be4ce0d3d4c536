"""`millrace send`: generated packets, at a pace."""

from __future__ import annotations

import contextlib
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millrace.cli.report import JsonOption

if TYPE_CHECKING:
    from millrace.packets import Port
    from millrace.packets.generator import Field, Meter, MeterReport, Template, Values
    from millrace.packets.generator.values import Value

#: How long after the last packet sent a receiver waits for more.
_AFTER_SECONDS = 0.5


def command(
    interface: Annotated[
        str,
        typer.Argument(metavar="IFACE", help="An interface; af_packet:eth1, af_xdp:eth1 and so on"),
    ],
    destination: Annotated[
        str | None, typer.Option("--destination", "-d", metavar="ADDRESSES", help="IP addresses.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--source", "-s", metavar="ADDRESSES", help="Without it, what Linux would take."
        ),
    ] = None,
    protocol: Annotated[str, typer.Option(help="udp, tcp, icmp or a number.")] = "udp",
    destination_port: Annotated[str, typer.Option(metavar="PORTS")] = "9",
    source_port: Annotated[str, typer.Option(metavar="PORTS")] = "1024",
    destination_mac: Annotated[
        str | None,
        typer.Option(metavar="MACS", help="Without it, what Linux knows of the next hop."),
    ] = None,
    source_mac: Annotated[
        str | None, typer.Option(metavar="MACS", help="Without it, the interface's.")
    ] = None,
    vlan: Annotated[str | None, typer.Option(metavar="NUMBERS")] = None,
    ttl: Annotated[str, typer.Option(metavar="NUMBERS")] = "64",
    tcp_flags: Annotated[str, typer.Option(metavar="FLAGS", help='As "syn" or "psh,ack".')] = "ack",
    size: Annotated[
        str,
        typer.Option(
            metavar="SIZES", help="Bytes of a frame, without check sequence; imix is a mixture."
        ),
    ] = "60",
    payload: Annotated[
        str, typer.Option(metavar="TEXT|hex:BYTES", help="It is repeated to fill the packet.")
    ] = "",
    field: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OFFSET:WIDTH=VALUES", help="Any bytes of the frame; may be given repeatedly."
        ),
    ] = None,
    frame: Annotated[
        str | None,
        typer.Option(
            metavar="hex:BYTES|FILE", help="The frame itself, instead of addresses and ports."
        ),
    ] = None,
    checksums: Annotated[bool, typer.Option(help="Put checksums and lengths right.")] = True,
    pps: Annotated[
        str | None, typer.Option("--pps", metavar="RATE", help='Packets a second, as "1.5M".')
    ] = None,
    rate: Annotated[
        str | None, typer.Option("--rate", metavar="RATE", help='Bits a second, as "100M".')
    ] = None,
    burst: Annotated[int, typer.Option(help="So many packets leave together.", min=1)] = 1,
    count: Annotated[
        int | None, typer.Option("--count", "-c", help="End after so many packets.", min=1)
    ] = None,
    duration: Annotated[
        str | None, typer.Option(metavar="TIME", help='End after "10s", "5min".')
    ] = None,
    stream: Annotated[
        int | None,
        typer.Option(
            help="Number packets and stamp them with the time, as this stream, for millrace meter.",
            min=0,
            max=65535,
        ),
    ] = None,
    receive: Annotated[
        str | None,
        typer.Option(
            metavar="IFACE", help="Receive them there, and say what was lost and how long it took."
        ),
    ] = None,
    show: Annotated[
        int, typer.Option("--show", help="Send nothing; print the first so many frames in hex.")
    ] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No line of progress.")] = False,
    json_file: JsonOption = None,
) -> int:
    """Send packets of a template, as fast as they go or at a pace.

    What varies is written as "10.0.0.1-10.0.0.9", "10.0.0.0/24" (in turn), "1,2,7",
    "random:1024-65535", "zipf:1-1000", "zipf@1.2:10.0.0.0/16", or with weights "60*7,1514*1".

    An interface's name alone is sent by in the fastest way there is, and which that was is said.
    """
    import millrace
    from millrace.cli import traffic
    from millrace.cli.meter import meter_lines, meter_rows
    from millrace.cli.report import check_json_file, write_json
    from millrace.packets import interface as link
    from millrace.packets.generator import IMIX, Generator, Meter, packet, sender

    check_json_file(json_file)
    if receive is not None and stream is None:
        stream = 0
    sizes = IMIX if size.strip().lower() == "imix" else _values("--size", size)
    pace, bits = traffic.packets_per_second(pps), traffic.bits_per_second(rate)
    # A pace in bits is at most so many packets.
    expected = pace if bits is None else bits / 8 / 60
    about = sys.stderr if json_file == "-" else sys.stdout
    with contextlib.ExitStack() as stack:
        name = interface.rpartition(":")[2].partition("#")[0]
        port: Port | None = None
        if not show:
            port = stack.enter_context(sender(interface, expected))
        if frame is not None:
            if destination is not None:
                raise ValueError("--frame is the whole packet; leave --destination out")
            template = _plain(frame, sizes, field, checksums)
        else:
            if destination is None:
                raise ValueError("--destination is missing: where shall the packets go?")
            to = _values("--destination", destination)
            source_found, mac_found = (None, None)
            if source is None or destination_mac is None:
                source_found, mac_found = _way(to, interface, name)
            if source is None and source_found is None:
                raise ValueError(f"{name} has no address towards {destination}; give --source")
            if destination_mac is None and mac_found is None:
                raise ValueError(
                    f"Linux knows no hardware address towards {destination} by {name}: ping it "
                    f"once, or give --destination-mac"
                )
            template = packet(
                destination=to,
                source=_values("--source", source or source_found or ""),
                destination_mac=_values("--destination-mac", destination_mac or mac_found or ""),
                source_mac=_values(
                    "--source-mac", source_mac or (port and port.mac) or "02:00:00:00:00:01"
                ),
                vlan=None if vlan is None else _values("--vlan", vlan),
                protocol=int(protocol) if protocol.isdigit() else protocol,
                destination_port=_values("--destination-port", destination_port),
                source_port=_values("--source-port", source_port),
                tcp_flags=tcp_flags,
                ttl=_values("--ttl", ttl),
                size=sizes,
                payload=_bytes(payload),
                fields=[_field(text) for text in field or ()],
                checksums=checksums,
            )
        generator = Generator(
            template,
            packets=count,
            seconds=traffic.span("--duration", duration),
            packets_per_s=pace,
            bits_per_s=bits,
            burst=burst,
            stream=stream,
        )
        if port is None:
            for data in generator.render(show):
                print(data.hex())
            return 0
        metered: MeterReport | None = None
        before = link.counters(interface, link.TX_DROPS)
        meter: Meter | None = None
        if receive is not None:
            other = stack.enter_context(millrace.open(receive))
            meter = stack.enter_context(Meter(other))
        line = traffic.ProgressLine(quiet)
        with traffic.ended_by_signals(generator.stop):
            try:
                report = generator.run(port, lambda sent: line.show(sent["packets"], sent["bytes"]))
            finally:
                line.clear()
                if meter is not None:
                    _wait_for_the_last(meter)
        if meter is not None:
            metered = meter.result()
        how = f"{port.kind}:{port.name}"
        facts = port.facts
    chosen = facts.get("chosen")
    drops = link.more(interface, before)
    for text in traffic.sent_lines(report, how, drops):
        print(text, file=about)
    if chosen:
        print(f"the way out was {chosen}", file=about)
    elif expected is not None and ":" not in interface:
        print("the way out was af_packet, which is enough for that pace", file=about)
    if report.behind:
        print(f"{report.behind:,} packets were due and given up: that is too fast here", file=about)
    rows: list[dict[str, str | int | float]] = [
        {
            "interface": interface,
            "port": how,
            "packets": report.packets,
            "bytes": report.bytes,
            "seconds": report.seconds,
            "packets_per_s": report.packets_per_s,
            "bits_per_s": report.bits_per_s,
            "behind": report.behind,
            "lost": report.lost,
            **{f"lost_{name}": number for name, number in report.drops.items()},
            **{f"interface_{name}": number for name, number in drops.items()},
        }
    ]
    if metered is not None:
        for text in meter_lines(metered, {stream or 0: report.packets}):
            print(text, file=about)
        rows += meter_rows(metered, receive or "", {stream or 0: report.packets})
    if json_file is not None:
        write_json(rows, json_file)
    return 0


def _values(name: str, text: str) -> Value | Values:
    from millrace.packets.generator import parse

    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _way(to: Value | Values, port: str, name: str) -> tuple[str | None, str | None]:
    """What Linux would do with a packet to the first of these addresses."""
    from millrace.packets import interface
    from millrace.packets.generator import Values

    first = to.example() if isinstance(to, Values) else to
    if port.partition(":")[0] in ("memory", "pcap", "tap"):
        return None, None
    return interface.way_to(str(ip_address(first)), name)


def _plain(
    frame: str, sizes: Value | Values, fields: list[str] | None, checksums: bool
) -> Template:
    from millrace.packets.generator import Template

    data = _bytes(frame) if frame.startswith("hex:") else Path(frame).read_bytes()
    size = sizes if sizes != "60" else None
    return Template(
        data, size, [_field(text) for text in fields or ()], lengths=checksums, checksums=checksums
    )


def _field(text: str) -> Field:
    from millrace.packets.generator import Cycle, Field, Values

    place, equals, values = text.partition("=")
    offset, _, width = place.partition(":")
    if not equals or not offset.isdigit() or not width.isdigit():
        raise ValueError(f"--field is OFFSET:WIDTH=VALUES, as in 42:4=1-1000, not {text!r}")
    found = _values("--field", values)
    return Field(int(offset), int(width), found if isinstance(found, Values) else Cycle([found]))


def _bytes(text: str) -> bytes:
    if not text.startswith("hex:"):
        return text.encode()
    try:
        return bytes.fromhex(text[4:])
    except ValueError:
        raise ValueError(f"{text!r}: hex: is followed by pairs of hexadecimal digits") from None


def _wait_for_the_last(meter: Meter) -> None:
    """What was sent last may still be on the way: wait until nothing has come for a while."""
    import time

    seen, since = -1, time.monotonic()
    while time.monotonic() - since < _AFTER_SECONDS:
        if (stamped := meter.report().stamped) != seen:
            seen, since = stamped, time.monotonic()
        time.sleep(0.02)
    meter.stop()
