"""Looking, examining, and what is said of names that do not exist."""

from __future__ import annotations

from typing import Any

import pytest

from millrace.host import doctor
from millrace.host.checks import CHECKS, Goal
from millrace.host.finding import SEVERITY, Verdict


def test_a_window_has_two_ends() -> None:
    waited: list[float] = []
    before, after = doctor.look(7.0, wait=waited.append)
    assert waited == [7.0]
    assert after.origin.clock > before.origin.clock
    (alone,) = doctor.look(0)
    assert alone.missing() is not None


def test_findings_come_worst_first(server: Any) -> None:
    server.link_counts(rx_missed_errors=500).features(rx_gro=False)
    found = doctor.examine([server.before, server.after])
    ranks = [SEVERITY[one.verdict] for one in found.findings]
    assert ranks == sorted(ranks)
    assert found.is_bad
    counts = found.counts()
    assert sum(counts.values()) == len(found.findings)
    assert counts[Verdict.BAD] == 1


def test_a_check_by_its_name() -> None:
    assert doctor.find("gro").id == "gro"
    with pytest.raises(ValueError, match="no check 'softnet-drop'; did you mean softnet-drops"):
        doctor.find("softnet-drop")
    with pytest.raises(ValueError, match="no check 'zzzz' "):
        doctor.find("zzzz")


def test_what_the_figures_mean_is_the_same_for_a_goal(server: Any) -> None:
    for goal in Goal:
        assert {one.check for one in server.examine(goal=goal)} == set(CHECKS)
