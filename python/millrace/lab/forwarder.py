"""The program in the middle of an impaired wire: `python -m millrace.lab.forwarder CONFIG`.

CONFIG is JSON: `interfaces`, the `impairments` of both directions, `seed`, `frames`. It says
`{"ready": ...}` once it forwards and answers each line on standard input with one line of JSON:
`statistics`, or `impair` with two impairments. It ends with its standard input.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

#: Above that of what is measured on the wire (`millrace.bench.priority`).
_PRIORITY = 2


def prefer_this_thread() -> bool:
    """Run this thread before all ordinary ones, if this user may. A wire has no bad days."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    except OSError:
        return False
    return True


def main() -> None:
    """Forward until standard input ends."""
    config = json.loads(sys.argv[1])
    from millrace._native import Forwarder

    first, second = config["interfaces"]
    forth, back = (_native(impairment) for impairment in config["impairments"])
    try:
        forwarder = Forwarder(
            first, second, forth, back, seed=config["seed"], frames=config["frames"]
        )
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    started = threading.Event()
    preferred = False

    def run() -> None:
        nonlocal preferred
        preferred = prefer_this_thread()
        started.set()
        try:
            forwarder.run()
        except BaseException as error:
            # Whoever waits for an answer learns it from the end of the process.
            print(error, file=sys.stderr, flush=True)
            os._exit(1)

    thread = threading.Thread(target=run, name="forwarder")
    thread.start()
    started.wait()
    _say({"ready": True, "preferred": preferred})
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        if name == "impair":
            forwarder.impair(*(_native(impairment) for impairment in arguments))
            _say({})
        else:
            _say(forwarder.statistics())
    forwarder.stop()
    thread.join()


def _native(impairment: dict[str, Any]) -> dict[str, Any]:
    if "bursts" in impairment:  # JSON knows no tuples
        impairment["bursts"] = tuple(impairment["bursts"])
    return impairment


def _say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
