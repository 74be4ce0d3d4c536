"""Which writes a read can see. A memory is the write that was last, and through it those before."""

from __future__ import annotations

from typing import Any

from millrace.xdp.compiler.ssa import Node

#: Writes that are looked past; with more of them, what is read may have been changed.
_MOST_STEPS = 64
#: Fields of headers lie at places that the tags keep apart.
_FIELDS = ("eth", "net", "transport")


def map_of(address: Node) -> Any:
    """The map that an address of a value belongs to, where that is plain."""
    if address.op == "lookup":
        return address.imm.map
    if address.op == "value":
        return address.imm
    if address.op == "phi":
        maps = [map_of(argument) for argument in address.arguments if argument.op == "lookup"]
        if len(maps) == len(address.arguments) and all(m is maps[0] for m in maps):
            return maps[0]
    return None


def last_write(load: Node) -> Node:
    """The last memory that may matter to a load."""
    pointer, memory = load.arguments[0], load.arguments[-1]
    offset, size, tag = load.imm
    for _ in range(_MOST_STEPS):
        if memory.op == "store":
            apart = _apart(pointer, offset, size, tag, memory)
        elif memory.op == "checksum":
            apart = tag in _FIELDS
        elif memory.op == "atomic":
            apart = _other_map(pointer, memory.arguments[0])
        elif memory.op == "fence" and memory.arguments:
            apart = _other_map_of(map_of(pointer), memory)
        elif memory.op == "entered":
            apart = True
        else:
            return memory
        if not apart:
            return memory
        memory = before(memory)
    return memory


def last_change(lookup: Node) -> Node:
    """The last memory that may matter to a look-up: where a key came or went, or where it is known
    what the look-up finds.
    """
    memory = lookup.arguments[-1]
    used = lookup.imm.map
    for _ in range(_MOST_STEPS):
        if (
            memory.op in ("store", "atomic")
            or (memory.op == "entered" and not finds(memory, lookup))
            or (memory.op == "fence" and memory.arguments and _other_map_of(used, memory))
        ):
            memory = before(memory)
        else:
            return memory
    return memory


def finds(entered: Node, lookup: Node) -> bool:
    """Whether an entry that was made is the one that a look-up asks for."""
    return entered.imm.same(lookup.imm) and entered.arguments[1:-1] == lookup.arguments[:-1]


def before(memory: Node) -> Node:
    """The memory that a write changed."""
    if memory.op == "fence":
        return memory.arguments[0].arguments[-1]
    return memory.arguments[1] if memory.op == "checksum" else memory.arguments[-1]


def _apart(pointer: Node, offset: int, size: int, tag: str, store: Node) -> bool:
    """Whether a store leaves alone what a load reads."""
    other_offset, other_size, other_tag = store.imm
    if tag == "map" and other_tag == "map":
        if _other_map(pointer, store.arguments[0]):
            return True
    elif tag != other_tag and "raw" not in (tag, other_tag):
        return True
    if store.arguments[0] is not pointer:
        return False
    apart: bool = offset + size <= other_offset or other_offset + other_size <= offset
    return apart


def _other_map(first: Node, second: Node) -> bool:
    maps = map_of(first), map_of(second)
    return None not in maps and maps[0] is not maps[1]


def _other_map_of(used: Any, fence: Node) -> bool:
    change = fence.arguments[0]
    return used is not None and change.op in ("update", "delete") and change.imm.map is not used
