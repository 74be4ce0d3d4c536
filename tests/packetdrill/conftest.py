"""Without a packetdrill binary there is nothing to run our scripts with, so they are not collected.

packetdrill is not part of this repository. Build it from github.com/google/packetdrill, without
`-static` in `Makefile.Linux` (it could not load the plug-in), build the plug-in with
`cargo build --release -p millrace-packetdrill`, and name the binary:

    MILLRACE_PACKETDRILL=/path/to/packetdrill pytest tests/packetdrill
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from pathlib import Path

import pytest

collect_ignore = [] if os.environ.get("MILLRACE_PACKETDRILL") else ["test_scripts.py"]


def pytest_report_header() -> str:
    binary = os.environ.get("MILLRACE_PACKETDRILL")
    return f"packetdrill: {binary or 'none; set MILLRACE_PACKETDRILL (see CONTRIBUTING.md)'}"


@pytest.fixture(scope="session")
def run() -> types.ModuleType:
    """The runner, which is a program and not a package."""
    path = Path(__file__).with_name("run.py")
    sys.path.append(str(path.parent))  # as for a program: its modules are beside it
    spec = importlib.util.spec_from_file_location("packetdrill_run", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["packetdrill_run"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
