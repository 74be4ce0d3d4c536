"""Runs the SSA form of a program, so that what each stage of the compiler made can be compared with
plain Python. It checks what the kernel would: that no byte outside the frame is touched.
"""

from __future__ import annotations

import sys

from millrace.xdp import standin
from millrace.xdp.compiler.graph import Access, Piece
from millrace.xdp.compiler.simplify import MOST, compute, swapped
from millrace.xdp.compiler.ssa import Block, Function, Node
from millrace.xdp.compiler.thread import decide, signed
from millrace.xdp.maps import Map

FRAME, VALUES, ROOM = 1 << 40, 1 << 50, 1 << 12
MOST_BLOCKS = 1_000_000


class Run:
    """One run on a frame. `contents` are the maps' entries, by the map's id; they are changed."""

    def __init__(
        self, function: Function, frame: bytes, contents: dict[int, dict[bytes, bytearray]]
    ) -> None:
        self.function = function
        self.frame = bytearray(frame)
        self.contents = contents
        self._values: dict[Node, int] = {}
        self._places: list[bytearray] = []

    def run(self) -> int:
        """The verdict."""
        block, before = self.function.entry, self.function.entry
        for _ in range(MOST_BLOCKS):
            self._values |= {phi: self.value(phi.of(before)) for phi in block.phis}
            for node in block.nodes:
                self._values[node] = self._node(node)
            finish = block.finish
            if finish.kind == "return":
                return self.value(finish.arguments[0])
            before, block = block, self._next(block)
        raise AssertionError("the program does not end")

    def value(self, node: Node) -> int:
        return node.imm if node.op == "const" else self._values[node]

    def _next(self, block: Block) -> Block:
        finish = block.finish
        arguments = [self.value(argument) for argument in finish.arguments]
        match finish.kind:
            case "jump":
                return finish.targets[0]
            case "branch":
                holds = decide(finish.condition, arguments[0], arguments[1])
            case "check":
                holds = arguments[0] + finish.size <= arguments[1]
            case _:
                raise AssertionError(finish.kind)
        return finish.targets[0 if holds else 1]

    def _memory(self, address: int, offset: int, size: int) -> tuple[bytearray, int]:
        if address >= VALUES:
            memory, start = self._places[(address - VALUES) // ROOM], (address - VALUES) % ROOM
        else:
            memory, start = self.frame, address - FRAME
        start += offset
        assert 0 <= start <= start + size <= len(memory), "outside the frame or a value"
        return memory, start

    def _load(self, address: int, offset: int, size: int) -> int:
        memory, start = self._memory(address, offset, size)
        return int.from_bytes(memory[start : start + size], sys.byteorder)

    def _store(self, address: int, offset: int, size: int, value: int) -> None:
        memory, start = self._memory(address, offset, size)
        memory[start : start + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, sys.byteorder)

    def _entries(self, used: Map) -> dict[bytes, bytearray]:
        return self.contents[id(used)]

    def _found(self, used: Map, key: bytes) -> bytes:
        return used._found(key) if used.kind == standin.LPM_TRIE else key

    def _bytes(self, pieces: tuple[Piece, ...], size: int, values: list[Node]) -> bytearray:
        data = bytearray(size)
        for piece, value in zip(pieces, values, strict=True):
            cut = self.value(value) & ((1 << 8 * piece.size) - 1)
            data[piece.offset :][: piece.size] = b""
            data[piece.offset : piece.offset + piece.size] = cut.to_bytes(piece.size, sys.byteorder)
        return data

    def _node(self, node: Node) -> int:
        arguments = node.arguments
        match node.op:
            case "argument" | "fence" | "entered":
                return 0
            case "context":
                return {0: FRAME, 4: FRAME + len(self.frame), 12: 1, 16: 0}[node.imm]
            case "load":
                offset, size, _ = node.imm
                return self._load(self.value(arguments[0]), offset, size)
            case "store":
                offset, size, _ = node.imm
                self._store(self.value(arguments[0]), offset, size, self.value(arguments[1]))
                return 0
            case "pconst":
                return self.value(arguments[0]) + int(node.imm)
            case "padd":
                return self.value(arguments[0]) + signed(self.value(arguments[1]))
            case "span":
                return (self.value(arguments[0]) - self.value(arguments[1])) & MOST
            case "swap":
                return swapped(self.value(arguments[0]), node.imm)
            case "sext":
                low = self.value(arguments[0]) & ((1 << node.imm) - 1)
                return (low - ((low >> (node.imm - 1)) << node.imm)) & MOST
            case "lookup" | "update" | "delete" | "value":
                return self._map(node)
            case "atomic":
                name, offset, size = node.imm
                address = self.value(arguments[0])
                old = self._load(address, offset, size)
                new = compute(name, old, self.value(arguments[1]))
                assert new is not None
                self._store(address, offset, size, new)
                return 0
            case "checksum":
                self._checksum(node)
                return 0
        result = compute(node.op, *(self.value(argument) for argument in arguments))
        assert result is not None, node
        return result

    def _map(self, node: Node) -> int:
        if node.op == "value":
            return self._address(self._entries(node.imm)[bytes(4)])
        access: Access = node.imm
        entries, count = self._entries(access.map), len(access.key)
        key = bytes(self._bytes(access.key, access.key_size, node.arguments[:count]))
        if node.op == "lookup":
            if access.map.kind == standin.LPM_TRIE:
                length = int.from_bytes(key[:4], sys.byteorder)
                for shorter in range(length, -1, -1):
                    prefix = standin.prefix_key(shorter, key[4:])
                    if prefix in entries:
                        return self._address(entries[prefix])
                return 0
            return self._address(entries[key]) if key in entries else 0
        if node.op == "delete":
            entries.pop(key, None)
            return 0
        if access.flags == standin.INSERT and key in entries:
            return MOST
        values = node.arguments[count : count + len(access.value)]
        entries[key] = self._bytes(access.value, access.value_size, values)
        return 0

    def _address(self, memory: bytearray) -> int:
        self._places.append(memory)
        return VALUES + ROOM * (len(self._places) - 1)

    def _checksum(self, node: Node) -> None:
        change = node.imm
        address = self.value(node.arguments[0])
        total = self._load(address, change.offset, 2)
        if change.zero_is_none and total == 0:
            return
        for index, (size, weight) in enumerate(change.pairs):
            old, new = (self.value(n) for n in node.arguments[2 + 2 * index : 4 + 2 * index])
            total += (old - (new & ((1 << 8 * size) - 1))) * weight
        total %= 0xFFFF
        if change.zero_is_none and total == 0:
            total = 0xFFFF
        self._store(address, change.offset, 2, total)
