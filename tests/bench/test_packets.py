"""The packet bench: that runs add up, what is said of them, and the peers it drives."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from millrace.bench import packet_memory, packet_plots, packet_targets, packets, testpmd
from millrace.bench.packet_sites import cores, lay_out
from millrace.cli import main
from millrace.lab import Lab

REQUIRED = (
    *("work", "tool", "port", "frame_bytes", "batch"),
    *("mpps", "gbit_per_s", "lost", "cpu_cores"),
)
TINY = packets.Plan(sizes=(64,), batches=(8,), tools=("millrace",), more=(), seconds=0.1, rounds=2)


@pytest.mark.networks
def test_every_packet_is_accounted_for() -> None:
    began: list[str] = []
    outcome = packets.measure(TINY, began.append)
    assert len(began) == packets.steps(TINY) == 6
    found = [(row["work"], row["port"]) for row in outcome.rows]
    assert found == [(work, kind) for work in packets.WORKS for kind in packets.KINDS]
    for row in outcome.rows:
        assert set(REQUIRED) <= set(row)
        offered, delivered, lost = row["offered"], row["delivered"], row["lost"]
        assert isinstance(offered, int)
        assert isinstance(delivered, int)
        assert offered > 0
        assert offered - delivered == lost
        assert row["unaccounted"] == 0, row
    assert outcome.notes[0].startswith("Offered and delivered add up")


@pytest.mark.networks
@pytest.mark.parametrize("kind", packets.KINDS)
def test_testpmd_receives_sends_and_forwards(kind: str) -> None:
    # As root on Debian it is installed here.
    if why := testpmd.missing():
        pytest.skip(why)
    plan = dataclasses.replace(TINY, kinds=(kind,), tools=("millrace", "testpmd"), rounds=1)
    outcome = packets.measure(plan)
    rows = [row for row in outcome.rows if row["tool"] == "testpmd"]
    assert [row["work"] for row in rows] == list(packets.WORKS), outcome.notes
    for row in rows:
        assert row["delivered"], row
        assert row["unaccounted"] == 0, row
    assert [row["over"] for row in outcome.compared] == ["testpmd"] * 3


@pytest.mark.networks
def test_scapy_sends_and_sniffs() -> None:
    plan = dataclasses.replace(TINY, kinds=("af_packet",), tools=("scapy",), seconds=0.3, rounds=1)
    outcome = packets.measure(plan)
    assert [(row["work"], row["tool"]) for row in outcome.rows] == [
        ("rxdrop", "scapy"),
        ("txpush", "scapy"),
    ]
    for row in outcome.rows:
        assert row["delivered"], row
        assert row["unaccounted"] == 0, row


@pytest.mark.networks
def test_a_testpmd_that_cannot_start_says_why(lab: Lab) -> None:
    if why := testpmd.missing():
        pytest.skip(why)
    core, other = cores()
    host = lay_out(lab, "rxdrop").host
    with pytest.raises(RuntimeError, match=r"dpdk-testpmd has no port: .*"):
        testpmd.Testpmd(host, ["nosuch0"], "af_packet", "rxdrop", core=core, other=other)


def test_a_missing_testpmd_is_told_with_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testpmd, "PROGRAM", "dpdk-nosuch")
    for install in (False, True):
        monkeypatch.setattr("os.geteuid", lambda: 1000)
        why = testpmd.missing(install)
        assert why is not None
        assert "apt-get install dpdk-dev" in why


@pytest.mark.networks
def test_both_modes_are_measured() -> None:
    plan = dataclasses.replace(TINY, works=(), kinds=("af_packet",), more=("modes",))
    rows = packets.measure(plan).rows
    works = [(row["work"], row["tool"]) for row in rows]
    tools = ("millrace throughput", "millrace latency")
    assert works == [(work, tool) for tool in tools for work in ("echo", "read")]
    assert all(row["rtt_us"] for row in rows if row["work"] == "echo")
    # One sleeps, the other spins.
    sleeping, spinning = (row["idle_cores"] for row in rows if row["work"] == "read")
    assert isinstance(sleeping, float)
    assert isinstance(spinning, float)
    assert sleeping < spinning


def test_headers_and_filter_in_memory() -> None:
    rows = packet_memory.measure(0.01, 1)
    assert [row["work"] for row in rows] == ["headers", "filter"]
    assert [row["over"] for row in packet_targets.compare(rows)] == ["million a second"] * 2


def _row(tool: str, mpps: float, **more: Any) -> dict[str, Any]:
    row = {
        "work": "rxdrop",
        "tool": tool,
        "port": "af_xdp",
        "frame_bytes": 64,
        "batch": 64,
        "mpps": mpps,
        "cpu_cores": 1.0,
    }
    return {**row, **more}


def test_the_targets() -> None:
    rows = [
        *(_row("millrace", mpps, batch=batch) for batch, mpps in ((1, 0.9), (8, 1.2), (64, 1.3))),
        *(_row("testpmd", 1.0, batch=batch) for batch in (1, 8, 64)),
        _row("scapy", 0.014, port="af_packet", batch=1),
        _row("millrace", 9.0, work="headers", port="memory"),
    ]
    told = [(row["over"], row["figure"], row["result"]) for row in packet_targets.compare(rows)]
    assert told == [
        ("testpmd", 1.2, "met"),
        ("scapy", round(1.3 / 0.014, 3), "missed"),
        ("million a second", 9.0, "missed"),
    ]
    assert "least 0.90 at 64 bytes, batches of 1" in str(packet_targets.compare(rows)[0]["detail"])


def test_pictures(tmp_path: Path) -> None:
    rows = [
        _row(tool, mpps, batch=batch, frame_bytes=size)
        for tool, mpps in (("millrace", 1.0), ("testpmd", 0.9))
        for batch in (1, 64)
        for size in (64, 1514)
    ]
    files = packet_plots.write(rows, str(tmp_path / "new"))
    assert [file.name for file in files] == ["rxdrop.svg", "packets.svg"]
    before = [file.read_bytes() for file in files]
    assert all(b"<svg" in text for text in before)
    packet_plots.write(rows, str(tmp_path / "new"))
    assert [file.read_bytes() for file in files] == before


def test_no_pictures_without_matplotlib(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert main(["bench", "packets", "--plot", str(tmp_path)]) == 1
    assert "pip install 'millrace[plot]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--work", "rxdorp"], "no work 'rxdorp'"),
        (["--port", "tap"], "no port 'tap'"),
        (["--tool", "pktgen"], "no tool 'pktgen'"),
        (["--size", "59"], "60 to 1514 bytes, not 59"),
        (["--batch", "65"], "1 to 64 packets, not 65"),
    ],
)
def test_what_makes_no_sense(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "packets", *words]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.networks
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.json"
    words = ["--work", "txpush", "--port", "af_packet", "--size", "64", "--batch", "64"]
    more = ["--tool", "millrace", "--part", "none", "--seconds", "0.1", "--rounds", "1"]
    assert main(["bench", "packets", *words, *more, "--json", str(file)]) == 0
    (row,) = json.loads(file.read_text())
    assert list(row)[: len(REQUIRED)] == list(REQUIRED)
    assert "Raw packets on veth" in capsys.readouterr().out
