"""Conditions of branches: in one form for what means the same, and decided where that is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from millrace.xdp.compiler.ranges import FULL, HIGHEST, Range
from millrace.xdp.compiler.simplify import MOST, swapped
from millrace.xdp.compiler.ssa import Node
from millrace.xdp.compiler.thread import decide, signed


@dataclass
class Condition:
    """A condition, or what it always is."""

    name: str
    left: Node
    right: Node
    #: Its two ways are to change places.
    turned: bool = False


class Conditions:
    """Simplifies conditions; `range_of` and `make` as for `Simplifier`."""

    def __init__(self, range_of: Callable[[Node], Range], make: Callable[..., Node]) -> None:
        self._range = range_of
        self._make = make

    def simplify(self, found: Condition) -> bool | None:
        """Change a condition to its simplest form; returns its outcome where that is certain."""
        for _ in range(16):
            outcome = self._decided(found)
            if outcome is not None:
                return outcome != found.turned
            if not self._step(found):
                return None
        return None

    def _constant(self, value: int) -> Node:
        return self._make("const", imm=value & MOST)

    def _decided(self, found: Condition) -> bool | None:
        left, right = found.left, found.right
        if left.value is not None and right.value is not None:
            return decide(found.name, left.value, right.value)
        if left is right:
            return {
                "eq": True,
                "ule": True,
                "sle": True,
                "ne": False,
                "ult": False,
                "slt": False,
            }.get(found.name)
        if found.name in ("eq", "ne") and right.value == 0 and left.op == "value":
            return found.name == "ne"
        a, b = self._range(left), self._range(right)
        if a == FULL and b == FULL:
            return None
        return _by_range(found.name, a, b)

    def _step(self, found: Condition) -> bool:
        """One step towards the simplest form."""
        name, left, right = found.name, found.left, found.right
        if left.value is not None:
            found.left, found.right = right, left
            if name in ("ult", "ule", "slt", "sle"):
                # c < x is not (x <= c).
                other = {"ult": "ule", "ule": "ult", "slt": "sle", "sle": "slt"}
                found.name, found.turned = other[name], not found.turned
            return True
        if name == "ne":
            found.name, found.turned = "eq", not found.turned
            return True
        if name in ("slt", "sle") and self._range(left)[0] >= 0 and self._range(right)[0] >= 0:
            found.name = "u" + name[1:]
            return True
        constant = right.value
        if constant is None:
            return False
        if name == "eq":
            return self._equal(found, left, constant)
        if name == "test":
            return self._test(found, left, constant)
        return self._order(found, left, constant)

    def _order(self, found: Condition, left: Node, constant: int) -> bool:
        """x < c as x <= c - 1, and what only one number can be as equality."""
        if found.name == "ult" and constant > 0:
            found.name, found.right = "ule", self._constant(constant - 1)
            return True
        if found.name == "slt" and signed(constant) > -(1 << 63):
            found.name, found.right = "sle", self._constant(constant - 1)
            return True
        low, high = self._range(left)
        if found.name == "ule" and low >= 0:
            if constant == low:
                found.name = "eq"
                return True
            if constant == high - 1:
                found.name, found.right = "eq", self._constant(high)
                found.turned = not found.turned
                return True
        return False

    def _equal(self, found: Condition, left: Node, constant: int) -> bool:
        if left.op == "swap" and (left.imm == 64 or constant < 1 << left.imm):
            inner = left.arguments[0]
            if self._low_bits(inner, left.imm):
                found.left = inner
                found.right = self._constant(swapped(constant, left.imm))
                return True
        other = left.arguments[1].value if len(left.arguments) == 2 else None
        if other is None:
            return False
        if left.op == "add":
            found.left, found.right = left.arguments[0], self._constant(constant - other)
            return True
        if left.op == "xor":
            found.left, found.right = left.arguments[0], self._constant(constant ^ other)
            return True
        if left.op == "and":
            return self._masked(found, left.arguments[0], other, constant)
        if left.op == "shr" and constant << other <= MOST:
            kept = self._make("and", left.arguments[0], self._constant(MOST << other))
            found.left, found.right = kept, self._constant(constant << other)
            return True
        return False

    def _masked(self, found: Condition, inner: Node, mask: int, constant: int) -> bool:
        single = mask & (mask - 1) == 0
        if constant == 0 or (single and constant == mask):
            found.name, found.left, found.right = "test", inner, self._constant(mask)
            found.turned ^= constant == 0
            return True
        if inner.op == "swap" and mask >> inner.imm == 0 and constant >> inner.imm == 0:
            raw = inner.arguments[0]
            mask_node = self._constant(swapped(mask, inner.imm))
            found.left = self._make("and", raw, mask_node)
            found.right = self._constant(swapped(constant, inner.imm))
            return True
        return False

    def _test(self, found: Condition, left: Node, mask: int) -> bool:
        if left.op == "swap":
            mask &= (1 << left.imm) - 1
            found.left = left.arguments[0]
            found.right = self._constant(swapped(mask, left.imm))
            return True
        other = left.arguments[1].value if len(left.arguments) == 2 else None
        if left.op == "and" and other is not None:
            found.left, found.right = left.arguments[0], self._constant(mask & other)
            return True
        if left.op == "shr" and other is not None and other < 64 and mask << other <= MOST:
            found.left, found.right = left.arguments[0], self._constant(mask << other)
            return True
        low, high = self._range(left)
        everything = (1 << high.bit_length()) - 1
        if low >= 0 and mask & everything == everything:
            found.name, found.right = "eq", self._constant(0)
            found.turned = not found.turned
            return True
        return False

    def _low_bits(self, node: Node, bits: int) -> bool:
        """Whether a number has no bits but these."""
        low, high = self._range(node)
        return bits == 64 or (low >= 0 and high < 1 << bits)


def _by_range(name: str, left: Range, right: Range) -> bool | None:
    """The outcome that ranges leave no doubt of."""
    (a, b), (c, d) = left, right
    match name:
        case "eq" | "ne":
            if b < c or d < a:
                return name == "ne"
        case "slt":
            return True if b < c else False if a >= d else None
        case "sle":
            return True if b <= c else False if a > d else None
        case "ult" if a >= 0 and c >= 0:
            return True if b < c else False if a >= d else None
        case "ule" if a >= 0 and c >= 0:
            return True if b <= c else False if a > d else None
        case "ult" | "ule" if a >= 0 and d < 0:
            return True
        case "ult" | "ule" if b < 0 and c >= 0 and d <= HIGHEST:
            return False
        case "test" if left == (0, 0) or right == (0, 0):
            return False
    return None
