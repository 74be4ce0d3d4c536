"""The program in static single assignment form, and how it gets there.

A node is an operation and its result at once; what operations mean is told in `graph`. A phi's
arguments stand beside the blocks they come from.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from millrace.xdp.compiler import graph
from millrace.xdp.compiler.dominance import Dominance
from millrace.xdp.compiler.graph import Graph

_numbers = itertools.count()

#: Operations that must be done though nobody uses their result.
EFFECTS = frozenset(("store", "atomic", "update", "delete", "checksum", "redirect", "redirect_map"))


class Node:
    """An operation and its result."""

    __slots__ = ("arguments", "block", "imm", "line", "number", "op", "sources")

    def __init__(
        self, op: str, arguments: Iterable[Node] = (), imm: Any = None, line: int = 0
    ) -> None:
        self.op = op
        self.arguments = list(arguments)
        self.imm = imm
        self.line = line
        self.number = next(_numbers)
        self.block: Block | None = None
        #: Of a phi: where each argument comes from.
        self.sources: list[Block] = []

    def __repr__(self) -> str:
        arguments = " ".join(f"%{argument.number}" for argument in self.arguments)
        imm = "" if self.imm is None else f" {self.imm}"
        return f"%{self.number} = {self.op} {arguments}{imm}"

    @property
    def value(self) -> int | None:
        """The number, if it is a constant."""
        return int(self.imm) if self.op == "const" else None

    def of(self, source: Block) -> Node:
        """A phi's argument for a way that it is reached by."""
        return self.arguments[self.sources.index(source)]


@dataclass(eq=False, slots=True)
class Finish:
    """How a block ends: "jump", "branch" (condition of two nodes), "check" (whether `size` bytes
    from a pointer are before the end) or "return". Of two targets the first is taken if it holds.
    """

    kind: str
    targets: list[Block]
    arguments: list[Node] = field(default_factory=list)
    condition: str = ""
    size: int = 0
    line: int = 0


class Block:
    """Phis, nodes in their order, and an end."""

    __slots__ = ("before", "finish", "nodes", "number", "phis")

    def __init__(self) -> None:
        self.phis: list[Node] = []
        self.nodes: list[Node] = []
        self.finish: Finish = Finish("none", [])
        #: Where it is reached from.
        self.before: list[Block] = []
        self.number = next(_numbers)

    def add(self, node: Node) -> Node:
        """Append a node."""
        node.block = self
        self.nodes.append(node)
        return node

    def cut_from(self, source: Block) -> None:
        """It is no longer reached from there."""
        self.before.remove(source)
        for phi in self.phis:
            index = phi.sources.index(source)
            del phi.sources[index]
            del phi.arguments[index]

    def reached(self, source: Block, like: Block) -> None:
        """It is reached from another block too, with what its phis have from `like`."""
        self.before.append(source)
        for phi in self.phis:
            phi.arguments.append(phi.of(like))
            phi.sources.append(source)


@dataclass(eq=False)
class Function:
    """A program. Constants belong to no block."""

    entry: Block
    interfaces: list[str]
    _constants: dict[int, Node] = field(default_factory=dict)

    def constant(self, value: int) -> Node:
        """The node of a number."""
        if value not in self._constants:
            self._constants[value] = Node("const", imm=value)
        return self._constants[value]

    def blocks(self) -> list[Block]:
        """All blocks, each after one that it is reached from (reverse postorder)."""
        order: list[Block] = []
        seen = {self.entry}
        stack: list[tuple[Block, Iterator[Block]]] = [(self.entry, iter(self.entry.finish.targets))]
        while stack:
            block, targets = stack[-1]
            for target in targets:
                if target not in seen:
                    seen.add(target)
                    stack.append((target, iter(target.finish.targets)))
                    break
            else:
                order.append(block)
                stack.pop()
        return order[::-1]


def build(program: Graph) -> Function:
    """The graph, whose queries are gone, in SSA form."""
    return _Builder(program).build()


class _Builder:
    def __init__(self, program: Graph) -> None:
        self.program = program
        self.blocks: dict[graph.Block, Block] = {}
        self.function = Function(Block(), program.interfaces)
        self._order(program.entry)
        self.live = self._liveness()

    def _order(self, entry: graph.Block) -> None:
        waiting = [entry]
        self.blocks[entry] = Block()
        while waiting:
            block = waiting.pop()
            for target in graph.targets(block.end):
                if target not in self.blocks:
                    self.blocks[target] = Block()
                    waiting.append(target)

    def _liveness(self) -> dict[graph.Block, set[int]]:
        """The registers whose values matter at the start of each block."""
        reads: dict[graph.Block, set[int]] = {}
        writes: dict[graph.Block, set[int]] = {}
        for block in self.blocks:
            read: set[int] = set()
            written: set[int] = set()
            for operation in block.operations:
                read |= set(operation.arguments) - written
                if operation.target is not None:
                    written.add(operation.target)
            read |= set(_end_arguments(block.end)) - written
            reads[block], writes[block] = read, written
        live = {block: set(reads[block]) for block in self.blocks}
        before: dict[graph.Block, list[graph.Block]] = {block: [] for block in self.blocks}
        for block in self.blocks:
            for target in graph.targets(block.end):
                before[target].append(block)
        waiting = list(self.blocks)
        while waiting:
            block = waiting.pop()
            out: set[int] = set()
            for target in graph.targets(block.end):
                out |= live[target]
            now = reads[block] | (out - writes[block])
            if now != live[block]:
                live[block] = now
                waiting += before[block]
        return live

    def build(self) -> Function:
        for old, new in self.blocks.items():
            ways = list(dict.fromkeys(self.blocks[target] for target in graph.targets(old.end)))
            new.finish = Finish("none", ways)
            for way in ways:
                way.before.append(new)
        function = self.function
        function.entry = self.blocks[self.program.entry]
        order = function.blocks()
        old_of = {new: old for old, new in self.blocks.items()}
        dominance = Dominance(order)
        phis = self._place_phis(order, dominance.parent, old_of)
        self._rename(dominance, old_of, phis)
        return function

    def _place_phis(
        self,
        order: list[Block],
        parent: dict[Block, Block],
        old_of: dict[Block, graph.Block],
    ) -> dict[Node, int]:
        frontier: dict[Block, set[Block]] = {block: set() for block in order}
        for block in order:
            if len(block.before) < 2:
                continue
            for source in block.before:
                runner = source
                # Where it has been added, it has been further up as well.
                while runner is not parent[block] and block not in frontier[runner]:
                    frontier[runner].add(block)
                    runner = parent[runner]
        writers: dict[int, set[Block]] = {}
        for block in order:
            for operation in old_of[block].operations:
                if operation.target is not None:
                    writers.setdefault(operation.target, set()).add(block)
        phis: dict[Node, int] = {}
        for register, blocks in writers.items():
            placed: set[Block] = set()
            waiting = list(blocks)
            while waiting:
                for block in frontier[waiting.pop()]:
                    if block in placed or register not in self.live[old_of[block]]:
                        continue
                    placed.add(block)
                    phi = Node("phi")
                    phi.block = block
                    block.phis.append(phi)
                    phis[phi] = register
                    waiting.append(block)
        return phis

    def _rename(
        self,
        dominance: Dominance,
        old_of: dict[Block, graph.Block],
        phis: dict[Node, int],
    ) -> None:
        context = Node("argument")
        entry = dominance.blocks[0]
        entry.add(context)
        names: dict[int, Node] = {graph.CONTEXT: context}
        # Each block restores the names that it has changed when those it dominates are done.
        stack: list[tuple[Block, dict[int, Node | None] | None]] = [(entry, None)]
        while stack:
            block, undo = stack.pop()
            if undo is not None:
                for register, former in undo.items():
                    if former is None:
                        del names[register]
                    else:
                        names[register] = former
                continue
            undo = {}
            stack.append((block, undo))
            for phi in block.phis:
                undo.setdefault(phis[phi], names.get(phis[phi]))
                names[phis[phi]] = phi
            old = old_of[block]
            for operation in old.operations:
                arguments = [self._read(names, r) for r in operation.arguments]
                if operation.op == "copy":
                    node = arguments[0]
                elif operation.op == "const":
                    node = self.function.constant(operation.imm)
                else:
                    node = block.add(Node(operation.op, arguments, operation.imm, operation.line))
                if operation.target is not None:
                    undo.setdefault(operation.target, names.get(operation.target))
                    names[operation.target] = node
            self._finish(block, old, names)
            for target in block.finish.targets:
                for phi in target.phis:
                    phi.arguments.append(self._read(names, phis[phi]))
                    phi.sources.append(block)
            stack += [(child, None) for child in dominance.children[block]]

    def _read(self, names: dict[int, Node], register: int) -> Node:
        # No way that matters comes here without a value.
        return names.get(register) or self.function.constant(0)

    def _finish(self, block: Block, old: graph.Block, names: dict[int, Node]) -> None:
        match old.end:
            case graph.Jump():
                block.finish.kind = "jump"
            case graph.Branch() as end if len(block.finish.targets) == 2:
                arguments = [self._read(names, r) for r in (end.left, end.right)]
                block.finish = Finish(
                    "branch",
                    [self.blocks[end.yes], self.blocks[end.no]],
                    arguments,
                    condition=end.condition,
                    line=end.line,
                )
            case graph.Check() as end if len(block.finish.targets) == 2:
                block.finish = Finish(
                    "check",
                    [self.blocks[end.yes], self.blocks[end.no]],
                    [self._read(names, end.pointer), self._read(names, graph.END)],
                    size=end.size,
                    line=end.line,
                )
            case graph.Branch() | graph.Check():
                block.finish.kind = "jump"
            case graph.Return() as end:
                value = self._read(names, end.value)
                block.finish = Finish("return", [], [value], line=end.line)
            case _:
                raise AssertionError(old.end)


def _end_arguments(end: graph.End | None) -> tuple[int, ...]:
    match end:
        case graph.Branch(left=left, right=right):
            return left, right
        case graph.Check(pointer=pointer):
            return pointer, graph.END
        case graph.Return(value=value):
            return (value,)
    return ()


def remove_unused(function: Function) -> None:
    """Drop nodes whose results nobody needs."""
    blocks = function.blocks()
    needed: set[Node] = set()
    waiting: list[Node] = []
    for block in blocks:
        waiting += [node for node in block.nodes if node.op in EFFECTS]
        waiting += block.finish.arguments
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting += node.arguments
    for block in blocks:
        block.phis = [phi for phi in block.phis if phi in needed]
        block.nodes = [node for node in block.nodes if node in needed]


def check_form(function: Function) -> None:
    """Raise AssertionError where the form is broken; for tests and for finding mistakes here."""
    blocks = function.blocks()
    dominates = Dominance(blocks).dominates
    position = {block: index for index, block in enumerate(blocks)}
    where: dict[Node, tuple[int, int]] = {}
    for block in blocks:
        reached = [b for b in blocks if block in b.finish.targets]
        assert set(reached) == set(block.before), (block.number, block.before)
        assert len(block.before) == len(set(block.before))
        for phi in block.phis:
            assert set(phi.sources) == set(block.before), phi
            assert len(phi.sources) == len(phi.arguments) == len(block.before)
            where[phi] = (position[block], -1)
        for index, node in enumerate(block.nodes):
            where[node] = (position[block], index)

    for block in blocks:
        uses = [(node, i) for i, node in enumerate(block.nodes)]
        for node, index in uses:
            for argument in node.arguments:
                if argument.op == "const":
                    continue
                assert argument in where, (node, argument)
                there, at = where[argument]
                if there == position[block]:
                    assert at < index, (node, argument)
                else:
                    assert dominates(blocks[there], block), (node, argument)
        for argument in block.finish.arguments:
            if argument.op == "const":
                continue
            assert argument in where, (block.finish, argument)
            assert dominates(blocks[where[argument][0]], block)
        for phi in block.phis:
            for argument, source in zip(phi.arguments, phi.sources, strict=True):
                if argument.op == "const":
                    continue
                assert argument in where, (phi, argument)
                assert dominates(blocks[where[argument][0]], source), (phi, argument)
