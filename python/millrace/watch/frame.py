"""What a frame's headers say, for one line of text and for the flow that it belongs to.

For frames that are looked at one by one. Cut and malformed ones are normal here: what cannot be
read is left out.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

ETHER_IPV4, ETHER_ARP, ETHER_IPV6 = 0x0800, 0x0806, 0x86DD
_VLAN = (0x8100, 0x88A8)
_ICMP, _TCP, _UDP, _ICMP6 = 1, 6, 17, 58
#: Hop-by-hop, routing and destination options: each tells its own length.
_EXTENSIONS = (0, 43, 60)
_FRAGMENT = 44

ETHER_NAMES = {
    ETHER_IPV4: "IPv4",
    ETHER_ARP: "ARP",
    ETHER_IPV6: "IPv6",
    0x8847: "MPLS",
    0x88CC: "LLDP",
    0x88E5: "MACsec",
    0x8863: "PPPoE",
    0x8864: "PPPoE",
    0x8035: "RARP",
}
PROTOCOL_NAMES = {
    _ICMP: "ICMP",
    2: "IGMP",
    4: "IPIP",
    _TCP: "TCP",
    _UDP: "UDP",
    41: "IPv6",
    47: "GRE",
    50: "ESP",
    51: "AH",
    _ICMP6: "ICMPv6",
    89: "OSPF",
    103: "PIM",
    112: "VRRP",
    132: "SCTP",
}


@dataclass
class Frame:
    """The headers of a frame, as far as they could be read."""

    #: Ether type behind VLAN tags; 0 where there is none.
    ether_type: int = 0
    vlan: int | None = None
    source: str = ""
    destination: str = ""
    #: Of IP; None where there is no IP header.
    protocol: int | None = None
    source_port: int | None = None
    destination_port: int | None = None
    #: Details as tcpdump orders them: flags, numbers, lengths.
    info: str = ""

    @property
    def protocol_name(self) -> str:
        """The innermost protocol's name."""
        if self.protocol is not None:
            return PROTOCOL_NAMES.get(self.protocol, f"IP protocol {self.protocol}")
        return ETHER_NAMES.get(self.ether_type, f"ether type {self.ether_type:#06x}")

    @property
    def flow(self) -> str:
        """Source and destination, with ports where there are any; empty if unknown."""
        if not self.source:
            return ""
        ends = ((self.source, self.source_port), (self.destination, self.destination_port))
        return " > ".join(endpoint(address, port) for address, port in ends)

    def __str__(self) -> str:
        return " ".join(part for part in (self.protocol_name, self.flow, self.info) if part)


def endpoint(address: str, port: int | None) -> str:
    """An address and a port as ss writes them."""
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def ethernet(data: bytes) -> Frame:
    """Read a frame that begins with an Ethernet header."""
    frame = Frame()
    if len(data) < 14:
        frame.info = f"{len(data)} bytes, no Ethernet header"
        return frame
    (frame.ether_type,) = struct.unpack_from(">H", data, 12)
    at = 14
    while frame.ether_type in _VLAN and len(data) >= at + 4:
        tag, frame.ether_type = struct.unpack_from(">HH", data, at)
        frame.vlan = tag & 0xFFF
        at += 4
    return network(data[at:], frame.ether_type, frame)


def network(data: bytes, ether_type: int, frame: Frame | None = None) -> Frame:
    """Read a packet that begins with the header of its network layer."""
    frame = frame or Frame(ether_type=ether_type)
    if ether_type == ETHER_IPV4:
        _ipv4(data, frame)
    elif ether_type == ETHER_IPV6:
        _ipv6(data, frame)
    elif ether_type == ETHER_ARP:
        _arp(data, frame)
    elif not frame.info:
        frame.info = f"length {len(data)}"
    return frame


def _arp(data: bytes, frame: Frame) -> None:
    if len(data) < 28:
        return
    operation = struct.unpack_from(">H", data, 6)[0]
    frame.source, frame.destination = _v4(data[14:18]), _v4(data[24:28])
    frame.info = {1: "request", 2: "reply"}.get(operation, f"operation {operation}")


def _v4(packed: bytes) -> str:
    return str(ipaddress.IPv4Address(packed))


def _ipv4(data: bytes, frame: Frame) -> None:
    if len(data) < 20:
        return
    header = (data[0] & 0xF) * 4
    if data[0] >> 4 != 4 or header < 20:
        frame.info = "malformed IPv4 header"
        return
    total, identification, offset = struct.unpack_from(">HHH", data, 2)
    frame.protocol = data[9]
    frame.source, frame.destination = _v4(data[12:16]), _v4(data[16:20])
    length = max(0, (total or len(data)) - header)
    if offset & 0x1FFF:
        frame.info = f"fragment {identification} at {(offset & 0x1FFF) * 8}, length {length}"
        return
    _transport(data[header:], length, frame)
    if offset & 0x2000:
        frame.info += f", first fragment of {identification}"


def _ipv6(data: bytes, frame: Frame) -> None:
    if len(data) < 40:
        return
    if data[0] >> 4 != 6:
        frame.info = "malformed IPv6 header"
        return
    length, following = struct.unpack_from(">HB", data, 4)
    frame.source = str(ipaddress.IPv6Address(data[8:24]))
    frame.destination = str(ipaddress.IPv6Address(data[24:40]))
    at = 40
    for _ in range(8):
        frame.protocol = following
        if following == _FRAGMENT and len(data) >= at + 8:
            offset = struct.unpack_from(">H", data, at + 2)[0] & 0xFFF8
            following = data[at]
            at += 8
            if offset:
                frame.protocol = following
                frame.info = f"fragment at {offset}, length {length}"
                return
        elif following in _EXTENSIONS and len(data) >= at + 2:
            following, at = data[at], at + (data[at + 1] + 1) * 8
        else:
            break
    _transport(data[at:], max(0, 40 + length - at), frame)


_TCP_FLAGS = (("F", 1), ("S", 2), ("R", 4), ("P", 8), (".", 16), ("U", 32), ("E", 64), ("C", 128))


def _transport(data: bytes, length: int, frame: Frame) -> None:
    protocol = frame.protocol
    if protocol in (_TCP, _UDP, 132) and len(data) >= 4:
        frame.source_port, frame.destination_port = struct.unpack_from(">HH", data)
    if protocol == _TCP and len(data) >= 16:
        sequence, acknowledged, offset, flags, window = struct.unpack_from(">IIBBH", data, 4)
        letters = "".join(letter for letter, bit in _TCP_FLAGS if flags & bit) or "none"
        payload = max(0, length - (offset >> 4) * 4)
        ack = f" ack {acknowledged}" if flags & 16 else ""
        frame.info = f"[{letters}] seq {sequence}{ack} win {window} length {payload}"
    elif protocol == _UDP:
        frame.info = f"length {max(0, length - 8)}"
    elif protocol in (_ICMP, _ICMP6) and len(data) >= 2:
        frame.info = f"{_icmp_name(protocol, data[0], data[1])}, length {length}"
    else:
        frame.info = f"length {length}"


_ICMP_NAMES = {
    (_ICMP, 0): "echo reply",
    (_ICMP, 3): "destination unreachable",
    (_ICMP, 5): "redirect",
    (_ICMP, 8): "echo request",
    (_ICMP, 11): "time exceeded",
    (_ICMP6, 1): "destination unreachable",
    (_ICMP6, 2): "packet too big",
    (_ICMP6, 3): "time exceeded",
    (_ICMP6, 128): "echo request",
    (_ICMP6, 129): "echo reply",
    (_ICMP6, 133): "router solicitation",
    (_ICMP6, 134): "router advertisement",
    (_ICMP6, 135): "neighbor solicitation",
    (_ICMP6, 136): "neighbor advertisement",
    (_ICMP6, 143): "multicast listener report",
}


def _icmp_name(protocol: int, kind: int, code: int) -> str:
    name = _ICMP_NAMES.get((protocol, kind))
    if name is None:
        return f"type {kind} code {code}"
    return f"{name} code {code}" if code else name
