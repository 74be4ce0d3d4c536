"""The bench of top: that each way of showing runs and is counted."""

from __future__ import annotations

import pytest

from millrace.bench import top


def test_every_mode_is_measured() -> None:
    rows = top.measure(seconds=1.0, interval=0.5)
    assert [row["mode"] for row in rows] == ["screen", "screen, sockets", "json"]
    for row in rows:
        assert row["ms_per_look"] > 0
        assert row["share_of_core"] == pytest.approx(row["ms_per_look"] / 500)
