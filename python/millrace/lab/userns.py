"""A user namespace, in which an ordinary user may make hosts and wires.

What lives in it: this process and what it starts. Inside, the user is root over the network
namespaces that are made there, and over nothing else of the machine.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import NoReturn

from millrace.lab import syscalls
from millrace.lab.leftovers import NETNS_FOLDER

_INSIDE = "MILLRACE_USERNS"

# Runs `_main` of this file while `millrace` is an empty package: the real one may import NumPy,
# whose threads would make entering impossible.
_WITHOUT_PACKAGE = """
import sys, types
package = sys.modules["millrace"] = types.ModuleType("millrace")
package.__path__ = [sys.argv[1]]
from millrace.lab import userns
userns._main(sys.argv[2:])
"""


def may_make_networks() -> bool:
    """Whether this process may make namespaces and interfaces as it is."""
    return syscalls.has_capability(syscalls.CAP_NET_ADMIN) and syscalls.has_capability(
        syscalls.CAP_SYS_ADMIN
    )


def enter() -> None:
    """Move this process into a new user, mount and network namespace, as root there.

    Only a process with one thread can (unshare(2)); see `run_again` for others. Raises
    `PermissionError` where the machine does not let users do this, with what would allow it.
    """
    if len(os.listdir("/proc/self/task")) > 1:
        raise PermissionError(
            errno.EPERM,
            "a process with several threads cannot enter a user namespace; call "
            "millrace.lab.userns.enter() before NumPy and others start threads, "
            "or millrace.lab.userns.run_again(), or run as root",
        )
    user, group = os.geteuid(), os.getegid()
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    except OSError as error:
        raise PermissionError(errno.EPERM, _advice(error)) from error
    if not may_make_networks():
        # Ubuntu's AppArmor rule lets the namespace be made, and takes its capabilities away.
        raise PermissionError(errno.EPERM, _advice(None))
    _make_room_for_names()


def run_again() -> NoReturn:
    """Start this program anew, from its beginning, inside a user namespace.

    For programs that have started threads. It keeps the process number, the arguments and the
    environment; nothing that was computed so far.
    """
    if os.environ.get(_INSIDE):
        raise PermissionError(errno.EPERM, _advice(None))
    sys.stdout.flush()
    sys.stderr.flush()
    python = [sys.executable, "-I", "-S", "-c", _WITHOUT_PACKAGE, str(Path(__file__).parents[1])]
    os.execv(sys.executable, [*python, *sys.orig_argv])


def _make_room_for_names() -> None:
    # Mounts made here must not appear on the machine, nor the machine's later ones here.
    syscalls.mount("", "/", "none", syscalls.MS_REC | syscalls.MS_PRIVATE)
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    if NETNS_FOLDER.is_dir():
        syscalls.mount("tmpfs", str(NETNS_FOLDER), "tmpfs", flags, "mode=755")
    else:
        syscalls.mount("tmpfs", str(NETNS_FOLDER.parent), "tmpfs", flags, "mode=755")
        NETNS_FOLDER.mkdir()


def _advice(error: OSError | None) -> str:
    limit = _read("/proc/sys/user/max_user_namespaces")
    if limit == "0":
        reason = "user.max_user_namespaces is 0; set it with sysctl"
    elif _read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        reason = "kernel.unprivileged_userns_clone is 0; set it to 1 with sysctl"
    elif _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        reason = "kernel.apparmor_restrict_unprivileged_userns is 1; set it to 0 with sysctl"
    elif error is not None and error.errno == errno.ENOSYS:
        reason = "this kernel was built without CONFIG_USER_NS"
    elif error is not None:
        reason = f"{error.strerror} (a container's seccomp rules often forbid it)"
    else:
        reason = "its capabilities were taken away, as a container's or AppArmor's rules do"
    return f"no user namespace for this user: {reason}; or run as root"


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _main(program: list[str]) -> NoReturn:
    try:
        enter()
    except PermissionError as error:
        sys.exit(f"millrace: {error.strerror}")
    os.environ[_INSIDE] = "1"
    try:
        os.execvp(program[0], program)
    except OSError as error:
        sys.exit(f"millrace: cannot run {program[0]}: {error.strerror}")
