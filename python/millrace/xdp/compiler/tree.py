"""The typed tree: what the frontend makes of a function, and what plain run and compiler read.

Names are resolved, kinds are known, calls name the instance of the function that they call. The
order of evaluation is Python's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from millrace.xdp.compiler.kinds import Kind
from millrace.xdp.compiler.source import Place

#: The integers of kind `int`.
LOWEST, HIGHEST = -(1 << 63), (1 << 63) - 1


@dataclass(eq=False)
class Variable:
    """A local variable, parameters included."""

    name: str
    kind: Kind
    low: int = LOWEST
    high: int = (1 << 64) - 1


@dataclass(eq=False)
class Expression:
    """Something with a value. `low` and `high` bound it where it is a number."""

    at: Place
    kind: Kind
    low: int = field(default=LOWEST, kw_only=True)
    high: int = field(default=(1 << 64) - 1, kw_only=True)


@dataclass(eq=False)
class Constant(Expression):
    """A number, a verdict, an address (as a number)."""

    value: int


@dataclass(eq=False)
class Static(Expression):
    """Known while compiling only; `kind` is a `StaticKind`."""

    value: Any


@dataclass(eq=False)
class Packet(Expression):
    """The packet itself."""


@dataclass(eq=False)
class Local(Expression):
    """The value of a variable."""

    variable: Variable


@dataclass(eq=False)
class HeaderOf(Expression):
    """A header of the packet, which may be absent."""

    name: str


@dataclass(eq=False)
class Present(Expression):
    """Whether a header is present."""

    header: str
    source: Expression


@dataclass(eq=False)
class FieldOf(Expression):
    """A field of a header."""

    header: str
    name: str
    source: Expression


@dataclass(eq=False)
class RegionOf(Expression):
    """Bytes behind a header or in its variable part."""

    header: str
    name: str
    source: Expression


@dataclass(eq=False)
class RawLoad(Expression):
    """`size` bytes in network order at `offset` of the packet or a region."""

    base: Expression
    offset: Expression
    size: int


@dataclass(eq=False)
class LengthOf(Expression):
    """Bytes of the packet or of a region."""

    base: Expression


@dataclass(eq=False)
class ContextOf(Expression):
    """`ifindex` or `queue`: where the packet came in."""

    name: str


@dataclass(eq=False)
class Binary(Expression):
    """Arithmetic; `operator` is Python's sign. Its kind, INT or U64, says how it wraps."""

    operator: str
    left: Expression
    right: Expression


@dataclass(eq=False)
class Unary(Expression):
    """`-` or `~`."""

    operator: str
    operand: Expression


@dataclass(eq=False)
class Compare(Expression):
    """`==`, `!=`, `<`, `<=`, `>` or `>=` of two numbers, or the first two of addresses."""

    operator: str
    left: Expression
    right: Expression
    unsigned: bool = False


@dataclass(eq=False)
class Member(Expression):
    """Whether a number or an address is one of `values`, or has one of the prefixes `networks`
    (address, length), or is a number in one of `ranges` (first, last).
    """

    operand: Expression
    values: list[int] = field(default_factory=list)
    networks: list[tuple[int, int]] = field(default_factory=list)
    ranges: list[tuple[int, int]] = field(default_factory=list)


@dataclass(eq=False)
class Logical(Expression):
    """`and` or `or` of conditions; the rest is not looked at once the outcome is clear."""

    operator: str
    operands: list[Expression]


@dataclass(eq=False)
class Not(Expression):
    """`not` of a condition."""

    operand: Expression


@dataclass(eq=False)
class Conditional(Expression):
    """`then if condition else otherwise`."""

    condition: Expression
    then: Expression
    otherwise: Expression


@dataclass(eq=False)
class Convert(Expression):
    """A number cut to `bits`, or taken with or without a sign where that is 64."""

    operand: Expression
    bits: int
    signed: bool = False


@dataclass(eq=False)
class ToNumber(Expression):
    """An IPv4 or MAC address as a number, or a truth value as 0 or 1."""

    operand: Expression


@dataclass(eq=False)
class ToAddress(Expression):
    """A number as an IPv4 address."""

    operand: Expression


@dataclass(eq=False)
class Extreme(Expression):
    """`min` or `max`."""

    operator: str
    operands: list[Expression]
    unsigned: bool = False


@dataclass(eq=False)
class TupleOf(Expression):
    """Several values in a row."""

    parts: list[Expression]


@dataclass(eq=False)
class PartOf(Expression):
    """One value of a tuple."""

    operand: Expression
    index: int


@dataclass(eq=False)
class MapGet(Expression):
    """A map's value. Without an entry it is `default`, or 0; in an array that is an error."""

    map: Any
    key: Expression
    default: Expression | None = None


@dataclass(eq=False)
class MapHas(Expression):
    """Whether a map has an entry."""

    map: Any
    key: Expression


@dataclass(eq=False)
class MapRedirect(Expression):
    """The verdict that sends the frame to an entry of a redirect map, or `default`."""

    map: Any
    key: Expression
    default: int


@dataclass(eq=False)
class Redirect(Expression):
    """The verdict that sends the frame to an interface, by index, or by name where `name` is
    set.
    """

    ifindex: Expression | None = None
    name: str = ""


@dataclass(eq=False)
class Helper(Expression):
    """What the kernel knows: `now`, `random` or `cpu`."""

    name: str


@dataclass(eq=False)
class Call(Expression):
    """A call of a function of the program's module, which is compiled in place."""

    function: Function
    arguments: list[Expression]


@dataclass(eq=False)
class Statement:
    """Something that is done."""

    at: Place


@dataclass(eq=False)
class Assign(Statement):
    """Give variables the parts of a value; one variable takes all of it."""

    targets: list[Variable]
    value: Expression


@dataclass(eq=False)
class SetField(Statement):
    """Write a field of a header, checksums included."""

    header: str
    name: str
    source: Expression
    value: Expression


@dataclass(eq=False)
class RawStore(Statement):
    """Write `size` bytes in network order at `offset` of the packet or a region."""

    base: Expression
    offset: Expression
    value: Expression
    size: int


@dataclass(eq=False)
class MapSet(Statement):
    """Write a map's value."""

    map: Any
    key: Expression
    value: Expression


@dataclass(eq=False)
class MapUpdate(Statement):
    """Change a map's value, or one part of it: `old` is what was there, 0 without an entry, and
    `operand` the value that `result` makes a new one with.
    """

    map: Any
    key: Expression
    operator: str
    value: Expression
    part: int | None
    old: Variable
    operand: Variable
    result: Expression


@dataclass(eq=False)
class MapDelete(Statement):
    """Remove an entry, if it is there."""

    map: Any
    key: Expression


@dataclass(eq=False)
class If(Statement):
    """Two ways."""

    condition: Expression
    then: list[Statement]
    otherwise: list[Statement]


@dataclass(eq=False)
class For(Statement):
    """Count from `start` to before `stop` by `step`."""

    variable: Variable
    start: Expression
    stop: Expression
    step: int
    body: list[Statement]
    #: The most times the body runs.
    trips: int


@dataclass(eq=False)
class ForEach(Statement):
    """The body once for each of these constants."""

    variable: Variable
    values: list[Constant]
    body: list[Statement]


@dataclass(eq=False)
class Break(Statement):
    """Leave the innermost loop."""


@dataclass(eq=False)
class Continue(Statement):
    """Go on with the innermost loop's next turn."""


@dataclass(eq=False)
class Return(Statement):
    """Leave the function."""

    value: Expression | None


@dataclass(eq=False)
class Evaluate(Statement):
    """A call for what it does."""

    value: Expression


@dataclass(eq=False)
class Function:
    """One instance of a function: for the kinds, and the constants, that one call gives it."""

    name: str
    at: Place
    parameters: list[Variable]
    #: Of what it returns; NOTHING if it returns no value.
    kind: Kind
    body: list[Statement] = field(default_factory=list)
