"""Algebra: an operation as a simpler one that gives the same 64 bits."""

from __future__ import annotations

from collections.abc import Callable

from millrace.xdp import standin
from millrace.xdp.compiler.ranges import Range, fits
from millrace.xdp.compiler.ssa import Node
from millrace.xdp.compiler.thread import signed

MOST = (1 << 64) - 1
COMMUTATIVE = frozenset(("add", "mul", "and", "or", "xor"))

RangeOf = Callable[[Node], Range]
Make = Callable[..., Node]


def compute(op: str, left: int, right: int) -> int | None:
    """An operation on two constants."""
    match op:
        case "add":
            result = left + right
        case "sub":
            result = left - right
        case "mul":
            result = left * right
        case "and":
            result = left & right
        case "or":
            result = left | right
        case "xor":
            result = left ^ right
        case "div":
            result = left // right if right else 0
        case "mod":
            result = left % right if right else left
        case "floor" if right:
            result = signed(left) // signed(right)
        case "shl":
            result = left << (right & 63)
        case "shr":
            result = left >> (right & 63)
        case "sar":
            result = signed(left) >> (right & 63)
        case _:
            return None
    return result & MOST


def swapped(value: int, bits: int) -> int:
    """The low bits in the other byte order."""
    return int.from_bytes((value & ((1 << bits) - 1)).to_bytes(bits // 8, "little"), "big")


class Simplifier:
    """Simplifies one node at a time. `range_of` tells what a number can be where the node stands,
    and `make` gives a node before it.
    """

    def __init__(self, range_of: RangeOf, make: Make) -> None:
        self._range = range_of
        self._make = make

    def _constant(self, value: int) -> Node:
        return self._make("const", imm=value & MOST)

    def simplify(self, node: Node) -> Node | None:
        """What the node can be replaced by; None if it stays as it is."""
        match node.op:
            case "swap":
                return self._swap(node)
            case "sext":
                return self._extend(node)
            case "pconst":
                return self._moved(node)
            case "padd":
                return self._move(node)
            case "span":
                return self._span(node)
            case "lookup":
                return self._lookup(node)
        if len(node.arguments) == 2 and node.op in _RULES:
            return self._binary(node)
        return None

    def _binary(self, node: Node) -> Node | None:
        left, right = node.arguments
        a, b = left.value, right.value
        if a is not None and b is not None:
            result = compute(node.op, a, b)
            return None if result is None else self._constant(result)
        if node.op in COMMUTATIVE and a is not None:
            node.arguments = [right, left]
            left, right, b = right, left, a
        return _RULES[node.op](self, left, right, b)

    # What follows gets the two sides and the right one's value where it is constant.

    def _add(self, left: Node, right: Node, b: int | None) -> Node | None:
        if b == 0:
            return left
        if b is not None and left.op == "add" and left.arguments[1].op == "const":
            total = left.arguments[1].imm + b
            return self._make("add", left.arguments[0], self._constant(total))
        if b is not None and left.op == "sub" and left.arguments[0].op == "const":
            total = self._constant(left.arguments[0].imm + b)
            return self._make("sub", total, left.arguments[1])
        return None

    def _sub(self, left: Node, right: Node, b: int | None) -> Node | None:
        if left is right:
            return self._constant(0)
        if b is not None:
            return self._make("add", left, self._constant(-b))
        return self._remainder(left, right)

    def _remainder(self, left: Node, right: Node) -> Node | None:
        """a - a // b * b is a % b."""
        if right.op == "mul" and right.arguments[0].op == "div":
            divided, divisor = right.arguments[0].arguments
            if divided is left and divisor is right.arguments[1]:
                return self._make("mod", left, divisor)
        if right.op == "and" and right.arguments[0] is left:
            kept = right.arguments[1].value
            if kept is not None:
                return self._make("and", left, self._constant(~kept))
        return None

    def _mul(self, left: Node, right: Node, b: int | None) -> Node | None:
        if b == 0:
            return right
        if b == 1:
            return left
        if b is not None and b & (b - 1) == 0:
            return self._make("shl", left, self._constant(b.bit_length() - 1))
        return None

    def _div(self, left: Node, right: Node, b: int | None) -> Node | None:
        if b == 1:
            return left
        if b is not None and b > 0 and b & (b - 1) == 0:
            return self._make("shr", left, self._constant(b.bit_length() - 1))
        return None

    def _mod(self, left: Node, right: Node, b: int | None) -> Node | None:
        if b is not None and b > 0 and b & (b - 1) == 0:
            return self._make("and", left, self._constant(b - 1))
        low, high = self._range(left)
        if b is not None and low >= 0 and high < b:
            return left
        return None

    def _floor(self, left: Node, right: Node, b: int | None) -> Node | None:
        if self._range(left)[0] >= 0:
            return self._make("div", left, right)
        if b is not None and b & (b - 1) == 0 and 0 < b < 1 << 63:
            return self._make("sar", left, self._constant(b.bit_length() - 1))
        # For b > 0 and negative a, a // b is ~(~a // b).
        sign = self._make("sar", left, self._constant(63))
        turned = self._make("xor", left, sign)
        return self._make("xor", self._make("div", turned, right), sign)

    def _and(self, left: Node, right: Node, b: int | None) -> Node | None:
        if left is right:
            return left
        if b is None:
            return None
        if b == 0:
            return right
        low, high = self._range(left)
        if b & (b + 1) == 0 and low >= 0 and high <= b:
            return left
        if left.op == "and" and left.arguments[1].op == "const":
            mask = left.arguments[1].imm & b
            return self._make("and", left.arguments[0], self._constant(mask))
        return None

    def _or(self, left: Node, right: Node, b: int | None) -> Node | None:
        if b == 0 or left is right:
            return left
        return None

    def _xor(self, left: Node, right: Node, b: int | None) -> Node | None:
        if left is right:
            return self._constant(0)
        if b == 0:
            return left
        if b is not None and left.op == "xor" and left.arguments[1].op == "const":
            return self._make("xor", left.arguments[0], self._constant(left.arguments[1].imm ^ b))
        return None

    def _shl(self, left: Node, right: Node, b: int | None) -> Node | None:
        if b == 0:
            return left
        if b is None:
            return None
        if left.op in ("shr", "sar") and left.arguments[1].value == b:
            return self._make("and", left.arguments[0], self._constant(MOST << b))
        if left.op == "shl" and left.arguments[1].value is not None:
            total = left.arguments[1].value + b
            if total < 64:
                return self._make("shl", left.arguments[0], self._constant(total))
        return None

    def _shr(self, left: Node, right: Node, b: int | None) -> Node | None:
        if b == 0:
            return left
        if b is not None and left.op == "shr" and left.arguments[1].value is not None:
            total = left.arguments[1].value + b
            if total < 64:
                return self._make("shr", left.arguments[0], self._constant(total))
        if b is not None:
            low, high = self._range(left)
            if low >= 0 and high >> b == 0:
                return self._constant(0)
        return None

    def _sar(self, left: Node, right: Node, b: int | None) -> Node | None:
        if self._range(left)[0] >= 0:
            return self._make("shr", left, right)
        return left if b == 0 else None

    # One argument

    def _swap(self, node: Node) -> Node | None:
        (argument,) = node.arguments
        bits = node.imm
        if argument.value is not None:
            return self._constant(swapped(argument.value, bits))
        if argument.op == "swap" and argument.imm == bits:
            mask = self._constant((1 << bits) - 1)
            return self._make("and", argument.arguments[0], mask)
        inner = argument.arguments[0] if argument.op == "and" else None
        if inner is not None:
            # Only the low bits are looked at.
            mask_value = argument.arguments[1].value
            low_bits = (1 << bits) - 1
            if mask_value is not None and mask_value & low_bits == low_bits:
                return self._make("swap", inner, imm=bits)
        return None

    def _extend(self, node: Node) -> Node | None:
        (argument,) = node.arguments
        edge = 1 << (node.imm - 1)
        if argument.value is not None:
            low = argument.value & (2 * edge - 1)
            return self._constant(low - 2 * edge if low >= edge else low)
        if fits(self._range(argument), (-edge, edge - 1)):
            return argument
        if argument.op == "sext" and argument.imm >= node.imm:
            return self._make("sext", argument.arguments[0], imm=node.imm)
        return None

    # Pointers

    def _moved(self, node: Node) -> Node | None:
        (pointer,) = node.arguments
        if node.imm == 0:
            return pointer
        if pointer.op == "pconst":
            return self._make("pconst", pointer.arguments[0], imm=pointer.imm + node.imm)
        return None

    def _move(self, node: Node) -> Node | None:
        pointer, by = node.arguments
        if by.value is not None:
            return self._make("pconst", pointer, imm=signed(by.value))
        if by.op == "add" and by.arguments[1].value is not None:
            # The constant goes to where it costs nothing, if the sum cannot wrap.
            low, high = self._range(by.arguments[0])
            fixed = signed(by.arguments[1].value)
            if 0 <= low <= high <= 0xFFFF and 0 <= fixed <= 0x3FFF:
                moved = self._make("padd", pointer, by.arguments[0])
                return self._make("pconst", moved, imm=fixed)
        if pointer.op == "pconst":
            moved = self._make("padd", pointer.arguments[0], by)
            return self._make("pconst", moved, imm=pointer.imm)
        return None

    def _span(self, node: Node) -> Node | None:
        end, pointer = node.arguments
        if pointer.op == "pconst":
            span = self._make("span", end, pointer.arguments[0])
            return self._make("add", span, self._constant(-pointer.imm))
        return None

    def _lookup(self, node: Node) -> Node | None:
        used = node.imm.map
        index = node.arguments[0].value
        # The kernel gives away the address of an array's value only where it is the only one.
        if used.kind == standin.ARRAY and used.entries == 1 and index == 0:
            return self._make("value", imm=used)
        return None


_RULES: dict[str, Callable[[Simplifier, Node, Node, int | None], Node | None]] = {
    "add": Simplifier._add,
    "sub": Simplifier._sub,
    "mul": Simplifier._mul,
    "div": Simplifier._div,
    "mod": Simplifier._mod,
    "floor": Simplifier._floor,
    "and": Simplifier._and,
    "or": Simplifier._or,
    "xor": Simplifier._xor,
    "shl": Simplifier._shl,
    "shr": Simplifier._shr,
    "sar": Simplifier._sar,
}
