"""What is wrong: checks of `millrace.host.checks.accept`."""

from __future__ import annotations

from typing import Any

from .register import BAD, INFO, WARN, fault


@fault("accept-overflow", BAD, "100 connections lost")
def accept_is_slow(server: Any) -> None:
    server.counters(TcpExtListenOverflows=100, TcpExtListenDrops=100)


@fault("accept-overflow", WARN, "128 of 128", "net.core.somaxconn=4096")
def queue_was_cut(server: Any, make_socket: Any) -> None:
    server.sysctl(net__core__somaxconn=128)
    server.sockets(make_socket(7, state="listen", receive_queue=128, send_queue=128, info=None))
    server.counters(TcpExtListenOverflows=9, TcpExtListenDrops=9)


@fault("accept-queue", WARN, "3,000|3000 of 4096 wait")
def queue_stands(server: Any, make_socket: Any) -> None:
    server.sockets(make_socket(7, state="listen", receive_queue=3000, send_queue=4096, info=None))


@fault("listen-backlog", INFO, "backlog 5")
def short_backlog(server: Any, make_socket: Any) -> None:
    server.sockets(make_socket(7, state="listen", send_queue=5, info=None))


@fault("syn-flood", WARN, "5,000 SYNs answered by cookie", "tcp_max_syn_backlog")
def flood_with_cookies(server: Any) -> None:
    server.counters(TcpExtTCPReqQFullDoCookies=5000)


@fault("syn-flood", BAD, "5,000 SYNs dropped", "net.ipv4.tcp_syncookies=1")
def flood_without_cookies(server: Any) -> None:
    server.sysctl(net__ipv4__tcp_syncookies=0).counters(TcpExtTCPReqQFullDrop=5000)


@fault("syncookies-off", WARN, "tcp_syncookies is 0", "net.ipv4.tcp_syncookies=1")
def no_cookies(server: Any) -> None:
    server.sysctl(net__ipv4__tcp_syncookies=0)


@fault("abort-on-overflow", WARN, "tcp_abort_on_overflow is 1", "tcp_abort_on_overflow=0")
def aborts(server: Any) -> None:
    server.sysctl(net__ipv4__tcp_abort_on_overflow=1)
