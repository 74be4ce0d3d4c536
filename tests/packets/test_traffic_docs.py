"""The examples of docs/traffic.md run as they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import millrace
from millrace.lab import Lab, Wire

from .conftest import udp

pytestmark = pytest.mark.networks

PAGE = (Path(__file__).parents[2] / "docs" / "traffic.md").read_text()


@pytest.fixture
def wire(lab: Lab) -> Iterator[Wire]:
    """A wire whose ends are called eth1, and datagrams that come in at the first of them."""
    wire = lab.wire(lab.host("a"), lab.host("b"), names=("eth1", "eth1"))
    wire.a.host.run(["ping", "-c", "1", "192.0.2.2"])
    with wire.b.host.enter():
        other = millrace.open("af_packet:eth1")
    ended = threading.Event()

    def traffic() -> None:
        while not ended.is_set():
            other.send([udp(1), udp(2, bytes(200))])
            ended.wait(0.002)

    thread = threading.Thread(target=traffic)
    thread.start()
    yield wire
    ended.set()
    thread.join()
    other.close()


def test_the_examples_run(wire: Wire, tmp_path: Path) -> None:
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        with wire.a.host.enter():
            for example in re.findall(r"^```python\n(.*?)^```$", PAGE, re.S | re.M):
                exec(compile(example, "docs/traffic.md", "exec"), {})
    finally:
        os.chdir(before)


def test_the_commands_run(wire: Wire, tmp_path: Path) -> None:
    commands = [
        line
        for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.S | re.M)
        for line in block.splitlines()
    ]
    assert len(commands) > 12
    for command in commands:
        script = command.replace("millrace ", f"{sys.executable} -m millrace ")
        process = wire.a.host.popen(
            ["sh", "-e", "-c", script],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0, f"{command}\n{out}"
    assert (tmp_path / "headers.parquet").exists()
    assert (tmp_path / "ring-00001.pcapng").exists()
