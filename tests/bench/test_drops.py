"""The bench of watched drops: that each arm drops, and that what is compared is there."""

from __future__ import annotations

import pytest

from millrace.bench import drops

pytestmark = [pytest.mark.networks, pytest.mark.usefixtures("tracing")]


def test_every_arm_drops_and_the_program_ran() -> None:
    rows = {row["arm"]: row for row in drops.measure(0.1, 2)}
    assert list(rows) == ["off", "counting", "sampling"]
    for row in rows.values():
        assert row["drops_per_s"] > 1000
        assert row["ns_per_packet"] > 0
    assert rows["off"]["cost_ns"] == 0
    assert rows["counting"]["ns_of_program"] > 0
