"""Health: faults planted for real."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.host import Observer
from millrace.host.checks import CHECKS, Goal
from millrace.host.doctor import examine
from millrace.lab import Lab
from planted.clinic import LOUD
from planted.hands import connection

pytestmark = pytest.mark.networks


@pytest.mark.parametrize("queues", [1, 2])
def test_a_healthy_host(lab: Lab, tmp_path: Path, queues: int) -> None:
    wire = lab.wire(lab.host("patient"), lab.host("peer"), queues=queues)
    with connection(wire) as (here, there), wire.a.host.enter(), Observer() as observer:
        before = observer.snapshot()
        for _ in range(50):
            there.sendall(b"x" * 1000)
            here.sendall(here.recv(65_536))
            there.recv(65_536)
        after = observer.snapshot()
    found = examine([before, after]).findings
    assert {one.check for one in found} == set(CHECKS)
    assert [(one.check, one.evidence) for one in found if one.verdict in LOUD] == []
    assert [one.check for one in found if "defect" in one.evidence] == []
    for goal in (Goal.THROUGHPUT, Goal.OVERLOAD):
        assert not examine([before, after], goal=goal).is_bad
