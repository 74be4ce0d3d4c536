"""Dominators, registers and the order of code, and what code programs are not to have."""

from __future__ import annotations

import random
import re
from typing import Any

import frames
import pytest

from millrace import _native, xdp
from millrace.xdp import DROP, PASS, TX, Array, Hash, IPv4, IPv6, LpmTrie, Program, u8, u16
from millrace.xdp.compiler.allocate import allocate, live_out
from millrace.xdp.compiler.dominance import Dominance
from millrace.xdp.compiler.emit import _jumps, _matched, _traced, emit
from millrace.xdp.compiler.machine import FRAME, Code, Instruction, Section
from millrace.xdp.compiler.ssa import Block, Finish, Function


def random_graph(seed: int, size: int) -> list[Block]:
    """Blocks with one or two ways out of each, in reverse postorder."""
    rng = random.Random(seed)
    blocks = [Block() for _ in range(size)]
    for index, block in enumerate(blocks):
        forward = blocks[index + 1 :] or blocks[-1:]
        targets = {rng.choice(forward), rng.choice(blocks[1:] if rng.random() < 0.2 else forward)}
        if index == size - 1:
            targets = set()
        block.finish = Finish("jump", sorted(targets, key=lambda b: b.number))
    function = Function(blocks[0], [])
    order = function.blocks()
    for block in order:
        for target in block.finish.targets:
            target.before.append(block)
    return order


def reached_without(entry: Block, without: Block) -> set[Block]:
    found, waiting = set(), [entry]
    while waiting:
        block = waiting.pop()
        if block is not without and block not in found:
            found.add(block)
            waiting += block.finish.targets
    return found


@pytest.mark.parametrize("seed", range(60))
def test_dominators_are_what_every_way_leads_through(seed: int) -> None:
    blocks = random_graph(seed, 3 + seed % 25)
    dominance = Dominance(blocks)
    for first in blocks:
        reached = reached_without(blocks[0], first)
        for second in blocks:
            wanted = second not in reached
            assert dominance.dominates(first, second) == wanted
    for block in blocks[1:]:
        assert dominance.parent[block] is not block
        assert dominance.dominates(dominance.parent[block], block)


def random_sections(seed: int, size: int) -> list[Section]:
    rng = random.Random(seed)
    sections = [Section() for _ in range(size)]
    for index, section in enumerate(sections):
        nop = Instruction("alu", 0, None, 1, "add")
        last = Instruction("exit")
        if index < size - 1:
            name = rng.choice(["jump", "eq", "ult", "test"])
            to, other = (rng.choice(sections[1:]) for _ in range(2))
            if name == "jump":
                last = Instruction("jump", to=sections[index + 1] if rng.random() < 0.3 else to)
            else:
                last = Instruction("branch", 0, None, 7, name, to=to)
                section.other = other
        section.instructions = [nop, last]
    return sections


@pytest.mark.parametrize("seed", range(60))
def test_order_has_every_section_once_and_few_jumps(seed: int) -> None:
    sections = random_sections(seed, 2 + seed % 30)
    reached: list[Section] = [sections[0]]
    for section in reached:
        reached += [target for target in {*section.targets()} if target not in reached]
    for order in (_traced(sections[0]), _matched(sections[0])):
        assert order[0] is sections[0]
        assert len(order) == len(set(order)) == len(reached)
        assert set(order) == set(reached)
    # Bites of its own tail aside, the matching is no worse.
    assert _jumps(_matched(sections[0])) <= _jumps(_traced(sections[0])) + 2
    code = emit(Code([sections[0]], 11))
    assert len(_native.xdp_disassemble(code.code)) == code.instructions


def virtual(name: str, target: int, source: int | None = None, imm: int = 0) -> Instruction:
    return Instruction("alu", target, source, imm, name)


def run_straight(instructions: list[Instruction]) -> int:
    """What straight code leaves in register 0."""
    registers: dict[int | None, int] = {}
    stack: dict[int, int] = {}
    for i in instructions:
        match i.op:
            case "alu" if i.name == "mov":
                registers[i.target] = i.imm if i.source is None else registers[i.source]
            case "alu":
                registers[i.target] += registers[i.source]
            case "store":
                assert i.target == FRAME
                stack[i.offset] = registers[i.source]
            case "load":
                registers[i.target] = stack[i.offset]
            case "call":
                for destroyed in range(6):
                    registers[destroyed] = -1
    return registers[0]


@pytest.mark.parametrize("count", [1, 5, 10, 11, 30, 55])
@pytest.mark.parametrize("calls", [0, 1, 3])
def test_more_values_than_registers_go_to_the_stack(count: int, calls: int) -> None:
    section = Section()
    add = section.instructions.append
    for value in range(count):
        add(virtual("mov", 11 + value, imm=value * value))
    for _ in range(calls):
        add(Instruction("call", imm=7, name="random"))
    add(virtual("mov", 0, imm=0))
    for value in range(count):
        add(virtual("add", 0, 11 + value))
    add(Instruction("exit"))
    code = Code([section], 11 + count)
    allocate(code)
    used = {r for i in section.instructions for r in (*i.uses(), *i.defines())}
    assert used <= set(range(11))
    assert run_straight(section.instructions) == sum(n * n for n in range(count))
    assert (code.stack > 0) == (count > (4 if calls else 9))
    assert code.stack <= 8 * count
    assert live_out(code)[section] == set()


def text(program: Program) -> str:
    return "\n".join(line for _, line in _native.xdp_disassemble(program.compiled.assembled.code))


table = Hash(u16)
hosts = Hash(IPv6)
flows = Hash((IPv4, u16, u8))
routes = LpmTrie(IPv4)
single = Array(1)


def test_no_code_for_what_makes_no_difference() -> None:
    @xdp
    def program(pkt: Any) -> Any:
        if pkt.udp and pkt.udp.dport == 9 and pkt.ip.ttl > 3:
            return DROP
        return PASS

    # An IPv6 frame ends with PASS in any case: nothing looks for its header.
    assert "56710" not in text(program)

    @xdp
    def constant(pkt: Any) -> Any:
        unused = pkt.udp.dport if pkt.udp else 7
        return PASS if unused == unused else DROP

    assert text(constant).splitlines() == ["r0 = 2", "exit"]


def test_headers_are_checked_once() -> None:
    @xdp(vlan=0)
    def program(pkt: Any) -> Any:
        if pkt.ip and pkt.ip.ttl > 3 and pkt.ip.tos == 0 and pkt.ip.src == "192.0.2.1":
            return DROP if pkt.ip.dst == "192.0.2.2" or pkt[20] == 3 else TX
        return PASS

    code = text(program)
    # One comparison with the end of the frame, for all 34 bytes.
    assert len(re.findall(r"if r\d > r\d goto", code)) == 1
    assert "+= 34" in code


def test_a_field_is_loaded_once() -> None:
    @xdp
    def program(pkt: Any) -> Any:
        if pkt.udp and (pkt.udp.dport == 1 or pkt.udp.dport == 2 or pkt.udp.dport > 5000):
            table[pkt.udp.dport] += pkt.udp.dport
            return DROP
        return PASS

    loads = [
        line for line in text(program).splitlines() if re.search(r"\*\(u16 \*\)\(r\d \+2\)", line)
    ]
    assert len(loads) == 1


def test_an_entry_is_looked_for_once() -> None:
    @xdp
    def program(pkt: Any) -> Any:
        if pkt.udp:
            key = pkt.udp.dport
            if key in table and table[key] > 3:
                table[key] += 1
                return DROP if table[key] > 100 else TX
        return PASS

    assert text(program).count("call bpf_map_lookup_elem") == 1


def test_the_only_value_of_an_array_needs_no_look_up() -> None:
    @xdp
    def program(pkt: Any) -> Any:
        single[0] += 1
        return DROP if single[0] > 5 else PASS

    assert "call" not in text(program)


def test_comparisons_turn_constants_and_not_fields() -> None:
    @xdp
    def program(pkt: Any) -> Any:
        if pkt.ip and pkt.ip.src in ("10.0.0.0/8", "192.0.2.1") and pkt.ip.id & 0x8001 == 1:
            return DROP
        return PASS

    assert "be16" not in text(program)
    assert "be32" not in text(program)


@pytest.mark.kernel
def test_keys_of_every_layout_load() -> None:
    """The verifier wants stores to the stack aligned."""

    @xdp
    def program(pkt: Any) -> Any:
        if pkt.ipv6:
            hosts[pkt.ipv6.src] += 1
        if pkt.ip and pkt.udp:
            flows[pkt.ip.src, pkt.udp.sport, pkt.ip.ttl] += 1
            routes[pkt.ip.dst] += 1
        return PASS

    given = [frames.udp6(), frames.udp4(), frames.udp4()]
    program.run(given)
    assert flows["192.0.2.1", 5000, 64] == 2
    assert hosts["2001:db8::1"] == 1
    assert routes["192.0.2.2"] == 2


def test_loops_stay_loops() -> None:
    @xdp
    def program(pkt: Any) -> Any:
        total = 0
        for i in range(1000):
            total += i ^ pkt.len
        return DROP if total else PASS

    assert program.instructions < 30
    assert re.search(r"goto -\d", text(program))
