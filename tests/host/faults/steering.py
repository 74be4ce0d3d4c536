"""What is wrong: checks of `millrace.host.checks.steering`."""

from __future__ import annotations

import dataclasses
from typing import Any

from millrace.host.ethtool import Rss
from millrace.host.queues import ReceiveQueue

from .register import BAD, INFO, WARN, fault


@fault("rss-balance", WARN, "queue 5 took 70%", "rx-flow-hash udp4 sdfn")
def one_queue_takes_all(server: Any) -> None:
    server.queue_packets(*[5000] * 5, 82_000, 5000, 5000)


@fault("rss-table", WARN, "nothing goes to queue 1-7", "ethtool -X eth0 equal 8")
def table_leaves_queues_out(server: Any) -> None:
    server.device(rss=Rss(1, (0,) * 128, "6d5a"))


@fault("rss-table", WARN, "unevenly", "ethtool -X eth0 equal 8")
def table_is_uneven(server: Any) -> None:
    server.device(rss=Rss(1, tuple(range(8)) * 8 + (0,) * 64, "6d5a"))


def one_queue(server: Any) -> None:
    server.set(receive_queues=(ReceiveQueue("eth0", 0, (), 0),))


@fault("rps-single-queue", WARN, "1 queue(s) for 8 CPUs", "rx-0/rps_cpus")
def one_cpu_receives(server: Any) -> None:
    one_queue(server)
    server.softirqs("NET_RX", cpu0=100_000)
    server.times(0, softirq=0.6)


@fault("rps-one-cpu", WARN, "goes to CPU 3 alone", "echo ff > /sys/class/net/eth0/queues")
def rps_to_one_cpu(server: Any) -> None:
    server.set(receive_queues=(ReceiveQueue("eth0", 0, (3,), 0),))


@fault("rps-redundant", WARN, "8 receive queues for 8 CPUs", "echo 0 > /sys/class/net/eth0")
def rps_and_rss(server: Any) -> None:
    server.receive_queues(rps_cpus=(0, 1, 2, 3))


@fault("rfs", WARN, "rps_sock_flow_entries is 0", "sysctl -w net.core.rps_sock_flow_entries=32768")
def half_of_rfs(server: Any) -> None:
    server.receive_queues(rps_flow_count=4096)


@fault("rfs", WARN, "rps_flow_cnt of eth0 is 0", "echo 4096 > /sys/class/net/eth0/queues/rx-0")
def other_half_of_rfs(server: Any) -> None:
    server.receive_queues(rps_cpus=(0, 1)).sysctl(net__core__rps_sock_flow_entries=32768)


@fault("arfs", WARN, "ntuple is off", "ethtool -K eth0 rx-ntuple-filter on")
def rfs_that_hardware_could_do(server: Any) -> None:
    server.receive_queues(rps_flow_count=4096)


@fault("xps", INFO, "no CPU has its own", "tx-1/xps_cpus")
def no_xps(server: Any) -> None:
    server.set(
        transmit_queues=tuple(
            dataclasses.replace(one, xps_cpus=()) for one in server.after.transmit_queues
        )
    )


@fault("softirq-balance", BAD, "CPU 2 spends 70%", "millrace tune")
def one_cpu_in_softirqs(server: Any) -> None:
    server.times(2, softirq=0.7)
