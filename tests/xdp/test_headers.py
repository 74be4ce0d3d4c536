"""Headers: which are present, what their fields are, and what writing them does to the frame."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from typing import Any

import frames
import pytest

from millrace import xdp
from millrace.xdp import ABORTED, DROP, PASS, TX, Array, Program, Run, i64
from millrace.xdp.headers import HEADERS
from millrace.xdp.packet import Packet

pytestmark = pytest.mark.kernel

Both = Callable[..., list[Run]]
out = Array(32, i64)
_numbers = itertools.count()


@xdp(vlan=2, extensions=4)
def present(pkt: Any) -> Any:
    """Which headers are present, as bits."""
    found = 0
    if pkt.eth:
        found |= 1
    if pkt.vlan:
        found |= 2
    if pkt.vlan2:
        found |= 4
    if pkt.arp:
        found |= 8
    if pkt.ip:
        found |= 16
    if pkt.ipv6:
        found |= 32
    if pkt.icmp:
        found |= 64
    if pkt.icmpv6:
        found |= 128
    if pkt.udp:
        found |= 256
    if pkt.tcp:
        found |= 512
    out[0] = found
    return PASS


NAMES = ["eth", "vlan", "vlan2", "arp", "ip", "ipv6", "icmp", "icmpv6", "udp", "tcp"]


def names(found: int) -> set[str]:
    return {name for bit, name in enumerate(NAMES) if found >> bit & 1}


def icmp6(kind: int = 128) -> bytes:
    return frames.ipv6("icmpv6", frames.icmpv6(kind, rest=0x10002))


@pytest.mark.parametrize(
    ("frame", "wanted"),
    [
        (frames.udp4(), "eth ip udp"),
        (frames.tcp4(), "eth ip tcp"),
        (frames.udp6(), "eth ipv6 udp"),
        (frames.tcp6(), "eth ipv6 tcp"),
        (frames.arp(), "eth arp"),
        (frames.ethernet(0x0800, frames.ipv4("icmp", frames.icmp(8))), "eth ip icmp"),
        (frames.ethernet(0x86DD, icmp6()), "eth ipv6 icmpv6"),
        # The protocol of the other family is none.
        (frames.ethernet(0x86DD, frames.ipv6("icmp", bytes(8))), "eth ipv6"),
        (frames.ethernet(0x0800, frames.ipv4("icmpv6", bytes(8))), "eth ip"),
        (frames.udp4(9, 5, b"", 5), "eth vlan ip udp"),
        (frames.udp4(9, 5, b"", 5, 6), "eth vlan vlan2 ip udp"),
        (frames.udp4(9, 5, b"", 5, 6, 7), "eth vlan vlan2"),
        (frames.ethernet(0x1234, bytes(46)), "eth"),
        (frames.ethernet(0x0800, b""), "eth"),
        (frames.ethernet(0x8100, b"\0\0"), "eth"),
        (frames.ethernet(0x0800, frames.ipv4("udp", frames.udp(1, 2), options=bytes(40))),
         "eth ip udp"),
        (frames.ethernet(0x0800, frames.ipv4("udp", frames.udp(1, 2), fragment=0x2000)),
         "eth ip udp"),
        (frames.ethernet(0x0800, frames.ipv4("udp", frames.udp(1, 2), fragment=1)), "eth ip"),
        (frames.udp4(payload=b"")[:41], "eth ip"),
        (frames.udp4()[:33], "eth"),
        (frames.tcp4()[:53], "eth ip"),
        (frames.udp6(payload=b"")[:61], "eth ipv6"),
        (frames.udp6()[:53], "eth"),
        (frames.arp()[:41], "eth"),
        (frames.arp()[:14] + b"\0\6" + frames.arp()[16:], "eth"),
        (frames.udp4()[:14] + b"\x44" + frames.udp4()[15:], "eth"),
        (frames.udp4()[:14] + b"\x55" + frames.udp4()[15:], "eth"),
        (frames.udp6()[:14] + b"\x40" + frames.udp6()[15:], "eth"),
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_which_headers_are_present(both: Both, frame: bytes, wanted: str) -> None:
    both(present, frame)
    assert names(out[0]) == set(wanted.split())


def extension(kind: int, following: int, extra: int = 0) -> tuple[int, bytes]:
    if kind == 44:
        return kind, struct.pack("!BBHI", following, 0, extra << 3, 7)
    return kind, bytes([following, extra]) + bytes(6 + 8 * extra)


@pytest.mark.parametrize("walked", [0, 1, 2, 8])
@pytest.mark.parametrize("kinds", [(), (0,), (60, 43), (0, 44), (0, 43, 60, 44)])
def test_extension_headers_are_walked_as_far_as_was_asked(
    both: Both, walked: int, kinds: tuple[int, ...]
) -> None:
    @xdp(extensions=walked)
    def program(pkt: Any) -> Any:
        return DROP if pkt.udp and pkt.udp.dport == 9 else PASS

    following, payload = 17, frames.udp(5, 9, source=frames.A6, target=frames.B6)
    for kind in kinds[::-1]:
        following, head = extension(kind, following, extra=0)
        payload = head + payload
    frame = frames.ethernet(0x86DD, frames.ipv6(following, payload))
    (run,) = both(program, frame)
    assert run.verdict == (DROP if len(kinds) <= walked else PASS)
    for cut in range(54, len(frame)):
        assert both(program, frame[:cut])[0].verdict == PASS


def test_later_fragments_of_ipv6_have_no_transport(both: Both) -> None:
    @xdp(extensions=2)
    def program(pkt: Any) -> Any:
        return DROP if pkt.udp else PASS

    for offset, wanted in ((0, DROP), (1, PASS), (100, PASS)):
        _, head = extension(44, 17, offset)
        frame = frames.ethernet(0x86DD, frames.ipv6(44, head + frames.udp(1, 2)))
        assert both(program, frame)[0].verdict == wanted


@pytest.mark.parametrize("tags", [0, 1, 2])
def test_headers_are_looked_for_behind_as_many_tags_as_was_asked(both: Both, tags: int) -> None:
    @xdp(vlan=tags)
    def program(pkt: Any) -> Any:
        if pkt.udp:
            return DROP
        return TX if pkt.vlan2 else ABORTED if pkt.vlan else PASS

    given = [frames.udp4(9, 5, b"", *range(count)) for count in range(4)]
    wanted = {
        0: [DROP, PASS, PASS, PASS],
        1: [DROP, DROP, ABORTED, ABORTED],
        2: [DROP, DROP, DROP, TX],
    }
    assert [run.verdict for run in both(program, *given)] == wanted[tags]


def test_fields_are_read_as_python_reads_them(both: Both) -> None:
    """Every number and flag of every header, against struct."""
    samples = {
        "eth": frames.udp4(),
        "vlan": frames.udp4(9, 5, b"", 0xB123),
        "vlan2": frames.udp4(9, 5, b"", 1, 0x7456),
        "arp": frames.arp(2),
        "ip": frames.ethernet(
            0x0800, frames.ipv4("udp", frames.udp(1, 2), tos=0xB9, fragment=0x4000, ttl=33)
        ),
        "ipv6": frames.ethernet(0x86DD, b"\x6a\xbc\xde\xf1" + frames.ipv6("udp", bytes(8))[4:]),
        "icmp": frames.ethernet(0x0800, frames.ipv4("icmp", frames.icmp(8, code=3, rest=0x123456))),
        "icmpv6": frames.ethernet(0x86DD, icmp6()),
        "udp": frames.udp4(0x1234, 0x5678),
        "tcp": frames.tcp4(0x1234, 0x5678, flags=0xFF),
    }  # fmt: skip
    for header, table in HEADERS.items():
        fields = [name for name, field in table.fields.items() if field.kind in ("int", "bool")]
        lines = [f"    out[{i}] = pkt.{header}.{name}" for i, name in enumerate(fields)]
        program = compiled(["def program(pkt):", *lines, "    return PASS"])
        both(program, samples[header])
        packet = Packet(samples[header])
        start = packet.start(header)
        assert start is not None
        for i, name in enumerate(fields):
            field = table.fields[name]
            data = samples[header][start + field.offset :][: field.size]
            value = int.from_bytes(data, "big") >> field.shift
            assert out[i] == (value & field.mask if field.mask else value), (header, name)


def compiled(lines: list[str]) -> Program:
    from differential import load

    source = "\n".join(["from millrace.xdp import *", "@xdp(vlan=2)", *lines]) + "\n"
    program = load(source, f"<headers {next(_numbers)}>", out=out)["program"]
    assert isinstance(program, Program)
    return program


WRITES = [
    (header, name)
    for header, table in HEADERS.items()
    for name, field in table.fields.items()
    if field.writable and name != "checksum"
]
SAMPLES = {
    "eth": [frames.udp4()],
    "vlan": [frames.udp4(9, 5, b"", 0xB123)],
    "vlan2": [frames.udp4(9, 5, b"", 1, 0x7456)],
    "arp": [frames.arp()],
    "ip": [frames.udp4(), frames.tcp4(payload=b"abc"),
           frames.ethernet(0x0800, frames.ipv4("icmp", frames.icmp(8, b"abc"))),
           frames.ethernet(0x0800, frames.ipv4("udp", frames.udp(1, 2), options=bytes(4)))],
    "ipv6": [frames.udp6(), frames.tcp6()],
    "icmp": [frames.ethernet(0x0800, frames.ipv4("icmp", frames.icmp(8, b"abc", rest=5)))],
    "icmpv6": [frames.ethernet(0x86DD, frames.ipv6("icmpv6", frames.icmpv6(128, b"abc")))],
    "udp": [frames.udp4(), frames.udp6()],
    "tcp": [frames.tcp4(payload=b"abcd"), frames.tcp6()],
}  # fmt: skip
VALUES = {
    "int": ["0", "1", "0xFFFFFFFF", "0x5A5A5A5A", "pkt.{h}.{n} - 1", "pkt.{h}.{n} + 1", "pkt.len"],
    "bool": ["True", "pkt.len == 0", "not pkt.{h}.{n}"],
    "ipv4": ['"0.0.0.0"', '"255.255.255.255"', '"198.51.100.7"', "int(pkt.{h}.{n}) + 1"],
    "ipv6": ['"::"', '"2001:db8::ffff"', '"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"'],
    "mac": ['"02:00:00:00:00:99"', "pkt.eth.dst"],
}


@pytest.mark.parametrize(("header", "name"), WRITES)
def test_writing_a_field_changes_it_and_keeps_checksums_right(
    both: Both, header: str, name: str
) -> None:
    field = HEADERS[header].fields[name]
    for value in VALUES[field.kind]:
        text = f"    pkt.{header}.{name} = {value.format(h=header, n=name)}"
        program = compiled(["def program(pkt):", text, "    return PASS"])
        for frame in SAMPLES[header]:
            assert frames.sums_are_right(frame)
            (run,) = both(program, frame)
            assert frames.sums_are_right(run.frame), (value, frame.hex(), run.frame.hex())
            start = Packet(frame).start(header)
            assert start is not None
            changed = {i for i, (a, b) in enumerate(zip(frame, run.frame, strict=True)) if a != b}
            own = set(range(start + field.offset, start + field.offset + field.size))
            sums = set()
            for other, table in HEADERS.items():
                at = Packet(frame).start(other)
                if table.checksum is not None and at is not None:
                    sums |= {at + table.checksum, at + table.checksum + 1}
            assert changed <= own | sums


def test_bits_beside_a_written_field_stay(both: Both) -> None:
    @xdp
    def program(pkt: Any) -> Any:
        pkt.ip.dscp = 0xFFFFFFC1
        pkt.ip.df = True
        pkt.vlan.id = 0x1FFF
        pkt.vlan.pcp += 1
        return PASS

    frame = frames.udp4(9, 5, b"", 0xE001, tos=3)
    (run,) = both(program, frame)
    assert run.frame[14:16] == b"\x0f\xff"
    assert run.frame[19] == 0x01 << 2 | 3
    assert run.frame[24] == 0x40


def test_no_checksum_of_udp_stays_none(both: Both) -> None:
    @xdp
    def program(pkt: Any) -> Any:
        pkt.ip.src = "203.0.113.7"
        pkt.udp.dport = 1
        return PASS

    frame = bytearray(frames.udp4())
    frame[40:42] = b"\0\0"
    (run,) = both(program, bytes(frame))
    assert run.frame[40:42] == b"\0\0"
    assert frames.sums_are_right(run.frame)


def test_checksum_of_udp_is_never_written_as_none(both: Both) -> None:
    """Over all ports one sum comes to zero, which is sent as 0xffff (RFC 768)."""

    @xdp
    def program(pkt: Any) -> Any:
        pkt.udp.dport = pkt.udp.sport
        return PASS

    # The sum comes to zero for the port that is what the sum was without one.
    without = frames.udp4(0, 0)
    sport = frames.checksum(b"") - 0
    base = int.from_bytes(without[40:42], "big")
    given = [frames.udp4(1, port & 0xFFFF) for port in (base // 2, base // 2 + 1, base, sport)]
    given += [frames.udp4(1, port) for port in range(0, 65536, 257)]
    for run in both(program, *given):
        assert frames.sums_are_right(run.frame)
        assert run.frame[40:42] != b"\0\0"
    assert any(run.frame[40:42] == b"\xff\xff" for run in both(program, *given))


def test_what_changes_places_changes_no_sum(both: Both) -> None:
    @xdp
    def program(pkt: Any) -> Any:
        pkt.eth.src, pkt.eth.dst = pkt.eth.dst, pkt.eth.src
        if pkt.ip:
            pkt.ip.src, pkt.ip.dst = pkt.ip.dst, pkt.ip.src
        if pkt.ipv6:
            pkt.ipv6.src, pkt.ipv6.dst = pkt.ipv6.dst, pkt.ipv6.src
        if pkt.udp:
            pkt.udp.sport, pkt.udp.dport = pkt.udp.dport, pkt.udp.sport
        if pkt.tcp:
            pkt.tcp.sport, pkt.tcp.dport = pkt.tcp.dport, pkt.tcp.sport
        return TX

    given = [frames.udp4(), frames.udp6(), frames.tcp4(), frames.tcp6(), frames.arp()]
    for before, run in zip(given, both(program, *given), strict=True):
        after = run.frame
        assert after[:12] == before[6:12] + before[:6]
        assert frames.sums_are_right(after)
        if before[12:14] == b"\x08\x00":
            assert after[26:34] == before[30:34] + before[26:30]
            assert after[24:26] == before[24:26]


def test_random_rewriting_keeps_all_sums_right(both: Both) -> None:
    @xdp
    def program(pkt: Any) -> Any:
        if pkt.ip:
            pkt.ip.ttl -= 1
            pkt.ip.tos = pkt.len
            pkt.ip.src = int(pkt.ip.src) * 0x9E3779B1
            pkt.ip.dst, pkt.ip.id = "198.51.100.1", pkt.ip.id + 7
        if pkt.ipv6:
            pkt.ipv6.dst = "2001:db8:ffff::1"
            pkt.ipv6.hop_limit -= 1
        if pkt.tcp:
            pkt.tcp.seq += 0x12345678
            pkt.tcp.window = 0
            pkt.tcp.ack = pkt.tcp.seq
        if pkt.udp:
            pkt.udp.sport = pkt.udp.dport ^ pkt.udp.sport
        return TX

    payloads = [bytes([n] * (n % 7)) for n in range(60)]
    given = [frames.udp4(n * 911 & 0xFFFF, n * 7919 & 0xFFFF, p) for n, p in enumerate(payloads)]
    given += [frames.tcp4(n * 911 & 0xFFFF, n * 7919 & 0xFFFF, p) for n, p in enumerate(payloads)]
    given += [frames.udp6(n * 911 & 0xFFFF, n * 7919 & 0xFFFF, p) for n, p in enumerate(payloads)]
    for run in both(program, *given):
        assert frames.sums_are_right(run.frame), run.frame.hex()


def test_bytes_of_packet_and_regions(both: Both) -> None:
    @xdp
    def program(pkt: Any) -> Any:
        out[0] = pkt.u16(12)
        out[1] = pkt.udp.payload.u32(0)
        out[2] = pkt.udp.payload[4]
        out[3] = len(pkt.udp.payload)
        out[4] = pkt.ip.options.u16(2)
        out[5] = len(pkt.ip.options)
        out[6] = pkt.ip.payload.u16(2)
        out[7] = pkt.len
        pkt.udp.payload[1] = 0x77
        pkt.set_u32(0, 0x01020304)
        pkt.udp.payload.set_u16(2, 0xABCDEF)
        return PASS

    frame = frames.ethernet(
        0x0800, frames.ipv4("udp", frames.udp(5, 9, bytes(range(10, 20))), options=bytes(range(8)))
    )
    (run,) = both(program, frame)
    assert list(out)[:8] == [0x0800, 0x0A0B0C0D, 14, 10, 0x0203, 8, 9, len(frame)]
    assert run.frame[:4] == bytes([1, 2, 3, 4])
    assert run.frame[50:54] == bytes([10, 0x77, 0xCD, 0xEF])


def test_options_end_with_the_header(both: Both) -> None:
    @xdp(on_error=ABORTED)
    def program(pkt: Any) -> Any:
        first = pkt.tcp.options.u16(pkt.udp.dport if pkt.udp else pkt.tcp.window - 1000)
        return DROP if first == 0x0204 else PASS

    for options, wanted in ((b"\2\4\5\xb4", DROP), (b"\1\1\1\1", PASS), (b"", ABORTED)):
        frame = frames.ethernet(
            0x0800, frames.ipv4("tcp", frames.tcp(5, 80, b"payload", options=options))
        )
        assert both(program, frame)[0].verdict == wanted


def test_headers_are_found_anew_after_a_raw_write(both: Both) -> None:
    @xdp
    def program(pkt: Any) -> Any:
        if not pkt.udp:
            return ABORTED
        pkt[23] = 6
        if pkt.udp:
            return DROP
        return TX if pkt.tcp else PASS

    given = [frames.udp4(payload=bytes(4)), frames.udp4(payload=bytes(12))]
    assert [run.verdict for run in both(program, *given)] == [PASS, TX]


def test_every_length_of_frame(both: Both) -> None:
    @xdp(extensions=2)
    def program(pkt: Any) -> Any:
        found = 0
        if pkt.udp:
            found += pkt.udp.dport
        if pkt.tcp:
            found += pkt.tcp.window
        if pkt.ip:
            found += pkt.ip.ttl
        if pkt.ipv6:
            found += pkt.ipv6.hop_limit
        if pkt.arp:
            found += pkt.arp.operation
        return DROP if found % 2 else PASS

    whole = [frames.udp4(9, 5, b"ab", 5), frames.tcp4(), frames.udp6(), frames.arp(), frames.tcp6()]
    given = [frame[:length] for frame in whole for length in range(14, len(frame) + 1)]
    both(program, *given)


def test_many_programs_of_header_questions_agree(both: Both) -> None:
    """Every order of three questions."""
    asked = ["pkt.ip", "pkt.udp", "pkt.ipv6", "pkt.tcp", "pkt.vlan"]
    given = [frames.udp4(), frames.tcp6(), frames.udp6(), frames.udp4(9, 5, b"", 1), frames.arp()]
    for first, second, third in itertools.permutations(asked, 3):
        program = compiled(
            [
                "def program(pkt):",
                "    n = 0",
                f"    if {first}:",
                "        n += 1",
                f"        if {second}:",
                "            n += 2",
                f"    if {third} and not {second}:",
                "        n += 4",
                "    out[0] = n",
                "    return PASS",
            ]
        )
        both(program, *given)
