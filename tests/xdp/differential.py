"""Random programs in the kernel and in plain Python, compared.

    .venv/bin/python tests/xdp/differential.py --programs 5000 --seed 1 --frames 12

prints what differs, with the program and the frame, and ends with a count. It needs CAP_BPF and
CAP_NET_ADMIN. `make test` runs a few hundred of the same (test_differential.py).
"""

from __future__ import annotations

import argparse
import copy
import linecache
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))

import generator
import random_frames

from millrace.xdp import CompileError, Program, Run, VerifierError
from millrace.xdp.maps import Map

_NONSENSE = re.compile("divides by zero|does not fit 64 bits|cannot compute")


@dataclass
class Outcome:
    """What came of one program."""

    #: "equal", "different" or "refused" (by the verifier, for there is too much to look at, or by
    #: the compiler, for constants that make no sense).
    kind: str
    text: str = ""
    instructions: int = 0
    verdicts: set[str] = field(default_factory=set)


def load(source: str, name: str, **more: Any) -> dict[str, Any]:
    """Run a module's source with these names in it, so that its functions' lines can be read."""
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    names: dict[str, Any] = {"__name__": name, **more}
    exec(compile(source, name, "exec"), names)
    return names


def contents(maps: tuple[Map, ...]) -> dict[str, Any]:
    """What is in maps, as Python sees it."""
    found: dict[str, Any] = {}
    for used in maps:
        name = used.name or "?"
        items = used._store.items()
        size = used.value_type.size
        # Of a per-CPU map, the sum; the kernel runs a program on any CPU.
        found[name] = {
            key: sum(
                int.from_bytes(value[at : at + size], sys.byteorder)
                for at in range(0, len(value), used.stride)
            )
            % (1 << (8 * size))
            if used.per_cpu
            else value
            for key, value in items
        }
    return found


def compare(seed: int, count: int, most: int | None = None) -> Outcome:
    """Run the program of a seed both ways on so many frames; not in the kernel if it has more than
    `most` instructions.
    """
    source = generator.program(seed)
    name = f"<program {seed}>"
    try:
        program = load(source, name)["program"]
    except CompileError as error:
        # What the generator makes of constants may be nonsense.
        kind = "refused" if _NONSENSE.search(str(error)) else "different"
        return Outcome(kind, f"{name} is refused: {error!r}\n{source}")
    finally:
        linecache.cache.pop(name, None)
    assert isinstance(program, Program)
    if most is not None and program.instructions > most:
        return Outcome("refused", "too long", program.instructions)
    given = random_frames.frames(seed, count)
    before = [copy.deepcopy(used._store) for used in program.maps]
    plain = program.plain(given)
    plain_maps = contents(program.maps)
    for used, store in zip(program.maps, before, strict=True):
        used._store = store
    try:
        kernel = program.run(given)
    except VerifierError as error:
        if "too large" in error.reason or "too complex" in error.reason:
            return Outcome("refused", str(error), program.instructions)
        return Outcome("different", f"{name}: {error}\n{error.log[-3000:]}\n{source}")
    kernel_maps = contents(program.maps)
    for frame, expected, got in zip(given, plain, kernel, strict=True):
        if (expected.verdict, expected.frame) != (got.verdict, got.frame):
            text = f"{name}\nframe    {frame.hex()}\n{_told('plain', expected)}"
            return Outcome("different", f"{text}\n{_told('kernel', got)}\n{source}")
    if plain_maps != kernel_maps:
        differing = [
            f"{key}:\n  plain  {plain_maps[key]}\n  kernel {kernel_maps[key]}"
            for key in plain_maps
            if plain_maps[key] != kernel_maps[key]
        ]
        return Outcome("different", "\n".join([f"{name}: maps differ", *differing, source]))
    verdicts = {run.verdict.name for run in kernel}
    return Outcome("equal", instructions=program.instructions, verdicts=verdicts)


def _told(what: str, run: Run) -> str:
    return f"{what:8} {run.frame.hex()} {run.verdict}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1, help="of the first program")
    arguments = parser.parse_args()
    begun = time.monotonic()
    counts = {"equal": 0, "different": 0, "refused": 0}
    instructions = 0
    for seed in range(arguments.seed, arguments.seed + arguments.programs):
        outcome = compare(seed, arguments.frames)
        counts[outcome.kind] += 1
        instructions += outcome.instructions
        if outcome.kind == "different":
            print(outcome.text, flush=True)
            if counts["different"] >= 10:
                break
    print(
        f"{sum(counts.values())} programs of {instructions} instructions, each on "
        f"{arguments.frames} frames: {counts['equal']} equal, {counts['different']} different, "
        f"{counts['refused']} refused, {time.monotonic() - begun:.0f} s"
    )
    return 1 if counts["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
