"""`millrace serve`: small servers on our own stack."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from millrace.net import Channel

app = typer.Typer(add_completion=False, no_args_is_help=True)

PortOption = Annotated[
    str,
    typer.Option(
        metavar="KIND:IFACE",
        help="The port: af_xdp:eth1, af_packet:eth1, tap:mill0, or eth1 for the best it allows.",
    ),
]
AddressOption = Annotated[
    str,
    typer.Option(metavar="A/N", help="Our own address with its prefix length: 192.0.2.2/24."),
]
GatewayOption = Annotated[
    str | None, typer.Option(metavar="A", help="Where packets for other networks go.")
]
WaitOption = Annotated[
    str,
    typer.Option(
        metavar="HOW", help="When idle: sleep, spin, or microseconds to spin before sleeping."
    ),
]
FramesOption = Annotated[int, typer.Option(help="Frames of memory.", min=256)]


@app.callback()
def _serve() -> None:
    """Serve HTTP or echo from our own TCP/IP stack, until Ctrl-C."""


@app.command()
def http(
    port: PortOption,
    address: AddressOption,
    listen: Annotated[int, typer.Option(help="TCP port.", min=1, max=65535)] = 80,
    wait: WaitOption = "sleep",
    gateway: GatewayOption = None,
    frames: FramesOption = 16384,
    connections: Annotated[int, typer.Option(help="Most at a time.", min=1)] = 16384,
    body: Annotated[int, typer.Option(help="Serve a body of so many bytes.", min=0)] = 1024,
    root: Annotated[
        str | None, typer.Option(metavar="DIR", help="Serve the files of a folder instead.")
    ] = None,
) -> None:
    """Serve HTTP/1.1: one body for every path, or a folder. Uploads are hashed and thrown away."""
    from millrace.apps.http import Content, Files, Fixed, Server

    content: Content = Files(root) if root is not None else Fixed(b"m" * body)
    with _open(port, address, wait, gateway, frames, connections) as channel:
        _announce(channel, f"http://{address.partition('/')[0]}:{listen}/")
        Server(content).serve(channel, listen)


@app.command()
def echo(
    port: PortOption,
    address: AddressOption,
    listen: Annotated[int, typer.Option(help="TCP and UDP port.", min=1, max=65535)] = 7,
    wait: WaitOption = "sleep",
    gateway: GatewayOption = None,
    frames: FramesOption = 16384,
    connections: Annotated[int, typer.Option(help="Most at a time.", min=1)] = 16384,
) -> None:
    """Send back what comes in, over TCP and UDP (RFC 862)."""
    from millrace.apps import echo as program

    with _open(port, address, wait, gateway, frames, connections) as channel:
        _announce(channel, f"echo at {address.partition('/')[0]}:{listen}")
        program.serve(channel, listen)


def parse_wait(text: str) -> float | str:
    """What `--wait` says, as `Channel` takes it."""
    try:
        return float(text)
    except ValueError:
        return text


def _open(
    port: str, address: str, wait: str, gateway: str | None, frames: int, connections: int
) -> Channel:
    from millrace.net import Channel

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    # The peers' connections are reset, and not left in the dark.
    signal.signal(signal.SIGTERM, end)
    return Channel(
        port,
        address,
        gateway=gateway,
        wait=parse_wait(wait),  # type: ignore[arg-type]  # the channel says what is wrong
        frames=frames,
        connections=connections,
    )


def _announce(channel: Channel, what: str) -> None:
    facts = channel.facts
    chosen = f" ({facts['chosen']})" if "chosen" in facts else ""
    print(f"{what} on {facts['port']}{chosen}; Ctrl-C ends it", file=sys.stderr, flush=True)
