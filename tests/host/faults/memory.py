"""What is wrong: checks of `millrace.host.checks.memory`."""

from __future__ import annotations

import dataclasses
from typing import Any

from millrace.host.checks import Goal
from millrace.host.memory import Hugepages
from millrace.host.platform import Privileges

from .own import channel
from .register import INFO, WARN, fault


@fault("hugepages", WARN, "0 of 0 pages", "nr_hugepages", Goal.THROUGHPUT)
def no_hugepages(server: Any) -> None:
    server.memory(hugepages=(Hugepages(-1, 2 << 20, 0, 0),))


@fault("hugepages", WARN, "a channel runs without", "echo 32 >")
def a_channel_without_hugepages(server: Any) -> None:
    channel(server)
    server.memory(hugepages=(Hugepages(-1, 2 << 20, 0, 0),))


@fault("hugepages-node", WARN, "hugepages on node [1], the card on node [0]", "node0/hugepages")
def hugepages_on_the_far_node(server: Any) -> None:
    server.memory(
        hugepages=(Hugepages(-1, 2 << 20, 64, 64), Hugepages(1, 2 << 20, 64, 64)),
    )


@fault("transparent-hugepages", WARN, "always made", "echo madvise", Goal.LATENCY)
def pages_are_joined(server: Any) -> None:
    server.memory(transparent_hugepages="always")


@fault("swap", INFO, "3,072 of 4,096 MiB", "vm.swappiness=10")
def swapped_out(server: Any) -> None:
    server.memory(swap_free=1 << 30)


@fault("locked-memory", INFO, "64 KiB may be locked", "ulimit -l")
def little_may_be_locked(server: Any) -> None:
    server.set(privileges=Privileges(1000, (), 65_536, 1024))


@fault("open-files", WARN, "nginx[812] has 1,000 of 1,024 files open", "prlimit --pid 812")
def files_run_out(server: Any) -> None:
    (process,) = server.after.processes
    server.set(processes=(dataclasses.replace(process, files=1000, files_limit=1024),))
