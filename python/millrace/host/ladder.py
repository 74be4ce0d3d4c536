"""Where packets are lost, in the order in which a received packet passes: the ladder of loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from millrace.host.checks.nic import LINK_COUNTERS, ring_losses
from millrace.host.checks.table import Context
from millrace.host.finding import Layer
from millrace.host.unavailable import Unavailable

_PROTOCOL = (
    "IpInHdrErrors", "IpInAddrErrors", "IpInUnknownProtos", "IpInDiscards", "IpReasmFails",
    "IpExtInNoRoutes", "IpExtInTruncatedPkts", "IpExtInCsumErrors",
    "Ip6InHdrErrors", "Ip6InAddrErrors", "Ip6InDiscards", "Ip6ReasmFails", "Ip6InNoRoutes",
    "TcpExtIPReversePathFilter", "TcpInErrs", "TcpExtPAWSEstab", "UdpInCsumErrors",
    "Udp6InCsumErrors", "IcmpInErrors",
)  # fmt: skip
_SOCKET = (
    "UdpRcvbufErrors", "UdpMemErrors", "Udp6RcvbufErrors", "Udp6MemErrors",
    "TcpExtListenDrops", "TcpExtTCPBacklogDrop", "TcpExtTCPRcvQDrop", "TcpExtRcvPruned",
    "TcpExtOfoPruned", "TcpExtTCPReqQFullDrop", "TcpExtTCPZeroWindowDrop",
)  # fmt: skip
_APPLICATION = ("UdpNoPorts", "Udp6NoPorts", "TcpExtTCPAbortOnClose", "TcpExtTCPAbortOnData")


@dataclass(frozen=True, slots=True)
class Rung:
    """One place of the way up."""

    layer: Layer
    #: What arrived there in the window; None where nobody counts it.
    arrived: int | None
    lost: int
    #: Lost by counter, those that count something.
    counters: Mapping[str, int]
    #: Why nothing is known; "" if something is.
    unknown: str = ""


def ladder(context: Context) -> tuple[Rung, ...]:
    """Losses of the window at each place. Raises `Unavailable` without a window."""
    _ = context.rates
    builders = (_nic, _ring, _softnet, _protocol, _socket, _application)
    layers = (
        Layer.NIC,
        Layer.RING,
        Layer.SOFTNET,
        Layer.PROTOCOL,
        Layer.SOCKET,
        Layer.APPLICATION,
    )
    rungs = []
    for layer, build in zip(layers, builders, strict=True):
        try:
            arrived, counters = build(context)
        except Unavailable as missing:
            rungs.append(Rung(layer, None, 0, {}, missing.reading.why))
            continue
        kept = {name: count for name, count in counters.items() if count}
        rungs.append(Rung(layer, arrived, sum(kept.values()), kept))
    return tuple(rungs)


_Built = tuple[int | None, dict[str, int]]


def _nic(context: Context) -> _Built:
    arrived, counters = 0, {}
    for link in context.links:
        counted = context.rates.links.get(link.name, {})
        arrived += counted.get("rx_packets", 0)
        for name in LINK_COUNTERS:
            counters[f"{link.name} {name}"] = counted.get(name, 0)
    return arrived, counters


def _ring(context: Context) -> _Built:
    arrived, counters = 0, {}
    for link in context.links:
        arrived += context.rates.links.get(link.name, {}).get("rx_packets", 0)
        losses = ring_losses(context, link.name, link.index)
        if losses:
            # One loss shows in several counters; the largest is the one to count.
            name = max(losses, key=lambda name: losses[name])
            counters[f"{link.name} {name}"] = losses[name]
    return arrived, counters


def _softnet(context: Context) -> _Built:
    rows = context.rates.softnet.values()
    counters = {
        "backlog full": sum(row.dropped for row in rows),
        "flow limit": sum(row.flow_limit for row in rows),
    }
    return sum(row.processed for row in rows), counters


def _protocol(context: Context) -> _Built:
    counters = {name: context.count(name) for name in _PROTOCOL}
    for link in context.links:
        counted = context.rates.links.get(link.name, {})
        counters[f"{link.name} rx_dropped"] = counted.get("rx_dropped", 0)
    return context.count("IpInReceives", "Ip6InReceives"), counters


def _socket(context: Context) -> _Built:
    counters = {name: context.count(name) for name in _SOCKET}
    for one in context.rates.sockets:
        if one.socket.protocol == "packet" and one.drops:
            counters[one.socket.name] = one.drops
    return context.count("TcpInSegs", "UdpInDatagrams", "Udp6InDatagrams"), counters


def _application(context: Context) -> _Built:
    return None, {name: context.count(name) for name in _APPLICATION}
