"""What the subset of Python is: from a function to a typed tree, or to a message that says why not.

A function is looked at until the kinds of its variables no longer change, which is once or twice.
A call of another function gives an instance of it, for the kinds and constants of that call.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

from millrace.xdp import headers
from millrace.xdp.compiler import numbers, source, tree
from millrace.xdp.compiler.expressions import OPERATORS, RAW_SIZES, Expressions, part_of, type_kind
from millrace.xdp.compiler.kinds import (
    BOOL,
    BY_NAME,
    INT,
    NOTHING,
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
from millrace.xdp.compiler.session import MOST_DEPTH, Known, Options, Scope, Session, close
from millrace.xdp.compiler.source import Place
from millrace.xdp.maps import Counter, Map, RedirectMap
from millrace.xdp.types import Integer, Tuple

#: More turns than this no program can have; the verifier looks at a million instructions.
MOST_TRIPS = 65_536
_MOST_PASSES = 12
#: What a pass finds of the function's own result is kept under a name that no variable has.
_RESULT = "return"

_REFUSED: dict[type[ast.stmt], str] = {
    ast.While: "write for i in range(N) with a constant N, and break",
    ast.AsyncFor: "a program never waits",
    ast.AsyncWith: "a program never waits",
    ast.With: "a program holds nothing that needs closing",
    ast.Try: "a program has no exceptions; test with if",
    ast.Raise: "a program has no exceptions; return ABORTED",
    ast.Assert: "a program has no exceptions; write if and return ABORTED",
    ast.FunctionDef: "write the function at the level of the module and call it",
    ast.AsyncFunctionDef: "a program never waits",
    ast.ClassDef: "use tuples and maps",
    ast.Global: "use a map for what outlives a frame: a Counter, an Array, a Hash",
    ast.Nonlocal: "use a map for what outlives a frame: a Counter, an Array, a Hash",
    ast.Import: "import at the level of the module",
    ast.ImportFrom: "import at the level of the module",
    ast.Match: "write if and elif",
}


def check(function: Callable[..., Any], options: Options) -> tuple[tree.Function, list[Map]]:
    """The typed tree of a program, and the maps it uses.

    Raises CompileError where the function is not in the subset.
    """
    session = Session(options)
    read = session.source(function)
    at = read.place(read.tree)
    arguments = read.tree.args
    if _names(arguments) is None or len(arguments.args) != 1 or arguments.defaults:
        at.refuse("a program takes one argument, the packet: def NAME(pkt)")
    program = _function(session, read, function, [tree.Packet(at, PACKET)], at, main=True)
    return program, session.maps


def _names(arguments: ast.arguments) -> list[str] | None:
    """The names of plain positional parameters; None if there are others."""
    if arguments.vararg or arguments.kwarg or arguments.kwonlyargs:
        return None
    return [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]


def _function(
    session: Session,
    read: source.Source,
    function: Callable[..., Any],
    arguments: Sequence[tree.Expression],
    at: Place,
    *,
    main: bool = False,
) -> tree.Function:
    """An instance of a function for these arguments."""
    names = _names(read.tree.args)
    if names is None:
        at.refuse(
            f"{read.tree.name} has star or keyword-only parameters, which have no meaning here"
        )
    if len(arguments) != len(names):
        at.refuse(f"{read.tree.name} takes {len(names)} arguments, and here are {len(arguments)}")
    written = {
        node.id
        for node in ast.walk(read.tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del))
    }
    before: dict[str, Known] = {}
    nodes = session.nodes
    session.calls.append(function)
    for attempt in range(_MOST_PASSES):
        session.nodes = nodes
        scope = Scope(session, read, function, before)
        instance = Statements(scope, main=main).function(names, arguments, written)
        if not scope.changed:
            session.calls.pop()
            return instance
        found = scope.found
        if attempt >= 2:
            # What still grows, such as a number that a loop adds to, has no bounds.
            for known in found.values():
                known.low, known.high = numbers.full(known.kind)
        before = found
    at.refuse(f"the kinds of the variables of {read.tree.name} cannot be found; use more variables")


class Statements:
    """The statements of one function."""

    def __init__(self, scope: Scope, *, main: bool) -> None:
        self.scope = scope
        self.main = main
        self.expressions = Expressions(scope, self._call)

    def place(self, node: ast.AST) -> Place:
        return self.scope.source.place(node)

    # Functions

    def function(
        self, names: Sequence[str], arguments: Sequence[tree.Expression], written: set[str]
    ) -> tree.Function:
        """The whole function."""
        scope = self.scope
        node = scope.source.tree
        parameters = []
        for name, argument in zip(names, arguments, strict=True):
            fixed = isinstance(argument, (tree.Constant, tree.Static)) and name not in written
            if fixed or argument.kind == PACKET:
                scope.constants[name] = argument
                parameters.append(tree.Variable(name, argument.kind))
            else:
                parameters.append(scope.assign(name, argument))
        at = self.place(node)
        instance = tree.Function(node.name, at, parameters)
        instance.body = self.block(node.body)
        instance.kind = self._result(instance, at)
        return instance

    def _result(self, instance: tree.Function, at: Place) -> Kind:
        known = self.scope.found.get(_RESULT)
        falls_off = self.scope.assigned is not None
        if self.main:
            if falls_off:
                at.refuse(
                    f"{instance.name} may end without a verdict; write `return PASS` as its last "
                    "line"
                )
            return VERDICT
        if known is None:
            return NOTHING
        if falls_off:
            at.refuse(
                f"{instance.name} returns {known.kind} on some ways and nothing on others; end it "
                "with a return"
            )
        return known.kind

    def _call(
        self, function: Callable[..., Any], arguments: list[tree.Expression], at: Place
    ) -> tree.Call:
        session = self.scope.session
        if function in session.calls:
            at.refuse(
                f"{function.__name__} calls itself; the kernel has no recursion, write a loop"
            )
        if len(session.calls) >= MOST_DEPTH:
            at.refuse(f"calls are nested more than {MOST_DEPTH} deep; call fewer functions")
        read = session.source(function)
        defaults = function.__defaults__ or ()
        names = _names(read.tree.args) or []
        missing = len(names) - len(arguments)
        if 0 < missing <= len(defaults):
            arguments = arguments + [
                self.scope.static(default, at, "a default") for default in defaults[-missing:]
            ]
        if read.tree.decorator_list and not hasattr(function, "__xdp_program__"):
            at.refuse(f"{function.__name__} has a decorator, which a program cannot apply")
        instance = _function(session, read, function, arguments, at)
        known = Known(instance.kind, *self._bounds_of(instance))
        return tree.Call(
            at,
            instance.kind,
            function=instance,
            arguments=arguments,
            low=known.low,
            high=known.high,
        )

    @staticmethod
    def _bounds_of(instance: tree.Function) -> tuple[int, int]:
        lows: list[int] = []
        highs: list[int] = []
        for statement in _all_statements(instance.body):
            if isinstance(statement, tree.Return) and statement.value is not None:
                lows.append(statement.value.low)
                highs.append(statement.value.high)
        if not lows or instance.kind not in NUMBERS:
            return tree.LOWEST, numbers.MOST_UNSIGNED
        return min(lows), max(highs)

    # Blocks

    def block(self, nodes: Sequence[ast.stmt]) -> list[tree.Statement]:
        """Statements one after the other; what no way leads to is left out."""
        statements: list[tree.Statement] = []
        for node in nodes:
            if self.scope.assigned is None:
                break
            self.scope.session.count(self.place(node))
            statements += self.statement(node)
        return statements

    def statement(self, node: ast.stmt) -> list[tree.Statement]:
        """One statement, which may become several or none."""
        at = self.place(node)
        match node:
            case ast.Pass():
                return []
            case ast.Expr():
                return self._expression_statement(node, at)
            case ast.Assign():
                return self._assign(node, at)
            case ast.AnnAssign():
                if node.value is None:
                    return []
                return self._store(node.target, self.expressions.expression(node.value), at)
            case ast.AugAssign():
                return self._augmented(node, at)
            case ast.Delete():
                return [self._delete(target) for target in node.targets]
            case ast.If():
                return self._if(node, at)
            case ast.For():
                return self._for(node, at)
            case ast.Break() | ast.Continue():
                self.scope.assigned = None
                return [tree.Break(at) if isinstance(node, ast.Break) else tree.Continue(at)]
            case ast.Return():
                return self._return(node, at)
        what = type(node).__name__.lower()
        at.refuse(f"{what} cannot be compiled; {_REFUSED.get(type(node), 'a program has none')}")

    def _return(self, node: ast.Return, at: Place) -> list[tree.Statement]:
        if node.value is None or (
            isinstance(node.value, ast.Constant) and node.value.value is None
        ):
            if self.main:
                at.refuse("a program returns a verdict: PASS, DROP, TX, ABORTED or redirect(...)")
            if _RESULT in self.scope.found:
                at.refuse("this function returns a value elsewhere; return one here too")
            self.scope.assigned = None
            return [tree.Return(at, None)]
        value = self.expressions.expression(node.value)
        if self.main:
            value = self.expressions.coerce(value, VERDICT)
        elif isinstance(value.kind, (HeaderKind, RegionKind, StaticKind)) or value.kind == PACKET:
            value.at.refuse(
                f"a function cannot return {value.kind}; let it return a number or a flag"
            )
        known = self.scope.found.get(_RESULT)
        other = known or self.scope.before.get(_RESULT)
        kind = join(value.kind, other.kind) if other is not None else value.kind
        if kind is None:
            assert other is not None
            value.at.refuse(
                f"this returns {value.kind}, and the function returns {other.kind} elsewhere"
            )
        if known is None:
            known = self.scope.found[_RESULT] = Known(kind, *numbers.full(kind))
        elif known.kind != kind:
            known.kind = kind
            self.scope.changed = True
        value = self.expressions.coerce(value, kind)
        self.scope.assigned = None
        return [tree.Return(at, value)]

    # Assignments

    def _expression_statement(self, node: ast.Expr, at: Place) -> list[tree.Statement]:
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
        arguments = self.expressions._arguments(call, at, "add", 0, 1, ("count",))
        zero = tree.Constant(at, INT, value=0, low=0, high=0)
        count: tree.Expression = tree.Constant(at, U64, value=1, low=1, high=1)
        if arguments:
            count = self.expressions.coerce(self.expressions.number(arguments[0]), U64)
        return [self._update(counter, zero, None, "+", count, at)]

    def _raw_store(
        self, base: tree.Expression, call: ast.Call, size: int, at: Place
    ) -> list[tree.Statement]:
        offset, value = self.expressions._arguments(call, at, "set", 2)
        return [
            tree.RawStore(
                at, base, self.expressions.offset(offset), self.expressions.number(value), size
            )
        ]

    def _assign(self, node: ast.Assign, at: Place) -> list[tree.Statement]:
        if len(node.targets) > 1:
            at.refuse("assign to one thing at a time")
        target = node.targets[0]
        if isinstance(target, (ast.Tuple, ast.List)):
            return self._unpack(target, node.value, at)
        return self._store(target, self.expressions.expression(node.value), at)

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
            stored = self._store(element, local, at)
            statements += stored
        return statements

    def _store(self, target: ast.expr, value: tree.Expression, at: Place) -> list[tree.Statement]:
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

    def _augmented(self, node: ast.AugAssign, at: Place) -> list[tree.Statement]:
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
        return self._store(target, self.expressions.arithmetic(operator, old, value, at), at)

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

    def _delete(self, target: ast.expr) -> tree.Statement:
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

    # Ways

    def _if(self, node: ast.If, at: Place) -> list[tree.Statement]:
        condition = self.expressions.condition(node.test)
        before = self.scope.assigned
        assert before is not None
        self.scope.assigned = set(before)
        then = self.block(node.body)
        after_then, self.scope.assigned = self.scope.assigned, set(before)
        otherwise = self.block(node.orelse)
        after_otherwise = self.scope.assigned
        if isinstance(condition, tree.Constant):
            # The other way is checked all the same, so that a flag of the module hides no mistake.
            self.scope.assigned = after_then if condition.value else after_otherwise
            return then if condition.value else otherwise
        self.scope.assigned = _meet(after_then, after_otherwise)
        return [tree.If(at, condition, then, otherwise)]

    def _for(self, node: ast.For, at: Place) -> list[tree.Statement]:
        if node.orelse:
            at.refuse("else of a loop cannot be compiled; set a flag before break")
        if not isinstance(node.target, ast.Name):
            self.place(node.target).refuse("a loop counts in one variable")
        name = node.target.id
        called = node.iter
        if isinstance(called, ast.Call):
            function = self.expressions.expression(called.func)
            if isinstance(function, tree.Static) and function.value is range:
                return [self._for_range(node, name, called, at)]
        values = self._for_values(node.iter)
        if values is None:
            self.place(node.iter).refuse(
                "a loop runs over range(...) or over a tuple of constants, so that it ends"
            )
        if not values:
            return []
        before = self._enter_loop()
        for value in values:
            variable = self.scope.assign(name, value)
        body = self.block(node.body)
        after = self._leave_loop(before, body, at_least_once=True)
        self.scope.assigned = after | {name}
        constants = [self.expressions.coerce(value, variable.kind) for value in values]
        return [
            tree.ForEach(at, variable, [c for c in constants if isinstance(c, tree.Constant)], body)
        ]

    def _for_values(self, node: ast.expr) -> list[tree.Constant] | None:
        value = self.expressions.expression(node)
        if isinstance(value, tree.Static) and isinstance(value.value, (tuple, list, range)):
            if len(value.value) > MOST_TRIPS:
                value.at.refuse(
                    f"the loop would run {len(value.value)} times; {MOST_TRIPS} at most"
                )
            elements = [self.scope.static(element, value.at) for element in value.value]
        elif isinstance(value, tree.TupleOf):
            elements = list(value.parts)
        else:
            return None
        constants = [element for element in elements if isinstance(element, tree.Constant)]
        return constants if len(constants) == len(elements) else None

    def _for_range(self, node: ast.For, name: str, call: ast.Call, at: Place) -> tree.Statement:
        if call.keywords or not 1 <= len(call.args) <= 3:
            at.refuse("range takes one to three numbers")
        numbers_of = [
            self.expressions.coerce(self.expressions.number(argument), INT)
            for argument in call.args
        ]
        zero: tree.Expression = tree.Constant(at, INT, value=0, low=0, high=0)
        start, stop = (zero, numbers_of[0]) if len(numbers_of) == 1 else numbers_of[:2]
        step = 1
        if len(numbers_of) == 3:
            if not isinstance(numbers_of[2], tree.Constant) or numbers_of[2].value == 0:
                numbers_of[2].at.refuse("the step of a range is a constant other than 0")
            step = numbers_of[2].value
        span = stop.high - start.low if step > 0 else start.high - stop.low
        trips = max(0, -(-span // abs(step)))
        if trips > MOST_TRIPS:
            stop.at.refuse(
                f"the loop has no bound below {MOST_TRIPS} turns that the compiler can see; write "
                "range(min(n, 64)) with the most that makes sense"
            )
        fixed = isinstance(start, tree.Constant) and isinstance(stop, tree.Constant)
        before = self._enter_loop()
        last = max(start.low, stop.high - 1) if step > 0 else start.high
        first = start.low if step > 0 else min(start.high, stop.low + 1)
        counted = tree.Local(at, INT, low=min(first, last), high=max(first, last))
        variable = self.scope.assign(name, counted)
        body = self.block(node.body)
        after = self._leave_loop(before, body, at_least_once=fixed and trips > 0)
        if fixed and trips > 0:
            after = after | {name}
        self.scope.assigned = after
        return tree.For(at, variable, start, stop, step, body, trips)

    def _enter_loop(self) -> set[str]:
        assert self.scope.assigned is not None
        before = self.scope.assigned
        self.scope.assigned = set(before)
        return before

    def _leave_loop(
        self, before: set[str], body: list[tree.Statement], *, at_least_once: bool
    ) -> set[str]:
        inside = self.scope.assigned
        plain = not any(
            isinstance(statement, (tree.Break, tree.Continue))
            for statement in _all_statements(body)
        )
        if at_least_once and plain and inside is not None:
            return inside
        return set(before)


def _loaded(target: ast.expr) -> ast.expr:
    """The target of an assignment as an expression that reads it."""
    loaded: ast.expr = type(target)(**{**dict(ast.iter_fields(target)), "ctx": ast.Load()})
    return ast.copy_location(loaded, target)


def _meet(first: set[str] | None, second: set[str] | None) -> set[str] | None:
    if first is None or second is None:
        return second if first is None else first
    return first & second


def _all_statements(body: Sequence[tree.Statement]) -> list[tree.Statement]:
    """Statements and those inside them."""
    found: list[tree.Statement] = []
    waiting = list(body)
    while waiting:
        statement = waiting.pop()
        found.append(statement)
        match statement:
            case tree.If(then=then, otherwise=otherwise):
                waiting += [*then, *otherwise]
            case tree.For(body=inner) | tree.ForEach(body=inner):
                waiting += inner
    return found
