"""Our own scripts against the plug-in, when a packetdrill binary is named (see conftest.py)."""

from __future__ import annotations

import os
import types
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).with_name("scripts")


@pytest.mark.networks
@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.pkt")), ids=lambda path: path.stem)
def test_script(run: types.ModuleType, script: Path) -> None:
    runner = run.Runner(Path(os.environ["MILLRACE_PACKETDRILL"]), run.default_plugin())
    text = script.read_text()
    families = [one for one in run.FAMILIES.values() if run.applies(script, text, one)]
    assert families
    for family in families:
        result = runner.run(script, family, script.name)
        assert result.status == run.PASSED, f"{family.name}: {result.output}"
