"""The full screen, at 80 columns and 24 lines."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from millrace.watch.top import record
from millrace.watch.top.app import Top
from millrace.watch.top.views import VIEWS

from ..conftest import powerless
from . import made_up

MILLRACE = [sys.executable, "-m", "millrace"]


class Feed:
    """Ticks that the test hands out one by one."""

    def __init__(self) -> None:
        self._ticks: list[dict[str, Any]] = []
        self._there = threading.Semaphore(0)

    def give(self, tick: dict[str, Any]) -> None:
        self._ticks.append(tick)
        self._there.release()

    def __call__(self, end: threading.Event) -> Iterator[dict[str, Any]]:
        while not end.is_set():
            if self._there.acquire(timeout=0.05):
                yield self._ticks.pop(0)


def on_screen(
    check: Callable[[Top, Pilot[None], Feed], Awaitable[None]], size: tuple[int, int] = (80, 24)
) -> Top:
    feed = Feed()
    app = Top(feed)

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await check(app, pilot, feed)

    asyncio.run(run())
    return app


def text(app: Top, name: str) -> str:
    return str(app.query_one(f"#{name}", Static).render())


async def until(pilot: Pilot[None], done: Callable[[], object]) -> None:
    for _ in range(2000):
        if done():
            return
        await pilot.pause(0.005)
    raise AssertionError("the screen never showed that")


def test_every_view_is_a_key_away_and_fits() -> None:
    async def check(app: Top, pilot: Pilot[None], feed: Feed) -> None:
        assert "the first look is still to come" in text(app, "rows")
        feed.give(made_up.tick())
        await until(pilot, lambda: "received" in text(app, "rows"))
        for view in VIEWS:
            await pilot.press(view.key)
            await pilot.pause()
            assert view.title in text(app, "title")
            for name in ("title", "heading", "rows", "tabs", "footer"):
                assert all(len(line) <= 80 for line in text(app, name).splitlines()), view.name
            assert text(app, "rows").strip()
        await pilot.press("right")
        await pilot.pause()
        assert VIEWS[0].title in text(app, "title")
        await pilot.press("left")
        await pilot.pause()
        assert VIEWS[-1].title in text(app, "title")

    on_screen(check)


def test_a_small_and_a_large_screen() -> None:
    async def check(app: Top, pilot: Pilot[None], feed: Feed) -> None:
        feed.give(made_up.tick())
        await until(pilot, lambda: "received" in text(app, "rows"))
        await pilot.press("7")
        await pilot.pause()
        wide = app.size.width
        assert all(len(line) <= wide for line in text(app, "rows").splitlines())
        assert ("local" in text(app, "heading")) == (wide > 150)

    on_screen(check, (40, 10))
    on_screen(check, (200, 60))


def test_pause_keeps_the_screen_and_not_the_time() -> None:
    async def check(app: Top, pilot: Pilot[None], feed: Feed) -> None:
        feed.give(made_up.tick(scale=1.0))
        await until(pilot, lambda: "123M" in text(app, "rows"))
        await pilot.press("p")
        feed.give(made_up.tick(scale=2.0))
        await until(pilot, lambda: app._latest is not app._tick)
        assert "PAUSED" in text(app, "title")
        assert "123M" in text(app, "rows")
        await pilot.press("space")
        await until(pilot, lambda: "247M" in text(app, "rows"))
        assert "PAUSED" not in text(app, "title")

    on_screen(check)


def test_sort_filter_and_baseline() -> None:
    async def check(app: Top, pilot: Pilot[None], feed: Feed) -> None:
        feed.give(made_up.tick())
        await until(pilot, lambda: "received" in text(app, "rows"))
        await pilot.press("2", "s")
        await until(pilot, lambda: "CP*" in text(app, "heading"))
        assert [line.split()[0] for line in text(app, "rows").splitlines()] == ["3", "2", "1", "0"]
        await pilot.press("r")
        await until(pilot, lambda: text(app, "rows").split()[0] == "0")
        await pilot.press("b")
        await until(pilot, lambda: "differences from the baseline" in text(app, "footer"))
        assert "0%" in text(app, "rows")
        await pilot.press("b", "7", "slash")
        await pilot.pause()
        assert app.query_one("#filter", Input).has_class("shown")
        await pilot.press(*"bbr")
        await until(pilot, lambda: "none of 1 rows has 'bbr'" in text(app, "rows"))
        # The keys of views are letters of the filter while it is written.
        assert "Sockets" in text(app, "title")
        await pilot.press("enter")
        await pilot.pause()
        assert not app.query_one("#filter", Input).has_class("shown")
        assert "/bbr: 1 hidden" in text(app, "footer")
        await pilot.press("escape")
        await until(pilot, lambda: "hidden" not in text(app, "footer"))

    on_screen(check)


def test_help_and_notes() -> None:
    async def check(app: Top, pilot: Pilot[None], feed: Feed) -> None:
        feed.give(made_up.tick())
        await until(pilot, lambda: "received" in text(app, "rows"))
        assert "n: 1 unreadable" in text(app, "footer")
        assert "this costs 1.2% of a core" in text(app, "footer")
        await pilot.press("n")
        await until(pilot, lambda: "permission denied" in text(app, "rows"))
        await pilot.press("question_mark")
        await until(pilot, lambda: "pause" in text(app, "rows"))
        await pilot.press("escape")
        await until(pilot, lambda: "received" in text(app, "rows"))

    on_screen(check)


def test_what_goes_wrong_ends_it_and_is_kept() -> None:
    def broken(end: threading.Event) -> Iterator[dict[str, Any]]:
        yield made_up.tick()
        raise OSError(5, "the machine is on fire")

    app = Top(broken)

    async def run() -> None:
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: app.failure is not None)

    asyncio.run(run())
    assert "on fire" in str(app.failure)


def command(*words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MILLRACE, "top", *words], capture_output=True, text=True, timeout=timeout
    )


def test_once_json_and_record_agree(tmp_path: Path) -> None:
    file = tmp_path / "recording"
    quick = ("--interval", "0.1", "--no-drops", "--no-napi")
    done = command("-n", "3", "--json", str(file), *quick)
    assert done.returncode == 0, done.stderr
    ticks = list(record.read(file))
    assert len(ticks) == 3
    shown = command("--replay", str(file), "--once", "overview", "cpus")
    assert shown.returncode == 0
    assert shown.stdout.startswith("Overview\n--------\n")
    assert "pkt/s" in shown.stdout
    again = command("--replay", str(file), "--speed", "1000", "--json", "-")
    assert again.stdout == file.read_text()
    both = command("--once", "overview", "--record", str(tmp_path / "copy"), *quick)
    assert both.returncode == 0
    assert len(list(record.read(tmp_path / "copy"))) == 1


def test_without_root_it_shows_what_it_may_and_says_what_is_missing() -> None:
    done = subprocess.run(
        [*MILLRACE, "top", "--once", "--interval", "0.1"],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=powerless,
    )
    assert done.returncode == 0, done.stderr
    assert "Overview" in done.stdout
    assert "pkt/s" in done.stdout
    assert "the kernel's drops: watching the kernel's drops takes CAP_BPF" in done.stderr
    assert "NAPI polls: " in done.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["nosuch", "--once"], "there is no view 'nosuch'"),
        (["--once", "--serve"], "name one"),
        ([], "this is no terminal"),
        (["--replay", "/dev/null"], "is empty"),
        (["--replay", "/nosuch"], "No such file"),
        (["--json", "/nosuch/file"], "No such file"),
        (["--json", "/dev/full", "-n", "1", "--interval", "0.1"], "No space left"),
    ],
)
def test_wrong_options_are_one_line(words: list[str], why: str) -> None:
    done = command(*words)
    assert done.returncode == 1
    assert why in done.stderr
