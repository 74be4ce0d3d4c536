"""Calls: of methods, of what the kernel provides, and of functions compiled in place."""

from __future__ import annotations

import ast
from collections.abc import Callable
from types import FunctionType
from typing import Any

from millrace.xdp import builtins as provided
from millrace.xdp.compiler import tree
from millrace.xdp.compiler.elements import RAW_SIZES, Elements, arguments_of
from millrace.xdp.compiler.kinds import (
    ADDRESSES,
    BOOL,
    INT,
    IPV4,
    MAC,
    PACKET,
    U64,
    VERDICT,
    RegionKind,
    TupleKind,
)
from millrace.xdp.compiler.session import close, number_constant
from millrace.xdp.compiler.source import Place
from millrace.xdp.maps import Counter, Map, RedirectMap
from millrace.xdp.types import Address, Integer, Type
from millrace.xdp.verdict import PASS, Verdict


class Calls(Elements):
    """Calls."""

    def call(self, node: ast.Call, at: Place) -> tree.Expression:
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
            (offset,) = arguments_of(node, at, name, 1)
            return self.raw_load(base, offset, RAW_SIZES[name], at)
        if name.removeprefix("set_") in RAW_SIZES:
            at.refuse(f"{name} writes and has no value; write it as a statement of its own")
        known = [*RAW_SIZES, *(f"set_{name}" for name in RAW_SIZES)]
        at.refuse(f"{base.kind} has no method {name}{close(name, known)}")

    def _map_method(self, used: Map, name: str, node: ast.Call, at: Place) -> tree.Expression:
        if isinstance(used, RedirectMap) and name == "redirect":
            arguments = arguments_of(node, at, name, 1, 2, ("index", "default"))
            key = self.map_key(used, self.expression(arguments[0]))
            default = int(PASS)
            if len(arguments) > 1:
                value = self.coerce(self.expression(arguments[1]), VERDICT)
                if not isinstance(value, tree.Constant) or value.value > int(Verdict.TX):
                    value.at.refuse("the default is one of ABORTED, DROP, PASS and TX")
                default = value.value
            return tree.MapRedirect(at, VERDICT, map=used, key=key, default=default, low=0, high=4)
        if name == "get" and not isinstance(used, (RedirectMap, Counter)):
            arguments = arguments_of(node, at, name, 1, 2, ("key", "default"))
            default_value = self.expression(arguments[1]) if len(arguments) > 1 else None
            return self.map_get(used, self.expression(arguments[0]), default_value, at)
        if name == "add" and isinstance(used, Counter):
            at.refuse("add has no value; write it as a statement of its own")
        at.refuse(f"a program cannot call {type(used).__name__}.{name}")

    def _call_static(self, called: Any, node: ast.Call, at: Place) -> tree.Expression:
        if isinstance(called, Integer):
            (argument,) = arguments_of(node, at, called.name, 1)
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
            return self.call_function(function, values, at)
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
        (argument,) = arguments_of(node, at, "int", 1)
        value = self.expression(argument)
        if isinstance(value, tree.Constant) and value.kind in ADDRESSES:
            return number_constant(value.value, at)
        if value.kind in (IPV4, MAC):
            high = (1 << (32 if value.kind == IPV4 else 48)) - 1
            return tree.ToNumber(at, INT, operand=value, low=0, high=high)
        value = self.as_number(value)
        return self.coerce(value, INT) if value.kind == BOOL else value

    def _call_bool(self, node: ast.Call, at: Place) -> tree.Expression:
        (argument,) = arguments_of(node, at, "bool", 1)
        return self.condition(argument)

    def _call_len(self, node: ast.Call, at: Place) -> tree.Expression:
        (argument,) = arguments_of(node, at, "len", 1)
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
        (argument,) = arguments_of(node, at, "abs", 1)
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
        arguments_of(node, at, name, 0)
        kind, high = {"now": (U64, (1 << 64) - 1), "random": (INT, 0xFFFFFFFF)}.get(
            name, (INT, 0xFFFF)
        )
        return tree.Helper(at, kind, name=name, low=0, high=high)

    def _call_redirect(self, node: ast.Call, at: Place) -> tree.Expression:
        (argument,) = arguments_of(node, at, "redirect", 1)
        value = self.expression(argument)
        if isinstance(value, tree.Static) and isinstance(value.value, str):
            return tree.Redirect(at, VERDICT, name=value.value, low=0, high=4)
        index = self.coerce(self.as_number(value, "an interface"), INT)
        return tree.Redirect(at, VERDICT, ifindex=index, low=0, high=4)


_BUILTINS: dict[Any, Callable[[Calls, ast.Call, Place], tree.Expression]] = {
    int: Calls._call_int,
    bool: Calls._call_bool,
    len: Calls._call_len,
    abs: Calls._call_abs,
    min: lambda self, node, at: self._call_extreme("min", node, at),
    max: lambda self, node, at: self._call_extreme("max", node, at),
    provided.now: lambda self, node, at: self._call_helper("now", node, at),
    provided.random: lambda self, node, at: self._call_helper("random", node, at),
    provided.cpu: lambda self, node, at: self._call_helper("cpu", node, at),
    provided.redirect: Calls._call_redirect,
}


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
