"""The busy time of a core, from the text of /proc/stat."""

from __future__ import annotations

import os
import time

import pytest

from millrace.bench import core_time

STAT = """\
cpu  100 2 30 4000 50 6 7 8 9 0
cpu0 90 1 20 2000 25 3 4 5 9 0
cpu1 10 1 10 2000 25 3 3 3 0 0
intr 1234
"""


def test_busy_is_all_but_idle_iowait_steal_and_guest() -> None:
    assert core_time.parse(STAT, 0) == 90 + 1 + 20 + 3 + 4
    assert core_time.parse(STAT, 1) == 10 + 1 + 10 + 3 + 3


def test_a_core_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="core 7"):
        core_time.parse(STAT, 7)


def test_work_makes_a_core_busy() -> None:
    core = min(os.sched_getaffinity(0))
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        before, spent = core_time.busy_seconds(core), time.process_time()
        while time.process_time() - spent < 0.3:
            pass
        busy = core_time.busy_seconds(core) - before
    finally:
        os.sched_setaffinity(0, allowed)
    assert busy > 0.2


def test_rounding_is_one_tick_over_the_requests() -> None:
    assert core_time.rounding_us(1000) == pytest.approx(core_time.TICK_SECONDS * 1000)
    assert core_time.rounding_us(0) == float("inf")


def test_a_process_that_works_has_run() -> None:
    before = core_time.process_seconds(os.getpid())
    spent = time.process_time()
    while time.process_time() - spent < 0.1:
        pass
    after = core_time.process_seconds(os.getpid())
    assert before is not None
    assert after is not None
    assert after - before > 0.05


def test_a_process_that_is_gone_has_no_time() -> None:
    assert core_time.process_seconds(2**22 + 1) is None
