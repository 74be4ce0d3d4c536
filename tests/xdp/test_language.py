"""What programs mean: the same in plain Python and in the kernel, and as docs/xdp.md says."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

import frames
import pytest

from millrace import xdp
from millrace.xdp import (
    ABORTED,
    DROP,
    PASS,
    TX,
    Array,
    Counter,
    Hash,
    IPv4,
    LpmTrie,
    PerCpuArray,
    Program,
    Run,
    Verdict,
    i8,
    i16,
    i64,
    u8,
    u16,
    u32,
    u64,
)

pytestmark = pytest.mark.kernel

Both = Callable[..., list[Run]]
PORT = 9
PORTS = (53, 123, 161)
HOME = ipaddress.ip_network("192.0.2.0/24")
HOST = ipaddress.ip_address("192.0.2.1")

#: What programs here write results into.
out = Array(16, i64)
wide = Array(4, u64)


def verdicts(program: Program, both: Both, *given: bytes) -> list[Verdict]:
    return [run.verdict for run in both(program, *given)]


def test_conditions(both: Both) -> None:
    @xdp
    def program(pkt: Any) -> Any:
        if pkt.udp and pkt.udp.dport == PORT:
            return DROP
        elif pkt.tcp and (pkt.tcp.syn or not pkt.tcp.flags):
            return TX
        return PASS if pkt.arp else ABORTED

    given = [frames.udp4(9), frames.udp4(8), frames.udp6(9), frames.tcp4(flags=0x12)]
    given += [frames.tcp4(flags=0), frames.tcp4(flags=0x10), frames.arp()]
    wanted = [DROP, ABORTED, DROP, TX, TX, ABORTED, PASS]
    assert verdicts(program, both, *given) == wanted


def test_chains_and_membership(both: Both) -> None:
    @xdp
    def program(pkt: Any) -> Any:
        if not pkt.udp:
            return ABORTED
        port = pkt.udp.dport
        if 1024 <= port < 2048 != pkt.udp.sport:
            return TX
        if port in PORTS or port in range(5000, 5100) or port not in (9, 10, 8000):
            return DROP
        return PASS

    ports = [1024, 2047, 53, 161, 5000, 5099, 9, 10, 8000, 77]
    wanted = [TX, TX, DROP, DROP, DROP, DROP, PASS, PASS, PASS, DROP]
    assert verdicts(program, both, *map(frames.udp4, ports)) == wanted


def test_addresses_are_compared_and_looked_for(both: Both) -> None:
    @xdp
    def program(pkt: Any) -> Any:
        if pkt.ipv6:
            return DROP if pkt.ipv6.src in ("2001:db8::/48", "fe80::1") else TX
        if pkt.ip and pkt.ip.src == HOST and pkt.eth.dst == "02:00:00:00:00:02":
            return PASS
        if pkt.ip and pkt.ip.src in HOME and pkt.ip.src != pkt.ip.dst:
            return DROP
        return ABORTED if pkt.ip and pkt.ip.src in ("10.0.0.0/8", "198.51.100.7") else TX

    given = [frames.udp6(), frames.udp4()]
    for source in ("192.0.2.77", "192.0.2.2", "10.1.2.3", "198.51.100.7", "198.51.100.8"):
        given.append(frames.udp4(source=source))
    assert verdicts(program, both, *given) == [DROP, PASS, DROP, TX, ABORTED, ABORTED, TX]


def test_numbers_wrap_at_64_bits(both: Both) -> None:
    @xdp
    def program(pkt: Any) -> Any:
        big = (1 << 62) + pkt.udp.sport - 5000
        out[0] = big * 2
        out[1] = big + big - 1
        out[2] = -big * 4
        out[3] = 3 - pkt.udp.sport
        wide[0] = u64(3) - pkt.udp.sport
        wide[1] = wide[0] // 3
        out[4] = u8(pkt.udp.sport)
        out[5] = i8(pkt.udp.sport * 27)
        out[6] = i16(40000) + u16(70000)
        out[7] = ~pkt.udp.sport
        out[8] = abs(3 - pkt.udp.sport) + min(7, pkt.udp.sport, 12) + max(1, 2)
        out[9] = pkt.tcp.flags if pkt.tcp else -1
        return PASS

    both(program, frames.udp4())
    assert list(out)[:10] == [
        -(1 << 63),
        (1 << 63) - 1,
        0,
        -4997,
        5000 & 0xFF,
        i8(5000 * 27),
        40000 - 65536 + 70000 - 65536,
        -5001,
        4997 + 7 + 2,
        -1,
    ]
    assert wide[0] == (1 << 64) - 4997
    assert wide[1] == ((1 << 64) - 4997) // 3


@pytest.mark.parametrize("divisor", [1, 2, 3, 7, 16, -1, -2, -7])
def test_division_rounds_down_as_pythons(both: Both, divisor: int) -> None:
    @xdp
    def program(pkt: Any) -> Any:
        number = pkt.udp.dport - 100
        out[0] = number // divisor
        out[1] = number % divisor
        variable = pkt.udp.sport - 200
        out[2] = number // variable
        out[3] = number % variable
        return PASS

    for dport in (93, 100, 107, 60000):
        for sport in (1, 193, 199, 201, 207, 65000):
            both(program, frames.udp4(dport, sport))
            number, variable = dport - 100, sport - 200
            assert list(out)[:4] == [
                number // divisor,
                number % divisor,
                number // variable,
                number % variable,
            ]


def test_shifts_are_pythons(both: Both) -> None:
    @xdp
    def program(pkt: Any) -> Any:
        count = pkt.udp.dport
        number = pkt.udp.sport - 6000
        out[0] = number << 3
        out[1] = number >> 3
        out[2] = number << count
        out[3] = number >> count
        wide[0] = u64(number) >> count
        return PASS

    number = 5000 - 6000
    for count in (0, 1, 63, 64, 70, 65535):
        both(program, frames.udp4(count))
        assert list(out)[:4] == [number << 3, number >> 3, i64(number << count), number >> count]
        assert wide[0] == u64(number) >> count


@pytest.mark.parametrize("on_error", [ABORTED, DROP, PASS, TX])
def test_what_python_would_raise_ends_the_program(both: Both, on_error: Verdict) -> None:
    reached = Counter()

    @xdp(on_error=on_error)
    def program(pkt: Any) -> Any:
        reached.add()
        if pkt.arp:
            return DROP if pkt.udp.dport else PASS
        if pkt.tcp:
            out[0] = 1 // (pkt.tcp.window - 1000)
        if pkt.icmp:
            out[1] = pkt[pkt.icmp.code]
        if pkt.ipv6:
            out[pkt.ipv6.hop_limit] = 1
        if pkt.udp:
            out[1] = 1 << (pkt.udp.dport - 1)
        return DROP if on_error != DROP else PASS

    fine = DROP if on_error != DROP else PASS
    icmp = [
        frames.ethernet(0x0800, frames.ipv4("icmp", frames.icmp(8, code=code))) for code in (41, 42)
    ]
    given = [frames.arp(), frames.tcp4(), *icmp, frames.tcp6(), frames.udp4(0), frames.udp4(1)]
    wanted = [on_error, on_error, fine, on_error, on_error, on_error, fine]
    assert verdicts(program, both, *given) == wanted
    assert int(reached) == 7


def test_loops(both: Both) -> None:
    @xdp
    def program(pkt: Any) -> Any:
        total = 0
        for i in range(min(pkt.len, 100)):
            if i >= 60:
                break
            if i % 2:
                continue
            total += pkt[i]
        out[0] = total
        squares = 0
        for i in range(10, 0, -3):
            squares += i * i
        out[1] = squares
        product = 1
        for port in PORTS:
            product *= port
        out[2] = product
        count = 0
        for i in range(3):
            for j in range(min(pkt.udp.sport, 5)):
                count += i * j
        out[3] = count
        for k in range(100):
            last = k
        out[4] = last + i
        down = 0
        for i in range(min(pkt.udp.sport, 9), 2, -2):
            down = down * 10 + i
        out[5] = down
        return PASS

    (run,) = both(program, frames.udp4(payload=bytes(range(18))))
    assert out[0] == sum(run.frame[0:60:2])
    assert list(out)[1:6] == [100 + 49 + 16 + 1, 53 * 123 * 161, 30, 101, 9753]


def test_range_over_the_length_is_bounded(both: Both) -> None:
    @xdp
    def program(pkt: Any) -> Any:
        found = 0
        for i in range(42, min(len(pkt), 60)):
            if pkt[i] == 0xAB:
                found += 1
        return DROP if found == 3 else PASS

    given = [frames.udp4(payload=payload) for payload in (b"\xab" * 3, b"\xab" * 2)]
    assert verdicts(program, both, *given) == [DROP, PASS]


def double(pkt: Any, number: Any) -> Any:
    return 2 * number


def is_dns(udp: Any, port: Any = 53) -> Any:
    if not udp:
        return False
    return udp.sport == port or udp.dport == port


def count(table: Any, key: Any) -> None:
    table[key] += 1


def both_ports(pkt: Any) -> Any:
    return pkt.udp.sport, pkt.udp.dport


def test_functions_are_compiled_in_place(both: Both) -> None:
    seen: Any = Hash(u16)

    @xdp
    def program(pkt: Any) -> Any:
        udp = pkt.udp
        if is_dns(udp):
            return DROP
        if is_dns(pkt.udp, 5353):
            return TX
        if udp:
            count(seen, udp.dport)
            sport, dport = both_ports(pkt)
            out[0] = double(pkt, double(pkt, sport)) + dport
        return PASS

    given = [frames.udp4(53), frames.udp4(5, 53), frames.udp4(5353), frames.udp4(77), frames.arp()]
    assert verdicts(program, both, *given) == [DROP, DROP, TX, PASS, PASS]
    assert seen.items() == [(77, 1)]
    assert out[0] == 20077


def test_a_program_can_be_called_by_another(both: Both) -> None:
    @xdp
    def inner(pkt: Any) -> Any:
        return DROP if pkt.udp else PASS

    @xdp
    def outer(pkt: Any) -> Any:
        verdict = inner(pkt)
        return TX if verdict == PASS and pkt.arp else verdict

    given = [frames.udp4(), frames.tcp4(), frames.arp()]
    assert verdicts(outer, both, *given) == [DROP, PASS, TX]


def test_closures_give_constants(both: Both) -> None:
    def make(port: int, table: Any) -> Program:
        @xdp
        def program(pkt: Any) -> Any:
            if pkt.udp and pkt.udp.dport == port:
                table[pkt.ip.src] += 1
                return DROP
            return PASS

        return program

    first, second = Hash(IPv4), Hash(IPv4)
    assert verdicts(make(9, first), both, frames.udp4(9), frames.udp4(10)) == [DROP, PASS]
    assert verdicts(make(10, second), both, frames.udp4(9), frames.udp4(10)) == [PASS, DROP]
    assert first["192.0.2.1"] == second["192.0.2.1"] == 1


def test_constants_of_modules_and_enumerations(both: Both) -> None:
    @xdp
    def program(pkt: Any) -> Any:
        if pkt.ip and pkt.ip.protocol == socket.IPPROTO_TCP:
            return Verdict.DROP
        return PASS

    assert verdicts(program, both, frames.tcp4(), frames.udp4()) == [DROP, PASS]


def test_names_of_its_own_hide_nothing(both: Both) -> None:
    @xdp
    def program(pkt: Any) -> Any:
        max = 3
        min = pkt.udp.dport if pkt.udp else max
        return DROP if min == max else PASS

    assert verdicts(program, both, frames.udp4(3), frames.udp4(4), frames.arp()) == [
        DROP,
        PASS,
        DROP,
    ]


def test_maps_in_programs(both: Both) -> None:
    ports: Any = Hash(u16, u32, entries=4)
    flows: Any = Hash((IPv4, u16), (u64, u64))
    blocked: Any = LpmTrie(IPv4)
    sizes: Any = PerCpuArray(8)
    counter = Counter()
    blocked["198.51.100.0/24"] = 5
    ports[1] = 1

    @xdp
    def program(pkt: Any) -> Any:
        counter.add(pkt.len)
        if not (pkt.ip and pkt.udp):
            return PASS
        if pkt.ip.src in blocked:
            blocked[pkt.ip.src] += 1
            return DROP
        flow = pkt.ip.src, pkt.udp.dport
        flows[flow][0] += 1
        flows[flow][1] += pkt.len
        sizes[pkt.len // 256 & 7] += 1
        if pkt.udp.dport == 1:
            del ports[1]
        elif ports.get(pkt.udp.dport, 100) == 100:
            ports[pkt.udp.dport] = 7
        else:
            ports[pkt.udp.dport] -= 1
        return TX if flows[flow][0] > 2 else PASS

    given = [frames.udp4(53)] * 3 + [frames.udp4(1), frames.udp4(53, source="198.51.100.9")]
    assert verdicts(program, both, *given) == [PASS, PASS, TX, PASS, DROP]
    assert ports.items() == [(53, 5)]
    assert flows["192.0.2.1", 53] == (3, 180)
    assert blocked["198.51.100.0/24"] == 6
    assert int(counter) == 300
    assert sizes[0] == 4


def test_a_full_map_loses_writes(both: Both) -> None:
    ports: Any = Hash(u16, entries=2)

    @xdp
    def program(pkt: Any) -> Any:
        ports[pkt.udp.dport] += 1
        return DROP if pkt.udp.dport in ports else PASS

    given = [frames.udp4(port) for port in (1, 2, 3, 2)]
    assert verdicts(program, both, *given) == [DROP, DROP, PASS, DROP]
    assert dict(ports.items()) == {1: 1, 2: 2}


def test_values_of_maps_are_cut_to_their_width(both: Both) -> None:
    small: Any = Hash(u8, i8)

    @xdp
    def program(pkt: Any) -> Any:
        small[pkt.udp.dport] = pkt.udp.sport
        small[1] += 300
        return PASS

    both(program, frames.udp4(0x1234, 200))
    assert dict(small.items()) == {0x34: -56, 1: 44}


def test_a_value_read_after_a_change_is_the_changed_one(both: Both) -> None:
    table: Any = Hash(u16)

    @xdp
    def program(pkt: Any) -> Any:
        key = pkt.udp.dport
        before = table[key]
        table[key] += 5
        middle = table[key]
        table[key] = 100
        after = table[key]
        del table[key]
        out[0] = before
        out[1] = middle
        out[2] = after
        out[3] = table[key]
        return DROP if key in table else PASS

    assert verdicts(program, both, frames.udp4(9)) == [PASS]
    assert list(out)[:4] == [0, 5, 100, 0]


def test_context(both: Both) -> None:
    @xdp
    def program(pkt: Any) -> Any:
        out[0] = pkt.ifindex
        out[1] = pkt.queue
        out[2] = pkt.len
        return PASS

    both(program, frames.udp4())
    assert list(out)[:3] == [1, 0, 60]
    program(frames.udp4(), ifindex=7, queue=3)
    assert list(out)[:2] == [7, 3]


def test_helpers_of_the_kernel() -> None:
    @xdp
    def program(pkt: Any) -> Any:
        start = xdp.now()
        wide[0] = start
        wide[1] = xdp.random()
        wide[2] = xdp.cpu()
        return PASS if xdp.now() >= start else ABORTED

    import os
    import time

    before = time.monotonic_ns()
    for run in (program.run(frames.arp())[0], program.plain(frames.arp())[0]):
        assert run.verdict == PASS
        assert before <= wide[0] <= time.monotonic_ns()
        assert wide[1] < 1 << 32
        assert wide[2] < (os.cpu_count() or 1)
