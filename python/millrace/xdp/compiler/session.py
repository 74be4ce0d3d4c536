"""What one compilation knows from beginning to end, and what one function's check knows."""

from __future__ import annotations

import builtins
import difflib
import enum
import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from millrace.xdp.compiler import tree
from millrace.xdp.compiler.kinds import BOOL, INT, IPV4, IPV6, U64, VERDICT, Kind, StaticKind, join
from millrace.xdp.compiler.source import Place, Source, read
from millrace.xdp.maps import Map
from millrace.xdp.verdict import PASS, Verdict

#: Nodes of the typed tree, functions compiled in place counted each time.
MOST_NODES = 50_000
MOST_DEPTH = 64


@dataclass(frozen=True)
class Options:
    """What the decorator was told."""

    name: str
    on_error: Verdict = PASS
    vlan: int = 2
    extensions: int = 0
    frags: bool = False
    counters: bool = False


@dataclass
class Session:
    """One compilation."""

    options: Options
    #: The maps that the program uses, in the order in which it first does.
    maps: list[Map] = field(default_factory=list)
    #: Functions that are being compiled, the innermost last.
    calls: list[Callable[..., Any]] = field(default_factory=list)
    nodes: int = 0
    _sources: dict[Callable[..., Any], Source] = field(default_factory=dict)

    def source(self, function: Callable[..., Any]) -> Source:
        """The source of a function, read once."""
        if function not in self._sources:
            self._sources[function] = read(function)
        return self._sources[function]

    def count(self, place: Place) -> None:
        """Count a node, against sources that grow without end when they are compiled in place."""
        self.nodes += 1
        if self.nodes > MOST_NODES:
            place.refuse(
                f"the program is too large: more than {MOST_NODES} expressions and statements once "
                "functions are compiled in place; call fewer functions, or smaller ones"
            )

    def use(self, used: Map, name: str | None) -> None:
        """Note a map that the program uses, and what its source calls it."""
        if not any(used is known for known in self.maps):
            self.maps.append(used)
        if used.name is None and name is not None:
            used.name = name


@dataclass
class Known:
    """What a pass over a function has found out of a variable."""

    kind: Kind
    low: int
    high: int


@dataclass
class Scope:
    """One pass over one function."""

    session: Session
    source: Source
    function: Callable[..., Any]
    #: What the last pass found.
    before: dict[str, Known]
    #: What this one has found.
    found: dict[str, Known] = field(default_factory=dict)
    variables: dict[str, tree.Variable] = field(default_factory=dict)
    #: Parameters that are constants of this call.
    constants: dict[str, tree.Expression] = field(default_factory=dict)
    #: Variables that have a value here, whichever way was taken; None where no way leads.
    assigned: set[str] | None = field(default_factory=set)
    #: A variable turned out to be another kind than was thought where it was read.
    changed: bool = False
    temporaries: int = 0

    def static(self, value: Any, place: Place, name: str = "it") -> tree.Expression:
        """A value of Python's as an expression."""
        if isinstance(value, Verdict):
            number = int(value)
            return tree.Constant(place, VERDICT, value=number, low=number, high=number)
        if isinstance(value, bool):
            return tree.Constant(place, BOOL, value=int(value), low=int(value), high=int(value))
        if isinstance(value, int):
            return number_constant(int(value), place)
        if isinstance(value, ipaddress.IPv4Address):
            return tree.Constant(place, IPV4, value=int(value))
        if isinstance(value, ipaddress.IPv6Address):
            return tree.Constant(place, IPV6, value=int(value))
        if isinstance(value, float):
            place.refuse(f"{name} is {value!r}; the kernel has no fractions, use whole numbers")
        if value is None:
            place.refuse(f"{name} is None, which a program cannot hold; use a number or a flag")
        return tree.Static(place, StaticKind(value), value=value)

    def name(self, name: str, place: Place) -> tree.Expression:
        """What a name means here."""
        if name in self.constants:
            return self.constants[name]
        if name in self.variables and self.assigned is not None:
            if name not in self.assigned:
                place.refuse(
                    f"{name} has no value here on every way; give it one before the branch or loop"
                )
            variable = self.variables[name]
            return tree.Local(
                place, variable.kind, variable=variable, low=variable.low, high=variable.high
            )
        code = self.function.__code__
        if name in code.co_varnames or name in code.co_cellvars:
            place.refuse(f"{name} is a local variable that has no value yet")
        value = self._outer(name, place)
        if isinstance(value, Map):
            self.session.use(value, name)
        return self.static(value, place, name)

    def _outer(self, name: str, place: Place) -> Any:
        function = self.function
        if name in function.__code__.co_freevars:
            cell = (function.__closure__ or ())[function.__code__.co_freevars.index(name)]
            try:
                return cell.cell_contents
            except ValueError:
                place.refuse(f"{name} has no value yet; define it above the program")
        if name in function.__globals__:
            return function.__globals__[name]
        if hasattr(builtins, name):
            return getattr(builtins, name)
        known = {*function.__globals__, *self.variables}
        place.refuse(f"{name} is not defined above the program{close(name, known)}")

    def attribute(self, value: Any, name: str, place: Place) -> tree.Expression:
        """An attribute of something that is known while compiling."""
        if not isinstance(value, ModuleType) and not (
            isinstance(value, type) and issubclass(value, enum.Enum)
        ):
            place.refuse(
                f"attributes of {type(value).__name__} cannot be used in a program; put the value "
                "into a constant of the module first"
            )
        try:
            found = getattr(value, name)
        except AttributeError:
            place.refuse(f"{value.__name__} has no {name}{close(name, dir(value))}")
        if isinstance(found, Map):
            self.session.use(found, name)
        return self.static(found, place, name)

    def assign(self, name: str, value: tree.Expression) -> tree.Variable:
        """The variable of this name, which now has a value like this one."""
        now = self.found.get(name)
        kind, low, high = value.kind, value.low, value.high
        for other in filter(None, (now, self.before.get(name))):
            joined = join(kind, other.kind)
            if joined is None:
                value.at.refuse(
                    f"{name} is {other.kind} elsewhere and {kind} here; a variable has one kind, "
                    "use two"
                )
            kind, low, high = joined, min(low, other.low), max(high, other.high)
        if now is None:
            now = self.found[name] = Known(value.kind, value.low, value.high)
        now.kind, now.low, now.high = kind, low, high
        if kind == U64 and low < 0:
            now.low, now.high = low, high = 0, (1 << 64) - 1
        variable = self.variables.get(name)
        if variable is None:
            variable = self.variables[name] = tree.Variable(name, kind, low, high)
        elif (variable.kind, variable.low, variable.high) != (kind, low, high):
            variable.kind, variable.low, variable.high = kind, low, high
            self.changed = True
        if self.assigned is not None:
            self.assigned.add(name)
        return variable

    def temporary(self, value: tree.Expression) -> tree.Variable:
        """A new variable of the compiler's own, of this value's kind."""
        self.temporaries += 1
        name = f".t{self.temporaries}"
        return tree.Variable(name, value.kind, value.low, value.high)


def number_constant(value: int, place: Place) -> tree.Constant:
    """A whole number: an int, or a u64 where it does not fit that."""
    if tree.LOWEST <= value <= tree.HIGHEST:
        return tree.Constant(place, INT, value=value, low=value, high=value)
    if 0 <= value < 1 << 64:
        return tree.Constant(place, U64, value=value, low=value, high=value)
    shown = hex(value) if value.bit_length() <= 128 else f"of {value.bit_length()} bits"
    place.refuse(f"the number {shown} does not fit 64 bits")


def close(name: str, known: Iterable[str]) -> str:
    """A hint at a name that may have been meant."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {matches[0]}?" if matches else ""
