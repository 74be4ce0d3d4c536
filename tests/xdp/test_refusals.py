"""What cannot be compiled is refused with the place and what to write instead."""

from __future__ import annotations

import itertools
import sys
import threading
import traceback
from typing import Any

import pytest
from differential import load

from millrace import xdp
from millrace.xdp import ABORTED, PASS, CompileError

_numbers = itertools.count()
HEAD = """from millrace.xdp import *
import math, os, socket, ipaddress
table = Hash(u32)
flows = Hash((IPv4, u16), (u64, u64))
hosts = Hash(IPv6)
indexed = Array(4)
routes = LpmTrie(IPv4)
counter = Counter()
devices = DevMap(4)
NOTHING = None
RATE = 1.5
PORTS = (1, 2)

@xdp
def program(pkt):
"""


def refused(*lines: str, head: str = HEAD) -> CompileError:
    """The error that a program with this body makes."""
    source = head + "\n".join(f"    {line}" for line in lines) + "\n"
    with pytest.raises(CompileError) as caught:
        load(source, f"<refused {next(_numbers)}>")
    return caught.value


@pytest.mark.parametrize(
    ("line", "at", "words"),
    [
        # Statements
        ("while True: pass", "while True: pass", "range(N)"),
        ("with pkt: pass", "with pkt: pass", "closing"),
        ("try: pass\n    except Exception: pass", "try: pass", "test with if"),
        ("raise ValueError", "raise ValueError", "return ABORTED"),
        ("assert pkt.udp", "assert pkt.udp", "return ABORTED"),
        ("import os", "import os", "level of the module"),
        ("global PORTS", "global PORTS", "use a map"),
        ("def inner(): pass", "def inner(): pass", "level of the module"),
        ("class Inner: pass", "class Inner: pass", "tuples and maps"),
        ("match pkt:\n        case _: pass", "match pkt:", "if and elif"),
        ("for i in range(3): pass\n    else: pass", "for i in range(3): pass", "else of a loop"),
        ("for i in table: pass", "table", "range(...)"),
        ("for i in range(pkt.len): pass", "pkt.len", "range(min(n, 64))"),
        ("for i in range(1 << 40): pass", "1 << 40", "no bound"),
        ("for i in range(0, 9, pkt.len): pass", "pkt.len", "constant other than 0"),
        ("for i in range((1 << 63) - 5, (1 << 63) - 1): pass", "(1 << 63) - 1", "end of 64 bits"),
        ("for i in range(0, 9, 0): pass", "0", "constant other than 0"),
        ("for i, j in range(3): pass", "i, j", "one variable"),
        ("pkt.len", "pkt.len", "does nothing with it"),
        ("print(pkt.len)", "print(pkt.len)", "cannot call print"),
        ("x = y = 1", "x = y = 1", "one thing at a time"),
        ("del table", "table", "del map[key]"),
        ("del indexed[1]", "indexed[1]", "cannot be removed"),
        ("pkt = 3", "pkt = 3", "is the packet"),
        ("a, b = 1", "1", "cannot be taken apart"),
        ("a, b = 1, 2, 3", "a, b = 1, 2, 3", "3 values for 2 names"),
        ("return", "return", "a verdict"),
        ("return None", "return None", "a verdict"),
        ("return 9", "9", "must be a verdict"),
        ("return pkt.len", "pkt.len", "must be a verdict"),
        ("return pkt.udp", "pkt.udp", "must be a verdict"),
        # Expressions
        ("x = 1.5", "1.5", "no fractions"),
        ("x = RATE", "RATE", "no fractions"),
        ("x = NOTHING", "NOTHING", "None"),
        ("x = pkt.len / 2", "pkt.len / 2", "write // for whole numbers"),
        ("x = pkt.len ** 2", "pkt.len ** 2", "write the multiplication out"),
        ("x = 1 << 64", "1 << 64", "does not fit 64 bits"),
        ("x = 10 ** 10000", "10 ** 10000", "64 bits"),
        ("x = 0x1_0000_0000_0000_0000", "0x1_0000_0000_0000_0000", "does not fit 64 bits"),
        ("x = pkt.len // 0", "0", "divides by zero"),
        ("x = 5 % 0", "0", "divides by zero"),
        ("x = pkt.len << -1", "-1", "must not be negative"),
        ("x = [1, 2]", "[1, 2]", "use a tuple"),
        ("x = {1: 2}", "{1: 2}", "use a map"),
        ("x = [i for i in PORTS]", "[i for i in PORTS]", "for loop"),
        ("x = lambda: 1", "lambda: 1", "with def"),
        ("x = f'{pkt.len}'", "f'{pkt.len}'", "no text"),
        ("x = (y := 3)", "y := 3", "statement of its own"),
        ("x = pkt.udp is None", "pkt.udp is None", "if pkt.udp"),
        ("x = pkt.udp == 3", "pkt.udp", "a field of udp"),
        ("x = pkt.udp + 1", "pkt.udp", "name one of its fields"),
        ("x = pkt.ip.src + 1", "pkt.ip.src", "int(...)"),
        ("x = pkt.ip.src < pkt.ip.dst", "pkt.ip.src < pkt.ip.dst", "int(...)"),
        ("x = pkt.ip.src == pkt.ipv6.src", "pkt.ip.src == pkt.ipv6.src", "both must be of a kind"),
        ("x = pkt.ip.src == '1.2.3'", "'1.2.3'", "IPv4 address"),
        ("x = pkt.eth.src == 'aa:bb'", "'aa:bb'", "MAC address"),
        ("x = pkt.ip.src in '1.2.3.4/99'", "'1.2.3.4/99'", "does not appear to be"),
        ("x = pkt.ipv6.src in '10.0.0.0/8'", "'10.0.0.0/8'", "holds addresses"),
        ("x = pkt.len in (1, pkt.queue)", "pkt.queue", "takes constants"),
        ("x = pkt.len in pkt.udp", "pkt.udp", "takes constants, networks, ranges and maps"),
        (
            "x = pkt.len if pkt.len else pkt.ip.src",
            "pkt.len if pkt.len else pkt.ip.src",
            "of a kind",
        ),
        ("x = PASS or DROP", "PASS or DROP", "a if condition else b"),
        ("x = 1 < int(pkt.len) < 3", "int(pkt.len)", "put the call into a variable"),
        ("x = unknown", "unknown", "not defined above"),
        ("x = tabel[1]", "tabel", "did you mean table?"),
        ("x = later; later = 1", "later", "has no value yet"),
        ("x = math.pi", "math.pi", "no fractions"),
        ("x = math.nothing", "math.nothing", "has no nothing"),
        ("x = math.sqrt(4)", "math.sqrt(4)", "cannot call sqrt"),
        ("x = os.getpid()", "os.getpid()", "cannot call getpid"),
        ("x = RATE.real", "RATE", "no fractions"),
        ("x = PORTS[5]", "5", "no element 5"),
        ("x = PORTS[pkt.len]", "pkt.len", "must be a constant"),
        ("x = PORTS.count", "PORTS.count", "attributes of tuple"),
        ("x = pkt[1:3]", "pkt[1:3]", "pkt.u16(offset)"),
        ("x = pkt[-1]", "-1", "an offset is 0 to"),
        ("x = pkt[70000]", "70000", "an offset is 0 to"),
        ("x = pkt.u24(3)", "pkt.u24(3)", "no method u24"),
        ("x = pkt.udp.payload", "pkt.udp.payload", None),
        ("x = min(3)", "min(3)", "two or more"),
        ("x = int(pkt.ip.src, 16)", "int(pkt.ip.src, 16)", "takes 1 arguments"),
        ("x = len(3)", "len(3)", "has no length"),
        ("x = u8(1, 2)", "u8(1, 2)", "takes 1 arguments"),
        ("x = redirect(pkt.udp)", "pkt.udp", "must be a number"),
        # Headers
        ("x = pkt.sctp", "pkt.sctp", "a packet has no sctp"),
        ("x = pkt.upd.dport", "pkt.upd", "did you mean udp?"),
        ("x = pkt.udp.dprot", "pkt.udp.dprot", "did you mean dport?"),
        ("pkt.udp.length = 3", "pkt.udp.length", "raw writes"),
        ("pkt.ip.protocol = 6", "pkt.ip.protocol", "cannot be written"),
        ("pkt.ip.nothing = 6", "pkt.ip.nothing", "has no field nothing"),
        ("pkt.ip = 6", "pkt.ip", "nothing that can be written"),
        ("pkt.ip.src = 1.5", "1.5", "no fractions"),
        ("pkt.ip.src = pkt.ipv6.src", "pkt.ipv6.src", "must be an IPv4 address"),
        ("pkt.ip.ttl = pkt.udp", "pkt.udp", "must be a number"),
        # Maps
        ("x = table['a']", "'a'", "must be a number"),
        ("x = table[1, 2]", "1, 2", "the key must be u32"),
        ("x = table[1 << 32]", "1 << 32", "does not fit u32"),
        ("x = flows[pkt.ip.src]", "pkt.ip.src", "the key of this map is (IPv4, u16)"),
        ("x = flows[pkt.ip.src, pkt.udp]", "pkt.udp", "cannot be part of a tuple"),
        ("x = flows[pkt.ip.src, 1] + 1", "flows[pkt.ip.src, 1]", "must be a number"),
        ("x = flows[pkt.ip.src, 1][2]", "2", "no part 2"),
        ("flows[pkt.ip.src, 1] += 1", "flows[pkt.ip.src, 1] += 1", "takes numbers"),
        ("flows[pkt.ip.src, 1] = 1", "1", "must be a tuple of 2"),
        ("x = hosts[pkt.ip.src]", "pkt.ip.src", "must be IPv6"),
        ("x = indexed[4]", "4", "outside this map of 4"),
        ("x = 1 in indexed", "1 in indexed", "has all its indices"),
        ("x = routes['10.0.0.0/8']", "'10.0.0.0/8'", "IPv4 address"),
        ("x = counter[0]", "counter[0]", ".add(n)"),
        ("counter += 1", "counter", "has no value yet"),
        ("x = counter.add(1)", "counter.add(1)", "statement of its own"),
        ("x = devices[0]", "devices[0]", ".redirect(index)"),
        ("devices[0] = 1", "devices[0]", "cannot write into a DevMap"),
        ("x = devices.redirect(9)", "9", "outside this map"),
        ("x = devices.redirect(1, REDIRECT)", "REDIRECT", "one of ABORTED"),
        ("table.clear()", "table.clear()", "cannot call Hash.clear"),
        ("if table: pass", "table", "no truth value"),
        ("if pkt.ip.src: pass", "pkt.ip.src", "no truth value"),
    ],
)
def test_refusal_shows_the_place_and_the_remedy(line: str, at: str, words: str | None) -> None:
    if words is None:
        # Fine as it is: a name for bytes behind a header.
        load(f"{HEAD}    {line}\n    return PASS\n", f"<refused {next(_numbers)}>")
        return
    error = refused(line, "return PASS")
    assert words in str(error.msg), error.msg
    assert error.lineno is not None
    assert error.offset is not None
    assert error.end_offset is not None
    assert error.text is not None
    first = line.split("\n")[0]
    assert error.text.rstrip("\n") == f"    {first}"
    assert error.text[error.offset - 1 : error.end_offset - 1].rstrip() == at


def test_traceback_has_a_caret() -> None:
    error = refused("x = 1", "x = pkt.upd.dport", "return PASS")
    shown = "".join(traceback.format_exception_only(error))
    assert "line 17" in shown
    assert "    x = pkt.upd.dport\n        ^^^^^^^" in shown
    assert "did you mean udp?" in shown


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["if pkt.udp: x = 1", "return PASS if x else DROP"], "has no value here on every way"),
        (["for i in range(pkt.queue & 3): x = 1", "return PASS if x else DROP"], "every way"),
        (["if pkt.udp: return DROP"], "write `return PASS` as its last line"),
        (["x = 1", "x = pkt.udp", "return PASS"], "a variable has one kind"),
        (["x = pkt.ip.src", "x = pkt.eth.src", "return PASS"], "a variable has one kind"),
        (["x = pkt.ip", "x = pkt.udp", "return PASS"], "a variable has one kind"),
        (["pass"], "may end without a verdict"),
    ],
)
def test_refusal_of_what_depends_on_the_way(lines: list[str], words: str) -> None:
    assert words in str(refused(*lines).msg)


def test_columns_count_characters_not_bytes() -> None:
    error = refused('x = "äöü" and unknown', "return PASS")
    assert error.text is not None
    assert error.offset is not None
    assert error.text[error.offset - 1 :].startswith("unknown")


@pytest.mark.parametrize(
    ("helpers", "words"),
    [
        ("def f(pkt):\n    return g(pkt)\ndef g(pkt):\n    return f(pkt)\n", "calls itself"),
        ("def f(pkt):\n    if pkt.udp:\n        return 1\n", "nothing on others"),
        ("def f(pkt, *more):\n    return 1\n", "star"),
        ("def f(pkt, other):\n    return 1\n", "takes 2 arguments, and here are 1"),
        ("def f(pkt):\n    return pkt\n", "cannot return the packet"),
        ("def f(pkt):\n    return pkt.udp\n", "cannot return the header udp"),
        ("def f(pkt):\n    return\n    return 1\n", "this must be"),
        ("f = lambda pkt: 1\n", "lambda"),
        ("async def f(pkt):\n    return 1\n", "async"),
        ("import functools\n@functools.cache\ndef f(pkt):\n    return 1\n", "cannot call"),
        ("class f:\n    pass\n", "cannot call f"),
    ],
)
def test_functions_that_cannot_be_compiled_in_place(helpers: str, words: str) -> None:
    head = HEAD.replace("@xdp\n", f"{helpers}\n@xdp\n")
    assert words in str(refused("x = f(pkt) + 1", "return PASS", head=head).msg)


@pytest.mark.parametrize("signature", ["", "pkt, other", "*pkt", "pkt=1", "*, pkt", "**pkt"])
def test_a_program_takes_one_argument(signature: str) -> None:
    head = HEAD.replace("program(pkt)", f"program({signature})")
    assert "takes one argument" in str(refused("return PASS", head=head).msg)


def test_what_is_no_function() -> None:
    for wrong in (3, print, len, "text", PASS):
        with pytest.raises(TypeError, match="takes a function"):
            xdp(wrong)  # type: ignore[call-overload]
    with pytest.raises(CompileError, match="lambda"):
        xdp(lambda pkt: PASS)
    names: dict[str, Any] = {}
    exec("def unread(pkt):\n    return 2\n", names)
    with pytest.raises(CompileError, match="source of unread cannot be read"):
        xdp(names["unread"])


@pytest.mark.parametrize(
    "options",
    [
        {"vlan": 3},
        {"vlan": -1},
        {"vlan": True},
        {"extensions": 9},
        {"extensions": "1"},
        {"on_error": 4},
        {"on_error": None},
        {"name": ""},
        {"name": "no name"},
    ],
)
def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is"):
        xdp(**options)


def test_on_error_takes_verdicts() -> None:
    @xdp(on_error=ABORTED)
    def program(pkt: Any) -> Any:
        return PASS

    assert program.options.on_error is ABORTED


# Sources that mean harm


def compiled_or_refused(source: str) -> str:
    """What is said of a source, by us or by Python; nothing where it is compiled."""
    try:
        load(source, f"<deep {next(_numbers)}>")
    except SyntaxError as error:
        return str(error.msg)
    return ""


@pytest.mark.parametrize("operator", ["+", "and"])
def test_deep_expressions_are_refused_or_compiled(operator: str) -> None:
    text = f" {operator} ".join(["pkt.len"] * 700)
    said = compiled_or_refused(f"{HEAD}    x = {text}\n    return PASS\n")
    assert said == "" or "nested too deeply" in said


def test_deep_blocks_are_refused_or_compiled() -> None:
    lines = [f"{'    ' * depth}if pkt.len > {depth}:" for depth in range(1, 90)]
    source = HEAD + "\n".join(lines) + f"\n{'    ' * 90}x = 1\n    return PASS\n"
    said = compiled_or_refused(source)
    assert said == "" or "too deeply" in said or "too many" in said


def test_doubling_calls_are_refused() -> None:
    helpers = ["def f0(pkt):\n    return pkt.len\n"]
    for level in range(1, 40):
        helpers.append(f"def f{level}(pkt):\n    return f{level - 1}(pkt) + f{level - 1}(pkt)\n")
    head = HEAD.replace("@xdp\n", "\n".join(helpers) + "\n@xdp\n")
    error = refused("x = f39(pkt)", "return PASS", head=head)
    assert "too large" in str(error.msg)


def test_long_chains_of_calls_are_refused() -> None:
    helpers = ["def f0(pkt):\n    return pkt.len\n"]
    helpers += [f"def f{n}(pkt):\n    return f{n - 1}(pkt)\n" for n in range(1, 200)]
    head = HEAD.replace("@xdp\n", "\n".join(helpers) + "\n@xdp\n")
    error = refused("x = f199(pkt)", "return PASS", head=head)
    assert "nested more than" in str(error.msg)


def test_loops_in_loops_stay_small() -> None:
    lines = ["n = 0"]
    for depth in range(12):
        lines.append(f"{'    ' * depth}for i{depth} in range(30):")
    lines.append(f"{'    ' * 12}n += i0")
    program = load(
        HEAD + "\n".join(f"    {line}" for line in lines) + "\n    return PASS if n else DROP\n",
        f"<loops {next(_numbers)}>",
    )["program"]
    assert program.instructions < 100


def test_too_many_instructions_are_refused() -> None:
    lines = [f"indexed[{n & 3}] = pkt.u32({n}) ^ {n * 7919}" for n in range(5000)]
    error = refused(*lines, "return PASS")
    assert "too large" in str(error.msg) or "more than" in str(error.msg)


def test_many_variables_live_at_once_are_refused_or_compiled() -> None:
    lines = [f"v{n} = pkt.u32({n})" for n in range(100)]
    lines += [f"indexed[{n & 3}] += v{n}" for n in range(100)]
    error = refused(*lines, "return PASS")
    assert "more values at once" in str(error.msg)
    fewer = [line for line in lines if int(line.split("v")[1].split(" ")[0]) < 40]
    program = load(
        HEAD + "\n".join(f"    {line}" for line in fewer) + "\n    return PASS\n",
        f"<many {next(_numbers)}>",
    )["program"]
    assert program.instructions > 100


def test_small_stack_of_python_is_no_crash() -> None:
    """A thread with little stack gets an error, not a fault."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            refused("x = " + "-" * 500 + "pkt.len", "x = unknown", "return PASS")
        except BaseException as error:
            errors.append(error)

    limit = sys.getrecursionlimit()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors
    assert sys.getrecursionlimit() == limit
