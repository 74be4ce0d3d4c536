"""The live view of a capture: rates, and the largest flows."""

from __future__ import annotations

import time
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from millrace.packets import Capture, TopFlow
    from millrace.packets.stats import CaptureProgress

_PROTOCOLS = {
    1: "icmp",
    2: "igmp",
    6: "tcp",
    17: "udp",
    47: "gre",
    50: "esp",
    58: "icmp6",
    132: "sctp",
}
_ETHER_TYPES = {0x0806: "arp", 0x88CC: "lldp", 0x8809: "lacp", 0x86DD: "ip6", 0x0800: "ip"}


class CaptureView:
    """A table that stays where it is while a capture runs, and goes when it ends."""

    def __init__(self, interface: str, file: TextIO, top: int) -> None:
        self._interface = interface
        self._top = top
        self._live = Live(
            console=Console(file=file, highlight=False, markup=False),
            auto_refresh=False,
            transient=True,
        )
        self._last: tuple[float, CaptureProgress] | None = None
        #: Bytes of each flow when it was shown last.
        self._flows: dict[bytes, int] = {}

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, capture: Capture) -> None:
        """Show what a capture has done so far."""
        now, progress = time.monotonic(), capture.progress()
        flows, given_up = capture.top(self._top) if self._top else ([], 0)
        self._live.update(self._draw(now, progress, flows, given_up), refresh=True)
        self._last = (now, progress)

    def _draw(
        self, now: float, progress: CaptureProgress, flows: list[TopFlow], given_up: int
    ) -> Group:
        span = now - self._last[0] if self._last else progress["seconds"]
        parts: list[Any] = [
            rates(self._interface, progress, self._last[1] if self._last else None, span)
        ]
        if flows:
            parts.append(self._flow_table(flows, progress["bytes"], span))
        if given_up:
            parts.append(Text(f"{given_up:,} small flows had to make room"))
        parts.append(Text("Ctrl-C ends the capture"))
        return Group(*parts)

    def _flow_table(self, flows: list[TopFlow], total: int, span: float) -> Table:
        table = Table(title="largest flows", title_justify="left")
        for name, justify in [
            ("protocol", "left"), ("a", "left"), ("b", "left"),
            ("packets", "right"), ("bytes", "right"), ("share", "right"), ("now", "right"),
        ]:  # fmt: skip
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        seen = {}
        for flow in flows:
            key = flow.headers.tobytes()
            seen[key] = flow.bytes
            fresh = flow.bytes - self._flows.get(key, 0)
            protocol, a, b = ends(flow)
            table.add_row(
                protocol,
                a,
                b,
                f"{flow.packets:,}",
                f"{flow.bytes:,}",
                f"{flow.bytes / max(total, 1):.1%}",
                f"{bits(fresh * 8 / span)}" if span > 0 else "-",
            )
        self._flows = seen
        return table


def rates(
    interface: str, progress: CaptureProgress, last: CaptureProgress | None, span: float
) -> Table:
    """What came in the last `span` seconds, and in all."""
    table = Table(title=f"capture on {interface}", title_justify="left")
    for name in ("", "packets", "packets/s", "bytes", "rate", "lost"):
        table.add_column(name, justify="right" if name else "left")
    for name, since, seconds in [("now", last, span), ("in all", None, progress["seconds"])]:
        packets = progress["packets"] - (since["packets"] if since else 0)
        size = progress["bytes"] - (since["bytes"] if since else 0)
        lost = lost_of(progress) - (lost_of(since) if since else 0)
        per_second = 1 / seconds if seconds > 0 else 0.0
        table.add_row(
            name,
            f"{packets:,}",
            f"{packets * per_second:,.0f}",
            f"{size:,}",
            bits(size * 8 * per_second),
            f"{lost:,}",
        )
    return table


def lost_of(progress: CaptureProgress) -> int:
    """Packets that should have been kept and were not."""
    return sum(progress["drops"].values()) + progress["unwritten"]


def bits(per_second: float) -> str:
    """A rate as people read it."""
    for unit in ("bit/s", "kbit/s", "Mbit/s", "Gbit/s"):
        if per_second < 1000 or unit == "Gbit/s":
            break
        per_second /= 1000
    return f"{per_second:.3g} {unit}"


def ends(flow: TopFlow) -> tuple[str, str, str]:
    """The protocol and the two ends of a flow."""
    row = flow.headers
    ether_type, version, number = (
        int(row["ether_type"]), int(row["ip_version"]), int(row["protocol"]),
    )  # fmt: skip
    if not version:
        name = _ETHER_TYPES.get(ether_type, f"0x{ether_type:04x}")
        return name, _mac(int(row["source_mac"])), _mac(int(row["destination_mac"]))
    name = _PROTOCOLS.get(number, f"ip {number}")
    texts = []
    for side in ("source", "destination"):
        if version == 4:
            address = str(IPv4Address(int(row[f"{side}_ipv4"])))
        else:
            high, low = int(row[f"{side}_ipv6_high"]), int(row[f"{side}_ipv6_low"])
            address = str(IPv6Address(high << 64 | low))
        port = int(row[f"{side}_port"])
        if port:
            address = f"[{address}]:{port}" if version == 6 else f"{address}:{port}"
        texts.append(address)
    return name, texts[0], texts[1]


def _mac(address: int) -> str:
    return ":".join(f"{byte:02x}" for byte in address.to_bytes(6, "big"))
