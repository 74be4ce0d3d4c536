"""A few of the runs of `millrace bench integrity`."""

from __future__ import annotations

import pytest

from millrace.bench.integrity import measure

pytest.importorskip("millrace._native")


@pytest.mark.networks
def test_every_byte_arrives_between_our_stack_and_linux() -> None:
    rows, wrong = zip(*measure(runs=18, seed=3, conditions=["loss 5%", "jitter"]), strict=True)
    assert [said for lines in wrong for said in lines] == []
    assert [row["runs"] for row in rows] == [9, 9]
    assert all(row["retransmitted"] for row in rows)


def test_an_unknown_condition_is_named() -> None:
    with pytest.raises(ValueError, match="no condition 'rain'; there are: clean"):
        next(measure(runs=1, seed=0, conditions=["rain"]))
