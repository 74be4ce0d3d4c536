"""Raw packets: ports that give and take whole batches.

    import millrace

    with millrace.open("af_packet:eth1") as port:
        for batch in port:
            headers = batch.headers()
            print(len(batch), headers["length"].sum(), set(headers["source_port"]))

A `Batch` is columns over one piece of memory: NumPy arrays of offsets, lengths and timestamps, the
bytes as one buffer, each packet as a memoryview, and one structured array of all headers. Nothing
is copied, and no view ever shows another packet's bytes. `open`, `Port`, `Batch` and
`Filter` are in `millrace` too.

`Capture` writes packets into files, `Replay` sends files again, and `millrace.packets.generator`
makes traffic and measures what became of it.
"""

from __future__ import annotations

from millrace._native.packets import (
    HEADER_FIELDS,
    HEADER_SIZE,
    Batch,
    Flags,
    Port,
    l2fwd,
    rxdrop,
    txpush,
)
from millrace.packets.capture import Capture, CaptureReport, TopFlow
from millrace.packets.filter import Filter, FilterError
from millrace.packets.forward import Direction, ForwardError, Totals, forward
from millrace.packets.open import open
from millrace.packets.replay import Replay, ReplayReport
from millrace.packets.sender import sender
from millrace.packets.stats import LoopStats, PortStats

__all__ = [
    "HEADER_FIELDS",
    "HEADER_SIZE",
    "Batch",
    "Capture",
    "CaptureReport",
    "Direction",
    "Filter",
    "FilterError",
    "Flags",
    "ForwardError",
    "LoopStats",
    "Port",
    "PortStats",
    "Replay",
    "ReplayReport",
    "TopFlow",
    "Totals",
    "forward",
    "l2fwd",
    "open",
    "rxdrop",
    "sender",
    "txpush",
]
