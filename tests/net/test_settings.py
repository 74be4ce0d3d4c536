"""Settings of the stack by name: what they are, what they do, and how far they go."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from millrace.net import CLOSED, Channel

#: Bits of tcpi_options (linux/tcp.h).
TIMESTAMPS, SACK, WINDOW_SCALING = 1, 2, 4
SERVER = "192.0.2.2"
DATA = bytes(range(250)) * 40
OURS, THEIRS = ["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.2/24", "2001:db8::2/64"]
_names = (f"memory:settings-{number}" for number in itertools.count())


@pytest.fixture
def defaults(wire_name: str) -> dict[str, Any]:
    with Channel(wire_name, "192.0.2.1/24", frames=512) as channel:
        return channel.settings


def test_what_is_given_is_told(wire_name: str) -> None:
    given: dict[str, Any] = {
        "rack": False,
        "mtu_probing": "always",
        "time_wait_reuse": "never",
        "syn_cookies": "off",
        "congestion": "bbr",
        "user_timeout": 7,
        "min_rto": Decimal("0.25"),
        "ephemeral_ports": (5000, 6000),
        "multicast_groups": 3,
    }
    with Channel(wire_name, "192.0.2.1/24", fast_open_keys=[bytes(16)], **given) as channel:
        told = channel.settings
    assert {name: told[name] for name in given} == {**given, "min_rto": 0.25}
    assert "fast_open_keys" not in told


def test_none_is_no_timeout(wire_name: str) -> None:
    with Channel(wire_name, "192.0.2.1/24", user_timeout=None) as channel:
        assert channel.settings["user_timeout"] is None
    with pytest.raises(TypeError, match="min_rto is a number of seconds, not None"):
        Channel(wire_name, "192.0.2.1/24", min_rto=None)


@pytest.mark.parametrize(
    ("name", "bit"),
    [("timestamps", TIMESTAMPS), ("sack", SACK), ("window_scaling", WINDOW_SCALING)],
)
def test_an_option_that_is_off_is_not_agreed_on(make_pair: Any, name: str, bit: int) -> None:
    everything = TIMESTAMPS | SACK | WINDOW_SCALING
    for side, expected in (({}, everything), ({name: False}, everything & ~bit)):
        pair = make_pair(server=side)
        pair.server.listen(80)
        for handle in pair.connect():
            assert handle.tcp_info()["tcpi_options"] & everything == expected


@pytest.mark.parametrize(
    ("client", "server", "early"),
    [
        ({}, {}, True),
        ({"fast_open_client": False}, {}, False),
        ({}, {"fast_open_server": False}, False),
        (
            {"fast_open_client_without_cookie": True},
            {"fast_open_server_without_cookie": True},
            True,
        ),
    ],
)
def test_data_in_syns(
    make_pair: Any, client: dict[str, Any], server: dict[str, Any], early: bool
) -> None:
    pair = make_pair(client=client, server=server)
    pair.server.listen(80, fast_open=8)
    without = "fast_open_client_without_cookie" in client
    # The first fetches a cookie, where one is needed.
    for _ in range(1 if without else 2):
        before = pair.server.counters()["fast_open_passive"]
        handle = pair.client.connect((SERVER, 80), data=DATA[:500])
        got = bytearray()

        def done(_: list[Any], server: list[Any], got: bytearray = got) -> bool:
            got += b"".join(one.data for one in server)
            return len(got) == 500

        pair.until(done)
        assert got == DATA[:500]
        handle.close()
    assert pair.server.counters()["fast_open_passive"] - before == early


def test_keys_of_fast_open_are_those_of_all_servers(make_pair: Any) -> None:
    for wrong in ([b"short"], [bytes(16)] * 3):
        with pytest.raises(ValueError, match=r"at most two|more than 2"):
            make_pair(fast_open_keys=wrong)
    with pytest.raises(TypeError, match="fast_open_keys is a sequence of at most two keys"):
        make_pair(fast_open_keys=5)


def edges(name: str, value: Any, wire: str) -> Iterator[Any]:
    """The least and the largest values that its type has, and one beside each."""
    if isinstance(value, bool | str | tuple):
        return
    if isinstance(value, int):
        unbounded: dict[str, Any] = {name: 1 << 70}
        with pytest.raises(ValueError, match=name) as refused:
            Channel(wire, "192.0.2.1/24", **unbounded)
        found = re.search(r"from 0 to (\d+), not", str(refused.value))
        assert found is not None, refused.value
        yield from (0, 1, int(found[1]) - 1, int(found[1]))
    else:
        yield from (0.0, 1e-9, 1e-3, 1e10, float(1 << 100))


def exchange(name: str, value: Any, remote: str) -> None:
    """Open a channel so, and send what has to arrive, or the connection says why not."""
    wire = next(_names)
    options: dict[str, Any] = {"dad_transmits": 0, name: value}
    try:
        ours = Channel(wire, OURS, frames=2048, hugepages=False, **options)
    except (ValueError, OSError) as refused:
        refusal = str(refused)
    else:
        refusal = ""
    if refusal:
        assert name in refusal
        return
    theirs = Channel(wire, THEIRS, frames=2048, hugepages=False, dad_transmits=0)
    try:
        carry(ours, theirs, remote)
    finally:
        ours.close(0)
        theirs.close(0)


def carry(ours: Channel, theirs: Channel, remote: str) -> None:
    """All bytes arrive, or ours is told why not."""
    theirs.listen(80)
    handle = ours.connect((remote, 80))
    handle.write(DATA)
    got = bytearray()
    for _ in range(20_000):
        for channel in (ours, theirs):
            for told in channel.turn(0.001) or []:
                got += told.data
                if told.kind is CLOSED and told.handle is handle:
                    assert told.error is not None
                    return
        if len(got) == len(DATA):
            break
    assert got == DATA, f"{len(got)} bytes"


def test_all_edges_work_or_are_refused_by_name(defaults: dict[str, Any]) -> None:
    assert len(defaults) > 100
    tried = 0
    for name, default in defaults.items():
        for value in edges(name, default, next(_names)):
            for remote in ("192.0.2.2", "2001:db8::2"):
                if name == "dad_transmits" and ":" in remote and value >= 254:
                    # Four minutes until the address may be used.
                    continue
                try:
                    exchange(name, value, remote)
                except AssertionError as error:
                    raise AssertionError(f"{name}={value}: {error}") from error
                tried += 1
    assert tried > 500
