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
