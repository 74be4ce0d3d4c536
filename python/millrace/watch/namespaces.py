"""Names of network namespaces, and of interfaces in them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

_FOLDER = Path("/run/netns")


def own() -> int:
    """The inode of the calling thread's network namespace."""
    return os.stat("/proc/thread-self/ns/net").st_ino


def names() -> dict[int, str]:
    """The namespaces that have a name (`ip netns`), by their inodes."""
    found = {}
    try:
        entries = list(_FOLDER.iterdir())
    except OSError:
        return {}
    for path in entries:
        try:
            found[path.stat().st_ino] = path.name
        except OSError:  # it has just gone, or may not be looked at
            continue
    return found


def interface_name(path: Path, ifindex: int) -> str:
    """The name of an interface in a namespace; empty if it is not there or may not be seen."""
    from millrace.lab import syscalls

    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        inside = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.set_network_namespace(inside)
        finally:
            os.close(inside)
        try:
            return socket.if_indextoname(ifindex)
        finally:
            syscalls.set_network_namespace(before)
    except OSError:
        return ""
    finally:
        os.close(before)


class Names:
    """Looks names up, and looks again when a number is new."""

    def __init__(self) -> None:
        self._own = own()
        self._names = names()
        self._asked: set[int] = set()
        self._interfaces: dict[tuple[int, int], str] = {}

    def of(self, inode: int) -> str:
        """Empty for our own and for one that is not known."""
        if inode in (0, self._own):
            return ""
        if inode not in self._names and inode not in self._asked:
            self._asked.add(inode)
            self._names = names()
        return self._names.get(inode, f"net:{inode}")

    def learn(self, inode: int, ifindex: int, name: str) -> None:
        """Remember what somebody else told of an interface."""
        self._interfaces[inode, ifindex] = name

    def interface(self, inode: int, ifindex: int) -> str:
        """The name of an interface in a namespace; empty if it is not known."""
        key = (inode, ifindex)
        if key not in self._interfaces:
            self._interfaces[key] = self._find(inode, ifindex) if ifindex and inode else ""
        return self._interfaces[key]

    def _find(self, inode: int, ifindex: int) -> str:
        if inode == self._own:
            try:
                return socket.if_indextoname(ifindex)
            except OSError:
                return ""
        self.of(inode)
        name = self._names.get(inode)
        return interface_name(_FOLDER / name, ifindex) if name else ""
