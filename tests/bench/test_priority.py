"""Who runs first while something is measured."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from millrace.bench.priority import favour


def test_a_session_is_weighed_heavier_or_the_answer_says_no() -> None:
    process = subprocess.Popen(["sleep", "100"], start_new_session=True)
    try:
        allowed = favour(process.pid)
        assert (os.getpriority(os.PRIO_PROCESS, process.pid) == -20) == allowed
        weight = Path(f"/proc/{process.pid}/autogroup")
        if allowed and weight.exists() and weight.read_text(encoding="ascii"):
            assert weight.read_text(encoding="ascii").endswith("nice -20\n")
    finally:
        process.kill()
        process.wait()


def test_a_process_that_has_ended_is_no_error() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    favour(process.pid)
