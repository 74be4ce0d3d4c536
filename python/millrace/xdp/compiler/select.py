"""From the SSA form to instructions: which instruction computes what, and how constants go in."""

from __future__ import annotations

from typing import Any

from millrace.xdp.compiler.graph import MOST_OFFSET, Access, Piece
from millrace.xdp.compiler.machine import (
    FIRST_VIRTUAL,
    FRAME,
    HELPERS,
    Code,
    Instruction,
    Section,
)
from millrace.xdp.compiler.operations import LITTLE
from millrace.xdp.compiler.ranges import Ranges
from millrace.xdp.compiler.simplify import COMMUTATIVE
from millrace.xdp.compiler.ssa import Block, Finish, Function, Node
from millrace.xdp.compiler.thread import signed

_NARROW = 0xFFFFFFFF
_MIRRORED = {
    "ule": "uge",
    "ult": "ugt",
    "sle": "sge",
    "slt": "sgt",
    "eq": "eq",
    "ne": "ne",
    "test": "test",
}
_SIMPLE = frozenset(("add", "sub", "mul", "div", "mod", "and", "or", "xor", "shl", "shr", "sar"))


def select(function: Function) -> Code:
    """The instructions of a program."""
    return _Selection(function).run()


def _small(value: int) -> bool:
    """Whether a number is what an instruction can hold: 32 bits, extended with their sign."""
    return -(1 << 31) <= signed(value) < 1 << 31


class _Selection:
    def __init__(self, function: Function) -> None:
        self.function = function
        self.ranges = Ranges(function)
        self.registers: dict[Node, int] = {}
        self.next = FIRST_VIRTUAL
        self.blocks = function.blocks()
        self.sections = {block: Section() for block in self.blocks}
        self.uses = self._count_uses()
        self.stack = 0
        self.slots: dict[Any, int] = {}
        #: What is on the stack: the value at each place, by place and size.
        self.filled: dict[tuple[int, int], Node] = {}
        self.filled_after: dict[Block, dict[tuple[int, int], Node]] = {}
        self.now = Section()
        self.line = 0
        self.block = function.entry

    def _count_uses(self) -> dict[Node, int]:
        uses: dict[Node, int] = {}
        for block in self.blocks:
            for node in (*block.phis, *block.nodes):
                for argument in node.arguments:
                    uses[argument] = uses.get(argument, 0) + 1
            for argument in block.finish.arguments:
                uses[argument] = uses.get(argument, 0) + 1
        return uses

    def run(self) -> Code:
        for block, depth in _depths(self.blocks).items():
            self.sections[block].depth = depth
        for block in self.blocks:
            self.block = block
            self.now = self.sections[block]
            self.filled = self._filled_before(block)
            for phi in block.phis:
                self._register(phi)
            for node in block.nodes:
                self.line = node.line
                self._node(node)
            self.line = block.finish.line
            self._finish(block)
            self.filled_after[block] = self.filled
        order = [self.sections[block] for block in self.blocks]
        order += self._phis()
        return Code(order, self.next, self.stack)

    # Registers and constants

    def _fresh(self) -> int:
        self.next += 1
        return self.next - 1

    def _register(self, node: Node) -> int:
        """The register of a node; a constant gets one each time it is needed."""
        if node.op == "const":
            return self._constant(node.imm)
        if node not in self.registers:
            self.registers[node] = self._fresh()
        return self.registers[node]

    def _constant(self, value: int, target: int | None = None) -> int:
        target = self._fresh() if target is None else target
        if _small(value):
            self._alu("mov", target, imm=signed(value))
        elif value <= _NARROW:
            self._alu("mov", target, imm=_as_imm(value), narrow=True)
        else:
            self._put(Instruction("wide", target, object=value))
        return target

    def _put(self, instruction: Instruction) -> None:
        instruction.line = self.line
        self.now.instructions.append(instruction)

    def _alu(
        self,
        name: str,
        target: int,
        source: int | None = None,
        *,
        imm: int = 0,
        narrow: bool = False,
    ) -> None:
        self._put(Instruction("alu", target, source, imm, name, narrow=narrow))

    def _move(self, target: int, node: Node) -> None:
        if node.op == "const":
            self._constant(node.imm, target)
        else:
            self._alu("mov", target, self._register(node))

    def _is_narrow(self, node: Node) -> bool:
        low, high = self.ranges.of(node, self.block)
        return low >= 0 and high <= _NARROW

    # Nodes

    def _node(self, node: Node) -> None:
        op = node.op
        if op in _SIMPLE:
            self._arithmetic(node)
            return
        arguments = node.arguments
        match op:
            case "argument":
                self._alu("mov", self._register(node), 1)
            case "context":
                source = self._register(arguments[0])
                self._load(self._register(node), source, node.imm, 4)
            case "load":
                offset, size, _ = node.imm
                self._load(self._register(node), self._register(arguments[0]), offset, size)
            case "store":
                offset, size, _ = node.imm
                self._store(self._register(arguments[0]), offset, size, arguments[1])
            case "swap":
                target = self._register(node)
                self._move(target, arguments[0])
                self._put(Instruction("swap", target, imm=node.imm))
            case "sext":
                target = self._register(node)
                self._move(target, arguments[0])
                self._alu("shl", target, imm=64 - node.imm)
                self._alu("sar", target, imm=64 - node.imm)
            case "pconst":
                target = self._register(node)
                self._move(target, arguments[0])
                self._alu("add", target, imm=node.imm)
            case "padd":
                by = self._bounded(arguments[1])
                target = self._register(node)
                self._move(target, arguments[0])
                self._alu("add", target, by)
            case "span":
                target = self._register(node)
                self._move(target, arguments[0])
                self._alu("sub", target, self._register(arguments[1]))
            case "value":
                self._put(Instruction("value", self._register(node), object=node.imm))
            case "interface":
                name = self.function.interfaces[node.imm]
                self._put(Instruction("interface", self._register(node), object=name))
            case "atomic":
                name, offset, size = node.imm
                target, source = self._register(arguments[0]), self._register(arguments[1])
                self._put(
                    Instruction("atomic", target, source, name=name, offset=offset, size=size)
                )
            case _:
                self._call(node)

    def _bounded(self, node: Node) -> int:
        """The register of a number that moves a pointer, with bounds that the verifier knows."""
        if _followed(node, set()):
            return self._register(node)
        by = self._fresh()
        self._move(by, node)
        self._alu("and", by, imm=MOST_OFFSET)
        return by

    def _load(self, target: int, source: int, offset: int, size: int) -> None:
        self._put(Instruction("load", target, source, offset=offset, size=size))

    def _store(self, target: int, offset: int, size: int, value: Node) -> None:
        if value.value is not None:
            number = value.value & ((1 << (8 * size)) - 1)
            if size == 8 and _small(number):
                number = signed(number)
            elif size == 4:
                number = number - (1 << 32) if number >> 31 else number
            if -(1 << 31) <= number < 1 << 31:
                self._put(Instruction("store", target, imm=number, offset=offset, size=size))
                return
        source = self._register(value)
        self._put(Instruction("store", target, source, offset=offset, size=size))

    def _arithmetic(self, node: Node) -> None:
        op = node.op
        left, right = node.arguments
        if op == "sub" and left.value == 0:
            target = self._register(node)
            self._move(target, right)
            self._alu("neg", target)
            return
        if (
            op in COMMUTATIVE
            and right.op != "const"
            and self.uses[right] == 1
            and self.uses[left] > 1
        ):
            left, right = right, left
        target = self._register(node)
        constant = right.value
        if constant is None:
            source = self._register(right)
            self._move(target, left)
            self._alu(op, target, source)
            return
        narrow = False
        if op == "and" and constant <= _NARROW:
            # 32 bits suffice, and clear the rest.
            narrow = not _small(constant)
        elif not _small(constant) and constant <= _NARROW and op in ("or", "xor", "add"):
            narrow = self._is_narrow(left) and self._is_narrow(node)
        if not _small(constant) and not narrow:
            source = self._constant(constant)
            self._move(target, left)
            self._alu(op, target, source)
            return
        self._move(target, left)
        self._alu(op, target, imm=_as_imm(constant), narrow=narrow)

    # Calls

    def _slot(self, what: str, pieces: tuple[Piece, ...], size: int) -> int:
        """The place on the stack of keys or values of one size."""
        phase = 0 if _aligned(pieces, 0) >= _aligned(pieces, 4) else 4
        key = (what, size, phase)
        if key not in self.slots:
            end = -(-(self.stack + size + phase) // 8) * 8
            self.stack = end
            self.slots[key] = phase - end
        return self.slots[key]

    def _filled_before(self, block: Block) -> dict[tuple[int, int], Node]:
        """What is on the stack whichever way a block is reached."""
        before = [self.filled_after.get(source) for source in block.before]
        known = [filled for filled in before if filled is not None]
        if not known or len(known) < len(before):
            return {}
        return {
            place: node
            for place, node in known[0].items()
            if all(other.get(place) is node for other in known[1:])
        }

    def _fill(self, slot: int, pieces: tuple[Piece, ...], values: list[Node]) -> None:
        """Put the pieces of a key or a value on the stack."""
        for piece, value in zip(pieces, values, strict=True):
            place = (slot + piece.offset, piece.size)
            if self.filled.get(place) is value:
                continue
            self.filled = {
                (at, size): node
                for (at, size), node in self.filled.items()
                if at + size <= place[0] or place[0] + place[1] <= at
            }
            self.filled[place] = value
            self._fill_piece(*place, value)

    def _fill_piece(self, at: int, size: int, value: Node) -> None:
        if at % size == 0:
            self._store(FRAME, at, size, value)
            return
        # The verifier wants what is on the stack aligned.
        part = size
        while at % part:
            part //= 2
        source = self._fresh()
        self._move(source, value)
        for done in range(0, size, part):
            place = done if LITTLE else size - part - done
            self._put(Instruction("store", FRAME, source, offset=at + place, size=part))
            if done + part < size:
                self._alu("shr", source, imm=8 * part)

    def _call(self, node: Node) -> None:
        arguments = node.arguments
        reads: tuple[int, ...] = ()
        name = node.op
        match node.op:
            case "lookup" | "delete" | "update":
                access: Access = node.imm
                keys = len(access.key)
                slot = self._slot("key", access.key, access.key_size)
                self._fill(slot, access.key, arguments[:keys])
                reads = (1, 2)
                if node.op == "update":
                    value_slot = self._slot("value", access.value, access.value_size)
                    self._fill(value_slot, access.value, arguments[keys:])
                    self._address(3, value_slot)
                    self._alu("mov", 4, imm=access.flags)
                    reads = (1, 2, 3, 4)
                self._address(2, slot)
                self._put(Instruction("map", 1, object=access.map))
            case "redirect":
                self._move(1, arguments[0])
                self._alu("mov", 2, imm=0)
                reads = (1, 2)
            case "redirect_map":
                used, default = node.imm
                self._move(2, arguments[0])
                self._alu("mov", 3, imm=default)
                self._put(Instruction("map", 1, object=used))
                reads = (1, 2, 3)
            case "helper":
                name = node.imm
            case _:
                raise AssertionError(node)
        self._put(Instruction("call", imm=HELPERS[name], name=name, reads=reads))
        if self.uses.get(node):
            self._alu("mov", self._register(node), 0)

    def _address(self, target: int, slot: int) -> None:
        self._alu("mov", target, FRAME)
        self._alu("add", target, imm=slot)

    # Ends

    def _finish(self, block: Block) -> None:
        finish = block.finish
        match finish.kind:
            case "return":
                self._move(0, finish.arguments[0])
                self._put(Instruction("exit"))
            case "jump":
                self._put(Instruction("jump", to=self.sections[finish.targets[0]]))
            case "check":
                limit = self._register(finish.arguments[0])
                if finish.size:
                    limit = self._fresh()
                    self._move(limit, finish.arguments[0])
                    self._alu("add", limit, imm=finish.size)
                end = self._register(finish.arguments[1])
                self._branch(finish, "ugt", limit, end, turned=True)
            case "branch":
                self._compare(finish)

    def _branch(
        self,
        finish: Finish,
        name: str,
        left: int,
        right: int | None,
        *,
        imm: int = 0,
        narrow: bool = False,
        turned: bool = False,
    ) -> None:
        yes, no = (self.sections[target] for target in finish.targets)
        if turned:
            yes, no = no, yes
        self._put(Instruction("branch", left, right, imm, name, narrow=narrow, to=yes))
        self.now.other = no

    def _compare(self, finish: Finish) -> None:
        left, right = finish.arguments
        name = finish.condition
        if left.op == "const":
            left, right, name = right, left, _MIRRORED[name]
        constant = right.value
        if constant is None:
            self._branch(finish, name, self._register(left), self._register(right))
            return
        if _small(constant):
            self._branch(finish, name, self._register(left), None, imm=signed(constant))
        elif constant <= _NARROW and name[0] != "s" and self._is_narrow(left):
            imm = _as_imm(constant)
            self._branch(finish, name, self._register(left), None, imm=imm, narrow=True)
        else:
            self._branch(finish, name, self._register(left), self._constant(constant))

    # Phis

    def _phis(self) -> list[Section]:
        """Give phis their values at the end of the ways to them; returns sections this takes."""
        added: list[Section] = []
        for block in self.blocks:
            if not block.phis:
                continue
            for source in block.before:
                moves = [(self._register(phi), phi.of(source)) for phi in block.phis]
                moves = [
                    (target, value)
                    for target, value in moves
                    if value.op == "const" or self._register(value) != target
                ]
                if not moves:
                    continue
                section = self.sections[source]
                if len(source.finish.targets) > 1:
                    section = self._split(section, self.sections[block])
                    section.depth = min(self.sections[source].depth, self.sections[block].depth)
                    added.append(section)
                self._parallel(section, moves)
        return added

    @staticmethod
    def _split(section: Section, target: Section) -> Section:
        """A section on the way from one to another."""
        between = Section([Instruction("jump", to=target)])
        last = section.instructions[-1]
        if last.to is target:
            last.to = between
        else:
            section.other = between
        return between

    def _parallel(self, section: Section, moves: list[tuple[int, Node]]) -> None:
        """Moves that all read before any writes."""
        end = section.instructions.pop()
        self.now, self.line = section, end.line
        constants = [(target, value) for target, value in moves if value.op == "const"]
        waiting = {target: self._register(value) for target, value in moves if value.op != "const"}
        while waiting:
            free = [target for target in waiting if target not in waiting.values()]
            if free:
                for target in free:
                    self._alu("mov", target, waiting.pop(target))
                continue
            # All that is left goes round: one of them steps aside.
            target = next(iter(waiting))
            aside = self._fresh()
            self._alu("mov", aside, target)
            waiting = {t: aside if source == target else source for t, source in waiting.items()}
        for target, value in constants:
            self._constant(value.imm, target)
        section.instructions.append(end)


def _followed(node: Node, seen: set[Node]) -> bool:
    """Whether the verifier follows what a number can be; of a division it knows nothing."""
    if node in seen or node.op in ("const", "load", "swap"):
        return True
    seen.add(node)
    if node.op == "and":
        return any(_followed(argument, seen) for argument in node.arguments)
    if node.op in ("add", "sub", "mul", "or", "xor", "shl", "shr", "phi"):
        return all(_followed(argument, seen) for argument in node.arguments)
    return False


def _as_imm(value: int) -> int:
    """The 32 bits of an instruction that mean this number."""
    value &= _NARROW
    return value - (1 << 32) if value >> 31 else value


def _aligned(pieces: tuple[Piece, ...], phase: int) -> int:
    return sum((phase + piece.offset) % piece.size == 0 for piece in pieces)


def _depths(blocks: list[Block]) -> dict[Block, int]:
    """How many loops each block is in."""
    position = {block: index for index, block in enumerate(blocks)}
    depth = dict.fromkeys(blocks, 0)
    for block in blocks:
        for target in block.finish.targets:
            if position[target] > position[block]:
                continue
            # A way back: all that leads from its target to here is the loop.
            inside = {target}
            waiting = [block]
            while waiting:
                member = waiting.pop()
                if member not in inside:
                    inside.add(member)
                    waiting += member.before
            for member in inside:
                depth[member] += 1
    return depth
