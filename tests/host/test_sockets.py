"""Sockets of a host, their memory, drops and tcp_info."""

from __future__ import annotations

import socket
import struct

import pytest

from millrace.host import tcp_info
from millrace.host.access import Access
from millrace.host.sockets import listeners, read_sockets, read_time_waits
from millrace.lab import Lab

pytestmark = pytest.mark.networks


def test_connections_and_listeners(lab: Lab) -> None:
    host = lab.host("a")
    with host.enter(), Access() as access, socket.create_server(("127.0.0.1", 80)) as listener:
        client = socket.create_connection(("127.0.0.1", 80))
        server, _ = listener.accept()
        waiting = socket.create_connection(("127.0.0.1", 80))
        with client, server, waiting:
            client.sendall(b"x" * 1000)
            while len(server.recv(2000, socket.MSG_PEEK)) < 1000:
                pass
            found = read_sockets(access)
            told = tcp_info.parse(server.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 512))
            port = client.getsockname()[1]
    (listening,) = listeners(found)
    assert (listening.local, listening.local_port) == ("127.0.0.1", 80)
    assert listening.receive_queue == 1  # `waiting` was not accepted
    assert listening.info is None
    assert listening.name == "tcp 127.0.0.1:80"
    (here,) = [one for one in found if one.remote_port == port]
    assert (here.state, here.receive_queue, here.local_port) == ("established", 1000, 80)
    assert here.memory is not None
    assert here.memory.receive >= 1000
    assert here.memory.receive_limit > 0
    assert here.info is not None
    assert (here.info.bytes_received, here.info.rcv_wscale) == (1000, told.rcv_wscale)
    assert here.info.snd_mss == told.snd_mss
    assert here.congestion
    assert here.name == f"tcp 127.0.0.1:80 to 127.0.0.1:{port}"


def test_ipv6_and_its_names() -> None:
    with Lab(ipv6=True) as lab, lab.host("a").enter(), Access() as access:
        handle = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        with handle:
            handle.bind(("::1", 53))
            (found,) = [one for one in read_sockets(access) if one.protocol == "udp"]
    assert (found.family, found.name, found.state) == (6, "udp [::1]:53", "")


def test_datagrams_that_found_no_room(lab: Lab) -> None:
    with lab.host("a").enter(), Access() as access:
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with receiver, sender:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            receiver.bind(("127.0.0.1", 5000))
            for _ in range(50):
                sender.sendto(bytes(1000), ("127.0.0.1", 5000))
            (found,) = [one for one in read_sockets(access) if one.local_port == 5000]
    assert 0 < found.drops < 50
    assert found.memory is not None
    assert found.memory.receive_limit < 10_000


def test_packet_sockets(lab: Lab) -> None:
    host = lab.host("a")
    wire = lab.wire(host, lab.host("b"))
    with host.enter(), Access() as access:
        handle = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        with handle:
            handle.bind(("eth0", 3))
            (found,) = [one for one in read_sockets(access) if one.protocol == "packet"]
    assert found.index == wire.a.ifindex
    assert found.memory is not None


def test_time_wait_is_counted_by_peer(lab: Lab) -> None:
    with lab.host("a").enter(), Access() as access, socket.create_server(("127.0.0.1", 80)) as one:
        for _ in range(3):
            client = socket.create_connection(("127.0.0.1", 80))
            server, _ = one.accept()
            client.close()
            server.recv(1)
            server.close()
        (found,) = read_time_waits(access)
    assert (found.remote, found.remote_port, found.count) == ("127.0.0.1", 80, 3)


def test_more_sockets_than_are_read(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from millrace.host import sockets

    monkeypatch.setattr(sockets, "MAX_SOCKETS", 5)
    with lab.host("a").enter(), Access() as access:
        many = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(50)]
        for handle in many:
            handle.bind(("127.0.0.1", 0))
        assert len(read_sockets(access)) == 5
        for handle in many:
            handle.close()
        assert read_sockets(access) == ()


def test_short_and_long_tcp_info() -> None:
    words = bytes([1, 0, 2, 0, 0, 7, 0x97, 1]) + struct.pack("=24I", *range(100, 124))
    for data in (words, words + bytes(400)):
        info = tcp_info.parse(data)
        assert (info.state, info.retransmits) == (1, 2)
        assert (info.snd_wscale, info.rcv_wscale) == (7, 9)
        assert info.delivery_rate_app_limited
        assert (info.rto, info.retrans, info.last_data_sent) == (100, 107, 109)
        assert (info.pmtu, info.total_retrans, info.total_rto_time) == (113, 123, 0)
    assert tcp_info.parse(b"").rtt == 0
