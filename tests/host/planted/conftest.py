"""A host of the lab as the patient."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.lab import Lab, Wire
from planted.clinic import Clinic


@pytest.fixture
def wire(lab: Lab) -> Wire:
    """The patient is end `a`."""
    return lab.wire(lab.host("patient"), lab.host("peer"))


@pytest.fixture
def clinic(wire: Wire, tmp_path: Path) -> Clinic:
    return Clinic(wire.a.host, tmp_path)
