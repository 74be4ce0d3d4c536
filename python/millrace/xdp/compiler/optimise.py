"""Makes the graph smaller: what is computed twice, never used, or always the same."""

from __future__ import annotations

from typing import Any

from millrace.xdp.compiler import memory
from millrace.xdp.compiler.conditions import Condition, Conditions
from millrace.xdp.compiler.control import tidy
from millrace.xdp.compiler.dominance import Dominance
from millrace.xdp.compiler.ranges import Range, Ranges
from millrace.xdp.compiler.simplify import COMMUTATIVE, Simplifier
from millrace.xdp.compiler.ssa import Block, Function, Node, remove_unused
from millrace.xdp.compiler.thread import signed

_MOST_ROUNDS = 12
#: Operations with one result for the same arguments.
_PURE = frozenset(
    (
        "add", "sub", "mul", "div", "mod", "floor", "and", "or", "xor", "shl", "shr", "sar",
        "swap", "sext", "padd", "pconst", "span", "context", "value", "interface",
    )
)  # fmt: skip


def optimise(function: Function) -> None:
    """Change a function in place until it gets no smaller."""
    for _ in range(_MOST_ROUNDS):
        walk = _Walk(function)
        walk.run()
        remove_unused(function)
        if not tidy(function) and not walk.changed:
            return
        remove_unused(function)


class _Walk:
    """One pass over the blocks, each after the one that dominates it."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.changed = False
        self._ranges = Ranges(function)
        self._replaced: dict[Node, Node] = {}
        self._block = function.entry
        self._out: list[Node] = []
        #: Nodes by what they compute.
        self._seen: dict[Any, Node] = {}
        #: Conditions decided, and bytes checked.
        self._facts: dict[Any, Any] = {}
        self._undo: list[Any] = []
        self._line = 0
        self._simplifier = Simplifier(self._range, self._made)
        self._conditions = Conditions(self._range, self._made)

    def run(self) -> None:
        blocks = self.function.blocks()
        self._dominance = Dominance(blocks)
        # What is known holds in the blocks that a block dominates, and is forgotten after them.
        stack: list[tuple[Block, list[Any] | None]] = [(blocks[0], None)]
        while stack:
            block, known = stack.pop()
            if known is not None:
                for table, key, former in reversed(known):
                    if former is None:
                        del table[key]
                    else:
                        table[key] = former
                continue
            if block is not blocks[0] and self._unreached(block):
                continue
            self._undo = []
            stack.append((block, self._undo))
            self._learn(block)
            self._visit(block)
            stack += [(child, None) for child in reversed(self._dominance.children[block])]
        for block in blocks:
            for phi in block.phis:
                phi.arguments = [self._now(argument) for argument in phi.arguments]

    def _know(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        """Note something for the blocks that this one dominates."""
        self._undo.append((table, key, table.get(key)))
        table[key] = value

    def _unreached(self, block: Block) -> bool:
        """Whether a branch that was decided on this walk has cut off a block: then only ways back
        to it are left, and its phis are made of themselves.
        """
        return all(
            source in self._dominance.parent and self._dominance.dominates(block, source)
            for source in block.before
        )

    def _range(self, node: Node) -> Range:
        return self._ranges.of(node, self._block)

    def _now(self, node: Node) -> Node:
        """What a node has been replaced by."""
        found = node
        while found in self._replaced:
            found = self._replaced[found]
        while node is not found:
            self._replaced[node], node = found, self._replaced[node]
        return found

    def _made(self, op: str, *arguments: Node, imm: Any = None) -> Node:
        """A new node before the one that is looked at, or one that is there already."""
        if op == "const":
            return self.function.constant(imm)
        return self._place(Node(op, arguments, imm, self._line))

    def _place(self, node: Node) -> Node:
        """Simplify a node, and keep it if there is none like it yet."""
        simpler = self._simplifier.simplify(node)
        if simpler is not None:
            return simpler
        self._address(node)
        known = self._known(node)
        if known is not None:
            return known
        node.block = self._block
        self._out.append(node)
        return node

    def _known(self, node: Node) -> Node | None:
        """A node that gives the same; else this one is noted for those that come."""
        key = self._key(node)
        if key is None:
            return None
        found = self._seen.get(key)
        if found is None:
            self._know(self._seen, key, node)
        return found

    def _key(self, node: Node) -> Any:
        if node.op in _PURE:
            numbers = [argument.number for argument in node.arguments]
            if node.op in COMMUTATIVE:
                numbers.sort()
            return node.op, tuple(numbers), node.imm
        if node.op == "load":
            last = memory.last_write(node)
            return "load", node.arguments[0].number, node.imm[:2], last.number
        if node.op == "lookup":
            # An array has all its values all the time.
            used = node.imm.map
            token = 0 if used.is_array else memory.last_change(node).number
            key = tuple(argument.number for argument in node.arguments[:-1])
            return "lookup", id(used), node.imm.key, key, token
        return None

    def _address(self, node: Node) -> None:
        """Let a load or a store do the last step of its address itself."""
        if node.op in ("load", "store", "checksum", "atomic"):
            pointer = node.arguments[0]
            if pointer.op == "pconst" and node.op in ("load", "store"):
                offset, size, tag = node.imm
                node.arguments[0] = pointer.arguments[0]
                node.imm = (offset + pointer.imm, size, tag)

    def _visit(self, block: Block) -> None:
        self._block = block
        self._phis(block)
        nodes, self._out = block.nodes, []
        for node in nodes:
            self._line = node.line
            node.arguments = [self._now(argument) for argument in node.arguments]
            placed = self._forward(node) or self._place(node)
            if node.op == "store":
                self._strip(node)
            if placed is not node:
                self._replaced[node] = placed
                self.changed = True
        finish = block.finish
        self._line = finish.line
        finish.arguments = [self._now(argument) for argument in finish.arguments]
        if finish.kind == "branch":
            self._branch(block)
        elif finish.kind == "check":
            self._check(block)
        block.nodes = self._out

    def _phis(self, block: Block) -> None:
        kept: list[Node] = []
        for phi in block.phis:
            phi.arguments = [self._now(argument) for argument in phi.arguments]
            others = {argument for argument in phi.arguments if argument is not phi}
            same = [k for k in kept if k.arguments == phi.arguments and k.sources == phi.sources]
            if len(others) == 1:
                self._replaced[phi] = others.pop()
                self.changed = True
            elif same:
                self._replaced[phi] = same[0]
                self.changed = True
            else:
                kept.append(phi)
        block.phis = kept

    def _forward(self, node: Node) -> Node | None:
        """What a load or a look-up finds, where that has just been written."""
        if node.op == "lookup":
            if node.imm.map.is_array:
                return None
            last = memory.last_change(node)
            return last.arguments[0] if last.op == "entered" else None
        if node.op != "load":
            return None
        self._address(node)
        last = memory.last_write(node)
        if last.op != "store" or last.arguments[0] is not node.arguments[0]:
            return None
        if last.imm[:2] != node.imm[:2]:
            return None
        size = node.imm[1]
        if size == 8:
            return last.arguments[1]
        mask = self._made("const", imm=(1 << (8 * size)) - 1)
        return self._made("and", last.arguments[1], mask)

    def _strip(self, store: Node) -> None:
        """A store cuts what it stores by itself."""
        size = store.imm[1]
        value = store.arguments[1]
        full = (1 << (8 * size)) - 1
        while size < 8:
            if value.op == "and" and value.arguments[1].value is not None:
                if value.arguments[1].value & full != full:
                    break
            elif not (value.op == "sext" and value.imm >= 8 * size):
                break
            value = value.arguments[0]
        store.arguments[1] = value

    # Ends

    def _learn(self, block: Block) -> None:
        """What the way into a block says."""
        if len(block.before) != 1:
            return
        finish = block.before[0].finish
        holds = bool(finish.targets) and finish.targets[0] is block
        if finish.kind == "branch":
            left, right = finish.arguments
            self._know(self._facts, (finish.condition, left, right), holds)
        elif finish.kind == "check":
            pointer = finish.arguments[0]
            has, lacks = self._facts.get(("bytes", pointer), (0, 1 << 32))
            if holds:
                has = max(has, finish.size)
            else:
                lacks = min(lacks, finish.size)
            self._know(self._facts, ("bytes", pointer), (has, lacks))

    def _decide(self, block: Block, outcome: bool) -> None:
        """A branch that always goes one way."""
        finish = block.finish
        taken, other = finish.targets if outcome else finish.targets[::-1]
        finish.kind, finish.targets, finish.arguments = "jump", [taken], []
        if other is not taken:
            other.cut_from(block)
        self.changed = True

    def _branch(self, block: Block) -> None:
        finish = block.finish
        left, right = finish.arguments
        found = Condition(finish.condition, left, right)
        outcome = self._conditions.simplify(found)
        if outcome is None:
            known = self._facts.get((found.name, found.left, found.right))
            if known is not None:
                outcome = known != found.turned
            elif found.name == "eq" and self._excluded(found, block):
                outcome = found.turned
        if outcome is not None:
            self._decide(block, outcome)
            return
        if found.turned:
            finish.targets.reverse()
        now = (found.name, [found.left, found.right])
        if found.turned or now != (finish.condition, finish.arguments):
            self.changed = True
        finish.condition, finish.arguments = now

    def _excluded(self, found: Condition, block: Block) -> bool:
        constant = found.right.value
        return constant is not None and self._ranges.excludes(found.left, block, signed(constant))

    def _check(self, block: Block) -> None:
        finish = block.finish
        pointer = finish.arguments[0]
        if pointer.op == "pconst":
            finish.arguments[0] = pointer.arguments[0]
            finish.size += pointer.imm
            pointer = finish.arguments[0]
        has, lacks = self._facts.get(("bytes", pointer), (0, 1 << 32))
        if finish.size <= has:
            self._decide(block, True)
        elif finish.size >= lacks:
            self._decide(block, False)
