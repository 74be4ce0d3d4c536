"""`millrace exporter`: metrics for Prometheus and OpenTelemetry."""

from __future__ import annotations

from typing import Annotated

import typer

DEFAULT_PORT = 9477


def command(
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; by default this machine only.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="0: any that is free.", min=0, max=65535)
    ] = DEFAULT_PORT,
    drops: Annotated[
        bool, typer.Option(help="Count the kernel's drops by reason; it takes root.")
    ] = True,
    host: Annotated[
        bool, typer.Option(help="Interfaces, softnet, CPUs, sockets and counters of the kernel.")
    ] = True,
    once: Annotated[
        bool, typer.Option("--once", help="Write the text to standard output, and end.")
    ] = False,
    otlp: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Send to this OpenTelemetry collector: http://HOST:4318/v1/metrics."
        ),
    ] = None,
    interval: Annotated[
        float, typer.Option(help="Seconds between two sendings to it.", min=1.0)
    ] = 15.0,
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Write the dashboard for Grafana, and end.")
    ] = False,
) -> int:
    """Serve metrics in Prometheus's text format at /metrics.

    Of Millrace's own channels, of the kernel's drops and of the machine's network path. What one
    scrape costs is millrace_exporter_collect_seconds.
    """
    import contextlib
    import sys

    from millrace.watch.exporter import Exporter
    from millrace.watch.exporter import otlp as send
    from millrace.watch.http import Server

    if dashboard:
        from importlib.resources import files

        typer.echo((files("millrace.watch") / "grafana.json").read_text(), nl=False)
        return 0
    with contextlib.ExitStack() as stack:
        exporter = stack.enter_context(Exporter(drops=drops, host=host))
        if exporter.blind:
            print(f"without the kernel's drops: {exporter.blind}", file=sys.stderr)
        if once:
            sys.stdout.write(exporter.text().decode())
            return 0
        if otlp is not None:
            telemetry = send(exporter, otlp, interval)
            stack.callback(telemetry.shutdown)
        server = stack.enter_context(Server(listen, port, exporter.answer))
        print(f"serving {server.url}/metrics; Ctrl-C ends it", file=sys.stderr, flush=True)
        _wait()
    return 0


def _wait() -> None:
    """Until a signal."""
    import signal
    import threading

    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    while not ended.wait(3600.0):
        pass
