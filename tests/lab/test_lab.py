"""A lab's own errors."""

from __future__ import annotations

import pytest

from millrace.lab import Lab, LabError

pytestmark = pytest.mark.networks


@pytest.mark.parametrize("name", ["", "-a", "a.b", "a b", "a/b", "ä", "x" * 33])
def test_bad_names(lab: Lab, name: str) -> None:
    with pytest.raises(LabError, match="is no name for a host"):
        lab.host(name)
    with pytest.raises(LabError, match="is no name for a lab"):
        Lab(name)


def test_host_names_are_unique(lab: Lab) -> None:
    lab.host("a")
    with pytest.raises(LabError, match="already has a host a"):
        lab.host("a")


def test_labs_side_by_side(lab: Lab) -> None:
    with Lab() as other:
        a, b = lab.host("a"), other.host("a")
        assert a.netns != b.netns
        with pytest.raises(LabError, match="host a does not belong to lab"):
            lab.wire(a, b)
        with pytest.raises(TypeError, match="a wire joins two hosts of a lab, not 'a'"):
            lab.wire(a, "a")  # type: ignore[arg-type]


def test_same_name_twice() -> None:
    with Lab("twin") as one, Lab("twin") as other:
        one.host("a")
        with pytest.raises(LabError, match="another lab twin with a host a"):
            other.host("a")
        assert one.hosts["a"].run(["echo", "works"]).stdout == "works\n"


def test_addresses(lab: Lab) -> None:
    wire = lab.wire(lab.host("a"), lab.host("b"))
    assert [wire.address(), lab.address()] == ["192.0.2.3/24", "192.0.2.4/24"]


def test_wire_within_one_host(lab: Lab) -> None:
    host = lab.host("a")
    wire = lab.wire(host, host, addresses=(None, None))
    assert (wire.a.name, wire.b.name) == ("eth0", "eth1")
    with pytest.raises(LabError, match="both ends on host a would be called same"):
        lab.wire(host, host, names=("same", "same"), addresses=(None, None))
