"""Kernel-bypass networking for Linux, driven from Python.

    import millrace

    with millrace.Channel("af_xdp:eth1", address="192.0.2.2/24") as channel:
        channel.listen(80)
        for batch in channel:
            for done in batch:
                if done.kind is millrace.READ:
                    done.handle.write(answer(done.data))

    with millrace.open("af_packet:eth1") as port:
        for batch in port:
            print(batch.headers()["length"].sum())

The names of `millrace.net` are here as well, and of `millrace.packets` those that open a port and
name what it gives; `millrace.xdp` makes XDP programs of functions. The native module is loaded when
the first of them is used, so `millrace.lab` and the command line start without it.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # The module is a decorator too, which a type checker does not see.
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
    from millrace.packets import Batch, Filter, Port, open
    from millrace.xdp import xdp as xdp

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
    "Batch",
    "Channel",
    "Completion",
    "ConnectionInfo",
    "Filter",
    "Handle",
    "Kind",
    "Port",
    "__version__",
    "open",
]


def __getattr__(name: str) -> Any:
    if name == "xdp":
        from importlib import import_module

        return import_module("millrace.xdp")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from millrace import net, packets

    # From now on they are found without this function: `millrace.READ` is in inner loops.
    for module in (net, packets):
        for public in set(module.__all__).intersection(__all__):
            globals()[public] = getattr(module, public)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "xdp"})
