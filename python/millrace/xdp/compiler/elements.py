"""What is part of something: attributes, elements, members, entries of maps."""

from __future__ import annotations

import ast
import ipaddress
from collections.abc import Sequence

from millrace.xdp import headers
from millrace.xdp.compiler import numbers, tree
from millrace.xdp.compiler.conversions import (
    flag,
    part_of,
    python_value,
    type_bounds,
    type_kind,
)
from millrace.xdp.compiler.graph import MOST_OFFSET
from millrace.xdp.compiler.kinds import (
    ADDRESSES,
    BOOL,
    BY_NAME,
    INT,
    IPV4,
    IPV6,
    NUMBERS,
    PACKET,
    U64,
    VERDICT,
    HeaderKind,
    RegionKind,
    StaticKind,
    TupleKind,
)
from millrace.xdp.compiler.operators import Operators
from millrace.xdp.compiler.session import close
from millrace.xdp.compiler.source import Place
from millrace.xdp.maps import Counter, Map, RedirectMap
from millrace.xdp.types import Integer, Tuple, Type

#: Widths in bytes of the methods that read and write bytes.
RAW_SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}
CONTEXT = {"ifindex": 0xFFFFFFFF, "queue": 0xFFFFFFFF}


class Elements(Operators):
    """Expressions that take something out of something else."""

    def member(self, left: tree.Expression, node: ast.expr, at: Place) -> tree.Expression:
        """`left in ...`."""
        if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
            elements = [self.expression(element) for element in node.elts]
        elif isinstance(node, ast.Call) and self._names_range(node):
            elements = [self._constant_range(node)]
        else:
            right = self.expression(node)
            if isinstance(right, tree.Static) and isinstance(right.value, Map):
                if isinstance(right.value, (Counter,)) or right.value.is_array:
                    at.refuse("an array has all its indices; compare with len(...) instead")
                key = self.map_key(right.value, left)
                return flag(tree.MapHas(at, BOOL, map=right.value, key=key))
            if not isinstance(right, tree.Static):
                right.at.refuse(
                    f"`in` takes constants, networks, ranges and maps, not {right.kind}"
                )
            value = right.value
            many = isinstance(value, (tuple, list, set, frozenset))
            elements = [
                self.scope.static(element, right.at)
                for element in (
                    sorted(value, key=repr)
                    if isinstance(value, (set, frozenset))
                    else value
                    if many
                    else [value]
                )
            ]
        if left.kind in NUMBERS and any(element.kind == U64 for element in elements):
            left = self.coerce(left, U64)
        member = tree.Member(at, BOOL, operand=left, low=0, high=1)
        for element in elements:
            self._add_member(member, left, element)
        return member

    def _names_range(self, node: ast.Call) -> bool:
        if not isinstance(node.func, ast.Name):
            return False
        called = self.expression(node.func)
        return isinstance(called, tree.Static) and called.value is range

    def _constant_range(self, node: ast.Call) -> tree.Expression:
        """range(...) of constants, to the right of `in`."""
        at = self.place(node)
        ends = [self.number(argument) for argument in arguments_of(node, at, "range", 1, 3)]
        constants = [end.value for end in ends if isinstance(end, tree.Constant)]
        if len(constants) < len(ends) or constants[2:] == [0]:
            at.refuse("`in range` takes constants; write a <= x < b for others")
        return self.scope.static(range(*constants), at)

    def _add_member(
        self, member: tree.Member, left: tree.Expression, element: tree.Expression
    ) -> None:
        value = element.value if isinstance(element, tree.Static) else None
        if isinstance(value, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
            family = IPV4 if value.version == 4 else IPV6
            if left.kind != family:
                element.at.refuse(f"{value} holds addresses, and the left side is {left.kind}")
            member.networks.append((int(value.network_address), value.prefixlen))
        elif isinstance(value, range):
            self.as_number(left, "the left side")
            if abs(value.step) != 1:
                element.at.refuse("a range in a comparison counts by 1")
            lowest, highest = numbers.full(left.kind)
            if len(value):
                first, last = sorted((value[0], value[-1]))
                if first <= highest and last >= lowest:
                    member.ranges.append((max(first, lowest), min(last, highest)))
        elif isinstance(value, str) and "/" in value and left.kind in (IPV4, IPV6):
            try:
                network = ipaddress.ip_network(value)
            except ValueError as error:
                element.at.refuse(str(error))
            self._add_member(member, left, tree.Static(element.at, element.kind, value=network))
        else:
            wanted = self._member_constant(left, element)
            member.values.append(wanted.value)

    def _member_constant(self, left: tree.Expression, element: tree.Expression) -> tree.Constant:
        if left.kind in NUMBERS and isinstance(element, tree.Constant):
            if element.kind not in NUMBERS:
                element.at.refuse(f"the left side is {left.kind}, and this is {element.kind}")
            converted = self.coerce(element, U64 if left.kind == U64 else INT)
            assert isinstance(converted, tree.Constant)
            return converted
        if left.kind in (*ADDRESSES, VERDICT):
            converted = self.coerce(element, left.kind)
            if isinstance(converted, tree.Constant):
                return converted
        element.at.refuse("`in` takes constants on its right; join comparisons by `or` instead")

    # Attributes, subscripts, tuples

    def attribute(self, node: ast.Attribute, at: Place) -> tree.Expression:
        base = self.expression(node.value)
        name = node.attr
        if base.kind == PACKET:
            return self._packet_attribute(name, at)
        if isinstance(base.kind, HeaderKind):
            return self._header_attribute(base, base.kind.name, name, at)
        if isinstance(base, tree.Static):
            return self.scope.attribute(base.value, name, at)
        at.refuse(f"{base.kind} has no attributes")

    def _packet_attribute(self, name: str, at: Place) -> tree.Expression:
        header = headers.ALIASES.get(name, name)
        if header in headers.HEADERS:
            return tree.HeaderOf(at, HeaderKind(header), name=header)
        if name == "len":
            return tree.LengthOf(at, INT, base=tree.Packet(at, PACKET), low=0, high=0xFFFFFFFF)
        if name in CONTEXT:
            return tree.ContextOf(at, INT, name=name, low=0, high=CONTEXT[name])
        known = [*headers.HEADERS, *headers.ALIASES, "len", *CONTEXT]
        at.refuse(f"a packet has no {name}{close(name, known) or '; it has ' + ', '.join(known)}")

    def _header_attribute(
        self, base: tree.Expression, header: str, name: str, at: Place
    ) -> tree.Expression:
        table = headers.HEADERS[header]
        if name in table.regions:
            return tree.RegionOf(
                at, RegionKind(header, name), header=header, name=name, source=base
            )
        field = table.fields.get(name)
        if field is None:
            known = [*table.fields, *table.regions]
            hint = close(name, known) or "; it has " + ", ".join(known)
            at.refuse(f"{header} has no field {name}{hint}")
        kind = BY_NAME[field.kind]
        return tree.FieldOf(
            at, kind, header=header, name=name, source=base, low=0, high=(1 << field.bits) - 1
        )

    def tuple_of(self, elements: Sequence[ast.expr], at: Place) -> tree.Expression:
        parts = [self.expression(element) for element in elements]
        if not parts:
            at.refuse("an empty tuple has no meaning in a program")
        if all(isinstance(part, (tree.Static, tree.Constant)) for part in parts):
            value = tuple(python_value(part) for part in parts)
            if any(isinstance(part, tree.Static) for part in parts):
                return tree.Static(at, StaticKind(value), value=value)
        for part in parts:
            text = isinstance(part, tree.Static) and isinstance(part.value, str)
            if not text and part.kind not in (*NUMBERS, *ADDRESSES, VERDICT):
                part.at.refuse(f"{part.kind} cannot be part of a tuple")
        return tree.TupleOf(at, TupleKind(tuple(part.kind for part in parts)), parts=parts)

    def subscript(self, node: ast.Subscript, at: Place) -> tree.Expression:
        if isinstance(node.slice, ast.Slice):
            at.refuse("slices cannot be compiled; read numbers with pkt.u16(offset) and the like")
        base = self.expression(node.value)
        if base.kind == PACKET or isinstance(base.kind, RegionKind):
            return self.raw_load(base, node.slice, 1, at)
        if isinstance(base.kind, TupleKind):
            index = self.expression(node.slice)
            if not isinstance(index, tree.Constant):
                index.at.refuse("the index of a tuple must be a constant; use an Array map")
            if not -len(base.kind.parts) <= index.value < len(base.kind.parts):
                index.at.refuse(f"{base.kind} has no part {index.value}")
            return part_of(base, index.value % len(base.kind.parts))
        if isinstance(base, tree.Static):
            if isinstance(base.value, Map):
                return self.map_get(base.value, self.expression(node.slice), None, at)
            if isinstance(base.value, (tuple, list)):
                index = self.expression(node.slice)
                if not isinstance(index, tree.Constant):
                    index.at.refuse("the index of a tuple must be a constant; use an Array map")
                try:
                    return self.scope.static(base.value[index.value], at)
                except IndexError:
                    index.at.refuse(f"there is no element {index.value}")
        at.refuse(f"{base.kind} has no elements")

    def raw_load(
        self, base: tree.Expression, offset_node: ast.expr, size: int, at: Place
    ) -> tree.Expression:
        """Bytes of the packet or a region as a number."""
        offset = self.offset(offset_node)
        kind = U64 if size == 8 else INT
        high = (1 << (8 * size)) - 1
        return tree.RawLoad(at, kind, base=base, offset=offset, size=size, low=0, high=high)

    def offset(self, node: ast.expr) -> tree.Expression:
        """An offset into the packet or a region."""
        offset = self.coerce(self.number(node, "an offset"), INT)
        if isinstance(offset, tree.Constant) and not 0 <= offset.value <= MOST_OFFSET:
            offset.at.refuse(f"an offset is 0 to {MOST_OFFSET}; this one is {offset.value}")
        return offset

    # Maps

    def map_key(self, used: Map, key: tree.Expression) -> tree.Expression:
        """A key as the map wants it."""
        if isinstance(used, Counter):
            key.at.refuse("a Counter has no keys; write .add(n), or use an Array")
        kind = type_kind(used.key_type)
        if isinstance(kind, TupleKind):
            if isinstance(key, tree.Static) and isinstance(key.value, tuple):
                parts = [self.scope.static(part, key.at) for part in key.value]
                key = tree.TupleOf(key.at, TupleKind(tuple(p.kind for p in parts)), parts=parts)
            if not isinstance(key.kind, TupleKind) or len(key.kind.parts) != len(kind.parts):
                key.at.refuse(f"the key of this map is {used.key_type}, and this is {key.kind}")
            assert isinstance(used.key_type, Tuple)
            parts = [
                self._key_part(part_of(key, index), part)
                for index, part in enumerate(used.key_type.parts)
            ]
            return tree.TupleOf(key.at, TupleKind(tuple(p.kind for p in parts)), parts=parts)
        key = self._key_part(key, used.key_type)
        indexed = used.is_array or isinstance(used, RedirectMap)
        if indexed and isinstance(key, tree.Constant) and not 0 <= key.value < used.entries:
            key.at.refuse(f"the index {key.value} is outside this map of {used.entries} entries")
        return key

    def _key_part(self, value: tree.Expression, wanted: Type) -> tree.Expression:
        kind = type_kind(wanted)
        if isinstance(value.kind, TupleKind) or (
            kind in ADDRESSES and value.kind in ADDRESSES and value.kind != kind
        ):
            value.at.refuse(f"the key must be {wanted}, and this is {value.kind}")
        value = self.coerce(value, kind)
        constant = value.value if isinstance(value, tree.Constant) else 0
        if isinstance(wanted, Integer) and not wanted.lowest <= constant <= wanted.highest:
            value.at.refuse(f"{constant} does not fit {wanted}")
        return value

    def map_get(
        self, used: Map, key: tree.Expression, default: tree.Expression | None, at: Place
    ) -> tree.Expression:
        """A map's value."""
        if isinstance(used, (RedirectMap, Counter)):
            what = type(used).__name__
            hint = ".redirect(index)" if isinstance(used, RedirectMap) else ".add(n)"
            at.refuse(f"a program uses a {what} by {hint}")
        kind = type_kind(used.value_type)
        low, high = type_bounds(used.value_type)
        if default is not None:
            default = self.coerce(default, kind)
            low, high = min(low, default.low), max(high, default.high)
        key = self.map_key(used, key)
        return tree.MapGet(at, kind, map=used, key=key, default=default, low=low, high=high)


def arguments_of(
    node: ast.Call,
    at: Place,
    name: str,
    least: int,
    most: int | None = None,
    names: Sequence[str] = (),
) -> list[ast.expr]:
    """A call's arguments in their order."""
    found = list(node.args)
    for keyword in node.keywords:
        position = len(found)
        if keyword.arg is None or position >= len(names) or names[position] != keyword.arg:
            at.refuse(f"{name} takes no argument {keyword.arg or '**'} here")
        found.append(keyword.value)
    most = least if most is None else most
    if not least <= len(found) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        at.refuse(f"{name} takes {wanted} arguments, not {len(found)}")
    return found
