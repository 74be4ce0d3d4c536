"""The picture of the path as SVG: a column of boxes for each stage, curves between them.

It stands alone: no script, no font and no image from elsewhere. Every text is escaped, since names
may come from a file.
"""

from __future__ import annotations

from html import escape

from millrace.host.finding import Verdict
from millrace.host.path import COLUMNS, TITLES, Box, Picture

_WIDTH = 170
_GAP = 60
_LINE = 15
_PAD = 8
_MARGIN = 20
_HEAD = 60
_TEXT = 24  # characters that fit into a box
_FILLS = {None: "#f4f6f8", Verdict.WARN: "#fff3cd", Verdict.BAD: "#f8d7da"}
_EDGES = {None: "#8a94a0", Verdict.WARN: "#b58900", Verdict.BAD: "#b02a37"}


def draw(picture: Picture) -> str:
    """The SVG, as one element that can stand in a page or in a file of its own."""
    columns = [name for name in COLUMNS if picture.column(name)]
    places: dict[str, tuple[int, int, int]] = {}
    bottom = _HEAD
    for at, name in enumerate(columns):
        y = _HEAD
        for box in picture.column(name):
            height = 2 * _PAD + _LINE * (1 + len(box.details))
            places[box.id] = (_MARGIN + at * (_WIDTH + _GAP), y, height)
            y += height + 12
        if picture.left_out.get(name):
            y += 2 * _LINE
        bottom = max(bottom, y)
    width = 2 * _MARGIN + max(len(columns), 1) * (_WIDTH + _GAP) - _GAP
    height = bottom + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" '
        'font-family="ui-sans-serif, system-ui, sans-serif" font-size="11">',
        f"<title>{escape(picture.title)}</title>",
        f'<text x="{_MARGIN}" y="22" font-size="14" font-weight="600">'
        f"{escape(picture.title)}</text>",
    ]
    for at, name in enumerate(columns):
        x = _MARGIN + at * (_WIDTH + _GAP)
        title = TITLES[COLUMNS.index(name)]
        parts.append(f'<text x="{x}" y="46" fill="#5b6570">{escape(title)}</text>')
    for line in picture.lines:
        if line.source in places and line.target in places:
            parts.append(_curve(places[line.source], places[line.target], line.share, line.label))
    parts += [_box(box, *places[box.id]) for box in picture.boxes if box.id in places]
    for at, name in enumerate(columns):
        if count := picture.left_out.get(name):
            x = _MARGIN + at * (_WIDTH + _GAP)
            below = max(places[box.id][1] + places[box.id][2] for box in picture.column(name))
            parts.append(f'<text x="{x}" y="{below + 20}" fill="#5b6570">{count:,} more</text>')
    parts.append("</svg>")
    return "\n".join(parts)


def _curve(
    source: tuple[int, int, int], target: tuple[int, int, int], share: float | None, label: str
) -> str:
    x1, y1 = source[0] + _WIDTH, source[1] + source[2] // 2
    x2, y2 = target[0], target[1] + target[2] // 2
    bend = max((x2 - x1) // 2, 20)
    thick = 1.0 if share is None else 1 + 5 * min(max(share, 0.0), 1.0)
    dash = ' stroke-dasharray="4 3"' if label else ""
    path = (
        f'<path d="M{x1} {y1} C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}" fill="none" '
        f'stroke="#9fb3c8" stroke-width="{thick:.1f}"{dash}/>'
    )
    words = " ".join(filter(None, [label, f"{share:.0%}" if share is not None else ""]))
    if words:
        path += (
            f'<text x="{(x1 + x2) // 2}" y="{(y1 + y2) // 2 - 3}" text-anchor="middle" '
            f'fill="#5b6570" font-size="10">{escape(words)}</text>'
        )
    return path


def _box(box: Box, x: int, y: int, height: int) -> str:
    fill, edge = _FILLS.get(box.verdict, "#f4f6f8"), _EDGES.get(box.verdict, "#8a94a0")
    mark = {Verdict.BAD: "bad", Verdict.WARN: "warn"}.get(box.verdict) if box.verdict else None
    tip = "\n".join([box.label, *box.details, *([mark] if mark else [])])
    lines = [
        f"<g><title>{escape(tip)}</title>",
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{height}" rx="6" fill="{fill}" '
        f'stroke="{edge}"/>',
    ]
    for at, text in enumerate((box.label, *box.details)):
        weight = ' font-weight="600"' if at == 0 else ' fill="#3a434d"'
        lines.append(
            f'<text x="{x + _PAD}" y="{y + _PAD + 11 + at * _LINE}"{weight}>'
            f"{escape(_short(text))}</text>"
        )
    return "".join([*lines, "</g>"])


def _short(text: str) -> str:
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"
