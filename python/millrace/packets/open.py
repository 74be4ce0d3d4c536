"""Opening a raw port."""

from __future__ import annotations

from typing import Any, Literal

from millrace._native.packets import Port
from millrace.packets.filter import Filter

#: The two ready ways to receive.
Mode = Literal["throughput", "latency"]


def open(
    name: str,
    *,
    filter: str | Filter | None = None,
    mode: Mode = "throughput",
    batch: int | None = None,
    linger: float | None = None,
    wait: Literal["sleep", "spin"] | float | None = None,
    **options: Any,
) -> Port:
    """Open a port by its name.

    `KIND:NAME` with a kind of `PORT_KINDS`: "af_packet:eth1" sees what Linux sees, "af_xdp:eth1"
    takes the packets of all its queues away from Linux, "af_xdp:eth1#0" those of one, "tap:mill0"
    makes an interface of that name, "pcap:trace.pcapng" reads a capture file ("pcap:,new.pcapng"
    writes one), "memory:left" is one of the two ends of a wire in this process. "eth1" alone
    becomes AF_XDP where Linux has no address on the interface, else AF_PACKET; `Port.facts` says
    which and why.

    `filter` is an expression of tcpdump's language: only such packets are given. It runs in the
    kernel where it can, and decides the same everywhere.

    `mode` is "throughput" (batches of up to 64 packets; one that is not full waits `linger` for
    more, 50 µs; sleeps while there is nothing) or "latency" (each packet at once; spins, and polls
    the driver where it can). `batch`, `linger` (seconds) and `wait` ("sleep", "spin", or
    microseconds to spin before sleeping) change one thing about it.

    Options:
        frames, frame_size: number and bytes of the frames that packets lie in.
        hugepages: True for huge pages or an error, False for none; without it as there are.
        arena: another port, whose frames this one shares; batches pass between them uncopied.
        mtu: bytes of the largest IP packet of a TAP interface or a wire in memory.
        receive: False for a port that only sends. AF_XDP then takes nothing away from Linux, and an
            interface's name alone becomes the fastest way out of it: frames that the kernel makes
            itself ("xdp_live:eth1"), AF_XDP or AF_PACKET.
        promiscuous: whether AF_PACKET takes what is addressed to others, too (True).
        outgoing: whether AF_PACKET shows what this host sends, too (False).
        snap_length: most bytes kept of a packet, 0 for all; the rest is cut off (`Flags.CUT`).
        timestamps: of AF_PACKET: "auto" (the network card's where it stamps everything already),
            "hardware" (it is made to, while the port is open, or an error), "software".
        ring, ring_bytes: of AF_PACKET: "v2" (each packet at once) or "v3" (blocks, up to a
            millisecond late, for capture), and its size.
        attach: False leaves AF_XDP's program to another, such as one of `millrace.xdp` whose
            `XskMap` has this port: the port gets what that redirects to it.
        xdp: "auto", "native" or "generic".
        zero_copy: True for zero-copy or an error, False for copies; without it as the driver can.
        busy_poll: microseconds that AF_XDP may poll the driver in one call, 0 for none; without
            it 20 in the mode "latency" where there are interrupts to be saved.
        original_pace: whether a capture file is given at the pace at which it was captured.

    Raises ValueError for what makes no sense (FilterError for an expression), FileNotFoundError for
    an interface or a file that is not there, PermissionError, or another OSError that says what is
    in the way.
    """
    if mode not in ("throughput", "latency"):
        raise ValueError(f"mode is 'throughput' or 'latency', not {mode!r}")
    if isinstance(filter, str):
        filter = Filter(filter)
    if filter is not None:
        options["filter"] = filter
    return Port(name, latency=mode == "latency", batch=batch, linger=linger, wait=wait, **options)
