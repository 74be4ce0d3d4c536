"""Load by wrk: closed loop, one thread, so many connections, one request at a time on each.

Latencies are wrk's own: from writing a request to the end of its answer. With a new connection for
each request, connecting is not part of them, and is part of requests a second and of core time.
"""

from __future__ import annotations

import json
import math
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from millrace.lab import Host, LabError

_SCRIPT = Path(__file__).with_name("wrk_report.lua")
# wrk looks every 100 ms whether it shall stop, and waits at most two seconds for an answer.
_GRACE_SECONDS = 15.0


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw."""

    seconds: float
    requests: int
    p50_us: float
    p99_us: float
    #: Connections, reads and writes that failed, answers that were not 2xx or 3xx or came late.
    errors: int

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.seconds


def run(
    host: Host, url: str, *, connections: int, keepalive: bool, seconds: float, core: int | None
) -> Load:
    """Load `url` from `host` for so long."""
    limit = math.ceil(seconds)
    args = ["wrk", "-t1", f"-c{connections}", f"-d{limit}s", "-s", str(_SCRIPT)]
    if not keepalive:
        args += ["-H", "Connection: close"]
    process = host.popen(
        [*args, url], core=core, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        if limit != seconds:
            # wrk takes whole seconds; it ends in good order at an interrupt.
            time.sleep(seconds)
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=limit + _GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        raise LabError(f"wrk did not end: {url} with {connections} connections") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    if process.returncode != 0:
        raise LabError(f"wrk ended with status {process.returncode}: {err.strip() or out.strip()}")
    return parse(out)


def parse(out: str) -> Load:
    """Read the line that `wrk_report.lua` prints."""
    line = next((line for line in out.splitlines() if line.startswith("{")), None)
    if line is None:
        raise LabError(f"wrk printed no figures: {out.strip() or 'nothing'}")
    figures = json.loads(line)
    return Load(
        seconds=figures["duration_us"] / 1e6,
        requests=figures["requests"],
        p50_us=figures["p50_us"],
        p99_us=figures["p99_us"],
        errors=sum(figures[name] for name in ("connect", "read", "write", "status", "timeout")),
    )
