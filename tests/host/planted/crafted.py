"""Frames that no kernel would send."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct

from millrace.lab import Interface, Wire
from planted.hands import on


def frame(wire: Wire, payload: bytes, ethertype: int = 0x0800) -> bytes:
    """A frame from the peer to the patient."""
    macs = [bytes.fromhex(end.mac.replace(":", "")) for end in (wire.a, wire.b)]
    return macs[0] + macs[1] + struct.pack("!H", ethertype) + payload


def send_frames(end: Interface, frames: list[bytes]) -> None:
    with on(end.host, socket.SOCK_RAW, socket.AF_PACKET) as handle:
        handle.bind((end.name, 0))
        # What waits at the receiver counts here, and must not hold the sender back.
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)
        for one in frames:
            # A receiver whose backlog is full tells so across a veth (ENOBUFS).
            with contextlib.suppress(OSError):
                handle.send(one)


def checksum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip_packet(
    source: str, target: str, protocol: int, payload: bytes, fragment: int = 0, ttl: int = 64
) -> bytes:
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 7, fragment, ttl, protocol, 0)
    total = checksum(head + addresses)
    return head[:10] + struct.pack("!H", total) + addresses + payload


def syn(source: str, target: str, port: int, number: int) -> bytes:
    head = struct.pack("!HHIIBBHHH", 1024 + number % 60000, port, number, 0, 0x50, 2, 65535, 0, 0)
    pseudo = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    total = checksum(pseudo + struct.pack("!HH", 6, len(head)) + head)
    return ip_packet(source, target, 6, head[:16] + struct.pack("!H", total) + head[18:])
