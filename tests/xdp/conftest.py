"""What tests of XDP programs share: the mark `kernel`, and running a program both ways."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from millrace.xdp import Program, Run
from millrace.xdp.maps import Map

# What the tests here share lies beside them: `frames`, `generator`, `random_frames`,
# `differential`.
sys.path.insert(0, str(Path(__file__).parent))


@functools.cache
def refusal() -> str | None:
    """Why this process cannot load XDP programs, if it cannot."""
    from millrace import _native

    try:
        _native.XdpProgram(bytes.fromhex("b700000002000000 9500000000000000"), "probe")
    except OSError as error:
        return f"cannot load XDP programs: {error}"
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("kernel") and (why := refusal()):
        pytest.skip(why)


def restore(used: Map, items: list[tuple[bytes, bytes]]) -> None:
    """Give a map the contents that it had."""
    wanted = dict(items)
    for key, value in used._store.items():
        if key not in wanted:
            used._store.delete(key)
        elif wanted[key] == value:
            del wanted[key]
    for key, value in wanted.items():
        used._store.set(key, value)


@pytest.fixture
def both() -> Callable[..., list[Run]]:
    """Runs a program in plain Python and in the kernel, each from the same contents of its maps;
    returns what came out, which must be the same.
    """

    def run(program: Program, *frames: bytes) -> list[Run]:
        before = [used._store.items() for used in program.maps]
        plain = program.plain(frames)
        plain_maps = [sorted(used._store.items()) for used in program.maps if not used.per_cpu]
        for used, items in zip(program.maps, before, strict=True):
            restore(used, items)
        kernel = program.run(frames)
        kernel_maps = [sorted(used._store.items()) for used in program.maps if not used.per_cpu]
        assert [(r.verdict, r.frame) for r in plain] == [(r.verdict, r.frame) for r in kernel]
        assert plain_maps == kernel_maps
        return kernel

    return run
