"""An ordinary user has labs too, in a user namespace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import millrace

NOBODY = "65534"
# Programs on hosts are started by this interpreter, so it must be able to start itself.
RUNS_ITSELF = """
import millrace.lab, pyroute2, subprocess, sys
subprocess.run([sys.executable, "-c", ""], check=True)
"""
Runner = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def packages() -> Iterator[Path]:
    """Copies of what a lab needs, in a place that everyone may read."""
    import pyroute2

    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for module in (millrace, pyroute2):
            source = Path(module.__file__ or "").parent
            # The native module is left out: a lab must not need it.
            ignored = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(source, Path(folder, source.name), ignore=ignored)
        yield Path(folder)


@pytest.fixture(scope="module")
def nobody(packages: Path) -> Runner:
    """Runs a Python program, given as text, as a user without any capability."""
    prefix: list[str] = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv (util-linux) to become another user")
        prefix = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(packages),
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def run(source: str, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, python, *options, "-c", source],
            env=environment | variables,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=120,
        )

    # The interpreter of this test may lie in root's home.
    version = sysconfig.get_python_version()
    for candidate in (os.path.realpath(sys.executable), f"/usr/bin/python{version}"):
        python = candidate
        try:
            if run(RUNS_ITSELF).returncode == 0:
                break
        except OSError:
            continue
    else:
        pytest.skip(
            f"needs a Python {version} that user {NOBODY} may run, such as /usr/bin/python3"
        )
    allowed = run("from millrace.lab import userns; userns.enter()")
    if allowed.returncode != 0:
        pytest.skip(allowed.stderr.strip().splitlines()[-1])
    return run


PING = """
import os
from millrace.lab import Lab, userns
assert not userns.may_make_networks()
START
with Lab() as lab:
    a, b = lab.host("a"), lab.host("b")
    wire = lab.wire(a, b, queues=2, offloads={"tso": False})
    print(a.run(["ping", "-c", "1", "-W", "5", wire.b.ip]).stdout)
    print(a.call(lambda: os.getuid()), os.listdir("/run/netns"))
print(os.listdir("/run/netns"))
"""


def test_lab_enters_by_itself(nobody: Runner) -> None:
    before = set(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else set()
    result = nobody(PING.replace("START", ""))
    assert result.returncode == 0, result.stderr
    assert "1 received" in result.stdout
    assert ".a'" in result.stdout
    assert result.stdout.endswith("[]\n")
    after = set(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else set()
    assert after <= before  # the machine's own folder is not touched


def test_threads_are_refused_with_advice(nobody: Runner) -> None:
    threads = (
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()"
    )
    result = nobody(PING.replace("START", threads))
    assert result.returncode == 1
    assert "a process with several threads cannot enter a user namespace" in result.stderr


def test_run_again_keeps_program_arguments_and_number(nobody: Runner) -> None:
    source = """
import os, threading
from millrace.lab import Lab, userns
if not userns.may_make_networks():
    print(os.getpid(), flush=True)
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    userns.run_again()
print(os.getpid(), os.environ["KEPT"])
with Lab() as lab:
    print(lab.host("a").run(["echo", "inside"]).stdout)
"""
    result = nobody(source, "-X", "utf8", KEPT="kept")
    assert result.returncode == 0, result.stderr
    before, after, kept, *rest = result.stdout.split()
    assert (before, kept, rest) == (after, "kept", ["inside"])


def test_run_again_does_not_go_round(nobody: Runner) -> None:
    source = "from millrace.lab import userns\nuserns.run_again()"
    result = nobody(source)
    assert result.returncode == 1
    assert "PermissionError" in result.stderr


def test_forbidden_namespaces_say_what_to_do(nobody: Runner) -> None:
    # The limit is one for each user namespace, so one is made to set it in.
    source = """
from pathlib import Path
from millrace.lab import userns
userns.enter()
Path("/proc/sys/user/max_user_namespaces").write_text("0")
userns.enter()
"""
    result = nobody(source)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert "user.max_user_namespaces is 0; set it with sysctl; or run as root" in last
