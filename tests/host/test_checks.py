"""Each check finds its fault in an edited recording, and nothing on a healthy machine.

The faults are in `faults`. The last tests hold that no check is without one, and that none breaks
on recordings that are damaged.
"""

from __future__ import annotations

import dataclasses
import inspect
import random
from typing import Any

import pytest
from faults import FAULTS, Fault
from faults.register import BAD, INFO, OK, SKIP, WARN

from millrace.host import NotAvailable, codec
from millrace.host.checks import CHECKS, Goal
from millrace.host.finding import SEVERITY, Finding
from millrace.host.snapshot import Snapshot


def worst(findings: list[Finding]) -> Finding:
    return min(findings, key=lambda one: SEVERITY[one.verdict])


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_fault(fault: Fault, server: Any, make_socket: Any) -> None:
    healthy = worst(server.examine(fault.check))
    assert healthy.verdict not in (BAD, WARN)
    wanted = inspect.signature(fault.spoil).parameters
    fault.spoil(*([server, make_socket][: len(wanted)]))
    found = server.examine(fault.check, goal=fault.goal)
    assert all("a defect of this check" not in one.evidence for one in found)
    (loud, *_) = [one for one in found if one.verdict is fault.verdict] or [worst(found)]
    assert (loud.verdict, loud.check) == (fault.verdict, fault.check), loud.evidence
    said = [one.evidence for one in found if one.verdict is fault.verdict]
    assert any(part in text for part in fault.says.split("|") for text in said), said
    assert worst(found).verdict is fault.verdict
    assert loud.why
    if fault.shell:
        assert any(fault.shell in one.shell for one in found), [one.shell for one in found]
    row = loud.row()
    assert set(row) == {
        "check", "layer", "scope", "verdict", "evidence", "why", "remedy", "shell", "risk"
    }  # fmt: skip
    assert all(isinstance(value, str) for value in row.values())


def test_every_check_has_a_fault() -> None:
    assert set(CHECKS) - {fault.check for fault in FAULTS} == set()
    assert len(CHECKS) >= 60


@pytest.mark.parametrize("goal", list(Goal))
def test_a_healthy_machine(server: Any, goal: Goal) -> None:
    found = server.examine(goal=goal)
    assert {one.check for one in found} == set(CHECKS)
    loud = {one.check for one in found if one.verdict in (BAD, WARN)}
    # What is well in general may be wrong for latency.
    allowed = {"coalescing", "busy-poll", "c-states"} if goal is Goal.LATENCY else set()
    assert loud == allowed


def test_every_check_explains_itself() -> None:
    for check in CHECKS.values():
        assert check.explanation.endswith((".", ")")), check.id
        assert check.why.endswith((".", ")")), check.id
        assert len(check.why) <= 210, check.id
        assert check.source, check.id
        assert not any(word in check.explanation for word in ("TODO", "XXX"))


def test_one_snapshot_skips_what_needs_two(server: Any) -> None:
    from millrace.host.doctor import examine

    found = examine([server.after]).findings
    assert all("a defect of this check" not in one.evidence for one in found)
    skipped = {one.check: one.evidence for one in found if one.verdict is SKIP}
    assert "it takes two snapshots" in skipped["softnet-drops"]
    assert {one.verdict for one in found if one.check == "tcp-features"} == {OK}


def test_a_namespace_is_not_blamed_for_its_machine(server: Any) -> None:
    server.softnet(1, dropped=3000)
    server.origin(initial_namespace=False)
    (inside,) = server.examine("softnet-drops")
    assert inside.verdict is INFO
    assert "the whole machine's" in inside.evidence
    (outside,) = server.examine("softnet-drops", machine=True)
    assert outside.verdict is BAD


def test_one_interface_alone(server: Any) -> None:
    lo, eth0 = server.after.links
    server.set(links=(lo, eth0, dataclasses.replace(eth0, name="eth1", index=3, carrier=False)))
    assert worst(server.examine("link-down")).verdict is BAD
    assert worst(server.examine("link-down", interface="eth0")).verdict is OK
    server.link("eth1", flags=0x1002)
    assert worst(server.examine("link-down")).verdict is OK
    (down,) = server.examine("link-down", interface="eth1")
    assert (down.verdict, down.shell) == (BAD, "ip link set dev eth1 up")
    with pytest.raises(ValueError, match="no interface 'eth9'; there is lo, eth0, eth1"):
        server.examine("link-down", interface="eth9")


@pytest.mark.parametrize("part", sorted(set(Snapshot.__slots__) - {"origin"}))
def test_a_missing_part_is_a_reason(server: Any, part: str) -> None:
    server.set(**{part: NotAvailable("taken away")})
    found = server.examine()
    assert {one.check for one in found} == set(CHECKS)
    assert all("a defect of this check" not in one.evidence for one in found)
    # Nothing else gets loud because of it.
    assert [one.check for one in found if one.verdict in (BAD, WARN)] == []


def _mutate(value: Any, dice: random.Random, depth: int = 0) -> Any:
    """The same JSON with some of it taken away or made absurd."""
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if dice.random() > 0.02}
        return {key: _mutate(item, dice, depth + 1) for key, item in kept.items()}
    if isinstance(value, list):
        kept = [item for item in value if dice.random() > 0.05]
        return [_mutate(item, dice, depth + 1) for item in kept]
    if dice.random() < 0.05:
        if isinstance(value, bool):
            return not value
        if isinstance(value, int):
            return dice.choice([0, -1, 1, 1 << 31, (1 << 64) - 1, -(1 << 63)])
        if isinstance(value, float):
            return dice.choice([0.0, -1.0, 1e18])
        if isinstance(value, str):
            return dice.choice(["", "0", "-1", "\x1b[31m", "a b c", "<script>", "9" * 300, "'; rm"])
    return value


@pytest.mark.parametrize("seed", range(60))
def test_absurd_recordings_break_nothing(server: Any, seed: int) -> None:
    from millrace.host import picture_svg, picture_text
    from millrace.host.doctor import examine
    from millrace.host.page import page
    from millrace.host.path import picture

    dice = random.Random(seed)
    snapshots = []
    for snapshot in (server.before, server.after):
        written = codec.to_json(snapshot)
        parts = {name: part for name, part in written.items() if name != "origin"}
        mutated = {name: _mutate(part, dice) for name, part in parts.items()}
        kept = {}
        for name, part in mutated.items():
            try:
                codec.from_json(Snapshot, {"origin": written["origin"], name: part})
            except codec.BadData:
                continue
            kept[name] = part
        snapshots.append(codec.from_json(Snapshot, {"origin": written["origin"], **kept}))
    found = examine(snapshots, goal=dice.choice(list(Goal)))
    assert {one.check for one in found.findings} == set(CHECKS)
    for one in found.findings:
        one.row()
    drawn = picture(found.context, found.findings)
    picture_text.draw(drawn)
    for text in (picture_svg.draw(drawn), page(found)):
        assert "<script" not in text
        assert "\x1b" not in text
