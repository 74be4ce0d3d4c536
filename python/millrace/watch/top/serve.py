"""The same views in a browser: one page that needs nothing from elsewhere, and the ticks as JSON.

Whoever knows the token in the URL may read along; it is made anew each time. Nothing can be changed
through it.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
from collections import deque
from collections.abc import Callable
from importlib.resources import files
from typing import Any, Self

from millrace.watch.http import Answer, Refused, Request
from millrace.watch.top.source import Source
from millrace.watch.top.tick import Tick
from millrace.watch.top.views import VIEWS, bar, clock, micros, number, share, text

#: Looks that are kept for the curves, and how many curves there may be.
REMEMBERED = 120
MOST_CURVES = 32

#: What the page does with a value, by how a view shows it.
_FORMATS: dict[Callable[..., str], str] = {
    number: "number",
    share: "share",
    bar: "bar",
    micros: "micros",
    clock: "clock",
    text: "text",
}


class Board:
    """Reads ticks in a thread of its own and answers for the last one."""

    def __init__(self, source: Source) -> None:
        self.token = secrets.token_urlsafe(24)
        self._source = source
        self._lock = threading.Lock()
        self._tick: Tick | None = None
        self._count = 0
        self._history: dict[str, deque[float]] = {}
        self._failure = ""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._read, name="millrace-top", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(10)

    def _read(self) -> None:
        try:
            for tick in self._source(self._end):
                with self._lock:
                    self._tick, self._count = tick, self._count + 1
                    self._remember(tick)
            self._failure = "the recording has ended"
        except Exception as error:
            self._failure = f"{type(error).__name__}: {error}"

    def _remember(self, tick: Tick) -> None:
        for row in tick["views"].get("overview", ()):
            value = row.get("value")
            if isinstance(value, int | float) and len(self._history) <= MOST_CURVES:
                kept = self._history.setdefault(str(row.get("what")), deque(maxlen=REMEMBERED))
                kept.append(value)

    def answer(self, request: Request) -> Answer:
        """Serve the page, the data, or the picture of the path."""
        given = request.query.get("token", [""])[0]
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            raise Refused(403, "open the address that millrace top --serve printed, with its token")
        if request.path == "/":
            nonce = secrets.token_urlsafe(16)
            policy = (
                f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
                "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
                "frame-ancestors 'none'"
            )
            page = (files("millrace.watch.top") / "page.html").read_text()
            page = page.replace("NONCE", nonce).replace("VIEWS_JSON", _views())
            headers = {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"}
            return Answer(page.encode(), "text/html; charset=utf-8", headers=headers)
        if request.path == "/tick.json":
            with self._lock:
                shown: dict[str, Any] = {
                    "count": self._count,
                    "failure": self._failure,
                    "history": {what: list(kept) for what, kept in self._history.items()},
                    "tick": self._tick,
                }
            return Answer(json.dumps(shown, allow_nan=False).encode(), "application/json")
        if request.path == "/path.svg":
            with self._lock:
                picture = (self._tick or {}).get("picture")
            if not isinstance(picture, str):
                raise Refused(404, "there is no picture of the path")
            return Answer(picture.encode(), "image/svg+xml; charset=utf-8")
        raise Refused(404, "there is no such page")


def _views() -> str:
    """The views as the page's script takes them."""
    described = [
        {
            "key": view.key,
            "name": view.name,
            "title": view.title,
            "empty": view.empty,
            "sort": view.sort,
            "kind": {"processes": "process", "hosts": "host", "connections": "connection"}.get(
                view.name
            ),
            "columns": [
                {
                    "name": column.name.removesuffix("_share_text"),
                    "heading": column.heading,
                    "format": "of_polls"
                    if column.name.endswith("_share_text")
                    else _FORMATS.get(column.show, "number"),
                    "left": column.left,
                }
                for column in view.columns
            ],
        }
        for view in VIEWS
    ]
    # In a script element, "</" would end it.
    return json.dumps(described).replace("</", "<\\/")
