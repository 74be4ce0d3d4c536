"""What readers need to read: files, netlink sockets, and which namespace they belong to."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from millrace.host.files import Files
from millrace.host.netlink import NETLINK_SOCK_DIAG, GenericNetlink, Netlink
from millrace.host.unavailable import NotAvailable, Unavailable

if TYPE_CHECKING:
    from pyroute2 import IPRoute

_SO_NETNS_COOKIE = 71  # asm-generic/socket.h
_SO_NETNS_COOKIE_SPARC = 0x0050


class Access:
    """Everything open that a snapshot is read through; made in the namespace it is to look at.

    With `root`, files are read from a copy of /proc and /sys there, and netlink has nothing.
    Sockets are opened when they are first used, and kept for the next snapshot.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self.files = Files(root)
        self._generic: GenericNetlink | None = None
        self._route: IPRoute | None = None
        self._namespace = None if root is not None else _namespace_number()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all that was opened."""
        for handle in (self._generic, self._route):
            if handle is not None:
                handle.close()
        self._generic = self._route = None
        self.files.close()

    @property
    def is_live(self) -> bool:
        """Whether this is a running machine and not a copy of its files."""
        return self.files.root is None

    def check_namespace(self) -> None:
        """`RuntimeError` if the calling thread has moved to another network namespace."""
        if self._namespace is not None and self._namespace != _namespace_number():
            raise RuntimeError(
                "this thread is in another network namespace than the one that was opened; "
                "make an Observer inside Host.enter() and use it there"
            )

    def generic(self) -> GenericNetlink:
        """Generic netlink."""
        self.need_live()
        if self._generic is None:
            self._generic = GenericNetlink()
        return self._generic

    @contextlib.contextmanager
    def reading_diag(self) -> Iterator[Netlink]:
        """The kernel's tables of sockets, for one request whose answers may be left unread."""
        self.need_live()
        # One socket a request: what is left of a long table must not be read by the next.
        with Netlink(NETLINK_SOCK_DIAG) as netlink:
            yield netlink

    def route(self) -> IPRoute:
        """pyroute2's view of links, addresses, routes, neighbours and qdiscs."""
        self.need_live()
        if self._route is None:
            from pyroute2 import IPRoute

            self._route = IPRoute()
        return self._route

    def interfaces(self) -> dict[str, int]:
        """Names and numbers of this namespace's interfaces; of a copy those in its sysfs."""
        if self.is_live:
            return {name: index for index, name in socket.if_nameindex()}
        found = {}
        for name in self.files.names("/sys/class/net"):
            index = self.files.number(f"/sys/class/net/{name}/ifindex")
            if isinstance(index, int):
                found[name] = index
        return found

    def need_live(self) -> None:
        """`Unavailable` for a copy of files."""
        if not self.is_live:
            raise Unavailable(NotAvailable("a copy of files has no netlink"))


def namespace_cookie() -> int:
    """A number that no other network namespace has or had since the machine started.

    Raises `OSError` before Linux 5.14.
    """
    option = _SO_NETNS_COOKIE_SPARC if os.uname().machine.startswith("sparc") else _SO_NETNS_COOKIE
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as handle:
        return int.from_bytes(handle.getsockopt(socket.SOL_SOCKET, option, 8), "little")


def is_initial_namespace() -> bool:
    """Whether the calling thread is in the machine's own network namespace.

    Those settings of net.core that belong to the whole machine exist in it alone.
    """
    return os.path.exists("/proc/sys/net/core/netdev_max_backlog")


def _namespace_number() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino
