"""Queues, NAPI instances and XDP features, by the netdev family of generic netlink.

The numbers are those of linux/netdev.h, their meanings those of the kernel's
Documentation/netlink/specs/netdev.yaml.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field

from millrace.host.access import Access
from millrace.host.netlink import attribute, attributes, unsigned

FAMILY = "netdev"
_DEV_GET = 1
_QUEUE_GET = 10
_NAPI_GET = 11
_QSTATS_GET = 12

XDP_FEATURES = (
    "basic",
    "redirect",
    "ndo-xmit",
    "xsk-zerocopy",
    "hw-offload",
    "rx-sg",
    "ndo-xmit-sg",
)

QUEUE_COUNTERS: Mapping[int, str] = {
    8: "rx-packets",
    9: "rx-bytes",
    10: "tx-packets",
    11: "tx-bytes",
    12: "rx-alloc-fail",
    13: "rx-hw-drops",
    14: "rx-hw-drop-overruns",
    15: "rx-csum-complete",
    16: "rx-csum-unnecessary",
    17: "rx-csum-none",
    18: "rx-csum-bad",
    19: "rx-hw-gro-packets",
    20: "rx-hw-gro-bytes",
    21: "rx-hw-gro-wire-packets",
    22: "rx-hw-gro-wire-bytes",
    23: "rx-hw-drop-ratelimits",
    24: "tx-hw-drops",
    25: "tx-hw-drop-errors",
    26: "tx-csum-none",
    27: "tx-needs-csum",
    28: "tx-hw-gso-packets",
    29: "tx-hw-gso-bytes",
    30: "tx-hw-gso-wire-packets",
    31: "tx-hw-gso-wire-bytes",
    32: "tx-hw-drop-ratelimits",
    33: "tx-stop",
    34: "tx-wake",
}


@dataclass(frozen=True, slots=True)
class Napi:
    """One NAPI instance: what polls a receive queue."""

    id: int
    index: int
    #: The interrupt it is woken by; 0 if the driver does not say.
    irq: int
    #: Its thread if it is threaded; 0 otherwise.
    pid: int
    threaded: bool
    defer_hard_irqs: int
    #: Nanoseconds.
    gro_flush_timeout: int
    #: Nanoseconds.
    irq_suspend_timeout: int


@dataclass(frozen=True, slots=True)
class QueueCounters:
    """Which NAPI instance serves a queue, and what the driver counted for it."""

    index: int
    #: "rx" or "tx".
    way: str
    queue: int
    #: 0 if the driver does not say.
    napi: int
    counters: Mapping[str, int] = field(default_factory=dict)


def read_xdp_features(access: Access) -> Mapping[int, tuple[str, ...]]:
    """What each interface's driver can do with XDP."""
    found = {}
    for answer in access.generic().all(FAMILY, _DEV_GET):
        parts = attributes(answer)
        bits = unsigned(parts.get(3, b""))
        names = tuple(name for at, name in enumerate(XDP_FEATURES) if bits >> at & 1)
        found[unsigned(parts.get(1, b""))] = names
    return found


def read_napis(access: Access) -> tuple[Napi, ...]:
    """Every NAPI instance of this namespace."""
    found = []
    for answer in access.generic().all(FAMILY, _NAPI_GET):
        got = {kind: unsigned(value) for kind, value in attributes(answer).items()}
        found.append(
            Napi(
                id=got.get(2, 0),
                index=got.get(1, 0),
                irq=got.get(3, 0),
                pid=got.get(4, 0),
                threaded=bool(got.get(8, 0)) or got.get(4, 0) != 0,
                defer_hard_irqs=got.get(5, 0),
                gro_flush_timeout=got.get(6, 0),
                irq_suspend_timeout=got.get(7, 0),
            )
        )
    return tuple(sorted(found, key=lambda napi: napi.id))


def read_queue_counters(access: Access) -> tuple[QueueCounters, ...]:
    """Every queue that a driver registered, with the counters it has."""
    netlink = access.generic()
    napis: dict[tuple[int, str, int], int] = {}
    for answer in netlink.all(FAMILY, _QUEUE_GET):
        got = {kind: unsigned(value) for kind, value in attributes(answer).items()}
        napis[got.get(2, 0), _way(got.get(3, 0)), got.get(1, 0)] = got.get(4, 0)
    counters: dict[tuple[int, str, int], dict[str, int]] = {}
    per_queue = attribute(4, (1).to_bytes(8, "little"))  # NETDEV_QSTATS_SCOPE_QUEUE
    try:
        answers = netlink.all(FAMILY, _QSTATS_GET, per_queue)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        answers = []
    for answer in answers:
        got = {kind: unsigned(value) for kind, value in attributes(answer).items()}
        key = (got.get(1, 0), _way(got.get(2, 0)), got.get(3, 0))
        counters[key] = {name: got[kind] for kind, name in QUEUE_COUNTERS.items() if kind in got}
    return tuple(
        QueueCounters(*key, napis.get(key, 0), counters.get(key, {}))
        for key in sorted(napis.keys() | counters.keys())
    )


def _way(number: int) -> str:
    return "tx" if number == 1 else "rx"
