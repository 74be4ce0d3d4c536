"""All stages one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from millrace.xdp.compiler import checksums, frontend, late, lower, plain, ssa
from millrace.xdp.compiler.allocate import MOST_STACK, StackOverflow, allocate
from millrace.xdp.compiler.emit import MOST_SLOTS, Assembled, TooLong, emit
from millrace.xdp.compiler.optimise import optimise
from millrace.xdp.compiler.select import select
from millrace.xdp.compiler.session import Options
from millrace.xdp.compiler.specialise import specialise
from millrace.xdp.compiler.thread import thread
from millrace.xdp.compiler.tree import Function
from millrace.xdp.errors import CompileError
from millrace.xdp.maps import Map, PerCpuArray
from millrace.xdp.verdict import Verdict


@dataclass
class Compiled:
    """What the compiler makes of a function."""

    assembled: Assembled
    maps: list[Map]
    #: The same in plain Python, on a `millrace.xdp.packet.Packet`.
    plain: Callable[[Any], Verdict]
    file: str
    #: The map that counts verdicts, where the program does.
    counted: PerCpuArray | None


def compile_program(function: Callable[..., Any], options: Options) -> Compiled:
    """Compile a function.

    Raises CompileError where it is not in the subset, or comes to more than the kernel takes.
    """
    try:
        return _compile(function, options)
    except (RecursionError, MemoryError):
        code = function.__code__
        raise CompileError(
            f"{function.__name__} is nested too deeply; write it as several statements",
            (code.co_filename, code.co_firstlineno, 1, "", None, None),
        ) from None


def _compile(function: Callable[..., Any], options: Options) -> Compiled:
    tree, maps = frontend.check(function, options)
    counted = lower.verdict_counters() if options.counters else None
    if counted is not None:
        maps.append(counted)
    assembled = _assemble(tree, options, counted)
    return Compiled(assembled, maps, plain.compile_plain(tree, tree.at.file), tree.at.file, counted)


def _assemble(tree: Function, options: Options, counted: Map | None) -> Assembled:
    graph = lower.lower(tree, options, counted)
    graph = specialise(graph, options)
    thread(graph)
    program = ssa.build(graph)
    optimise(program)
    checksums.combine(program)
    checksums.expand(program)
    optimise(program)
    late.finish(program)
    code = select(program)
    try:
        allocate(code)
        return emit(code)
    except StackOverflow:
        tree.at.refuse(
            f"{tree.name} holds more values at once than registers and {MOST_STACK} bytes of stack "
            "take; use fewer variables, or maps"
        )
    except TooLong:
        tree.at.refuse(
            f"{tree.name} comes to more than {MOST_SLOTS} instructions; write loops with more than "
            "32 turns, which stay loops, and call fewer functions"
        )
