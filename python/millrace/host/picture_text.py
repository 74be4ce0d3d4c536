"""The picture of the path for a terminal: a tree from each NIC to the processes."""

from __future__ import annotations

from millrace.host.finding import Verdict
from millrace.host.path import COLUMNS, TITLES, Box, Line, Picture

_MARKS = {Verdict.BAD: " (!!)", Verdict.WARN: " (!)"}
#: Lines of a picture at most; what is deeper is told as a number.
MAX_LINES = 120


def draw(picture: Picture, *, unicode: bool = True) -> list[str]:
    """Lines of text. Boxes that were drawn before are named again without what follows them."""
    branch, last, through, space = ("├─ ", "└─ ", "│  ", "   ") if unicode else (
        "|- ", "`- ", "|  ", "   ")  # fmt: skip
    boxes = {box.id: box for box in picture.boxes}
    following: dict[str, list[Line]] = {}
    for line in picture.lines:
        following.setdefault(line.source, []).append(line)
    reached = {line.target for line in picture.lines}
    told: set[str] = set()
    lines = [picture.title]

    def walk(box: Box, indent: str, mark: str, prefix: str) -> None:
        again = box.id in told
        told.add(box.id)
        text = f"{box.label}{_MARKS.get(box.verdict, '') if box.verdict else ''}"
        if box.details and not again:
            text += f"  {', '.join(box.details)}"
        lines.append(f"{indent}{mark}{prefix}{text}")
        if again:
            return
        nexts = [line for line in following.get(box.id, ()) if line.target in boxes]
        for at, line in enumerate(nexts):
            is_last = at == len(nexts) - 1
            deeper = indent + (space if mark == last else through if mark else "")
            share = f"{line.share:.0%} " if line.share is not None else ""
            walk(
                boxes[line.target],
                deeper,
                last if is_last else branch,
                f"{share}{line.label + ' ' if line.label else ''}",
            )

    for name, title in zip(COLUMNS, TITLES, strict=True):
        roots = [box for box in picture.column(name) if box.id not in reached]
        roots = [box for box in roots if box.id not in told]
        if roots and name != "nic":
            lines.append(f"{title} with no line to them that anybody counts:")
        for at, box in enumerate(roots):
            mark = last if at == len(roots) - 1 else branch
            walk(box, "", "" if name == "nic" else mark, "")
    for name, count in picture.left_out.items():
        lines.append(f"({count:,} more: {TITLES[COLUMNS.index(name)]})")
    if len(lines) > MAX_LINES:
        lines[MAX_LINES:] = [f"({len(lines) - MAX_LINES:,} more lines)"]
    return lines
