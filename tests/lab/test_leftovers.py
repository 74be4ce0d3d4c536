"""Names tell a live process from a dead one with the same number."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.lab import leftovers


@given(st.integers(min_value=0, max_value=1 << 64))
def test_base36(number: int) -> None:
    assert int(leftovers.base36(number), 36) == number


def test_own_name_is_no_leftover() -> None:
    name = leftovers.namespace_name("lab0", "client")
    assert name.startswith(f"mr-{os.getpid()}-")
    assert name.endswith("-lab0.client")
    assert not leftovers.is_leftover(name)


def test_same_number_other_start_is_a_leftover() -> None:
    assert leftovers.is_leftover(f"mr-{os.getpid()}-0-lab0.client")


def test_dead_process_is_a_leftover() -> None:
    process = subprocess.Popen(["true"])
    started = leftovers.start_time(process.pid)
    process.wait()
    assert leftovers.start_time(process.pid) is None
    assert leftovers.is_leftover(f"mr-{process.pid}-{leftovers.base36(started or 1)}-lab0.client")


def test_zombie_has_no_start_time() -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert leftovers.start_time(process.pid) is None
    process.wait()


@pytest.mark.parametrize("name", ["mr-", "mr-x-1-a", "other", "mr-1-A-lab.host", "mr-1-1-", ""])
def test_names_of_others(name: str) -> None:
    assert not leftovers.is_leftover(name)
