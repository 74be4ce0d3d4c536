"""What people write about a wire becomes numbers, or an error that says what to write."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.lab import Impairment, LabError
from millrace.lab.impairment import Wishes, probability, rate, read, size, time

MTU = 1500
FRAME = 1514


def test_units() -> None:
    assert probability("loss", "1%") == probability("loss", 0.01) == probability("loss", "0.01")
    assert probability("loss", "100 %") == 1
    assert time("delay", "10ms") == time("delay", 0.01) == 0.01
    assert time("delay", "250 us") == pytest.approx(250e-6)
    assert time("delay", "2min") == 120
    assert rate("rate", "100M") == rate("rate", 100e6) == rate("rate", "0.1Gbit/s") == 100_000_000
    assert rate("rate", "64kbit") == 64_000
    assert size("queue", "64KiB", None, 0, MTU) == 65536
    assert size("queue", 1000, None, 0, MTU) == size("queue", "1kB", None, 0, MTU) == 1000
    assert size("queue", "50packets", None, 0, MTU) == 50 * FRAME


@given(st.floats(min_value=0, max_value=1))
def test_a_probability_survives_being_written(value: float) -> None:
    assert probability("loss", repr(value)) == value
    assert probability("loss", f"{value * 100!r}%") == pytest.approx(value)


def test_a_queue_in_bandwidth_delay_products() -> None:
    forth, back = read(Wishes(rate="100M", delay="10ms", queue="0.5bdp"), MTU)
    assert forth.queue == back.queue == 100e6 / 8 * 0.020 * 0.5
    # The round trip is that of both directions.
    forth, back = read(Wishes(rate=("100M", "1M"), delay=("15ms", "5ms")), MTU)
    assert (forth.queue, back.queue) == (250_000, 4 * FRAME)


def test_a_pair_is_for_both_directions() -> None:
    forth, back = read(Wishes(loss=("1%", 0), delay="3ms", jitter_reorders=(True, False)), MTU)
    assert forth == Impairment(loss=0.01, delay=0.003, jitter_reorders=True)
    assert back == Impairment(delay=0.003)


def test_bursts_keep_the_average() -> None:
    forth, _ = read(Wishes(loss="10%", burst=4), MTU)
    assert forth.loss == 0
    assert forth.bursts is not None
    to_bad, to_good, good, bad = forth.bursts
    assert (to_good, good, bad) == (0.25, 0, 1)
    assert to_bad / (to_bad + to_good) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        (Wishes(loss="1"), None),
        (Wishes(loss=1.5), r'loss is a probability such as 0.01 or "1%", not 1.5'),
        (Wishes(loss="101%"), "loss is a probability"),
        (Wishes(loss=math.nan), "loss is a probability"),
        (Wishes(corrupt=True), "corrupt is a probability"),
        (Wishes(duplicate="often"), "duplicate is a probability"),
        (Wishes(delay="10"), r"delay is a time up to an hour, in seconds or as .10ms."),
        (Wishes(delay="10 parsecs"), "delay is a time"),
        (Wishes(delay=-1), "delay is a time"),
        (Wishes(jitter="2h"), "jitter is a time"),
        (Wishes(delay=1 << 2000), "delay is a time"),
        (Wishes(rate="fast"), "rate is a rate in bit/s"),
        (Wishes(rate=0), "rate is a rate in bit/s"),
        (Wishes(rate="1M", queue="x"), "queue is a size"),
        (Wishes(rate="1M", queue="1bdp"), "takes a rate and a delay"),
        (Wishes(queue=1000), "queue takes a rate"),
        (Wishes(mark=1000, delay=1), "mark takes a rate"),
        (Wishes(reorder="1%"), "reorder takes reorder_delay"),
        (Wishes(loss="1%", burst=0.5), "from 1 on"),
        (Wishes(burst=5), "burst takes a loss"),
        (Wishes(loss="90%", burst=2), "make them longer"),
        (Wishes(jitter=1, jitter_reorders="no"), "True or False, not 'no'"),  # type: ignore[typeddict-item]
        (Wishes(loss=(0.1, 0.2, 0.3)), "one value or two"),  # type: ignore[typeddict-item]
        ({"los": "1%"}, "no impairment is called los; there are: loss, burst, duplicate, corrupt"),
    ],
)
def test_nonsense_is_named(wishes: Wishes, message: str | None) -> None:
    if message is None:
        assert read(wishes, MTU)
        return
    with pytest.raises(LabError, match=message):
        read(wishes, MTU)


def test_only_what_is_set_goes_to_the_forwarder() -> None:
    assert Impairment().native() == {}
    assert Impairment(loss=0.5, rate=10, queue=0).native() == {"loss": 0.5, "rate": 10, "queue": 0}
