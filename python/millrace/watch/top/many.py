"""Looks at machines with many interfaces: what rtnetlink and drivers tell takes too long there.

Names and states are read from time to time, and the counters of every look from /proc/net/dev
(proc_net(5)), a line for each interface.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millrace.host.snapshot import Snapshot

#: From so many interfaces on it is done this way.
MANY = 24

#: Names of struct rtnl_link_stats64 for the columns.
_COLUMNS = (
    "rx_bytes",
    "rx_packets",
    "rx_errors",
    "rx_dropped",
    "rx_fifo_errors",
    "rx_frame_errors",
    "rx_compressed",
    "multicast",
    "tx_bytes",
    "tx_packets",
    "tx_errors",
    "tx_dropped",
    "tx_fifo_errors",
    "collisions",
    "tx_carrier_errors",
    "tx_compressed",
)
#: Parts of a snapshot that are left out or taken over from an earlier one.
SLOW = ("links", "devices")


def counters(text: str) -> dict[str, Mapping[str, int]]:
    """The counters of each interface in a /proc/net/dev."""
    found: dict[str, Mapping[str, int]] = {}
    for line in text.splitlines()[2:]:
        name, colon, numbers = line.partition(":")
        words = numbers.split()
        if colon and len(words) == len(_COLUMNS) and all(word.isdecimal() for word in words):
            found[name.strip()] = dict(zip(_COLUMNS, map(int, words), strict=True))
    return found


def overlay(machine: Snapshot, links: Snapshot) -> Snapshot:
    """A snapshot with the interfaces of an earlier one and their counters of now."""
    # Of this thread's namespace, which need not be the process's.
    now = counters(Path("/proc/thread-self/net/dev").read_text())
    return replace(
        machine,
        links=tuple(
            replace(link, statistics=now[link.name])
            for link in links.links or ()
            if link.name in now
        ),
    )
