"""Channels: TCP and UDP over Millrace's own stack, in batches, for one thread each.

A `Channel` owns a port and an address. Each turn of its loop gives a list of `Completion`s, each of
a `Kind`, about a `Handle`. Everything here is also in `millrace` itself.
"""

from __future__ import annotations

from millrace._native import (
    ACCEPTED,
    CLOSED,
    CONNECTED,
    DATAGRAM,
    FINISHED,
    PORT_KINDS,
    READ,
    WRITTEN,
    Channel,
    Completion,
    ConnectionInfo,
    Handle,
    Kind,
)

__all__ = [
    "ACCEPTED",
    "CLOSED",
    "CONNECTED",
    "DATAGRAM",
    "FINISHED",
    "PORT_KINDS",
    "READ",
    "WRITTEN",
    "Channel",
    "Completion",
    "ConnectionInfo",
    "Handle",
    "Kind",
]
