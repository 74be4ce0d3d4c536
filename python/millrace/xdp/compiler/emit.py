"""From instructions to bytes: the order of sections, jumps, and the Python line of each slot."""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass, field
from typing import Any

from millrace.xdp.compiler.machine import ALU, ATOMICS, JUMPS, OPPOSITE, Code, Instruction, Section

_SIZES = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}
_SOURCE_REGISTER = 0x08
_WIDE = 0x18
_PSEUDO_MAP_FD, _PSEUDO_MAP_VALUE = 1, 2
#: What a jump reaches; the kernel takes longer programs, with jumps of another kind.
MOST_SLOTS = 32_767


class TooLong(Exception):
    """More instructions than jumps can reach across."""


@dataclass
class Assembled:
    """A program as the kernel takes it, but for what only exists when it is loaded."""

    code: bytes
    #: The Python line that each slot comes from; 0 where there is none.
    lines: list[int]
    #: Slots whose constant is a map's descriptor, or for the second kind an interface's index.
    maps: list[tuple[int, Any]] = field(default_factory=list)
    interfaces: list[tuple[int, str]] = field(default_factory=list)

    @property
    def slots(self) -> int:
        """Slots of eight bytes; some instructions take two."""
        return len(self.code) // 8

    @property
    def instructions(self) -> int:
        """Instructions."""
        return sum(1 for _ in self.each())

    def each(self) -> list[int]:
        """The slot of each instruction."""
        found, at = [], 0
        while at < self.slots:
            found.append(at)
            at += 2 if self.code[8 * at] == _WIDE else 1
        return found

    def with_objects(self, descriptors: dict[int, int], indices: dict[str, int]) -> bytes:
        """The bytes with descriptors of maps (by the object's id) and indices of interfaces."""
        code = bytearray(self.code)
        for slot, used in self.maps:
            struct.pack_into("=i", code, 8 * slot + 4, descriptors[id(used)])
        for slot, name in self.interfaces:
            struct.pack_into("=i", code, 8 * slot + 4, indices[name])
        return bytes(code)


def emit(code: Code) -> Assembled:
    """The bytes of a program."""
    orders = [_matched(code.sections[0]), _traced(code.sections[0])]
    return _Emitter(min(orders, key=_jumps)).run()


def _jumps(order: list[Section]) -> int:
    """Jumps that sections in this order need beside those that decide something."""
    count = 0
    for section, following in zip(order, [*order[1:], None], strict=True):
        last = section.instructions[-1]
        if last.op == "jump":
            count += last.to is not following
        elif last.op == "branch":
            ways = (section.other,) if last.name not in OPPOSITE else (section.other, last.to)
            count += following not in ways
    return count


def _is_end(section: Section) -> bool:
    return section.instructions[-1].op == "exit" and len(section.instructions) <= 3


def _traced(entry: Section) -> list[Section]:
    """Sections in an order in which most go on with the next one."""
    order: list[Section] = []
    placed: set[Section] = set()
    waiting = [entry]
    while waiting:
        section: Section | None = waiting.pop()
        while section is not None and section not in placed:
            placed.add(section)
            order.append(section)
            targets = [target for target in section.targets() if target not in placed]
            # What ends soon goes to the end, unless nothing else follows here.
            chosen = [target for target in targets if not _is_end(target)] or targets
            waiting += [target for target in targets if target not in chosen[-1:]]
            section = chosen[-1] if chosen else None
    return order


def _matched(entry: Section) -> list[Section]:
    """Sections in an order in which as many as can be go on with the next one: each has at most one
    to go on with, and is that of at most one (a matching that grows along alternating paths).
    """
    order = _traced(entry)
    after: dict[Section, Section] = {}
    before: dict[Section, Section] = {}
    for section in order:
        _grow(section, entry, after, before)
    placed: set[Section] = set()
    result: list[Section] = []
    for first in order:
        if first in placed:
            continue
        # The chain that it is in, from its beginning; one that bites its tail begins here.
        start = first
        while start in before and before[start] is not first:
            start = before[start]
        if start in before:
            start = first
        following: Section | None = start
        while following is not None and following not in placed:
            placed.add(following)
            result.append(following)
            following = after.get(following)
    return result


def _followers(section: Section) -> list[Section]:
    """The sections that may come next without a jump."""
    last = section.instructions[-1]
    if last.op == "branch" and last.name not in OPPOSITE:
        return [section.other] if section.other is not None else []
    return section.targets()[::-1]


def _grow(
    source: Section,
    entry: Section,
    after: dict[Section, Section],
    before: dict[Section, Section],
) -> None:
    """Find a section to follow, if others can be rearranged so that there is one."""
    reached: dict[Section, Section] = {}
    waiting = [source]
    for current in waiting:
        for target in _followers(current):
            if target is entry or target in reached or target is current:
                continue
            reached[target] = current
            if target in before:
                waiting.append(before[target])
                continue
            step: Section | None = target
            while step is not None:
                giver = reached[step]
                previous = after.get(giver)
                after[giver], before[step] = step, giver
                step = previous
            return


class _Emitter:
    def __init__(self, order: list[Section]) -> None:
        self.order = order
        self.at: dict[Section, int] = {}
        self.slots: list[tuple[int, int, int, int]] = []
        self.lines: list[int] = []
        self.jumps: list[tuple[int, Section]] = []
        self.result = Assembled(b"", [])
        self.line = 0

    def run(self) -> Assembled:
        for index, section in enumerate(self.order):
            following = self.order[index + 1] if index + 1 < len(self.order) else None
            self.at[section] = len(self.slots)
            for instruction in section.instructions:
                self._instruction(instruction, section, following)
        if len(self.slots) > MOST_SLOTS:
            raise TooLong
        for slot, target in self.jumps:
            opcode, registers, _, imm = self.slots[slot]
            self.slots[slot] = (opcode, registers, self.at[target] - slot - 1, imm)
        self.result.code = b"".join(struct.pack("=BBhi", *slot) for slot in self.slots)
        self.result.lines = self.lines
        return self.result

    def _put(
        self, code: int, target: int = 0, source: int = 0, offset: int = 0, imm: int = 0
    ) -> None:
        little = sys.byteorder == "little"
        registers = target | source << 4 if little else target << 4 | source
        self.slots.append((code, registers, offset, imm))
        self.lines.append(self.line)

    def _instruction(
        self, instruction: Instruction, section: Section, following: Section | None
    ) -> None:
        self.line = instruction.line
        target = instruction.target or 0
        source = instruction.source
        match instruction.op:
            case "alu":
                family = 0x04 if instruction.narrow else 0x07
                code = family | ALU[instruction.name]
                if source is None:
                    self._put(code, target, imm=instruction.imm)
                else:
                    self._put(code | _SOURCE_REGISTER, target, source)
            case "swap":
                # To big-endian, which swaps where the machine is little-endian.
                self._put(0xDC, target, imm=instruction.imm)
            case "load":
                code = 0x61 | _SIZES[instruction.size]
                self._put(code, target, source or 0, instruction.offset)
            case "store":
                size = _SIZES[instruction.size]
                if source is None:
                    self._put(0x62 | size, target, 0, instruction.offset, instruction.imm)
                else:
                    self._put(0x63 | size, target, source, instruction.offset)
            case "atomic":
                code = 0xC3 | _SIZES[instruction.size]
                operation = ATOMICS[instruction.name]
                self._put(code, target, source or 0, instruction.offset, operation)
            case "wide":
                self._two(target, 0, instruction.object)
            case "map" | "value":
                self.result.maps.append((len(self.slots), instruction.object))
                kind = _PSEUDO_MAP_FD if instruction.op == "map" else _PSEUDO_MAP_VALUE
                self._two(target, kind, 0)
            case "interface":
                self.result.interfaces.append((len(self.slots), instruction.object))
                self._put(0xB7, target)
            case "call":
                self._put(0x85, imm=instruction.imm)
            case "exit":
                self._put(0x95)
            case "jump":
                self._jump(instruction.to, following)
            case "branch":
                self._branch(instruction, section, following)
            case _:
                raise AssertionError(instruction)

    def _two(self, target: int, kind: int, value: int) -> None:
        low, high = value & 0xFFFFFFFF, value >> 32
        self._put(_WIDE, target, kind, imm=_as_signed(low))
        self._put(0, imm=_as_signed(high))

    def _jump(self, to: Section | None, following: Section | None) -> None:
        assert to is not None
        if to is not following:
            self.jumps.append((len(self.slots), to))
            self._put(0x05)

    def _branch(
        self, instruction: Instruction, section: Section, following: Section | None
    ) -> None:
        yes, no = instruction.to, section.other
        assert yes is not None
        assert no is not None
        name = instruction.name
        if yes is following and name in OPPOSITE:
            name, yes, no = OPPOSITE[name], no, yes
        family = 0x06 if instruction.narrow else 0x05
        code = family | JUMPS[name]
        self.jumps.append((len(self.slots), yes))
        target = instruction.target or 0
        if instruction.source is None:
            self._put(code, target, imm=instruction.imm)
        else:
            self._put(code | _SOURCE_REGISTER, target, instruction.source)
        self._jump(no, following)


def _as_signed(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value
