"""Every stage of the compiler leaves the meaning of random programs as it was."""

from __future__ import annotations

import copy
from typing import Any

import generator
import pytest
import random_frames
from differential import load
from interpret import Run

from millrace.xdp import CompileError, Program
from millrace.xdp.compiler import checksums, control, frontend, late, lower, ssa
from millrace.xdp.compiler.optimise import optimise
from millrace.xdp.compiler.specialise import specialise
from millrace.xdp.compiler.ssa import Function
from millrace.xdp.compiler.thread import thread


def outcome(program: Program, function: Function, frame: bytes) -> tuple[Any, ...]:
    """Verdict, frame and maps of the SSA form on a frame."""
    contents = {
        id(used): {
            key: bytearray(value[: used.value_type.size]) for key, value in used._store.items()
        }
        for used in program.maps
    }
    run = Run(function, frame, contents)
    verdict = run.run()
    maps = [
        {key: bytes(value) for key, value in contents[id(used)].items()} for used in program.maps
    ]
    return verdict, bytes(run.frame), maps


def expected(program: Program, frame: bytes) -> tuple[Any, ...]:
    """The same in plain Python."""
    before = [copy.deepcopy(used._store) for used in program.maps]
    (run,) = program.plain(frame)
    maps = [
        {key: value[: used.value_type.size] for key, value in used._store.items()}
        for used in program.maps
    ]
    for used, store in zip(program.maps, before, strict=True):
        used._store = store
    return int(run.verdict), run.frame, maps


@pytest.mark.parametrize("seed", range(50_000, 50_040))
def test_stages(seed: int) -> None:
    source = generator.program(seed).replace("counters=True", "counters=False")
    try:
        program = load(source, f"<stages {seed}>")["program"]
    except CompileError as error:
        pytest.fail(f"{error}\n{source}")
    options = program.options
    given = random_frames.frames(seed, 8)
    wanted = [expected(program, frame) for frame in given]

    def check(stage: str, function: Function) -> None:
        ssa.check_form(function)
        for frame, result in zip(given, wanted, strict=True):
            assert outcome(program, function, frame) == result, (stage, frame.hex(), source)

    tree, _ = frontend.check(program.__wrapped_function__, options)
    graph = specialise(lower.lower(tree, options, None), options)
    thread(graph)
    function = ssa.build(graph)
    check("build", function)
    optimise(function)
    check("optimise", function)
    checksums.combine(function)
    check("combine", function)
    checksums.expand(function)
    check("expand", function)
    optimise(function)
    check("optimise again", function)
    control.widen_checks(function)
    control.tidy(function)
    check("widen", function)
    late.finish(function)
    check("finish", function)
