"""Conversions of typed expressions: flags, numbers, parts, and what types of maps mean here."""

from __future__ import annotations

import ipaddress
from typing import Any

from millrace.xdp.compiler import numbers, tree
from millrace.xdp.compiler.kinds import (
    BOOL,
    INT,
    IPV4,
    IPV6,
    MAC,
    U64,
    VERDICT,
    Kind,
    TupleKind,
)
from millrace.xdp.types import Integer, Tuple, Type
from millrace.xdp.verdict import Verdict


def flag(value: tree.Expression) -> tree.Expression:
    value.low, value.high = 0, 1
    return value


def to_number(value: tree.Expression, kind: Kind) -> tree.Expression:
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


def python_value(value: tree.Expression) -> Any:
    if isinstance(value, tree.Constant) and value.kind in (IPV4, IPV6):
        address = ipaddress.IPv4Address if value.kind == IPV4 else ipaddress.IPv6Address
        return address(value.value)
    if isinstance(value, tree.Constant) and value.kind == VERDICT:
        return Verdict(value.value)
    assert isinstance(value, (tree.Constant, tree.Static))
    return value.value
