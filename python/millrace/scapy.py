"""Scapy on Millrace's ports.

    from scapy.all import conf, sniff, sendp, srp
    import millrace.scapy

    conf.L2socket = millrace.scapy.L2Socket

From then on Scapy's own `sniff`, `sendp`, `srp` and their like receive and send by rings that are
shared with the kernel. `L2Socket` is AF_PACKET, which takes nothing away from Linux; `L2XdpSocket`
is AF_XDP, and Linux does not see what it receives.

With this module imported, Scapy's packets can be made of views of a batch: `Ether(batch[0])`.

Scapy is not a requirement of Millrace; this module is for those who have it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from typing import Any, ClassVar, NoReturn, cast

from scapy.compat import raw
from scapy.config import conf
from scapy.data import ETH_P_ALL, MTU
from scapy.error import Scapy_Exception
from scapy.interfaces import network_name
from scapy.layers.l2 import Ether
from scapy.packet import Packet
from scapy.supersocket import SuperSocket

import millrace

__all__ = ["L2ListenSocket", "L2Socket", "L2XdpSocket"]

#: Kinds whose descriptor wakes nobody who has not asked the port to.
_SILENT = ("memory", "pcap")
#: How long a wait on such a port goes without looking, in seconds.
_LOOK = 0.005
#: How long to wait for room to send, in seconds.
_SEND_TIMEOUT = 1.0
#: The shortest frame that an interface takes.
_SHORTEST = 14


class L2Socket(SuperSocket):
    """Reads and writes packets at layer 2 over a port of Millrace."""

    desc: ClassVar[str] = "read/write packets at layer 2 over Millrace's rings"
    #: The kind of port, where the interface's name has none before it ("af_xdp:eth1").
    kind: ClassVar[str] = "af_packet"
    outgoing: ClassVar[bool] = False

    def __init__(
        self,
        iface: Any = None,
        type: int = ETH_P_ALL,
        promisc: bool | None = None,
        filter: str | None = None,
        nofilter: int = 0,
        monitor: bool | None = None,
        **options: Any,
    ) -> None:
        """Open a socket as Scapy does; `options` are further ones of `millrace.open`."""
        self.closed = True  # until it is open
        self.iface = str(iface) if ":" in str(iface) else network_name(iface or conf.iface)
        self.promisc = conf.sniff_promisc if promisc is None else promisc
        expressions = [] if filter is None else [filter]
        if conf.except_filter and not nofilter:
            expressions.append(f"not ({conf.except_filter})")
        if type != ETH_P_ALL:
            expressions.append(f"ether proto {type}")
        kind, _, name = self.iface.rpartition(":")
        kind = kind or self.kind
        if kind == "af_packet":
            options = {"promiscuous": bool(self.promisc), "outgoing": self.outgoing, **options}
        expression = " and ".join(f"({one})" for one in expressions) or None
        if nofilter:
            expression = None
        self.port = millrace.open(f"{kind}:{name}", filter=expression, **{"linger": 0, **options})
        # Scapy looks whether there is something to send by, and to receive by.
        self.ins = self.outs = cast(Any, self.port)
        self.closed = False
        self._frames: Iterator[tuple[bytes, int]] = iter(())
        self._next: tuple[bytes, int] | None = None
        self._ended = False

    def send(self, x: Packet) -> int:
        """Send a packet; returns how many bytes it had.

        Raises OSError if there is no room for it within a second.
        """
        frame = raw(x)
        if len(frame) < _SHORTEST:
            frame = frame.ljust(conf.min_pkt_size, b"\0")
        if isinstance(x, Packet):
            x.sent_time = time.time()
        if not self.port.send([frame], timeout=_SEND_TIMEOUT):
            raise BlockingIOError(f"{self.port.name} had no room for a packet within a second")
        return len(frame)

    def recv_raw(self, x: int = MTU) -> tuple[type[Packet] | None, bytes | None, float | None]:
        """The next packet that is there; nothing when there is none.

        Raises EOFError at the end of a file, or when the port was closed.
        """
        if not self.waits():
            return None, None, None
        if self._next is None:
            raise EOFError
        (frame, timestamp), self._next = self._next, None
        return Ether, frame[:x], timestamp / 1e9

    def waits(self) -> bool:
        """Whether `recv_raw` has something to say now."""
        if self._next is None and not self._ended:
            self._next = next(self._frames, None)
            if self._next is None:
                batch = self.port.receive(0)
                self._ended = batch is None
                if batch:
                    times = batch.timestamp.tolist()
                    self._frames = zip(batch.tolist(), times, strict=True)
                    self._next = next(self._frames, None)
        return self._next is not None or self._ended

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return -1 if self.closed else self.port.fileno()

    def close(self) -> None:
        """Close the port."""
        if not self.closed:
            self.closed = True
            self.port.close()

    @staticmethod
    def select(
        sockets: list[SuperSocket], remain: float | None = conf.recv_poll_rate
    ) -> list[SuperSocket]:
        """Those that have something, or that have after at most `remain` seconds."""
        ours = [one for one in sockets if isinstance(one, L2Socket)]
        silent = [one for one in ours if one.port.kind in _SILENT]
        polled = [one for one in sockets if one not in silent]
        end = None if remain is None else time.monotonic() + remain
        while True:
            ready: list[SuperSocket] = [one for one in ours if one.waits()]
            left = None if end is None else max(0.0, end - time.monotonic())
            if ready:
                left = 0.0
            elif silent:
                left = _LOOK if left is None else min(left, _LOOK)
            ready += SuperSocket.select([one for one in polled if one not in ready], left)
            if ready or (end is not None and time.monotonic() >= end):
                return ready
            if not silent:
                # A signal, or a descriptor that had nothing after all.
                return ready


class L2ListenSocket(L2Socket):
    """Reads packets at layer 2 over a port of Millrace, on AF_PACKET also those going out."""

    desc: ClassVar[str] = "read packets at layer 2 over Millrace's rings"
    outgoing: ClassVar[bool] = True

    def send(self, x: Packet) -> NoReturn:
        """Refuse."""
        raise Scapy_Exception("a socket that listens sends nothing; use L2Socket")


class L2XdpSocket(L2Socket):
    """Reads and writes packets at layer 2 over AF_XDP, and takes them away from Linux."""

    desc: ClassVar[str] = "read/write packets at layer 2 over Millrace's AF_XDP"
    kind: ClassVar[str] = "af_xdp"


class _Listen:
    """What Scapy sniffs by: ours where its L2socket is ours, else what it was before."""

    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(self, *args: Any, **options: Any) -> SuperSocket:
        chosen: Any = conf.L2socket
        if chosen is L2Socket:
            chosen = L2ListenSocket
        elif not (isinstance(chosen, type) and issubclass(chosen, L2Socket)):
            chosen = self._before
        socket: SuperSocket = chosen(*args, **options)
        return socket


def _take_views(packet: Any) -> None:
    """Let packets be dissected from memoryviews, which Scapy does for some layers only."""
    dissect = packet.__init__

    @functools.wraps(dissect)
    def init(self: Any, _pkt: Any = b"", *args: Any, **options: Any) -> None:
        dissect(self, bytes(_pkt) if isinstance(_pkt, memoryview) else _pkt, *args, **options)

    init.takes_views = True  # type: ignore[attr-defined]
    packet.__init__ = init


if not hasattr(Packet.__init__, "takes_views"):
    _take_views(Packet)

# Scapy sniffs by `conf.L2listen`; setting `conf.L2socket` is to be enough.
if not isinstance(conf.L2listen, _Listen):
    conf.L2listen = cast(Any, _Listen(conf.L2listen))
