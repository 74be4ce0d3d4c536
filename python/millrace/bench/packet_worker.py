"""One program of a packet bench: `python -m millrace.bench.packet_worker CONFIG`.

CONFIG is JSON: `work`, `ports` (names as `millrace.open` takes them), `frame_bytes`, `batch`,
`options` of the ports. It says `{"ready": ...}` once its ports are open, begins at a line on
standard input, and ends at the next one, or after `seconds`. Then it tells what it did, in a line.
"""

from __future__ import annotations

import contextlib
import json
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import millrace
from millrace.packets import Port, l2fwd, rxdrop, txpush

#: Frames that are sent over and over: more than are under way, and so few that they stay in cache.
_KEPT = 512
#: How long a loop runs before it looks whether it is to end.
_SLICE = 0.05
#: A receiver has everything once nothing has come for so long after its sender ended.
_QUIET = 0.2

Counts = dict[str, Any]


def frame(size: int) -> bytes:
    """A UDP datagram of so many bytes, Ethernet header included, for nobody on the wire."""
    ip = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, size - 14, 0, 0, 64, 17, 0, b"\xc0\0\2\1", b"\xc0\0\2\2"
    )
    header = b"\x02\0\0\0\0\2\x02\0\0\0\0\1\x08\0" + ip
    return (header + struct.pack("!HHHH", 9, 9, size - 34, 0)).ljust(size, b"\0")


def main() -> None:
    """Do one work."""
    config = json.loads(sys.argv[1])
    with contextlib.ExitStack() as stack:
        try:
            ports = _open(stack, config)
            run = WORKS[config["work"]](ports, config)
        except (OSError, ValueError) as error:
            sys.exit(str(error))
        _say({"ready": True})
        sys.stdin.readline()
        ended = threading.Event()
        threading.Thread(target=_until_told, args=(ended,), daemon=True).start()
        used, begun = time.process_time(), time.monotonic()
        counts = run(ended, config.get("seconds"))
        seconds, used = time.monotonic() - begun, time.process_time() - used
        _say(
            {
                "seconds": seconds,
                "cpu_cores": used / seconds,
                "ports": [dict(port.stats()) for port in ports],
                **counts,
            }
        )


def _open(stack: contextlib.ExitStack, config: Counts) -> list[Port]:
    ports: list[Port] = []
    for name in config["ports"]:
        options: dict[str, Any] = dict(config.get("options", {}))
        if ports:
            options["arena"] = ports[0]
        ports.append(stack.enter_context(millrace.open(name, **options)))
    return ports


def _until_told(ended: threading.Event) -> None:
    sys.stdin.readline()
    ended.set()


def _say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


Run = Callable[[threading.Event, float | None], Counts]


def _rxdrop(ports: list[Port], config: Counts) -> Run:
    (port,) = ports

    def run(ended: threading.Event, _: float | None) -> Counts:
        while not ended.is_set():
            rxdrop(port, seconds=_SLICE, batch=config["batch"])
        while rxdrop(port, seconds=_QUIET, batch=config["batch"])["packets"]:
            pass
        return {}

    return run


def _txpush(ports: list[Port], config: Counts) -> Run:
    (port,) = ports
    kept = port.keep([frame(config["frame_bytes"])] * _KEPT)

    def run(ended: threading.Event, seconds: float | None) -> Counts:
        loops = []
        end = None if seconds is None else time.monotonic() + seconds
        while not ended.is_set() and (end is None or time.monotonic() < end):
            left = _SLICE if end is None else min(_SLICE, end - time.monotonic())
            loops.append(txpush(port, kept, seconds=max(left, 0.0), batch=config["batch"]))
        return {"loop_seconds": sum(loop["seconds"] for loop in loops)}

    return run


def _l2fwd(ports: list[Port], config: Counts) -> Run:
    first, second = ports

    def run(ended: threading.Event, _: float | None) -> Counts:
        manner: dict[str, Any] = {"batch": config["batch"], "both_ways": True}
        while not ended.is_set():
            l2fwd(first, second, seconds=_SLICE, **manner)
        while l2fwd(first, second, seconds=_QUIET, **manner)["packets"]:
            pass
        return {}

    return run


def _echo(ports: list[Port], config: Counts) -> Run:
    del config
    (port,) = ports

    def run(ended: threading.Event, _: float | None) -> Counts:
        while not ended.is_set():
            batch = port.receive(_SLICE)
            if batch is not None and len(batch):
                port.send(batch, timeout=1.0)
        return {}

    return run


def _ask(ports: list[Port], config: Counts) -> Run:
    (port,) = ports
    kept = port.keep([frame(config["frame_bytes"])])

    def run(ended: threading.Event, _: float | None) -> Counts:
        del ended
        times, lost = [], 0
        for _ in range(config["count"]):
            begun = time.perf_counter_ns()
            port.send(kept, timeout=1.0)
            answer = port.receive(1.0)
            if answer is not None and len(answer):
                times.append(time.perf_counter_ns() - begun)
            else:
                lost += 1
        times.sort()
        if not times:
            raise RuntimeError("nothing came back")
        return {
            "round_trips": len(times),
            "lost": lost,
            "median_us": times[len(times) // 2] / 1e3,
            "p99_us": times[len(times) * 99 // 100] / 1e3,
        }

    return run


def _read(ports: list[Port], config: Counts) -> Run:
    del config
    (port,) = ports
    # What it costs while nothing comes.
    used, begun = time.process_time(), time.monotonic()
    port.receive(_QUIET)
    idle = (time.process_time() - used) / (time.monotonic() - begun)

    def run(ended: threading.Event, _: float | None) -> Counts:
        packets = batches = 0
        while True:
            batch = port.receive(_QUIET)
            if batch is None or not len(batch):
                if ended.is_set():
                    return {"packets": packets, "batches": batches, "idle_cores": idle}
                continue
            packets += len(batch)
            batches += 1

    return run


#: What a worker can do, by name.
WORKS: dict[str, Callable[[list[Port], Counts], Run]] = {
    "rxdrop": _rxdrop,
    "txpush": _txpush,
    "l2fwd": _l2fwd,
    "echo": _echo,
    "ask": _ask,
    "read": _read,
}

if __name__ == "__main__":
    main()
