"""Which rows a view shows, and how: the same for the screen, for `--once` and for the browser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

Value = str | int | float | bool | None
Row = Mapping[str, Value]

_BLOCKS = " ▁▂▃▄▅▆▇█"


def number(value: Value) -> str:
    """Three digits and a unit, in at most six characters."""
    if value is None or isinstance(value, str | bool):
        return "-" if value is None else str(value)
    size = abs(float(value))
    if size < 10 and float(value) != int(value):
        return f"{float(value):.2f}" if size >= 0.01 else f"{float(value):.3f}"[:5]
    for unit in ("", "k", "M", "G", "T"):
        if size < 1000 or unit == "T":
            digits = 0 if unit == "" or size >= 100 else 1 if size >= 10 else 2
            text = f"{size:.{digits}f}{unit}"
            return f"-{text}" if float(value) < 0 else text
        size /= 1000
    raise AssertionError("unreachable")


def share(value: Value) -> str:
    """As a percentage."""
    if not isinstance(value, int | float):
        return "-"
    percent = 100 * float(value)
    return f"{percent:.1f}%" if 0 < abs(percent) < 9.95 else f"{percent:.0f}%"


def micros(value: Value) -> str:
    """Microseconds, in the unit that fits."""
    if not isinstance(value, int | float):
        return "-"
    for unit in ("us", "ms"):
        if value < 1000:
            return f"{value:.3g}{unit}"
        value = value / 1000
    return f"{value:.3g}s"


def text(value: Value) -> str:
    """As it is."""
    return "" if value is None else str(value)


def clock(value: Value) -> str:
    """Time of day."""
    if not isinstance(value, int | float):
        return "-"
    return datetime.fromtimestamp(value).strftime("%H:%M:%S")


def bar(value: Value, width: int = 8) -> str:
    """A share as a bar."""
    if not isinstance(value, int | float):
        return "-"
    filled = round(min(max(float(value), 0.0), 1.0) * width)
    return "#" * filled + "." * (width - filled)


def block(value: Value) -> str:
    """A share as one character."""
    if not isinstance(value, int | float) or value <= 0:
        return _BLOCKS[0]
    return _BLOCKS[1 + min(7, int(float(value) * 8))]


@dataclass(frozen=True)
class Column:
    """One column."""

    name: str
    heading: str
    width: int
    show: Callable[[Value], str] = number
    #: Those with the greatest numbers go first where there is no room.
    priority: int = 0
    left: bool = False

    @property
    def is_text(self) -> bool:
        """Whether it takes what room is left."""
        return self.show is text


def _name(name: str, heading: str, width: int, priority: int = 0) -> Column:
    return Column(name, heading, width, text, priority, left=True)


@dataclass(frozen=True)
class View:
    """One view."""

    key: str
    name: str
    title: str
    columns: tuple[Column, ...]
    #: What is said where there is nothing to show.
    empty: str
    #: The column by which it is sorted at first; none: the order of the tick.
    sort: str = ""
    rows: Callable[[Mapping[str, Sequence[Row]]], Sequence[Row]] | None = None

    def of(self, tick: Mapping[str, object]) -> Sequence[Row]:
        """The rows of a tick."""
        views = tick.get("views")
        if not isinstance(views, Mapping):
            return ()
        if self.rows is not None:
            return self.rows(views)
        found = views.get(self.name, ())
        return found if isinstance(found, Sequence) else ()


def _overview(views: Mapping[str, Sequence[Row]]) -> Sequence[Row]:
    shows = {"share": share, "pps": number, "count": number}
    return [
        {**row, "shown": shows.get(str(row.get("unit")), number)(row.get("value"))}
        for row in views.get("overview", ())
    ]


def _napi(views: Mapping[str, Sequence[Row]]) -> Sequence[Row]:
    found = []
    for row in views.get("napi", ()):
        polls = row.get("polls")
        total = float(polls) if isinstance(polls, int | float) and polls else 1.0
        buckets = {
            name: share(float(value) / total)
            for name, value in row.items()
            if (name.startswith("le_") or name == "full") and isinstance(value, int | float)
        }
        found.append({**row, **{f"{name}_share_text": shown for name, shown in buckets.items()}})
    return found


def _bucket(name: str, heading: str, priority: int = 0) -> Column:
    return Column(f"{name}_share_text", heading, 5, lambda value: str(value or "-"), priority)


def _of(kind: str) -> Callable[[Mapping[str, Sequence[Row]]], Sequence[Row]]:
    return lambda views: [row for row in views.get("flows", ()) if row.get("kind") == kind]


_FLOW = (
    _name("name", "flow", 24),
    Column("in_2s", "in 2s", 6),
    Column("in_10s", "10s", 6),
    Column("in_40s", "40s", 6, number, 2),
    Column("out_2s", "out 2s", 6),
    Column("out_10s", "10s", 6),
    Column("out_40s", "40s", 6, number, 2),
    Column("total_in", "bytes in", 8),
    Column("total_out", "bytes out", 9),
    Column("connections", "conns", 5, number, 1),
)

VIEWS: tuple[View, ...] = (
    View(
        "1",
        "overview",
        "Overview",
        (
            _name("what", "what", 17),
            Column("shown", "now", 7, text),
            _name("unit", "", 5),
            _name("note", "", 40),
        ),
        "the first look is still to come",
        rows=_overview,
    ),
    View(
        "2",
        "cpus",
        "CPUs",
        (
            Column("cpu", "CPU", 3, text),
            Column("busy", "busy", 5, share),
            Column("softirq", "softirq", 7, share),
            Column("steal", "steal", 5, share, 2),
            Column("irqs", "irq/s", 6),
            Column("net_rx", "net rx", 6),
            Column("net_tx", "net tx", 6),
            Column("packets", "pkt/s", 6),
            Column("dropped", "dropped", 7),
            Column("squeezed", "squeezed", 8),
            Column("rps", "rps", 6, number, 1),
            Column("flow_limit", "limit", 6, number, 2),
            Column("backlog", "backlog", 7),
        ),
        "this machine does not tell what its CPUs do",
    ),
    View(
        "3",
        "queues",
        "Queues",
        (
            _name("interface", "interface", 12),
            _name("queue", "queue", 6),
            Column("packets", "pkt/s", 6),
            Column("bits", "bit/s", 6),
            Column("share", "share", 8, bar),
            Column("lost", "lost/s", 6),
            Column("napi", "NAPI", 6, text),
            Column("irq", "IRQ", 5, text),
            Column("cpus", "CPU", 5, text),
            Column("inflight", "bytes", 6),
            Column("limit", "limit", 6, number, 1),
        ),
        "no interface here has told of queues",
    ),
    View(
        "4",
        "napi",
        "NAPI: share of polls by packets that they found",
        (
            _name("interface", "interface", 14),
            Column("polls", "polls/s", 7),
            _bucket("le_0", "none"),
            _bucket("le_1", "1"),
            _bucket("le_2", "2", 1),
            _bucket("le_4", "3-4"),
            _bucket("le_8", "5-8", 1),
            _bucket("le_16", "9-16"),
            _bucket("le_32", "17-32", 2),
            _bucket("le_63", "33-", 2),
            _bucket("full", "full"),
        ),
        "no poll was seen: no interface is busy, or it takes root to count them",
        "polls",
        _napi,
    ),
    View(
        "5",
        "ladder",
        "Loss on the way in, by rung",
        (
            _name("layer", "rung", 12),
            Column("arrived", "arrived/s", 9),
            Column("lost", "lost/s", 7),
            _name("what", "most of it", 46),
        ),
        "two looks are needed",
    ),
    View(
        "6",
        "drops",
        "Drops by reason",
        (
            Column("rate", "drop/s", 6),
            Column("packets", "all", 6),
            _name("reason", "reason", 20),
            _name("kind", "kind", 6, 1),
            _name("where", "where", 16),
            _name("interface", "interface", 12),
            _name("protocol", "proto", 6, 1),
            _name("example", "example", 12, 2),
        ),
        "nothing was dropped",
    ),
    View(
        "7",
        "sockets",
        "Sockets",
        (
            _name("process", "process", 14),
            _name("peer", "peer", 20),
            _name("state", "state", 6, 2),
            _name("limited_by", "limited by", 11),
            Column("in", "in B/s", 6),
            Column("out", "out B/s", 7),
            Column("rtt_us", "rtt", 7, micros),
            Column("cwnd", "cwnd", 5, number, 1),
            Column("retransmits", "rtx/s", 5),
            Column("recv_q", "rq", 5, number, 1),
            Column("send_q", "sq", 5, number, 1),
            Column("drops", "drops", 5, number, 2),
            _name("local", "local", 20, 3),
        ),
        "there is no connection",
    ),
    View("8", "processes", "Flows by process", _FLOW, "no TCP moved anything", rows=_of("process")),
    View("9", "hosts", "Flows by host", _FLOW, "no TCP moved anything", rows=_of("host")),
    View(
        "c",
        "connections",
        "Flows by connection",
        _FLOW,
        "no TCP moved anything",
        rows=_of("connection"),
    ),
    View(
        "l",
        "listeners",
        "Accept queues",
        (
            _name("local", "listener", 26),
            _name("process", "process", 22),
            Column("waiting", "waiting", 7),
            Column("limit", "limit", 6),
            Column("fill", "fill", 8, bar),
        ),
        "nobody listens",
        "fill",
    ),
    View(
        "m",
        "stacks",
        "Millrace's stacks and ports",
        (
            _name("process", "process", 14),
            _name("port", "port", 14),
            Column("rx", "rx/s", 6),
            Column("tx", "tx/s", 6),
            Column("burst", "burst", 5),
            Column("busy", "busy", 5, share),
            Column("ns_per_frame", "ns/frm", 6),
            Column("frames_free", "free", 5, share),
            Column("connections", "conns", 5),
            Column("drops", "drop/s", 6, number, 1),
            Column("retransmits", "rtx/s", 5, number, 1),
            Column("sleeps", "sleeps", 6, number, 2),
        ),
        "no Millrace process shows itself; is one running, as this user?",
    ),
    View(
        "t",
        "timeline",
        "Timeline",
        (Column("time", "when", 8, clock), _name("kind", "what", 10), _name("text", "", 58)),
        "nothing has happened yet that is worth a line",
    ),
)

BY_KEY = {view.key: view for view in VIEWS}
BY_NAME = {view.name: view for view in VIEWS}
