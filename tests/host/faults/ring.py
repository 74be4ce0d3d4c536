"""What is wrong: checks of `millrace.host.checks.ring`."""

from __future__ import annotations

import dataclasses
from typing import Any

from millrace.host.checks import Goal
from millrace.host.ethtool import Channels, Coalescing, Rings

from .register import INFO, WARN, fault


@fault("ring-size", WARN, "frames are lost", "ethtool -G eth0 rx 1024")
def small_ring_loses(server: Any) -> None:
    server.link_counts(rx_missed_errors=10)


@fault("ring-size", INFO, "throughput wants", "ethtool -G eth0 rx 1024", Goal.THROUGHPUT)
def small_ring_for_throughput(server: Any) -> None:
    server.device(rings=Rings(256, 8160, 512, 8160))


@fault("ring-cache", WARN, "8 rings of 8160", "ethtool -G eth0 rx 512", Goal.LATENCY)
def ring_beyond_the_cache(server: Any) -> None:
    server.device(rings=Rings(8160, 8160, 512, 8160))


@fault("coalescing", WARN, "rx-usecs 50", "ethtool -C eth0 rx-usecs 0", Goal.LATENCY)
def interrupts_are_held_back(server: Any) -> None:
    server.device(coalescing=Coalescing(50, None, 50, None, True, True))


@fault("coalescing", WARN, "interrupts/s", "ethtool -C eth0 rx-usecs 32", Goal.THROUGHPUT)
def too_many_interrupts(server: Any) -> None:
    server.device(coalescing=Coalescing(0, None, 0, None, False, False))
    server.later(
        irqs=tuple(
            dataclasses.replace(irq, counts={0: irq.counts[0] + 600_000})
            for irq in server.after.irqs
        )
    )


@fault("channels", WARN, "2 of 16 receive queues", "ethtool -L eth0 combined 8", Goal.THROUGHPUT)
def too_few_queues(server: Any) -> None:
    server.device(channels=Channels(0, 0, 0, 0, 2, 16))


@fault("channels", INFO, "16 of 16 receive queues", "ethtool -L eth0 combined 8")
def more_queues_than_cores(server: Any) -> None:
    server.device(channels=Channels(0, 0, 0, 0, 16, 16))
