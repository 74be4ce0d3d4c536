"""What `millrace top` costs: processor time of a look, on the screen and as JSON."""

from __future__ import annotations

import os
import pty
import select
import struct
import subprocess
import sys
import time
from fcntl import ioctl
from termios import TIOCSWINSZ

from millrace.bench import core_time
from millrace.cli.report import Value

#: Seconds that starting may take, and that are left out after it.
_START = 60.0
_WARM_UP = 3.0


def measure(seconds: float = 15.0, interval: float = 1.0) -> list[dict[str, Value]]:
    """Rows `mode, interval_s, ms_per_look, share_of_core`."""
    every = ["--interval", str(interval)]
    rows: list[dict[str, Value]] = []
    for mode, words in (
        ("screen", ["overview", *every]),
        ("screen, sockets", ["sockets", *every]),
        ("json", ["--json", "-", *every]),
    ):
        share = _share(words, seconds)
        rows.append(
            {
                "mode": mode,
                "interval_s": interval,
                "ms_per_look": share * interval * 1e3,
                "share_of_core": share,
            }
        )
    return rows


def _share(words: list[str], seconds: float) -> float:
    near, far = pty.openpty()
    try:
        ioctl(far, TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        process = subprocess.Popen(
            [sys.executable, "-m", "millrace", "top", *words],
            stdin=far,
            stdout=far,
            stderr=far,
            env={**os.environ, "TERM": "xterm-256color"},
            start_new_session=True,
        )
        try:
            _read(near, _START, until=b"cpu_share" if "--json" in words else b"of a core")
            _read(near, _WARM_UP)
            before = core_time.process_seconds(process.pid)
            begun = time.monotonic()
            _read(near, seconds)
            after = core_time.process_seconds(process.pid)
            if process.poll() is not None or before is None or after is None:
                raise RuntimeError(f"millrace top {' '.join(words)} ended, or is not counted")
            return (after - before) / (time.monotonic() - begun)
        finally:
            process.kill()
            process.wait()
    finally:
        os.close(near)
        os.close(far)


def _read(terminal: int, seconds: float, until: bytes | None = None) -> None:
    """Be a terminal that reads all that is written, for so long or until that is written."""
    end = time.monotonic() + seconds
    seen = b""
    while (left := end - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            seen = seen[-1000:] + os.read(terminal, 1 << 16)
            if until is not None and until in seen:
                return
