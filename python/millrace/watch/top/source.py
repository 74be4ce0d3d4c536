"""Where ticks come from: this machine now, or a recording."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from millrace.watch.top import record
from millrace.watch.top.tick import Tick

if TYPE_CHECKING:
    from millrace.host.snapshot import Snapshot

Source = Callable[[threading.Event], Iterator[Tick]]


#: The picture of the path takes a walk through all processes, so it is drawn seldom.
PICTURE_EVERY = 5.0


def live(
    interval: float, *, drops: bool = True, napi: bool = True, picture: bool = False
) -> Source:
    """Looks at this machine every `interval` seconds; with `picture` ticks have one as SVG."""

    def ticks(end: threading.Event) -> Iterator[Tick]:
        from millrace.watch.top.sample import Sampler
        from millrace.watch.top.tick import Ticker

        with Sampler(drops=drops, napi=napi) as sampler:
            ticker = Ticker()
            before = sampler.look()
            drawer = Drawer() if picture else None
            due = time.monotonic()
            while True:
                # By the clock, so that a slow look does not make all later ones late; but looks
                # that were missed altogether are not made up for.
                due = max(due + interval, time.monotonic())
                if end.wait(due - time.monotonic()):
                    return
                after = sampler.look()
                tick = ticker.tick(before, after)
                if drawer is not None:
                    tick["picture"] = drawer.draw()
                yield tick
                before = after

    return ticks


class Drawer:
    """Draws the path from time to time."""

    def __init__(self) -> None:
        from millrace.host import Observer

        self._observer = Observer()
        self._before: Snapshot | None = None
        self._at = -PICTURE_EVERY
        self._picture: str | None = None

    def draw(self) -> str | None:
        """The latest picture; None until two looks were taken."""
        from millrace.host import path, picture_svg
        from millrace.host.checks.table import Context

        now = time.monotonic()
        if now - self._at < (PICTURE_EVERY if self._picture else 0.5):
            return self._picture
        after = self._observer.snapshot()
        if self._before is not None:
            context = Context(after, after - self._before)
            self._picture = picture_svg.draw(path.picture(context))
        self._before, self._at = after, now
        return self._picture


def replay(path: Path, speed: float = 1.0) -> Source:
    """The ticks of a recording, so many times as fast as they were recorded."""

    def ticks(end: threading.Event) -> Iterator[Tick]:
        before: float | None = None
        for tick in record.read(path):
            if before is not None:
                # A clock that was set back or far forward must not stop the show.
                gap = min(max(tick["time"] - before, 0.0), 60.0)
                if end.wait(gap / speed):
                    return
            before = tick["time"]
            yield tick

    return ticks


def recorded(source: Source, file: IO[str]) -> Source:
    """The same ticks, which are written to a file as they pass."""

    def ticks(end: threading.Event) -> Iterator[Tick]:
        for tick in source(end):
            record.write(file, tick)
            yield tick

    return ticks
