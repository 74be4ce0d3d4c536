"""What is wrong: checks of `millrace.host.checks.softnet`."""

from __future__ import annotations

import dataclasses
from typing import Any

from millrace.host.checks import Goal
from millrace.host.processes import Thread

from .register import BAD, INFO, WARN, fault


@fault("softnet-drops", BAD, "3,000 packets dropped", "net.core.netdev_max_backlog=2000")
def backlog_overflows(server: Any) -> None:
    server.softnet(1, dropped=3000)


@fault("time-squeeze", WARN, "40 rounds cut short", "net.core.netdev_budget=600")
def budget_is_short(server: Any) -> None:
    server.softnet(0, squeezed=40)


@fault("flow-limit", INFO, "70 packets of the largest flows")
def elephant(server: Any) -> None:
    server.softnet(0, flow_limit=70)


@fault("backlog-standing", BAD, "900 packets wait on CPU 4")
def backlog_stands(server: Any) -> None:
    rows = tuple(
        dataclasses.replace(row, backlog=900 if row.cpu == 4 else 0)
        for row in server.before.softnet
    )
    server.set(softnet=rows)


@fault("ksoftirqd", WARN, "ksoftirqd of CPU 2 used 40%")
def ksoftirqd_is_busy(server: Any) -> None:
    threads = tuple(
        dataclasses.replace(one, seconds=one.seconds + 4.0 * (one.name == "ksoftirqd/2"))
        for one in server.after.kernel_threads
    )
    server.later(kernel_threads=threads)


@fault("softirq-livelock", BAD, "CPU 1 spent 95%")
def livelock(server: Any) -> None:
    server.times(1, softirq=0.95)


@fault("threaded-napi", WARN, "1 NAPI threads of eth0", "taskset -pc 0 77")
def loose_napi_thread(server: Any) -> None:
    napi = dataclasses.replace(server.after.napis[0], pid=77, threaded=True)
    thread = Thread(77, 77, "napi/eth0-100", tuple(range(8)), 0, 1.0, 0, 0, "other")
    server.set(napis=(napi,), kernel_threads=(*server.after.kernel_threads, thread))


@fault("busy-poll", WARN, "busy_read 0", "sysctl -w net.core.busy_read=50", Goal.LATENCY)
def nobody_polls(server: Any) -> None:
    server.sysctl(net__core__busy_read=0)
