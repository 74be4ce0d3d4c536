"""Nothing stays behind, however the process ends."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable

import pytest

from millrace.lab import Lab, LabError, leftovers

pytestmark = pytest.mark.networks

Program = Callable[..., subprocess.Popen[str]]

# Prints its namespaces and the numbers of two programs in one, then behaves as `END` says.
SOURCE = """
import os, signal, sys, time
from millrace.lab import Lab
def wait():
    print("waiting", flush=True)
    time.sleep(1000)
# Under nohup it is ignored, which a lab leaves as it is.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
lab = Lab()
a, b = lab.host("a"), lab.host("b")
lab.wire(a, b)
inner = a.popen(["sh", "-c", "sleep 1000 & echo $!; exec >&-; wait"], stdout=-1, text=True)
print(a.netns, b.netns, inner.pid, inner.stdout.readline().strip(), flush=True)
END
"""


def begin(program: Program, end: str) -> tuple[subprocess.Popen[str], list[str], list[int]]:
    process = program(SOURCE.replace("END", end))
    a, b, *pids = process.stdout.readline().split()
    assert {a, b} <= names()
    if end.endswith("wait()"):
        assert process.stdout.readline() == "waiting\n"
    return process, [a, b], [int(pid) for pid in pids]


def names() -> set[str]:
    folder = leftovers.NETNS_FOLDER
    return set(os.listdir(folder)) if folder.is_dir() else set()


def is_running(pid: int) -> bool:
    return leftovers.start_time(pid) is not None


def check_nothing_left(netns: list[str], pids: list[int]) -> None:
    assert not set(netns) & names()
    assert not [pid for pid in pids if is_running(pid)]


def test_end_of_block(lab: Lab) -> None:
    host = lab.host("a")
    process = host.popen(["sleep", "1000"])
    netns = host.netns
    assert netns in names()
    lab.close()
    check_nothing_left([netns], [process.pid])
    lab.close()
    with pytest.raises(LabError, match="was torn down"):
        lab.host("b")


def test_exception() -> None:
    made: list[str] = []

    def fail() -> None:
        with Lab() as lab:
            made.append(lab.host("a").netns)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert len(made) == 1
    check_nothing_left(made, [])


def test_process_that_does_not_close(program: Program) -> None:
    process, netns, pids = begin(program, "sys.exit(3)")
    assert process.wait(60) == 3
    check_nothing_left(netns, pids)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal(program: Program, number: signal.Signals) -> None:
    process, netns, pids = begin(program, "wait()")
    process.send_signal(number)
    assert process.wait(60) == -number
    check_nothing_left(netns, pids)


def test_signal_inside_a_host(program: Program) -> None:
    process, netns, pids = begin(program, "with a.enter(): wait()")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM
    check_nothing_left(netns, pids)


def test_keyboard_interrupt(program: Program) -> None:
    process, netns, pids = begin(program, "with lab: wait()")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    assert "KeyboardInterrupt" in process.stderr.read()
    check_nothing_left(netns, pids)


def test_handler_of_the_program_is_left_alone(program: Program) -> None:
    end = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); wait()"
    process, netns, pids = begin(program, end)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 5
    check_nothing_left(netns, pids)


def test_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Lab(), Lab():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_kill_is_mended_by_the_next_lab(program: Program) -> None:
    process, netns, pids = begin(program, "wait()")
    process.kill()
    process.wait(60)
    assert set(netns) <= names()  # nobody could do it before
    assert is_running(pids[1])  # a grandchild; the child itself was killed with its parent
    with Lab() as lab:
        assert lab.host("a").netns in names()
        check_nothing_left(netns, pids)


def test_forked_child_leaves_its_parents_lab(program: Program) -> None:
    end = """
pid = os.fork()
if pid == 0:
    sys.exit(0)
os.waitpid(pid, 0)
pid = os.fork()
if pid == 0:
    with Lab() as own:
        own.host("a")
    os.kill(os.getpid(), signal.SIGTERM)
os.waitpid(pid, 0)
print(a.run(["echo", "works"]).stdout, flush=True)
lab.close()
"""
    process, netns, pids = begin(program, end)
    assert process.stdout.readline() == "works\n"
    assert process.wait(60) == 0, process.stderr.read()
    check_nothing_left(netns, pids)


def test_live_labs_of_others_stay(program: Program) -> None:
    process, netns, pids = begin(program, "wait()")
    with Lab() as lab:
        lab.host("a")
        assert set(netns) <= names()
    assert set(netns) <= names()
    assert all(is_running(pid) for pid in pids)
    process.terminate()
    process.wait(60)
    check_nothing_left(netns, pids)


def test_namespaces_of_others_stay(lab: Lab) -> None:
    lab.host("bystander")
    name = "mr-not-ours"
    path = leftovers.NETNS_FOLDER / name
    path.touch()
    try:
        leftovers.remove_leftovers()
        assert path.exists()
    finally:
        path.unlink()


def test_name_without_a_mount_is_removed(lab: Lab) -> None:
    lab.host("bystander")
    path = leftovers.NETNS_FOLDER / "mr-1-zzzzzzzz-lab0.half"
    path.touch()
    assert path.name in leftovers.remove_leftovers()
    assert not path.exists()


def test_a_namespace_that_ip_makes_meanwhile_hides_none(program: Program) -> None:
    source = """
import os
import subprocess

from millrace.lab import Lab, syscalls

# As on a machine where nobody has used `ip netns` yet.
syscalls.unshare(syscalls.CLONE_NEWNS)
syscalls.mount("none", "/", "none", syscalls.MS_REC | syscalls.MS_PRIVATE)
syscalls.mount("none", "/run", "tmpfs", 0)
with Lab() as lab:
    lab.host("a")
    subprocess.run(["ip", "netns", "add", "other"], check=True)
with Lab() as lab:
    lab.host("a")
print(os.listdir("/run/netns"))
"""
    out, complaint = program(source).communicate()
    assert (out, complaint) == ("['other']\n", "")
