"""From the typed tree to the graph: statements and control flow. Expressions are in `values`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from millrace.xdp import headers
from millrace.xdp.compiler import graph, tree
from millrace.xdp.compiler.accesses import Accesses
from millrace.xdp.compiler.graph import Block, Graph, Return
from millrace.xdp.compiler.kinds import HeaderKind, Kind, RegionKind, StaticKind
from millrace.xdp.compiler.operations import Value, flatten
from millrace.xdp.compiler.packets import HEADER_TAGS
from millrace.xdp.compiler.session import Options
from millrace.xdp.maps import Map, PerCpuArray

#: A loop is written out if it has no more turns, and its body no more statements and expressions,
#: than make this product.
_UNROLL_TURNS = 32
_UNROLL_SIZE = 160
#: What the graph may come to before it is made smaller.
MOST_OPERATIONS = 40_000


@dataclass
class _Loop:
    after: Block
    again: Block


@dataclass
class _Frame:
    """A function that is being compiled in place."""

    function: tree.Function
    after: Block | None = None
    result: Value = ()
    loops: list[_Loop] = field(default_factory=list)


def lower(program: tree.Function, options: Options, counted: Map | None) -> Graph:
    """The graph of a program. With `counted`, it counts its verdicts there."""
    lowering = _Lowering(options, counted)
    lowering.frames.append(_Frame(program))
    lowering.at = program.at
    lowering.block(program.body)
    return Graph(lowering.entry, lowering.registers, lowering.interfaces)


def verdict_counters() -> PerCpuArray:
    """The map of a program that counts: one number for each verdict, and one for faults."""
    return PerCpuArray(6, name="verdicts")


class _Lowering(Accesses):
    """Statements."""

    def __init__(self, options: Options, counted: Map | None) -> None:
        super().__init__(options)
        self.frames: list[_Frame] = []
        self.counted = counted
        self.fault_block = self._fault()

    def _fault(self) -> Block:
        block = Block()
        entry, self.current = self.current, block
        verdict = self.constant(int(self.options.on_error))
        self._finish(verdict, self.constant(5))
        self.current = entry
        return block

    def _finish(self, verdict: int, index: int) -> None:
        """End with a verdict, counted by this index."""
        if self.counted is not None:
            found, after = Block(), Block()
            address = self.lookup(self.counted, index)
            zero = self.constant(0)
            self.branch("eq", address, zero, after, found)
            self.current = found
            memory = graph.MAP_MEMORY
            count = self.emit("load", address, memory, imm=(0, 8, "map"))
            count = self.emit("add", count, self.constant(1))
            self.emit_to(memory, "store", address, count, memory, imm=(0, 8, "map"))
            self.jump(after)
            self.current = after
        self.current.end = Return(verdict, self.at.line)

    def block(self, statements: Sequence[tree.Statement]) -> None:
        """Statements; `current` is where they go on, whether a way leads there or not."""
        for statement in statements:
            self.at = statement.at
            if self.emitted > MOST_OPERATIONS:
                statement.at.refuse(
                    f"the program is too large: more than {MOST_OPERATIONS} operations once loops "
                    "are written out and functions are compiled in place"
                )
            self.statement(statement)

    def statement(self, statement: tree.Statement) -> None:
        match statement:
            case tree.Assign(targets=[target], value=value):
                if not _is_static(value.kind):
                    self.set_variable(target, self.value(value))
            case tree.SetField():
                self._set_field(statement)
            case tree.RawStore():
                self._raw_store(statement)
            case tree.MapSet(map=used, key=key, value=value):
                stored = self.value(value)
                self.map_set(used, self.value(key), stored)
            case tree.MapUpdate():
                self._map_update(statement)
            case tree.MapDelete(map=used, key=key):
                self.map_delete(used, self.value(key))
            case tree.If(condition=condition, then=then, otherwise=otherwise):
                yes, no, after = Block(), Block(), Block()
                self.condition(condition, yes, no if otherwise else after)
                for first, body in ((yes, then), (no, otherwise)):
                    if body or first is yes:
                        self.current = first
                        self.block(body)
                        self.jump(after)
                self.current = after
            case tree.For():
                self._for(statement)
            case tree.ForEach(variable=variable, values=values, body=body):
                self._unrolled(variable, [self.value_thunk(value) for value in values], body)
            case tree.Break():
                self._leave(self.frames[-1].loops[-1].after)
            case tree.Continue():
                self._leave(self.frames[-1].loops[-1].again)
            case tree.Return(value=value):
                self._return(value)
            case tree.Evaluate(value=value):
                assert isinstance(value, tree.Call)
                self.call(value)
            case _:
                raise AssertionError(statement)

    def _leave(self, target: Block) -> None:
        self.jump(target)
        self.current = Block()  # no way leads here

    def value_thunk(self, value: tree.Expression) -> Any:
        return lambda: self.value(value)

    def _return(self, value: tree.Expression | None) -> None:
        frame = self.frames[-1]
        result = () if value is None else self.value(value)
        if frame.after is None:
            verdict = flatten(result)[0]
            self._finish(verdict, verdict)
        else:
            for target, source in zip(flatten(frame.result), flatten(result), strict=True):
                self.emit_to(target, "copy", source)
            self.jump(frame.after)
        self.current = Block()

    def call(self, call: tree.Call) -> Value:
        """A function compiled in place; its result."""
        function = call.function
        for parameter, argument in zip(function.parameters, call.arguments, strict=True):
            if not _is_static(argument.kind) and not _is_static(parameter.kind):
                self.set_variable(parameter, self.value(argument))
        frame = _Frame(function, Block(), self.fresh(function.kind))
        self.frames.append(frame)
        self.block(function.body)
        assert frame.after is not None
        self.jump(frame.after)
        self.frames.pop()
        self.current = frame.after
        self.at = call.at
        return frame.result

    # Loops

    def _for(self, loop: tree.For) -> None:
        start, stop = loop.start, loop.stop
        fixed = isinstance(start, tree.Constant) and isinstance(stop, tree.Constant)
        if fixed:
            assert isinstance(start, tree.Constant)
            assert isinstance(stop, tree.Constant)
            turns = range(start.value, stop.value, loop.step)
            if not turns:
                return
            if len(turns) <= _UNROLL_TURNS and len(turns) * _size(loop.body) <= _UNROLL_SIZE:
                thunks = [lambda turn=turn: self.constant(turn) for turn in turns]
                self._unrolled(loop.variable, thunks, loop.body)
                return
        counter = self.register()
        self.emit_to(counter, "copy", self.number(start))
        last = self.register()
        self.emit_to(last, "copy", self.number(stop))
        body, again, after = Block(), Block(), Block()

        def test() -> None:
            sides = (counter, last) if loop.step > 0 else (last, counter)
            self.branch("slt", *sides, body, after)

        if fixed:
            self.jump(body)
        else:
            test()
        self.current = body
        self.set_variable(loop.variable, counter)
        self.frames[-1].loops.append(_Loop(after, again))
        self.block(loop.body)
        self.frames[-1].loops.pop()
        self.jump(again)
        self.current = again
        self.at = loop.at
        self.emit_to(counter, "add", counter, self.constant(loop.step))
        test()
        self.current = after

    def _unrolled(
        self, variable: tree.Variable, values: Sequence[Any], body: Sequence[tree.Statement]
    ) -> None:
        after = Block()
        for value in values:
            again = Block()
            self.set_variable(variable, value())
            self.frames[-1].loops.append(_Loop(after, again))
            self.block(body)
            self.frames[-1].loops.pop()
            self.jump(again)
            self.current = again
        self.jump(after)
        self.current = after

    # Writes

    def _set_field(self, statement: tree.SetField) -> None:
        table = headers.HEADERS[statement.header]
        field_ = table.fields[statement.name]
        value = self.value(statement.value)
        self.require(statement.header)
        tag = "sum" if statement.name == "checksum" else HEADER_TAGS[statement.header]
        pointer = self.header_pointer(statement.header)
        pairs: list[tuple[int, int, int, int]] = []
        for offset, size, new in self.field_pieces(field_, pointer, value, tag):
            old = self.emit("load", pointer, graph.PACKET_MEMORY, imm=(offset, size, tag))
            memory = graph.PACKET_MEMORY
            self.emit_to(memory, "store", pointer, new, memory, imm=(offset, size, tag))
            pairs.append((old, new, size, offset))
        if table.checksum is not None and statement.name != "checksum":
            self._follow(statement.header, pairs)
        if field_.pseudo:
            self._follow_transport(pairs)

    def _follow(self, header: str, pairs: Sequence[tuple[int, int, int, int]]) -> None:
        """Let a header's checksum follow what changed."""
        table = headers.HEADERS[header]
        assert table.checksum is not None
        arguments: list[int] = []
        kinds: list[tuple[int, int]] = []
        for old, new, size, offset in pairs:
            arguments += [old, new]
            # A byte's place in its word of 16 bits, as the machine loads that.
            kinds.append((size, self.byte_weight(offset) if size == 1 else 1))
        imm = graph.Sum(table.checksum, table.zero_is_none, tuple(kinds), HEADER_TAGS[header])
        memory = graph.PACKET_MEMORY
        pointer = self.header_pointer(header)
        self.emit_to(memory, "checksum", pointer, memory, *arguments, imm=imm)

    def _follow_transport(self, pairs: Sequence[tuple[int, int, int, int]]) -> None:
        after = Block()
        for header in ("udp", "tcp", "icmpv6"):
            yes, no = Block(), Block()
            self.query(header, yes, no)
            self.current = yes
            self._follow(header, pairs)
            self.jump(after)
            self.current = no
        self.jump(after)
        self.current = after

    def _raw_store(self, statement: tree.RawStore) -> None:
        value = self.number(statement.value)
        pointer, offset = self.raw_place(statement.base, statement.offset, statement.size)
        if statement.size > 1:
            value = self.swap(value, 8 * statement.size)
        memory = graph.PACKET_MEMORY
        imm = (offset, statement.size, "raw")
        self.emit_to(memory, "store", pointer, value, memory, imm=imm)
        self.current.forgets = True
        after = Block()
        self.jump(after)
        self.current = after

    def _map_update(self, update: tree.MapUpdate) -> None:
        key = self.value(update.key)
        operand = self.value(update.value)
        self.set_variable(update.operand, operand)

        def result(old: int) -> int:
            self.set_variable(update.old, old)
            return self.number(update.result)

        self.map_update(update.map, key, update.part, update.operator, flatten(operand)[0], result)


def _is_static(kind: Kind) -> bool:
    return isinstance(kind, (HeaderKind, RegionKind, StaticKind)) or str(kind) == "the packet"


def _size(body: Sequence[tree.Statement]) -> int:
    """How much a body comes to, roughly."""
    waiting: list[Any] = list(body)
    size = 0
    while waiting:
        node = waiting.pop()
        if isinstance(node, (tree.Statement, tree.Expression)):
            size += 4 if isinstance(node, (tree.MapGet, tree.MapUpdate, tree.MapSet)) else 1
            waiting += [getattr(node, name) for name in node.__dataclass_fields__]
            if isinstance(node, tree.For):
                size += _UNROLL_SIZE  # loops within loops stay loops
        elif isinstance(node, (list, tuple)):
            waiting += node
        elif isinstance(node, tree.Function):
            waiting += node.body
    return size
