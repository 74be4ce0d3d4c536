"""What is wrong: checks of `millrace.host.checks.tcp_settings`."""

from __future__ import annotations

from typing import Any

from millrace.host.checks import Goal

from .register import INFO, WARN, fault


@fault("tcp-features", WARN, "off: tcp_sack", "net.ipv4.tcp_sack=1")
def no_sack(server: Any) -> None:
    server.sysctl(net__ipv4__tcp_sack=0)


@fault("slow-start-after-idle", INFO, "is 1", "after_idle=0", Goal.THROUGHPUT)
def starts_anew(server: Any) -> None:
    server.sysctl(net__ipv4__tcp_slow_start_after_idle=1)


@fault("notsent-lowat", INFO, "no limit", "tcp_notsent_lowat=131072", Goal.LATENCY)
def unsent_without_limit(server: Any) -> None:
    server.sysctl(net__ipv4__tcp_notsent_lowat=4294967295)


@fault("fast-open", INFO, "tcp_fastopen is 1", "tcp_fastopen=3", Goal.LATENCY)
def no_fast_open(server: Any) -> None:
    server.sysctl(net__ipv4__tcp_fastopen=1)


@fault("congestion-control", WARN, "dctcp is the default", "tcp_congestion_control=cubic")
def dctcp_everywhere(server: Any) -> None:
    server.sysctl(net__ipv4__tcp_congestion_control="dctcp")
