"""Accepting connections: queues of listeners, SYNs, cookies."""

from __future__ import annotations

from millrace.host.checks.sockets import TOLD, owner, scope_of
from millrace.host.checks.table import (
    Context,
    Goal,
    Outcomes,
    bad,
    check,
    info,
    ok,
    warn,
)
from millrace.host.finding import NAMESPACE, Layer, Scope
from millrace.host.sockets import listeners
from millrace.host.unavailable import known

_SNMP = "Documentation/networking/snmp_counter.rst"
_SYSCTL = "Documentation/networking/ip-sysctl.rst"


@check(
    "accept-overflow",
    Layer.SOCKET,
    9,
    NAMESPACE,
    why="Connections were complete, and the queue of those to be accepted was full: the client "
    "waits and sends again, a second or more for each try.",
    source=_SNMP + ", TcpExtListenOverflows; netdata: warns above 1/s, critical above 5/s",
)
def accept_overflow(context: Context) -> Outcomes:
    """Overflows of accept queues in the window: any is a warning, over 5 a second is bad.

    The queue's length is what the program gave listen(2), at most net.core.somaxconn.
    """
    lost = context.count("TcpExtListenOverflows")
    drops = context.count("TcpExtListenDrops")
    if not lost and not drops:
        yield ok(context.none("connection lost at a full accept queue"))
        return
    most = context.number("net.core.somaxconn")
    sockets = listeners(context.now.sockets or ())
    full = [one for one in sockets if one.receive_queue > one.send_queue / 2]
    named = ", ".join(
        f"{one.name} ({owner(context, one)}) {one.receive_queue} of {one.send_queue}"
        for one in sorted(full, key=lambda one: -one.receive_queue)[:3]
    )
    capped = any(one.send_queue >= most for one in full)
    verdict = bad if context.per_second(max(lost, drops)) > 5 else warn
    yield verdict(
        context.amount(max(lost, drops), "connections lost")
        + (f"; full: {named}" if named else ""),
        steps=[context.set("net.core.somaxconn", max(most * 2, 4096))] if capped else [],
        advice="start the program again so that it listens anew"
        if capped
        else "the program must call accept faster, or listen with a larger backlog",
        risk="a client may wait longer in a longer queue than it is willing to",
    )


@check(
    "accept-queue",
    Layer.SOCKET,
    26,
    Scope("socket"),
    why="Connections wait to be accepted: the program is the limit, and its queue will overflow "
    "next.",
    source="ss(8), Recv-Q of a listener",
)
def accept_queue(context: Context) -> Outcomes:
    """A listener with more than half of its queue in use, before and after the window."""
    before = {}
    if context.window is not None:
        before = {one.cookie: one.receive_queue for one in context.window.before.sockets or ()}
    found = listeners(known(context.now.sockets))
    standing = [
        one
        for one in found
        if min(one.receive_queue, before.get(one.cookie, one.receive_queue))
        > max(one.send_queue, 1) / 2
    ]
    for one in sorted(standing, key=lambda one: -one.receive_queue)[:TOLD]:
        yield warn(
            f"{one.receive_queue} of {one.send_queue} wait at {owner(context, one)}",
            scope_of(one),
            advice="the program must call accept faster: more threads, or less work before it",
        )
    if not standing:
        yield ok(f"no queue of {len(found)} listeners is half full", NAMESPACE)


@check(
    "listen-backlog",
    Layer.SOCKET,
    27,
    Scope("socket"),
    why="The queue of connections to be accepted is short: a burst of clients overflows it "
    "although the program is quick enough.",
    source="listen(2); " + _SYSCTL + ", somaxconn",
)
def listen_backlog(context: Context) -> Outcomes:
    """Listeners whose backlog is below 16, or was cut by net.core.somaxconn below 128.

    A listener of an address that only this host can reach is not judged.
    """
    most = context.number("net.core.somaxconn")
    judged = [
        one
        for one in listeners(known(context.now.sockets))
        if not one.local.startswith("127.") and one.local != "::1"
    ]
    short = [one for one in judged if one.send_queue < 16 or (one.send_queue == most < 128)]
    for one in short[:TOLD]:
        capped = one.send_queue == most
        yield info(
            f"backlog {one.send_queue} at {owner(context, one)}, somaxconn {most}",
            scope_of(one),
            steps=[context.set("net.core.somaxconn", 4096)] if capped else [],
            advice="start the program again so that it listens anew"
            if capped
            else "let the program listen with a larger backlog",
        )
    if not short:
        yield ok(f"{len(judged)} listeners, none with a short queue", NAMESPACE)


@check(
    "syn-flood",
    Layer.SOCKET,
    10,
    NAMESPACE,
    why="More connections begin than the queue for them holds. With cookies the kernel answers "
    "without remembering; without, honest clients are shut out.",
    source=_SNMP + ", TcpExtTCPReqQFullDoCookies; RFC 4987; netdata warns from 1 in the window",
)
def syn_flood(context: Context) -> Outcomes:
    """The queue of half-open connections was full in the window.

    With SYN cookies it is a warning, without it is bad.
    """
    cookies = context.count("TcpExtTCPReqQFullDoCookies")
    dropped = context.count("TcpExtTCPReqQFullDrop")
    failed = context.count("TcpExtSyncookiesFailed")
    if dropped:
        off = context.number("net.ipv4.tcp_syncookies") == 0
        yield bad(
            context.amount(dropped, "SYNs dropped"),
            steps=[context.set("net.ipv4.tcp_syncookies", 1)] if off else [],
            advice="" if off else "raise net.ipv4.tcp_max_syn_backlog and the listener's backlog",
            risk="connections made by a cookie lose some TCP options",
        )
    elif cookies or failed:
        yield warn(
            context.amount(cookies, "SYNs answered by cookie")
            + (f", {failed:,} wrong cookies came back" if failed else ""),
            advice="if these are clients: a larger backlog and tcp_max_syn_backlog; if not: drop "
            "them before TCP, with XDP or at the edge",
            command="sysctl -w net.ipv4.tcp_max_syn_backlog=16384",
        )
    else:
        yield ok(context.none("SYN beyond the queue"))


@check(
    "syncookies-off",
    Layer.SOCKET,
    10,
    NAMESPACE,
    why="Without cookies a few hundred forged SYNs a second close every port of this host.",
    source=_SYSCTL + ", tcp_syncookies; RFC 4987",
)
def syncookies_off(context: Context) -> Outcomes:
    """net.ipv4.tcp_syncookies of 0 on a host that listens."""
    value = context.number("net.ipv4.tcp_syncookies")
    count = len(listeners(known(context.now.sockets)))
    if value == 0 and count:
        yield warn(
            f"tcp_syncookies is 0, and {count} sockets listen",
            steps=[context.set("net.ipv4.tcp_syncookies", 1)],
            risk="none until a queue is full",
        )
    else:
        yield ok(f"tcp_syncookies is {value}")


@check(
    "abort-on-overflow",
    Layer.SOCKET,
    27,
    NAMESPACE,
    why="A full accept queue resets the client at once: a short burst becomes errors that a "
    "moment's patience would have spared.",
    source=_SYSCTL + ", tcp_abort_on_overflow",
)
def abort_on_overflow(context: Context) -> Outcomes:
    """net.ipv4.tcp_abort_on_overflow of 1; with the goal overload it may be meant."""
    value = context.number("net.ipv4.tcp_abort_on_overflow")
    if value and context.goal is not Goal.OVERLOAD:
        yield warn(
            "tcp_abort_on_overflow is 1",
            steps=[context.set("net.ipv4.tcp_abort_on_overflow", 0)],
            risk="clients wait where they were refused before",
        )
    else:
        yield ok(f"tcp_abort_on_overflow is {value}")
