"""A page to look at: findings, ladder and picture in one HTML file that needs nothing else.

No script and nothing from another host: the page may be mailed, and opened where there is no
network. Every text is escaped, since a bundle may come from anybody; a policy in the page forbids
what would not be there anyway.
"""

from __future__ import annotations

import time
from html import escape

from millrace.host import ladder, picture_svg
from millrace.host.checks import CHECKS
from millrace.host.doctor import Diagnosis
from millrace.host.finding import Finding, Verdict
from millrace.host.path import picture
from millrace.host.unavailable import Unavailable

_STYLE = """
:root { color-scheme: light; --edge: #d5dbe1; --soft: #5b6570; }
body { font: 15px/1.5 ui-sans-serif, system-ui, sans-serif; color: #1c2126; margin: 0;
  background: #fff; }
main { max-width: 1680px; margin: 0 auto; padding: 24px; }
h1 { font-size: 22px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 32px 0 8px; }
p.head { color: var(--soft); margin: 0 0 16px; }
.counts span { display: inline-block; margin-right: 8px; padding: 2px 10px; border-radius: 12px;
  border: 1px solid var(--edge); }
article { border: 1px solid var(--edge); border-left-width: 5px; border-radius: 6px;
  padding: 10px 14px; margin: 10px 0; }
article.bad { border-left-color: #b02a37; } article.warn { border-left-color: #b58900; }
article.info { border-left-color: #3a7ca5; }
article.skip, article.ok { border-left-color: #9fb3c8; }
article h3 { margin: 0 0 4px; font-size: 15px; } article h3 small { color: var(--soft);
  font-weight: normal; }
article p { margin: 4px 0; } article .why { color: var(--soft); }
pre { background: #f4f6f8; border: 1px solid var(--edge); border-radius: 6px; padding: 8px 10px;
  overflow-x: auto; margin: 6px 0; font-size: 13px; }
table { border-collapse: collapse; } th, td { text-align: left; padding: 4px 14px 4px 0;
  border-bottom: 1px solid var(--edge); vertical-align: top; } td.number { text-align: right;
  font-variant-numeric: tabular-nums; }
tr.lost td { background: #fbeaec; }
.picture { overflow-x: auto; border: 1px solid var(--edge); border-radius: 6px; padding: 8px; }
details { margin: 16px 0; } summary { cursor: pointer; }
"""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(found: Diagnosis) -> str:
    """The whole page."""
    context = found.context
    origin = context.now.origin
    window = f"over {context.window.seconds:.1f} s" if context.window else "at a glance"
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(min(max(origin.time, 0), 1e11)))
    where = "" if origin.initial_namespace else ", one network namespace of it"
    counts = found.counts()
    told = "".join(
        f'<span id="count-{verdict}">{count} {verdict}</span>' for verdict, count in counts.items()
    )
    loud = [one for one in found.findings if one.verdict in _LOUD]
    quiet = [one for one in found.findings if one.verdict not in _LOUD]
    body = [
        f"<h1>millrace doctor: {escape(origin.host)}</h1>",
        f'<p class="head">{escape(f"Linux {origin.kernel}{where}, {when}, {window}")}</p>',
        f'<p class="counts">{told}</p>',
        "<h2>Findings</h2>",
        *(map(_article, loud) if loud else ["<p>Nothing to complain about.</p>"]),
        "<h2>Loss on the way in</h2>",
        _ladder(found),
        "<h2>The path</h2>",
        f'<div class="picture">{picture_svg.draw(picture(context, found.findings))}</div>',
        f"<details><summary>{len(quiet)} more: well, or skipped</summary>",
        *map(_article, quiet),
        "</details>",
        f'<p class="head">{len(CHECKS)} checks, Millrace {escape(origin.millrace)}</p>',
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>millrace doctor: {escape(origin.host)}</title>",
            f"<style>{_STYLE}</style></head><body><main>",
            *body,
            "</main></body></html>",
            "",
        ]
    )


_LOUD = (Verdict.BAD, Verdict.WARN, Verdict.INFO)


def _article(one: Finding) -> str:
    parts = [
        f'<article class="{one.verdict}" id="{escape(one.check)}">',
        f"<h3>{one.verdict.upper()}: {escape(one.check)} <small>{escape(str(one.scope))}</small>"
        "</h3>",
        f"<p>{escape(one.evidence)}</p>",
    ]
    if one.why:
        parts.append(f'<p class="why">{escape(one.why)}</p>')
    if one.remedy:
        parts.append(f"<p>Do: {escape(one.remedy)}</p>")
    if one.shell:
        parts.append(f"<pre>{escape(one.shell)}</pre>")
    if one.risk and one.remedy:
        parts.append(f'<p class="why">Risk: {escape(one.risk)}</p>')
    return "".join([*parts, "</article>"])


def _ladder(found: Diagnosis) -> str:
    try:
        rungs = ladder.ladder(found.context)
    except Unavailable as missing:
        return f"<p>{escape(str(missing))}</p>"
    rows = []
    for rung in rungs:
        arrived = "" if rung.arrived is None else f"{rung.arrived:,}"
        named = ", ".join(f"{name} {count:,}" for name, count in sorted(rung.counters.items()))
        told = f"not available: {rung.unknown}" if rung.unknown else named
        rows.append(
            f'<tr class="{"lost" if rung.lost else "well"}"><td>{rung.layer}</td>'
            f'<td class="number">{arrived}</td><td class="number">{rung.lost:,}</td>'
            f"<td>{escape(told)}</td></tr>"
        )
    return (
        "<table><thead><tr><th>place</th><th>came</th><th>lost</th><th>counters</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
