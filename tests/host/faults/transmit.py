"""What is wrong: checks of `millrace.host.checks.transmit`."""

from __future__ import annotations

import dataclasses
from typing import Any

from millrace.host.links import Qdisc

from .register import BAD, INFO, WARN, fault


def qdisc(server: Any, kind: str, drops: int, waiting: int = 0) -> None:
    def one(times: int) -> Qdisc:
        return Qdisc(2, kind, 0x10000, 0xFFFFFFFF, 0, 1000 * times, drops * times, 0, 0, 0, waiting)

    server.set(qdiscs=(one(1),)).later(qdiscs=(one(2),))


@fault("qdisc-drops", BAD, "200 packets dropped in 10.0 s (20/s) by tbf", "tc -s qdisc")
def rate_limit_drops(server: Any) -> None:
    qdisc(server, "tbf", 200)


@fault("qdisc-drops", INFO, "by fq_codel")
def codel_signals(server: Any) -> None:
    qdisc(server, "fq_codel", 5)


@fault("qdisc-backlog", WARN, "500 packets stand in pfifo_fast", "tc qdisc replace")
def queue_before_the_device(server: Any) -> None:
    qdisc(server, "pfifo_fast", 0, waiting=500)


@fault("qdisc-choice", INFO, "before 100 Mbit/s", "root fq_codel")
def bufferbloat(server: Any) -> None:
    server.link(qdisc="pfifo_fast").device(speed=100)


@fault("bql-stall", WARN, "3 stalls")
def stalls(server: Any) -> None:
    (first, *rest) = server.after.transmit_queues
    server.set(transmit_queues=(dataclasses.replace(first, stalls=3), *rest))


@fault("tx-timeouts", BAD, "1 timeouts", "dmesg")
def device_hung(server: Any) -> None:
    (first, *rest) = server.after.transmit_queues
    server.later(transmit_queues=(dataclasses.replace(first, timeouts=1), *rest))


@fault("default-qdisc", INFO, "pfifo_fast", "default_qdisc=fq_codel")
def plain_default(server: Any) -> None:
    server.sysctl(net__core__default_qdisc="pfifo_fast")
