"""Connections, listeners and routes of Millrace's stacks and of the kernel, in one table.

The kernel's sockets come by sock_diag (`millrace.host`), those of Millrace's stacks from the
processes themselves; one that does not answer is shown as its page has it, and the table says so.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from millrace.watch import client, processes
from millrace.watch.client import RequestError
from millrace.watch.limits import limit
from millrace.watch.page import Page
from millrace.watch.processes import Process
from millrace.watch.table import Cell

if TYPE_CHECKING:
    from millrace.host.snapshot import Snapshot
    from millrace.host.sockets import Socket

KERNEL = "kernel"

#: States of RFC 9293 as the kernel's tools write them.
_SHORT = {
    "established": "ESTAB",
    "syn-sent": "SYN-SENT",
    "syn-received": "SYN-RECV",
    "fin-wait-1": "FIN-WAIT-1",
    "fin-wait-2": "FIN-WAIT-2",
    "time-wait": "TIME-WAIT",
    "closed": "UNCONN",
    "close-wait": "CLOSE-WAIT",
    "last-ack": "LAST-ACK",
    "listen": "LISTEN",
    "closing": "CLOSING",
    "": "UNCONN",
}

_MILLION = 1e6
_NO_THRESHOLD = 0x7FFF_FFFF
_NO_RTT = 0xFFFF_FFFF
_NO_RATE = 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True)
class Connection:
    """One connection, listener or datagram socket."""

    #: "kernel", or the Millrace process with its number.
    owner: str
    #: The port that the stack is on; empty for the kernel.
    port: str
    protocol: str
    state: str
    #: Of a listener: connections that wait to be accepted.
    recv_q: int
    #: Of a listener: how many may.
    send_q: int
    local: str
    local_port: int
    peer: str
    peer_port: int
    process: str = ""
    uid: int | None = None
    inode: int | None = None
    congestion: str = ""
    drops: int = 0
    #: SK_MEMINFO's names as ss writes them: r, rb, t, tb, f, w, o, bl, d. Of the kernel's only.
    memory: Mapping[str, int] = field(default_factory=dict)
    #: Fields of struct tcp_info without `tcpi_`.
    info: Mapping[str, int] = field(default_factory=dict)
    #: Seconds since this was so, for one that its process did not tell now.
    age: float = 0.0

    @property
    def is_listener(self) -> bool:
        """Whether it waits for others."""
        return self.state == "LISTEN" or (self.protocol == "udp" and self.peer_port == 0)

    @property
    def limited_by(self) -> str:
        """Which side limits what it sends, over its whole life."""
        return limit(self.info) if self.info and self.state == "ESTAB" else ""

    @property
    def local_address(self) -> str:
        """Address and port."""
        return endpoint(self.local, self.local_port)

    @property
    def peer_address(self) -> str:
        """Address and port; an asterisk where there is none."""
        return endpoint(self.peer, self.peer_port)


def endpoint(address: str, port: int) -> str:
    """An address and a port as ss writes them."""
    host = address if address and address not in ("::", "0.0.0.0") else "*"
    if host == "*" and address:
        host = "[::]" if address == "::" else "0.0.0.0"
    elif ":" in host:
        host = f"[{host}]"
    return f"{host}:{port or '*'}"


def of_kernel(snapshot: Snapshot) -> list[Connection]:
    """The kernel's, from a snapshot with sockets and, for their names, processes."""
    owners: dict[int, str] = {}
    for process in snapshot.processes or ():
        for inode in process.inodes:
            owners[inode] = f"{process.name}:{process.pid}"
    return [of_socket(one, owners.get(one.inode, "")) for one in snapshot.sockets or ()]


def of_socket(one: Socket, process: str) -> Connection:
    """One socket of the kernel's, with its process."""
    memory = {}
    if one.memory is not None:
        memory = dict(
            zip(MEMORY, (getattr(one.memory, f.name) for f in fields(one.memory)), strict=True)
        )
    info = {}
    if one.info is not None:
        info = {f.name: int(getattr(one.info, f.name)) for f in fields(one.info)}
    state = _SHORT.get(one.state, one.state.upper())
    if one.protocol == "udp" and one.remote_port:
        state = "ESTAB"
    return Connection(
        owner=KERNEL,
        port="",
        protocol=one.protocol,
        state=state,
        recv_q=one.receive_queue,
        send_q=one.send_queue,
        local=one.local,
        local_port=one.local_port,
        peer=one.remote,
        peer_port=one.remote_port,
        process=process,
        uid=one.uid,
        inode=one.inode,
        congestion=one.congestion,
        drops=one.drops,
        memory=memory,
        info=info,
    )


#: In the order of SK_MEMINFO_...
MEMORY = ("r", "rb", "t", "tb", "f", "w", "o", "bl", "d")


@dataclass(frozen=True)
class Own:
    """What Millrace's stacks have, and which processes did not tell."""

    connections: tuple[Connection, ...]
    routes: tuple[Route, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Route:
    """A route of the kernel's or of a stack."""

    owner: str
    port: str
    destination: str
    gateway: str
    interface: str
    #: Of the kernel's: its metric; of a stack's: where it comes from.
    note: str


def of_millrace(
    found: processes.Found, tables: Sequence[str] = ("connections", "listeners", "sockets")
) -> Own:
    """All of Millrace's stacks: `tables` of those, and routes if "routes" is among them."""
    connections: list[Connection] = []
    routes: list[Route] = []
    problems = list(found.problems)
    for process, page in found.pages:
        for name in tables:
            rows, age, problem = _rows(process, page, name)
            if problem and problem not in problems:
                problems.append(problem)
            if name == "routes":
                routes += [_route(process, page, row) for row in rows]
            else:
                connections += [MAKE[name](process, page, row, age) for row in rows]
    return Own(tuple(connections), tuple(routes), tuple(problems))


Row = Mapping[str, Cell]


def _rows(process: Process, page: Page, name: str) -> tuple[Iterable[Row], float, str]:
    """Rows of a table; those of the page, their age and why, if the process does not answer."""
    try:
        return client.rows(process, page.number, name), 0.0, ""
    except RequestError as error:
        shown = page.tables.get(name)
        age = max(0.0, time.monotonic() - page.tables_at)
        of = f" of {shown.total}" if shown is not None and shown.total > len(shown.rows) else ""
        problem = (
            f"{process.title} {page.name}: {error.strerror or error}; shown are "
            f"{len(shown.rows) if shown is not None else 0}{of} {name} of {age:.1f} s ago"
        )
        return shown or (), age, problem


def _ends(row: Row) -> tuple[str, int, str, int]:
    local, remote = row.get("local"), row.get("remote")
    here = local if isinstance(local, tuple) else ("", 0)
    there = remote if isinstance(remote, tuple) else ("", 0)
    return *here, *there


def _number(row: Row, name: str) -> int:
    value = row.get(name)
    return value if isinstance(value, int) else 0


def _connection(process: Process, page: Page, row: Row, age: float) -> Connection:
    state = str(row.get("state", "")).lower()
    info = {
        name.removeprefix("tcpi_"): value
        for name, value in row.items()
        if name.startswith("tcpi_") and isinstance(value, int)
    }
    return Connection(
        process.title,
        page.name,
        "tcp",
        _SHORT.get(state, state.upper()),
        _number(row, "receive_queue"),
        _number(row, "send_queue"),
        *_ends(row),
        process=process.title,
        uid=process.uid,
        congestion=str(row.get("congestion_control", "")),
        info=info,
        age=age,
    )


def _listener(process: Process, page: Page, row: Row, age: float) -> Connection:
    return Connection(
        process.title,
        page.name,
        "tcp",
        "LISTEN",
        _number(row, "accept_queue"),
        _number(row, "backlog"),
        *_ends(row),
        process=process.title,
        uid=process.uid,
        age=age,
    )


def _datagram(process: Process, page: Page, row: Row, age: float) -> Connection:
    ends = _ends(row)
    return Connection(
        process.title,
        page.name,
        "udp",
        "ESTAB" if ends[3] else "UNCONN",
        _number(row, "queued"),
        0,
        *ends,
        process=process.title,
        uid=process.uid,
        drops=_number(row, "dropped"),
        age=age,
    )


#: What makes a row of each table of a stack.
MAKE = {"connections": _connection, "listeners": _listener, "sockets": _datagram}


def _route(process: Process, page: Page, row: Row) -> Route:
    return Route(
        process.title,
        page.name,
        str(row.get("destination", "")),
        str(row.get("gateway", "")),
        page.name.partition(":")[2],
        str(row.get("origin", "")),
    )


def kernel_routes(snapshot: Snapshot) -> list[Route]:
    """The kernel's, from a snapshot with routes and links."""
    names = {link.index: link.name for link in snapshot.links or ()}
    return [
        Route(
            KERNEL,
            "",
            one.destination,
            one.gateway,
            names.get(one.index, str(one.index)),
            f"metric {one.metric}" if one.metric else "",
        )
        for one in snapshot.routes or ()
    ]


def memory_text(one: Connection) -> str:
    """skmem as ss writes it."""
    if not one.memory:
        return ""
    return f"skmem:({','.join(f'{name}{one.memory[name]}' for name in MEMORY)})"


def info_text(one: Connection) -> str:
    """What ss -i says of a connection, in its words and units."""
    info = one.info
    if not info:
        return ""

    def get(name: str) -> int:
        return info.get(name, 0)

    words = [word for bit, word in _OPTIONS if get("options") & bit]
    words.append(one.congestion)
    if get("options") & 4:
        words.append(f"wscale:{get('snd_wscale')},{get('rcv_wscale')}")
    words.append(f"rto:{_milli(get('rto'))}")
    if get("backoff"):
        words.append(f"backoff:{get('backoff')}")
    if get("rtt"):
        words.append(f"rtt:{_milli(get('rtt'))}/{_milli(get('rttvar'))}")
    if get("ato"):
        words.append(f"ato:{_milli(get('ato'))}")
    for name, word in (("snd_mss", "mss"), ("pmtu", "pmtu"), ("rcv_mss", "rcvmss")):
        if get(name):
            words.append(f"{word}:{get(name)}")
    if get("advmss"):
        words.append(f"advmss:{get('advmss')}")
    words.append(f"cwnd:{get('snd_cwnd')}")
    if 0 < get("snd_ssthresh") < _NO_THRESHOLD:
        words.append(f"ssthresh:{get('snd_ssthresh')}")
    words += _counted(info, _COUNTS)
    if get("rtt") and get("snd_mss") and get("snd_cwnd"):
        bits = get("snd_cwnd") * get("snd_mss") * 8 * _MILLION / get("rtt")
        words.append(f"send {_rate(bits)}")
    words += _counted(
        info,
        (
            ("last_data_sent", "lastsnd"),
            ("last_data_recv", "lastrcv"),
            ("last_ack_recv", "lastack"),
        ),
    )
    for name in ("pacing_rate", "delivery_rate"):
        if 0 < get(name) < _NO_RATE:
            words.append(f"{name} {_rate(get(name) * 8)}")
    words += _counted(info, (("delivered", "delivered"), ("delivered_ce", "delivered_ce")))
    if get("delivery_rate_app_limited"):
        words.append("app_limited")
    if get("busy_time"):
        words.append(f"busy:{get('busy_time') / 1000:.0f}ms")
        for name in ("rwnd_limited", "sndbuf_limited"):
            if get(name):
                share = get(name) / get("busy_time")
                words.append(f"{name}:{get(name) / 1000:.0f}ms({share:.1%})")
    words += _counted(info, (("unacked", "unacked"),))
    if get("retrans") or get("total_retrans"):
        words.append(f"retrans:{get('retrans')}/{get('total_retrans')}")
    words += _counted(info, _LOSSES)
    if get("rcv_rtt"):
        words.append(f"rcv_rtt:{_milli(get('rcv_rtt'))}")
    words += _counted(
        info,
        (
            ("rcv_space", "rcv_space"),
            ("rcv_ssthresh", "rcv_ssthresh"),
            ("notsent_bytes", "notsent"),
        ),
    )
    if 0 < get("min_rtt") < _NO_RTT:
        words.append(f"minrtt:{_milli(get('min_rtt'))}")
    words += _counted(info, (("snd_wnd", "snd_wnd"), ("rcv_wnd", "rcv_wnd")))
    return " ".join(word for word in words if word)


_OPTIONS = ((1, "ts"), (2, "sack"), (8, "ecn"), (32, "fastopen"))
_COUNTS = tuple(
    (name, name)
    for name in (
        "bytes_sent",
        "bytes_retrans",
        "bytes_acked",
        "bytes_received",
        "segs_out",
        "segs_in",
        "data_segs_out",
        "data_segs_in",
    )
)
_LOSSES = tuple(
    (name, name) for name in ("lost", "sacked", "dsack_dups", "reord_seen", "rcv_ooopack")
)


def _counted(info: Mapping[str, int], names: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{word}:{info[name]}" for name, word in names if info.get(name)]


def _milli(micros: int) -> str:
    return f"{micros / 1000:.3f}".rstrip("0").rstrip(".")


def _rate(bits: float) -> str:
    for unit in ("", "K", "M", "G", "T"):
        if bits < 1000 or unit == "T":
            return f"{bits:.3g}{unit}bps" if bits < 1000 else f"{bits:.0f}{unit}bps"
        bits /= 1000
    raise AssertionError("unreachable")
