"""What only Millrace's own machinery can tell: its channels, and the kernel's reasons for drops.

The figures of channels come from the pages that `millrace.watch` reads, and the reasons from the
tracepoint that it counts. Where neither is at work, the snapshot says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from millrace.host.access import Access
from millrace.host.unavailable import NotAvailable, Unavailable


@dataclass(frozen=True, slots=True)
class OwnChannel:
    """One channel of one process."""

    pid: int
    process: str
    #: Such as "af_xdp:eth0".
    port: str
    #: The CPU its thread ran on last, or -1.
    cpu: int
    #: Counters and gauges by their names.
    values: Mapping[str, int] = field(default_factory=dict)


def read_own(access: Access) -> tuple[OwnChannel, ...]:
    """The channels of every Millrace process that publishes its figures and that we may read."""
    raise Unavailable(NotAvailable("no Millrace process publishes its figures"))


def read_drops(access: Access) -> Mapping[str, int]:
    """Packets dropped by reason, while something counts them."""
    raise Unavailable(NotAvailable("nothing counts drops by reason; millrace drops does"))
