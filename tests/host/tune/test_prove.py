"""A difference is told with its spread, and only if it stands out of it."""

from __future__ import annotations

import time

import pytest

from millrace.host.tune.prove import Sample, chance, compare, measure


def samples(*values: float) -> list[Sample]:
    return [Sample(value, value / 2, value * 10) for value in values]


def test_a_difference_that_stands_out() -> None:
    printed, seconds, cpu = compare(
        samples(1.00, 1.01, 0.99, 1.02, 1.00), samples(1.50, 1.51, 1.49, 1.52, 1.50)
    )
    assert (printed.what, seconds.what, cpu.what) == ("printed", "seconds", "cpu seconds")
    assert printed.before == 10.0
    assert round(printed.change, 3) == 0.5
    assert printed.chance < 0.05
    assert printed.judgement == "more by 50.0%"
    assert round(printed.spread_before, 3) == 0.03


def test_a_difference_within_the_spread() -> None:
    printed, *_ = compare(samples(1.0, 2.0, 3.0, 4.0), samples(1.5, 2.5, 3.5, 4.2))
    assert printed.judgement == "no difference that stands out of the spread"


def test_the_same_figures_have_no_difference() -> None:
    assert chance([1.0, 1.0], [1.0, 1.0]) == 1.0
    (_, *rest) = compare(samples(0.0, 0.0), samples(0.0, 0.0))
    assert all(one.change == 0.0 for one in rest)


def test_the_judgement_is_the_same_each_time() -> None:
    pair = ([1.0, 1.2, 0.9, 1.1], [1.1, 1.3, 1.0, 1.4])
    assert chance(*pair) == chance(*pair)


def test_a_command_is_run_and_read() -> None:
    found = measure("echo rate: 1,234.5 per second", 3, pattern=r"rate: ([0-9.,]+)")
    assert [one.metric for one in found] == [1234.5] * 3
    assert all(one.seconds > 0 for one in found)
    (one,) = measure("true", 1)
    assert one.metric is None


@pytest.mark.parametrize(
    ("command", "pattern", "message"),
    [
        ("echo broken; exit 3", None, "ended with status 3: broken"),
        ("exit 3", None, "it printed nothing"),
        ("echo nothing", r"rate: (\d+)", "printed nothing that matches"),
        ("echo rate: many", r"rate: (\w+)", "is no number"),
    ],
)
def test_commands_that_fail(command: str, pattern: str | None, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        measure(command, 1, pattern=pattern)


@pytest.mark.parametrize(
    ("pattern", "message"), [("(", "no regular expression"), ("rate", "has no group")]
)
def test_patterns_that_are_none(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure("true", 1, pattern=pattern)


def test_a_command_that_hangs_is_ended_with_all_it_started() -> None:
    begun = time.monotonic()
    with pytest.raises(RuntimeError, match="did not end within"):
        measure("sleep 600 & wait", 1, timeout=0.2)
    assert time.monotonic() - begun < 60
