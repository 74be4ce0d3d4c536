"""From the typed tree to the graph: maps."""

from __future__ import annotations

from collections.abc import Callable

from millrace.xdp import standin
from millrace.xdp.compiler import graph, tree
from millrace.xdp.compiler.graph import Access, Block, Piece
from millrace.xdp.compiler.kinds import ADDRESSES, Kind
from millrace.xdp.compiler.operations import ADDRESS_PIECES, LITTLE, Value, flatten
from millrace.xdp.compiler.values import Values
from millrace.xdp.maps import Map
from millrace.xdp.types import Integer, Tuple, Type

ANY, INSERT = standin.ANY, standin.INSERT
_ATOMIC = {"+": "add", "-": "add", "&": "and", "|": "or", "^": "xor"}


class Accesses(Values):
    """What programs do with maps."""

    # Bytes

    def _store_pieces(self, declared: Type, value: Value) -> list[tuple[Piece, int]]:
        """What a value is in a map: pieces of bytes, and their registers."""
        if isinstance(declared, Tuple):
            assert isinstance(value, tuple)
            pieces: list[tuple[Piece, int]] = []
            covered = bytearray(declared.size)
            for offset, part, inner in zip(declared.offsets, declared.parts, value, strict=True):
                for piece, register in self._store_pieces(part, inner):
                    pieces.append((Piece(offset + piece.offset, piece.size), register))
                covered[offset : offset + part.size] = b"\1" * part.size
            # What lies between is part of a key too, so it must be the same each time.
            pieces += [(hole, self.constant(0)) for hole in _holes(covered)]
            return pieces
        if isinstance(declared, Integer):
            (register,) = flatten(value)
            if _is_swapped(declared):
                register = self.swap(register, declared.bits)
            return [(Piece(0, declared.size), register)]
        kind = _address_kind(declared)
        return [
            (Piece(offset, size), register)
            for (offset, size), register in zip(ADDRESS_PIECES[kind], flatten(value), strict=True)
        ]

    def _load_pieces(self, declared: Type, address: int, at: int = 0) -> Value:
        """A value from a map's memory."""
        if isinstance(declared, Tuple):
            return tuple(
                self._load_pieces(part, address, at + offset)
                for offset, part in zip(declared.offsets, declared.parts, strict=True)
            )

        def load(offset: int, size: int) -> int:
            imm = (at + offset, size, "map")
            return self.emit("load", address, graph.MAP_MEMORY, imm=imm)

        if isinstance(declared, Integer):
            register = load(0, declared.size)
            if _is_swapped(declared):
                register = self.swap(register, declared.bits)
            if declared.signed and declared.bits < 64:
                register = self.emit("sext", register, imm=declared.bits)
            return register
        return tuple(load(*piece) for piece in ADDRESS_PIECES[_address_kind(declared)])

    def _zero(self, declared: Type) -> Value:
        if isinstance(declared, Tuple):
            return tuple(self._zero(part) for part in declared.parts)
        if isinstance(declared, Integer):
            return self.constant(0)
        return tuple(self.constant(0) for _ in ADDRESS_PIECES[_address_kind(declared)])

    def _key(self, used: Map, key: Value) -> tuple[tuple[Piece, ...], list[int]]:
        """A key's pieces and their registers."""
        pieces = self._store_pieces(used.key_type, key)
        if used.kind == standin.LPM_TRIE:
            length = self.constant(8 * used.key_type.size)
            pieces = [(Piece(p.offset + 4, p.size), register) for p, register in pieces]
            pieces.insert(0, (Piece(0, 4), length))
        return tuple(piece for piece, _ in pieces), [register for _, register in pieces]

    # Look-ups

    def lookup(self, used: Map, key: Value) -> int:
        """The address of a key's value, or 0."""
        pieces, registers = self._key(used, key)
        access = Access(used, pieces, used.key_size)
        return self.emit("lookup", *registers, graph.MAP_MEMORY, imm=access)

    def _find(self, used: Map, key: Value, missing: Block) -> int:
        """The address of a key's value; goes to `missing` where there is none."""
        if used.is_array:
            (index,) = flatten(key)
            # The kernel looks at 32 bits of it only.
            self.go_on_if("ule", index, self.constant(0xFFFFFFFF), missing)
        address = self.lookup(used, key)
        self.go_on_if("ne", address, self.constant(0), missing)
        return address

    def map_get(self, expression: tree.MapGet) -> Value:
        used, declared = expression.map, expression.map.value_type
        key = self.value(expression.key)
        default = None if expression.default is None else self.value(expression.default)
        if used.is_array and default is None:
            return self._load_pieces(declared, self._find(used, key, self.fault_block))
        missing, after = Block(), Block()
        result = self.fresh(expression.kind)

        def give(value: Value) -> None:
            for target, source in zip(flatten(result), flatten(value), strict=True):
                self.emit_to(target, "copy", source)
            self.jump(after)

        address = self._find(used, key, missing)
        give(self._load_pieces(declared, address))
        self.current = missing
        give(self._zero(declared) if default is None else default)
        self.current = after
        return result

    def map_has(self, expression: tree.MapHas, yes: Block, no: Block) -> None:
        address = self.lookup(expression.map, self.value(expression.key))
        self.branch("ne", address, self.constant(0), yes, no)

    # Writes

    def map_set(self, used: Map, key: Value, value: Value) -> None:
        if used.is_array:
            address = self._find(used, key, self.fault_block)
            for piece, register in self._store_pieces(used.value_type, value):
                self._store(address, piece.offset, piece.size, register)
            return
        self._update(used, key, value, ANY)

    def _store(self, address: int, offset: int, size: int, value: int) -> None:
        memory = graph.MAP_MEMORY
        self.emit_to(memory, "store", address, value, memory, imm=(offset, size, "map"))

    def _update(self, used: Map, key: Value, value: Value, flags: int) -> int:
        pieces, registers = self._key(used, key)
        stored = self._store_pieces(used.value_type, value)
        access = Access(
            used,
            pieces,
            used.key_size,
            tuple(piece for piece, _ in stored),
            used.value_type.size,
            flags,
        )
        arguments = [*registers, *(register for _, register in stored), graph.MAP_MEMORY]
        result = self.emit("update", *arguments, imm=access)
        self.emit_to(graph.MAP_MEMORY, "fence", result)
        return result

    def map_delete(self, used: Map, key: Value) -> None:
        pieces, registers = self._key(used, key)
        access = Access(used, pieces, used.key_size)
        result = self.emit("delete", *registers, graph.MAP_MEMORY, imm=access)
        self.emit_to(graph.MAP_MEMORY, "fence", result)

    def map_update(
        self,
        used: Map,
        key: Value,
        part: int | None,
        operator: str,
        operand: int,
        result: Callable[[int], int],
    ) -> None:
        """Change a value by an operator; without an entry it starts from 0."""
        declared, offset = used.value_type, 0
        if part is not None:
            assert isinstance(declared, Tuple)
            offset, declared = declared.offsets[part], declared.parts[part]
        assert isinstance(declared, Integer)

        def change(address: int) -> None:
            self._change(used, declared, address, offset, operator, operand, result)

        if used.is_array:
            change(self._find(used, key, self.fault_block))
            return
        # A new entry starts from zeros, so that what another CPU counts in it meanwhile is not
        # lost.
        missing, found, after = Block(), Block(), Block()
        address, zero = self.register(), self.constant(0)
        self.emit_to(address, "copy", self.lookup(used, key))
        self.branch("eq", address, zero, missing, found)
        self.current = missing
        self._update(used, key, self._zero(used.value_type), INSERT)
        self.emit_to(address, "copy", self.lookup(used, key))
        self.branch("eq", address, zero, after, found)
        self.current = found
        change(address)
        self.jump(after)
        self.current = after
        pieces, registers = self._key(used, key)
        access = Access(used, pieces, used.key_size)
        memory = graph.MAP_MEMORY
        self.emit_to(memory, "entered", address, *registers, memory, imm=access)

    def _change(
        self,
        used: Map,
        declared: Integer,
        address: int,
        offset: int,
        operator: str,
        operand: int,
        result: Callable[[int], int],
    ) -> None:
        atomic = operator in _ATOMIC and declared.bits in (32, 64) and not _is_swapped(declared)
        if atomic and not used.per_cpu:
            if operator == "-":
                operand = self.emit("sub", self.constant(0), operand)
            imm = (_ATOMIC[operator], offset, declared.size)
            memory = graph.MAP_MEMORY
            self.emit_to(memory, "atomic", address, operand, memory, imm=imm)
            return
        old = self._load_pieces(declared, address, offset)
        new = result(flatten(old)[0])
        (stored,) = self._store_pieces(declared, new)
        self._store(address, offset, declared.size, stored[1])


def _is_swapped(declared: Integer) -> bool:
    return declared.order == "big" and LITTLE and declared.bits > 8


def _address_kind(declared: Type) -> Kind:
    sizes = {4: 0, 6: 1, 16: 2}
    return ADDRESSES[(0, 2, 1)[sizes[declared.size]]]


def _holes(covered: bytearray) -> list[Piece]:
    """What is not covered, in aligned pieces."""
    holes: list[Piece] = []
    at = 0
    while at < len(covered):
        size = 8
        while size > 1 and (at % size or any(covered[at : at + size]) or at + size > len(covered)):
            size //= 2
        if not covered[at]:
            holes.append(Piece(at, size))
        at += size
    return holes
