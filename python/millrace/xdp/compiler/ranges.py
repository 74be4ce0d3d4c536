"""What each number can be, and what is known of it where it is used.

A range is what a number can be as 64 bits with a sign. What a branch tells of a number holds in the
blocks that only one of its ways leads to.
"""

from __future__ import annotations

from millrace.xdp.compiler.dominance import Dominance
from millrace.xdp.compiler.ssa import Block, Function, Node
from millrace.xdp.compiler.thread import signed

Range = tuple[int, int]

LOWEST, HIGHEST = -(1 << 63), (1 << 63) - 1
FULL: Range = (LOWEST, HIGHEST)
_STEPS = (0xFF, 0xFFFF, 0xFFFFFFFF, HIGHEST)
#: Looks at one number before it is no longer waited for it to settle.
_MOST_LOOKS = 4


def meet(first: Range, second: Range) -> Range:
    """What both allow; where that is nothing no way leads, and anything is right."""
    low, high = max(first[0], second[0]), min(first[1], second[1])
    return (low, high) if low <= high else first


def implied(condition: str, holds: bool, other: Range, *, left: bool) -> Range | None:
    """What a branch says of one side of its condition, given what the other side can be."""
    low, high = other
    match condition, holds:
        case ("eq", True) | ("ne", False):
            return other
        case ("slt", True) if left:
            return (LOWEST, high - 1) if high > LOWEST else None
        case ("slt", True):
            return (low + 1, HIGHEST) if low < HIGHEST else None
        case ("slt", False) if left:
            return low, HIGHEST
        case ("slt", False):
            return LOWEST, high
        case ("sle", True) if left:
            return LOWEST, high
        case ("sle", True):
            return low, HIGHEST
        case ("sle", False) if left:
            return (low + 1, HIGHEST) if low < HIGHEST else None
        case ("sle", False):
            return (LOWEST, high - 1) if high > LOWEST else None
        # Below a number that is not negative, a number without a sign has the same sign.
        case ("ult", True) if left and low >= 0:
            return 0, max(high - 1, 0)
        case ("ule", True) if left and low >= 0:
            return 0, high
        case ("ult", False) if not left and low >= 0:
            return 0, high
        case ("ule", False) if not left and low >= 0:
            return 0, max(high - 1, 0)
    return None


class Ranges:
    """The ranges of a function's numbers."""

    def __init__(self, function: Function) -> None:
        self._blocks = function.blocks()
        self._found: dict[Node, Range] = {}
        self._looks: dict[Node, int] = {}
        #: What branches say, by block: (condition, holds, left, right) of the way into it.
        self._says: dict[Block, tuple[str, bool, Node, Node]] = {}
        self._dominance = Dominance(self._blocks)
        #: The blocks that are reached by a branch on each number.
        self._places: dict[Node, list[Block]] = {}
        self._gather()
        self._settle()

    def _gather(self) -> None:
        for block in self._blocks:
            if len(block.before) != 1:
                continue
            finish = block.before[0].finish
            if finish.kind != "branch":
                continue
            left, right = finish.arguments
            self._says[block] = (finish.condition, finish.targets[0] is block, left, right)
            for side in {left, right}:
                if side.op != "const":
                    self._places.setdefault(side, []).append(block)

    def _known(self, node: Node, block: Block) -> list[Block]:
        """The blocks on the way to this one whose branches say something of a number."""
        dominates = self._dominance.dominates
        return [place for place in self._places.get(node, ()) if dominates(place, block)]

    def of(self, node: Node, block: Block) -> Range:
        """What a number can be in a block."""
        found = FULL if node.op != "const" else (signed(node.imm), signed(node.imm))
        if node.op == "const":
            return found
        found = self._found.get(node, FULL)
        for place in self._known(node, block):
            condition, holds, left, right = self._says[place]
            other = right if left is node else left
            if left is right:
                continue
            found = self._told(found, condition, holds, other, left=left is node)
        return found

    def _told(self, found: Range, condition: str, holds: bool, other: Node, *, left: bool) -> Range:
        """A range with what a branch says of it."""
        against = self._plain(other)
        if condition in ("ult", "ule") and found[0] >= 0 and against[0] >= 0:
            condition = "s" + condition[1:]
        told = implied(condition, holds, against, left=left)
        if told is not None:
            found = meet(found, told)
        return self._trim(found, condition, holds, other)

    def excludes(self, node: Node, block: Block, value: int) -> bool:
        """Whether a number is known not to be `value` in a block, though its range has it."""
        for place in self._known(node, block):
            condition, holds, left, right = self._says[place]
            other = right if left is node else left
            unequal = (condition, holds) in (("eq", False), ("ne", True))
            if unequal and other.op == "const" and signed(other.imm) == value:
                return True
        return False

    def _trim(self, found: Range, condition: str, holds: bool, other: Node) -> Range:
        """Take an excluded number off the end of a range."""
        if (condition, holds) in (("eq", False), ("ne", True)) and other.op == "const":
            value = signed(other.imm)
            low, high = found
            if low < high:
                return (low + (value == low), high - (value == high))
        return found

    def _plain(self, node: Node) -> Range:
        if node.op == "const":
            return signed(node.imm), signed(node.imm)
        return self._found.get(node, FULL)

    def _settle(self) -> None:
        """Go over all numbers until nothing changes."""
        bottom: set[Node] = {node for block in self._blocks for node in (*block.phis, *block.nodes)}
        changed = True
        while changed:
            changed = False
            for block in self._blocks:
                for phi in block.phis:
                    parts = [
                        self._on_the_way(argument, source, block)
                        for argument, source in zip(phi.arguments, phi.sources, strict=True)
                        if argument not in bottom
                    ]
                    if parts:
                        low, high = min(p[0] for p in parts), max(p[1] for p in parts)
                        changed |= self._note(phi, (low, high), bottom)
                for node in block.nodes:
                    changed |= self._note(node, self._transfer(node, block), bottom)

    def _on_the_way(self, node: Node, source: Block, target: Block) -> Range:
        """What a number can be on the way from one block to another."""
        found = self.of(node, source)
        finish = source.finish
        if finish.kind == "branch" and node in finish.arguments and node.op != "const":
            left, right = finish.arguments
            other = right if left is node else left
            holds = finish.targets[0] is target
            found = self._told(found, finish.condition, holds, other, left=left is node)
        return found

    def _note(self, node: Node, now: Range, bottom: set[Node]) -> bool:
        if node in bottom:
            bottom.discard(node)
            self._found[node] = now
            return True
        old = self._found[node]
        low, high = min(old[0], now[0]), max(old[1], now[1])
        if (low, high) == old:
            return False
        looks = self._looks[node] = self._looks.get(node, 0) + 1
        if looks > _MOST_LOOKS:
            if low < old[0]:
                low = 0 if low >= 0 else LOWEST
            if high > old[1]:
                high = next(step for step in _STEPS if high <= step)
        self._found[node] = low, high
        return True

    def _transfer(self, node: Node, block: Block) -> Range:
        """What an operation can give."""
        ranges = [self.of(argument, block) for argument in node.arguments[:2]]
        found = transfer(node, ranges)
        return found if found[0] >= LOWEST and found[1] <= HIGHEST else FULL


def transfer(node: Node, ranges: list[Range]) -> Range:
    """What an operation can give, for what its arguments can be."""
    match node.op:
        case "const":
            return signed(node.imm), signed(node.imm)
        case "load":
            size = node.imm[1]
            return (0, (1 << (8 * size)) - 1) if size < 8 else FULL
        case "swap":
            return (0, (1 << node.imm) - 1) if node.imm < 64 else FULL
        case "sext":
            edge = 1 << (node.imm - 1)
            return ranges[0] if fits(ranges[0], (-edge, edge - 1)) else (-edge, edge - 1)
        case "context" | "interface":
            return 0, 0xFFFFFFFF
        case "helper":
            return {"random": (0, 0xFFFFFFFF), "cpu": (0, 0xFFFF)}.get(node.imm, FULL)
        case "redirect" | "redirect_map":
            return 0, 4
        case "span":
            return -0x1_0000, 0xFFFFFFFF
    return _arithmetic(node.op, ranges)


def fits(inner: Range, outer: Range) -> bool:
    """Whether one range lies within another."""
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def _arithmetic(op: str, ranges: list[Range]) -> Range:
    if len(ranges) < 2:
        return FULL
    (a, b), (c, d) = ranges
    match op:
        case "add":
            return a + c, b + d
        case "sub":
            return a - d, b - c
        case "mul":
            corners = (a * c, a * d, b * c, b * d)
            return min(corners), max(corners)
        case "div":
            if a >= 0 and c >= 0:
                return (a // max(d, 1) if c > 0 else 0), b // max(c, 1)
            return (0, ((1 << 64) - 1) // c) if c > 1 else FULL
        case "mod":
            if c > 0:
                return 0, min(b, d - 1) if a >= 0 else d - 1
            return (0, b) if a >= 0 else FULL
        case "floor" if c > 0:
            corners = (a // c, a // d, b // c, b // d)
            return min(corners), max(corners)
        case "and" if a >= 0 or c >= 0:
            return 0, min(high for low, high in ranges if low >= 0)
        case "or" | "xor" if a >= 0 and c >= 0:
            return (max(a, c) if op == "or" else 0), (1 << max(b, d).bit_length()) - 1
        case "shl" if c >= 0 and d < 64:
            corners = (a << c, a << d, b << c, b << d)
            return min(corners), max(corners)
        case "shr" if c >= 0 and d < 64:
            if a >= 0:
                return a >> d, b >> c
            return (0, (1 << (64 - c)) - 1) if c > 0 else FULL
        case "sar" if c >= 0 and d < 64:
            corners = (a >> c, a >> d, b >> c, b >> d)
            return min(corners), max(corners)
    return FULL
