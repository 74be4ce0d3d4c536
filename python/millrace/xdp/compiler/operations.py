"""Operations of the graph, one after the other: what lowering writes with."""

from __future__ import annotations

import sys
from typing import Any, TypeAlias, Union

from millrace.xdp.compiler import graph, tree
from millrace.xdp.compiler.graph import Block, Branch, Check, Jump, Operation, Query
from millrace.xdp.compiler.kinds import (
    ADDRESSES,
    IPV4,
    IPV6,
    MAC,
    NOTHING,
    Kind,
    TupleKind,
)
from millrace.xdp.compiler.session import Options
from millrace.xdp.compiler.source import Place

LITTLE = sys.byteorder == "little"
MOST = (1 << 64) - 1

Value: TypeAlias = Union[int, "tuple[Value, ...]"]

#: Offsets and sizes of what the machine loads of an address, within the address.
ADDRESS_PIECES: dict[Kind, tuple[tuple[int, int], ...]] = {
    IPV4: ((0, 4),),
    MAC: ((0, 4), (4, 2)),
    IPV6: ((0, 8), (8, 8)),
}
ADDRESS_SIZES: dict[Kind, int] = {IPV4: 4, MAC: 6, IPV6: 16}
#: Words of struct xdp_md.
CONTEXT_WORDS = {"data": 0, "end": 4, "ifindex": 12, "queue": 16}


def flatten(value: Value) -> list[int]:
    """The registers of a value, in their order."""
    return [value] if isinstance(value, int) else [r for part in value for r in flatten(part)]


class Operations:
    """Writes operations. `current` is the block that they go to."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.entry = Block()
        self.current = self.entry
        self.registers = graph.FIRST_FREE
        self.emitted = 0
        self.interfaces: list[str] = []
        self.at = Place("", 0)
        self.fault_block = Block()
        self._variables: dict[tree.Variable, Value] = {}
        for register, word in ((graph.DATA, "data"), (graph.END, "end")):
            self.emit_to(register, "context", graph.CONTEXT, imm=CONTEXT_WORDS[word])
        for memory in (graph.PACKET_MEMORY, graph.MAP_MEMORY):
            self.emit_to(memory, "fence")

    def register(self) -> int:
        self.registers += 1
        return self.registers - 1

    def emit_to(self, target: int, op: str, *arguments: int, imm: Any = None) -> int:
        """An operation whose result goes to a register that is given."""
        self.emitted += 1
        self.current.operations.append(Operation(op, target, arguments, imm, self.at.line))
        return target

    def emit(self, op: str, *arguments: int, imm: Any = None) -> int:
        """An operation whose result goes to a new register."""
        return self.emit_to(self.register(), op, *arguments, imm=imm)

    def constant(self, value: int) -> int:
        return self.emit("const", imm=value & MOST)

    def swap(self, value: int, bits: int) -> int:
        """Between a number and its bytes in network order, as the machine loads them."""
        if not LITTLE:
            return self.emit("and", value, self.constant((1 << bits) - 1)) if bits < 64 else value
        return self.emit("swap", value, imm=bits)

    def jump(self, target: Block) -> None:
        """Go on in a block, unless the way has ended already."""
        if self.current.end is None:
            self.current.end = Jump(target)

    def branch(self, condition: str, left: int, right: int, yes: Block, no: Block) -> None:
        self.current.end = Branch(condition, left, right, yes, no, self.at.line)

    def query(self, header: str, yes: Block, no: Block) -> None:
        self.current.end = Query(header, yes, no, self.at.line)

    def require(self, header: str) -> None:
        """Go on where a header is present; elsewhere it is a fault."""
        yes = Block()
        self.query(header, yes, self.fault_block)
        self.current = yes

    def check(self, pointer: int, size: int, no: Block) -> None:
        """Go on where so many bytes are in the frame."""
        yes = Block()
        self.current.end = Check(pointer, size, yes, no, self.at.line)
        self.current = yes

    def go_on_if(self, condition: str, left: int, right: int, no: Block) -> None:
        yes = Block()
        self.branch(condition, left, right, yes, no)
        self.current = yes

    # Variables

    def fresh(self, kind: Kind) -> Value:
        """New registers for a value of this kind."""
        if kind == NOTHING:
            return ()
        if isinstance(kind, TupleKind):
            return tuple(self.fresh(part) for part in kind.parts)
        if kind in ADDRESSES:
            pieces = ADDRESS_PIECES[kind]
            return tuple(self.register() for _ in pieces)
        return self.register()

    def set_variable(self, variable: tree.Variable, value: Value) -> None:
        if variable not in self._variables:
            self._variables[variable] = self.fresh(variable.kind)
        for target, source in zip(flatten(self._variables[variable]), flatten(value), strict=True):
            self.emit_to(target, "copy", source)

    # What expressions come to

    def value(self, expression: tree.Expression) -> Value:
        """Any value."""
        raise NotImplementedError

    def number(self, expression: tree.Expression) -> int:
        """A value that is one register."""
        (register,) = flatten(self.value(expression))
        return register
