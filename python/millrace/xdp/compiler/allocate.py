"""Registers: which of the machine's ten each value lives in, and which values live on the stack.

Colouring of the graph of values that live at the same time, with moves that become unnecessary
where both sides can share a register (Chaitin; Briggs for when that is safe).
"""

from __future__ import annotations

from millrace.xdp.compiler.machine import (
    FIRST_VIRTUAL,
    FRAME,
    Code,
    Instruction,
    Section,
)

_COLOURS = 10
_MOST_ROUNDS = 24
#: The verifier's limit (MAX_BPF_STACK).
MOST_STACK = 512


class StackOverflow(Exception):
    """More values at once than registers and stack can hold."""


def allocate(code: Code) -> None:
    """Give every virtual register one of the machine's, in place."""
    unspillable: set[int] = set()
    for _ in range(_MOST_ROUNDS):
        graph = _Interference(code)
        graph.coalesce()
        colours, spilled = graph.colour(unspillable)
        if not spilled:
            _rewrite(code, graph, colours)
            return
        _spill(code, graph, spilled, unspillable)
    raise StackOverflow


def live_out(code: Code) -> dict[Section, set[int]]:
    """The registers that matter at the end of each section."""
    gen: dict[Section, set[int]] = {}
    kill: dict[Section, set[int]] = {}
    for section in code.sections:
        used: set[int] = set()
        defined: set[int] = set()
        for instruction in section.instructions:
            used |= set(instruction.uses()) - defined
            defined |= set(instruction.defines())
        gen[section], kill[section] = used, defined
    live_in: dict[Section, set[int]] = {section: set() for section in code.sections}
    out: dict[Section, set[int]] = {section: set() for section in code.sections}
    changed = True
    while changed:
        changed = False
        for section in reversed(code.sections):
            after: set[int] = set()
            for target in section.targets():
                after |= live_in[target]
            now = gen[section] | (after - kill[section])
            if after != out[section] or now != live_in[section]:
                out[section], live_in[section] = after, now
                changed = True
    return out


class _Interference:
    """Which registers are in use at the same time."""

    def __init__(self, code: Code) -> None:
        self.code = code
        self.neighbours: dict[int, set[int]] = {register: set() for register in range(FRAME)}
        self.cost: dict[int, float] = {}
        self.moves: list[tuple[float, int, int]] = []
        self.alias: dict[int, int] = {}
        for register in range(FRAME):
            self.neighbours[register] = set(range(FRAME)) - {register}
        self._build()

    def _build(self) -> None:
        out = live_out(self.code)
        for section in self.code.sections:
            weight = 10.0 ** min(section.depth, 6)
            live = set(out[section])
            for instruction in reversed(section.instructions):
                uses, defines = instruction.uses(), instruction.defines()
                for register in (*uses, *defines):
                    self.neighbours.setdefault(register, set())
                    self.cost[register] = self.cost.get(register, 0.0) + weight
                live_after = live | set(defines)
                if instruction.is_move:
                    source, target = instruction.source, instruction.target
                    assert source is not None
                    assert target is not None
                    self.moves.append((-weight, target, source))
                    # A copy may share the register of what it is a copy of.
                    live_after.discard(source)
                for defined in defines:
                    for other in live_after:
                        self._join(defined, other)
                live -= set(defines)
                live |= set(uses)

    def _join(self, first: int, second: int) -> None:
        if first != second:
            self.neighbours.setdefault(first, set()).add(second)
            self.neighbours.setdefault(second, set()).add(first)

    def now(self, register: int) -> int:
        """The register that one has been made one with."""
        while register in self.alias:
            register = self.alias[register]
        return register

    def coalesce(self) -> None:
        """Make one of the two sides of moves, where that makes colouring no harder."""
        waiting = sorted(self.moves)
        changed = True
        while changed:
            changed = False
            left: list[tuple[float, int, int]] = []
            for move in waiting:
                a, b = self.now(move[1]), self.now(move[2])
                if a == b or b in self.neighbours[a]:
                    continue
                if a < FIRST_VIRTUAL and b < FIRST_VIRTUAL:
                    continue
                if b < FIRST_VIRTUAL:
                    a, b = b, a
                if self._safe(a, b):
                    self._unite(a, b)
                    changed = True
                else:
                    left.append(move)
            waiting = left

    def _safe(self, kept: int, gone: int) -> bool:
        if kept < FIRST_VIRTUAL:
            # Every neighbour is one already, or easy to colour (George).
            return all(
                len(self.neighbours[n]) < _COLOURS or n in self.neighbours[kept]
                for n in self.neighbours[gone]
            )
        united = self.neighbours[kept] | self.neighbours[gone]
        hard = sum(
            len(self.neighbours[n]) - (n in self.neighbours[kept] and n in self.neighbours[gone])
            >= _COLOURS
            or n < FIRST_VIRTUAL
            for n in united
        )
        return hard < _COLOURS

    def _unite(self, kept: int, gone: int) -> None:
        self.alias[gone] = kept
        for neighbour in self.neighbours.pop(gone):
            self.neighbours[neighbour].discard(gone)
            self._join(kept, neighbour)
        self.cost[kept] = self.cost.get(kept, 0.0) + self.cost.pop(gone, 0.0)

    def colour(self, unspillable: set[int]) -> tuple[dict[int, int], list[int]]:
        """Colours of all registers, or those that get none."""
        kept = {self.now(register) for register in unspillable}
        degree = {r: len(n) for r, n in self.neighbours.items() if r >= FIRST_VIRTUAL}
        removed: set[int] = set()
        stack: list[int] = []
        easy = [r for r, d in degree.items() if d < _COLOURS]
        waiting = set(degree)
        while waiting:
            if easy:
                register = easy.pop()
                if register not in waiting:
                    continue
            else:
                register = min(
                    waiting,
                    key=lambda r: (
                        r in kept,
                        self.cost.get(r, 0.0) / max(1, degree[r]),
                        r,
                    ),
                )
            waiting.discard(register)
            removed.add(register)
            stack.append(register)
            for neighbour in self.neighbours[register]:
                if neighbour in waiting:
                    degree[neighbour] -= 1
                    if degree[neighbour] == _COLOURS - 1:
                        easy.append(neighbour)
        colours = {register: register for register in range(FRAME)}
        spilled: list[int] = []
        for register in reversed(stack):
            taken = {colours[n] for n in self.neighbours[register] if n in colours}
            free = [colour for colour in range(_COLOURS) if colour not in taken]
            if free:
                colours[register] = free[0]
            else:
                spilled.append(register)
        return colours, spilled


def _rewrite(code: Code, graph: _Interference, colours: dict[int, int]) -> None:
    """Put the machine's registers in, and drop moves onto themselves."""

    def machine(register: int | None) -> int | None:
        if register is None or register == FRAME:
            return register
        return colours[graph.now(register)]

    for section in code.sections:
        kept = []
        for instruction in section.instructions:
            instruction.target = machine(instruction.target)
            instruction.source = machine(instruction.source)
            if not (instruction.is_move and instruction.target == instruction.source):
                kept.append(instruction)
        section.instructions = kept
    _skip_jumps(code)


def _skip_jumps(code: Code) -> None:
    """Lead past sections that do nothing but jump."""

    def end_of(section: Section) -> Section:
        for _ in range(len(code.sections)):
            only = section.instructions[0]
            if only.op != "jump" or only.to is None:
                break
            section = only.to
        return section

    for section in code.sections:
        last = section.instructions[-1]
        if last.to is not None:
            last.to = end_of(last.to)
        if section.other is not None:
            section.other = end_of(section.other)


def _spill(code: Code, graph: _Interference, spilled: list[int], unspillable: set[int]) -> None:
    """Let values live on the stack, with a register only where they are used."""
    slots: dict[int, int] = {}
    base = -(-code.stack // 8) * 8
    for register in spilled:
        # Values that do not live at the same time share a place.
        taken = {slots[n] for n in graph.neighbours[register] if n in slots}
        slot = -base - 8
        while slot in taken:
            slot -= 8
        slots[register] = slot
    code.stack = max(code.stack, -min(slots.values()))
    if code.stack > MOST_STACK:
        raise StackOverflow
    for section in code.sections:
        written: list[Instruction] = []
        for instruction in section.instructions:
            touched = {
                graph.now(register)
                for register in (*instruction.uses(), *instruction.defines())
                if graph.now(register) in slots
            }
            before: list[Instruction] = []
            after: list[Instruction] = []
            for register in touched:
                fresh, code.registers = code.registers, code.registers + 1
                unspillable.add(fresh)
                slot = slots[register]
                line = instruction.line
                if any(graph.now(used) == register for used in instruction.uses()):
                    before.append(Instruction("load", fresh, FRAME, offset=slot, line=line))
                if any(graph.now(used) == register for used in instruction.defines()):
                    after.append(Instruction("store", FRAME, fresh, offset=slot, line=line))
                for name in ("target", "source"):
                    value = getattr(instruction, name)
                    if value is not None and value != FRAME and graph.now(value) == register:
                        setattr(instruction, name, fresh)
            written += [*before, instruction, *after]
        section.instructions = written
