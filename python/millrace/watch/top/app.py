"""The full screen. It works at 80 columns and 24 lines, and without colours."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any, ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Input, Static

from millrace.watch.top import render
from millrace.watch.top.render import Look
from millrace.watch.top.source import Source
from millrace.watch.top.tick import Tick
from millrace.watch.top.views import BY_KEY, VIEWS, View, clock

_HELP = """\
1 to 9, c, l, m, t  a view (left and right: the one before, the next)
s                   sort by the next column        r  the other way round
/                   show only rows with a text     Esc  show all again
b                   figures are differences from now on; again: as they are
p or space          pause; what happens meanwhile is still counted
n                   notes: what could not be read, and why
?                   this
q                   end

Columns with an asterisk are sorted by. Numbers are a second: k thousand, M million.
"""


class Top(App[None]):
    """Shows ticks as they come."""

    CSS = """
    Screen { layout: vertical; }
    #title, #tabs, #heading, #footer { height: 1; }
    #heading { text-style: bold; }
    #title, #footer { text-style: reverse; }
    #filter { height: 1; border: none; padding: 0; display: none; }
    #filter.shown { display: block; }
    #body { height: 1fr; scrollbar-size-vertical: 1; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "end"),
        Binding("s", "sort", "sort"),
        Binding("r", "reverse", "reverse"),
        Binding("slash", "filter", "filter"),
        Binding("escape", "unfilter", "all"),
        Binding("b", "baseline", "baseline"),
        Binding("p,space", "pause", "pause"),
        Binding("n", "notes", "notes"),
        Binding("question_mark,h", "help", "help"),
        Binding("left", "turn(-1)", "before"),
        Binding("right", "turn(1)", "next"),
        *(Binding(view.key, f"view('{view.key}')", view.name, show=False) for view in VIEWS),
    ]

    def __init__(self, source: Source, view: View = VIEWS[0]) -> None:
        super().__init__()
        self._source = source
        self._end = threading.Event()
        self._view = view
        self._looks = {one.name: Look() for one in VIEWS}
        self._tick: Tick | None = None
        self._latest: Tick | None = None
        self._paused = False
        self._overlay = ""
        #: The widgets are there.
        self._has_widgets = False
        #: Why it ended, if it was not told to.
        self.failure: Exception | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="title")
        yield Static(id="tabs")
        yield Static(id="heading")
        with VerticalScroll(id="body"):
            yield Static(id="rows")
        yield Input(id="filter", placeholder="only rows with this text", compact=True)
        yield Static(id="footer")

    def on_mount(self) -> None:
        self._has_widgets = True
        self._show()
        self._read()

    def on_unmount(self) -> None:
        self._has_widgets = False
        self._end.set()

    @work(thread=True)
    def _read(self) -> None:
        try:
            for tick in self._source(self._end):
                if self._end.is_set():
                    return
                self.call_from_thread(self._take, tick)
        except Exception as error:
            self.failure = error
            if not self._end.is_set():
                self.call_from_thread(self.exit)

    def _take(self, tick: Tick) -> None:
        self._latest = tick
        if not self._paused:
            self._tick = tick
            self._show()

    def on_resize(self) -> None:
        self._show()

    def action_view(self, key: str) -> None:
        self._view = BY_KEY[key]
        self._overlay = ""
        self.query_one("#body", VerticalScroll).scroll_home(animate=False)
        self._show()

    def action_turn(self, step: int) -> None:
        at = (VIEWS.index(self._view) + step) % len(VIEWS)
        self.action_view(VIEWS[at].key)

    def action_sort(self) -> None:
        # Also by what there is no room for: it may matter all the same.
        names = [column.name for column in self._view.columns]
        look = self._look
        now = look.sort or self._view.sort
        at = names.index(now) + 1 if now in names else 0
        self._look = replace(look, sort=names[at % len(names)])

    def action_reverse(self) -> None:
        self._look = replace(self._look, reverse=not self._look.reverse)

    def action_baseline(self) -> None:
        kept = None
        if self._look.baseline is None and self._tick is not None:
            kept = render.baseline(self._view, self._view.of(self._tick))
        self._look = replace(self._look, baseline=kept)

    def action_pause(self) -> None:
        self._paused = not self._paused
        if not self._paused:
            self._tick = self._latest
        self._show()

    def action_filter(self) -> None:
        box = self.query_one("#filter", Input)
        box.value = self._look.filter
        box.add_class("shown")
        box.focus()

    def action_unfilter(self) -> None:
        self._overlay = ""
        self._close_filter()
        self._look = replace(self._look, filter="")

    def on_input_changed(self, event: Input.Changed) -> None:
        self._look = replace(self._look, filter=event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self._close_filter()

    def _close_filter(self) -> None:
        self.query_one("#filter", Input).remove_class("shown")
        self.set_focus(None)

    def action_help(self) -> None:
        self._overlay = "" if self._overlay == "help" else "help"
        self._show()

    def action_notes(self) -> None:
        self._overlay = "" if self._overlay == "notes" else "notes"
        self._show()

    @property
    def _look(self) -> Look:
        return self._looks[self._view.name]

    @_look.setter
    def _look(self, look: Look) -> None:
        self._looks[self._view.name] = look
        self._show()

    def _show(self) -> None:
        if not self._has_widgets:
            return
        # One column is the scroll bar's.
        width = max(render.LEAST_WIDTH, self.size.width - 1)
        heading, body, hidden = "", self._view.empty, 0
        notes = self._notes()
        if self._overlay == "help":
            body = _HELP
        elif self._overlay == "notes":
            body = "\n".join(notes) or "everything could be read"
        elif self._tick is not None:
            rows = self._view.of(self._tick)
            shown = render.lines(self._view, rows, self._look, width)
            heading, hidden = shown.heading, shown.hidden
            body = "\n".join(shown.rows) or self._nothing(hidden)
        self._put("title", self._title(width))
        self._put("tabs", self._tabs(width))
        self._put("heading", heading)
        self._put("rows", body)
        self._put("footer", self._footer(hidden, len(notes)))

    def _put(self, name: str, text: str | Text) -> None:
        # Text, and no markup: what is shown comes from other processes.
        self.query_one(f"#{name}", Static).update(text if isinstance(text, Text) else Text(text))

    def _nothing(self, hidden: int) -> str:
        return f"none of {hidden} rows has {self._look.filter!r}" if hidden else self._view.empty

    def _notes(self) -> list[str]:
        notes = self._tick.get("notes", []) if self._tick is not None else []
        return [str(note) for note in notes] if isinstance(notes, list) else []

    def _title(self, width: int) -> str:
        when = clock(self._tick["time"]) if self._tick is not None else "waiting"
        host = str(self._tick.get("host", "")) if self._tick is not None else ""
        state = "  PAUSED" if self._paused else ""
        left = f"millrace top  {host}  {self._view.title}"
        right = f"{when}{state}"
        return f"{left[: width - len(right) - 1]:<{max(0, width - len(right))}}{right}"

    def _tabs(self, width: int) -> Text:
        tabs = Text(no_wrap=True, overflow="crop")
        for view in VIEWS:
            word = view.name if width >= 140 else view.name[:4]
            style = "reverse" if view is self._view else ""
            tabs.append(f"{view.key}", style="bold").append(f"{word}", style=style).append(" ")
        return tabs

    def _footer(self, hidden: int, notes: int) -> str:
        words = ["? keys"]
        if self._look.filter:
            words.append(f"/{self._look.filter}: {hidden} hidden")
        if self._look.baseline is not None:
            words.append("differences from the baseline")
        if notes:
            words.append(f"n: {notes} unreadable")
        cost: Any = self._tick.get("cost") if self._tick is not None else None
        if isinstance(cost, dict) and isinstance(cost.get("cpu_share"), int | float):
            words.append(f"this costs {cost['cpu_share']:.1%} of a core")
        return "  ".join(words)
