"""Frames by hand, for tests, with right checksums."""

from __future__ import annotations

import ipaddress
import struct

A_MAC, B_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
A4, B4 = "192.0.2.1", "192.0.2.2"
A6, B6 = "2001:db8::1", "2001:db8::2"
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58}


def checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(ethertype: int, payload: bytes, *tags: int) -> bytes:
    """An Ethernet frame; `tags` are the control information of VLAN tags."""
    vlans = b"".join(struct.pack("!HH", 0x8100, tag) for tag in tags)
    return B_MAC + A_MAC + vlans + struct.pack("!H", ethertype) + payload


def ipv4(
    protocol: str | int,
    payload: bytes,
    *,
    source: str = A4,
    target: str = B4,
    ttl: int = 64,
    options: bytes = b"",
    fragment: int = 0,
    tos: int = 0,
) -> bytes:
    """An IPv4 packet."""
    number = PROTOCOLS.get(protocol, 0) if isinstance(protocol, str) else protocol
    addresses = b"".join(ipaddress.IPv4Address(address).packed for address in (source, target))
    length = 20 + len(options) + len(payload)
    first = 0x45 + len(options) // 4
    head = struct.pack("!BBHHHBBH", first, tos, length, 1, fragment, ttl, number, 0)
    head += addresses + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ipv6(
    protocol: str | int, payload: bytes, *, source: str = A6, target: str = B6, hops: int = 64
) -> bytes:
    """An IPv6 packet."""
    number = PROTOCOLS.get(protocol, 0) if isinstance(protocol, str) else protocol
    head = struct.pack("!IHBB", 6 << 28, len(payload), number, hops)
    addresses = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(target).packed
    return head + addresses + payload


def _pseudo(source: str, target: str, protocol: int, length: int) -> bytes:
    addresses = b"".join(ipaddress.ip_address(address).packed for address in (source, target))
    return addresses + struct.pack("!HH", protocol, length)


def udp(
    sport: int, dport: int, payload: bytes = b"", *, source: str = A4, target: str = B4
) -> bytes:
    """A UDP datagram; the addresses are those of its pseudo-header."""
    data = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    total = checksum(_pseudo(source, target, 17, len(data)) + data) or 0xFFFF
    return data[:6] + struct.pack("!H", total) + data[8:]


def tcp(
    sport: int,
    dport: int,
    payload: bytes = b"",
    *,
    source: str = A4,
    target: str = B4,
    flags: int = 0x10,
    options: bytes = b"",
) -> bytes:
    """A TCP segment."""
    offset = (5 + len(options) // 4) << 12 | flags
    data = struct.pack("!HHIIHHHH", sport, dport, 1, 2, offset, 1000, 0, 0) + options + payload
    total = checksum(_pseudo(source, target, 6, len(data)) + data)
    return data[:16] + struct.pack("!H", total) + data[18:]


def icmp(kind: int, payload: bytes = b"", *, code: int = 0, rest: int = 0) -> bytes:
    """An ICMP message."""
    data = struct.pack("!BBHI", kind, code, 0, rest) + payload
    return data[:2] + struct.pack("!H", checksum(data)) + data[4:]


def icmpv6(kind: int, payload: bytes = b"", *, code: int = 0, rest: int = 0) -> bytes:
    """An ICMPv6 message between A6 and B6."""
    data = struct.pack("!BBHI", kind, code, 0, rest) + payload
    total = checksum(_pseudo(A6, B6, 58, len(data)) + data)
    return data[:2] + struct.pack("!H", total) + data[4:]


def udp4(
    dport: int = 9, sport: int = 5000, payload: bytes = bytes(18), *tags: int, **more: object
) -> bytes:
    """UDP over IPv4 in Ethernet."""
    source, target = str(more.get("source", A4)), str(more.get("target", B4))
    datagram = udp(sport, dport, payload, source=source, target=target)
    return ethernet(0x0800, ipv4("udp", datagram, **more), *tags)  # type: ignore[arg-type]


def tcp4(
    dport: int = 80,
    sport: int = 5000,
    payload: bytes = b"",
    *,
    source: str = A4,
    target: str = B4,
    **more: object,
) -> bytes:
    """TCP over IPv4 in Ethernet."""
    segment = tcp(sport, dport, payload, source=source, target=target, **more)  # type: ignore[arg-type]
    return ethernet(0x0800, ipv4("tcp", segment, source=source, target=target))


def udp6(dport: int = 9, sport: int = 5000, payload: bytes = bytes(8)) -> bytes:
    """UDP over IPv6 in Ethernet."""
    return ethernet(0x86DD, ipv6("udp", udp(sport, dport, payload, source=A6, target=B6)))


def tcp6(dport: int = 80, sport: int = 5000) -> bytes:
    """TCP over IPv6 in Ethernet."""
    return ethernet(0x86DD, ipv6("tcp", tcp(sport, dport, source=A6, target=B6)))


def arp(operation: int = 1, sender: str = A4, target: str = B4) -> bytes:
    """ARP for IPv4 on Ethernet."""
    addresses = [ipaddress.IPv4Address(address).packed for address in (sender, target)]
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return ethernet(0x0806, head + A_MAC + addresses[0] + bytes(6) + addresses[1])


def sums_are_right(frame: bytes) -> bool:
    """Whether all checksums of an untagged frame without extension headers verify."""
    if frame[12:14] == b"\x08\x00":
        length = 4 * (frame[14] & 0xF)
        if checksum(frame[14 : 14 + length]):
            return False
        protocol, at = frame[23], 14 + length
        end = 14 + int.from_bytes(frame[16:18], "big")
        addresses = frame[26:34]
    elif frame[12:14] == b"\x86\xdd":
        protocol, at = frame[20], 54
        end = 54 + int.from_bytes(frame[18:20], "big")
        addresses = frame[22:54]
    else:
        return True
    data = frame[at:end]
    if protocol == 17 and data[6:8] == b"\0\0":
        return True
    pseudo = b"" if protocol == 1 else addresses + struct.pack("!HH", protocol, len(data))
    return protocol not in (1, 6, 17, 58) or checksum(pseudo + data) == 0
