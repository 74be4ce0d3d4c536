"""Random programs: plain Python and kernel agree. `differential.py` runs as many as are wanted."""

from __future__ import annotations

import differential
import generator
import pytest
import random_frames

#: Programs that take the verifier long, or more than it looks at, are left to the long run.
MOST_INSTRUCTIONS = 900


@pytest.mark.kernel
@pytest.mark.parametrize("first", range(30_000, 30_160, 20))
def test_kernel_and_plain_python_agree(first: int) -> None:
    verdicts: set[str] = set()
    equal = 0
    for seed in range(first, first + 20):
        outcome = differential.compare(seed, 10, MOST_INSTRUCTIONS)
        assert outcome.kind != "different", outcome.text
        equal += outcome.kind == "equal"
        verdicts |= outcome.verdicts
    assert equal >= 10
    assert {"PASS", "DROP", "TX", "ABORTED"} == verdicts


def test_the_same_seed_makes_the_same() -> None:
    assert generator.program(7) == generator.program(7)
    assert random_frames.frames(7, 5) == random_frames.frames(7, 5)
    assert generator.program(7) != generator.program(8)


def test_programs_are_varied() -> None:
    text = "\n".join(generator.program(seed) for seed in range(200))
    for word in ("for ", "elif ", "break", "continue", "del ", "//", "%", "<<", ">>", ".get(",
                 "in routes", "counter.add", "set_u16", "def helper", "min(", "abs(", "i16(",
                 "pkt.ip.src, pkt.ip.dst", "tcp.opt", "extensions=3", "counters=T"):  # fmt: skip
        assert word in text, word
