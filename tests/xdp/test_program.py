"""Programs as objects: running, loading, explaining, and what can be wrong with that."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import frames
import pytest
from differential import load

from millrace import xdp
from millrace.xdp import DROP, PASS, TX, Array, Counter, Hash, IPv4, Program, Verdict, VerifierError
from millrace.xdp.verifier import explained

dropped = Hash(IPv4)


@xdp
def shield(pkt: Any) -> Any:
    """Drops UDP to port 9."""
    if pkt.udp and pkt.udp.dport == 9:
        dropped[pkt.ip.src] += 1
        return DROP
    return PASS


@xdp
def swap(pkt: Any) -> Any:
    pkt.eth.src, pkt.eth.dst = pkt.eth.dst, pkt.eth.src
    return TX


def test_a_program_is_what_its_function_was() -> None:
    assert shield.__name__ == shield.name == "shield"
    assert shield.__doc__ == "Drops UDP to port 9."
    assert shield.maps == (dropped,)
    assert dropped.name == "dropped"
    assert 20 < shield.instructions < 100
    assert repr(shield) == f"<XDP program shield: {shield.instructions} instructions>"


def test_call_runs_plain_python() -> None:
    table = Hash(IPv4)

    @xdp
    def program(pkt: Any) -> Any:
        if pkt.udp and pkt.udp.dport == 9:
            table[pkt.ip.src] += 1
            return DROP
        return PASS

    assert program(frames.udp4(9)) is DROP
    assert program(memoryview(frames.udp4(9))) is DROP
    assert program(frames.udp4(10)) is PASS
    assert table["192.0.2.1"] == 2


def test_what_plain_python_writes_goes_into_a_writable_frame() -> None:
    frame = frames.udp4()
    writable = bytearray(frame)
    assert swap(writable) is TX
    assert writable[:12] == frame[6:12] + frame[:6]
    assert swap(frame) is TX
    view = memoryview(writable)[:20]
    swap(view)
    assert writable == frame


@pytest.mark.parametrize("length", [0, 1, 13, 14, 1514, 65535])
def test_plain_python_takes_frames_of_any_length(length: int) -> None:
    frame = frames.udp4(9).ljust(length, b"\0")[:length]
    assert shield(frame) is (DROP if length >= 42 else PASS)
    assert swap.plain(frame)[0].verdict is (TX if length >= 14 else PASS)


def test_a_debugger_stops_at_the_lines_of_the_source() -> None:
    lines: list[int] = []

    def trace(frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename == __file__ and frame.f_code.co_name.startswith("shield"):
            if event == "line":
                lines.append(frame.f_lineno)
            return trace
        return trace if event == "call" else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        shield(frames.udp4(9))
    finally:
        sys.settrace(before)
    first = shield.__wrapped_function__.__code__.co_firstlineno
    assert set(lines) == {first + 3, first + 4, first + 5}


def test_a_function_that_is_indented_keeps_its_texts() -> None:
    if PASS:

        @xdp
        def program(pkt: Any) -> Any:
            """A text
            with lines that are not indented.
            """
            return DROP if pkt.arp else PASS

    assert program(frames.arp()) is DROP


@pytest.mark.kernel
def test_run_in_the_kernel() -> None:
    results = swap.run([frames.udp4(), bytearray(frames.arp()), memoryview(frames.tcp4())])
    assert [run.verdict for run in results] == [TX] * 3
    for run, frame in zip(results, (frames.udp4(), frames.arp(), frames.tcp4()), strict=True):
        assert run.frame == frame[6:12] + frame[:6] + frame[12:]
        assert run.nanoseconds >= 0
    assert swap.run(frames.arp())[0].verdict is TX
    assert swap.run([]) == []
    assert swap.run(frames.arp(), repeat=1000)[0].nanoseconds < 1_000_000


@pytest.mark.kernel
def test_repeats_are_runs() -> None:
    counter = Counter()

    @xdp
    def program(pkt: Any) -> Any:
        counter.add()
        return PASS

    program.run([frames.arp(), frames.arp()], repeat=50)
    assert int(counter) == 100


@pytest.mark.kernel
@pytest.mark.parametrize("length", [0, 1, 13])
def test_kernel_takes_no_short_frames(length: int) -> None:
    with pytest.raises(ValueError, match=f"14 bytes or more, not {length}"):
        swap.run([frames.arp(), bytes(length)])


@pytest.mark.kernel
def test_of_long_frames_a_program_sees_the_first_buffer() -> None:
    frame = bytes(range(256)) * 256
    for length in (3000, 9000, 65535):
        (run,) = swap.run(frame[:length])
        assert run.verdict is TX
        assert run.frame == frame[6:12] + frame[:6] + frame[12:length]

    @xdp(frags=True)
    def program(pkt: Any) -> Any:
        return DROP if pkt.len < 9000 else PASS

    assert program.run(frame[:9000])[0].verdict is DROP
    with pytest.raises(ValueError, match="100000 bytes"):
        swap.run(bytes(100_000))


@pytest.mark.kernel
def test_run_says_what_is_wrong() -> None:
    with pytest.raises(TypeError, match="bytes-like, and this is str"):
        swap.run(["text"])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        swap.run(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="repeat is 1"):
        swap.run(frames.arp(), repeat=0)
    with pytest.raises(OSError, match="no interface nothing9") as caught:
        swap.run(frames.arp(), interface="nothing9")
    assert caught.value.errno == errno.ENODEV
    with pytest.raises(ValueError, match="queue 99 of interface 1"):
        swap.run(frames.arp(), interface="lo", queue=99)
    for queue in (-1, 1 << 32, 1 << 200):
        with pytest.raises(ValueError, match="queue is a whole number from 0 to 4294967295"):
            swap.run(frames.arp(), interface="lo", queue=queue)
    assert swap.run(frames.arp(), interface="lo")[0].verdict is TX


@pytest.mark.kernel
def test_redirect_to_an_interface_that_is_not_there() -> None:
    @xdp
    def program(pkt: Any) -> Any:
        return xdp.redirect("nothing9")

    assert program(frames.arp()) is Verdict.REDIRECT
    with pytest.raises(OSError, match="no interface nothing9") as caught:
        program.load()
    assert caught.value.errno == errno.ENODEV


def test_explain_shows_instructions_under_their_lines() -> None:
    lines = shield.explain().splitlines()
    assert lines[0].startswith(f"shield: {shield.instructions} instructions in ")
    (asked,) = [i for i, line in enumerate(lines) if "return DROP" in line]
    assert lines[asked].endswith("|         return DROP")
    assert lines[asked + 1].endswith(": r0 = 1")
    assert lines[asked + 2].endswith(": exit")
    text = "\n".join(lines)
    assert "r1 = map dropped" in text
    assert "call bpf_map_lookup_elem#1" in text
    slots = [int(line.split("|")[1].split(":")[0]) for line in lines if line.startswith("      |")]
    assert sorted(slots) == slots
    targets = [int(line.rsplit("goto ", 1)[1]) for line in lines if "goto " in line]
    assert set(targets) <= set(slots)


@pytest.mark.kernel
def test_load_names_what_the_kernel_shows() -> None:
    @xdp(name="a_long_name_for_a_program")
    def program(pkt: Any) -> Any:
        return PASS

    info = program.load().info()
    assert info["name"] == "a_long_name_for"
    assert program.load() is program.load()
    assert info["verified_instructions"] == 2


@pytest.mark.kernel
def test_counters_count_verdicts_and_errors() -> None:
    @xdp(counters=True, on_error=TX)
    def program(pkt: Any) -> Any:
        return DROP if pkt.udp.dport == 9 else PASS

    given = [frames.udp4(9), frames.udp4(9), frames.udp4(8), frames.arp()]
    for run in (program.plain, program.run):
        before = list(program.compiled.counted)
        run(given)
        after = list(program.compiled.counted)
        assert [b - a for a, b in zip(before, after, strict=True)] == [0, 2, 1, 0, 0, 1]


LOOPS = """from millrace.xdp import *
@xdp
def program(pkt):
    total = pkt.len
    for i in range(60000):
        for j in range(40):
            total ^= i + j
    return DROP if total else PASS
"""


@pytest.mark.kernel
def test_what_the_verifier_refuses_comes_back_as_a_line() -> None:
    program = load(LOOPS, "<loops>")["program"]
    with pytest.raises(VerifierError) as caught:
        program.load()
    error = caught.value
    assert isinstance(error, OSError)
    assert error.errno == errno.E2BIG
    assert "BPF program is too large" in error.reason
    assert error.filename == "<loops>"
    assert error.lineno in range(5, 8)
    assert error.text == LOOPS.splitlines()[error.lineno - 1]
    assert f'File "<loops>", line {error.lineno}' in str(error)
    assert error.text.strip() in str(error)
    assert error.log


def test_the_instruction_that_the_log_ends_with_is_told() -> None:
    def slot_of(line: int) -> int:
        return shield.compiled.assembled.lines.index(line)

    first = shield.__wrapped_function__.__code__.co_firstlineno
    counted = first + 4
    slot = slot_of(counted)
    log = (
        f"0: (61) r2 = *(u32 *)(r1 +0)\n1: (61) r3 = *(u32 *)(r1 +4)\n"
        f"{slot}: (71) r0 = *(u8 *)(r9 +0)\ninvalid access to packet, off=0 size=1\n"
        "R9 offset is outside of the packet\n"
        "processed 31 insns (limit 1000000) max_states_per_insn 0 total_states 2\n"
    )
    raised = PermissionError(errno.EACCES, "refused")
    raised.log = log  # type: ignore[attr-defined]
    error = explained(raised, shield.compiled, "shield")
    assert isinstance(error, VerifierError)
    assert error.errno == errno.EACCES
    assert error.reason == "R9 offset is outside of the packet"
    assert (error.filename, error.lineno) == (__file__, counted)
    assert error.text == "        dropped[pkt.ip.src] += 1"
    assert error.instruction == slot
    assert f"at instruction {slot}: r0 = *(u8 *)(r9 +0)" in str(error)


def test_other_errors_of_a_load_stay_what_they_are() -> None:
    raised = PermissionError(errno.EPERM, "no capability")
    assert explained(raised, shield.compiled, "shield") is raised


def test_log_without_an_instruction() -> None:
    raised = OSError(errno.EINVAL, "refused")
    raised.log = "back-edge from insn 7 to 3\nprocessed 0 insns\n"  # type: ignore[attr-defined]
    error = explained(raised, shield.compiled, "shield")
    assert isinstance(error, VerifierError)
    assert error.reason == "back-edge from insn 7 to 3"
    assert error.lineno is None


UNPRIVILEGED = """
import millrace
from millrace.xdp import *

@millrace.xdp
def program(pkt):
    return DROP

assert program(bytes(14)) == DROP
for attempt in (program.load, lambda: program.run(bytes(14)), lambda: program.attach("lo"),
                Hash(u32).in_kernel):
    try:
        attempt()
    except PermissionError as error:
        print(error)
    else:
        raise SystemExit("it was allowed")
"""


@pytest.mark.kernel
def test_without_permission_plain_python_works(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(UNPRIVILEGED)
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, str(script)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 4
    assert all("CAP_BPF and CAP_NET_ADMIN" in line for line in lines)


def test_importing_and_compiling_needs_no_native_module() -> None:
    code = (
        "import sys; sys.modules['millrace._native'] = None\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import test_program as t, frames\n"
        "assert t.shield(frames.udp4(9)) == 1\n"
    )
    here = Path(__file__).parent
    result = subprocess.run(
        [sys.executable, "-c", code, str(here)], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr


def test_array_is_used_by_two_programs() -> None:
    shared = Array(2)

    @xdp
    def first(pkt: Any) -> Any:
        shared[0] += 1
        return PASS

    @xdp
    def second(pkt: Any) -> Any:
        return DROP if shared[0] > 1 else PASS

    assert isinstance(first, Program)
    assert second(frames.arp()) is PASS
    first(frames.arp())
    first(frames.arp())
    assert second(frames.arp()) is DROP
