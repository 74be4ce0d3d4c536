"""Assignments: to names, fields, bytes and entries of maps."""

from __future__ import annotations

import ast

from millrace.xdp import headers
from millrace.xdp.compiler import tree
from millrace.xdp.compiler.conversions import part_of, type_kind
from millrace.xdp.compiler.elements import RAW_SIZES, arguments_of
from millrace.xdp.compiler.expressions import Expressions
from millrace.xdp.compiler.kinds import (
    BOOL,
    BY_NAME,
    INT,
    NOTHING,
    PACKET,
    U64,
    HeaderKind,
    RegionKind,
    StaticKind,
    TupleKind,
)
from millrace.xdp.compiler.operators import OPERATORS
from millrace.xdp.compiler.session import Scope, close
from millrace.xdp.compiler.source import Place
from millrace.xdp.maps import Counter, Map, RedirectMap
from millrace.xdp.types import Integer, Tuple


class Assignments:
    """The statements of one function that write something."""

    def __init__(self, scope: Scope, expressions: Expressions, *, main: bool) -> None:
        self.scope = scope
        self.main = main
        self.expressions = expressions

    def place(self, node: ast.AST) -> Place:
        return self.scope.source.place(node)

    def expression_statement(self, node: ast.Expr, at: Place) -> list[tree.Statement]:
        call = node.value
        if isinstance(call, ast.Constant):
            return []  # a docstring, or a number that stands there for nothing
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            name = call.func.attr
            if name == "add" or (name.removeprefix("set_") in RAW_SIZES and name[:4] == "set_"):
                base = self.expressions.expression(call.func.value)
                if isinstance(base, tree.Static) and isinstance(base.value, Counter):
                    return self._count(base.value, call, at)
                if base.kind == PACKET or isinstance(base.kind, RegionKind):
                    return self._raw_store(base, call, RAW_SIZES[name[4:]], at)
        if isinstance(call, ast.Call):
            value = self.expressions.expression(call)
            if isinstance(value, tree.Call):
                return [tree.Evaluate(at, value)]
        at.refuse("this computes something and does nothing with it; assign or return it")

    def _count(self, counter: Counter, call: ast.Call, at: Place) -> list[tree.Statement]:
        arguments = arguments_of(call, at, "add", 0, 1, ("count",))
        zero = tree.Constant(at, INT, value=0, low=0, high=0)
        count: tree.Expression = tree.Constant(at, U64, value=1, low=1, high=1)
        if arguments:
            count = self.expressions.coerce(self.expressions.number(arguments[0]), U64)
        return [self._update(counter, zero, None, "+", count, at)]

    def _raw_store(
        self, base: tree.Expression, call: ast.Call, size: int, at: Place
    ) -> list[tree.Statement]:
        offset, value = arguments_of(call, at, "set", 2)
        return [
            tree.RawStore(
                at, base, self.expressions.offset(offset), self.expressions.number(value), size
            )
        ]

    def assign(self, node: ast.Assign, at: Place) -> list[tree.Statement]:
        if len(node.targets) > 1:
            at.refuse("assign to one thing at a time")
        target = node.targets[0]
        if isinstance(target, (ast.Tuple, ast.List)):
            return self._unpack(target, node.value, at)
        return self.store(target, self.expressions.expression(node.value), at)

    def _unpack(
        self, target: ast.Tuple | ast.List, node: ast.expr, at: Place
    ) -> list[tree.Statement]:
        """`a, b = x, y`: all of the right side is read before any of the left is written."""
        value = self.expressions.expression(node)
        if isinstance(value, tree.Static) and isinstance(value.value, tuple):
            parts = [self.scope.static(part, value.at) for part in value.value]
            value = tree.TupleOf(value.at, TupleKind(tuple(p.kind for p in parts)), parts=parts)
        if not isinstance(value.kind, TupleKind):
            value.at.refuse(f"{value.kind} cannot be taken apart")
        if len(value.kind.parts) != len(target.elts):
            at.refuse(f"{len(value.kind.parts)} values for {len(target.elts)} names")
        statements: list[tree.Statement] = []
        held: list[tree.Expression] = []
        for index in range(len(target.elts)):
            part = part_of(value, index)
            if isinstance(part, tree.Static):
                held.append(part)
                continue
            if isinstance(part, tree.PartOf) and not isinstance(value, tree.Local):
                whole = self.scope.temporary(value)
                statements.append(tree.Assign(at, [whole], value))
                value = tree.Local(at, value.kind, variable=whole)
                part = part_of(value, index)
            variable = self.scope.temporary(part)
            statements.append(tree.Assign(at, [variable], part))
            held.append(tree.Local(at, part.kind, variable=variable, low=part.low, high=part.high))
        for element, local in zip(target.elts, held, strict=True):
            stored = self.store(element, local, at)
            statements += stored
        return statements

    def store(self, target: ast.expr, value: tree.Expression, at: Place) -> list[tree.Statement]:
        match target:
            case ast.Name(id=name):
                return [self._store_name(name, value, at)]
            case ast.Attribute():
                return [self._store_field(target, value, at)]
            case ast.Subscript():
                return [self._store_element(target, value, at)]
        self.place(target).refuse("only names, fields of headers and elements can be assigned to")

    def _store_name(self, name: str, value: tree.Expression, at: Place) -> tree.Statement:
        texts = isinstance(value.kind, TupleKind) and any(
            isinstance(part, StaticKind) for part in value.kind.parts
        )
        if value.kind in (PACKET, NOTHING) or texts:
            value.at.refuse(f"a variable cannot hold {value.kind}{' with text' * texts}")
        if name in self.scope.constants:
            at.refuse(f"{name} is the packet; give other values other names")
        variable = self.scope.assign(name, value)
        if isinstance(variable.kind, (HeaderKind, RegionKind, StaticKind)):
            return tree.Assign(at, [variable], value)
        return tree.Assign(at, [variable], self.expressions.coerce(value, variable.kind))

    def _store_field(
        self, target: ast.Attribute, value: tree.Expression, at: Place
    ) -> tree.Statement:
        base = self.expressions.expression(target.value)
        if not isinstance(base.kind, HeaderKind):
            self.place(target).refuse(f"{base.kind} has nothing that can be written")
        header = base.kind.name
        table = headers.HEADERS[header]
        field = table.fields.get(target.attr)
        if field is None:
            known = [name for name, known in table.fields.items() if known.writable]
            hint = close(target.attr, known) or "; a program may write " + ", ".join(known)
            self.place(target).refuse(f"{header} has no field {target.attr}{hint}")
        if not field.writable:
            self.place(target).refuse(
                f"{header}.{target.attr} cannot be written, since the frame would no longer be "
                "what it says; raw writes (pkt[offset] = value) keep no such promise"
            )
        kind = BY_NAME[field.kind]
        value = (
            self.expressions.truth(value)
            if kind == BOOL
            else self.expressions.coerce(value, kind)
            if kind != INT
            else self.expressions.as_number(value)
        )
        return tree.SetField(at, header, target.attr, base, value)

    def _store_element(
        self, target: ast.Subscript, value: tree.Expression, at: Place
    ) -> tree.Statement:
        if isinstance(target.slice, ast.Slice):
            self.place(target).refuse("slices cannot be written; use pkt.set_u16 and the like")
        base = self.expressions.expression(target.value)
        if base.kind == PACKET or isinstance(base.kind, RegionKind):
            offset = self.expressions.offset(target.slice)
            return tree.RawStore(at, base, offset, self.expressions.as_number(value), 1)
        if isinstance(base, tree.Static) and isinstance(base.value, Map):
            used = base.value
            if isinstance(used, (RedirectMap, Counter)):
                self.place(target).refuse(f"a program cannot write into a {type(used).__name__}")
            key = self.expressions.map_key(used, self.expressions.expression(target.slice))
            wanted = type_kind(used.value_type)
            return tree.MapSet(at, used, key, self.expressions.coerce(value, wanted))
        if isinstance(base.kind, TupleKind):
            self.place(target).refuse("parts of a tuple cannot be written; write all of it")
        self.place(target).refuse(f"{base.kind} has no elements that can be written")

    def augmented(self, node: ast.AugAssign, at: Place) -> list[tree.Statement]:
        operator = OPERATORS.get(type(node.op))
        if operator is None or operator == "**":
            at.refuse("this operator has no meaning in a program; write // for whole numbers")
        target = node.target
        if isinstance(target, ast.Subscript) and not isinstance(target.slice, ast.Slice):
            update = self._augmented_map(target, operator, node.value, at)
            if update is not None:
                return [update]
        old = self.expressions.number(_loaded(target), "what is changed")
        value = self.expressions.number(node.value)
        return self.store(target, self.expressions.arithmetic(operator, old, value, at), at)

    def _augmented_map(
        self, target: ast.Subscript, operator: str, node: ast.expr, at: Place
    ) -> tree.Statement | None:
        """`map[key] += n` and `map[key][part] += n`; None if it is something else."""
        part: int | None = None
        base = self.expressions.expression(target.value)
        if isinstance(base, tree.MapGet) and isinstance(base.kind, TupleKind):
            index = self.expressions.expression(target.slice)
            if not isinstance(index, tree.Constant):
                index.at.refuse("the index of a tuple must be a constant")
            if not -len(base.kind.parts) <= index.value < len(base.kind.parts):
                index.at.refuse(f"{base.kind} has no part {index.value}")
            part = index.value % len(base.kind.parts)
            used, key = base.map, base.key
        elif isinstance(base, tree.Static) and isinstance(base.value, Map):
            used = base.value
            if isinstance(used, (RedirectMap, Counter)):
                self.place(target).refuse(f"a program cannot write into a {type(used).__name__}")
            key = self.expressions.map_key(used, self.expressions.expression(target.slice))
        else:
            return None
        declared = used.value_type
        if isinstance(declared, Tuple) and part is not None:
            declared = declared.parts[part]
        if not isinstance(declared, Integer):
            at.refuse(f"{operator}= takes numbers, and the values of this map are {declared}")
        return self._update(used, key, part, operator, self.expressions.number(node), at)

    def _update(
        self,
        used: Map,
        key: tree.Expression,
        part: int | None,
        operator: str,
        value: tree.Expression,
        at: Place,
    ) -> tree.MapUpdate:
        declared = used.value_type
        if part is not None:
            assert isinstance(declared, Tuple)
            declared = declared.parts[part]
        assert isinstance(declared, Integer)
        kind = type_kind(declared)
        old = tree.Variable(".old", kind, declared.lowest, declared.highest)
        operand = tree.Variable(".operand", value.kind, value.low, value.high)
        left = tree.Local(at, kind, variable=old, low=old.low, high=old.high)
        right = tree.Local(at, value.kind, variable=operand, low=operand.low, high=operand.high)
        result = self.expressions.arithmetic(operator, left, right, at)
        if isinstance(value, tree.Constant) and operator in ("//", "%", "<<", ">>"):
            # For what it says of constants that cannot be.
            self.expressions.arithmetic(operator, left, value, at)
        result = self.expressions.coerce(result, kind)
        return tree.MapUpdate(at, used, key, operator, value, part, old, operand, result)

    def delete(self, target: ast.expr) -> tree.Statement:
        at = self.place(target)
        if not isinstance(target, ast.Subscript) or isinstance(target.slice, ast.Slice):
            at.refuse("del removes entries of maps: del map[key]")
        base = self.expressions.expression(target.value)
        if not isinstance(base, tree.Static) or not isinstance(base.value, Map):
            at.refuse("del removes entries of maps: del map[key]")
        used = base.value
        if used.is_array or isinstance(used, RedirectMap):
            at.refuse(f"an entry of a {type(used).__name__} cannot be removed by a program")
        key = self.expressions.map_key(used, self.expressions.expression(target.slice))
        return tree.MapDelete(at, used, key)


def _loaded(target: ast.expr) -> ast.expr:
    """The target of an assignment as an expression that reads it."""
    loaded: ast.expr = type(target)(**{**dict(ast.iter_fields(target)), "ctx": ast.Load()})
    return ast.copy_location(loaded, target)
