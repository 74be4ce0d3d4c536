"""What is wrong: checks of `millrace.host.checks.tcp`."""

from __future__ import annotations

import dataclasses
from typing import Any

from millrace.host.sockets import TimeWait

from .register import BAD, INFO, WARN, fault


@fault("tcp-memory-drops", BAD, "RcvPruned 12")
def data_is_pruned(server: Any) -> None:
    server.counters(TcpExtRcvPruned=12, TcpExtPruneCalled=30)


@fault("tcp-memory-drops", WARN, "PruneCalled 30", "net.ipv4.tcp_rmem=")
def memory_is_short(server: Any) -> None:
    server.sysctl(net__ipv4__tcp_rmem="4096 131072 6291456").counters(TcpExtPruneCalled=30)


@fault("tcp-backlog-drops", WARN, "70 segments dropped", "net.ipv4.tcp_rmem=")
def socket_is_locked(server: Any) -> None:
    server.counters(TcpExtTCPBacklogDrop=70)


@fault("zero-window", WARN, "9 windows closed")
def windows_close(server: Any) -> None:
    server.counters(TcpExtTCPToZeroWindowAdv=9)


@fault("tcp-pool", BAD, "TCP holds 1,200,000 pages", "net.ipv4.tcp_mem=")
def tcp_holds_too_much(server: Any) -> None:
    server.set(sockstat={**server.after.sockstat, "TCP.mem": 1_200_000})


@fault("retransmissions", BAD, "5,000 segments sent again", "")
def path_loses(server: Any) -> None:
    server.counters(TcpRetransSegs=5000, TcpExtTCPTimeouts=50)


@fault("retransmissions", WARN, "1.50% of 100,000")
def path_loses_a_little(server: Any) -> None:
    server.counters(TcpRetransSegs=1500)


@fault("syn-retransmissions", WARN, "waiting for 198.51.100.9:443")
def nobody_answers(server: Any, make_socket: Any) -> None:
    server.counters(TcpExtTCPSynRetrans=5)
    server.sockets(
        make_socket(7, state="syn-sent", remote="198.51.100.9", remote_port=443, info=None)
    )


def busy(server: Any, make_socket: Any, **limits: int) -> None:
    one = make_socket(7)
    server.sockets(one)
    info = dataclasses.replace(one.info, busy_time=8_000_000, **limits)
    server.later(
        sockets=tuple(
            dataclasses.replace(old, info=info) if old.cookie == 7 else old
            for old in server.after.sockets
        )
    )


@fault("tcp-limited", INFO, "50% of its busy time the peer's window was full")
def peer_is_slow(server: Any, make_socket: Any) -> None:
    busy(server, make_socket, rwnd_limited=4_000_000)


@fault("tcp-limited", WARN, "our send buffer was full", "net.ipv4.tcp_wmem=")
def send_buffer_is_small(server: Any, make_socket: Any) -> None:
    busy(server, make_socket, sndbuf_limited=4_000_000)


@fault("tcp-buffers", WARN, "net.ipv4.tcp_rmem allows 1,000,000", "net.ipv4.tcp_rmem=")
def long_fat_path(server: Any, make_socket: Any) -> None:
    server.sysctl(net__ipv4__tcp_rmem="4096 131072 1000000")
    one = make_socket(7)
    info = dataclasses.replace(one.info, delivery_rate=100_000_000, min_rtt=80_000)
    server.sockets(dataclasses.replace(one, info=info))


@fault("time-wait", WARN, "40 dropped early", "tcp_max_tw_buckets=")
def time_wait_overflows(server: Any) -> None:
    server.counters(TcpExtTCPTimeWaitOverflow=40)


@fault("time-wait", WARN, "20,000 of 28,232 ports", "net.ipv4.tcp_tw_reuse=1")
def ports_are_held(server: Any) -> None:
    server.set(time_waits=(TimeWait("198.51.100.9", 5432, 20_000),))


@fault("local-ports", WARN, "ports 32768 to 33767", "ip_local_port_range=1024 65535")
def few_ports(server: Any) -> None:
    server.sysctl(net__ipv4__ip_local_port_range="32768 33767")


@fault("local-ports", BAD, "at most 9 to one peer", "ip_local_port_range=1024 65535")
def ports_are_used_up(server: Any, make_socket: Any) -> None:
    server.sysctl(net__ipv4__ip_local_port_range="32768 32777")
    server.sockets(*(make_socket(20 + n, local_port=32768 + n, remote_port=443) for n in range(9)))


@fault("orphans", WARN, "200,000 of 262,144 orphans", "tcp_fin_timeout=15")
def many_orphans(server: Any) -> None:
    server.set(sockstat={**server.after.sockstat, "TCP.orphan": 200_000})
