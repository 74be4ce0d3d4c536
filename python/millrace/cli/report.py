"""How commands show figures: a table for people, flat rows in JSON for programs, progress."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

Value = str | int | float | bool | None
Row = Mapping[str, Value]

#: The option of every command that prints figures: `def command(json_file: JsonOption = None)`.
JsonOption = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write the rows as JSON; - is standard output."),
]

PROGRESS_AFTER_SECONDS = 2.0

# A file has no edge; lines that are wrapped at 80 columns cannot be searched.
_WIDTH_OF_FILES = 240


def show(
    rows: Sequence[Row],
    *,
    title: str | None = None,
    columns: Sequence[str] | None = None,
    json_file: str | None = None,
) -> None:
    """Print rows as a table, and write them to `json_file` if there is one.

    `columns` are those of the table, by default all of the first row; the JSON has always all.
    With `-` for the file, JSON goes to standard output and the table to standard error.
    """
    for row in rows:
        for name, value in row.items():
            if not isinstance(value, str | int | float | bool | None):
                raise TypeError(f"column {name} holds {type(value).__name__}; a row must be flat")
    console = Console(stderr=json_file == "-", highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _WIDTH_OF_FILES
    console.print(table(rows, title=title, columns=columns))
    if json_file is not None:
        write_json(rows, json_file)


def write_json(rows: Sequence[Row], json_file: str) -> None:
    """Write rows to a file, or with `-` to standard output."""
    text = json.dumps([dict(row) for row in rows], indent=1, allow_nan=False) + "\n"
    if json_file == "-":
        sys.stdout.write(text)
    else:
        Path(json_file).write_text(text)


def check_json_file(json_file: str | None) -> None:
    """Fail now, not after minutes of measuring, if `json_file` cannot be written."""
    if json_file not in (None, "-"):
        with open(json_file, "a"):
            pass


def table(
    rows: Sequence[Row], *, title: str | None = None, columns: Sequence[str] | None = None
) -> Table:
    """Rows as a table for people; columns are by default all of the first row."""
    names = list(columns if columns is not None else rows[0] if rows else ())
    shown = Table(title=title, title_justify="left")
    for name in names:
        values = [row.get(name) for row in rows]
        numbers = all(value is None or _is_number(value) for value in values)
        shown.add_column(name.replace("_", " "), justify="right" if numbers else "left")
    for row in rows:
        shown.add_row(*(_cell(row.get(name)) for name in names))
    return shown


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        # Four significant digits; all digits of what is large.
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return value


class Steps:
    """Progress of a work of several steps, on standard error, once it takes over two seconds.

        with Steps("measuring", total=12) as steps:
            for arm in arms:
                steps.begin(arm.name)
                ...

    A terminal gets a bar that keeps moving; a file or pipe gets one line for each step.
    """

    def __init__(self, label: str, total: int) -> None:
        self._label = label
        self._total = total
        self._done = -1
        self._what = ""
        self._console = Console(stderr=True, highlight=False)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._begun = time.monotonic()
        self._lock = threading.Lock()
        # A bar must appear in the middle of a long first step, so a timer shows it.
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._timer = threading.Timer(PROGRESS_AFTER_SECONDS, self._show)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
        if self._bar is not None:
            if kind is None:
                self._bar.update(self._task or TaskID(0), completed=self._total)
            self._bar.stop()

    def begin(self, what: str) -> None:
        """The step before is done; the next is `what`."""
        with self._lock:
            self._done += 1
            self._what = what
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, completed=self._done, what=what)
        if self._console.is_terminal:
            return
        if time.monotonic() - self._begun > PROGRESS_AFTER_SECONDS:
            print(f"{self._label} {self._done + 1}/{self._total}: {what}", file=sys.stderr)

    def _show(self) -> None:
        with self._lock:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[what]}"),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task(
                self._label, total=self._total, completed=max(0, self._done), what=self._what
            )
            self._bar.start()
