"""Faults: each spoils the healthy server of a recording so that one check must say so.

A module for each of `millrace.host.checks`. What lies in them registers itself (`register`).
"""

from . import (  # noqa: F401 - for what they register
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
from .register import FAULTS, Fault

__all__ = ["FAULTS", "Fault"]
