"""`millrace load`: load a server over our own stack, and show its latencies."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from millrace.cli.report import JsonOption
from millrace.cli.serve import (
    AddressOption,
    FramesOption,
    GatewayOption,
    PortOption,
    WaitOption,
    parse_wait,
)

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def _load() -> None:
    """Load a server over our own TCP/IP stack."""


@app.command()
def http(
    url: Annotated[str, typer.Argument(metavar="URL", help="http://192.0.2.2/path")],
    port: PortOption,
    address: AddressOption,
    connections: Annotated[int, typer.Option(help="Connections at a time.", min=1)] = 64,
    duration: Annotated[float, typer.Option(metavar="S", help="Seconds.", min=0.1)] = 10.0,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="R",
            help="Requests a second, sent when they are due whatever the server does. Latencies "
            "then count from that time (no coordinated omission).",
        ),
    ] = None,
    wait: WaitOption = "sleep",
    gateway: GatewayOption = None,
    frames: FramesOption = 16384,
    json_file: JsonOption = None,
) -> None:
    """Send GET requests and measure. Without a rate each connection waits for its answer."""
    from millrace.apps.load import Load, Outcome, Target
    from millrace.cli.report import Steps, Value, check_json_file, show
    from millrace.net import Channel

    check_json_file(json_file)
    target = Target.parse(url)
    ticks = max(1, math.ceil(duration))
    with Channel(
        port,
        address,
        gateway=gateway,
        wait=parse_wait(wait),  # type: ignore[arg-type]  # the channel says what is wrong
        frames=frames,
        connections=2 * connections + 64,
    ) as channel:
        load = Load(channel, target, connections, rate)
        with Steps("loading", total=ticks) as steps:

            def tick(outcome: Outcome) -> None:
                steps.begin(f"{outcome.requests:,} requests")

            outcome = load.run(duration, tick)
        kind = channel.facts["port"].partition(":")[0]
    row: dict[str, Value] = {
        "url": url,
        "port": kind,
        "connections": connections,
        "wait": wait,
        "rate": rate,
        "seconds": round(outcome.seconds, 3),
        "requests": outcome.requests,
        "requests_per_s": outcome.requests / outcome.seconds,
        "mbit_per_s": outcome.bytes * 8e-6 / outcome.seconds,
        "p50_us": outcome.percentile_us(50),
        "p90_us": outcome.percentile_us(90),
        "p99_us": outcome.percentile_us(99),
        "p999_us": outcome.percentile_us(99.9),
        "max_us": outcome.percentile_us(100),
        "errors": outcome.errors,
    }
    show([row], title="latency from when a request was due" if rate else None, json_file=json_file)
    for reason, count in outcome.reasons.most_common():
        typer.echo(f"{count} times: {reason}", err=True)
