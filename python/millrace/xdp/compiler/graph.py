"""The graph of a program before it is in SSA form: blocks of simple operations on registers.

A register is a number and may be written many times; there are as many as it takes. All hold 64
bits. Operations are written the same in both forms; what they mean:

    const imm                       a number
    copy a
    add sub mul div mod and or xor shl shr sar      of 64 bits; div, mod and shr without a sign
    floor a b                       signed division towards minus infinity, for b > 0
    swap a; imm bits                the low bits in the other byte order, the rest zero
    sext a; imm bits                the low bits with their sign
    padd p a; imm scale             a packet pointer moved by a number of the program's
    pconst p; imm n                 a packet pointer moved by a constant
    span p q                        bytes between two packet pointers, p - q
    load p memory; imm (offset, size, tag)
    store p a memory; imm (offset, size, tag)       writes the register of that memory
    context; imm offset             a word of struct xdp_md
    lookup key... memory; imm Access                address of a value, or 0
    update key... value... memory; imm Access       0, or an error
    delete key... memory; imm Access
    value; imm map                  address of the only value of an array
    atomic p a memory; imm (operation, offset, size)
    fence a...                      memory after something that may have changed it
    entered p key... memory; imm Access     the same memory, in which a look-up finds p
    checksum p memory old new ...; imm Sum          keeps a checksum right
    helper; imm name                a number from the kernel
    redirect a                      the verdict of bpf_redirect
    redirect_map a; imm (map, default)

What a tag says of a load or a store: "eth", "net" or "transport" are fields at known places, which
lie apart; "sum" is a checksum and "raw" may be anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

# Registers that exist in every program.
CONTEXT, DATA, END, ETHERTYPE, NETWORK, PROTOCOL, TRANSPORT, PACKET_MEMORY, MAP_MEMORY = range(9)
FIRST_FREE = 9

#: The kernel takes larger offsets into a packet for nonsense; frames of one buffer are shorter.
MOST_OFFSET = 0x3FFF


@dataclass(eq=False, slots=True)
class Operation:
    """One operation."""

    op: str
    target: int | None
    arguments: tuple[int, ...]
    imm: Any
    line: int


@dataclass(frozen=True)
class Piece:
    """Some bytes of a key or a value: where, and how many."""

    offset: int
    size: int


@dataclass(frozen=True, eq=False)
class Access:
    """An access to a map: which, and how the arguments make up key and value."""

    map: Any
    key: tuple[Piece, ...]
    key_size: int
    value: tuple[Piece, ...] = ()
    value_size: int = 0
    flags: int = 0

    def same(self, other: Access) -> bool:
        """Whether two look-ups with the same arguments find the same."""
        return self.map is other.map and self.key == other.key


@dataclass(frozen=True)
class Sum:
    """A checksum field that follows changes: `pairs` are the sizes and the weights of the old and
    new values among the arguments.
    """

    offset: int
    zero_is_none: bool
    pairs: tuple[tuple[int, int], ...]
    tag: str


@dataclass(eq=False, slots=True)
class Jump:
    """On to another block."""

    target: Block


@dataclass(eq=False, slots=True)
class Branch:
    """Two ways by a condition: eq ne ult ule slt sle, or test, which is whether a & b is not 0."""

    condition: str
    left: int
    right: int
    yes: Block
    no: Block
    line: int


@dataclass(eq=False, slots=True)
class Check:
    """Whether `size` bytes from a packet pointer are in the frame."""

    pointer: int
    size: int
    yes: Block
    no: Block
    line: int


@dataclass(eq=False, slots=True)
class Query:
    """Whether a header is present; `specialise` makes code of it, or nothing."""

    header: str
    yes: Block
    no: Block
    line: int


@dataclass(eq=False, slots=True)
class Return:
    """The end, with a verdict."""

    value: int
    line: int


End: TypeAlias = Jump | Branch | Check | Query | Return


@dataclass(eq=False, slots=True)
class Block:
    """Operations one after the other, and where it goes from there."""

    operations: list[Operation] = field(default_factory=list)
    end: End | None = None
    #: A raw write has made all that is known of headers void at this block's end.
    forgets: bool = False


def targets(end: End | None) -> list[Block]:
    """Where an end leads to."""
    match end:
        case Jump(target=target):
            return [target]
        case Branch(yes=yes, no=no) | Check(yes=yes, no=no) | Query(yes=yes, no=no):
            return [yes, no]
    return []


@dataclass(eq=False)
class Graph:
    """A program."""

    entry: Block
    registers: int
    #: Interface names that redirects go to, by the number that stands for their index.
    interfaces: list[str] = field(default_factory=list)
