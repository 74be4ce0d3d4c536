"""Interfaces by name or index."""

from __future__ import annotations

import errno
import socket


def index_of(interface: str | int) -> int:
    """The index of an interface of this network namespace.

    Raises OSError with ENODEV where there is none of that name or index.
    """
    if isinstance(interface, bool) or not isinstance(interface, (str, int)):
        raise TypeError(f"an interface is a name or an index, not {type(interface).__name__}")
    try:
        if isinstance(interface, str):
            return socket.if_nametoindex(interface)
        socket.if_indextoname(interface)
    except (OSError, OverflowError, ValueError):
        raise OSError(
            errno.ENODEV, f"no interface {interface} in this network namespace; see `ip link`"
        ) from None
    return interface


def name_of(ifindex: int) -> str | None:
    """The name of an interface of this network namespace, or None."""
    try:
        return socket.if_indextoname(ifindex)
    except (OSError, OverflowError, ValueError):
        return None
