"""A view as lines of text that fit a width."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from millrace.watch.top.views import Column, Row, Value, View, number

#: Narrower than this nothing is shown.
LEAST_WIDTH = 20


@dataclass(frozen=True)
class Look:
    """How a view is looked at."""

    sort: str = ""
    reverse: bool = True
    filter: str = ""
    #: Rows of an earlier tick: figures are shown as differences from it.
    baseline: Mapping[tuple[str, ...], Row] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Lines:
    """A view as text."""

    heading: str
    rows: tuple[str, ...]
    #: How many rows the filter took away.
    hidden: int


def lines(view: View, rows: Sequence[Row], look: Look, width: int) -> Lines:
    """The rows as they are looked at, cut to a width."""
    columns = fit(view, width)
    kept = [row for row in rows if _matches(row, look.filter)]
    name = look.sort or view.sort
    if name:
        kept.sort(key=lambda row: _order(row.get(name)), reverse=look.reverse)
    if look.baseline is not None:
        kept = [_difference(view, row, look.baseline) for row in kept]
    heading = " ".join(_pad(_heading(column, name), column) for column in columns)
    texts = tuple(
        " ".join(_pad(column.show(row.get(column.name)), column) for column in columns).rstrip()
        for row in kept
    )
    return Lines(heading.rstrip(), texts, len(rows) - len(kept))


def fit(view: View, width: int) -> list[Column]:
    """The columns that there is room for; those of text share what is left over."""
    columns = list(view.columns)
    while columns and _width(columns) > width:
        # The last of those that matter least.
        worst = max(range(len(columns)), key=lambda at: (columns[at].priority, at))
        if columns[worst].priority == 0:
            break
        del columns[worst]
    spare = width - _width(columns)
    wide = [at for at, column in enumerate(columns) if column.left]
    if spare > 0 and wide:
        for at in wide:
            columns[at] = replace(columns[at], width=columns[at].width + spare // len(wide))
    elif spare < 0:
        # Narrower than any screen that it was made for: what is text is cut shorter.
        while _width(columns) > width and any(columns[at].width > 4 for at in wide):
            at = max(wide, key=lambda at: columns[at].width)
            columns[at] = replace(columns[at], width=columns[at].width - 1)
        while len(columns) > 1 and _width(columns) > width:
            columns.pop()
    return columns


def _heading(column: Column, sorted_by: str) -> str:
    if column.name != sorted_by:
        return column.heading
    return f"{column.heading[: column.width - 1]}*"


def _width(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + max(0, len(columns) - 1)


def _pad(text: str, column: Column) -> str:
    # What comes from other processes may have anything in it.
    text = "".join(c if c.isprintable() else "?" for c in text)
    if len(text) > column.width:
        text = text[: max(1, column.width - 1)] + "…"
    return text.ljust(column.width) if column.left else text.rjust(column.width)


def _matches(row: Row, wanted: str) -> bool:
    return not wanted or any(wanted.lower() in str(value).lower() for value in row.values())


def _order(value: Value) -> tuple[int, float, str]:
    if isinstance(value, int | float):
        return (1, float(value), "")
    return (0, 0.0, str(value or ""))


def identity(view: View, row: Row) -> tuple[str, ...]:
    """What makes a row the same one a tick later: its texts."""
    names = [column.name for column in view.columns if column.left or column.name == "cpu"]
    return tuple(str(row.get(name)) for name in names if name not in ("note", "what_", "text"))


def baseline(view: View, rows: Iterable[Row]) -> dict[tuple[str, ...], Row]:
    """Rows to compare later ones with."""
    return {identity(view, row): row for row in rows}


def _difference(view: View, row: Row, before: Mapping[tuple[str, ...], Row]) -> Row:
    old = before.get(identity(view, row))
    if old is None:
        return row
    changed = dict(row)
    for column in view.columns:
        now, was = row.get(column.name), old.get(column.name)
        if column.left or column.name in ("cpu", "time") or isinstance(now, bool | str):
            continue
        if isinstance(now, int | float) and isinstance(was, int | float):
            changed[column.name] = now - was
    if isinstance(row.get("value"), int | float) and isinstance(old.get("value"), int | float):
        # The overview shows texts that were made of its values.
        changed["shown"] = number(float(row["value"] or 0) - float(old["value"] or 0))
    return changed


def once(view: View, tick: Mapping[str, object], width: int, most: int | None = None) -> list[str]:
    """A view as a few lines, for a terminal that is not a screen."""
    shown = lines(view, view.of(tick), Look(), width)
    title = [view.title, "-" * min(width, len(view.title))]
    if not shown.rows:
        return [*title, view.empty, ""]
    rows = list(shown.rows[:most])
    left = len(shown.rows) - len(rows)
    return [*title, shown.heading, *rows, *([f"({left} more)"] if left else []), ""]
