"""See to it that a lab is taken down when its process ends by a signal or without closing it.

SIGKILL cannot be seen; `leftovers` is for that.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from types import FrameType
from typing import Protocol

# Their default is to end the process at once, without `finally` and atexit. SIGINT is not among
# them: Python makes it KeyboardInterrupt, which leaves the `with` block in the ordinary way.
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Closeable(Protocol):
    """What `register` takes."""

    def close(self) -> None:
        """Release everything; more than one call is no error."""


_open: list[Closeable] = []
_owner = os.getpid()


def register(lab: Closeable) -> None:
    """Close `lab` at the end of this process, unless `unregister` comes first.

    Signals are caught only where the program has no handler of its own, and only if this is
    called in the main thread (signal(2) in Python knows no other).
    """
    global _owner
    if os.getpid() != _owner:  # a forked child: the labs of its parent are the parent's
        _open.clear()
        _owner = os.getpid()
    if not _open:
        atexit.register(_close_all)
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) is signal.SIG_DFL:
                    signal.signal(number, _on_signal)
    _open.append(lab)


def unregister(lab: Closeable) -> None:
    """`lab` is closed; give the signals back with the last."""
    if lab in _open:
        _open.remove(lab)
    if _open:
        return
    atexit.unregister(_close_all)
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is _on_signal:
                signal.signal(number, signal.SIG_DFL)


def _close_all() -> None:
    if os.getpid() != _owner:
        return
    for lab in reversed(_open.copy()):
        lab.close()


def _on_signal(number: int, _frame: FrameType | None) -> None:
    try:
        _close_all()
    finally:
        # End as the sender meant it, and with the status that tells so.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
