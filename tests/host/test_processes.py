"""Who owns a socket, and the kernel's own threads."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

import pytest

from millrace.host.access import Access
from millrace.host.processes import (
    owners,
    read_kernel_threads,
    read_processes,
    read_services,
)
from millrace.lab import Lab


@pytest.mark.networks
def test_owner_of_a_socket(lab: Lab) -> None:
    host = lab.host("a")

    def look() -> tuple[int, Any]:
        with socket.create_server(("127.0.0.1", 80)) as listener, Access() as access:
            os.sched_setaffinity(0, {0})
            inode = os.fstat(listener.fileno()).st_ino
            return os.getpid(), owners(read_processes(access)).get(inode)

    pid, process = host.call(look)
    assert process.pid == pid
    assert process.files > 3
    (thread,) = process.threads
    assert (thread.tid, thread.allowed, thread.cpu, thread.policy) == (pid, (0,), 0, "other")


LISTEN = """
import socket
with socket.create_server(("127.0.0.1", 80)) as listener:
    print("ready", flush=True)
    listener.accept()
"""


@pytest.mark.networks
def test_only_this_namespace(lab: Lab) -> None:
    busy, quiet = lab.host("busy"), lab.host("quiet")
    server = busy.popen([sys.executable, "-c", LISTEN], stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "ready\n"
    with busy.enter(), Access() as access:
        assert server.pid in [one.pid for one in read_processes(access)]
    with quiet.enter(), Access() as access:
        assert server.pid not in [one.pid for one in read_processes(access)]
    server.kill()
    server.communicate()


def test_kernel_threads() -> None:
    with Access() as access:
        names = {thread.name for thread in read_kernel_threads(access)}
    assert {f"ksoftirqd/{cpu}" for cpu in os.sched_getaffinity(0)} <= names


def test_a_name_with_parentheses_and_a_service(tree: Any) -> None:
    # Of proc_pid_stat(5): 3, 4 to 13, 14 and 15 (time), 16 to 38, 39 (CPU), 40, 41 (policy).
    rest = " ".join(["S", *["9"] * 10, "200", "100", *["0"] * 23, "3", "0", "1"])
    root = tree(
        {
            "/proc/7/comm": "irqbalance",
            "/proc/7/stat": f"7 (irqbalance) {rest}",
            "/proc/8/comm": "napi/eth0-5",
            "/proc/8/task/8/stat": f"8 (napi/(e) th-5) {rest}",
            "/proc/8/task/8/status": "Name:\tnapi\nCpus_allowed_list:\t0-1\nx:\t9\n",
            "/proc/8/task/8/sched": "nr_migrations   :   12\n",
        }
    )
    with Access(root) as access:
        (thread,) = read_kernel_threads(access)
        assert read_services(access) == {"irqbalance": 7}
    assert (thread.name, thread.seconds, thread.cpu) == ("napi/(e) th-5", 3.0, 3)
    assert (thread.policy, thread.allowed, thread.migrations) == ("fifo", (0, 1), 12)
