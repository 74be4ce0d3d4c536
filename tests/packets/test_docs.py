"""The examples of docs/packets.md run as they are."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest
from scapy.config import conf

import millrace
from millrace.lab import Lab
from millrace.packets import HEADER_FIELDS

from .conftest import udp

PAGE = Path(__file__).parents[2] / "docs" / "packets.md"


@pytest.mark.networks
def test_the_examples_run(
    lab: Lab,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What an example changes of Scapy is put back.
    monkeypatch.setattr(conf, "L2socket", conf.L2socket)
    a, b = lab.host("a"), lab.host("b")
    wire = lab.wire(a, b, names=("eth1", "eth1"))
    with b.enter():
        other = millrace.open("af_packet:eth1", mode="latency")
    ended = threading.Event()

    def traffic() -> None:
        while not ended.is_set():
            other.send([udp(1), udp(2, bytes(200))])
            ended.wait(0.001)

    thread = threading.Thread(target=traffic)
    names: dict[str, object] = {}
    before = os.getcwd()
    os.chdir(tmp_path)
    thread.start()
    try:
        with a.enter():
            for example in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.S | re.M):
                exec(compile(example, str(PAGE), "exec"), names)
    finally:
        os.chdir(before)
        ended.set()
        thread.join()
        other.close()
    shown = re.findall(r"^```\n(this is no packet filter.*?)^```$", PAGE.read_text(), re.S | re.M)
    assert shown[0] in capsys.readouterr().out
    assert wire.a.name == "eth1"


def test_the_page_names_every_field_of_the_table() -> None:
    text = PAGE.read_text()
    for name, _, _ in HEADER_FIELDS:
        assert f"`{name}`" in text
