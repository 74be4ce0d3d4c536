"""What a raw port and the native loops count."""

from __future__ import annotations

from typing import TypedDict


class PortStats(TypedDict):
    """What a port has counted since it was opened."""

    #: Packets and bytes that the port took in, and the calls that brought some.
    rx_packets: int
    rx_bytes: int
    rx_bursts: int
    #: Of these, packets that a filter in this process let not through.
    rx_filtered: int
    #: Of these, packets that were given as copies.
    rx_copied: int
    #: Packets and bytes that the port took to send.
    tx_packets: int
    tx_bytes: int
    #: Of these, packets that were copied into the port's frames.
    tx_copied: int
    #: How often there was no frame to copy one into.
    tx_no_frame: int
    #: System calls to receive, to send and to wake the kernel.
    system_calls: int
    #: Packets that were lost, by the place and the reason.
    drops: dict[str, int]
    #: What only this kind of port counts, under the kernel's names: rings and their like.
    details: dict[str, int]


class LoopStats(TypedDict):
    """What a native loop has done."""

    #: Packets that were dropped on purpose, taken to be sent, or forwarded, and their bytes.
    packets: int
    bytes: int
    #: Bursts that had a packet at least.
    bursts: int
    #: Packets that a filter let not through; not among the packets.
    filtered: int
    #: Turns that found nothing to do.
    idle: int
    #: How long the loop ran.
    seconds: float
    #: Whether nothing will ever come any more: a file or a wire has ended.
    ended: bool


class CaptureProgress(TypedDict):
    """What a capture has done so far."""

    #: Packets that were kept, and their bytes on the wire.
    packets: int
    bytes: int
    #: Of these packets, those that were cut, and those that could not be written.
    cut: int
    unwritten: int
    #: Bytes that were written, and files that were begun.
    written: int
    files: int
    #: Packets that a filter in this process let not through.
    filtered: int
    #: Packets that the port took in, kept or not.
    seen: int
    seconds: float
    #: Packets that were lost, by reason.
    drops: dict[str, int]


class SendProgress(TypedDict):
    """What a generator has sent so far."""

    #: Packets that the port took, and their bytes.
    packets: int
    bytes: int
    #: Packets that were due and were given up, because the port or this machine was too slow.
    behind: int
    #: How often the port had no room.
    stalls: int
    #: Whether the kernel sends the same frames over and over by itself.
    repeated: bool
    seconds: float


class ReplayProgress(TypedDict):
    """What was sent of a capture file so far."""

    #: Packets that the port took, and their bytes.
    packets: int
    bytes: int
    #: Packets that were read; of these, those that the filter let not through, and those that the
    #: port can never send.
    read: int
    filtered: int
    too_long: int
    too_short: int
    #: Packets that were sent as they are in the file, which has not all of their bytes.
    cut: int
    #: Times without a packet that were longer than they may be, and were cut.
    gaps_cut: int
    #: Packets that left more than a millisecond after their time.
    late: int
    #: How often the file was begun.
    times: int
    seconds: float
