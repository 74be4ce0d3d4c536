"""What is wrong: checks of `millrace.host.checks.sockets`."""

from __future__ import annotations

import dataclasses
from typing import Any

from .register import BAD, INFO, WARN, fault


@fault("udp-receive-buffer", BAD, "200 datagrams dropped", "net.core.rmem_max=8388608")
def reader_is_slow(server: Any) -> None:
    server.counters(UdpRcvbufErrors=200, UdpInDatagrams=800)


@fault("udp-memory", BAD, "15 datagrams dropped", "sysctl net.ipv4.udp_mem")
def udp_is_out_of_memory(server: Any) -> None:
    server.counters(UdpMemErrors=15)


@fault("udp-send-buffer", WARN, "15 datagrams not sent")
def sender_is_too_fast(server: Any) -> None:
    server.counters(UdpSndbufErrors=15)


@fault("checksum-errors", BAD, "TcpInCsumErrors 4, UdpInCsumErrors 5")
def damaged_on_the_way(server: Any) -> None:
    server.counters(TcpInCsumErrors=4, UdpInCsumErrors=5)


@fault("udp-no-port", WARN, "90 datagrams for nobody", "tcpdump")
def service_is_down(server: Any) -> None:
    server.counters(UdpNoPorts=90)


@fault("tcp-refused", WARN, "120 resets sent", "tcpdump")
def tcp_service_is_down(server: Any) -> None:
    server.counters(TcpOutRsts=120)


def with_drops(make_socket: Any, server: Any, drops: int, **changes: Any) -> None:
    one = make_socket(7, protocol="udp", state="", info=None, inode=502, **changes)
    server.sockets(one)
    lossy = dataclasses.replace(one, memory=dataclasses.replace(one.memory, drops=drops))
    server.later(sockets=tuple(lossy if old.cookie == 7 else old for old in server.after.sockets))


@fault("socket-drops", BAD, "66 packets dropped in 10.0 s (6.6/s) at nginx[812]")
def this_socket_drops(server: Any, make_socket: Any) -> None:
    with_drops(make_socket, server, 66)


@fault("socket-buffer-limit", WARN, "that rmem_max allows", "net.core.rmem_max=4194304")
def buffer_was_cut(server: Any, make_socket: Any) -> None:
    memory = dataclasses.replace(make_socket().memory, receive_limit=2 * 212_992)
    server.sysctl(net__core__rmem_max=212_992)
    with_drops(make_socket, server, 66, memory=memory)


@fault("receive-queue-standing", WARN, "nginx[812] left 60,000 bytes unread")
def nobody_reads(server: Any, make_socket: Any) -> None:
    server.sockets(make_socket(7, inode=502, receive_queue=60_000))


@fault("close-wait", WARN, "12 connections in CLOSE-WAIT: nginx[812]")
def sockets_leak(server: Any, make_socket: Any) -> None:
    server.sockets(*(make_socket(n, inode=502, state="close-wait") for n in range(20, 32)))


@fault("packet-sockets", BAD, "66 packets dropped|frames dropped")
def capture_loses(server: Any, make_socket: Any) -> None:
    with_drops(make_socket, server, 66)
    for which in (server.before, server.after):
        sockets = tuple(
            dataclasses.replace(one, protocol="packet") if one.cookie == 7 else one
            for one in which.sockets
        )
        (server.set if which is server.before else server.later)(sockets=sockets)
    before = tuple(
        dataclasses.replace(one, memory=dataclasses.replace(one.memory, drops=0))
        for one in server.after.sockets
    )
    server.before = dataclasses.replace(server.before, sockets=before)


@fault("packet-sockets", INFO, "5 packet sockets look at the frames of every interface")
def many_captures(server: Any, make_socket: Any) -> None:
    server.sockets(*(make_socket(n, protocol="packet", info=None) for n in range(20, 25)))


def many_threads(server: Any, count: int) -> None:
    (process,) = server.after.processes
    threads = tuple(dataclasses.replace(process.threads[0], tid=900 + n) for n in range(count))
    server.set(processes=(dataclasses.replace(process, threads=threads),))


@fault("single-listener", INFO, "nginx[812] has one listener for 8 threads")
def one_listener_for_all(server: Any) -> None:
    many_threads(server, 8)
    server.counters(TcpPassiveOpens=50_000)


@fault("flow-locality", INFO, "nginx[812] run on other CPUs")
def read_elsewhere(server: Any) -> None:
    server.softirqs("NET_RX", cpu0=100_000, cpu1=100_000)
    server.thread(share=0.5, allowed=(6,), cpu=6)
