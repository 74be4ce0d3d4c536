"""XDP programs that the bench compares: each here in Python, and in C in `xdp_peers`."""

from __future__ import annotations

from typing import Any

from millrace import xdp
from millrace.xdp import (
    DROP,
    PASS,
    TX,
    Array,
    DevMap,
    Hash,
    IPv4,
    LpmTrie,
    LruHash,
    PerCpuArray,
    Program,
    now,
    u32,
)

LIMIT = 100

dropped = Hash(IPv4)
counts = PerCpuArray(65536)
blocked = LpmTrie(IPv4)
queries = LruHash((IPv4, u32), entries=16384)
backends = Array(4, IPv4)
interfaces = DevMap(4)
expired = PerCpuArray(1)


@xdp
def shield(pkt: Any) -> Any:
    """Drops UDP to port 9 and counts it by source."""
    if pkt.ip and pkt.udp and pkt.udp.dport == 9:
        dropped[pkt.ip.src] += 1
        return DROP
    return PASS


@xdp
def ports(pkt: Any) -> Any:
    """Counts frames by destination port, of UDP and TCP over IPv4 and IPv6."""
    if pkt.udp:
        counts[pkt.udp.dport] += 1
    elif pkt.tcp:
        counts[pkt.tcp.dport] += 1
    return PASS


@xdp
def blocklist(pkt: Any) -> Any:
    """Drops frames whose IPv4 source has a prefix that is listed, and counts them by the prefix."""
    if pkt.ip and pkt.ip.src in blocked:
        blocked[pkt.ip.src] += 1
        return DROP
    return PASS


@xdp
def dns_rate(pkt: Any) -> Any:
    """Counts DNS queries by source and second, and drops what is beyond 100 of them."""
    if pkt.ip and pkt.udp and pkt.udp.dport == 53:
        client = pkt.ip.src, now() // 1_000_000_000
        queries[client] += 1
        if queries[client] > LIMIT:
            return DROP
    return PASS


@xdp
def reflector(pkt: Any) -> Any:
    """Sends UDP to port 7 back to where it came from, with a new time to live."""
    if pkt.ip and pkt.udp and pkt.udp.dport == 7:
        pkt.eth.src, pkt.eth.dst = pkt.eth.dst, pkt.eth.src
        pkt.ip.src, pkt.ip.dst = pkt.ip.dst, pkt.ip.src
        pkt.udp.sport, pkt.udp.dport = pkt.udp.dport, pkt.udp.sport
        pkt.ip.ttl = 64
        return TX
    return PASS


@xdp
def balancer(pkt: Any) -> Any:
    """Spreads UDP to port 80 over four backends by a hash of the flow: rewrites the destination,
    keeps both checksums right, and redirects to the backend's interface.
    """
    if pkt.ip and pkt.udp and pkt.udp.dport == 80:
        mixed = u32((int(pkt.ip.src) ^ pkt.udp.sport) * 0x9E3779B1)
        index = mixed >> 30
        pkt.ip.dst = backends[index]
        return interfaces.redirect(index)
    return PASS


@xdp
def router(pkt: Any) -> Any:
    """Decrements the time to live of IPv4 and the hop limit of IPv6; what has run out goes to
    Linux.
    """
    if pkt.ip:
        if pkt.ip.ttl > 1:
            pkt.ip.ttl -= 1
            return TX
    elif pkt.ipv6:
        if pkt.ipv6.hop_limit > 1:
            pkt.ipv6.hop_limit -= 1
            return TX
    else:
        return PASS
    expired[0] += 1
    return PASS


PROGRAMS: dict[str, Program] = {
    program.name: program
    for program in (shield, ports, blocklist, dns_rate, reflector, balancer, router)
}
