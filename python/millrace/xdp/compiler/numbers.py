"""Arithmetic while compiling: bounds of results, and results where both sides are constant."""

from __future__ import annotations

from collections.abc import Callable

from millrace.xdp.compiler.kinds import INT, U64, Kind
from millrace.xdp.compiler.tree import HIGHEST, LOWEST

Bounds = tuple[int, int]
MOST_UNSIGNED = (1 << 64) - 1


def full(kind: Kind) -> Bounds:
    """All that a number of this kind can be."""
    return (0, MOST_UNSIGNED) if kind == U64 else (LOWEST, HIGHEST)


def wrap(value: int, kind: Kind) -> int:
    """A number cut to 64 bits, with a sign for INT."""
    value &= MOST_UNSIGNED
    return value - (1 << 64) if kind == INT and value > HIGHEST else value


def fold(operator: str, left: int, right: int) -> int | None:
    """What Python makes of two constants; None where it raises or the result is absurdly large."""
    if operator in ("<<", "**") and (not 0 <= right <= 128 or abs(left).bit_length() > 128):
        return None
    operation = _OPERATIONS.get(operator)
    if operation is None:
        return None
    try:
        return operation(left, right)
    except (ZeroDivisionError, ValueError):
        return None


_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "<<": lambda a, b: a << b,
    ">>": lambda a, b: a >> b,
    "**": lambda a, b: a**b,
}


def bounds(operator: str, left: Bounds, right: Bounds, kind: Kind) -> Bounds:
    """What the result of an operation can be."""
    found = _bounds(operator, left, right)
    if found is None:
        return full(kind)
    lowest, highest = full(kind)
    return found if lowest <= found[0] and found[1] <= highest else (lowest, highest)


def _bounds(operator: str, left: Bounds, right: Bounds) -> Bounds | None:
    (a, b), (c, d) = left, right
    positive = a >= 0 and c >= 0
    match operator:
        case "+":
            return a + c, b + d
        case "-":
            return a - d, b - c
        case "*":
            corners = (a * c, a * d, b * c, b * d)
            return min(corners), max(corners)
        case "//" if c > 0:
            corners = (a // c, a // d, b // c, b // d)
            return min(corners), max(corners)
        case "%" if c > 0:
            return 0, min(b, d - 1) if a >= 0 else d - 1
        case "&" if a >= 0 or c >= 0:
            return 0, min(bound for low, bound in (left, right) if low >= 0)
        case "|" | "^" if positive:
            return 0, (1 << max(b, d).bit_length()) - 1
        case "<<" if c >= 0 and d <= 64:
            corners = (a << c, a << d, b << c, b << d)
            return min(corners), max(corners)
        case ">>" if c >= 0:
            c, d = min(c, 64), min(d, 64)
            corners = (a >> c, a >> d, b >> c, b >> d)
            return min(corners), max(corners)
    return None


def decide(sign: str, left: int, right: int) -> bool:
    """The outcome of a comparison of two constants."""
    return {
        "==": left == right,
        "!=": left != right,
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
    }[sign]
