"""Checksums that follow what a program writes: several changes become one, and then code.

A checksum is a number modulo 0xffff. It grows by what was there and shrinks by what is there now,
in words of 16 bits (RFC 1624); of a longer number all words are added at once, since 2^16 is 1
there.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from millrace.xdp.compiler.control import substitute
from millrace.xdp.compiler.graph import Sum
from millrace.xdp.compiler.ssa import Block, Finish, Function, Node
from millrace.xdp.compiler.thread import signed

_RING = 0xFFFF


def combine(function: Function) -> None:
    """Let the last of several changes in a block do the work of all."""
    replaced: dict[Node, Node] = {}
    for block in function.blocks():
        last: dict[tuple[Node, int], Node] = {}
        gone: set[Node] = set()
        for node in block.nodes:
            if node.op == "checksum":
                key = (node.arguments[0], node.imm.offset)
                earlier = last.get(key)
                if earlier is not None:
                    node.arguments[2:2] = earlier.arguments[2:]
                    pairs = earlier.imm.pairs + node.imm.pairs
                    node.imm = Sum(node.imm.offset, node.imm.zero_is_none, pairs, node.imm.tag)
                    replaced[earlier] = earlier.arguments[1]
                    gone.add(earlier)
                last[key] = node
            elif node.op in ("load", "store") and node.imm[2] in ("sum", "raw"):
                last.clear()
        block.nodes = [node for node in block.nodes if node not in gone]
    substitute(function, replaced)


def expand(function: Function) -> None:
    """Make code of all changes."""
    replaced: dict[Node, Node] = {}
    for block in function.blocks():
        here: Block | None = block
        while here is not None:
            here = _expand_first(function, here, replaced)
    substitute(function, replaced)


def _expand_first(function: Function, block: Block, replaced: dict[Node, Node]) -> Block | None:
    """Expand the first change of a block; returns the block where there may be more, and notes what
    memory its result has become.
    """
    for index, node in enumerate(block.nodes):
        if node.op != "checksum":
            continue
        change = _Change.of(node)
        if not change.terms and change.constant % _RING == 0:
            block.nodes.remove(node)
            replaced[node] = node.arguments[1]
            return block
        if node.imm.zero_is_none:
            return _expand_optional(function, block, index, change, replaced)
        writer = _Writer(function, block.nodes[:index], block, node.line)
        old = writer.load(node)
        store = writer.store(node, writer.changed(old, change, canonical=True))
        rest = block.nodes[index + 1 :]
        block.nodes = [*writer.nodes, *rest]
        replaced[node] = store
        return block
    return None


def _expand_optional(
    function: Function, block: Block, index: int, change: _Change, replaced: dict[Node, Node]
) -> Block:
    """A checksum that is 0 where there is none, which then stays so."""
    node = block.nodes[index]
    update, after = Block(), Block()
    after.nodes, after.finish = block.nodes[index + 1 :], block.finish
    for moved in after.nodes:
        moved.block = after
    for target in after.finish.targets:
        target.before = [after if b is block else b for b in target.before]
        for phi in target.phis:
            phi.sources = [after if b is block else b for b in phi.sources]
    writer = _Writer(function, block.nodes[:index], block, node.line)
    old = writer.load(node)
    block.nodes = writer.nodes
    zero = function.constant(0)
    block.finish = Finish("branch", [after, update], [old, zero], condition="eq", line=node.line)
    writer = _Writer(function, [], update, node.line)
    store = writer.store(node, writer.changed(old, change, canonical=False))
    update.nodes = writer.nodes
    update.finish = Finish("jump", [after])
    update.before = [block]
    after.before = [block, update]
    phi = Node("phi", [node.arguments[1], store])
    phi.block, phi.sources = after, [block, update]
    after.phis = [phi]
    replaced[node] = phi
    return after


@dataclass
class _Change:
    """What is added to a checksum: numbers, each so many times, and a constant."""

    #: By number, size and weight; negative where it is taken away.
    terms: dict[tuple[Node, int, int], int] = field(default_factory=dict)
    constant: int = 0

    @classmethod
    def of(cls, node: Node) -> _Change:
        change = cls()
        for index, (size, weight) in enumerate(node.imm.pairs):
            old, new = node.arguments[2 + 2 * index : 4 + 2 * index]
            change._add(old, size, weight, 1)
            change._add(new, size, weight, -1)
        # A byte that became one more or less is a constant change.
        for number, size, weight in list(change.terms):
            if number.op == "add" and number.arguments[1].value is not None:
                base = (number.arguments[0], size, weight)
                if base in change.terms:
                    times = change.terms.pop((number, size, weight))
                    change.constant += times * weight * signed(number.arguments[1].imm)
                    change._add(*base, times)
        change.terms = {term: times for term, times in change.terms.items() if times}
        return change

    def _add(self, number: Node, size: int, weight: int, times: int) -> None:
        if number.value is not None:
            self.constant += times * weight * (number.value & ((1 << (8 * size)) - 1))
        else:
            term = (number, size, weight)
            self.terms[term] = self.terms.get(term, 0) + times


class _Writer:
    """Writes the code of one change."""

    def __init__(self, function: Function, nodes: list[Node], block: Block, line: int) -> None:
        self.function = function
        self.nodes = list(nodes)
        self.block = block
        self.line = line

    def _node(self, op: str, *arguments: Node, imm: object = None) -> Node:
        node = Node(op, arguments, imm, self.line)
        node.block = self.block
        self.nodes.append(node)
        return node

    def load(self, node: Node) -> Node:
        """The checksum as it was."""
        pointer, memory = node.arguments[:2]
        return self._node("load", pointer, memory, imm=(node.imm.offset, 2, "sum"))

    def store(self, node: Node, value: Node) -> Node:
        """Write the checksum."""
        pointer, memory = node.arguments[:2]
        return self._node("store", pointer, value, memory, imm=(node.imm.offset, 2, "sum"))

    def changed(self, old: Node, change: _Change, *, canonical: bool) -> Node:
        """The checksum as it will be. Of the two forms of zero, 0 and 0xffff, `canonical` gives 0,
        and otherwise it is 0xffff.
        """
        total, most = old, _RING
        constant = change.constant
        for (number, size, weight), times in change.terms.items():
            for term, high in self._terms(number, size, weight, times < 0):
                for _ in range(abs(times)):
                    total, most = self._node("add", total, term), most + high
            if times < 0 and size == 1:
                constant += times * 0xFF * weight
        constant %= _RING
        if constant:
            total = self._node("add", total, self._constant(constant))
            most += constant
        while most > 0x1FFFD:
            low = self._node("and", total, self._constant(_RING))
            high_words = self._node("shr", total, self._constant(16))
            total, most = self._node("add", low, high_words), _RING + (most >> 16)
        carry = self._node("add", total, self._constant(1)) if canonical else total
        carry = self._node("shr", carry, self._constant(16))
        return self._node("add", total, carry)

    def _constant(self, value: int) -> Node:
        return self.function.constant(value)

    def _terms(
        self, number: Node, size: int, weight: int, negative: bool
    ) -> list[tuple[Node, int]]:
        """What to add for a number, or for its complement where it is taken away; with the most
        that each can be.
        """
        most = (1 << (8 * size)) - 1
        if negative:
            # The complement within its words is the negative, but for a byte, which is half of one.
            number = self._node("xor", number, self._constant(most))
        if size == 8:
            low = self._node("and", number, self._constant(0xFFFFFFFF))
            high = self._node("shr", number, self._constant(32))
            return [(low, 0xFFFFFFFF), (high, 0xFFFFFFFF)]
        if weight == 256:
            return [(self._node("shl", number, self._constant(8)), most << 8)]
        return [(number, most)]
