"""docs/xdp.md is true: its programs run, its table of headers is the compiler's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import frames
import pytest
from differential import load

from millrace.lab import Lab
from millrace.xdp import DROP, PASS, TX, Program
from millrace.xdp.headers import HEADERS

TEXT = (Path(__file__).parents[2] / "docs" / "xdp.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_table_of_headers() -> None:
    section = TEXT[TEXT.index("## What a program sees") : TEXT.index("## Numbers")]
    rows = re.findall(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|$", section, re.MULTILINE)
    told = {header: re.findall(r"`(\w+)`", fields) for header, fields in rows}
    assert {header: list(HEADERS[header].fields) for header in told} == told
    assert set(told) == set(HEADERS)


@pytest.mark.kernel
@pytest.mark.networks
def test_examples_run(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    client, server = lab.host("client"), lab.host("server")
    lab.wire(client, server, names=("eth0", "eth1"))
    lab.wire(client, server, names=("eth3", "eth2"))
    with server.enter():
        names: dict[str, Any] = {}
        for number, example in enumerate(EXAMPLES):
            names = load(example, f"<docs/xdp.md {number}>", **names)
        # The last example has used the name `program` for something else.
        programs = {p.name: p for p in names.values() if isinstance(p, Program)}
        for program in programs.values():
            program.load()
            given = [frames.udp4(9), frames.tcp4(22, flags=2), frames.udp6(), frames.arp()]
            assert [run.verdict for run in program.plain(given)] == [
                run.verdict for run in program.run(given)
            ]
    assert set(programs) == {
        "shield",
        "filtered",
        "near",
        "account",
        "spread",
        "chosen",
        "reflector",
    }
    assert programs["shield"](frames.udp4(9)) is DROP
    assert programs["filtered"](frames.tcp4(22, flags=2)) is PASS
    assert programs["filtered"](frames.tcp4(22, flags=2, source="203.0.113.1")) is DROP
    assert programs["account"](frames.udp4(source="203.0.113.1")) is DROP
    assert programs["reflector"](frames.udp4(7)) is TX
    assert "return TX" in capsys.readouterr().out
