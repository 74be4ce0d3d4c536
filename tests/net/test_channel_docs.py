"""The examples of docs/channels.md run as they are, and its tables are true."""

from __future__ import annotations

import ast
import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from millrace.lab import Host, Lab
from millrace.net import Channel

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "channels.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.S | re.M)
OURS, KERNEL = "192.0.2.2", "192.0.2.1"
#: More than one segment, buffer and turn take.
QUESTION = b"question" * 100_000


def section(title: str) -> str:
    """The text below a title."""
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def settings(title: str) -> dict[str, Any]:
    """What a section's tables give as defaults."""
    found: dict[str, Any] = {}
    for line in section(title).splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        names = re.findall("`([A-Za-z_0-9]+)`", cells[1]) if len(cells) > 4 else []
        if names:
            found |= zip(names, ast.literal_eval(f"[{cells[3]}]"), strict=True)
    return found


class Peer:
    """The other end: it echoes, and asks the channel again and again."""

    def __init__(self, host: Host) -> None:
        self._host = host
        #: How often the channel has answered in full.
        self.answered = 0
        self._ended = threading.Event()
        self._echo = self._socket(socket.SOCK_STREAM, 7)
        self._echo.listen(64)
        self._datagrams = self._socket(socket.SOCK_DGRAM, 7)
        self._group = self._socket(socket.SOCK_DGRAM, 5000)
        member = socket.inet_aton("239.1.2.3") + socket.inet_aton(KERNEL)
        self._group.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        self._threads = [
            threading.Thread(target=work)
            for work in (
                self._accept,
                self._ask,
                lambda: self._return(self._datagrams),
                lambda: self._return(self._group),
            )
        ]
        for thread in self._threads:
            thread.start()

    def _socket(self, kind: int, port: int | None = None) -> socket.socket:
        with self._host.enter():
            made = socket.socket(socket.AF_INET, kind)
        if port is not None:
            made.bind(("", port))
        made.settimeout(0.1)
        return made

    def _accept(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError):
                taken, _ = self._echo.accept()
                threading.Thread(target=self._talk, args=(taken,)).start()

    def _talk(self, taken: socket.socket) -> None:
        taken.settimeout(10.0)
        with taken, contextlib.suppress(OSError):
            while data := taken.recv(1 << 16):
                taken.sendall(data)

    def _return(self, datagrams: socket.socket) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError):
                datagrams.sendto(*datagrams.recvfrom(1 << 16))

    def _ask(self) -> None:
        while not self._ended.wait(0.005):
            asking = self._socket(socket.SOCK_STREAM)
            with asking, contextlib.suppress(OSError):
                asking.connect((OURS, 80))
                asking.settimeout(10.0)
                sending = threading.Thread(target=self._send, args=(asking,))
                sending.start()
                answer = bytearray()
                try:
                    while data := asking.recv(1 << 16):
                        answer += data
                finally:
                    sending.join()
                self.answered += answer.lower() == QUESTION

    def _send(self, asking: socket.socket) -> None:
        with contextlib.suppress(OSError):
            asking.sendall(QUESTION)
            asking.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End it all."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        for made in (self._echo, self._datagrams, self._group):
            made.close()


@pytest.fixture
def wired() -> Iterator[tuple[Host, Peer]]:
    """A host whose eth1 leads to a peer."""
    with Lab(ipv6=True) as lab:
        ours, other = lab.host("ours"), lab.host("other")
        lab.wire(ours, other, addresses=(None, f"{KERNEL}/24"), names=("eth1", "eth1"))
        peer = Peer(other)
        yield ours, peer
        peer.close()


@pytest.mark.networks
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs(wired: tuple[Host, Peer], number: int) -> None:
    host, peer = wired
    with host.enter():
        exec(compile(EXAMPLES[number], "docs/channels.md", "exec"), {})
    peer.close()
    if ".listen(80)" in EXAMPLES[number]:
        assert peer.answered >= 4


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 6


def test_settings_of_the_stack_are_all_of_them_and_their_defaults(wire_name: str) -> None:
    told = settings("Settings of the stack")
    frames, keys = told.pop("frames"), told.pop("fast_open_keys")
    with Channel(wire_name, "192.0.2.1/24", frames=frames) as channel:
        assert channel.settings == told
    # And each is a keyword.
    with Channel(wire_name, "192.0.2.1/24", frames=frames, fast_open_keys=keys, **told) as channel:
        assert channel.settings == told


def test_settings_of_a_connection_are_all_of_them_and_their_defaults(pair: Any) -> None:
    told = settings("Settings of a connection")
    client, _ = pair.connect()
    assert {name: client.option(name) for name in told} == told
    with pytest.raises(ValueError, match="there are") as refused:
        client.option("TCP_NONSENSE")
    assert set(str(refused.value).split("there are ")[1].split(", ")) == set(told)


def test_what_a_connection_tells_has_these_names(pair: Any) -> None:
    client, _ = pair.connect()
    names = set(re.findall("`(tcpi_[a-z_]+)`", PAGE))
    assert len(names) > 8
    assert names <= set(client.tcp_info())
    counters = set(re.findall("`(drop_[a-z_]+[a-z])`", PAGE))
    assert len(counters) > 2
    assert counters <= set(pair.client.counters())
