"""How connections between a channel and the kernel begin at once and end, in every order."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from millrace.lab import ImpairedWire, Lab
from millrace.net import (
    ACCEPTED,
    CLOSED,
    CONNECTED,
    FINISHED,
    READ,
    WRITTEN,
    Channel,
    Completion,
    Handle,
)

pytestmark = pytest.mark.networks

OURS, KERNEL = "192.0.2.2", "192.0.2.1"
PORT, OUR_PORT = 7000, 40_000
#: One way. Both sides can do something before they hear of the other.
DELAY = "5ms"
#: More than any window here.
MUCH = bytes(range(251)) * 20_000


class Told:
    """What a connection of the channel's was told."""

    def __init__(self) -> None:
        self.kinds: list[Any] = []
        self.data = bytearray()
        self.error: OSError | None = None


class Wired:
    """A channel and the kernel on a wire with a delay, which can be made to lose everything."""

    def __init__(self, lab: Lab, **options: Any) -> None:
        self.ours, self.kernel = lab.host("ours"), lab.host("kernel")
        wire = lab.wire(self.ours, self.kernel, addresses=(None, f"{KERNEL}/24"), delay=DELAY)
        assert isinstance(wire, ImpairedWire)
        self.wire = wire
        self.told: dict[Handle, Told] = {}
        self._sockets = contextlib.ExitStack()
        with self.ours.enter():
            self.channel = Channel("af_packet:eth0", f"{OURS}/24", hugepages=False, **options)

    def close(self) -> None:
        self.channel.close(0)
        self._sockets.close()

    def socket(self, port: int = 0) -> socket.socket:
        """A TCP socket of the kernel's that does not block."""
        with self.kernel.enter():
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._sockets.enter_context(made)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((KERNEL, port))
        made.setblocking(False)
        return made

    def listener(self, backlog: int = 128) -> socket.socket:
        """A listening socket of the kernel's."""
        listener = self.socket(PORT)
        listener.listen(backlog)
        return listener

    def accept(self, listener: socket.socket) -> socket.socket:
        """The next connection of a listening socket of the kernel's."""
        found: list[socket.socket] = []

        def done() -> bool:
            with contextlib.suppress(BlockingIOError):
                found.append(listener.accept()[0])
            return bool(found)

        self.until(done)
        self._sockets.enter_context(found[0]).setblocking(False)
        return found[0]

    def pair(self, opener: str) -> tuple[Handle, socket.socket]:
        """A connection that `opener`, "ours" or "kernel", opened."""
        if opener == "ours":
            listener = self.listener()
            handle = self.channel.connect((KERNEL, PORT))
            kernel = self.accept(listener)
            listener.close()
        else:
            ear = self.channel.listen(PORT)
            kernel = self.socket()
            kernel.connect_ex((OURS, PORT))
            handle = self.accepted()
            ear.close()
        self.until(lambda: handle in self.told and self.told[handle].kinds)
        self.told[handle].kinds.clear()
        return handle, kernel

    def accepted(self) -> Handle:
        """The next connection of a listener of ours."""
        known = set(self.told)
        found: list[Handle] = []

        def done() -> bool:
            found.extend(
                handle
                for handle, told in self.told.items()
                if handle not in known and told.kinds[:1] == [ACCEPTED]
            )
            return bool(found)

        self.until(done)
        return found[0]

    def turn(self) -> None:
        """One turn, and what it told."""
        for one in self.channel.turn(0.002) or []:
            self._take(one)

    def _take(self, one: Completion) -> None:
        told = self.told.setdefault(one.handle, Told())
        if not told.kinds or told.kinds[-1] is not one.kind or one.kind is not READ:
            told.kinds.append(one.kind)
        told.data += one.data
        told.error = one.error

    def until(self, done: Callable[[], object], seconds: float = 30.0) -> None:
        """Turn until `done` says so."""
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                counters = {name: value for name, value in self.channel.counters().items() if value}
                told = [(one.kinds, len(one.data), one.error) for one in self.told.values()]
                raise AssertionError(f"it never came to this: {counters}, {told}")
            self.turn()

    def until_told(self, handle: Handle, kind: Any) -> Told:
        """Turn until a connection of ours is told this; everything it was told."""
        self.until(lambda: handle in self.told and kind in self.told[handle].kinds)
        return self.told[handle]

    def read(self, kernel: socket.socket) -> bytes:
        """All that the kernel's end reads, to the end; what it fails with is raised."""
        got = bytearray()
        ended = False

        def done() -> bool:
            nonlocal ended
            with contextlib.suppress(BlockingIOError):
                while data := kernel.recv(1 << 16):
                    got.extend(data)
                ended = True
            return ended

        self.until(done)
        return bytes(got)

    def write(self, kernel: socket.socket, data: bytes) -> None:
        """The kernel's end writes."""
        left = memoryview(data)

        def done() -> bool:
            nonlocal left
            with contextlib.suppress(BlockingIOError):
                while left:
                    left = left[kernel.send(left) :]
            return not left

        self.until(done)

    def lose(self, act: Callable[[], object], *, ours: bool = True, kernel: bool = True) -> None:
        """Do this, and lose what these send because of it: one packet at least."""
        before = sum(direction.lost for direction in self.wire.statistics())
        self.wire.impair(delay=DELAY, loss=("100%" if ours else 0, "100%" if kernel else 0))
        act()
        self.until(lambda: sum(one.lost for one in self.wire.statistics()) > before)
        self.wire.impair(delay=DELAY)

    def kernel_states(self) -> list[str]:
        """The states of the kernel's connections, listening sockets not among them."""
        shown = self.kernel.run(["ss", "--tcp", "--all", "--numeric", "--no-header"]).stdout
        states = [line.split()[0] for line in shown.splitlines()]
        return [state for state in states if state != "LISTEN"]


@pytest.fixture
def make_wired(lab: Lab) -> Iterator[Callable[..., Wired]]:
    """Makes a channel and a kernel; keywords are the channel's."""
    made: list[Wired] = []

    def make(**options: Any) -> Wired:
        made.append(Wired(lab, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def wired(make_wired: Callable[..., Wired]) -> Wired:
    return make_wired()


def error_of(kernel: socket.socket) -> int:
    """The error that waits for the kernel's program."""
    return kernel.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def reset_on_close(kernel: socket.socket) -> None:
    """Closing the kernel's end is a reset."""
    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


OPENERS = pytest.mark.parametrize("opener", ["ours", "kernel"])


def test_written_and_shut_before_there_is_an_answer(wired: Wired) -> None:
    listener = wired.listener()
    handle = wired.channel.connect((KERNEL, PORT))
    handle.write(MUCH)
    handle.shutdown()
    kernel = wired.accept(listener)
    assert wired.read(kernel) == MUCH
    wired.write(kernel, b"answer")
    kernel.close()
    told = wired.until_told(handle, CLOSED)
    assert told.kinds == [CONNECTED, WRITTEN, READ, FINISHED, CLOSED]
    assert (told.data, told.error) == (b"answer", None)


@pytest.mark.parametrize("much", [False, True])
def test_written_and_closed_before_there_is_an_answer(wired: Wired, much: bool) -> None:
    listener = wired.listener()
    data = MUCH if much else b"last words"
    handle = wired.channel.connect((KERNEL, PORT))
    handle.write(data)
    handle.close()
    kernel = wired.accept(listener)
    assert wired.read(kernel) == data
    # Nobody is there for an answer.
    wired.write(kernel, b"answer")
    wired.until(lambda: error_of(kernel) != 0)
    assert handle not in wired.told


@pytest.mark.parametrize("how", ["plain", "cookie", "deferred"])
@pytest.mark.parametrize("lost", [False, True])
def test_everything_in_the_kernels_last_step_of_the_handshake(
    make_wired: Callable[..., Wired], how: str, lost: bool
) -> None:
    wired = make_wired(**{"syn_cookies": "always", "syn_patience": 1.0} if how == "cookie" else {})
    wired.channel.listen(PORT, defer_accept=30.0 if how == "deferred" else None)
    kernel = wired.socket()
    # Has its ACK wait for the data, and this for the FIN.
    kernel.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
    kernel.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    kernel.connect_ex((OURS, PORT))
    wired.write(kernel, b"last words")
    if lost:
        wired.lose(kernel.close)
    else:
        kernel.close()
    handle = wired.accepted()
    told = wired.until_told(handle, FINISHED)
    assert (told.kinds, told.data) == ([ACCEPTED, READ, FINISHED], b"last words")
    # One segment with all; a listener that has sent a cookie has not taken the SYN.
    assert wired.channel.counters()["segments_in"] == (1 if how == "cookie" else 2)
    handle.close()
    wired.until(lambda: wired.channel.connections == 0)
    assert wired.kernel_states() == ["TIME-WAIT"]


def test_the_kernels_backlog_is_full(wired: Wired) -> None:
    listener = wired.listener(backlog=0)
    for number in range(3):
        handle = wired.channel.connect((KERNEL, PORT))
        handle.write(b"%d" % number)
        handle.close()
    # For the kernel two of these have no connection yet, whatever they have sent.
    wired.until(lambda: wired.channel.counters()["segments_retransmitted"] >= 3)
    got = set()
    for _ in range(3):
        kernel = wired.accept(listener)
        got.add(wired.read(kernel))
        kernel.close()
    assert got == {b"0", b"1", b"2"}


def test_written_to_a_kernel_that_has_closed(wired: Wired) -> None:
    handle, kernel = wired.pair("kernel")
    kernel.close()
    told = wired.until_told(handle, FINISHED)
    handle.write(b"anybody?")
    wired.until_told(handle, CLOSED)
    assert told.kinds == [FINISHED, CLOSED]
    assert isinstance(told.error, ConnectionResetError)


@OPENERS
def test_half_closed_here_and_written_there(wired: Wired, opener: str) -> None:
    handle, kernel = wired.pair(opener)
    handle.write(b"question")
    handle.shutdown()
    assert wired.read(kernel) == b"question"
    wired.write(kernel, MUCH)
    kernel.close()
    told = wired.until_told(handle, CLOSED)
    assert (told.kinds, told.error) == ([READ, FINISHED, CLOSED], None)
    assert told.data == MUCH


@OPENERS
def test_half_closed_there_and_written_here(wired: Wired, opener: str) -> None:
    handle, kernel = wired.pair(opener)
    wired.write(kernel, b"question")
    kernel.shutdown(socket.SHUT_WR)
    told = wired.until_told(handle, FINISHED)
    assert told.data == b"question"
    handle.write(MUCH[: 1 << 19])
    handle.shutdown()
    assert wired.read(kernel) == MUCH[: 1 << 19]
    wired.until_told(handle, CLOSED)
    assert (told.kinds, told.error) == ([READ, FINISHED, CLOSED], None)
    assert wired.kernel_states() == ["TIME-WAIT"]


@pytest.mark.parametrize("half_closed", ["not", "here", "there"])
def test_closed_here_with_something_unread(wired: Wired, half_closed: str) -> None:
    handle, kernel = wired.pair("ours")
    handle.pause()
    wired.write(kernel, b"unread")
    if half_closed == "there":
        kernel.shutdown(socket.SHUT_WR)
    if half_closed == "here":
        handle.shutdown()
    wired.until(lambda: handle.info().receive_queue > 0)
    if half_closed == "there":
        wired.until(lambda: handle.info().state == "CLOSE-WAIT")
    handle.close()
    wired.until(lambda: wired.kernel_states() == [])
    # EPIPE is what Linux says after the peer's FIN.
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        kernel.send(b"x")
    wired.until(lambda: wired.channel.connections == 0)
    assert wired.told[handle].kinds == []


@pytest.mark.parametrize("half_closed", ["not", "here", "there"])
def test_closed_there_with_something_unread(wired: Wired, half_closed: str) -> None:
    handle, kernel = wired.pair("kernel")
    handle.write(b"unread")
    if half_closed == "here":
        handle.shutdown()
    if half_closed == "there":
        kernel.shutdown(socket.SHUT_WR)
        wired.until_told(handle, FINISHED)
    wired.until(lambda: kernel_has(kernel, b"unread"))
    kernel.close()
    told = wired.until_told(handle, CLOSED)
    assert isinstance(told.error, ConnectionResetError)
    wired.until(lambda: wired.channel.connections == 0)


def kernel_has(kernel: socket.socket, data: bytes) -> bool:
    with contextlib.suppress(BlockingIOError):
        return kernel.recv(len(data), socket.MSG_PEEK) == data
    return False


@pytest.mark.parametrize("half_closed", ["not", "here", "there"])
@pytest.mark.parametrize("side", ["ours", "kernel"])
def test_a_reset(wired: Wired, half_closed: str, side: str) -> None:
    handle, kernel = wired.pair("kernel")
    if half_closed == "here":
        handle.shutdown()
        assert wired.read(kernel) == b""
        wired.until(lambda: handle.info().state == "FIN-WAIT-2")
    if half_closed == "there":
        kernel.shutdown(socket.SHUT_WR)
        wired.until_told(handle, FINISHED)
    if side == "ours":
        handle.linger(0)
        handle.close()
        wired.until(lambda: wired.kernel_states() == [])
        assert error_of(kernel) != 0
        assert wired.told[handle].kinds == ([FINISHED] if half_closed == "there" else [])
    else:
        reset_on_close(kernel)
        kernel.close()
        assert isinstance(wired.until_told(handle, CLOSED).error, ConnectionResetError)
    wired.until(lambda: wired.channel.connections == 0)


@OPENERS
def test_the_last_data_and_the_fin_are_lost_together(wired: Wired, opener: str) -> None:
    handle, kernel = wired.pair(opener)

    def end() -> None:
        handle.write(b"last words")
        handle.close()

    wired.lose(end)
    assert wired.read(kernel) == b"last words"
    kernel.close()
    wired.until(lambda: wired.kernel_states() == [])


@OPENERS
def test_the_kernels_last_data_and_fin_are_lost_together(wired: Wired, opener: str) -> None:
    handle, kernel = wired.pair(opener)
    kernel.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    kernel.send(b"last words")
    wired.lose(kernel.close)
    told = wired.until_told(handle, FINISHED)
    assert (told.kinds, told.data) == ([READ, FINISHED], b"last words")
    handle.close()
    wired.until(lambda: wired.channel.connections == 0)


@pytest.mark.parametrize("sack", [0, 1])
@pytest.mark.parametrize("side", ["ours", "kernel"])
def test_much_and_a_fin_through_losses(wired: Wired, sack: int, side: str) -> None:
    wired.kernel.sysctl("net.ipv4.tcp_sack", sack)
    handle, kernel = wired.pair(side)
    wired.wire.impair(delay=DELAY, loss="3%")
    data = MUCH[:500_000]
    if side == "ours":
        handle.write(data)
        handle.close()
        assert wired.read(kernel) == data
        kernel.close()
    else:
        wired.write(kernel, data)
        kernel.close()
        told = wired.until_told(handle, FINISHED)
        assert told.data == data
        handle.close()
    wired.until(lambda: not {"LAST-ACK", "FIN-WAIT-1"} & set(wired.kernel_states()))


def test_both_open_at_once(wired: Wired) -> None:
    kernel = wired.socket(PORT)
    handle = wired.channel.connect((KERNEL, PORT), local=(OURS, OUR_PORT))
    handle.write(b"from here")
    assert wired.kernel_states() == []
    kernel.connect_ex((OURS, OUR_PORT))
    wired.until_told(handle, CONNECTED)
    wired.write(kernel, MUCH)
    handle.shutdown()
    assert wired.read(kernel) == b"from here"
    kernel.close()
    told = wired.until_told(handle, CLOSED)
    assert (told.kinds, told.error) == ([CONNECTED, READ, FINISHED, CLOSED], None)
    assert told.data == MUCH


@pytest.mark.parametrize("lost", ["ours", "kernel"])
def test_the_answer_to_the_last_fin_is_lost(wired: Wired, lost: str) -> None:
    handle, kernel = wired.pair("ours")
    if lost == "ours":
        handle.shutdown()
        assert wired.read(kernel) == b""
        kernel.close()
        wired.lose(lambda: wired.until_told(handle, CLOSED), kernel=False)
        assert wired.told[handle].error is None
        assert wired.kernel_states() == ["LAST-ACK"]
        wired.until(lambda: wired.kernel_states() == [])
    else:
        kernel.close()
        wired.until_told(handle, FINISHED)
        wired.lose(handle.close, ours=False)
        assert wired.channel.connections == 1
        wired.until(lambda: wired.channel.connections == 0)
        assert wired.kernel_states() == ["TIME-WAIT"]
    assert wired.channel.counters()["resets_sent"] == 0


@OPENERS
@pytest.mark.parametrize("data", [b"", b"last words"])
def test_both_close_at_once(wired: Wired, opener: str, data: bytes) -> None:
    handle, kernel = wired.pair(opener)
    if data:
        kernel.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        kernel.send(data)
        handle.write(data)
    kernel.shutdown(socket.SHUT_WR)
    handle.shutdown()
    assert wired.read(kernel) == data
    told = wired.until_told(handle, CLOSED)
    assert (told.kinds, told.error) == ([READ, FINISHED, CLOSED][not data :], None)
    assert told.data == data
    wired.until(lambda: wired.kernel_states() == ["TIME-WAIT"])
    # In TIME-WAIT.
    assert wired.channel.connections == 1


@pytest.mark.parametrize("timestamps", [0, 1])
def test_the_kernel_comes_again_while_we_are_in_time_wait(wired: Wired, timestamps: int) -> None:
    wired.kernel.sysctl("net.ipv4.tcp_timestamps", timestamps)
    wired.channel.listen(PORT)
    for number in range(3):
        kernel = wired.socket(OUR_PORT)
        kernel.connect_ex((OURS, PORT))
        handle = wired.accepted()
        wired.write(kernel, b"question")
        handle.write(b"answer")
        handle.shutdown()
        assert wired.read(kernel) == b"answer"
        kernel.close()
        told = wired.until_told(handle, CLOSED)
        assert (told.data, told.error) == (b"question", None), number
        assert wired.channel.connections == 1
        wired.until(lambda: wired.kernel_states() == [])


@pytest.mark.parametrize("timestamps", [0, 1])
def test_we_come_again_while_the_kernel_is_in_time_wait(wired: Wired, timestamps: int) -> None:
    wired.kernel.sysctl("net.ipv4.tcp_timestamps", timestamps)
    listener = wired.listener()
    for _ in range(3):
        handle = wired.channel.connect((KERNEL, PORT), local=(OURS, OUR_PORT))
        handle.write(b"question")
        kernel = wired.accept(listener)
        wired.write(kernel, b"answer")
        kernel.shutdown(socket.SHUT_WR)
        wired.until_told(handle, FINISHED)
        handle.shutdown()
        assert wired.read(kernel) == b"question"
        told = wired.until_told(handle, CLOSED)
        assert (told.data, told.error) == (b"answer", None)
        kernel.close()
        assert wired.kernel_states() == ["TIME-WAIT"]


@pytest.mark.parametrize("timestamps", [0, 1])
def test_we_come_again_from_a_port_in_time_wait(wired: Wired, timestamps: int) -> None:
    wired.kernel.sysctl("net.ipv4.tcp_timestamps", timestamps)
    listener = wired.listener()
    first = wired.channel.connect((KERNEL, PORT), local=(OURS, OUR_PORT))
    first.shutdown()
    kernel = wired.accept(listener)
    assert wired.read(kernel) == b""
    kernel.close()
    wired.until_told(first, CLOSED)
    again: list[Handle] = []

    def connect() -> None:
        again.append(wired.channel.connect((KERNEL, PORT), local=(OURS, OUR_PORT)))

    def done() -> bool:
        with contextlib.suppress(OSError):
            connect()
        return bool(again)

    if timestamps:
        # The peer's clock must have gone on, and it may be one of seconds.
        wired.until(done)
        again[0].write(b"question")
        again[0].close()
        assert wired.read(wired.accept(listener)) == b"question"
    else:
        with pytest.raises(OSError, match="in use") as raised:
            connect()
        assert raised.value.errno == errno.EADDRINUSE


def test_a_fin_behind_a_closed_window_of_the_kernels(wired: Wired) -> None:
    handle, kernel = wired.pair("ours")
    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    data = MUCH[: 1 << 19]
    handle.write(data)
    wired.until(lambda: handle.info().send_window == 0)
    handle.close()
    probes = wired.channel.counters()["window_probes"]
    wired.until(lambda: wired.channel.counters()["window_probes"] >= probes + 2)
    assert wired.read(kernel) == data
    kernel.close()
    wired.until(lambda: wired.kernel_states() == [])


@pytest.mark.parametrize("more", [0, 1, 100_000])
def test_the_kernels_fin_behind_our_closed_window(
    make_wired: Callable[..., Wired], more: int
) -> None:
    wired = make_wired(receive_buffer=16_384, receive_buffer_max=16_384)
    handle, kernel = wired.pair("kernel")
    handle.pause()
    data = MUCH[: 16_384 + more]
    wired.write(kernel, data)
    wired.until(lambda: handle.info().receive_window == 0)
    kernel.close()
    # It asks whether there is room now.
    asked = wired.channel.counters()["segments_in"]
    wired.until(lambda: wired.channel.counters()["segments_in"] >= asked + 2)
    assert handle.info().receive_window == 0
    handle.resume()
    told = wired.until_told(handle, FINISHED)
    assert told.kinds == [READ, FINISHED]
    assert told.data == data
    handle.close()
    wired.until(lambda: "LAST-ACK" not in wired.kernel_states())


def test_both_fins_behind_closed_windows(make_wired: Callable[..., Wired]) -> None:
    wired = make_wired(receive_buffer=16_384, receive_buffer_max=16_384)
    handle, kernel = wired.pair("ours")
    handle.pause()
    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200_000)
    ours, theirs = MUCH[:300_000], MUCH[-100_000:]
    handle.write(ours)
    wired.write(kernel, theirs)
    handle.shutdown()
    kernel.shutdown(socket.SHUT_WR)
    wired.until(lambda: handle.info().receive_window == handle.info().send_window == 0)
    probes = wired.channel.counters()["window_probes"]
    wired.until(lambda: wired.channel.counters()["window_probes"] >= probes + 2)
    handle.resume()
    assert wired.read(kernel) == ours
    told = wired.until_told(handle, CLOSED)
    assert (told.kinds, told.error) == ([READ, FINISHED, CLOSED], None)
    assert told.data == theirs


def test_a_reset_while_we_are_held_back_and_closed(wired: Wired) -> None:
    handle, kernel = wired.pair("kernel")
    handle.write(MUCH)
    handle.close()
    wired.until(lambda: kernel_has(kernel, MUCH[:1]))
    reset_on_close(kernel)
    kernel.close()
    wired.until(lambda: wired.channel.connections == 0)


@pytest.mark.parametrize("side", ["ours", "kernel"])
def test_a_reset_behind_data_that_was_lost(wired: Wired, side: str) -> None:
    handle, kernel = wired.pair("ours")
    # Its number is not the one that is waited for, so that it is asked for again (RFC 5961 §3.2).
    if side == "ours":
        wired.lose(lambda: handle.write(b"lost"))
        handle.abort()
        wired.until(lambda: wired.kernel_states() == [])
        assert error_of(kernel) == errno.ECONNRESET
    else:
        wired.lose(lambda: kernel.send(b"lost"))
        reset_on_close(kernel)
        kernel.close()
        assert isinstance(wired.until_told(handle, CLOSED).error, ConnectionResetError)
        assert wired.channel.counters()["challenge_acks"] == 1
