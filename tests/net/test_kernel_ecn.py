"""ECN (RFC 3168) between a channel and the kernel, over a queue that marks."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from millrace.lab import ImpairedWire, Lab
from millrace.net import ACCEPTED, CLOSED, CONNECTED, FINISHED, READ, WRITTEN, Channel

pytestmark = pytest.mark.networks

OURS, KERNEL, PORT = "192.0.2.2", "192.0.2.1", 7000
BYTES = 3 << 20
#: Above so many bytes in the queue a packet is marked; the queue is ten times as long.
MARK = 30_000

# What net.ipv4.tcp_ecn says: nothing, ask for RFC 3168 and grant it, grant it only.
OFF, ASKS, ACCEPTS = 0, 1, 2

# struct tcp_info in linux/tcp.h: tcpi_options, and where tcpi_delivered_ce is.
_OPTIONS_AT, _DELIVERED_CE_AT = 5, 196
_OPTION_ECN = 8


class Wired:
    """A channel and the kernel, 20 Mbit/s and 10 ms apart, with a queue that marks either way."""

    def __init__(self, lab: Lab, ecn: str, kernel_ecn: int, **options: Any) -> None:
        self.ours, self.kernel = lab.host("ours"), lab.host("kernel")
        wire = lab.wire(
            self.ours,
            self.kernel,
            addresses=(None, f"{KERNEL}/24"),
            rate="20M",
            delay="5ms",
            queue=10 * MARK,
            mark=MARK,
        )
        assert isinstance(wire, ImpairedWire)
        self.wire = wire
        self.kernel.sysctl("net.ipv4.tcp_ecn", kernel_ecn)
        with self.ours.enter():
            self.channel = Channel(
                "af_packet:eth0", f"{OURS}/24", hugepages=False, ecn=ecn, **options
            )
        self.data = bytes(range(251)) * (BYTES // 251 + 1)
        self.data = self.data[:BYTES]

    def socket(self) -> socket.socket:
        """A TCP socket of the kernel's."""
        with self.kernel.enter():
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        return made

    def close(self) -> None:
        self.channel.close(0)

    def upload(self) -> tuple[bytes, dict[str, int]]:
        """Ours opens a connection and sends. Gives what arrived, and the counters."""
        arrived = hashlib.sha256()
        left = memoryview(self.data)
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(self.socket())
            listener.bind((KERNEL, PORT))
            listener.listen(1)
            listener.setblocking(False)
            handle = self.channel.connect((KERNEL, PORT))
            peer: socket.socket | None = None
            connected = False

            def done() -> bool:
                nonlocal peer, connected, left
                for one in self.channel.turn(0.002) or []:
                    assert one.kind in (CONNECTED, WRITTEN), one
                    connected = True
                if connected and left and handle.waiting == 0:
                    handle.write(left[: 1 << 19])
                    left = left[1 << 19 :]
                    if not left:
                        handle.shutdown()
                with contextlib.suppress(BlockingIOError):
                    if peer is None:
                        peer = stack.enter_context(listener.accept()[0])
                        peer.setblocking(False)
                    while data := peer.recv(1 << 16):
                        arrived.update(data)
                    return True
                return False

            self._until(done)
            return arrived.digest(), self.channel.counters()

    def download(self) -> tuple[bytes, dict[str, int], bytes]:
        """The kernel opens a connection and sends. Gives also its struct tcp_info at the end."""
        listener = self.channel.listen(PORT)
        arrived = hashlib.sha256()
        ended = False
        with self.socket() as sender:
            sender.setblocking(False)
            sender.connect_ex((OURS, PORT))
            left = memoryview(self.data)
            info = b""

            def done() -> bool:
                nonlocal left, ended, info
                for one in self.channel.turn(0.002) or []:
                    if one.kind is READ:
                        arrived.update(one.data)
                    elif one.kind is FINISHED:
                        ended = True
                        one.handle.close()
                    elif one.kind is CLOSED:
                        raise AssertionError(f"it ended: {one.error}")
                    else:
                        assert one.kind is ACCEPTED
                        assert one.listener is listener
                # Until it is connected there is none to send to.
                with contextlib.suppress(BlockingIOError, BrokenPipeError):
                    while left:
                        left = left[sender.send(left[: 1 << 16]) :]
                        if not left:
                            sender.shutdown(socket.SHUT_WR)
                info = sender.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                return ended

            self._until(done)
            return arrived.digest(), self.channel.counters(), info

    def _until(self, done: Any, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                told = {name: value for name, value in self.channel.counters().items() if value}
                raise AssertionError(f"it never came to this: {told}, {self.wire.statistics()}")


@pytest.fixture
def make_wired(lab: Lab) -> Iterator[Any]:
    """Makes a channel and a kernel with these settings of ECN."""
    made: list[Wired] = []

    def make(ecn: str, kernel_ecn: int, **options: Any) -> Wired:
        made.append(Wired(lab, ecn, kernel_ecn, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("ecn", ["on", "accurate"])
def test_what_we_send_heeds_the_kernels_marks(make_wired: Any, ecn: str) -> None:
    # A kernel that knows nothing of Accurate ECN grants the other kind.
    wired: Wired = make_wired(ecn, ACCEPTS)
    digest, counters = wired.upload()
    forth, _ = wired.wire.statistics()
    assert digest == hashlib.sha256(wired.data).digest()
    assert (counters["ecn_connections"], counters["accurate_ecn_connections"]) == (1, 0)
    # Marks came instead of losses, and the window came down for them.
    assert forth.marked > 0, (forth, counters)
    assert counters["congestion_reductions"] > 0
    assert (forth.queue_dropped, counters["fast_retransmits"]) == (0, 0), (forth, counters)
    assert counters["ecn_mangled"] == 0


def test_the_kernel_hears_of_our_marks(make_wired: Any) -> None:
    wired: Wired = make_wired("passive", ASKS)
    digest, counters, info = wired.download()
    _, back = wired.wire.statistics()
    assert digest == hashlib.sha256(wired.data).digest()
    assert (counters["ecn_connections"], counters["accurate_ecn_connections"]) == (1, 0)
    assert back.marked > 0, (back, counters)
    assert 0 < counters["ce_received"] <= back.marked
    assert back.queue_dropped == 0, (back, counters)
    (told,) = struct.unpack_from("=I", info, _DELIVERED_CE_AT)
    assert info[_OPTIONS_AT] & _OPTION_ECN
    assert told > 0


def test_ecn_that_the_kernel_does_not_grant(make_wired: Any) -> None:
    wired: Wired = make_wired("accurate", OFF)
    digest, counters = wired.upload()
    assert digest == hashlib.sha256(wired.data).digest()
    assert (counters["ecn_connections"], counters["accurate_ecn_connections"]) == (0, 0)
    assert wired.wire.statistics()[0].marked == 0


def test_ecn_from_a_cookie(make_wired: Any) -> None:
    wired: Wired = make_wired("passive", ASKS, syn_cookies="always", syn_patience=0.1)
    digest, counters, info = wired.download()
    assert digest == hashlib.sha256(wired.data).digest()
    assert (counters["syn_cookies_accepted"], counters["ecn_connections"]) == (1, 1)
    assert counters["ce_received"] > 0
    assert info[_OPTIONS_AT] & _OPTION_ECN
