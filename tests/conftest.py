"""What every test may use: a lab, and another process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import hypothesis
import pytest

from millrace.lab import Lab, userns

# The same examples on every machine, and no opinion on how fast it is.
hypothesis.settings.register_profile("millrace", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("millrace")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("networks") and not userns.may_make_networks():
        pytest.skip("needs CAP_NET_ADMIN and CAP_SYS_ADMIN; run as root")


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An empty lab; the test must carry the mark `networks`."""
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="session")
def tracing() -> None:
    """Programs at the kernel's tracepoints; skipped where this process or this kernel has none."""
    from millrace._native import DropMonitor

    try:
        DropMonitor().close()
    except (OSError, ValueError) as error:
        pytest.skip(str(error))


@pytest.fixture
def program() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a Python program given as text, in a process of its own; all are killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(source: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", source, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        # Not to their ends: whatever it left running may hold the others of these.
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
