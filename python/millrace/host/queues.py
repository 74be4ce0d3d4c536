"""Software steering and byte limits of each queue, from sysfs.

Documentation/networking/scaling.rst and Documentation/ABI/testing/sysfs-class-net-queues.
"""

from __future__ import annotations

from dataclasses import dataclass

from millrace.host.access import Access
from millrace.host.cpuset import parse_mask
from millrace.host.files import Files
from millrace.host.unavailable import NotAvailable, Reading


@dataclass(frozen=True, slots=True)
class ReceiveQueue:
    """A receive queue as the kernel's software steers its packets."""

    interface: str
    queue: int
    #: CPUs that Receive Packet Steering spreads packets over; none: it is off.
    rps_cpus: Reading[tuple[int, ...]]
    #: Entries of its table for Receive Flow Steering; 0: it is off.
    rps_flow_count: Reading[int]


@dataclass(frozen=True, slots=True)
class TransmitQueue:
    """A transmit queue: who may use it, and how full the kernel lets it be."""

    interface: str
    queue: int
    #: CPUs that Transmit Packet Steering sends here; none: it is off.
    xps_cpus: Reading[tuple[int, ...]]
    #: How often the driver was found hanging.
    timeouts: Reading[int]
    #: Bytes that Byte Queue Limits allows in flight.
    limit: Reading[int]
    inflight: Reading[int]
    #: How often it stood still (BQL's stall detection).
    stalls: Reading[int]


def read_receive_queues(access: Access) -> tuple[ReceiveQueue, ...]:
    """Every receive queue."""
    files = access.files
    return tuple(
        ReceiveQueue(
            interface=name,
            queue=number,
            rps_cpus=_mask(files, f"{folder}/rps_cpus"),
            rps_flow_count=files.number(f"{folder}/rps_flow_cnt"),
        )
        for name in access.interfaces()
        for number, folder in _folders(files, name, "rx-")
    )


def read_transmit_queues(access: Access) -> tuple[TransmitQueue, ...]:
    """Every transmit queue."""
    files = access.files
    return tuple(
        TransmitQueue(
            interface=name,
            queue=number,
            xps_cpus=_mask(files, f"{folder}/xps_cpus"),
            timeouts=files.number(f"{folder}/tx_timeout"),
            limit=files.number(f"{folder}/byte_queue_limits/limit"),
            inflight=files.number(f"{folder}/byte_queue_limits/inflight"),
            stalls=files.number(f"{folder}/byte_queue_limits/stall_cnt"),
        )
        for name in access.interfaces()
        for number, folder in _folders(files, name, "tx-")
    )


def _folders(files: Files, interface: str, prefix: str) -> list[tuple[int, str]]:
    base = f"/sys/class/net/{interface}/queues"
    found = []
    for name in files.names(base):
        number = name.removeprefix(prefix)
        if name.startswith(prefix) and number.isdecimal():
            found.append((int(number), f"{base}/{name}"))
    return sorted(found)


def _mask(files: Files, path: str) -> Reading[tuple[int, ...]]:
    text = files.text(path)
    if isinstance(text, NotAvailable):
        return text
    try:
        return tuple(sorted(parse_mask(text)))
    except ValueError as error:
        return NotAvailable(f"{path}: {error}")
