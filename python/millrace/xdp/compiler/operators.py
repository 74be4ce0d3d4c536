"""Arithmetic, conversions and conditions: from Python's operators to the typed tree."""

from __future__ import annotations

import ast
from collections.abc import Callable

from millrace.xdp.compiler import numbers, tree
from millrace.xdp.compiler.conversions import (
    flag,
    part_of,
    to_number,
)
from millrace.xdp.compiler.kinds import (
    ADDRESSES,
    BOOL,
    INT,
    IPV4,
    MAC,
    NUMBERS,
    U64,
    VERDICT,
    HeaderKind,
    Kind,
    RegionKind,
    StaticKind,
    TupleKind,
    join,
)
from millrace.xdp.compiler.session import Scope, number_constant
from millrace.xdp.compiler.source import Place
from millrace.xdp.types import MAC as MAC_TYPE

OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.LShift: "<<",
    ast.RShift: ">>",
    ast.Pow: "**",
}
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}


class Operators:
    """What operators make of expressions; `Expressions` knows all forms of those."""

    def __init__(self, scope: Scope, call: Callable[..., tree.Call]) -> None:
        self.scope = scope
        #: Compiles a call in place; `frontend` knows how.
        self.call_function = call

    def expression(self, node: ast.expr) -> tree.Expression:
        """Any expression."""
        raise NotImplementedError

    def place(self, node: ast.AST) -> Place:
        return self.scope.source.place(node)

    def number(self, node: ast.expr, what: str = "this") -> tree.Expression:
        """An expression that must be a number."""
        return self.as_number(self.expression(node), what)

    def as_number(self, value: tree.Expression, what: str = "this") -> tree.Expression:
        """A number; refuses what is none."""
        if value.kind in NUMBERS:
            return value
        hint = ""
        if value.kind in (IPV4, MAC):
            hint = "; write int(...) to compute with an address"
        elif isinstance(value.kind, HeaderKind):
            hint = "; name one of its fields"
        value.at.refuse(f"{what} must be a number, and it is {value.kind}{hint}")

    def condition(self, node: ast.expr) -> tree.Expression:
        """An expression whose truth is wanted."""
        return self.truth(self.expression(node))

    def truth(self, value: tree.Expression) -> tree.Expression:
        """The truth of a value, as Python sees it."""
        if value.kind == BOOL:
            return value
        if isinstance(value, tree.Constant) and value.kind in (INT, U64):
            number = int(value.value != 0)
            return tree.Constant(value.at, BOOL, value=number, low=number, high=number)
        if value.kind in NUMBERS:
            zero = tree.Constant(value.at, value.kind, value=0, low=0, high=0)
            return flag(
                tree.Compare(value.at, BOOL, operator="!=", left=value, right=zero, unsigned=True)
            )
        if isinstance(value.kind, HeaderKind):
            return flag(tree.Present(value.at, BOOL, header=value.kind.name, source=value))
        value.at.refuse(f"{value.kind} has no truth value here; compare it with something")

    def conditional(self, node: ast.IfExp, at: Place) -> tree.Expression:
        condition = self.condition(node.test)
        then, otherwise = self.expression(node.body), self.expression(node.orelse)
        then, otherwise = self.unify(then, otherwise, at)
        return tree.Conditional(
            at,
            then.kind,
            condition=condition,
            then=then,
            otherwise=otherwise,
            low=min(then.low, otherwise.low),
            high=max(then.high, otherwise.high),
        )

    def unify(
        self, first: tree.Expression, second: tree.Expression, at: Place
    ) -> tuple[tree.Expression, tree.Expression]:
        """Two values as the same kind."""
        for a, b in ((first, second), (second, first)):
            if a.kind in ADDRESSES and isinstance(b, (tree.Static, tree.Constant)):
                converted = self.coerce(b, a.kind)
                return (a, converted) if a is first else (converted, a)
        kind = join(first.kind, second.kind)
        if kind is None or isinstance(kind, (HeaderKind, RegionKind, StaticKind)):
            at.refuse(
                f"one side is {first.kind} and the other {second.kind}; both must be of a kind"
            )
        return self.coerce(first, kind), self.coerce(second, kind)

    def coerce(self, value: tree.Expression, kind: Kind) -> tree.Expression:
        """A value as one of another kind; refuses what has no meaning there."""
        if value.kind == kind:
            return value
        at = value.at
        if kind in NUMBERS and value.kind in NUMBERS:
            return to_number(value, kind)
        if kind in ADDRESSES and isinstance(value, tree.Static):
            return self._address_constant(value, kind)
        if kind in (IPV4, MAC) and isinstance(value, tree.Constant) and value.kind in (INT, U64):
            return self._address_constant(tree.Static(at, value.kind, value=value.value), kind)
        if kind == IPV4 and value.kind in NUMBERS:
            return tree.ToAddress(at, IPV4, operand=value)
        if (
            isinstance(kind, TupleKind)
            and isinstance(value.kind, TupleKind)
            and len(kind.parts) == len(value.kind.parts)
        ):
            parts = [self.coerce(part_of(value, i), part) for i, part in enumerate(kind.parts)]
            return tree.TupleOf(at, kind, parts=parts)
        number = value.value if isinstance(value, tree.Constant) else -1
        if kind == VERDICT and value.kind in NUMBERS and 0 <= number <= 4:
            return tree.Constant(at, VERDICT, value=number, low=0, high=4)
        if kind == VERDICT:
            at.refuse(
                f"this must be a verdict (PASS, DROP, TX, ABORTED or redirect), not {value.kind}"
            )
        if kind in NUMBERS:
            return self.as_number(value)
        at.refuse(f"this must be {kind}, and it is {value.kind}")

    def _address_constant(self, value: tree.Static, kind: Kind) -> tree.Constant:
        constant = value.value
        if kind == MAC:
            parse = MAC_TYPE
        else:
            from millrace.xdp.types import IPv4, IPv6

            parse = IPv4 if kind == IPV4 else IPv6
        try:
            return tree.Constant(value.at, kind, value=parse.number(constant))
        except (TypeError, ValueError) as error:
            value.at.refuse(f"this must be {kind}: {error}")

    # Arithmetic

    def binary(self, node: ast.BinOp, at: Place) -> tree.Expression:
        operator = OPERATORS.get(type(node.op))
        if operator is None:
            hint = "; write // for whole numbers" if isinstance(node.op, ast.Div) else ""
            at.refuse(f"this operator has no meaning in a program{hint}")
        left, right = self.number(node.left), self.number(node.right)
        if not isinstance(right, tree.Constant):
            return self.arithmetic(operator, left, right, at)
        # What a call gives a parameter is computed as in the kernel; what stands in the source must
        # make sense there.
        literal = not any(
            isinstance(inner, ast.Name)
            and isinstance(self.scope.constants.get(inner.id), tree.Constant)
            for side in (node.left, node.right)
            if isinstance(side, ast.Name | ast.BinOp | ast.UnaryOp | ast.Call)
            for inner in ast.walk(side)
        )
        return self.arithmetic(operator, left, right, at, literal=literal)

    def arithmetic(
        self,
        operator: str,
        left: tree.Expression,
        right: tree.Expression,
        at: Place,
        *,
        literal: bool = True,
    ) -> tree.Expression:
        """An operation on two numbers."""
        if literal and isinstance(left, tree.Constant) and isinstance(right, tree.Constant):
            return self._folded(operator, left, right, at)
        if operator == "**":
            at.refuse("** takes two constants; write the multiplication out")
        shift = operator in ("<<", ">>")
        kind = U64 if U64 in ((left.kind,) if shift else (left.kind, right.kind)) else INT
        left = self.coerce(left, kind)
        if not shift:
            right = self.coerce(right, kind)
        elif right.kind == BOOL:
            right = self.coerce(right, INT)
        if literal and isinstance(right, tree.Constant):
            if operator in ("//", "%") and right.value == 0:
                right.at.refuse("this divides by zero")
            if shift and right.value < 0:
                right.at.refuse("a shift count must not be negative")
        low, high = numbers.bounds(operator, (left.low, left.high), (right.low, right.high), kind)
        certain = isinstance(left, tree.Constant) and isinstance(right, tree.Constant)
        if certain and low == high:
            return tree.Constant(at, kind, value=low, low=low, high=high)
        return tree.Binary(at, kind, operator=operator, left=left, right=right, low=low, high=high)

    def _folded(
        self, operator: str, left: tree.Constant, right: tree.Constant, at: Place
    ) -> tree.Expression:
        result = numbers.fold(operator, left.value, right.value)
        if result is None and operator in ("//", "%") and right.value == 0:
            right.at.refuse("this divides by zero")
        if result is None and operator in ("<<", ">>") and right.value < 0:
            right.at.refuse("a shift count must not be negative")
        if result is None:
            at.refuse(f"Python cannot compute {left.value} {operator} {right.value} in 64 bits")
        if U64 in (left.kind, right.kind):
            result = numbers.wrap(result, U64)
            return tree.Constant(at, U64, value=result, low=result, high=result)
        return number_constant(result, at)

    def unary(self, node: ast.UnaryOp, at: Place) -> tree.Expression:
        if isinstance(node.op, ast.Not):
            operand = self.condition(node.operand)
            if isinstance(operand, tree.Constant):
                value = 1 - operand.value
                return tree.Constant(at, BOOL, value=value, low=value, high=value)
            return flag(tree.Not(at, BOOL, operand=operand))
        operand = self.number(node.operand)
        if isinstance(node.op, ast.UAdd):
            return self.coerce(operand, INT) if operand.kind == BOOL else operand
        operator = "-" if isinstance(node.op, ast.USub) else "~"
        kind = U64 if operand.kind == U64 else INT
        if isinstance(operand, tree.Constant):
            result = -operand.value if operator == "-" else ~operand.value
            if kind == U64 and result >= tree.LOWEST and operator == "-":
                return number_constant(result, at)
            result = numbers.wrap(result, kind)
            return tree.Constant(at, kind, value=result, low=result, high=result)
        operand = self.coerce(operand, kind)
        low, high = (
            numbers.bounds("-", (0, 0), (operand.low, operand.high), kind)
            if operator == "-"
            else numbers.bounds("-", (-1, -1), (operand.low, operand.high), kind)
        )
        return tree.Unary(at, kind, operator=operator, operand=operand, low=low, high=high)

    # Conditions

    def logical(self, node: ast.BoolOp, at: Place) -> tree.Expression:
        operator = "and" if isinstance(node.op, ast.And) else "or"
        values = [self.expression(operand) for operand in node.values]
        kinds = {value.kind for value in values}
        if kinds & {VERDICT, *ADDRESSES}:
            at.refuse(f"{operator} takes conditions here; write `a if condition else b` to choose")
        return flag(
            tree.Logical(
                at, BOOL, operator=operator, operands=[self.truth(value) for value in values]
            )
        )

    def comparison(self, node: ast.Compare, at: Place) -> tree.Expression:
        parts: list[tree.Expression] = []
        left_node = node.left
        for operator, right_node in zip(node.ops, node.comparators, strict=True):
            if parts and _has_effect(left_node):
                self.place(left_node).refuse(
                    "what stands between two comparisons is evaluated once; put the call into a "
                    "variable first"
                )
            parts.append(self._compare(left_node, operator, right_node, at))
            left_node = right_node
        if len(parts) == 1:
            return parts[0]
        return flag(tree.Logical(at, BOOL, operator="and", operands=parts))

    def _compare(
        self, left_node: ast.expr, operator: ast.cmpop, right_node: ast.expr, at: Place
    ) -> tree.Expression:
        if isinstance(operator, (ast.In, ast.NotIn)):
            found = self.member(self.expression(left_node), right_node, at)
            return (
                flag(tree.Not(at, BOOL, operand=found))
                if isinstance(operator, ast.NotIn)
                else found
            )
        if isinstance(operator, (ast.Is, ast.IsNot)):
            at.refuse(
                "`is` compares objects, which a program has none of; write == or the header's "
                "name alone (`if pkt.udp`)"
            )
        sign = _COMPARISONS[type(operator)]
        left, right = self.expression(left_node), self.expression(right_node)
        for value in (left, right):
            if isinstance(value.kind, HeaderKind):
                value.at.refuse(f"compare a field of {value.kind.name}, not the header itself")
        left, right = self.unify(left, right, at)
        return self.compare(sign, left, right, at)

    def compare(
        self, sign: str, left: tree.Expression, right: tree.Expression, at: Place
    ) -> tree.Expression:
        """A comparison of two values of one kind."""
        if left.kind in ADDRESSES and sign not in ("==", "!="):
            at.refuse("addresses are equal or not; to compare by size write int(...) on both sides")
        if isinstance(left.kind, TupleKind):
            if sign not in ("==", "!="):
                at.refuse("tuples are equal or not; compare their parts by size")
            parts = [
                self.compare("==", part_of(left, i), part_of(right, i), at)
                for i in range(len(left.kind.parts))
            ]
            both = flag(tree.Logical(at, BOOL, operator="and", operands=parts))
            return both if sign == "==" else flag(tree.Not(at, BOOL, operand=both))
        if left.kind == BOOL:
            left, right = self.coerce(left, INT), self.coerce(right, INT)
        if isinstance(left, tree.Constant) and isinstance(right, tree.Constant):
            outcome = int(numbers.decide(sign, left.value, right.value))
            return tree.Constant(at, BOOL, value=outcome, low=outcome, high=outcome)
        unsigned = left.kind == U64
        return flag(
            tree.Compare(at, BOOL, operator=sign, left=left, right=right, unsigned=unsigned)
        )

    def member(self, left: tree.Expression, node: ast.expr, at: Place) -> tree.Expression:
        """`left in ...`."""
        raise NotImplementedError


def _has_effect(node: ast.expr) -> bool:
    return any(isinstance(inner, ast.Call) for inner in ast.walk(node))
