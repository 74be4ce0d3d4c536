"""From the typed tree to the graph: expressions and conditions.

A number is one register. An address is its bytes as the machine loads them: IPv4 one register of 32
bits, MAC one of 32 and one of 16, IPv6 two of 64. A tuple is its parts in a row.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from millrace.xdp import headers
from millrace.xdp.compiler import graph, tree
from millrace.xdp.compiler.graph import Block
from millrace.xdp.compiler.kinds import (
    ADDRESSES,
    BOOL,
    IPV4,
    MAC,
    U64,
    Kind,
)
from millrace.xdp.compiler.operations import (
    ADDRESS_PIECES,
    ADDRESS_SIZES,
    CONTEXT_WORDS,
    Value,
    flatten,
)
from millrace.xdp.compiler.packets import HEADER_TAGS, Packets

_OPERATIONS = {"+": "add", "-": "sub", "*": "mul", "&": "and", "|": "or", "^": "xor"}
_CONDITIONS = {"<": "lt", "<=": "le"}
_MIRRORED = {">": "<", ">=": "<="}


class Values(Packets):
    """Expressions."""

    def value(self, expression: tree.Expression) -> Value:
        """Any value."""
        at, self.at = self.at, expression.at
        value = self._value(expression)
        self.at = at
        return value

    def call(self, call: tree.Call) -> Value:
        raise NotImplementedError

    def map_get(self, expression: tree.MapGet) -> Value:
        raise NotImplementedError

    def map_has(self, expression: tree.MapHas, yes: Block, no: Block) -> None:
        raise NotImplementedError

    def _value(self, expression: tree.Expression) -> Value:
        match expression:
            case tree.Constant(value=number, kind=kind):
                if kind in ADDRESSES:
                    return self.address_constant(kind, number)
                return self.constant(number)
            case tree.Local(variable=variable):
                return self._variables[variable]
            case tree.FieldOf():
                return self.field(expression)
            case tree.RawLoad():
                return self.raw_load(expression)
            case tree.LengthOf(base=base):
                return self.length(base)
            case tree.ContextOf(name=name):
                return self.emit("context", graph.CONTEXT, imm=CONTEXT_WORDS[name])
            case tree.Binary():
                return self._binary(expression)
            case tree.Unary(operator=operator, operand=operand):
                value = self.number(operand)
                if operator == "-":
                    return self.emit("sub", self.constant(0), value)
                return self.emit("xor", value, self.constant(-1))
            case tree.Convert():
                return self._convert(expression)
            case tree.ToNumber(operand=operand):
                return self._to_number(operand)
            case tree.ToAddress(operand=operand):
                return (self.swap(self.number(operand), 32),)
            case tree.Extreme():
                return self._extreme(expression)
            case tree.TupleOf(parts=parts):
                return tuple(self.value(part) for part in parts)
            case tree.PartOf(operand=operand, index=index):
                whole = self.value(operand)
                assert isinstance(whole, tuple)
                return whole[index]
            case tree.Conditional():
                return self._conditional(expression)
            case tree.MapGet():
                return self.map_get(expression)
            case tree.MapRedirect(map=used, key=key, default=default):
                return self.emit("redirect_map", self.number(key), imm=(used, default))
            case tree.Redirect(ifindex=ifindex, name=name):
                if ifindex is not None:
                    return self.emit("redirect", self.number(ifindex))
                if name not in self.interfaces:
                    self.interfaces.append(name)
                index = self.emit("interface", imm=self.interfaces.index(name))
                return self.emit("redirect", index)
            case tree.Helper(name=name):
                return self.emit("helper", imm=name)
            case tree.Call():
                return self.call(expression)
        if expression.kind == BOOL:
            return self._flag(expression)
        raise AssertionError(expression)

    def _flag(self, expression: tree.Expression) -> int:
        """A condition as 0 or 1."""
        result = self.register()
        yes, no, after = Block(), Block(), Block()
        self.condition(expression, yes, no)
        for block, value in ((yes, 1), (no, 0)):
            self.current = block
            self.emit_to(result, "const", imm=value)
            self.jump(after)
        self.current = after
        return result

    def _conditional(self, expression: tree.Conditional) -> Value:
        result = self.fresh(expression.kind)
        yes, no, after = Block(), Block(), Block()
        self.condition(expression.condition, yes, no)
        for block, way in ((yes, expression.then), (no, expression.otherwise)):
            self.current = block
            for target, source in zip(flatten(result), flatten(self.value(way)), strict=True):
                self.emit_to(target, "copy", source)
            self.jump(after)
        self.current = after
        return result

    def address_constant(self, kind: Kind, number: int) -> Value:
        """An address that is known."""
        data = number.to_bytes(ADDRESS_SIZES[kind], "big")
        return tuple(
            self.constant(int.from_bytes(data[offset : offset + size], sys.byteorder))
            for offset, size in ADDRESS_PIECES[kind]
        )

    def _to_number(self, operand: tree.Expression) -> Value:
        value = self.value(operand)
        if operand.kind == IPV4:
            return self.swap(flatten(value)[0], 32)
        if operand.kind == MAC:
            high, low = (
                self.swap(register, bits)
                for register, bits in zip(flatten(value), (32, 16), strict=True)
            )
            return self.emit("or", self.emit("shl", high, self.constant(16)), low)
        return value

    def _convert(self, expression: tree.Convert) -> Value:
        value = self.number(expression.operand)
        if expression.bits == 64:
            return value
        if expression.signed:
            return self.emit("sext", value, imm=expression.bits)
        return self.emit("and", value, self.constant((1 << expression.bits) - 1))

    def _extreme(self, expression: tree.Extreme) -> Value:
        result = self.register()
        self.emit_to(result, "copy", self.number(expression.operands[0]))
        condition = "ult" if expression.unsigned else "slt"
        for operand in expression.operands[1:]:
            other = self.number(operand)
            better, after = Block(), Block()
            sides = (other, result) if expression.operator == "min" else (result, other)
            self.branch(condition, *sides, better, after)
            self.current = better
            self.emit_to(result, "copy", other)
            self.jump(after)
            self.current = after
        return result

    # Arithmetic

    def _binary(self, expression: tree.Binary) -> Value:
        left, right = self.number(expression.left), self.number(expression.right)
        operator = expression.operator
        if operator in _OPERATIONS:
            return self.emit(_OPERATIONS[operator], left, right)
        if operator in ("<<", ">>"):
            return self._shift(expression, left, right)
        if expression.right.low <= 0 <= expression.right.high:
            self.go_on_if("ne", right, self.constant(0), self.fault_block)
        if expression.kind == U64:
            return self.emit("div" if operator == "//" else "mod", left, right)
        quotient = self._floor(expression, left, right)
        if operator == "//":
            return quotient
        return self.emit("sub", left, self.emit("mul", quotient, right))

    def _floor(self, expression: tree.Binary, left: int, right: int) -> int:
        """Signed division towards minus infinity, by what is not 0."""
        if expression.right.low > 0:
            return self.emit("floor", left, right)
        result, zero = self.register(), self.constant(0)
        positive, negative, after = Block(), Block(), Block()
        self.branch("slt", right, zero, negative, positive)
        self.current = positive
        self.emit_to(result, "floor", left, right)
        self.jump(after)
        self.current = negative
        # Both signs turned; the least number, which has no positive one, divides as unsigned.
        divisor = self.emit("sub", zero, right)
        above, below = Block(), Block()
        self.branch("slt", zero, left, above, below)
        self.current = above
        quotient = self.emit("div", self.emit("sub", left, self.constant(1)), divisor)
        self.emit_to(result, "xor", quotient, self.constant(-1))
        self.jump(after)
        self.current = below
        self.emit_to(result, "div", self.emit("sub", zero, left), divisor)
        self.jump(after)
        self.current = after
        return result

    def _shift(self, expression: tree.Binary, left: int, right: int) -> Value:
        count = expression.right
        op = "shl" if expression.operator == "<<" else "shr" if expression.kind == U64 else "sar"
        if count.low < 0:
            self.go_on_if("sle", self.constant(0), right, self.fault_block)
        if count.low >= 0 and count.high < 64:
            return self.emit(op, left, right)
        result = self.register()
        fits, beyond, after = Block(), Block(), Block()
        self.branch("ult", right, self.constant(64), fits, beyond)
        self.current = fits
        self.emit_to(result, op, left, right)
        self.jump(after)
        self.current = beyond
        if op == "sar":
            self.emit_to(result, op, left, self.constant(63))
        else:
            self.emit_to(result, "const", imm=0)
        self.jump(after)
        self.current = after
        return result

    # Conditions

    def condition(self, expression: tree.Expression, yes: Block, no: Block) -> None:
        """Go to one block or the other."""
        at, self.at = self.at, expression.at
        self._condition(expression, yes, no)
        self.at = at

    def _condition(self, expression: tree.Expression, yes: Block, no: Block) -> None:
        match expression:
            case tree.Constant(value=value):
                self.jump(yes if value else no)
            case tree.Not(operand=operand):
                self.condition(operand, no, yes)
            case tree.Logical(operator=operator, operands=operands):
                for operand in operands[:-1]:
                    more = Block()
                    ways = (more, no) if operator == "and" else (yes, more)
                    self.condition(operand, *ways)
                    self.current = more
                self.condition(operands[-1], yes, no)
            case tree.Present(header=header):
                self.query(header, yes, no)
            case tree.Compare():
                self._compare(expression, yes, no)
            case tree.Member():
                self._member(expression, yes, no)
            case tree.MapHas():
                self.map_has(expression, yes, no)
            case tree.FieldOf(header=header, name=name):
                # A flag: one bit of one byte.
                found = headers.HEADERS[header].fields[name]
                self.require(header)
                tag = HEADER_TAGS[header]
                pointer = self.header_pointer(header)
                imm = (found.offset, found.size, tag)
                byte = self.emit("load", pointer, graph.PACKET_MEMORY, imm=imm)
                mask = self.constant(found.mask << found.shift)
                self.branch("test", byte, mask, yes, no)
            case tree.Conditional(condition=condition, then=then, otherwise=otherwise):
                first, second = Block(), Block()
                self.condition(condition, first, second)
                self.current = first
                self.condition(then, yes, no)
                self.current = second
                self.condition(otherwise, yes, no)
            case _:
                self.branch("ne", self.number(expression), self.constant(0), yes, no)

    def _compare(self, expression: tree.Compare, yes: Block, no: Block) -> None:
        operator, left, right = expression.operator, expression.left, expression.right
        if operator in ("==", "!="):
            if operator == "!=":
                yes, no = no, yes
            pairs = list(zip(flatten(self.value(left)), flatten(self.value(right)), strict=True))
            for a, b in pairs[:-1]:
                self.go_on_if("eq", a, b, no)
            self.branch("eq", *pairs[-1], yes, no)
            return
        first, second = self.number(left), self.number(right)
        if operator in _MIRRORED:
            operator, first, second = _MIRRORED[operator], second, first
        sign = "u" if expression.unsigned else "s"
        self.branch(sign + _CONDITIONS[operator], first, second, yes, no)

    def _member(self, expression: tree.Member, yes: Block, no: Block) -> None:
        value = flatten(self.value(expression.operand))
        kind = expression.operand.kind
        for number in dict.fromkeys(expression.values):
            wanted = (
                flatten(self.address_constant(kind, number))
                if kind in ADDRESSES
                else [self.constant(number)]
            )
            self._equal(value, wanted, yes)
        for network, prefix in expression.networks:
            size = ADDRESS_SIZES[kind]
            mask = ((1 << prefix) - 1) << (8 * size - prefix)
            masks = self._raw_words(kind, mask)
            wanted_words = self._raw_words(kind, network & mask)
            masked, wanted = [], []
            for register, word, bits in zip(value, wanted_words, masks, strict=True):
                if bits:
                    full = bits == (1 << (8 * min(size, 8))) - 1
                    masked.append(
                        register if full else self.emit("and", register, self.constant(bits))
                    )
                    wanted.append(self.constant(word))
            self._equal(masked, wanted, yes)
        sign = "u" if kind == U64 else "s"
        for first, last in expression.ranges:
            more, next_one = Block(), Block()
            self.branch(sign + "lt", value[0], self.constant(first), next_one, more)
            self.current = more
            self.branch(sign + "le", value[0], self.constant(last), yes, next_one)
            self.current = next_one
        self.jump(no)

    @staticmethod
    def _raw_words(kind: Kind, number: int) -> list[int]:
        data = number.to_bytes(ADDRESS_SIZES[kind], "big")
        return [
            int.from_bytes(data[offset : offset + size], sys.byteorder)
            for offset, size in ADDRESS_PIECES[kind]
        ]

    def _equal(self, value: Sequence[int], wanted: Sequence[int], yes: Block) -> None:
        """Go to `yes` if all are equal, else go on."""
        no = Block()
        for a, b in list(zip(value, wanted, strict=True))[:-1]:
            self.go_on_if("eq", a, b, no)
        if value:
            self.branch("eq", value[-1], wanted[-1], yes, no)
        else:
            self.jump(yes)
        self.current = no
