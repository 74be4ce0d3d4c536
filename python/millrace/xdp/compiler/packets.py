"""From the typed tree to the graph: fields of headers and bytes of the packet."""

from __future__ import annotations

from collections.abc import Iterator

from millrace.xdp import headers
from millrace.xdp.compiler import graph, tree
from millrace.xdp.compiler.graph import MOST_OFFSET, Block
from millrace.xdp.compiler.kinds import (
    ADDRESSES,
    IPV4,
    IPV6,
    MAC,
    PACKET,
    RegionKind,
)
from millrace.xdp.compiler.operations import ADDRESS_PIECES, LITTLE, Operations, Value, flatten

HEADER_REGISTERS = {
    "eth": graph.DATA,
    "arp": graph.NETWORK,
    "ip": graph.NETWORK,
    "ipv6": graph.NETWORK,
    "icmp": graph.TRANSPORT,
    "icmpv6": graph.TRANSPORT,
    "udp": graph.TRANSPORT,
    "tcp": graph.TRANSPORT,
}
HEADER_TAGS = {
    "eth": "eth",
    "vlan": "eth",
    "vlan2": "eth",
    "arp": "net",
    "ip": "net",
    "ipv6": "net",
    "icmp": "transport",
    "icmpv6": "transport",
    "udp": "transport",
    "tcp": "transport",
}


class Packets(Operations):
    """The packet."""

    def header_pointer(self, header: str) -> int:
        """The register of a header that is known to be present."""
        if header in ("vlan", "vlan2"):
            return self.emit("pconst", graph.DATA, imm=14 if header == "vlan" else 18)
        return HEADER_REGISTERS[header]

    @staticmethod
    def byte_weight(offset: int) -> int:
        """What a byte counts for in its word of 16 bits, as the machine loads that."""
        return 1 if (offset % 2 == 0) == LITTLE else 256

    def field(self, expression: tree.FieldOf) -> Value:
        found = headers.HEADERS[expression.header].fields[expression.name]
        self.require(expression.header)
        tag = "sum" if expression.name == "checksum" else HEADER_TAGS[expression.header]
        pointer = self.header_pointer(expression.header)

        def load(offset: int, size: int) -> int:
            return self.emit(
                "load", pointer, graph.PACKET_MEMORY, imm=(found.offset + offset, size, tag)
            )

        if expression.kind in ADDRESSES:
            return tuple(load(*piece) for piece in ADDRESS_PIECES[expression.kind])
        value = load(0, found.size)
        if found.size > 1:
            value = self.swap(value, 8 * found.size)
        if found.shift:
            value = self.emit("shr", value, self.constant(found.shift))
        if found.mask:
            value = self.emit("and", value, self.constant(found.mask))
        return value

    def field_pieces(
        self, found: headers.Field, pointer: int, value: Value, tag: str
    ) -> Iterator[tuple[int, int, int]]:
        """What is to be written into a field: offsets, sizes and bytes as the machine has them."""
        if not isinstance(value, int):
            kind = {4: IPV4, 6: MAC, 16: IPV6}[found.size]
            for (offset, size), register in zip(ADDRESS_PIECES[kind], flatten(value), strict=True):
                yield found.offset + offset, size, register
            return
        if found.mask:
            kept = ((1 << (8 * found.size)) - 1) & ~(found.mask << found.shift)
            imm = (found.offset, found.size, tag)
            old = self.emit("load", pointer, graph.PACKET_MEMORY, imm=imm)
            if found.size > 1:
                old = self.swap(old, 8 * found.size)
            value = self.emit("and", value, self.constant(found.mask))
            value = self.emit("shl", value, self.constant(found.shift))
            value = self.emit("or", value, self.emit("and", old, self.constant(kept)))
        if found.size > 1:
            value = self.swap(value, 8 * found.size)
        elif not found.mask:
            value = self.emit("and", value, self.constant(0xFF))
        yield found.offset, found.size, value

    def raw_place(
        self, base: tree.Expression, offset: tree.Expression, size: int
    ) -> tuple[int, int]:
        """A pointer and a constant offset from it, where so many bytes can be read and written."""
        fixed = offset.value if isinstance(offset, tree.Constant) else None
        moved = None if fixed is not None else self.number(offset)
        pointer, start, length = self._region(base)
        if moved is not None and not 0 <= offset.low <= offset.high <= MOST_OFFSET:
            self.go_on_if("ule", moved, self.constant(MOST_OFFSET), self.fault_block)
        if length is not None:
            end = self.constant(fixed + size) if fixed is not None else None
            if end is None:
                assert moved is not None
                end = self.emit("add", moved, self.constant(size))
            self.go_on_if("sle", end, length, self.fault_block)
        if moved is not None:
            pointer = self.emit("padd", pointer, moved)
        place = start + (fixed or 0)
        self.check(pointer, place + size, self.fault_block)
        return pointer, place

    def _region(self, base: tree.Expression) -> tuple[int, int, int | None]:
        """A pointer, a constant offset from it, and the length of a region where that is known."""
        if base.kind == PACKET:
            return graph.DATA, 0, None
        assert isinstance(base.kind, RegionKind)
        header, name = base.kind.header, base.kind.name
        self.require(header)
        pointer, fixed = self.header_pointer(header), headers.HEADERS[header].size
        if header not in ("ip", "tcp"):
            return pointer, fixed, None
        length = self._header_length(header, pointer)
        if name == "payload":
            return self.emit("padd", pointer, length), 0, None
        return pointer, fixed, self.emit("sub", length, self.constant(fixed))

    def _header_length(self, header: str, pointer: int) -> int:
        """Bytes of an IPv4 or a TCP header with its options."""
        if header == "ip":
            byte = self.emit("load", pointer, graph.PACKET_MEMORY, imm=(0, 1, "net"))
            words = self.emit("and", byte, self.constant(0xF))
            return self.emit("shl", words, self.constant(2))
        byte = self.emit("load", pointer, graph.PACKET_MEMORY, imm=(12, 1, "transport"))
        words = self.emit("and", byte, self.constant(0xF0))
        return self.emit("shr", words, self.constant(2))

    def raw_load(self, expression: tree.RawLoad) -> Value:
        pointer, offset = self.raw_place(expression.base, expression.offset, expression.size)
        imm = (offset, expression.size, "raw")
        value = self.emit("load", pointer, graph.PACKET_MEMORY, imm=imm)
        return value if expression.size == 1 else self.swap(value, 8 * expression.size)

    def length(self, base: tree.Expression) -> Value:
        if base.kind == PACKET:
            return self.emit("span", graph.END, graph.DATA)
        pointer, start, length = self._region(base)
        zero = self.constant(0)
        if length is None:
            length = self.emit("span", graph.END, pointer)
            if start:
                length = self.emit("sub", length, self.constant(start))
        result = self.register()
        self.emit_to(result, "copy", length)
        negative, after = Block(), Block()
        self.branch("slt", length, zero, negative, after)
        self.current = negative
        self.emit_to(result, "copy", zero)
        self.jump(after)
        self.current = after
        return result
