"""Sockets with their memory, their drops and struct tcp_info, by sock_diag.

sock_diag(7), linux/inet_diag.h, linux/packet_diag.h. Decoded here because pyroute2 0.9 leaves the
memory as it comes, ends tcp_info early and does not report the kernel's errors.
"""

from __future__ import annotations

import itertools
import socket
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from millrace.host import tcp_info
from millrace.host.access import Access
from millrace.host.netlink import attributes, text
from millrace.host.tcp_info import TcpInfo

#: More sockets than this of one protocol and family are not looked at. Listeners come first.
MAX_SOCKETS = 8192
#: More connections in TIME-WAIT than this are not looked at.
MAX_TIME_WAIT = 65536
_TOP_TIME_WAIT = 32

_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY of linux/sock_diag.h
_INFO, _CONG, _SKMEMINFO, _SHUTDOWN, _CGROUP_ID = 2, 4, 7, 8, 21

STATES = (
    "",
    "established",
    "syn-sent",
    "syn-received",
    "fin-wait-1",
    "fin-wait-2",
    "time-wait",
    "closed",
    "close-wait",
    "last-ack",
    "listen",
    "closing",
    "syn-received",
)
_TIME_WAIT = 6
_ALL_BUT_TIME_WAIT = 0xFFF & ~(1 << _TIME_WAIT) & ~(1 << 7)

_ID = struct.Struct("!HH16s16s")
_TAIL = struct.Struct("=I8sIIIII")


@dataclass(frozen=True, slots=True)
class SocketMemory:
    """What a socket holds and may hold, in bytes (SK_MEMINFO_... of linux/sock_diag.h)."""

    receive: int
    receive_limit: int
    send: int
    send_limit: int
    forward: int
    send_queued: int
    options: int
    backlog: int
    #: Packets dropped at this socket.
    drops: int


@dataclass(frozen=True, slots=True)
class Socket:
    """One socket of the kernel's."""

    #: "tcp", "udp" or "packet".
    protocol: str
    #: 4 or 6; 0 for a packet socket.
    family: int
    #: By RFC 9293's names in lower case: "listen", "established", ...; "" for others than TCP.
    state: str
    local: str
    local_port: int
    remote: str
    remote_port: int
    #: The interface it is bound to; 0 for any.
    index: int
    inode: int
    uid: int
    cookie: int
    #: Bytes to be read; of a listener the connections that wait to be accepted.
    receive_queue: int
    #: Bytes to be sent or acknowledged; of a listener the most that may wait.
    send_queue: int
    memory: SocketMemory | None = None
    info: TcpInfo | None = None
    congestion: str = ""
    cgroup: int = 0

    @property
    def drops(self) -> int:
        """Packets dropped at this socket."""
        return self.memory.drops if self.memory is not None else 0

    @property
    def name(self) -> str:
        """Where it is, for people: "tcp 192.0.2.1:80" or "udp [2001:db8::1]:53 to ..."."""
        if self.protocol == "packet":
            return f"packet socket {self.inode}"
        here = f"{self.protocol} {_endpoint(self.local, self.local_port)}"
        if not self.remote_port:
            return here
        return f"{here} to {_endpoint(self.remote, self.remote_port)}"


@dataclass(frozen=True, slots=True)
class TimeWait:
    """Connections in TIME-WAIT to one port of one peer."""

    remote: str
    remote_port: int
    count: int


def read_sockets(access: Access) -> tuple[Socket, ...]:
    """TCP (without TIME-WAIT), UDP and packet sockets of this namespace."""
    found: list[Socket] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for protocol, states in (
            (socket.IPPROTO_TCP, _ALL_BUT_TIME_WAIT),
            (socket.IPPROTO_UDP, 0xFFFFFFFF),
        ):
            extensions = sum(1 << kind - 1 for kind in (_INFO, _CONG, _SKMEMINFO))
            request = _request(family, protocol, states, extensions)
            found += itertools.islice(_inet(access, request, protocol), MAX_SOCKETS)
    found += itertools.islice(_packet(access), MAX_SOCKETS)
    return tuple(found)


def read_time_waits(access: Access) -> tuple[TimeWait, ...]:
    """The peers' ports with the most connections in TIME-WAIT."""
    counts: Counter[tuple[str, int]] = Counter()
    for family in (socket.AF_INET, socket.AF_INET6):
        request = _request(family, socket.IPPROTO_TCP, 1 << _TIME_WAIT, 0)
        with access.reading_diag() as netlink:
            for answer in itertools.islice(netlink.dump(_BY_FAMILY, request), MAX_TIME_WAIT):
                _, port, _, remote = _ID.unpack_from(answer, 4)
                counts[_address(family, remote), port] += 1
    return tuple(
        TimeWait(remote, port, count)
        for (remote, port), count in counts.most_common(_TOP_TIME_WAIT)
    )


def listeners(sockets: Iterable[Socket]) -> list[Socket]:
    """The TCP sockets that accept."""
    return [one for one in sockets if one.state == "listen"]


def _request(family: int, protocol: int, states: int, extensions: int) -> bytes:
    return struct.pack("=BBBBI", family, protocol, extensions, 0, states) + bytes(48)


def _inet(access: Access, request: bytes, protocol: int) -> Iterator[Socket]:
    name = "tcp" if protocol == socket.IPPROTO_TCP else "udp"
    with access.reading_diag() as netlink:
        for answer in netlink.dump(_BY_FAMILY, request):
            family, state = answer[0], answer[1]
            sport, dport, source, destination = _ID.unpack_from(answer, 4)
            index, cookie, _, receive, send, uid, inode = _TAIL.unpack_from(answer, 40)
            parts = attributes(answer[72:])
            memory = parts.get(_SKMEMINFO)
            info = parts.get(_INFO)
            yield Socket(
                protocol=name,
                family=6 if family == socket.AF_INET6 else 4,
                state=STATES[state] if name == "tcp" and state < len(STATES) else "",
                local=_address(family, source),
                local_port=sport,
                remote=_address(family, destination),
                remote_port=dport,
                index=index,
                inode=inode,
                uid=uid,
                cookie=int.from_bytes(cookie, "little"),
                receive_queue=receive,
                send_queue=send,
                memory=None if memory is None else _memory(memory),
                info=tcp_info.parse(info) if info and name == "tcp" and state != 10 else None,
                congestion=text(parts.get(_CONG, b"")),
                cgroup=int.from_bytes(parts.get(_CGROUP_ID, b""), "little"),
            )


def _packet(access: Access) -> Iterator[Socket]:
    show_info_and_memory = 0x1 | 0x10  # PACKET_SHOW_INFO, PACKET_SHOW_MEMINFO
    request = struct.pack("=BBHIIQ", socket.AF_PACKET, 0, 0, 0, show_info_and_memory, 0)
    with access.reading_diag() as netlink:
        try:
            for answer in netlink.dump(_BY_FAMILY, request):
                inode, cookie = struct.unpack_from("=IQ", answer, 4)
                parts = attributes(answer[16:])
                memory = parts.get(6)
                yield Socket(
                    protocol="packet",
                    family=0,
                    state="",
                    local="",
                    local_port=0,
                    remote="",
                    remote_port=0,
                    index=int.from_bytes(parts.get(0, b"")[:4], "little"),
                    inode=inode,
                    uid=int.from_bytes(parts.get(5, b"")[:4], "little"),
                    cookie=cookie,
                    receive_queue=0,
                    send_queue=0,
                    memory=None if memory is None else _memory(memory),
                )
        except FileNotFoundError:  # built without CONFIG_PACKET_DIAG
            return


def _memory(data: bytes) -> SocketMemory:
    words = struct.unpack_from("=9I", data.ljust(36, b"\0"))
    return SocketMemory(*words)


def _address(family: int, data: bytes) -> str:
    if family == socket.AF_INET6:
        return socket.inet_ntop(socket.AF_INET6, data)
    return socket.inet_ntop(socket.AF_INET, data[:4])


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
