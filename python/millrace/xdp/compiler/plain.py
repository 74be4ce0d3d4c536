"""The typed tree as a Python function: the same lines and names, with arithmetic that wraps.

It runs on `millrace.xdp.packet.Packet`. A debugger stops in it at the lines of the source.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

from millrace.xdp import builtins as provided
from millrace.xdp import types
from millrace.xdp.compiler import tree
from millrace.xdp.compiler.kinds import INT, U64, HeaderKind, Kind, RegionKind
from millrace.xdp.packet import Fault
from millrace.xdp.verdict import REDIRECT, Verdict

_BINARY: dict[str, type[ast.operator]] = {
    "+": ast.Add,
    "-": ast.Sub,
    "*": ast.Mult,
    "&": ast.BitAnd,
    "|": ast.BitOr,
    "^": ast.BitXor,
}
_COMPARE: dict[str, type[ast.cmpop]] = {
    "==": ast.Eq,
    "!=": ast.NotEq,
    "<": ast.Lt,
    "<=": ast.LtE,
    ">": ast.Gt,
    ">=": ast.GtE,
}
# Names that no source can have, so that none of its own are hidden.
_PACKET = ".pkt"


def compile_plain(program: tree.Function, filename: str) -> Callable[[Any], Verdict]:
    """The function that runs a program on a packet. It raises Fault where the program would return
    its `on_error`.
    """
    writer = _Writer()
    name = writer.function(program)
    module = ast.Module(writer.functions, [])
    ast.fix_missing_locations(module)
    code = compile(module, filename, "exec", dont_inherit=True)
    exec(code, writer.names)
    found: Callable[[Any], Verdict] = writer.names[name]
    return found


def _int(value: int) -> int:
    return types.i64(value)


def _u64(value: int) -> int:
    return types.u64(value)


def _floor(left: int, right: int) -> int:
    if right == 0:
        raise Fault
    return left // right


def _modulo(left: int, right: int) -> int:
    if right == 0:
        raise Fault
    return left % right


def _shift_left(value: int, count: int) -> int:
    if count < 0:
        raise Fault
    return value << count if count < 64 else 0


def _shift_right(value: int, count: int) -> int:
    if count < 0:
        raise Fault
    return value >> min(count, 64)


def _index(used: Any, key: Any) -> Any:
    """The key of an array; raises Fault outside it."""
    if not 0 <= key < used.entries:
        raise Fault
    return key


def _member(
    value: int, values: set[int], networks: list[tuple[int, int]], ranges: list[tuple[int, int]]
) -> bool:
    return (
        value in values
        or any(value >> shift == prefix for prefix, shift in networks)
        or any(first <= value <= last for first, last in ranges)
    )


def _replace(whole: tuple[Any, ...], index: int, part: Any) -> tuple[Any, ...]:
    return (*whole[:index], part, *whole[index + 1 :])


_FUNCTIONS = {
    "//": _floor,
    "%": _modulo,
    "<<": _shift_left,
    ">>": _shift_right,
}


class _Writer:
    """Writes the functions of one program."""

    def __init__(self) -> None:
        self.functions: list[ast.stmt] = []
        self.names: dict[str, Any] = {}
        self._known: dict[int, str] = {}

    def _named(self, value: Any, hint: str) -> ast.expr:
        """A name for a value that the text cannot hold."""
        if id(value) not in self._known:
            name = f"{hint}.{len(self._known)}"
            self._known[id(value)] = name
            self.names[name] = value
        return _name(self._known[id(value)])

    def _call(self, function: Callable[..., Any], *arguments: ast.expr) -> ast.expr:
        hint = getattr(function, "__name__", type(function).__name__).strip("_")
        return ast.Call(self._named(function, hint), list(arguments), [])

    def function(self, function: tree.Function) -> str:
        """Write a function, and those it calls before it."""
        parameters = [_PACKET]
        parameters += [p.name for p in function.parameters if not _is_static(p.kind)]
        body = self.block(function.body) or [ast.Pass()]
        name = f"{function.name}.{len(self.functions)}"
        arguments = ast.arguments([], [ast.arg(p) for p in parameters], None, [], [], None, [])
        definition = ast.FunctionDef(name, arguments, body, [], None, None)
        _locate(definition, function.at)
        self.functions.append(definition)
        return name

    # Statements

    def block(self, statements: Sequence[tree.Statement]) -> list[ast.stmt]:
        written: list[ast.stmt] = []
        for statement in statements:
            lines = self.statement(statement)
            for line in lines:
                _locate(line, statement.at)
            written += lines
        return written

    def statement(self, statement: tree.Statement) -> list[ast.stmt]:
        match statement:
            case tree.Assign(targets=[target], value=value):
                if _is_static(value.kind):
                    return []
                return [_assign(target.name, self.value(value))]
            case tree.SetField(name=name, source=source, value=value):
                attribute = ast.Attribute(self.value(source), name, ast.Store())
                return [ast.Assign([attribute], self.value(value))]
            case tree.RawStore(base=base, offset=offset, value=value, size=size):
                # Python computes what is written before where.
                return [
                    _assign(".value", self.value(value)),
                    _do(
                        _method(
                            self.value(base),
                            "raw_store",
                            self.value(offset),
                            _name(".value"),
                            ast.Constant(size),
                        )
                    ),
                ]
            case tree.MapSet(map=used, key=key, value=value):
                wrote = _method(
                    self._named(used, "map"),
                    "program_set",
                    self._key(used, key),
                    _name(".value"),
                )
                return [_assign(".value", self.value(value)), *self._unless(wrote)]
            case tree.MapUpdate():
                return self._update(statement)
            case tree.MapDelete(map=used, key=key):
                named = self._named(used, "map")
                return [_do(_method(named, "program_delete", self._key(used, key)))]
            case tree.If(condition=condition, then=then, otherwise=otherwise):
                body = self.block(then) or [ast.Pass()]
                return [ast.If(self.value(condition), body, self.block(otherwise))]
            case tree.For():
                span = [self.value(statement.start), self.value(statement.stop)]
                counter = self._call(range, *span, ast.Constant(statement.step))
                return [self._loop(statement.variable, counter, statement.body)]
            case tree.ForEach(variable=variable, values=values, body=inner):
                elements = ast.Tuple([self.value(value) for value in values], ast.Load())
                return [self._loop(variable, elements, inner)]
            case tree.Break():
                return [ast.Break()]
            case tree.Continue():
                return [ast.Continue()]
            case tree.Return(value=value):
                return [ast.Return(None if value is None else self.value(value))]
            case tree.Evaluate(value=value):
                return [_do(self.value(value))]
        raise AssertionError(statement)

    def _loop(
        self, variable: tree.Variable, iterable: ast.expr, body: Sequence[tree.Statement]
    ) -> ast.stmt:
        target = ast.Name(variable.name, ast.Store())
        lines = self.block(body)
        if variable.kind == U64:
            lines.insert(0, _assign(variable.name, self._call(_u64, _name(variable.name))))
        return ast.For(target, iterable, lines or [ast.Pass()], [], None)

    def _unless(self, condition: ast.expr) -> list[ast.stmt]:
        """Raise Fault unless a condition holds."""
        fault = ast.Raise(self._named(Fault, "Fault"), None)
        return [ast.If(ast.UnaryOp(ast.Not(), condition), [fault], [])]

    def _update(self, update: tree.MapUpdate) -> list[ast.stmt]:
        used = self._named(update.map, "map")
        old: ast.expr = _method(used, "program_get", _name(".key"))
        result = self.value(update.result)
        missing = ast.Compare(_name(".whole"), [ast.Is()], [ast.Constant(None)])
        fault = ast.If(missing, [ast.Raise(self._named(Fault, "Fault"), None)], [])
        index = []
        if update.map.is_array:
            index = [_assign(".key", self._call(_index, used, _name(".key")))]
        part: ast.expr = _name(".whole")
        if update.part is not None:
            part = _element(part, update.part)
            result = self._call(_replace, _name(".whole"), ast.Constant(update.part), result)
        return [
            _assign(".key", self.value(update.key)),
            _assign(".operand", self.value(update.value)),
            *index,
            _assign(".whole", old),
            fault,
            _assign(".old", part),
            _do(_method(used, "program_change", _name(".key"), result)),
        ]

    # Expressions

    def value(self, value: tree.Expression) -> ast.expr:
        """An expression, at its place."""
        written = self._value(value)
        _locate(written, value.at)
        return written

    def _value(self, value: tree.Expression) -> ast.expr:
        match value:
            case tree.Constant(value=number, kind=kind):
                named = str(kind) == "a verdict"
                return self._named(Verdict(number), "verdict") if named else ast.Constant(number)
            case tree.Packet():
                return _name(_PACKET)
            case tree.Local(variable=variable):
                return _name(variable.name)
            case tree.HeaderOf(name=name):
                return ast.Attribute(_name(_PACKET), name, ast.Load())
            case tree.Present(source=source):
                return self._call(bool, self.value(source))
            case tree.FieldOf(source=source, name=name) | tree.RegionOf(source=source, name=name):
                return ast.Attribute(self.value(source), name, ast.Load())
            case tree.RawLoad(base=base, offset=offset, size=size):
                return _method(self.value(base), "raw_load", self.value(offset), ast.Constant(size))
            case tree.LengthOf(base=base):
                return ast.Attribute(self.value(base), "len", ast.Load())
            case tree.ContextOf(name=name):
                return ast.Attribute(_name(_PACKET), name, ast.Load())
            case tree.Binary(operator=operator, left=left, right=right, kind=kind):
                return self._wrap(kind, self._binary(operator, left, right))
            case tree.Unary(operator=operator, operand=operand, kind=kind):
                sign = ast.USub() if operator == "-" else ast.Invert()
                return self._wrap(kind, ast.UnaryOp(sign, self.value(operand)))
            case tree.Compare(operator=operator, left=left, right=right):
                return ast.Compare(self.value(left), [_COMPARE[operator]()], [self.value(right)])
            case tree.Member():
                return self._member(value)
            case tree.Logical(operator=operator, operands=operands):
                joined = ast.And() if operator == "and" else ast.Or()
                return ast.BoolOp(joined, [self.value(operand) for operand in operands])
            case tree.Not(operand=operand):
                return ast.UnaryOp(ast.Not(), self.value(operand))
            case tree.Conditional(condition=condition, then=then, otherwise=otherwise):
                return ast.IfExp(self.value(condition), self.value(then), self.value(otherwise))
            case tree.Convert(operand=operand, bits=bits, signed=signed):
                wanted = getattr(types, f"{'i' if signed else 'u'}{bits}")
                return self._call(wanted, self.value(operand))
            case tree.ToNumber(operand=operand):
                return self._call(int, self.value(operand))
            case tree.ToAddress(operand=operand):
                return self._call(types.u32, self.value(operand))
            case tree.Extreme(operator=operator, operands=operands):
                choose = min if operator == "min" else max
                return self._call(choose, *(self.value(o) for o in operands))
            case tree.TupleOf(parts=parts):
                return ast.Tuple([self.value(part) for part in parts], ast.Load())
            case tree.PartOf(operand=operand, index=index):
                return _element(self.value(operand), index)
            case tree.MapGet():
                return self._map_get(value)
            case tree.MapHas(map=used, key=key):
                return _method(self._named(used, "map"), "program_has", self.value(key))
            case tree.MapRedirect(map=used, key=key, default=default):
                return _method(
                    self._named(used, "map"),
                    "redirect",
                    self.value(key),
                    self._named(Verdict(default), "verdict"),
                )
            case tree.Redirect(ifindex=ifindex):
                verdict = self._named(REDIRECT, "verdict")
                if ifindex is None:
                    return verdict
                # The index is computed, and may fault, though nothing is sent.
                return _element(ast.Tuple([verdict, self.value(ifindex)], ast.Load()), 0)
            case tree.Helper(name=name):
                return self._call(getattr(provided, name))
            case tree.Call(function=function, arguments=arguments):
                name = self.function(function)
                given = [
                    self.value(argument)
                    for argument, parameter in zip(arguments, function.parameters, strict=True)
                    if not _is_static(parameter.kind)
                ]
                return ast.Call(_name(name), [_name(_PACKET), *given], [])
        raise AssertionError(value)

    def _wrap(self, kind: Kind, value: ast.expr) -> ast.expr:
        assert kind in (INT, U64)
        return self._call(_u64 if kind == U64 else _int, value)

    def _binary(self, operator: str, left: tree.Expression, right: tree.Expression) -> ast.expr:
        sides = self.value(left), self.value(right)
        if operator in _FUNCTIONS:
            return self._call(_FUNCTIONS[operator], *sides)
        return ast.BinOp(sides[0], _BINARY[operator](), sides[1])

    def _member(self, value: tree.Member) -> ast.expr:
        bits = {"an IPv4 address": 32, "an IPv6 address": 128}.get(str(value.operand.kind), 0)
        networks = [
            (network >> (bits - prefix), bits - prefix) for network, prefix in value.networks
        ]
        return self._call(
            _member,
            self.value(value.operand),
            self._named(set(value.values), "values"),
            self._named(networks, "networks"),
            self._named(value.ranges, "ranges"),
        )

    def _key(self, used: Any, key: tree.Expression) -> ast.expr:
        written = self.value(key)
        if used.is_array:
            return self._call(_index, self._named(used, "map"), written)
        return written

    def _map_get(self, value: tree.MapGet) -> ast.expr:
        named = self._named(value.map, "map")
        if value.default is not None:
            # A default takes an array's missing entries too.
            return self._call(_get_default, named, self.value(value.key), self.value(value.default))
        return _method(named, "program_get", self._key(value.map, value.key))


def _get_default(used: Any, key: Any, default: Any) -> Any:
    if used.is_array and not 0 <= key < used.entries:
        return default
    return used.program_get(key, default)


def _is_static(kind: Kind) -> bool:
    return not isinstance(kind, (HeaderKind, RegionKind)) and (
        str(kind) == "the packet" or type(kind).__name__ == "StaticKind"
    )


def _name(name: str) -> ast.expr:
    return ast.Name(name, ast.Load())


def _method(value: ast.expr, name: str, *arguments: ast.expr) -> ast.expr:
    return ast.Call(ast.Attribute(value, name, ast.Load()), list(arguments), [])


def _element(value: ast.expr, index: int) -> ast.expr:
    return ast.Subscript(value, ast.Constant(index), ast.Load())


def _assign(name: str, value: ast.expr) -> ast.stmt:
    return ast.Assign([ast.Name(name, ast.Store())], value)


def _do(value: ast.expr) -> ast.stmt:
    return ast.Expr(value)


def _locate(node: ast.AST, at: Any) -> None:
    """Put a node, and those inside it that have no place yet, at a place of the source."""
    waiting: list[ast.AST] = [node]
    while waiting:
        inner = waiting.pop()
        if hasattr(inner, "lineno"):
            continue  # those inside it have their places
        if "lineno" in inner._attributes:
            inner.lineno = at.line  # type: ignore[attr-defined]
            inner.col_offset = at.column  # type: ignore[attr-defined]
            inner.end_lineno = at.line  # type: ignore[attr-defined]
            inner.end_col_offset = max(at.column, at.end_column or 0)  # type: ignore[attr-defined]
        waiting += ast.iter_child_nodes(inner)
