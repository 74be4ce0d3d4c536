"""Opening a port to send by."""

from __future__ import annotations

from typing import Any

from millrace._native.packets import Port
from millrace.packets.open import open

#: A pace that a packet socket keeps up with on any machine: nothing faster is needed for it.
_SLOW = 50_000


def sender(name: str, packets_per_s: float | None = None, **options: Any) -> Port:
    """Open a port that only sends, by what is fastest for the interface; `Port.facts["chosen"]`
    says what that is and why.

    Frames that the kernel makes itself ("xdp_live:eth1") are the fastest, then AF_XDP, then
    AF_PACKET. For a pace of at most 50,000 packets a second it is AF_PACKET, which needs no core of
    its own and is counted by everything on the way. A name with a kind is that kind.

    `options` are those of `millrace.open`. Raises what that raises.
    """
    if packets_per_s is not None and packets_per_s <= _SLOW and ":" not in name:
        name = f"af_packet:{name}"
    if name.startswith(("af_xdp:", "xdp_live:")) or ":" not in name:
        options["receive"] = False
    return open(name, **options)
