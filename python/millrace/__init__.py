"""Kernel-bypass networking for Linux, driven from Python.

    import millrace

    with millrace.Channel("af_xdp:eth1", address="192.0.2.2/24") as channel:
        channel.listen(80)
        for batch in channel:
            for done in batch:
                if done.kind is millrace.READ:
                    done.handle.write(answer(done.data))

The names of `millrace.net` are here as well. The native module is loaded when the first of them is
used, so `millrace.lab` and the command line start without it.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millrace.net import (
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

try:
    __version__ = version("millrace")
except PackageNotFoundError:  # the source tree on PYTHONPATH, not installed
    __version__ = "0+source"

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
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from millrace import net

    # From now on they are found without this function: `millrace.READ` is in inner loops.
    for public in net.__all__:
        globals()[public] = getattr(net, public)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
