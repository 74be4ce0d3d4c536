"""Where which header has been found: from queries to code that looks for no header twice.

A block is copied for each state of knowledge that it can be reached with, as far as a query that
may still follow depends on it. So a program that asks for UDP and then for IPv4 gets one way for
UDP over IPv4 and another for UDP over IPv6, and what is known is nowhere kept in a register. Where
the ways become too many, knowledge is given up and headers are looked for again.
"""

from __future__ import annotations

from collections.abc import Iterable

from millrace.xdp import headers
from millrace.xdp.compiler import graph
from millrace.xdp.compiler.graph import (
    Block,
    Branch,
    Check,
    End,
    Graph,
    Jump,
    Operation,
    Query,
    targets,
)
from millrace.xdp.compiler.operations import LITTLE
from millrace.xdp.compiler.session import Options

#: Copies of one block, beyond which what they know is reduced to what they have in common: so many
#: of a small one, fewer of one with many operations.
_MOST_COPIES = 12
_COPIED_OPERATIONS = 32

_VLANS = ("vlan", "vlan2")
_NETWORKS = ("arp", "ip", "ipv6")
_TRANSPORTS = ("icmp", "icmpv6", "udp", "tcp")
#: `typed`: EtherType and network header have been found. `located`: so have the transport's
#: protocol and header.
_FACTS = ("eth", "typed", *_VLANS, *_NETWORKS, "located", *_TRANSPORTS)
_ETHERTYPES = {
    "arp": headers.ETHERTYPE_ARP,
    "ip": headers.ETHERTYPE_IPV4,
    "ipv6": headers.ETHERTYPE_IPV6,
}

State = tuple[bool | None, ...]
_NOTHING: State = (None,) * len(_FACTS)


def _get(state: State, fact: str) -> bool | None:
    return state[_FACTS.index(fact)]


def _with(state: State, value: bool | None, facts: Iterable[str]) -> State:
    changed = list(state)
    for fact in facts:
        changed[_FACTS.index(fact)] = value
    return tuple(changed)


def _without_true(state: State, facts: Iterable[str]) -> State:
    """Forget that these hold, but not that they do not."""
    return _with(state, None, [fact for fact in facts if _get(state, fact)])


def _complete(state: State) -> State:
    """All that follows from what is known: of network headers, and of transport headers, only one
    is present.
    """
    for group in (_NETWORKS, _TRANSPORTS):
        present = [name for name in group if _get(state, name)]
        if present:
            state = _with(state, False, [name for name in group if name != present[0]])
    return state


def specialise(program: Graph, options: Options) -> Graph:
    """The graph without queries."""
    specialiser = _Specialiser(program, options)
    entry = specialiser.copy(program.entry, _NOTHING)
    specialiser.run()
    return Graph(entry, specialiser.registers, program.interfaces)


class _Specialiser:
    def __init__(self, program: Graph, options: Options) -> None:
        self.options = options
        self.registers = program.registers
        self._split_queries(program.entry)
        self._needs = _needs(program.entry)
        self._copies: dict[tuple[Block, State], Block] = {}
        self._states: dict[Block, list[State]] = {}
        self._waiting: list[tuple[Block, State]] = []
        self._line = 0

    @staticmethod
    def _split_queries(entry: Block) -> None:
        """Give every query a block of its own, which can be entered again with more known."""
        for block in _reachable(entry):
            if isinstance(block.end, Query) and (block.operations or block is entry):
                block.end = Jump(Block(end=block.end))

    def run(self) -> None:
        while self._waiting:
            block, state = self._waiting.pop()
            copy = self._copies[block, state]
            if isinstance(block.end, Query):
                self._line = block.end.line
                self._step(block, block.end, copy, state)
                continue
            copy.operations = list(block.operations)
            after = _NOTHING if block.forgets else state
            copy.end = self._end(block.end, after)

    def copy(self, block: Block, state: State, *, again: bool = False) -> Block:
        """The copy of a block that is reached with this knowledge. A query that is entered `again`
        keeps all of it, or it would never come to an end.
        """
        state = _project(_complete(state), self._needs[block])
        states = self._states.setdefault(block, [])
        if not again and state not in states:
            most = max(2, min(_MOST_COPIES, _COPIED_OPERATIONS // (len(block.operations) + 1)))
            if len(states) >= most:
                for other in states:
                    state = tuple(a if a == b else None for a, b in zip(state, other, strict=True))
            if state not in states:
                states.append(state)
        key = (block, state)
        if key not in self._copies:
            self._copies[key] = Block()
            self._waiting.append(key)
        return self._copies[key]

    def _again(self, query: Block, state: State) -> Block:
        return self.copy(query, state, again=True)

    def _end(self, end: End | None, state: State) -> End | None:
        match end:
            case Jump(target=target):
                return Jump(self.copy(target, state))
            case Branch():
                yes, no = self.copy(end.yes, state), self.copy(end.no, state)
                return Branch(end.condition, end.left, end.right, yes, no, end.line)
            case Check():
                yes, no = self.copy(end.yes, state), self.copy(end.no, state)
                return Check(end.pointer, end.size, yes, no, end.line)
        return end

    # One step of a query

    def _emit(
        self, block: Block, target: int | None, op: str, *arguments: int, imm: object = None
    ) -> int:
        if target is None:
            target = self.registers
            self.registers += 1
        block.operations.append(Operation(op, target, arguments, imm, self._line))
        return target

    def _load(self, block: Block, target: int | None, pointer: int, offset: int, size: int) -> int:
        tag = {graph.DATA: "eth", graph.NETWORK: "net"}.get(pointer, "transport")
        memory = graph.PACKET_MEMORY
        return self._emit(block, target, "load", pointer, memory, imm=(offset, size, tag))

    def _constant(self, block: Block, value: int) -> int:
        return self._emit(block, None, "const", imm=value)

    def _branch(
        self, block: Block, condition: str, left: int, value: int, yes: Block, no: Block
    ) -> None:
        right = self._constant(block, value)
        block.end = Branch(condition, left, right, yes, no, self._line)

    def _step(self, query: Block, asked: Query, block: Block, state: State) -> None:
        """Find out one thing more; where that is not the answer, the query is entered again."""
        header = asked.header

        known = _get(state, header)
        if known is not None:
            block.end = Jump(self.copy(asked.yes if known else asked.no, state))
        elif header == "eth":
            self._ethernet(query, block, state)
        elif header in _TRANSPORTS:
            self._transport(query, header, block, state)
        else:
            self._network(query, header, block, state)

    def _ethernet(self, query: Block, block: Block, state: State) -> None:
        """Find out whether there is an Ethernet header."""
        if _get(state, "typed"):
            block.end = Jump(self._again(query, _with(state, True, ("eth",))))
            return
        whole = self._again(query, _with(state, True, ("eth",)))
        cut = self._again(query, _with(state, False, _FACTS))
        block.end = Check(graph.DATA, 14, whole, cut, self._line)

    def _network(self, query: Block, header: str, block: Block, state: State) -> None:
        """One step towards a VLAN tag or a network header."""
        if _get(state, "typed") is None and _get(state, "eth") is None:
            self._ethernet(query, block, state)
            return
        if _get(state, "typed") is None or header in _VLANS:
            self._ethertype(query, block, state)
            return
        mine, other = Block(), self._again(query, _with(state, False, (header,)))
        self._branch(block, "eq", graph.ETHERTYPE, _wire(_ETHERTYPES[header], 2), mine, other)
        broken = self._again(query, _with(state, False, (*_NETWORKS, *_TRANSPORTS)))
        state = _with(state, False, (name for name in _NETWORKS if name != header))
        whole = self._again(query, _with(state, True, (header,)))
        inside = Block()
        size = headers.HEADERS[header].size
        mine.end = Check(graph.NETWORK, size, inside, broken, self._line)
        if header == "arp":
            first = self._load(inside, None, graph.NETWORK, 0, 4)
            more = Block()
            self._branch(inside, "eq", first, _wire(0x0001_0800, 4), more, broken)
            second = self._load(more, None, graph.NETWORK, 4, 2)
            self._branch(more, "eq", second, _wire(0x0604, 2), whole, broken)
        elif header == "ip":
            byte = self._load(inside, None, graph.NETWORK, 0, 1)
            # 0x45 to 0x4f: version 4, five words or more.
            beyond = self._emit(inside, None, "sub", byte, self._constant(inside, 0x45))
            self._branch(inside, "ule", beyond, 0x4F - 0x45, whole, broken)
        else:
            byte = self._load(inside, None, graph.NETWORK, 0, 1)
            version = self._emit(inside, None, "and", byte, self._constant(inside, 0xF0))
            self._branch(inside, "eq", version, 0x60, whole, broken)

    def _ethertype(self, query: Block, block: Block, state: State) -> None:
        """Find EtherType and network header behind the VLAN tags."""
        # What was found of headers is no longer told of these registers.
        state = _without_true(state, (*_NETWORKS, "located", *_TRANSPORTS))
        found = _with(state, True, ("eth", "typed"))
        for tags in range(3):
            # `block` has seen that many tags.
            here = _with(found, True, _VLANS[:tags])
            here = _with(here, False, _VLANS[tags:])
            self._load(block, graph.ETHERTYPE, graph.DATA, 12 + 4 * tags, 2)
            self._emit(block, graph.NETWORK, "pconst", graph.DATA, imm=14 + 4 * tags)
            if tags >= self.options.vlan:
                block.end = Jump(self._again(query, here))
                return
            tagged, maybe, more = Block(), Block(), Block()
            customer, service = (_wire(value, 2) for value in headers.ETHERTYPES_VLAN)
            self._branch(block, "eq", graph.ETHERTYPE, customer, tagged, maybe)
            self._branch(maybe, "eq", graph.ETHERTYPE, service, tagged, self._again(query, here))
            cut = self._again(query, _with(here, False, (*_NETWORKS, *_TRANSPORTS)))
            tagged.end = Check(graph.DATA, 18 + 4 * tags, more, cut, self._line)
            block = more

    def _transport(self, query: Block, header: str, block: Block, state: State) -> None:
        """One step towards a transport header."""
        family = {"icmp": "ip", "icmpv6": "ipv6"}.get(header)
        if family is not None and _get(state, family) is not True:
            if _get(state, family) is None:
                self._network(query, family, block, state)
            else:
                block.end = Jump(self._again(query, _with(state, False, (header,))))
        elif _get(state, "located") is None:
            self._locate(query, block, state)
        else:
            wanted, inside = Block(), _with(state, True, (header,))
            inside = _with(inside, False, (name for name in _TRANSPORTS if name != header))
            protocol = headers.PROTOCOLS[header]
            other = self._again(query, _with(state, False, (header,)))
            self._branch(block, "eq", graph.PROTOCOL, protocol, wanted, other)
            cut = self._again(query, _with(state, False, _TRANSPORTS))
            size = headers.HEADERS[header].size
            wanted.end = Check(graph.TRANSPORT, size, self._again(query, inside), cut, self._line)

    def _locate(self, query: Block, block: Block, state: State) -> None:
        """Find where the transport header starts, and its protocol."""
        state = _without_true(state, _TRANSPORTS)
        none = self._again(query, _with(state, False, _TRANSPORTS))
        found = self._again(query, _with(state, True, ("located",)))
        for family in ("ip", "ipv6"):
            if _get(state, family) is None:
                self._network(query, family, block, state)
                return
            if _get(state, family):
                (self._locate4 if family == "ip" else self._locate6)(block, found, none)
                return
        block.end = Jump(none)

    def _locate4(self, block: Block, found: Block, none: Block) -> None:
        fragment = self._load(block, None, graph.NETWORK, 6, 2)
        first = Block()
        self._branch(block, "test", fragment, _wire(0x1FFF, 2), none, first)
        byte = self._load(first, None, graph.NETWORK, 0, 1)
        words = self._emit(first, None, "and", byte, self._constant(first, 0xF))
        length = self._emit(first, None, "shl", words, self._constant(first, 2))
        self._emit(first, graph.TRANSPORT, "padd", graph.NETWORK, length)
        self._load(first, graph.PROTOCOL, graph.NETWORK, 9, 1)
        first.end = Jump(found)

    def _locate6(self, block: Block, found: Block, none: Block) -> None:
        self._emit(block, graph.TRANSPORT, "pconst", graph.NETWORK, imm=40)
        self._load(block, graph.PROTOCOL, graph.NETWORK, 6, 1)
        if not self.options.extensions:
            block.end = Jump(found)
            return
        left = self._constant(block, self.options.extensions)
        look = Block()
        block.end = Jump(look)
        walk, step, behind = Block(), Block(), Block()
        for protocol in headers.EXTENSIONS:
            next_one = Block()
            self._branch(look, "eq", graph.PROTOCOL, protocol, walk, next_one)
            look = next_one
        fragment = Block()
        self._branch(look, "eq", graph.PROTOCOL, headers.FRAGMENT, fragment, found)
        walk.end = Check(graph.TRANSPORT, 8, step, none, self._line)
        units = self._load(step, None, graph.TRANSPORT, 1, 1)
        length = self._emit(step, None, "shl", units, self._constant(step, 3))
        self._load(step, graph.PROTOCOL, graph.TRANSPORT, 0, 1)
        moved = self._emit(step, None, "pconst", graph.TRANSPORT, imm=8)
        self._emit(step, graph.TRANSPORT, "padd", moved, length)
        step.end = Jump(behind)
        whole, only = Block(), Block()
        fragment.end = Check(graph.TRANSPORT, 8, whole, none, self._line)
        offset = self._load(whole, None, graph.TRANSPORT, 2, 2)
        self._branch(whole, "test", offset, _wire(0xFFF8, 2), none, only)
        self._load(only, graph.PROTOCOL, graph.TRANSPORT, 0, 1)
        self._emit(only, graph.TRANSPORT, "pconst", graph.TRANSPORT, imm=8)
        only.end = Jump(behind)
        self._emit(behind, left, "sub", left, self._constant(behind, 1))
        assert isinstance(block.end, Jump)
        self._branch(behind, "eq", left, 0, found, block.end.target)


def _wire(value: int, size: int) -> int:
    """A number in network order, as the machine loads it."""
    data = value.to_bytes(size, "big")
    return int.from_bytes(data, "little" if LITTLE else "big")


def _project(state: State, needs: frozenset[str]) -> State:
    """What of the knowledge matters where these headers may still be asked for."""
    kept = set(needs)
    transports = [name for name in _TRANSPORTS if name in needs and _get(state, name) is None]
    located = _get(state, "located")
    asks_network = any(_get(state, name) is None for name in (*_VLANS, *_NETWORKS) if name in needs)
    if transports:
        kept.add("located")
        families = {"icmp": "ip", "icmpv6": "ipv6"}
        wanted = {families[name] for name in transports if name in families}
        asks_network |= any(_get(state, name) is None for name in wanted)
        if located is None:
            wanted = {"ip", "ipv6"}
            asks_network |= _get(state, "ip") is None
            asks_network |= _get(state, "ip") is False and _get(state, "ipv6") is None
        kept |= wanted
    if asks_network:
        kept.add("typed")
        if _get(state, "typed") is None:
            kept.add("eth")
    return tuple(value if fact in kept else None for fact, value in zip(_FACTS, state, strict=True))


def _reachable(entry: Block) -> list[Block]:
    """Every block that control may come to."""
    found = [entry]
    seen = {entry}
    for block in found:
        for target in targets(block.end):
            if target not in seen:
                seen.add(target)
                found.append(target)
    return found


def _needs(entry: Block) -> dict[Block, frozenset[str]]:
    """The headers that may be asked for from each block on, by what is known at its start."""
    blocks = _reachable(entry)
    needs: dict[Block, frozenset[str]] = dict.fromkeys(blocks, frozenset())
    changed = True
    while changed:
        changed = False
        for block in reversed(blocks):
            found: set[str] = set()
            if isinstance(block.end, Query):
                found.add(block.end.header)
            if not block.forgets:
                for target in targets(block.end):
                    found |= needs[target]
            if found != needs[block]:
                needs[block] = frozenset(found)
                changed = True
    return needs
