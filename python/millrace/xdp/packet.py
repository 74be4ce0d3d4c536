"""A packet in plain Python: what a program's function sees when it runs without the kernel.

It means the same as the compiled program, and is written to be read, not to be fast.
"""

from __future__ import annotations

from typing import Any

from millrace.xdp import headers
from millrace.xdp.headers import Field


class Fault(Exception):
    """The function did what raises in Python; the program returns its `on_error` there."""


class Packet:
    """A frame, and what of it has been parsed."""

    def __init__(
        self, frame: bytes, *, vlan: int = 2, extensions: int = 0, ifindex: int = 1, queue: int = 0
    ) -> None:
        self.frame = bytearray(frame)
        self.ifindex = ifindex
        self.queue = queue
        self._vlan = vlan
        self._extensions = extensions
        self._starts: dict[str, int] | None = None

    @property
    def len(self) -> int:
        """Bytes of the frame."""
        return len(self.frame)

    def __len__(self) -> int:
        return len(self.frame)

    def start(self, header: str) -> int | None:
        """Where a header starts, or None where it is absent."""
        if self._starts is None:
            self._starts = _parse(self.frame, self._vlan, self._extensions)
        return self._starts.get(header)

    def __getattr__(self, name: str) -> Any:
        name = headers.ALIASES.get(name, name)
        if name not in headers.HEADERS:
            raise AttributeError(name)
        return PacketHeader(self, name)

    def load(self, offset: int, size: int) -> int:
        """Bytes as a number, in network order."""
        if offset < 0 or offset + size > len(self.frame):
            raise Fault
        return int.from_bytes(self.frame[offset : offset + size], "big")

    def store(self, offset: int, value: int, size: int) -> None:
        """Write a number, cut to its size, in network order."""
        if offset < 0 or offset + size > len(self.frame):
            raise Fault
        value &= (1 << (8 * size)) - 1
        self.frame[offset : offset + size] = value.to_bytes(size, "big")

    def raw_load(self, offset: int, size: int) -> int:
        """A program's read of bytes."""
        return self.load(offset, size)

    def raw_store(self, offset: int, value: int, size: int) -> None:
        """A program's write of bytes, after which headers are looked for anew."""
        self.store(offset, value, size)
        self._starts = None

    def update_checksum(self, at: int, old: bytes, new: bytes, *, zero_is_none: bool) -> None:
        """Keep a checksum right when `old` becomes `new` under it (RFC 1624): as a number modulo
        0xffff it grows by what was there and shrinks by what is there now.
        """
        checksum = self.load(at, 2)
        if zero_is_none and checksum == 0:
            return
        checksum = (checksum + _words(old) - _words(new)) % 0xFFFF
        if zero_is_none and checksum == 0:
            checksum = 0xFFFF  # RFC 768
        self.store(at, checksum, 2)


class PacketHeader:
    """A header; false where it is absent."""

    __slots__ = ("_name", "_packet")
    _name: str
    _packet: Packet

    def __init__(self, packet: Packet, name: str) -> None:
        object.__setattr__(self, "_packet", packet)
        object.__setattr__(self, "_name", name)

    def __bool__(self) -> bool:
        return self._packet.start(self._name) is not None

    def _start(self) -> int:
        start = self._packet.start(self._name)
        if start is None:
            raise Fault
        return start

    def __getattr__(self, name: str) -> Any:
        table = headers.HEADERS[self._name]
        if name in table.regions:
            return Region(self, name)
        field = table.fields[name]
        value = self._packet.load(self._start() + field.offset, field.size)
        value = _extract(field, value)
        return bool(value) if field.kind == "bool" else value

    def __setattr__(self, name: str, value: int) -> None:
        table = headers.HEADERS[self._name]
        field = table.fields[name]
        start, packet = self._start(), self._packet
        # Checksums are sums of words of 16 bits.
        first, last = field.offset & ~1, field.offset + field.size + (field.offset + field.size & 1)
        span = slice(start + first, start + last)
        old = bytes(packet.frame[span])
        container = packet.load(start + field.offset, field.size)
        packet.store(start + field.offset, _insert(field, container, int(value)), field.size)
        new = bytes(packet.frame[span])
        if table.checksum is not None and name != "checksum":
            at = start + table.checksum
            packet.update_checksum(at, old, new, zero_is_none=table.zero_is_none)
        if field.pseudo:
            self._update_transport(old, new)

    def _update_transport(self, old: bytes, new: bytes) -> None:
        for name in ("udp", "tcp", "icmpv6"):
            start = self._packet.start(name)
            if start is not None:
                table = headers.HEADERS[name]
                assert table.checksum is not None
                at = start + table.checksum
                self._packet.update_checksum(at, old, new, zero_is_none=table.zero_is_none)

    def region(self, name: str) -> tuple[int, int | None]:
        """Where a region starts, and its length where the header tells that."""
        start, packet = self._start(), self._packet
        length = headers.HEADERS[self._name].size
        if self._name == "ip":
            length = 4 * (packet.load(start, 1) & 0xF)
        elif self._name == "tcp":
            length = 4 * (packet.load(start + 12, 1) >> 4)
        if name == "options":
            fixed = headers.HEADERS[self._name].size
            return start + fixed, max(0, length - fixed)
        return start + length, None


class Region:
    """Bytes behind a header or in its variable part."""

    def __init__(self, header: PacketHeader, name: str) -> None:
        self._header = header
        self._packet = header._packet
        self._name = name

    @property
    def len(self) -> int:
        """Bytes of it."""
        start, length = self._header.region(self._name)
        return max(0, self._packet.len - start) if length is None else length

    def _place(self, offset: int, size: int) -> int:
        start, length = self._header.region(self._name)
        if offset < 0 or (length is not None and offset + size > length):
            raise Fault
        return start + offset

    def raw_load(self, offset: int, size: int) -> int:
        """A program's read of bytes."""
        return self._packet.load(self._place(offset, size), size)

    def raw_store(self, offset: int, value: int, size: int) -> None:
        """A program's write of bytes, after which headers are looked for anew."""
        self._packet.raw_store(self._place(offset, size), value, size)


def _extract(field: Field, container: int) -> int:
    return container >> field.shift & field.mask if field.mask else container


def _insert(field: Field, container: int, value: int) -> int:
    if not field.mask:
        return value
    return container & ~(field.mask << field.shift) | (value & field.mask) << field.shift


def _words(data: bytes) -> int:
    return sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))


def _parse(frame: bytearray, vlan: int, extensions: int) -> dict[str, int]:
    """Where the headers start that are present."""
    starts: dict[str, int] = {}

    def has(at: int, size: int) -> bool:
        return at + size <= len(frame)

    def load(at: int, size: int) -> int:
        return int.from_bytes(frame[at : at + size], "big")

    if not has(0, 14):
        return starts
    starts["eth"] = 0
    ethertype, at = load(12, 2), 14
    for name in ("vlan", "vlan2")[:vlan]:
        if ethertype not in headers.ETHERTYPES_VLAN:
            break
        if not has(at, 4):
            return starts
        starts[name] = at
        ethertype, at = load(at + 2, 2), at + 4
    if ethertype == headers.ETHERTYPE_ARP:
        if has(at, 28) and load(at, 4) == 0x0001_0800 and load(at + 4, 2) == 0x0604:
            starts["arp"] = at
    elif ethertype == headers.ETHERTYPE_IPV4:
        if has(at, 20) and 0x45 <= load(at, 1) <= 0x4F:
            starts["ip"] = at
            if load(at + 6, 2) & 0x1FFF == 0:
                transport = at + 4 * (load(at, 1) & 0xF)
                _parse_transport(starts, frame, load(at + 9, 1), transport, ("icmp", "udp", "tcp"))
    elif ethertype == headers.ETHERTYPE_IPV6 and has(at, 40) and load(at, 1) >> 4 == 6:
        starts["ipv6"] = at
        protocol, at = load(at + 6, 1), at + 40
        for _ in range(extensions):
            if protocol == headers.FRAGMENT:
                if not has(at, 8) or load(at + 2, 2) & 0xFFF8:
                    return starts
                protocol, at = load(at, 1), at + 8
            elif protocol in headers.EXTENSIONS:
                if not has(at, 8):
                    return starts
                protocol, at = load(at, 1), at + 8 + 8 * load(at + 1, 1)
            else:
                break
        _parse_transport(starts, frame, protocol, at, ("icmpv6", "udp", "tcp"))
    return starts


def _parse_transport(
    starts: dict[str, int], frame: bytearray, protocol: int, at: int, names: tuple[str, ...]
) -> None:
    for name in names:
        if protocol == headers.PROTOCOLS[name] and at + headers.HEADERS[name].size <= len(frame):
            starts[name] = at
