"""Start a program inside a network namespace. A script, not a module to import.

    python -I -S launch.py NAMESPACE CORE PARENT REPORT -- PROGRAM [ARGUMENT...]

`Host.popen` runs it instead of a `preexec_fn`, because code between fork and exec may deadlock in
a process with threads. It uses the standard library alone and no other file of the package, so
it starts in about ten milliseconds. REPORT is the number of a pipe: it is closed without a word
when the program runs; if that fails, it carries `errno` and a sentence.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys

CLONE_NEWNS = 0x0002_0000
CLONE_NEWNET = 0x4000_0000
MS_REC = 0x4000
MS_SLAVE = 0x8_0000
PR_SET_PDEATHSIG = 1


def show_own_sysfs(libc: ctypes.CDLL) -> None:
    """Let /sys/class/net show this namespace's interfaces, as `ip netns exec` does.

    A user namespace may not be allowed to; its programs see the machine's /sys then.
    """
    if libc.unshare(CLONE_NEWNS) != 0:
        return
    libc.mount(b"", b"/", b"none", ctypes.c_ulong(MS_SLAVE | MS_REC), None)
    libc.mount(b"sysfs", b"/sys", b"sysfs", ctypes.c_ulong(0), None)


def start(namespace: str, core: str, parent: int, program: list[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)  # the parent ended before it could be watched
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    if libc.setns(fd, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot enter the network namespace {namespace}")
    show_own_sysfs(libc)
    if core:
        try:
            os.sched_setaffinity(0, {int(core)})
        except (OSError, ValueError, OverflowError) as error:
            have = sorted(os.sched_getaffinity(0))
            message = f"core {core} cannot be used; this process may run on {have}"
            raise OSError(errno.EINVAL, message) from error
    # Python ignores these two signals; a program expects them as they are by default.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(program[0], program)
    except OSError as error:
        reason = "is not installed" if error.errno == errno.ENOENT else error.strerror
        raise OSError(error.errno, f"{program[0]} {reason}") from error


def main() -> None:
    namespace, core, parent, report = sys.argv[1:5]
    os.set_inheritable(int(report), False)
    try:
        start(namespace, core, int(parent), sys.argv[6:])
    except OSError as error:
        os.write(int(report), f"{error.errno} {error.strerror}".encode())
        sys.exit(127)


if __name__ == "__main__":
    main()
