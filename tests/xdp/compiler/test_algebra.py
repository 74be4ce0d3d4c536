"""Ranges, simplifications and conditions agree with arithmetic on the numbers themselves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from millrace.xdp.compiler import numbers
from millrace.xdp.compiler.checksums import _Change, _Writer
from millrace.xdp.compiler.conditions import Condition, Conditions
from millrace.xdp.compiler.graph import Sum
from millrace.xdp.compiler.kinds import INT, U64
from millrace.xdp.compiler.ranges import FULL, HIGHEST, LOWEST, implied, meet, transfer
from millrace.xdp.compiler.simplify import MOST, Simplifier, compute, swapped
from millrace.xdp.compiler.ssa import Block, Function, Node
from millrace.xdp.compiler.thread import decide, signed

INTERESTING = [0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF,
               0x80000000, 0xFFFFFFFF, 1 << 32, HIGHEST, 1 << 63, MOST, MOST - 1]  # fmt: skip
words = st.one_of(st.sampled_from(INTERESTING), st.integers(0, MOST))
OPS = ["add", "sub", "mul", "div", "mod", "and", "or", "xor", "shl", "shr", "sar", "floor"]
CONDITIONS = ["eq", "ne", "ult", "ule", "slt", "sle", "test"]


def around(value: int, low: int, high: int) -> tuple[int, int]:
    """A range that holds a number."""
    number = signed(value)
    return max(LOWEST, number - low), min(HIGHEST, number + high)


@given(st.sampled_from(OPS), words, words, *[st.integers(0, 1 << 20)] * 4)
def test_range_of_a_result_holds_it(
    op: str, left: int, right: int, a: int, b: int, c: int, d: int
) -> None:
    if op == "floor":
        assume(signed(right) > 0)
    result = compute(op, left, right)
    assert result is not None
    ranges = [around(left, a, b), around(right, c, d)]
    low, high = transfer(Node(op, [Node("const", imm=left)] * 2), ranges)
    if low >= LOWEST and high <= HIGHEST:
        assert low <= signed(result) <= high, (op, ranges)


@given(st.sampled_from(CONDITIONS), words, words, st.booleans(), st.integers(0, 1 << 20))
def test_what_a_branch_says_is_true(
    condition: str, left: int, right: int, of_left: bool, width: int
) -> None:
    holds = decide(condition, left, right)
    this, other = (left, right) if of_left else (right, left)
    told = implied(condition, holds, around(other, width, width), left=of_left)
    if told is not None:
        assert told[0] <= signed(this) <= told[1]


def test_meet_of_what_excludes_itself() -> None:
    assert meet((0, 5), (3, 9)) == (3, 5)
    assert meet((0, 1), (5, 9)) == (0, 1)


class Bench:
    """Runs nodes that a simplifier makes."""

    def __init__(self) -> None:
        self.values: dict[Node, int] = {}

    def make(self, op: str, *arguments: Node, imm: Any = None) -> Node:
        node = Node(op, arguments, imm)
        self.values[node] = self.of(node)
        return node

    def of(self, node: Node) -> int:
        if node in self.values:
            return self.values[node]
        if node.op == "const":
            return int(node.imm)
        inner = [self.of(argument) for argument in node.arguments]
        if node.op == "swap":
            return swapped(inner[0], node.imm)
        if node.op == "sext":
            low = inner[0] & ((1 << node.imm) - 1)
            return (low - ((low >> (node.imm - 1)) << node.imm)) & MOST
        result = compute(node.op, *inner)
        assert result is not None
        return result


@st.composite
def expressions(draw: Any, depth: int = 3) -> Any:
    """Shapes of expressions: numbers, and operations on shapes."""
    if depth == 0 or draw(st.booleans()):
        return draw(words), draw(st.booleans())
    op = draw(st.sampled_from([*OPS[:-1], "swap", "sext"]))
    if op in ("swap", "sext"):
        bits = draw(st.sampled_from([16, 32, 64] if op == "swap" else [8, 16, 32]))
        return op, bits, draw(expressions(depth - 1))
    return op, draw(expressions(depth - 1)), draw(expressions(depth - 1))


def built(shape: Any, bench: Bench) -> Node:
    """The node of a shape; what is no constant is an opaque number."""
    if isinstance(shape[0], int):
        value, constant = shape
        node = Node("const" if constant else "argument", imm=value)
        bench.values[node] = value
        return node
    if shape[0] in ("swap", "sext"):
        return bench.make(shape[0], built(shape[2], bench), imm=shape[1])
    return bench.make(shape[0], built(shape[1], bench), built(shape[2], bench))


@given(expressions(), st.booleans())
def test_simpler_forms_mean_the_same(shape: Any, exact: bool) -> None:
    bench = Bench()
    node = built(shape, bench)
    wanted = bench.of(node)

    def range_of(asked: Node) -> tuple[int, int]:
        number = signed(bench.of(asked))
        return (number, min(HIGHEST, number + 9)) if exact else FULL

    simplifier = Simplifier(range_of, bench.make)
    for _ in range(12):
        simpler = simplifier.simplify(node)
        if simpler is None:
            break
        node = simpler
        assert bench.of(node) == wanted


@given(st.sampled_from(CONDITIONS), expressions(2), expressions(1), st.booleans())
def test_simpler_conditions_mean_the_same(name: str, first: Any, second: Any, exact: bool) -> None:
    bench = Bench()
    left, right = built(first, bench), built(second, bench)
    wanted = decide(name, bench.of(left), bench.of(right))

    def range_of(asked: Node) -> tuple[int, int]:
        number = signed(bench.of(asked))
        return (max(LOWEST, number - 3), number) if exact else FULL

    found = Condition(name, left, right)
    outcome = Conditions(range_of, bench.make).simplify(found)
    if outcome is not None:
        assert outcome == wanted
    else:
        holds = decide(found.name, bench.of(found.left), bench.of(found.right))
        assert holds != found.turned if wanted else holds == found.turned


@given(
    st.integers(0, 0xFFFE),
    st.lists(
        st.tuples(st.sampled_from([(1, 1), (1, 256), (2, 1), (4, 1), (8, 1)]), words, words),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
    st.booleans(),
)
def test_code_of_a_checksum_is_its_arithmetic(
    old: int, changes: Any, constant: bool, canonical: bool
) -> None:
    bench, function = Bench(), Function(Block(), [])
    arguments, total = [], old
    for (size, weight), before, after in changes:
        cut = [value & ((1 << 8 * size) - 1) for value in (before, after)]
        for value in cut:
            node = Node("const" if constant else "argument", imm=value)
            bench.values[node] = value
            arguments.append(node)
        total += (cut[0] - cut[1]) * weight
    pairs = tuple(kind for kind, _, _ in changes)
    pointer = Node("argument")
    node = Node("checksum", [pointer, pointer, *arguments], Sum(10, not canonical, pairs, "net"))
    change = _Change.of(node)
    held = Node("argument", imm=old)
    bench.values[held] = old
    writer = _Writer(function, [], Block(), 0)
    result = bench.of(writer.changed(held, change, canonical=canonical)) & 0xFFFF
    wanted = total % 0xFFFF
    if canonical:
        assert result == wanted
    elif old or total != old:
        assert result % 0xFFFF == wanted
        assert old == 0 or result != 0


@given(st.sampled_from(["+", "-", "*", "//", "%", "&", "|", "^", "<<", ">>"]), *[words] * 2,
       *[st.integers(0, 1 << 20)] * 4)  # fmt: skip
def test_bounds_of_the_frontend_hold(
    operator: str, left: int, right: int, a: int, b: int, c: int, d: int
) -> None:
    for kind in (INT, U64):
        x, y = (numbers.wrap(value, kind) for value in (left, right))
        if operator in ("<<", ">>"):
            y %= 65
        exact = numbers.fold(operator, x, y)
        if exact is None:
            continue
        lowest, highest = numbers.full(kind)
        first = (max(lowest, x - a), min(highest, x + b))
        second = (max(0 if operator in ("<<", ">>") else lowest, y - c), min(highest, y + d))
        low, high = numbers.bounds(operator, first, second, kind)
        assert low <= numbers.wrap(exact, kind) <= high


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_swap_turns_bytes(bits: int) -> None:
    data = bytes(range(1, bits // 8 + 1))
    assert swapped(int.from_bytes(data, "little"), bits) == int.from_bytes(data, "big")
