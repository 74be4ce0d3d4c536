"""Programs and functions run on a host: in its namespace, on their core, with clear errors."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from millrace.lab import CommandFailed, Host, Lab, LabError

pytestmark = pytest.mark.networks


@pytest.fixture
def host(lab: Lab) -> Host:
    return lab.host("host")


def namespace_of(pid: int | str) -> int:
    return os.stat(f"/proc/{pid}/ns/net").st_ino


def wait_until_gone(pid: int) -> None:
    """Wait for the end of a process that is not a child of this one."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    import select

    ready, _, _ = select.select([fd], [], [], 60)
    os.close(fd)
    assert ready, f"process {pid} is still there"


def test_program_is_in_the_namespace(host: Host) -> None:
    process = host.popen(["sleep", "1000"])
    assert namespace_of(process.pid) == host.netns_path.stat().st_ino
    assert namespace_of(process.pid) != namespace_of("self")
    assert process.args == ["sleep", "1000"]


@pytest.mark.parametrize("core", sorted(os.sched_getaffinity(0)))
def test_program_is_pinned(host: Host, core: int) -> None:
    process = host.popen(["sleep", "1000"], core=core)
    assert os.sched_getaffinity(process.pid) == {core}
    code = "import os; print(sorted(os.sched_getaffinity(0)))"
    assert host.run([sys.executable, "-c", code], core=core).stdout == f"[{core}]\n"


def test_program_is_not_pinned_unasked(host: Host) -> None:
    assert os.sched_getaffinity(host.popen(["sleep", "1000"]).pid) == os.sched_getaffinity(0)


def test_env_is_added(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "kept")
    result = host.run(["sh", "-c", "echo $KEPT $ADDED"], env={"ADDED": "added"})
    assert result.stdout == "kept added\n"


def test_input_and_working_directory(host: Host, tmp_path: Path) -> None:
    assert host.run(["cat"], input="text").stdout == "text"
    assert host.run(["cat"]).stdout == ""  # standard input is not the terminal
    assert host.run(["pwd"], cwd=tmp_path).stdout == f"{tmp_path}\n"


def test_signals_are_as_a_program_expects(host: Host) -> None:
    ignored = host.run(["grep", "SigIgn", "/proc/self/status"]).stdout.split()[1]
    assert int(ignored, 16) >> (signal.SIGPIPE - 1) & 1 == 0


def test_no_descriptor_leaks_into_programs(host: Host) -> None:
    assert host.run(["sh", "-c", "ls /proc/$$/fd"]).stdout.split() == ["0", "1", "2"]


def test_missing_program(host: Host) -> None:
    with pytest.raises(LabError, match="cannot run nosuch -x on host host: nosuch is not inst"):
        host.popen(["nosuch", "-x"])
    with pytest.raises(LabError, match="no program given"):
        host.popen([])


def test_missing_core(host: Host) -> None:
    have = re.escape(str(sorted(os.sched_getaffinity(0))))
    with pytest.raises(LabError, match=f"core 1000 cannot be used; this process may run on {have}"):
        host.popen(["true"], core=1000)


def test_failure_tells_what_the_program_said(host: Host) -> None:
    with pytest.raises(CommandFailed, match="ended with status 3: no good") as raised:
        host.run(["sh", "-c", "echo no good >&2; exit 3"])
    assert raised.value.status == 3
    assert raised.value.stderr == "no good\n"
    with pytest.raises(CommandFailed, match="ended by signal 9"):
        host.run(["sh", "-c", "kill -9 $$"])
    assert host.run(["false"], check=False).returncode == 1


def test_time_limit_kills_what_was_started_too(host: Host) -> None:
    with pytest.raises(CommandFailed, match="within its time limit: begun") as raised:
        host.run(["sh", "-c", "echo begun; sleep 1000 & sleep 1000"], timeout=0.5)
    assert raised.value.status is None
    assert host.run(["sh", "-c", "echo still works"]).stdout == "still works\n"


def test_program_of_a_thread_outlives_the_thread(host: Host) -> None:
    started: list[subprocess.Popen[bytes]] = []
    thread = threading.Thread(target=lambda: started.append(host.popen(["sleep", "1000"])))
    thread.start()
    thread.join()
    # The parent-death signal is sent before the thread is seen to have ended.
    assert host.run(["true"]).returncode == 0
    assert started[0].poll() is None


def test_call(host: Host) -> None:
    offset = 1

    def add(number: int) -> tuple[int, int, int]:
        return number + offset, os.getpid(), namespace_of("thread-self")

    total, pid, namespace = host.call(add, 41)
    assert total == 42
    assert pid != os.getpid()
    assert namespace == host.netns_path.stat().st_ino
    core = max(os.sched_getaffinity(0))
    assert host.call(os.sched_getaffinity, 0, core=core) == {core}


def test_call_gives_more_than_a_pipe_holds(host: Host) -> None:
    assert host.call(bytes, 1 << 22) == bytes(1 << 22)


def test_call_raises_what_was_raised(host: Host) -> None:
    def fail() -> None:
        raise FileNotFoundError(2, "none", "file")

    with pytest.raises(FileNotFoundError, match="none") as raised:
        host.call(fail)
    assert "in fail" in raised.value.__notes__[0]

    class Odd(Exception):  # local, so it cannot be pickled
        pass

    def fail_oddly() -> None:
        raise Odd("odd")

    with pytest.raises(LabError, match="Odd: odd"):
        host.call(fail_oddly)
    with pytest.raises(LabError, match="a result of type function cannot be brought back"):
        host.call(lambda: lambda: None)


def test_call_that_does_not_return(host: Host) -> None:
    def sleeps() -> None:
        threading.Event().wait()

    with pytest.raises(LabError, match=r"sleeps on host host did not return within 0\.2 s"):
        host.call(sleeps, timeout=0.2)
    with pytest.raises(LabError, match="ended its process with status 7"):
        host.call(os._exit, 7)
    with pytest.raises(LabError, match="ended its process with status -9"):
        host.call(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_enter_moves_one_thread_and_comes_back(host: Host, lab: Lab) -> None:
    other = lab.host("other")
    outside = namespace_of("thread-self")
    seen: list[int] = []
    barrier = threading.Barrier(2)

    def watch() -> None:
        barrier.wait()
        seen.append(namespace_of("thread-self"))
        barrier.wait()

    thread = threading.Thread(target=watch)
    thread.start()
    with host.enter():
        inside = namespace_of("thread-self")
        with other.enter():
            assert namespace_of("thread-self") == other.netns_path.stat().st_ino
        assert namespace_of("thread-self") == inside == host.netns_path.stat().st_ino
        barrier.wait()
        barrier.wait()
    thread.join()
    assert seen == [outside]
    assert namespace_of("thread-self") == outside
    with pytest.raises(KeyError), host.enter():
        raise KeyError
    assert namespace_of("thread-self") == outside


def test_sockets_keep_their_host(host: Host) -> None:
    with host.enter():
        listener = socket.create_server(("127.0.0.1", 8080))
    with listener:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", 8080))
        with host.enter():
            socket.create_connection(("127.0.0.1", 8080)).close()


def test_sysctl(host: Host) -> None:
    before = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    assert host.sysctl("net.ipv4.ip_forward", 1) == "1"
    assert host.sysctl("net/ipv4/ip_forward") == "1"
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == before
    with pytest.raises(LabError, match="cannot be read: No such file"):
        host.sysctl("net.ipv4.nosuch")
    with pytest.raises(LabError, match="cannot be set to x: Invalid argument"):
        host.sysctl("net.ipv4.ip_forward", "x")
    for key in ("kernel.hostname", "net/../kernel/hostname"):
        with pytest.raises(LabError, match="no setting of a host's own"):
            host.sysctl(key)


def test_neighbour_flush(host: Host, lab: Lab) -> None:
    wire = lab.wire(host, lab.host("other"))
    host.run(["ping", "-c", "1", "-W", "5", wire.b.ip])
    fixed = "192.0.2.77 dev eth0 lladdr 02:00:00:00:00:77 PERMANENT"
    host.run(["ip", "neigh", "add", *fixed.replace("PERMANENT", "nud permanent").split()])
    assert wire.b.mac in host.run(["ip", "neigh"]).stdout
    host.neighbour_flush()
    # What is in use lingers as FAILED, without an address.
    left = host.run(["ip", "neigh"]).stdout
    assert wire.b.mac not in left
    assert fixed in left
    host.run(["ping", "-c", "1", "-W", "5", wire.b.ip])


def test_stop_ends_grandchildren(host: Host) -> None:
    stubborn = "trap '' TERM; sleep 1000 & echo $!; wait"
    process = host.popen(["sh", "-c", stubborn], stdout=subprocess.PIPE, text=True)
    grandchild = int(process.stdout.readline())
    host.stop(seconds=0.1)
    assert process.returncode == -signal.SIGKILL
    wait_until_gone(grandchild)
    process.stdout.close()


def test_host_that_is_gone(lab: Lab) -> None:
    host = lab.host("host")
    lab.close()
    with pytest.raises(LabError, match="host is gone: its lab was torn down"), host.enter():
        pass
    with pytest.raises(LabError, match="host is gone: its lab was torn down"):
        host.popen(["true"])


@pytest.mark.parametrize("core", [-1, 1000, 1 << 40, 1 << 70, 1.5])
def test_a_core_that_no_machine_has(host: Host, core: Any) -> None:
    said = rf"core {core} cannot be used; this process may run on \["
    with pytest.raises(LabError, match=said):
        host.popen(["true"], core=core)
    with pytest.raises(LabError, match=said):
        host.call(os.getpid, core=core)
