"""Instructions before they are bytes: registers may be any number, jumps lead to blocks.

Registers below 11 are the machine's: 0 a result, 1 to 5 arguments of calls, which a call destroys,
6 to 9 kept by calls, 10 the frame. Those from 11 on are yet to be given one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

FRAME = 10
FIRST_VIRTUAL = 11
DESTROYED = frozenset(range(6))

ALU = {
    "add": 0x00,
    "sub": 0x10,
    "mul": 0x20,
    "div": 0x30,
    "or": 0x40,
    "and": 0x50,
    "shl": 0x60,
    "shr": 0x70,
    "neg": 0x80,
    "mod": 0x90,
    "xor": 0xA0,
    "mov": 0xB0,
    "sar": 0xC0,
}
JUMPS = {
    "eq": 0x10,
    "ugt": 0x20,
    "uge": 0x30,
    "test": 0x40,
    "ne": 0x50,
    "sgt": 0x60,
    "sge": 0x70,
    "ult": 0xA0,
    "ule": 0xB0,
    "slt": 0xC0,
    "sle": 0xD0,
}
OPPOSITE = {
    "eq": "ne",
    "ne": "eq",
    "ugt": "ule",
    "ule": "ugt",
    "uge": "ult",
    "ult": "uge",
    "sgt": "sle",
    "sle": "sgt",
    "sge": "slt",
    "slt": "sge",
}
HELPERS = {
    "lookup": 1,
    "update": 2,
    "delete": 3,
    "now": 5,
    "random": 7,
    "cpu": 8,
    "redirect": 23,
    "redirect_map": 51,
}
ATOMICS = {"add": 0x00, "or": 0x40, "and": 0x50, "xor": 0xA0}


@dataclass(eq=False, slots=True)
class Instruction:
    """One instruction.

    "alu" with `name`: target = target op source; "swap": target's low `imm` bits turned; "load":
    target from source + offset; "store" and "atomic": to target + offset; "wide": a constant of 64
    bits; "map" and "value": a map, or its only value's address; "interface": an index to be looked
    up; "jump", "branch" with `name`; "call" with `name`; "exit".
    """

    op: str
    target: int | None = None
    source: int | None = None
    imm: int = 0
    name: str = ""
    offset: int = 0
    size: int = 8
    #: On the low 32 bits only.
    narrow: bool = False
    object: Any = None
    to: Section | None = None
    line: int = 0
    #: Registers that a call reads.
    reads: tuple[int, ...] = ()

    def uses(self) -> list[int]:
        """Registers whose values it needs."""
        match self.op:
            case "alu":
                used = [] if self.name == "mov" else [self.target]
                used.append(self.source)
            case "swap":
                used = [self.target]
            case "load":
                used = [self.source]
            case "store" | "atomic" | "branch":
                used = [self.target, self.source]
            case "call":
                return list(self.reads)
            case "exit":
                return [0]
            case _:
                used = []
        return [register for register in used if register is not None and register != FRAME]

    def defines(self) -> list[int]:
        """Registers that it changes."""
        match self.op:
            case "alu" | "swap" | "load" | "wide" | "map" | "value" | "interface":
                assert self.target is not None
                return [self.target]
            case "call":
                return list(DESTROYED)
        return []

    @property
    def is_move(self) -> bool:
        """Whether it copies a register and nothing else."""
        return (
            self.op == "alu"
            and self.name == "mov"
            and self.source is not None
            and self.source != FRAME
            and not self.narrow
        )


@dataclass(eq=False, slots=True)
class Section:
    """Instructions one after the other. It ends with "jump", "exit", or a "branch" to `to` where
    `other` is where it goes on if the condition does not hold.
    """

    instructions: list[Instruction] = field(default_factory=list)
    other: Section | None = None
    depth: int = 0

    def targets(self) -> list[Section]:
        """Where it leads."""
        found = [i.to for i in self.instructions[-1:] if i.to is not None]
        if self.other is not None:
            found.append(self.other)
        return found


@dataclass(eq=False)
class Code:
    """A program as instructions. The first section is where it starts."""

    sections: list[Section]
    registers: int
    #: Bytes of the stack that are in use.
    stack: int = 0
