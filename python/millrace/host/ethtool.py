"""What a driver says of its device and lets one set: the ethtool family of generic netlink.

The numbers are those of linux/ethtool_netlink.h. What netlink does not have (the driver's own
statistics and its name) comes by the older ioctl.
"""

from __future__ import annotations

import array
import errno
import fcntl
import fnmatch
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from millrace.host.access import Access
from millrace.host.netlink import (
    GenericNetlink,
    attribute,
    attributes,
    each_attribute,
    text,
    unsigned,
)
from millrace.host.unavailable import NotAvailable, Reading, because

FAMILY = "ethtool"

_LINKMODES_GET = 4
_FEATURES_GET = 11
_FEATURES_SET = 12
_RINGS_GET, _RINGS_SET = 15, 16
_CHANNELS_GET, _CHANNELS_SET = 17, 18
_COALESCE_GET, _COALESCE_SET = 19, 20
_PAUSE_GET = 21
_TSINFO_GET = 25
_RSS_GET = 38

_HEADER = 1
_HEADER_DEV_NAME = 2
_BITSET_NOMASK = 1
_BITSET_BITS = 3
_BITS_BIT = 1
_BIT_NAME = 2
_BIT_VALUE = 3

_SIOCETHTOOL = 0x8946
_GDRVINFO = 0x3
_GSTRINGS = 0x1B
_GSTATS = 0x1D
_GSSET_INFO = 0x37
_GRXFHINDIR, _SRXFHINDIR = 0x38, 0x39
_SS_STATS = 1
_STRING_BYTES = 32

#: More statistics than this no driver is asked for.
MAX_STATISTICS = 1 << 16

#: ethtool(8)'s short names and patterns of the kernel's names they stand for.
SHORT_NAMES: Mapping[str, str] = {
    "rx": "rx-checksum",
    "tx": "tx-checksum-*",
    "sg": "tx-scatter-gather*",
    "tso": "tx-tcp*-segmentation",
    "gso": "tx-generic-segmentation",
    "gro": "rx-gro",
    "lro": "rx-lro",
    "ntuple": "rx-ntuple-filter",
    "rxhash": "rx-hashing",
}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Rings:
    """Descriptors of each ring."""

    rx: int
    rx_max: int
    tx: int
    tx_max: int


@dataclass(frozen=True, slots=True)
class Channels:
    """Sets of queues. A combined one has both a receive and a transmit queue."""

    rx: int
    rx_max: int
    tx: int
    tx_max: int
    combined: int
    combined_max: int

    @property
    def receive(self) -> int:
        """Receive queues in use."""
        return self.rx + self.combined

    @property
    def receive_max(self) -> int:
        """The most receive queues there can be."""
        return max(self.rx_max, self.combined_max)


@dataclass(frozen=True, slots=True)
class Coalescing:
    """How long a device holds interrupts back, in microseconds and frames.

    A field is None where the driver has no such setting.
    """

    rx_usecs: int | None
    rx_frames: int | None
    tx_usecs: int | None
    tx_frames: int | None
    adaptive_rx: bool | None
    adaptive_tx: bool | None


@dataclass(frozen=True, slots=True)
class Feature:
    """One offload."""

    active: bool
    #: Whether it may be switched.
    changeable: bool


@dataclass(frozen=True, slots=True)
class Rss:
    """How a device spreads flows over its receive queues."""

    #: 1 is Toeplitz (ETH_RSS_HASH_TOP of linux/ethtool.h).
    function: int
    #: The queue for each value of the hash's low bits.
    indirection: tuple[int, ...]
    #: The hash's key in hexadecimal.
    key: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Flow control by pause frames (IEEE 802.3 annex 31B)."""

    autonegotiate: bool
    rx: bool
    tx: bool


@dataclass(frozen=True, slots=True)
class Driver:
    """Which driver a device has, and where the device sits."""

    name: str
    version: str
    firmware: str
    bus: str


@dataclass(frozen=True, slots=True)
class Device:
    """All that a driver says of one interface."""

    name: str
    driver: Reading[Driver]
    rings: Reading[Rings]
    channels: Reading[Channels]
    coalescing: Reading[Coalescing]
    features: Reading[Mapping[str, Feature]]
    rss: Reading[Rss]
    pause: Reading[Pause]
    #: Mbit/s.
    speed: Reading[int]
    #: Hardware timestamps: the number of its clock.
    clock: Reading[int]
    #: The driver's own counters, `ethtool -S`.
    statistics: Reading[Mapping[str, int]]

    def feature(self, short: str) -> bool | None:
        """Whether an offload is on, by ethtool's short name; None if the device has none such."""
        if isinstance(self.features, NotAvailable):
            return None
        pattern = SHORT_NAMES.get(short, short)
        found = [self.features[name] for name in fnmatch.filter(self.features, pattern)]
        if not found or not any(one.active or one.changeable for one in found):
            return None
        return any(one.active for one in found)

    def can_switch(self, short: str) -> bool:
        """Whether an offload may be switched."""
        if isinstance(self.features, NotAvailable):
            return False
        names = fnmatch.filter(self.features, SHORT_NAMES.get(short, short))
        return any(self.features[name].changeable for name in names)


def read_devices(access: Access) -> tuple[Device, ...]:
    """Every interface, as its driver tells it."""
    netlink = access.generic()
    netlink.family(FAMILY)
    return tuple(read_device(netlink, name) for name in access.interfaces())


def read_device(netlink: GenericNetlink, name: str) -> Device:
    """One interface, as its driver tells it."""

    def attempt(what: str, read: Callable[[GenericNetlink, str], _T]) -> Reading[_T]:
        try:
            return read(netlink, name)
        except OSError as error:
            return because(error, f"{what} of {name}")

    return Device(
        name=name,
        driver=attempt("driver", lambda _, name: driver(name)),
        rings=attempt("rings", rings),
        channels=attempt("channels", channels),
        coalescing=attempt("coalescing", coalescing),
        features=attempt("offloads", features),
        rss=attempt("RSS table", rss),
        pause=attempt("pause frames", pause),
        speed=attempt("speed", speed),
        clock=attempt("hardware clock", clock),
        statistics=attempt("driver's statistics", lambda _, name: statistics(name)),
    )


def rings(netlink: GenericNetlink, name: str) -> Rings:
    """`ethtool -g`."""
    got = _get(netlink, _RINGS_GET, name)
    return Rings(rx=got(6), rx_max=got(2), tx=got(9), tx_max=got(5))


def set_rings(
    netlink: GenericNetlink, name: str, *, rx: int | None = None, tx: int | None = None
) -> None:
    """`ethtool -G`; what is None stays."""
    _set(netlink, _RINGS_SET, name, _words({6: rx, 9: tx}))


def channels(netlink: GenericNetlink, name: str) -> Channels:
    """`ethtool -l`."""
    got = _get(netlink, _CHANNELS_GET, name)
    return Channels(
        rx=got(6), rx_max=got(2), tx=got(7), tx_max=got(3), combined=got(9), combined_max=got(5)
    )


def set_channels(
    netlink: GenericNetlink,
    name: str,
    *,
    rx: int | None = None,
    tx: int | None = None,
    combined: int | None = None,
) -> None:
    """`ethtool -L`; what is None stays."""
    _set(netlink, _CHANNELS_SET, name, _words({6: rx, 7: tx, 9: combined}))


def coalescing(netlink: GenericNetlink, name: str) -> Coalescing:
    """`ethtool -c`."""
    found = attributes(_answer(netlink, _COALESCE_GET, name))

    def number(kind: int) -> int | None:
        return unsigned(found[kind]) if kind in found else None

    def switch(kind: int) -> bool | None:
        return bool(unsigned(found[kind])) if kind in found else None

    return Coalescing(
        rx_usecs=number(2),
        rx_frames=number(3),
        tx_usecs=number(6),
        tx_frames=number(7),
        adaptive_rx=switch(11),
        adaptive_tx=switch(12),
    )


def set_coalescing(netlink: GenericNetlink, name: str, **wanted: int | bool) -> None:
    """`ethtool -C`, by the names of `Coalescing`."""
    kinds = {"rx_usecs": 2, "rx_frames": 3, "tx_usecs": 6, "tx_frames": 7}
    switches = {"adaptive_rx": 11, "adaptive_tx": 12}
    request = _words({kinds[key]: int(value) for key, value in wanted.items() if key in kinds})
    request += [
        attribute(switches[key], bytes([bool(value)]))
        for key, value in wanted.items()
        if key in switches
    ]
    _set(netlink, _COALESCE_SET, name, request)


def features(netlink: GenericNetlink, name: str) -> Mapping[str, Feature]:
    """`ethtool -k`, by the kernel's names."""
    found = attributes(_answer(netlink, _FEATURES_GET, name))
    changeable, active, fixed = (_bits(found.get(kind, b"")) for kind in (2, 4, 5))
    return {
        bit: Feature(active=bit in active, changeable=bit in changeable and bit not in fixed)
        for bit in sorted(changeable | active)
    }


def set_features(netlink: GenericNetlink, name: str, wanted: Mapping[str, bool]) -> None:
    """`ethtool -K`, by the kernel's names. The driver may leave some as they are: read back."""
    bits = []
    for bit, on in sorted(wanted.items()):
        parts = [attribute(_BIT_NAME, bit)]
        if on:
            parts.append(attribute(_BIT_VALUE, b""))
        bits.append(attribute(_BITS_BIT, parts))
    _set(netlink, _FEATURES_SET, name, [attribute(3, [attribute(_BITSET_BITS, bits)])])


def rss(netlink: GenericNetlink, name: str) -> Rss:
    """`ethtool -x`."""
    found = attributes(_answer(netlink, _RSS_GET, name))
    table = found.get(4, b"")
    entries = struct.unpack(f"={len(table) // 4}I", table[: len(table) // 4 * 4])
    return Rss(unsigned(found.get(3, b"")), entries, found.get(5, b"").hex())


def pause(netlink: GenericNetlink, name: str) -> Pause:
    """`ethtool -a`."""
    got = _get(netlink, _PAUSE_GET, name)
    return Pause(autonegotiate=bool(got(2)), rx=bool(got(3)), tx=bool(got(4)))


def speed(netlink: GenericNetlink, name: str) -> int:
    """The link's speed in Mbit/s; `OSError` where the device does not know."""
    value = _get(netlink, _LINKMODES_GET, name)(5)
    if value in (0, 0xFFFF_FFFF):
        raise OSError(errno.EOPNOTSUPP, "unknown")
    return value


def clock(netlink: GenericNetlink, name: str) -> int:
    """The number of the device's PTP clock; `OSError` if it makes timestamps in software only."""
    found = attributes(_answer(netlink, _TSINFO_GET, name))
    if 5 not in found:
        raise OSError(errno.EOPNOTSUPP, "software timestamps only")
    return unsigned(found[5])


def driver(name: str) -> Driver:
    """`ethtool -i`."""
    info = bytearray(struct.pack("=I", _GDRVINFO) + bytes(192))
    _ioctl(name, info)
    words = [text(bytes(info[at : at + 32])) for at in (4, 36, 68, 100)]
    return Driver(*words)


def statistics(name: str) -> Mapping[str, int]:
    """`ethtool -S`: the driver's own counters by their names."""
    info = bytearray(struct.pack("=IIQI", _GSSET_INFO, 0, 1 << _SS_STATS, 0))
    _ioctl(name, info)
    count: int = struct.unpack_from("=I", info, 16)[0]
    mask: int = struct.unpack_from("=Q", info, 8)[0]
    if not mask or not count:
        return {}
    if count > MAX_STATISTICS:
        raise OSError(errno.E2BIG, f"{count} statistics")
    head = struct.pack("=III", _GSTRINGS, _SS_STATS, count)
    strings = bytearray(head + bytes(count * _STRING_BYTES))
    _ioctl(name, strings)
    values = bytearray(struct.pack("=II", _GSTATS, count) + bytes(8 * count))
    _ioctl(name, values)
    # A driver may have grown or lost queues between the calls; the kernel says how many it wrote.
    got = min(
        count, *(struct.unpack_from("=I", data, at)[0] for data, at in ((strings, 8), (values, 4)))
    )
    names = [text(bytes(strings[12 + 32 * at : 44 + 32 * at])).strip() for at in range(got)]
    return dict(zip(names, struct.unpack_from(f"={got}Q", values, 8), strict=True))


def indirection_by_ioctl(name: str) -> list[int]:
    """The RSS table as the ioctl gives it, for kernels without the netlink message."""
    request = bytearray(struct.pack("=II", _GRXFHINDIR, 0))
    _ioctl(name, request)
    size: int = struct.unpack_from("=I", request, 4)[0]
    request = bytearray(struct.pack("=II", _GRXFHINDIR, size) + bytes(4 * size))
    _ioctl(name, request)
    return list(struct.unpack_from(f"={size}I", request, 8))


def set_indirection(name: str, table: list[int]) -> None:
    """`ethtool -X`: the queue for each entry of the RSS table; no entries: the driver's default."""
    request = struct.pack("=II", _SRXFHINDIR, len(table))
    _ioctl(name, bytearray(request + struct.pack(f"={len(table)}I", *table)))


def _ioctl(name: str, buffer: bytearray) -> None:
    data = array.array("B", buffer)
    request = struct.pack("16sP16x", name.encode()[:15], data.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as handle:
        fcntl.ioctl(handle, _SIOCETHTOOL, request)
    buffer[:] = data.tobytes()


def _answer(netlink: GenericNetlink, command: int, name: str) -> bytes:
    header = attribute(_HEADER, [attribute(_HEADER_DEV_NAME, name)])
    answers = netlink.command(FAMILY, command, header)
    if not answers:
        raise OSError(errno.ENODATA, "the kernel gave no answer")
    return answers[0]


def _get(netlink: GenericNetlink, command: int, name: str) -> Callable[[int], int]:
    found = attributes(_answer(netlink, command, name))
    return lambda kind: unsigned(found.get(kind, b""))


def _set(netlink: GenericNetlink, command: int, name: str, request: list[bytes]) -> None:
    header = attribute(_HEADER, [attribute(_HEADER_DEV_NAME, name)])
    netlink.command(FAMILY, command, header, *request)


def _words(values: Mapping[int, int | None]) -> list[bytes]:
    return [attribute(kind, value) for kind, value in values.items() if value is not None]


def _bits(bitset: bytes) -> set[str]:
    """The names of the bits that are set."""
    found = attributes(bitset)
    names = set()
    for _, bit in each_attribute(found.get(_BITSET_BITS, b"")):
        parts = attributes(bit)
        if _BITSET_NOMASK in found or _BIT_VALUE in parts:
            names.add(text(parts.get(_BIT_NAME, b"")))
    return names
