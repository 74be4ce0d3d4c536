"""Reading and writing procfs and sysfs: bounded, of this namespace, or of a tree like them.

Paths are always written as on an ordinary machine (`/proc/net/snmp`, `/sys/class/net/eth0/mtu`).
Nothing else in `millrace.host` opens a file of the kernel's by itself.
"""

from __future__ import annotations

import ctypes
import errno
import os
import posixpath
import socket
from types import TracebackType
from typing import Self

from millrace.host.unavailable import NotAvailable, Reading, because

#: No file of procfs or sysfs that is read here comes near this size.
MAX_FILE_BYTES = 16 << 20

# asm/unistd.h has the same three numbers on every architecture, linux/mount.h the flags.
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_FSCONFIG_CMD_CREATE = 6
_CLOEXEC = 1
_MOUNT_ATTR_NOSUID_NODEV_NOEXEC = 0x2 | 0x4 | 0x8
_libc = ctypes.CDLL(None, use_errno=True)


class Files:
    """The files of one machine, or under `root` of a copy of some of them.

    /sys shows the interfaces of the network namespace in which it was mounted, which need not be
    the caller's. So a sysfs of the caller's own is mounted, attached nowhere and gone with this
    object. Without the privilege for that, /sys is used if its interfaces are the caller's.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self.root = None if root is None else os.fspath(root)
        self._sysfs: int | None = None
        self._sys_is_foreign = False
        if self.root is None:
            try:
                self._sysfs = _mount_sysfs()
            except OSError:
                self._sys_is_foreign = not _interfaces_match()

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
        """Give the mount back."""
        if self._sysfs is not None:
            os.close(self._sysfs)
            self._sysfs = None

    def path(self, path: str) -> str:
        """Where a path of the kernel's is found for this thread."""
        if not path.startswith(("/proc/", "/sys/")) or ".." in path.split("/"):
            raise ValueError(f"{path} is no path below /proc or /sys")
        if self.root is not None:
            return self.root + path
        if path.startswith("/proc/net/"):
            # /proc/net is that of the process's main thread, which may be elsewhere.
            return "/proc/thread-self" + path.removeprefix("/proc")
        if path.startswith(("/sys/class/net", "/sys/devices/")):
            if self._sysfs is not None:
                return f"/proc/self/fd/{self._sysfs}" + path.removeprefix("/sys")
            if self._sys_is_foreign and path.startswith("/sys/class/net"):
                raise PermissionError(errno.EACCES, _FOREIGN, path)
        return path

    def read(self, path: str) -> str:
        """The text of a file without the white space around it; `OSError` if it cannot be read."""
        with open(self.path(path), "rb", buffering=0) as file:
            parts: list[bytes] = []
            size = 0
            while part := file.read(1 << 18):
                parts.append(part)
                size += len(part)
                if size > MAX_FILE_BYTES:
                    raise OSError(errno.EFBIG, f"more than {MAX_FILE_BYTES >> 20} MiB", path)
        return b"".join(parts).decode(errors="replace").strip()

    def write(self, path: str, value: str) -> None:
        """Write a value in one call, which is how the kernel wants it. Raises `OSError`."""
        with open(self.path(path), "wb", buffering=0) as file:
            file.write(value.encode() + b"\n")

    def text(self, path: str) -> Reading[str]:
        """The text of a file, or why it cannot be read."""
        try:
            return self.read(path)
        except OSError as error:
            return because(error, path)

    def number(self, path: str) -> Reading[int]:
        """The number in a file, or why there is none."""
        text = self.text(path)
        if isinstance(text, NotAvailable):
            return text
        try:
            return int(text, 0)
        except ValueError:
            return NotAvailable(f"{path} holds {text[:40]!r}, which is no number")

    def names(self, path: str) -> list[str]:
        """What is in a folder, in order; nothing if it is not there."""
        try:
            return sorted(os.listdir(self.path(path)))
        except OSError:
            return []

    def exists(self, path: str) -> bool:
        """Whether there is such a file or folder."""
        try:
            return os.path.exists(self.path(path))
        except OSError:
            return False

    def target(self, path: str) -> str | None:
        """What a link of sysfs points at, as an absolute path; None if it is no link."""
        try:
            link = os.readlink(self.path(path))
        except OSError:
            return None
        return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


_FOREIGN = "/sys shows the interfaces of another network namespace; root can look at this one's"


def _mount_sysfs() -> int:
    """A descriptor of a sysfs of this thread's network namespace, see fsmount(2)."""
    context = _system_call("fsopen", _FSOPEN, b"sysfs", _CLOEXEC)
    try:
        _system_call("fsconfig", _FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return _system_call("fsmount", _FSMOUNT, context, _CLOEXEC, _MOUNT_ATTR_NOSUID_NODEV_NOEXEC)
    finally:
        os.close(context)


def _system_call(name: str, *arguments: int | bytes | None) -> int:
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result = _libc.syscall(*words)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return int(result)


def _interfaces_match() -> bool:
    """Whether /sys/class/net has exactly this namespace's interfaces, by name and number."""
    shown = {}
    try:
        for name in os.listdir("/sys/class/net"):
            # bonding_masters is a file, no interface.
            if os.path.isdir(f"/sys/class/net/{name}"):
                with open(f"/sys/class/net/{name}/ifindex") as file:
                    shown[name] = int(file.read())
    except (OSError, ValueError):
        return False
    return shown == {name: index for index, name in socket.if_nameindex()}
