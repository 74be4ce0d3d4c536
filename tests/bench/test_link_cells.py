"""Links and cells."""

from __future__ import annotations

import pytest

from millrace.bench import link_cells


def test_every_combination_is_a_cell() -> None:
    cells = link_cells.cells()
    assert len(cells) == len(set(cells)) == 2 * 2 * 2 * 2 * 3 * 5
    assert len(link_cells.cells(congestion=["cubic"], losses=[0], rates_mbit=[100])) == 2 * 2 * 3


def test_a_buffer_never_limits_a_flow() -> None:
    for cell in link_cells.cells():
        assert cell.link.buffer >= 4 * cell.link.bdp_bytes * (1 + cell.link.queue_bdp)


@pytest.mark.parametrize(
    ("congestion", "rtt_ms", "loss", "seconds"),
    [
        ("cubic", 1, 0.0, 2),
        ("cubic", 20, 0.01, 4),
        ("cubic", 100, 0.0, 5),
        ("cubic", 100, 0.01, 10),
        ("bbr", 1, 0.01, 5),
        ("bbr", 100, 0.01, 5),
    ],
)
def test_a_cell_in_which_luck_has_a_say_is_watched_for_longer(
    congestion: str, rtt_ms: float, loss: float, seconds: float
) -> None:
    link = link_cells.Link(loss, rtt_ms, False, 1.0, 100.0)
    assert link_cells.Cell(congestion, link).seconds == seconds


@pytest.mark.parametrize(
    ("congestion", "rtt_ms", "rate_mbit", "loss", "seconds"),
    [
        # A flow has 173 segments in flight and gives up 0.3 of them; 0.4 t^3 brings those back in
        # 5.06 s, of 50 times as many in 3.7 times as long.
        ("cubic", 20, 100, 0.0, 61),
        ("cubic", 100, 1000, 0.0, 224),
        ("cubic", 1, 100, 0.0, 23),
        ("cubic", 100, 1000, 0.01, 20),
        ("bbr", 1, 100, 0.0, 60),
        ("bbr", 100, 1000, 0.01, 80),
    ],
)
def test_two_flows_are_watched_until_they_can_have_come_to_share(
    congestion: str, rtt_ms: float, rate_mbit: float, loss: float, seconds: float
) -> None:
    link = link_cells.Link(loss, rtt_ms, False, 1.0, rate_mbit)
    assert link_cells.Cell(congestion, link).seconds_to_share == seconds
