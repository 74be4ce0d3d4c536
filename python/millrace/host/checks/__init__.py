"""The checks of `millrace doctor`, one small function each, in one table.

A module holds the checks of one subject. To add one, write a function beside its like (see
`table.py`), and a test of the same name. Importing this package fills the table.
"""

from millrace.host.checks import (  # noqa: F401  the imports fill the table
    accept,
    cpu,
    drops,
    interrupts,
    ip,
    memory,
    nic,
    offloads,
    own,
    platform,
    ring,
    sockets,
    softnet,
    steering,
    tcp,
    tcp_settings,
    transmit,
)
from millrace.host.checks.table import CHECKS, Check, Context, Goal

__all__ = ["CHECKS", "Check", "Context", "Goal"]
