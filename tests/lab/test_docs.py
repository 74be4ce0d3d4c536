"""The examples of docs/lab.md run as they are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("millrace._native")
pytestmark = pytest.mark.networks

PAGE = (Path(__file__).parents[2] / "docs" / "lab.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.S | re.M)
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.S | re.M)
    for line in block.splitlines()
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_run(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/lab.md", "exec"), {})


def test_the_commands_run(tmp_path: Path) -> None:
    name = "bad_link.py"
    (scenario,) = (example for example in EXAMPLES if example.startswith(f"# {name}\n"))
    (tmp_path / name).write_text(scenario)
    assert len(COMMANDS) >= 4
    for command in COMMANDS:
        script = command.replace("millrace ", f"{sys.executable} -m millrace ", 1)
        done = subprocess.run(
            ["sh", "-e", "-c", script],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}"
    assert (tmp_path / "run.pcapng").stat().st_size > 1_000_000
    assert (tmp_path / "flows.json").exists()
