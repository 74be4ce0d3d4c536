"""How `millrace doctor` shows what it found on a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from rich.console import Console

from millrace.cli.report import Row
from millrace.cli.report import show as show_rows
from millrace.host import ladder, picture_text
from millrace.host.checks import CHECKS, Check
from millrace.host.checks.table import Context, Goal
from millrace.host.doctor import Diagnosis
from millrace.host.finding import Finding, Verdict
from millrace.host.path import picture
from millrace.host.targets import parse
from millrace.host.unavailable import Unavailable

_STYLES = {
    Verdict.BAD: "bold red",
    Verdict.WARN: "bold yellow",
    Verdict.INFO: "cyan",
    Verdict.OK: "green",
    Verdict.SKIP: "dim",
}
#: A line of a file is as long as it needs; one for people is wrapped here at the latest.
_WIDTH = 100
_INDENT = " " * 6


def show(found: Diagnosis, *, show_all: bool = False) -> None:
    """Print all of it: head, findings, ladder, picture, count."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    width = min(console.width, _WIDTH) if console.is_terminal else _WIDTH
    console.print(head(found.context), style="bold")
    for one in found.findings:
        if show_all or one.verdict in (Verdict.BAD, Verdict.WARN, Verdict.INFO):
            console.print()
            console.print(f"{one.verdict.upper():4}", style=_STYLES[one.verdict], end="  ")
            for line in lines_of(one, width):
                console.print(line)
    console.print()
    for line in ladder_lines(found.context):
        console.print(line)
    console.print()
    unicode = (console.encoding or "").lower().startswith("utf")
    for line in picture_text.draw(picture(found.context, found.findings), unicode=unicode):
        console.print(line)
    console.print()
    console.print(summary(found, show_all), style="bold")


def head(context: Context) -> str:
    """What was looked at."""
    origin = context.now.origin
    where = "" if origin.initial_namespace else ", a network namespace of it"
    how_long = f"{context.window.seconds:.1f} s" if context.window else "at a glance"
    who = "" if origin.uid == 0 else f", as user {origin.uid}"
    goal = "" if context.goal is Goal.NONE else f", goal {context.goal}"
    return f"{origin.host}{where}, Linux {origin.kernel}, looked {how_long}{who}{goal}"


def lines_of(one: Finding, width: int) -> Iterator[str]:
    """One finding; the first line goes behind its verdict."""
    yield f"{one.check} ({one.scope})"
    yield from _wrapped(one.evidence, width)
    if one.why:
        yield from _wrapped(f"Why: {one.why}", width)
    if one.remedy:
        yield from _wrapped(f"Do: {one.remedy}", width)
    for line in one.shell.splitlines():
        # Whole, so that it can be pasted.
        yield f"{_INDENT}  $ {line}"
    if one.steps and _is_ours(one):
        yield f"{_INDENT}  or: millrace tune --fix {one.check} --apply"
    if one.risk and one.remedy:
        yield from _wrapped(f"Risk: {one.risk}", width)


def _is_ours(one: Finding) -> bool:
    return all(parse(step.target) for step in one.steps)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=_INDENT,
        subsequent_indent=_INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )


def ladder_lines(context: Context) -> Iterator[str]:
    """The ladder of loss."""
    try:
        rungs = ladder.ladder(context)
    except Unavailable as missing:
        yield f"Loss: {missing}"
        return
    yield f"Loss on the way in, {context.rates.seconds:.1f} s"
    for rung in rungs:
        if rung.unknown:
            yield f"  {rung.layer:12} not available: {rung.unknown}"
            continue
        arrived = "" if rung.arrived is None else f"{rung.arrived:,} came"
        lost = f"{rung.lost:,} lost ({context.per_second(rung.lost):,.0f}/s)" if rung.lost else "-"
        worst = sorted(rung.counters.items(), key=lambda pair: -pair[1])[:3]
        named = ", ".join(f"{name} {count:,}" for name, count in worst)
        yield f"  {rung.layer:12} {arrived:>18}  {lost:24} {named}".rstrip()


def summary(found: Diagnosis, show_all: bool) -> str:
    """The last line: how many of each."""
    counts = found.counts()
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    more = "" if show_all else "; --all shows the rest, --explain CHECK teaches"
    return f"{len(CHECKS)} checks: {told}{more}"


def explanation(check: Check) -> str:
    """What `--explain` prints."""
    parts = [
        f"{check.id} (layer {check.layer}, about {check.scope.kind})",
        "",
        check.explanation,
        "",
        *textwrap.wrap(f"Why it matters: {check.why}", _WIDTH),
        *textwrap.wrap(f"Source: {check.source}", _WIDTH),
        "",
        f"millrace doctor --check {check.id}    looks for it alone",
        f"millrace tune --fix {check.id}    shows what it would write, where Millrace can mend it",
    ]
    return "\n".join(parts)


def show_checks(json_file: str | None) -> None:
    """What `--list` prints."""
    rows: list[Row] = [
        {
            "check": one.id,
            "layer": str(one.layer),
            "scope": one.scope.kind,
            "about": one.explanation.splitlines()[0],
        }
        for one in CHECKS.values()
    ]
    show_rows(rows, title=f"{len(rows)} checks", json_file=json_file)
