"""What running Millrace processes say of themselves.

The figures come from the pages that `millrace.watch` reads. Where that is not there, or no process
publishes any, the snapshot says so.
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
