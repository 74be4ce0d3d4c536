"""What generated packets are made of: the bytes of one, and what of it varies."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, TypeAlias

from typing_extensions import Buffer

from millrace.packets.generator.values import Value, Values, number_of

#: One value for all packets, or values.
Varying: TypeAlias = Value | Values

#: Most bytes of a frame: the longest IP packet behind Ethernet with two tags.
LONGEST = 65_535 + 22
_ETHERNET = 14
_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmp6": 58}
_FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ece": 64, "cwr": 128}
#: What a source that nobody named is: an address of its own kind for local use (IEEE 802c).
_SOURCE_MAC = "02:00:00:00:00:01"


@dataclass(frozen=True)
class Field:
    """A part of the packet that varies: `width` bytes (1 to 16) at `offset`, in network order.

    With a `mask` only these bits of it, which must lie side by side; a value stands at the lowest
    of them.
    """

    offset: int
    width: int
    values: Values
    mask: int | None = None

    def spec(self) -> tuple[int, int, int, tuple[Any, ...]]:
        """As the native generator takes it."""
        if not 1 <= self.width <= 16 or self.offset < 0:
            raise ValueError(
                f"a field is 1 to 16 bytes at an offset from 0 on, "
                f"not {self.width} at {self.offset}"
            )
        mask = (1 << 8 * self.width) - 1 if self.mask is None else self.mask
        if not 0 < mask < 1 << 8 * self.width:
            raise ValueError(f"a mask of {self.width} bytes is none of {mask:#x}")
        return (self.offset, self.width, mask, _in_bounds(self.values))


@dataclass(frozen=True)
class Template:
    """A packet, and what of it varies.

    `frame` is the longest packet, from the Ethernet header on and without a check sequence; packets
    of other `sizes`, which are of the frame in bytes, are its first bytes. In each packet are put
    right the lengths in the headers of IP and UDP (`lengths`), and the checksums of IPv4, TCP, UDP
    and ICMP (`checksums`).
    """

    frame: bytes
    sizes: Varying
    fields: tuple[Field, ...] = ()
    lengths: bool = True
    checksums: bool = True

    def __init__(
        self,
        frame: Buffer,
        sizes: Varying | None = None,
        fields: Iterable[Field] = (),
        *,
        lengths: bool = True,
        checksums: bool = True,
    ) -> None:
        data = bytes(frame)
        object.__setattr__(self, "frame", data)
        object.__setattr__(self, "sizes", len(data) if sizes is None else sizes)
        object.__setattr__(self, "fields", tuple(fields))
        object.__setattr__(self, "lengths", lengths)
        object.__setattr__(self, "checksums", checksums)

    def native(self) -> dict[str, Any]:
        """What the native generator takes."""
        sizes = self.sizes
        if not isinstance(sizes, Values):
            sizes = _Always(sizes)
        return {
            "frame": self.frame,
            "sizes": _in_bounds(sizes),
            "fields": [field.spec() for field in self.fields],
            "lengths": self.lengths,
            "checksums": self.checksums,
        }


@dataclass(frozen=True)
class _Always(Values):
    value: Value

    def spec(self, number: Any) -> tuple[Any, ...]:
        return ("sequence", number(self.value), 1, 0)

    def example(self) -> Value:
        return self.value


def packet(
    *,
    destination: Varying,
    source: Varying,
    destination_mac: Varying = "ff:ff:ff:ff:ff:ff",
    source_mac: Varying = _SOURCE_MAC,
    vlan: Varying | None = None,
    protocol: str | int = "udp",
    destination_port: Varying = 9,
    source_port: Varying = 1024,
    tcp_flags: Varying | str = "ack",
    tcp_seq: Varying = 0,
    ttl: Varying = 64,
    traffic_class: Varying = 0,
    flow_label: Varying = 0,
    size: Varying = 60,
    payload: Buffer | Values = b"",
    fields: Iterable[Field] = (),
    checksums: bool = True,
) -> Template:
    """A template of a packet of IPv4 or IPv6, as the destination is.

    What is a `Values` varies from packet to packet. `size` is that of the whole frame without its
    check sequence, `payload` is repeated to fill it, or varies in its first 16 bytes (the last of
    which are those of the number). `protocol` is "udp", "tcp", "icmp" (echo requests) or a number.
    `fields` are written last.

    Raises ValueError.
    """
    parts = _Parts()
    v6 = _is_v6(destination)
    if v6 != _is_v6(source):
        raise ValueError("source and destination are not of one version of IP")
    number = _protocol(protocol, v6)
    parts.put("destination_mac", destination_mac, 6)
    parts.put("source_mac", source_mac, 6)
    if vlan is not None:
        parts.add(b"\x81\x00")
        parts.put("vlan", vlan, 2, mask=0x0FFF)
    if v6:
        parts.add(b"\x86\xdd")
        at = len(parts.data)
        parts.add(struct.pack("!IHBB", 6 << 28, 0, number, 0))
        parts.write("traffic_class", traffic_class, at, 2, mask=0x0FF0)
        parts.write("flow_label", flow_label, at, 4, mask=0x000FFFFF)
        parts.write("ttl", ttl, at + 7, 1)
        parts.put("source", source, 16)
        parts.put("destination", destination, 16)
    else:
        if flow_label != 0:
            raise ValueError("IPv4 has no flow label")
        parts.add(b"\x08\x00")
        at = len(parts.data)
        parts.add(struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, 0, number, 0))
        parts.write("traffic_class", traffic_class, at + 1, 1)
        parts.write("ttl", ttl, at + 8, 1)
        parts.put("source", source, 4)
        parts.put("destination", destination, 4)
    _transport(parts, number, source_port, destination_port, tcp_flags, tcp_seq)
    sizes = size if isinstance(size, Values) else _Always(size)
    longest = _greatest(sizes)
    headers = len(parts.data)
    if isinstance(payload, Values):
        parts.fields.append(Field(headers, min(16, max(_least(sizes) - headers, 1)), payload))
        payload = b""
    room = max(longest - headers, 0)
    filling = bytes(payload)
    parts.add((filling * (room // len(filling) + 1))[:room] if filling else bytes(room))
    return Template(bytes(parts.data), size, (*parts.fields, *fields), checksums=checksums)


def _transport(
    parts: _Parts,
    protocol: int,
    source_port: Varying,
    destination_port: Varying,
    tcp_flags: Varying | str,
    tcp_seq: Varying,
) -> None:
    if protocol in (_PROTOCOLS["udp"], _PROTOCOLS["tcp"]):
        parts.put("source_port", source_port, 2)
        parts.put("destination_port", destination_port, 2)
    if protocol == _PROTOCOLS["udp"]:
        parts.add(bytes(4))
    elif protocol == _PROTOCOLS["tcp"]:
        parts.put("tcp_seq", tcp_seq, 4)
        parts.add(bytes(4) + b"\x50")
        if isinstance(tcp_flags, str):
            tcp_flags = _flags(tcp_flags)
        parts.put("tcp_flags", tcp_flags, 1)
        parts.add(b"\xff\xff" + bytes(4))
    elif protocol == _PROTOCOLS["icmp"]:
        parts.add(struct.pack("!BBHHH", 8, 0, 0, 1, 1))
    elif protocol == _PROTOCOLS["icmp6"]:
        parts.add(struct.pack("!BBHHH", 128, 0, 0, 1, 1))


class _Parts:
    """A packet that grows."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.fields: list[Field] = []

    def add(self, data: bytes) -> None:
        self.data += data

    def put(self, name: str, value: Varying, width: int, *, mask: int | None = None) -> None:
        """Add a field."""
        at = len(self.data)
        self.data += bytes(width)
        self.write(name, value, at, width, mask=mask)

    def write(
        self, name: str, value: Varying, at: int, width: int, *, mask: int | None = None
    ) -> None:
        """Write a field into bytes that are there."""
        if isinstance(value, Values):
            self.fields.append(Field(at, width, value, mask))
            return
        mask = (1 << 8 * width) - 1 if mask is None else mask
        shift = (mask & -mask).bit_length() - 1
        try:
            number = number_of(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if not 0 <= number <= mask >> shift:
            raise ValueError(f"{name} is 0 to {mask >> shift}, not {value}")
        before = int.from_bytes(self.data[at : at + width], "big")
        self.data[at : at + width] = (before & ~mask | number << shift).to_bytes(width, "big")


def _in_bounds(values: Values) -> tuple[Any, ...]:
    """The spec of values, none of which is below 0 or longer than 16 bytes."""

    def number(value: Value) -> int:
        found = number_of(value)
        if not 0 <= found < 1 << 128:
            raise ValueError(f"a value is 0 to 2^128 - 1, not {found}")
        return found

    return values.spec(number)


def _bounds(values: Values) -> tuple[int, int]:
    kind, *rest = _in_bounds(values)
    if kind == "sequence":
        first, count, step = rest
        ends = (first, first + (count - 1) * step)
        return min(ends), max(ends)
    if kind in ("list", "weighted"):
        return min(rest[0]), max(rest[0])
    return rest[0], rest[0] + rest[1] - 1


def _least(sizes: Values) -> int:
    return _bounds(sizes)[0]


def _greatest(sizes: Values) -> int:
    longest = _bounds(sizes)[1]
    if longest > LONGEST:
        raise ValueError(f"a frame has at most {LONGEST} bytes, not {longest}")
    return longest


def _is_v6(address: Varying) -> bool:
    value = address.example() if isinstance(address, Values) else address
    if isinstance(value, int):
        raise ValueError(f"an address is written as text, not as {value}")
    try:
        return ip_address(value).version == 6
    except ValueError:
        raise ValueError(f"{value!r} is no IP address") from None


def _protocol(protocol: str | int, v6: bool) -> int:
    if isinstance(protocol, str):
        if protocol == "icmp" and v6:
            protocol = "icmp6"
        if protocol not in _PROTOCOLS:
            raise ValueError(f"protocol is {', '.join(_PROTOCOLS)} or a number, not {protocol!r}")
        return _PROTOCOLS[protocol]
    if not 0 <= protocol <= 255:
        raise ValueError(f"protocol is 0 to 255, not {protocol}")
    return protocol


def _flags(text: str) -> int:
    bits = 0
    for name in text.replace("|", ",").split(","):
        if name.strip().lower() not in _FLAGS:
            raise ValueError(f"TCP's flags are {', '.join(_FLAGS)}, not {name!r}")
        bits |= _FLAGS[name.strip().lower()]
    return bits
