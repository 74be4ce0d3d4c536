"""What the subset of Python is: from a function to a typed tree, or to a message that says why not.

A function is looked at until the kinds of its variables no longer change, which is once or twice.
A call of another function gives an instance of it, for the kinds and constants of that call.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

from millrace.xdp.compiler import numbers, source, tree
from millrace.xdp.compiler.assignments import Assignments
from millrace.xdp.compiler.expressions import Expressions
from millrace.xdp.compiler.kinds import (
    INT,
    NOTHING,
    NUMBERS,
    PACKET,
    VERDICT,
    HeaderKind,
    Kind,
    RegionKind,
    StaticKind,
    join,
)
from millrace.xdp.compiler.session import MOST_DEPTH, Known, Options, Scope, Session
from millrace.xdp.compiler.source import Place
from millrace.xdp.maps import Map

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


class Statements(Assignments):
    """The statements of one function."""

    def __init__(self, scope: Scope, *, main: bool) -> None:
        super().__init__(scope, Expressions(scope, self._call), main=main)

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
        instance = tree.Function(node.name, at, parameters, NOTHING)
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
                return self.expression_statement(node, at)
            case ast.Assign():
                return self.assign(node, at)
            case ast.AnnAssign():
                if node.value is None:
                    return []
                return self.store(node.target, self.expressions.expression(node.value), at)
            case ast.AugAssign():
                return self.augmented(node, at)
            case ast.Delete():
                return [self.delete(target) for target in node.targets]
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
        if stop.high + abs(step) > tree.HIGHEST or stop.low - abs(step) < tree.LOWEST:
            stop.at.refuse("the loop counts to the end of 64 bits; bound it with min and max")
        if trips > MOST_TRIPS:
            stop.at.refuse(
                f"the loop has no bound below {MOST_TRIPS} turns that the compiler can see; write "
                "range(min(n, 64)) with the most that makes sense"
            )
        fixed = isinstance(start, tree.Constant) and isinstance(stop, tree.Constant)
        before = self._enter_loop()
        last = max(start.low, stop.high - 1) if step > 0 else start.high
        first = start.low if step > 0 else min(start.high, stop.low + 1)
        counted = tree.Expression(at, INT, low=min(first, last), high=max(first, last))
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
