"""The port kinds that the demo runs on, by what works."""

from __future__ import annotations

import pytest

from millrace.bench.choice import KINDS, decide
from millrace.cli.probe import Finding


def findings(**where: str) -> dict[str, Finding]:
    return {
        kind: Finding(kind, kind in where, where.get(kind), "", f"a better {kind}")
        for kind in KINDS
    }


def test_the_best_that_works_is_taken_and_the_better_ones_are_explained() -> None:
    chosen = decide(findings(af_packet="user namespace", memory="here"), None, False)
    assert chosen.kinds == ("af_packet",)
    assert chosen.because == (
        "ports: af_packet in a user namespace; not af_xdp, which takes a better af_xdp"
    )
    assert "\n" not in chosen.because


def test_without_any_network_there_is_memory() -> None:
    chosen = decide(findings(memory="here"), None, False)
    assert chosen.is_memory
    for kind in ("af_xdp", "af_packet", "tap"):
        assert f"not {kind}, which takes" in chosen.because


def test_full_takes_all_that_work() -> None:
    chosen = decide(findings(af_xdp="here", tap="here", memory="here"), None, True)
    assert chosen.kinds == ("af_xdp", "tap")
    assert "not af_packet" in chosen.because


def test_what_was_asked_for_is_taken_or_refused_never_replaced() -> None:
    there = findings(af_xdp="here", memory="here")
    assert decide(there, "memory", False).is_memory
    with pytest.raises(RuntimeError, match="tap does not work here; it takes a better tap"):
        decide(there, "tap", False)
    with pytest.raises(ValueError, match="no port kind 'dpdk'"):
        decide(there, "dpdk", False)
    with pytest.raises(ValueError, match="--full"):
        decide(there, "af_xdp", True)


def test_when_nothing_works_it_says_what_it_takes() -> None:
    with pytest.raises(RuntimeError, match="memory takes a better memory"):
        decide(findings(), None, False)
