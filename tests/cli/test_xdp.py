"""`millrace xdp`: shows, explains, attaches and detaches."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from millrace.lab import Host, Lab, Wire

SOURCE = """import millrace
from millrace.xdp import *

@millrace.xdp(counters=True)
def shield(pkt):
    return DROP if pkt.udp else PASS

other = 3
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "shield.py"
    path.write_text(SOURCE)
    return path


def command(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "millrace", "xdp", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        **more,
    )


def test_explain(source: Path) -> None:
    result = command("explain", f"{source}:shield")
    assert result.returncode == 0, result.stderr
    assert "shield: " in result.stdout
    assert "6 |     return DROP if pkt.udp else PASS" in result.stdout


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("{0}", "no FILE.py:NAME"),
        ("{0}:other", "has no XDP program other; it has shield"),
        ("{0}:none", "has no XDP program none"),
        ("{0}.missing:shield", "shield.py.missing"),
    ],
)
def test_what_is_no_program(source: Path, place: str, words: str) -> None:
    result = command("explain", place.format(source))
    assert result.returncode == 1
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_mistake_is_shown_with_its_place(source: Path) -> None:
    source.write_text(SOURCE.replace("pkt.udp", "pkt.upd"))
    result = command("explain", f"{source}:shield")
    assert result.returncode == 1
    assert "did you mean udp?" in result.stderr
    assert f'File "{source}", line 6' in result.stderr
    assert "^^^^^^^" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture
def pair(lab: Lab) -> tuple[Host, Wire]:
    client, server = lab.host("client"), lab.host("server")
    return server, lab.wire(client, server)


@pytest.mark.networks
def test_attach_until_interrupted(pair: tuple[Host, Wire], source: Path) -> None:
    server, wire = pair
    with server.enter():
        process = subprocess.Popen(
            [sys.executable, "-m", "millrace", "xdp", "attach", f"{source}:shield", wire.b.name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if "CAP_BPF" in (process.stderr.read() if not line and process.stderr else ""):
            pytest.skip("cannot load XDP programs")
        assert line == f"shield is on {wire.b.name}, native mode\n"
        shown = command("show", wire.b.name, "--json", "-")
        (row,) = json.loads(shown.stdout)
        assert (row["name"], row["mode"]) == ("shield", "native")
        wire.a.host.run(["ping", "-c", "2", "-i", "0.01", "-W", "5", wire.b.ip])
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert err == ""
        assert "PASS: " in out
        assert " ns each" in out
        assert command("show", wire.b.name).stdout == f"{wire.b.name} has no XDP program\n"


@pytest.mark.networks
def test_show_of_no_interface() -> None:
    result = command("show", "nothing9")
    assert result.returncode == 1
    assert "no interface nothing9" in result.stderr
