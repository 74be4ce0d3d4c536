"""What the kernel's receive path counted on each CPU, from /proc/net/softnet_stat.

The columns are those that softnet_seq_show of net/core/net-procfs.c prints; older kernels print
fewer, and skip CPUs that are offline, so a CPU's number is column 12 where there is one.
"""

from __future__ import annotations

from dataclasses import dataclass

from millrace.host.access import Access


@dataclass(frozen=True, slots=True)
class SoftnetCpu:
    """The receive path of one CPU since the machine started."""

    cpu: int
    processed: int
    #: Packets dropped because the backlog was full (net.core.netdev_max_backlog).
    dropped: int
    #: How often polling ended with work left, for lack of budget or time.
    squeezed: int
    #: How often another CPU woke this one for Receive Packet Steering.
    received_rps: int
    #: Packets dropped by the flow limit, which protects many small flows from a large one.
    flow_limit: int
    #: Packets that wait in the backlog now.
    backlog: int


def read_softnet(access: Access) -> tuple[SoftnetCpu, ...]:
    """Every CPU that is online."""
    return parse(access.files.read("/proc/net/softnet_stat"))


def parse(text: str) -> tuple[SoftnetCpu, ...]:
    """The rows of a softnet_stat."""
    found = []
    for row, line in enumerate(text.splitlines()):
        words = [int(word, 16) for word in line.split()]
        words += [0] * (12 - len(words))
        found.append(
            SoftnetCpu(
                cpu=words[12] if len(words) > 12 else row,
                processed=words[0],
                dropped=words[1],
                squeezed=words[2],
                received_rps=words[9],
                flow_limit=words[10],
                backlog=words[11],
            )
        )
    return tuple(found)
