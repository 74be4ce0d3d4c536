"""Multicast over channels on a memory wire."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from millrace.net import DATAGRAM, Completion

GROUP = "239.1.2.3"


def datagrams(pair: Any, turns: int = 50) -> list[Completion]:
    """What the server is told in so many turns."""
    told: list[Completion] = []
    for _ in range(turns):
        told.extend(pair.turn()[1])
    return [one for one in told if one.kind is DATAGRAM]


def test_members_get_what_is_sent_to_the_group(pair: Any) -> None:
    member = pair.server.datagram(53)
    sender = pair.client.datagram(4000)
    sender.send(b"too soon", (GROUP, 53))
    assert datagrams(pair) == []
    member.join_group(GROUP)
    sender.send(b"question", (GROUP, 53))
    told = datagrams(pair)
    assert [one.tobytes() for one in told] == [b"question"]
    assert told[0].source == ("192.0.2.1", 4000)
    assert pair.server.counters()["multicast_reports"] >= 1
    member.leave_group(GROUP)
    sender.send(b"too late", (GROUP, 53))
    assert datagrams(pair) == []


def test_sources_are_chosen(pair: Any) -> None:
    member = pair.server.datagram(53)
    sender = pair.client.datagram(4000)
    member.join_group(GROUP, "192.0.2.77")
    sender.send(b"not wanted", (GROUP, 53))
    assert datagrams(pair) == []
    member.join_group(GROUP, "192.0.2.1")
    sender.send(b"wanted", (GROUP, 53))
    assert [one.tobytes() for one in datagrams(pair)] == [b"wanted"]
    member.leave_group(GROUP)
    member.join_group(GROUP)
    member.block_source(GROUP, "192.0.2.1")
    sender.send(b"blocked", (GROUP, 53))
    assert datagrams(pair) == []
    member.unblock_source(GROUP, "192.0.2.1")
    sender.send(b"again", (GROUP, 53))
    assert [one.tobytes() for one in datagrams(pair)] == [b"again"]


def test_members_here_hear_what_is_sent_from_here(pair: Any) -> None:
    member = pair.server.datagram(53)
    member.join_group(GROUP)
    member.multicast_ttl(0)
    member.send(b"to ourselves", (GROUP, 53))
    assert [one.tobytes() for one in datagrams(pair)] == [b"to ourselves"]
    member.multicast_loop(False)
    member.send(b"to nobody", (GROUP, 53))
    assert datagrams(pair) == []


def test_what_makes_no_sense_is_an_error(pair: Any) -> None:
    socket = pair.server.datagram(53)
    with pytest.raises(ValueError, match="no multicast group"):
        socket.join_group("192.0.2.1")
    socket.join_group(GROUP)
    with pytest.raises(OSError, match="already") as failure:
        socket.join_group(GROUP)
    assert failure.value.errno == errno.EEXIST
    with pytest.raises(OSError, match="no such member") as failure:
        socket.leave_group("239.9.9.9")
    assert failure.value.errno == errno.EADDRNOTAVAIL
    for ttl in (-1, 256):
        with pytest.raises(ValueError, match=f"^ttl is a whole number from 0 to 255, not {ttl}"):
            socket.multicast_ttl(ttl)
    with pytest.raises(OSError, match="not an address"):
        socket.multicast_source("192.0.2.77")
    socket.multicast_source("192.0.2.2")
    socket.multicast_source(None)
    listener = pair.server.listen(81)
    with pytest.raises(ValueError, match="datagram socket"):
        listener.join_group(GROUP)
