"""What the two ready ways to receive cost: full batches that sleep, or each packet at once."""

from __future__ import annotations

from collections.abc import Sequence

from millrace.bench.packet_sites import Worker, cores, lay_out, ports
from millrace.cli.report import Row
from millrace.lab import Lab

MODES = ("throughput", "latency")
_SIZE = 64
_ROUND_TRIPS = 2000


def measure(lab: Lab, kinds: Sequence[str], seconds: float) -> list[Row]:
    """Rows of `echo` (round trips of one packet) and `read` (batches in a Python loop, flooded)."""
    found: list[Row] = []
    core, other = cores()
    for kind in kinds:
        for mode in MODES:
            site = lay_out(lab, "rxdrop")
            options = {"mode": mode}
            near, far = ports(kind, [site.source]), ports(kind, site.tested)
            with (
                Worker(site.host, core, work="echo", ports=far, options=options) as echo,
                Worker(
                    site.source.host,
                    other,
                    work="ask",
                    ports=near,
                    options=options,
                    frame_bytes=_SIZE,
                    count=_ROUND_TRIPS,
                ) as asker,
            ):
                echo.go()
                asker.go()
                asked = asker.result()
                told = echo.end()
            rate = asked["round_trips"] / asked["seconds"]
            found.append(
                {
                    "work": "echo",
                    "tool": f"millrace {mode}",
                    "port": kind,
                    "frame_bytes": _SIZE,
                    "batch": 1,
                    "mpps": rate / 1e6,
                    "gbit_per_s": rate * _SIZE * 8 / 1e9,
                    "lost": asked["lost"],
                    "cpu_cores": told["cpu_cores"],
                    "rtt_us": asked["median_us"],
                    "rtt_p99_us": asked["p99_us"],
                }
            )
            with (
                Worker(site.host, core, work="read", ports=far, options=options) as reader,
                Worker(
                    site.source.host,
                    other,
                    work="txpush",
                    ports=ports("af_xdp", [site.source]),
                    frame_bytes=_SIZE,
                    batch=64,
                    seconds=seconds,
                ) as sender,
            ):
                reader.go()
                sender.go()
                sent = sender.result()
                told = reader.end()
            rate = told["packets"] / sent["loop_seconds"]
            found.append(
                {
                    "work": "read",
                    "tool": f"millrace {mode}",
                    "port": kind,
                    "frame_bytes": _SIZE,
                    "batch": round(told["packets"] / max(told["batches"], 1)),
                    "mpps": rate / 1e6,
                    "gbit_per_s": rate * _SIZE * 8 / 1e9,
                    "lost": sent["ports"][0]["tx_packets"] - told["packets"],
                    "cpu_cores": told["cpu_cores"],
                    "idle_cores": told["idle_cores"],
                }
            )
    return found
