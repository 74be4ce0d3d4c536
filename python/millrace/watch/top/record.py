"""Ticks to a file, one JSON object a line, and back.

A recording may come from anybody: lines have a bound, and what does not look like a tick is an
error with its line. One that was cut off, as by a full disk or a kill, is read up to there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from millrace.watch.top.tick import FORMAT, VERSION, Tick

#: Bytes of a line. A tick has at most some thousands of rows.
MOST_LINE = 16 << 20
_MOST_ROWS = 65_536


def write(file: IO[str], tick: Tick) -> None:
    """Add a tick, and have it on its way at once."""
    file.write(json.dumps(tick, separators=(",", ":"), allow_nan=False) + "\n")
    file.flush()


def read(path: Path) -> Iterator[Tick]:
    """The ticks of a file.

    Raises ValueError for what is no recording, with the line. A last line without an end is left
    out.
    """
    with open(path, "rb") as file:
        number = 0
        while True:
            line = file.readline(MOST_LINE + 1)
            if not line:
                break
            number += 1
            if len(line) > MOST_LINE:
                raise ValueError(f"{path}, line {number}: more than {MOST_LINE >> 20} MiB")
            if not line.endswith(b"\n"):
                if number == 1:
                    raise ValueError(f"{path} is no recording of millrace top, or has no tick")
                break
            try:
                tick = json.loads(line, parse_constant=_no_constant)
                check(tick)
            except (ValueError, RecursionError) as error:
                why = "nested too deep" if isinstance(error, RecursionError) else error
                raise ValueError(f"{path}, line {number}: {why}") from None
            yield tick
        if number == 0:
            raise ValueError(f"{path} is empty: no recording")


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no number")


def check(tick: Any) -> None:
    """Raises ValueError for what is no tick that this program can show."""
    if not isinstance(tick, dict) or tick.get("format") != FORMAT:
        raise ValueError("this is no tick of millrace top")
    if tick.get("version") != VERSION:
        raise ValueError(
            f"a tick of version {str(tick.get('version'))[:20]}, and this millrace reads {VERSION}"
        )
    for name in ("time", "seconds"):
        value = tick.get(name)
        if not isinstance(value, int | float) or not 0 <= value < 1e12 or math.isnan(value):
            raise ValueError(f"its {name} is {str(value)[:40]}")
    views = tick.get("views")
    if not isinstance(views, dict):
        raise ValueError("it has no views")
    for name, rows in views.items():
        if not isinstance(rows, list) or len(rows) > _MOST_ROWS:
            raise ValueError(f"view {name[:40]} is no list of rows")
        for row in rows:
            if not isinstance(row, dict) or not all(
                value is None or isinstance(value, str | int | float) for value in row.values()
            ):
                raise ValueError(f"view {name[:40]} has a row that is not flat")
            for value in row.values():
                # Shown as floats; more would overflow.
                if isinstance(value, int | float) and abs(value) > 1e300:
                    raise ValueError(f"view {name[:40]} has a number beyond all measure")
