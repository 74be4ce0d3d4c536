"""Expressions: from Python's syntax tree to the typed tree. Statements are in `frontend`."""

from __future__ import annotations

import ast
import ipaddress
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

from millrace.xdp import builtins as provided
from millrace.xdp import headers
from millrace.xdp.compiler import numbers, tree
from millrace.xdp.compiler.kinds import (
    ADDRESSES,
    BOOL,
    BY_NAME,
    INT,
    IPV4,
    IPV6,
    MAC,
    NUMBERS,
    PACKET,
    U64,
    VERDICT,
    HeaderKind,
    Kind,
    RegionKind,
    StaticKind,
    TupleKind,
    join,
)
from millrace.xdp.compiler.session import Scope, close, number_constant
from millrace.xdp.compiler.source import Place
from millrace.xdp.maps import Counter, Map, RedirectMap
from millrace.xdp.types import MAC as MAC_TYPE
from millrace.xdp.types import Address, Integer, Tuple, Type
from millrace.xdp.verdict import PASS, Verdict

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
#: Widths in bytes of the methods that read and write bytes.
RAW_SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}
CONTEXT = {"ifindex": 0xFFFFFFFF, "queue": 0xFFFFFFFF}
#: The kernel takes larger offsets into a packet for nonsense; frames of one buffer are shorter.
MOST_OFFSET = 0x3FFF

_REFUSED: dict[type[ast.expr], str] = {
    ast.Lambda: "write a function with def at the level of the module and call it",
    ast.Dict: "use a map: Hash(key, value) at the level of the module",
    ast.ListComp: "write a for loop",
    ast.SetComp: "write a for loop",
    ast.DictComp: "write a for loop",
    ast.GeneratorExp: "write a for loop",
    ast.Await: "a program never waits",
    ast.Yield: "a program never waits",
    ast.YieldFrom: "a program never waits",
    ast.JoinedStr: "a program has no text; count in a map and read it from Python",
    ast.NamedExpr: "assign in a statement of its own",
    ast.Starred: "write the values out",
    ast.List: "use a tuple, or an Array map for what changes",
    ast.Set: "use a tuple",
}


class Expressions:
    """The expressions of one function."""

    def __init__(self, scope: Scope, call: Callable[..., tree.Call]) -> None:
        self.scope = scope
        #: Compiles a call in place; `frontend` knows how.
        self._call_function = call

    def place(self, node: ast.AST) -> Place:
        return self.scope.source.place(node)

    # Forms

    def expression(self, node: ast.expr) -> tree.Expression:
        """Any expression."""
        at = self.place(node)
        self.scope.session.count(at)
        match node:
            case ast.Constant(value=value):
                return self.scope.static(value, at)
            case ast.Name(id=name):
                return self.scope.name(name, at)
            case ast.Attribute():
                return self._attribute(node, at)
            case ast.BinOp():
                return self._binary(node, at)
            case ast.UnaryOp():
                return self._unary(node, at)
            case ast.BoolOp():
                return self._logical(node, at)
            case ast.Compare():
                return self._comparison(node, at)
            case ast.IfExp():
                return self._conditional(node, at)
            case ast.Tuple(elts=elements):
                return self._tuple(elements, at)
            case ast.Subscript():
                return self._subscript(node, at)
            case ast.Call():
                return self._call(node, at)
        what = type(node).__name__
        hint = _REFUSED.get(type(node), "it is not part of what a program can be")
        at.refuse(f"{what} cannot be compiled; {hint}")

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
            return _flag(
                tree.Compare(value.at, BOOL, operator="!=", left=value, right=zero, unsigned=True)
            )
        if isinstance(value.kind, HeaderKind):
            return _flag(tree.Present(value.at, BOOL, header=value.kind.name, source=value))
        value.at.refuse(f"{value.kind} has no truth value here; compare it with something")

    def _conditional(self, node: ast.IfExp, at: Place) -> tree.Expression:
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
            return _to_number(value, kind)
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

    def _binary(self, node: ast.BinOp, at: Place) -> tree.Expression:
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

    def _unary(self, node: ast.UnaryOp, at: Place) -> tree.Expression:
        if isinstance(node.op, ast.Not):
            operand = self.condition(node.operand)
            if isinstance(operand, tree.Constant):
                value = 1 - operand.value
                return tree.Constant(at, BOOL, value=value, low=value, high=value)
            return _flag(tree.Not(at, BOOL, operand=operand))
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

    def _logical(self, node: ast.BoolOp, at: Place) -> tree.Expression:
        operator = "and" if isinstance(node.op, ast.And) else "or"
        values = [self.expression(operand) for operand in node.values]
        kinds = {value.kind for value in values}
        if kinds & {VERDICT, *ADDRESSES}:
            at.refuse(f"{operator} takes conditions here; write `a if condition else b` to choose")
        return _flag(
            tree.Logical(
                at, BOOL, operator=operator, operands=[self.truth(value) for value in values]
            )
        )

    def _comparison(self, node: ast.Compare, at: Place) -> tree.Expression:
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
        return _flag(tree.Logical(at, BOOL, operator="and", operands=parts))

    def _compare(
        self, left_node: ast.expr, operator: ast.cmpop, right_node: ast.expr, at: Place
    ) -> tree.Expression:
        if isinstance(operator, (ast.In, ast.NotIn)):
            found = self._member(self.expression(left_node), right_node, at)
            return (
                _flag(tree.Not(at, BOOL, operand=found))
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
            both = _flag(tree.Logical(at, BOOL, operator="and", operands=parts))
            return both if sign == "==" else _flag(tree.Not(at, BOOL, operand=both))
        if left.kind == BOOL:
            left, right = self.coerce(left, INT), self.coerce(right, INT)
        if isinstance(left, tree.Constant) and isinstance(right, tree.Constant):
            outcome = int(numbers.decide(sign, left.value, right.value))
            return tree.Constant(at, BOOL, value=outcome, low=outcome, high=outcome)
        unsigned = left.kind == U64
        return _flag(
            tree.Compare(at, BOOL, operator=sign, left=left, right=right, unsigned=unsigned)
        )

    def _member(self, left: tree.Expression, node: ast.expr, at: Place) -> tree.Expression:
        """`left in ...`."""
        if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
            elements = [self.expression(element) for element in node.elts]
        elif isinstance(node, ast.Call) and self._names_range(node):
            elements = [self._constant_range(node)]
        else:
            right = self.expression(node)
            if isinstance(right, tree.Static) and isinstance(right.value, Map):
                if isinstance(right.value, (Counter,)) or right.value.is_array:
                    at.refuse("an array has all its indices; compare with len(...) instead")
                key = self.map_key(right.value, left)
                return _flag(tree.MapHas(at, BOOL, map=right.value, key=key))
            if not isinstance(right, tree.Static):
                right.at.refuse(
                    f"`in` takes constants, networks, ranges and maps, not {right.kind}"
                )
            value = right.value
            many = isinstance(value, (tuple, list, set, frozenset))
            elements = [
                self.scope.static(element, right.at)
                for element in (
                    sorted(value, key=repr)
                    if isinstance(value, (set, frozenset))
                    else value
                    if many
                    else [value]
                )
            ]
        if left.kind in NUMBERS and any(element.kind == U64 for element in elements):
            left = self.coerce(left, U64)
        member = tree.Member(at, BOOL, operand=left, low=0, high=1)
        for element in elements:
            self._add_member(member, left, element)
        return member

    def _names_range(self, node: ast.Call) -> bool:
        if not isinstance(node.func, ast.Name):
            return False
        called = self.expression(node.func)
        return isinstance(called, tree.Static) and called.value is range

    def _constant_range(self, node: ast.Call) -> tree.Expression:
        """range(...) of constants, to the right of `in`."""
        at = self.place(node)
        ends = [self.number(argument) for argument in self._arguments(node, at, "range", 1, 3)]
        constants = [end.value for end in ends if isinstance(end, tree.Constant)]
        if len(constants) < len(ends) or constants[2:] == [0]:
            at.refuse("`in range` takes constants; write a <= x < b for others")
        return self.scope.static(range(*constants), at)

    def _add_member(
        self, member: tree.Member, left: tree.Expression, element: tree.Expression
    ) -> None:
        value = element.value if isinstance(element, tree.Static) else None
        if isinstance(value, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
            family = IPV4 if value.version == 4 else IPV6
            if left.kind != family:
                element.at.refuse(f"{value} holds addresses, and the left side is {left.kind}")
            member.networks.append((int(value.network_address), value.prefixlen))
        elif isinstance(value, range):
            self.as_number(left, "the left side")
            if abs(value.step) != 1:
                element.at.refuse("a range in a comparison counts by 1")
            lowest, highest = numbers.full(left.kind)
            if len(value):
                first, last = sorted((value[0], value[-1]))
                if first <= highest and last >= lowest:
                    member.ranges.append((max(first, lowest), min(last, highest)))
        elif isinstance(value, str) and "/" in value and left.kind in (IPV4, IPV6):
            try:
                network = ipaddress.ip_network(value)
            except ValueError as error:
                element.at.refuse(str(error))
            self._add_member(member, left, tree.Static(element.at, element.kind, value=network))
        else:
            wanted = self._member_constant(left, element)
            member.values.append(wanted.value)

    def _member_constant(self, left: tree.Expression, element: tree.Expression) -> tree.Constant:
        if left.kind in NUMBERS and isinstance(element, tree.Constant):
            if element.kind not in NUMBERS:
                element.at.refuse(f"the left side is {left.kind}, and this is {element.kind}")
            converted = self.coerce(element, U64 if left.kind == U64 else INT)
            assert isinstance(converted, tree.Constant)
            return converted
        if left.kind in (*ADDRESSES, VERDICT):
            converted = self.coerce(element, left.kind)
            if isinstance(converted, tree.Constant):
                return converted
        element.at.refuse("`in` takes constants on its right; join comparisons by `or` instead")

    # Attributes, subscripts, tuples

    def _attribute(self, node: ast.Attribute, at: Place) -> tree.Expression:
        base = self.expression(node.value)
        name = node.attr
        if base.kind == PACKET:
            return self._packet_attribute(name, at)
        if isinstance(base.kind, HeaderKind):
            return self._header_attribute(base, base.kind.name, name, at)
        if isinstance(base, tree.Static):
            return self.scope.attribute(base.value, name, at)
        at.refuse(f"{base.kind} has no attributes")

    def _packet_attribute(self, name: str, at: Place) -> tree.Expression:
        header = headers.ALIASES.get(name, name)
        if header in headers.HEADERS:
            return tree.HeaderOf(at, HeaderKind(header), name=header)
        if name == "len":
            return tree.LengthOf(at, INT, base=tree.Packet(at, PACKET), low=0, high=0xFFFFFFFF)
        if name in CONTEXT:
            return tree.ContextOf(at, INT, name=name, low=0, high=CONTEXT[name])
        known = [*headers.HEADERS, *headers.ALIASES, "len", *CONTEXT]
        at.refuse(f"a packet has no {name}{close(name, known) or '; it has ' + ', '.join(known)}")

    def _header_attribute(
        self, base: tree.Expression, header: str, name: str, at: Place
    ) -> tree.Expression:
        table = headers.HEADERS[header]
        if name in table.regions:
            return tree.RegionOf(
                at, RegionKind(header, name), header=header, name=name, source=base
            )
        field = table.fields.get(name)
        if field is None:
            known = [*table.fields, *table.regions]
            hint = close(name, known) or "; it has " + ", ".join(known)
            at.refuse(f"{header} has no field {name}{hint}")
        kind = BY_NAME[field.kind]
        return tree.FieldOf(
            at, kind, header=header, name=name, source=base, low=0, high=(1 << field.bits) - 1
        )

    def _tuple(self, elements: Sequence[ast.expr], at: Place) -> tree.Expression:
        parts = [self.expression(element) for element in elements]
        if not parts:
            at.refuse("an empty tuple has no meaning in a program")
        if all(isinstance(part, (tree.Static, tree.Constant)) for part in parts):
            value = tuple(_python_value(part) for part in parts)
            if any(isinstance(part, tree.Static) for part in parts):
                return tree.Static(at, StaticKind(value), value=value)
        for part in parts:
            text = isinstance(part, tree.Static) and isinstance(part.value, str)
            if not text and part.kind not in (*NUMBERS, *ADDRESSES, VERDICT):
                part.at.refuse(f"{part.kind} cannot be part of a tuple")
        return tree.TupleOf(at, TupleKind(tuple(part.kind for part in parts)), parts=parts)

    def _subscript(self, node: ast.Subscript, at: Place) -> tree.Expression:
        if isinstance(node.slice, ast.Slice):
            at.refuse("slices cannot be compiled; read numbers with pkt.u16(offset) and the like")
        base = self.expression(node.value)
        if base.kind == PACKET or isinstance(base.kind, RegionKind):
            return self.raw_load(base, node.slice, 1, at)
        if isinstance(base.kind, TupleKind):
            index = self.expression(node.slice)
            if not isinstance(index, tree.Constant):
                index.at.refuse("the index of a tuple must be a constant; use an Array map")
            if not -len(base.kind.parts) <= index.value < len(base.kind.parts):
                index.at.refuse(f"{base.kind} has no part {index.value}")
            return part_of(base, index.value % len(base.kind.parts))
        if isinstance(base, tree.Static):
            if isinstance(base.value, Map):
                return self.map_get(base.value, self.expression(node.slice), None, at)
            if isinstance(base.value, (tuple, list)):
                index = self.expression(node.slice)
                if not isinstance(index, tree.Constant):
                    index.at.refuse("the index of a tuple must be a constant; use an Array map")
                try:
                    return self.scope.static(base.value[index.value], at)
                except IndexError:
                    index.at.refuse(f"there is no element {index.value}")
        at.refuse(f"{base.kind} has no elements")

    def raw_load(
        self, base: tree.Expression, offset_node: ast.expr, size: int, at: Place
    ) -> tree.Expression:
        """Bytes of the packet or a region as a number."""
        offset = self.offset(offset_node)
        kind = U64 if size == 8 else INT
        high = (1 << (8 * size)) - 1
        return tree.RawLoad(at, kind, base=base, offset=offset, size=size, low=0, high=high)

    def offset(self, node: ast.expr) -> tree.Expression:
        """An offset into the packet or a region."""
        offset = self.coerce(self.number(node, "an offset"), INT)
        if isinstance(offset, tree.Constant) and not 0 <= offset.value <= MOST_OFFSET:
            offset.at.refuse(f"an offset is 0 to {MOST_OFFSET}; this one is {offset.value}")
        return offset

    # Maps

    def map_key(self, used: Map, key: tree.Expression) -> tree.Expression:
        """A key as the map wants it."""
        if isinstance(used, Counter):
            key.at.refuse("a Counter has no keys; write .add(n), or use an Array")
        kind = type_kind(used.key_type)
        if isinstance(kind, TupleKind):
            if isinstance(key, tree.Static) and isinstance(key.value, tuple):
                parts = [self.scope.static(part, key.at) for part in key.value]
                key = tree.TupleOf(key.at, TupleKind(tuple(p.kind for p in parts)), parts=parts)
            if not isinstance(key.kind, TupleKind) or len(key.kind.parts) != len(kind.parts):
                key.at.refuse(f"the key of this map is {used.key_type}, and this is {key.kind}")
            assert isinstance(used.key_type, Tuple)
            parts = [
                self._key_part(part_of(key, index), part)
                for index, part in enumerate(used.key_type.parts)
            ]
            return tree.TupleOf(key.at, TupleKind(tuple(p.kind for p in parts)), parts=parts)
        key = self._key_part(key, used.key_type)
        indexed = used.is_array or isinstance(used, RedirectMap)
        if indexed and isinstance(key, tree.Constant) and not 0 <= key.value < used.entries:
            key.at.refuse(f"the index {key.value} is outside this map of {used.entries} entries")
        return key

    def _key_part(self, value: tree.Expression, wanted: Type) -> tree.Expression:
        kind = type_kind(wanted)
        if isinstance(value.kind, TupleKind) or (
            kind in ADDRESSES and value.kind in ADDRESSES and value.kind != kind
        ):
            value.at.refuse(f"the key must be {wanted}, and this is {value.kind}")
        value = self.coerce(value, kind)
        constant = value.value if isinstance(value, tree.Constant) else 0
        if isinstance(wanted, Integer) and not wanted.lowest <= constant <= wanted.highest:
            value.at.refuse(f"{constant} does not fit {wanted}")
        return value

    def map_get(
        self, used: Map, key: tree.Expression, default: tree.Expression | None, at: Place
    ) -> tree.Expression:
        """A map's value."""
        if isinstance(used, (RedirectMap, Counter)):
            what = type(used).__name__
            hint = ".redirect(index)" if isinstance(used, RedirectMap) else ".add(n)"
            at.refuse(f"a program uses a {what} by {hint}")
        kind = type_kind(used.value_type)
        low, high = type_bounds(used.value_type)
        if default is not None:
            default = self.coerce(default, kind)
            low, high = min(low, default.low), max(high, default.high)
        key = self.map_key(used, key)
        return tree.MapGet(at, kind, map=used, key=key, default=default, low=low, high=high)

    # Calls

    def _call(self, node: ast.Call, at: Place) -> tree.Expression:
        if isinstance(node.func, ast.Attribute):
            base = self.expression(node.func.value)
            if base.kind == PACKET or isinstance(base.kind, RegionKind):
                return self._raw_method(base, node, at)
            if isinstance(base, tree.Static) and isinstance(base.value, Map):
                return self._map_method(base.value, node.func.attr, node, at)
            if isinstance(base, tree.Static):
                called = self.scope.attribute(base.value, node.func.attr, at)
            else:
                at.refuse(f"{base.kind} has no methods that a program can call")
        else:
            called = self.expression(node.func)
        if not isinstance(called, tree.Static):
            at.refuse(f"{called.kind} cannot be called")
        return self._call_static(called.value, node, at)

    def _raw_method(self, base: tree.Expression, node: ast.Call, at: Place) -> tree.Expression:
        assert isinstance(node.func, ast.Attribute)
        name = node.func.attr
        if name in RAW_SIZES:
            (offset,) = self._arguments(node, at, name, 1)
            return self.raw_load(base, offset, RAW_SIZES[name], at)
        if name.removeprefix("set_") in RAW_SIZES:
            at.refuse(f"{name} writes and has no value; write it as a statement of its own")
        known = [*RAW_SIZES, *(f"set_{name}" for name in RAW_SIZES)]
        at.refuse(f"{base.kind} has no method {name}{close(name, known)}")

    def _map_method(self, used: Map, name: str, node: ast.Call, at: Place) -> tree.Expression:
        if isinstance(used, RedirectMap) and name == "redirect":
            arguments = self._arguments(node, at, name, 1, 2, ("index", "default"))
            key = self.map_key(used, self.expression(arguments[0]))
            default = int(PASS)
            if len(arguments) > 1:
                value = self.coerce(self.expression(arguments[1]), VERDICT)
                if not isinstance(value, tree.Constant) or value.value > int(Verdict.TX):
                    value.at.refuse("the default is one of ABORTED, DROP, PASS and TX")
                default = value.value
            return tree.MapRedirect(at, VERDICT, map=used, key=key, default=default, low=0, high=4)
        if name == "get" and not isinstance(used, (RedirectMap, Counter)):
            arguments = self._arguments(node, at, name, 1, 2, ("key", "default"))
            default_value = self.expression(arguments[1]) if len(arguments) > 1 else None
            return self.map_get(used, self.expression(arguments[0]), default_value, at)
        if name == "add" and isinstance(used, Counter):
            at.refuse("add has no value; write it as a statement of its own")
        at.refuse(f"a program cannot call {type(used).__name__}.{name}")

    def _arguments(
        self,
        node: ast.Call,
        at: Place,
        name: str,
        least: int,
        most: int | None = None,
        names: Sequence[str] = (),
    ) -> list[ast.expr]:
        """A call's arguments in their order."""
        arguments = list(node.args)
        for keyword in node.keywords:
            position = len(arguments)
            if keyword.arg is None or position >= len(names) or names[position] != keyword.arg:
                at.refuse(f"{name} takes no argument {keyword.arg or '**'} here")
            arguments.append(keyword.value)
        most = least if most is None else most
        if not least <= len(arguments) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            at.refuse(f"{name} takes {wanted} arguments, not {len(arguments)}")
        return arguments

    def _call_static(self, called: Any, node: ast.Call, at: Place) -> tree.Expression:
        if isinstance(called, Integer):
            (argument,) = self._arguments(node, at, called.name, 1)
            return self._convert(called, self.number(argument), at)
        if isinstance(called, (Address, Type)):
            at.refuse(f"{called} is a type of maps; write int(...) for a number")
        builtin = _BUILTINS.get(called) if _hashable(called) else None
        if builtin is not None:
            return builtin(self, node, at)
        function = getattr(called, "__wrapped_function__", called)
        if isinstance(function, FunctionType):
            if node.keywords or any(isinstance(a, ast.Starred) for a in node.args):
                at.refuse("call it with its arguments in order, without names and stars")
            values = [self.expression(argument) for argument in node.args]
            return self._call_function(function, values, at)
        what = getattr(called, "__name__", repr(called))
        at.refuse(
            f"a program cannot call {what}; it calls functions of Python code, "
            "conversions such as u16, and redirect, now, random, cpu, len, min, max, abs, int, bool"
        )

    def _convert(self, wanted: Integer, value: tree.Expression, at: Place) -> tree.Expression:
        if isinstance(value, tree.Constant):
            number = wanted(value.value)
            kind = U64 if wanted.bits == 64 and not wanted.signed else INT
            return tree.Constant(at, kind, value=number, low=number, high=number)
        if value.kind == BOOL:
            value = self.coerce(value, INT)
        kind = U64 if wanted.bits == 64 and not wanted.signed else INT
        fits = wanted.lowest <= value.low and value.high <= wanted.highest
        low, high = (value.low, value.high) if fits else (wanted.lowest, wanted.highest)
        return tree.Convert(
            at, kind, operand=value, bits=wanted.bits, signed=wanted.signed, low=low, high=high
        )

    def _call_int(self, node: ast.Call, at: Place) -> tree.Expression:
        (argument,) = self._arguments(node, at, "int", 1)
        value = self.expression(argument)
        if isinstance(value, tree.Constant) and value.kind in ADDRESSES:
            return number_constant(value.value, at)
        if value.kind in (IPV4, MAC):
            high = (1 << (32 if value.kind == IPV4 else 48)) - 1
            return tree.ToNumber(at, INT, operand=value, low=0, high=high)
        value = self.as_number(value)
        return self.coerce(value, INT) if value.kind == BOOL else value

    def _call_bool(self, node: ast.Call, at: Place) -> tree.Expression:
        (argument,) = self._arguments(node, at, "bool", 1)
        return self.condition(argument)

    def _call_len(self, node: ast.Call, at: Place) -> tree.Expression:
        (argument,) = self._arguments(node, at, "len", 1)
        value = self.expression(argument)
        if value.kind == PACKET or isinstance(value.kind, RegionKind):
            return tree.LengthOf(at, INT, base=value, low=0, high=0xFFFFFFFF)
        if isinstance(value.kind, TupleKind):
            return number_constant(len(value.kind.parts), at)
        if isinstance(value, tree.Static):
            if isinstance(value.value, Map) and value.value.is_array:
                return number_constant(value.value.entries, at)
            if isinstance(value.value, (tuple, list, str, bytes, range)):
                return number_constant(len(value.value), at)
        at.refuse(f"{value.kind} has no length in a program")

    def _call_abs(self, node: ast.Call, at: Place) -> tree.Expression:
        (argument,) = self._arguments(node, at, "abs", 1)
        value = self.coerce(self.number(argument), INT)
        zero = number_constant(0, at)
        return self._extreme("max", [value, self.arithmetic("-", zero, value, at)], at)

    def _call_extreme(self, operator: str, node: ast.Call, at: Place) -> tree.Expression:
        values = [self.number(argument) for argument in node.args]
        if node.keywords or len(values) < 2:
            at.refuse(f"{operator} takes two or more numbers, in order and without names")
        return self._extreme(operator, values, at)

    def _extreme(self, operator: str, values: list[tree.Expression], at: Place) -> tree.Expression:
        kind = U64 if any(value.kind == U64 for value in values) else INT
        values = [self.coerce(value, kind) for value in values]
        choose = min if operator == "min" else max
        low, high = choose(v.low for v in values), choose(v.high for v in values)
        if all(isinstance(value, tree.Constant) for value in values):
            return tree.Constant(at, kind, value=low, low=low, high=high)
        return tree.Extreme(
            at, kind, operator=operator, operands=values, unsigned=kind == U64, low=low, high=high
        )

    def _call_helper(self, name: str, node: ast.Call, at: Place) -> tree.Expression:
        self._arguments(node, at, name, 0)
        kind, high = {"now": (U64, (1 << 64) - 1), "random": (INT, 0xFFFFFFFF)}.get(
            name, (INT, 0xFFFF)
        )
        return tree.Helper(at, kind, name=name, low=0, high=high)

    def _call_redirect(self, node: ast.Call, at: Place) -> tree.Expression:
        (argument,) = self._arguments(node, at, "redirect", 1)
        value = self.expression(argument)
        if isinstance(value, tree.Static) and isinstance(value.value, str):
            return tree.Redirect(at, VERDICT, name=value.value, low=0, high=4)
        index = self.coerce(self.as_number(value, "an interface"), INT)
        return tree.Redirect(at, VERDICT, ifindex=index, low=0, high=4)


_BUILTINS: dict[Any, Callable[[Expressions, ast.Call, Place], tree.Expression]] = {
    int: Expressions._call_int,
    bool: Expressions._call_bool,
    len: Expressions._call_len,
    abs: Expressions._call_abs,
    min: lambda self, node, at: self._call_extreme("min", node, at),
    max: lambda self, node, at: self._call_extreme("max", node, at),
    provided.now: lambda self, node, at: self._call_helper("now", node, at),
    provided.random: lambda self, node, at: self._call_helper("random", node, at),
    provided.cpu: lambda self, node, at: self._call_helper("cpu", node, at),
    provided.redirect: Expressions._call_redirect,
}


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _flag(value: tree.Expression) -> tree.Expression:
    value.low, value.high = 0, 1
    return value


def _to_number(value: tree.Expression, kind: Kind) -> tree.Expression:
    """A number of one kind as another."""
    if isinstance(value, tree.Constant):
        number = numbers.wrap(value.value, kind) if kind != BOOL else int(value.value != 0)
        return tree.Constant(value.at, kind, value=number, low=number, high=number)
    if value.kind == BOOL:
        value = tree.ToNumber(value.at, INT, operand=value, low=0, high=1)
    if kind == U64 and value.kind == INT:
        fits = value.low >= 0
        low, high = (value.low, value.high) if fits else (0, numbers.MOST_UNSIGNED)
        return tree.Convert(value.at, U64, operand=value, bits=64, low=low, high=high)
    if kind == INT and value.kind == U64:
        fits = value.high <= tree.HIGHEST
        low, high = (value.low, value.high) if fits else (tree.LOWEST, tree.HIGHEST)
        return tree.Convert(value.at, INT, operand=value, bits=64, signed=True, low=low, high=high)
    return value


def part_of(value: tree.Expression, index: int) -> tree.Expression:
    """One value of a tuple."""
    if isinstance(value, tree.TupleOf):
        return value.parts[index]
    assert isinstance(value.kind, TupleKind)
    kind = value.kind.parts[index]
    low, high = (0, 1) if kind == BOOL else numbers.full(kind)
    if isinstance(value, tree.MapGet) and isinstance(value.map.value_type, Tuple):
        low, high = type_bounds(value.map.value_type.parts[index])
    return tree.PartOf(value.at, kind, operand=value, index=index, low=low, high=high)


def type_kind(declared: Type) -> Kind:
    """What a program computes with for a type of a map."""
    if isinstance(declared, Tuple):
        return TupleKind(tuple(type_kind(part) for part in declared.parts))
    if isinstance(declared, Integer):
        return U64 if declared.bits == 64 and not declared.signed else INT
    return {"IPv4": IPV4, "IPv6": IPV6, "MAC": MAC}[declared.name]


def type_bounds(declared: Type) -> tuple[int, int]:
    """What a number of a type of a map can be."""
    if isinstance(declared, Integer):
        return declared.lowest, declared.highest
    return tree.LOWEST, numbers.MOST_UNSIGNED


def _python_value(value: tree.Expression) -> Any:
    if isinstance(value, tree.Constant) and value.kind in (IPV4, IPV6):
        address = ipaddress.IPv4Address if value.kind == IPV4 else ipaddress.IPv6Address
        return address(value.value)
    if isinstance(value, tree.Constant) and value.kind == VERDICT:
        return Verdict(value.value)
    assert isinstance(value, (tree.Constant, tree.Static))
    return value.value


def _has_effect(node: ast.expr) -> bool:
    return any(isinstance(inner, ast.Call) for inner in ast.walk(node))
