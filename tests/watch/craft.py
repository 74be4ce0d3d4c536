"""Frames by hand, right and wrong ones."""

from __future__ import annotations

import socket
import struct

IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(source: str, destination: str, ether_type: int, payload: bytes) -> bytes:
    macs = bytes.fromhex((destination + source).replace(":", ""))
    return macs + struct.pack(">H", ether_type) + payload


def ipv4(
    source: str,
    destination: str,
    protocol: int,
    payload: bytes,
    *,
    ttl: int = 64,
    fragment: int = 0,
    identification: int = 1,
    version: int = 0x45,
    bad_checksum: bool = False,
) -> bytes:
    head = struct.pack(
        ">BBHHHBBH4s4s",
        version,
        0,
        20 + len(payload),
        identification,
        fragment,
        ttl,
        protocol,
        0,
        socket.inet_aton(source),
        socket.inet_aton(destination),
    )
    total = checksum(head) ^ (0x5555 if bad_checksum else 0)
    return head[:10] + struct.pack(">H", total) + head[12:] + payload


def _pseudo(source: str, destination: str, protocol: int, length: int) -> bytes:
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    return ends + struct.pack(">HH", protocol, length)


def udp(
    source: str,
    destination: str,
    ports: tuple[int, int],
    data: bytes = b"",
    *,
    bad_checksum: bool = False,
    length: int | None = None,
) -> bytes:
    size = 8 + len(data) if length is None else length
    head = struct.pack(">HHHH", *ports, size, 0)
    total = checksum(_pseudo(source, destination, 17, size) + head + data) or 0xFFFF
    return head[:6] + struct.pack(">H", total ^ (0x5555 if bad_checksum else 0)) + data


def tcp(
    source: str,
    destination: str,
    ports: tuple[int, int],
    *,
    sequence: int = 1,
    acknowledge: int = 0,
    flags: int = 0x02,
    data: bytes = b"",
    bad_checksum: bool = False,
) -> bytes:
    head = struct.pack(">HHIIBBHHH", *ports, sequence, acknowledge, 0x50, flags, 8192, 0, 0)
    total = checksum(_pseudo(source, destination, 6, len(head) + len(data)) + head + data)
    total ^= 0x5555 if bad_checksum else 0
    return head[:16] + struct.pack(">H", total) + head[18:] + data


def icmp(kind: int, *, bad_checksum: bool = False) -> bytes:
    message = struct.pack(">BBHI", kind, 0, 0, 1)
    total = checksum(message) ^ (0x5555 if bad_checksum else 0)
    return message[:2] + struct.pack(">H", total) + message[4:]
