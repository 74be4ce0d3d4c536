"""Offloads and queue counts of one interface, by the ethtool ioctl.

The constants and structures are those of linux/ethtool.h. Call these functions inside the
interface's network namespace.
"""

from __future__ import annotations

import array
import errno
import fcntl
import fnmatch
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from millrace.lab.errors import LabError

SIOCETHTOOL = 0x8946
ETHTOOL_GSTRINGS = 0x1B
ETHTOOL_GSSET_INFO = 0x37
ETHTOOL_GFEATURES = 0x3A
ETHTOOL_SFEATURES = 0x3B
ETHTOOL_GCHANNELS = 0x3C
ETH_SS_FEATURES = 4
ETH_GSTRING_LEN = 32

# The short names of ethtool(8) and patterns of the kernel's names they stand for; the kernel adds
# to a family now and then (tx-tcp-accecn-segmentation).
GROUPS: Mapping[str, str] = {
    "rx": "rx-checksum",
    "tx": "tx-checksum-*",
    "sg": "tx-scatter-gather*",
    "tso": "tx-tcp*-segmentation",
    "gso": "tx-generic-segmentation",
    "gro": "rx-gro",
    "lro": "rx-lro",
    "rxvlan": "rx-vlan-hw-parse",
    "txvlan": "tx-vlan-hw-insert",
    "rxhash": "rx-hashing",
}


@dataclass(frozen=True)
class Feature:
    """One offload: whether it is on, and whether it may be switched."""

    active: bool
    changeable: bool


def _ioctl(interface: str, buffer: bytearray) -> None:
    """One SIOCETHTOOL call; the kernel's answer replaces the contents of `buffer`."""
    data = array.array("B", buffer)
    request = struct.pack("16sP16x", interface.encode(), data.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as handle:
        fcntl.ioctl(handle, SIOCETHTOOL, request)
    buffer[:] = data.tobytes()


def _feature_names(interface: str) -> list[str]:
    info = bytearray(struct.pack("=IIQI", ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0))
    _ioctl(interface, info)
    count: int = struct.unpack_from("=I", info, 16)[0]
    head = struct.pack("=III", ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count)
    strings = bytearray(head + bytes(count * ETH_GSTRING_LEN))
    _ioctl(interface, strings)
    cells = (strings[at : at + ETH_GSTRING_LEN] for at in range(12, len(strings), ETH_GSTRING_LEN))
    return [cell.split(b"\0", 1)[0].decode() for cell in cells]


def features(interface: str) -> dict[str, Feature]:
    """Every offload the interface's driver knows of, by the kernel's name."""
    names = _feature_names(interface)
    blocks = (len(names) + 31) // 32
    request = bytearray(struct.pack("=II", ETHTOOL_GFEATURES, blocks) + bytes(16 * blocks))
    _ioctl(interface, request)
    found = {}
    for index, name in enumerate(names):
        available, _, active, never = struct.unpack_from("=4I", request, 8 + 16 * (index // 32))
        bit = 1 << index % 32
        found[name] = Feature(bool(active & bit), bool(available & ~never & bit))
    return found


def set_offloads(interface: str, wanted: Mapping[str, bool]) -> None:
    """Switch offloads, by ethtool's short names (`tso`) or the kernel's (`tx-udp-segmentation`).

    Reads them back: `LabError` if the driver does not know one, cannot switch it or did not.
    """
    if not wanted:
        return
    names = _feature_names(interface)
    present = features(interface)
    targets: dict[str, bool] = {}
    for short, on in wanted.items():
        members = fnmatch.filter(present, GROUPS.get(short, short))
        if not members:
            known = ", ".join([*GROUPS, *sorted(name for name in present if name)])
            raise LabError(f"{interface} has no offload {short!r}; it has: {known}")
        switchable = [name for name in members if present[name].changeable]
        if not switchable and any(present[name].active != on for name in members):
            state = "on" if present[members[0]].active else "off"
            raise LabError(f"the driver of {interface} keeps the offload {short!r} {state}")
        targets.update(dict.fromkeys(switchable, on))

    blocks = (len(names) + 31) // 32
    masks = [[0, 0] for _ in range(blocks)]
    for name, on in targets.items():
        index = names.index(name)
        masks[index // 32][0] |= 1 << index % 32
        masks[index // 32][1] |= on << index % 32
    request = struct.pack("=II", ETHTOOL_SFEATURES, blocks)
    request += b"".join(struct.pack("=II", *mask) for mask in masks)
    _ioctl(interface, bytearray(request))

    after = features(interface)
    refused = [name for name, on in targets.items() if after[name].active != on]
    if refused:
        raise LabError(
            f"{interface} did not switch {', '.join(refused)}; "
            "it may depend on another offload (segmentation needs sg and tx)"
        )


def queue_counts(interface: str) -> tuple[int, int]:
    """How many receive and transmit queues are in use; combined ones count as both."""
    request = bytearray(struct.pack("=9I", ETHTOOL_GCHANNELS, *[0] * 8))
    try:
        _ioctl(interface, request)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return (1, 1)
        raise
    receive, transmit, _, combined = struct.unpack_from("=4I", request, 20)
    return (receive + combined, transmit + combined)
