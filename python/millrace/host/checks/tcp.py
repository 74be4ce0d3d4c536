"""TCP at work: memory, retransmissions, windows, ports."""

from __future__ import annotations

from millrace.host.checks.sockets import TOLD, scope_of
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
from millrace.host.finding import HOST, NAMESPACE, Layer, Scope
from millrace.host.rates import SocketChange
from millrace.host.unavailable import Unavailable, known

_SNMP = "Documentation/networking/snmp_counter.rst"
_SYSCTL = "Documentation/networking/ip-sysctl.rst"


@check(
    "tcp-memory-drops",
    Layer.SOCKET,
    11,
    NAMESPACE,
    why="TCP ran out of room for data that had already arrived, and threw it away. Its sender "
    "sends it again.",
    source=_SNMP + ", TcpExtPruneCalled, TcpExtRcvPruned, TcpExtTCPRcvQDrop and others",
)
def tcp_memory_drops(context: Context) -> Outcomes:
    """Data dropped for want of memory at a socket or in TCP as a whole.

    Any drop is bad; collapsing and pruning without a drop is a warning.
    """
    drops = ("TcpExtRcvPruned", "TcpExtOfoPruned", "TcpExtTCPRcvQDrop", "TcpExtTCPOFODrop",
             "TcpExtTCPAbortOnMemory")  # fmt: skip
    strains = ("TcpExtPruneCalled", "TcpExtTCPMemoryPressures", "TcpExtTCPRcvCollapsed")
    lost = {name: count for name in drops if (count := context.count(name))}
    strained = {name: count for name in strains if (count := context.count(name))}
    told = ", ".join(f"{name[6:]} {count:,}" for name, count in (lost | strained).items())
    try:
        low, middle, high = context.numbers("net.ipv4.tcp_rmem", 3)
        steps = (
            [context.set("net.ipv4.tcp_rmem", f"{low} {middle} {max(high * 2, 16 << 20)}")]
            if high < 32 << 20
            else []
        )
    except Unavailable:
        steps = []
    advice = "programs that set SO_RCVBUF themselves keep their size: let them not, or set more"
    if lost:
        yield bad(
            f"{context.amount(sum(lost.values()), 'times data was dropped')}: {told}",
            steps=steps,
            advice=advice,
            risk="more memory a connection",
        )
    elif strained:
        yield warn(
            f"{context.amount(sum(strained.values()), 'times memory was short')}: {told}",
            steps=steps,
            advice=advice,
            risk="more memory a connection",
        )
    else:
        yield ok(context.none("data dropped for want of memory"))


@check(
    "tcp-backlog-drops",
    Layer.SOCKET,
    11,
    NAMESPACE,
    why="Segments came for a socket that its program held locked, more than may wait there.",
    source=_SNMP + ", TcpExtTCPBacklogDrop; net/ipv4/tcp_ipv4.c tcp_add_backlog",
)
def tcp_backlog_drops(context: Context) -> Outcomes:
    """Segments dropped at a locked socket (TCPBacklogDrop) in the window."""
    lost = context.count("TcpExtTCPBacklogDrop")
    if lost:
        low, middle, high = context.numbers("net.ipv4.tcp_rmem", 3)
        yield warn(
            context.amount(lost, "segments dropped"),
            steps=[context.set("net.ipv4.tcp_rmem", f"{low} {middle} {max(high * 2, 16 << 20)}")],
            advice="the program makes long system calls on the socket: smaller reads and writes",
            risk="more memory a connection",
        )
    else:
        yield ok(context.none("segment dropped at a locked socket"))


@check(
    "zero-window",
    Layer.APPLICATION,
    11,
    NAMESPACE,
    why="Programs here do not read what comes, so their windows close; what a sender sends "
    "against a closed window is thrown away.",
    source=_SNMP + ", TcpExtTCPToZeroWindowAdv, TcpExtTCPZeroWindowDrop",
)
def zero_window(context: Context) -> Outcomes:
    """Windows that closed in the window of time, and segments dropped against one."""
    closed = context.count("TcpExtTCPToZeroWindowAdv")
    dropped = context.count("TcpExtTCPZeroWindowDrop")
    if closed or dropped:
        yield warn(
            context.amount(closed, "windows closed") + f", {dropped:,} segments dropped",
            advice="see receive-queue-standing for the programs that do not read",
        )
    else:
        yield ok(context.none("window closed"))


@check(
    "tcp-pool",
    Layer.MEMORY,
    24,
    HOST,
    why="TCP and UDP have a limit of memory each for the whole machine. Near it buffers shrink, "
    "beyond it data is dropped.",
    source=_SYSCTL + ", tcp_mem and udp_mem",
)
def tcp_pool(context: Context) -> Outcomes:
    """Pages of TCP and UDP (sockstat) above 70 % of where pressure begins."""
    held = known(context.now.sockstat)
    for key, name in (("net.ipv4.tcp_mem", "TCP"), ("net.ipv4.udp_mem", "UDP")):
        low, pressure, high = context.numbers(key, 3)
        pages = held.get(f"{name}.mem", 0)
        told = f"{name} holds {pages:,} pages, pressure begins at {pressure:,}"
        if pages > 0.7 * pressure:
            verdict = bad if pages > pressure else warn
            yield verdict(
                told,
                steps=[context.set(key, f"{low * 2} {pressure * 2} {high * 2}")],
                advice="find the sockets that hold it: ss -tmi, or millrace top",
                risk="the machine's other memory shrinks",
            )
        else:
            yield ok(told)


@check(
    "retransmissions",
    Layer.PROTOCOL,
    32,
    NAMESPACE,
    why="Segments are sent again because they, or their acknowledgements, were lost: throughput "
    "falls with the square root of the loss, and each timeout costs 200 ms.",
    source=_SNMP + ", TcpRetransSegs; M. Mathis and others (CCR 1997)",
)
def retransmissions(context: Context) -> Outcomes:
    """Retransmitted segments among those sent: above 1 % a warning, above 3 % bad.

    From 100 segments and three retransmissions on. It tells timeouts, spurious ones, and
    reordering that looked like loss.
    """
    sent = context.count("TcpOutSegs")
    again = context.count("TcpRetransSegs")
    share = again / sent if sent else 0.0
    told = f"{context.amount(again, 'segments sent again')}, {share:.2%} of {sent:,}"
    more = {
        "timeouts": context.count("TcpExtTCPTimeouts"),
        "not needed": context.count("TcpExtTCPSpuriousRtxHostQueues", "TcpExtTCPDSACKRecv"),
        "reordered": context.count("TcpExtTCPSACKReorder", "TcpExtTCPTSReorder"),
        "lost again": context.count("TcpExtTCPLostRetransmit"),
    }
    told += "".join(f", {name} {count:,}" for name, count in more.items() if count)
    if sent < 100 or again < 3 or share <= 0.01:
        yield ok(told)
        return
    worst = sorted(
        (one for one in context.rates.sockets if one.info.get("total_retrans")),
        key=lambda one: -one.info["total_retrans"],
    )[:3]
    if worst:
        told += "; most: " + ", ".join(one.socket.name for one in worst)
    verdict = bad if share > 0.03 else warn
    yield verdict(
        told,
        advice="find where it is lost: nic-drops, qdisc-drops, link-errors here, the same at the "
        "peers, then the network between",
    )


@check(
    "syn-retransmissions",
    Layer.PROTOCOL,
    32,
    NAMESPACE,
    why="Connections to others do not get through: nobody answers their SYN, not even with a "
    "reset. A filter on the way, or the host is gone.",
    source=_SNMP + ", TcpExtTCPSynRetrans",
)
def syn_retransmissions(context: Context) -> Outcomes:
    """SYNs sent again in the window, with the peers that connections wait for."""
    again = context.count("TcpExtTCPSynRetrans")
    if not again:
        yield ok(context.none("SYN sent again"))
        return
    waiting = [one for one in context.now.sockets or () if one.state == "syn-sent"]
    peers = sorted({f"{one.remote}:{one.remote_port}" for one in waiting})
    verdict = warn if again >= 3 or len(waiting) >= 3 else info
    yield verdict(
        context.amount(again, "SYNs sent again")
        + (f"; waiting for {', '.join(peers[:4])}" if peers else ""),
        advice="see whether the peer is up and what filters its answers",
    )


def window_limited(context: Context) -> list[SocketChange]:
    """Connections that were busy sending for at least a tenth of the window."""
    least = context.rates.seconds * 1e6 / 10
    return [one for one in context.rates.sockets if one.info.get("busy_time", 0) > least]


@check(
    "tcp-limited",
    Layer.SOCKET,
    23,
    Scope("socket"),
    why="The connection could send more and is held back by a buffer: by the peer's window, or "
    "by our own send buffer.",
    source="linux/tcp.h, tcpi_rwnd_limited and tcpi_sndbuf_limited",
)
def tcp_limited(context: Context) -> Outcomes:
    """Connections that spent over a tenth of their busy time held back by either side."""
    low, middle, high = context.numbers("net.ipv4.tcp_wmem", 3)
    told = 0
    for one in window_limited(context):
        busy = one.info["busy_time"]
        peer, ours = one.info["rwnd_limited"] / busy, one.info["sndbuf_limited"] / busy
        if max(peer, ours) <= 0.10 or told >= TOLD:
            continue
        told += 1
        if peer >= ours:
            yield info(
                f"{peer:.0%} of its busy time the peer's window was full",
                scope_of(one.socket),
                advice="the peer's program reads too slowly, or its tcp_rmem is below the "
                "bandwidth-delay product: look there",
            )
        else:
            yield warn(
                f"{ours:.0%} of its busy time our send buffer was full",
                scope_of(one.socket),
                steps=[
                    context.set("net.ipv4.tcp_wmem", f"{low} {middle} {max(high * 2, 16 << 20)}")
                ]
                if high < 64 << 20
                else [],
                advice="a program that sets SO_SNDBUF itself keeps that size",
                risk="more memory a connection",
            )
    if not told:
        yield ok("no busy connection is held back by a buffer", NAMESPACE)


@check(
    "tcp-buffers",
    Layer.SOCKET,
    23,
    NAMESPACE,
    why="A buffer smaller than what is on its way (rate times round trip) caps the rate, whatever "
    "the link can do.",
    source=_SYSCTL + ", tcp_rmem and tcp_wmem; RFC 7323 section 1.1",
)
def tcp_buffers(context: Context) -> Outcomes:
    """The largest tcp_rmem and tcp_wmem against the largest bandwidth-delay product seen.

    The product is a connection's delivery rate times its smallest round trip, from tcp_info. Below
    1 MiB either is a warning with the goal throughput in any case.
    """
    product = max(
        (
            one.info.delivery_rate * one.info.min_rtt // 1_000_000
            for one in known(context.now.sockets)
            if one.info is not None and one.info.min_rtt < 1 << 31
        ),
        default=0,
    )
    for key in ("net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"):
        low, middle, high = context.numbers(key, 3)
        told = f"{key} allows {high:,} bytes; the largest product seen is {product:,}"
        wanted = max(16 << 20, 4 * product)
        step = context.set(key, f"{low} {middle} {wanted}")
        # The kernel takes half of a receive buffer for its own bookkeeping.
        least = 1 << 20 if context.goal is Goal.THROUGHPUT else 256 << 10
        if high < max(2 * product, least):
            yield warn(told, steps=[step], risk="more memory a connection")
        else:
            yield ok(told)


@check(
    "time-wait",
    Layer.SOCKET,
    30,
    NAMESPACE,
    why="Connections that this side closed hold their ports for a minute. When those to one peer "
    "are all held, connecting fails.",
    source=_SYSCTL + ", tcp_max_tw_buckets, tcp_tw_reuse; RFC 9293 section 3.6.1",
)
def time_wait(context: Context) -> Outcomes:
    """TIME-WAIT near its limit, dropped for it, or holding over half of the ports to one peer."""
    count = known(context.now.sockstat).get("TCP.tw", 0)
    most = context.number("net.ipv4.tcp_max_tw_buckets")
    first, last = context.numbers("net.ipv4.ip_local_port_range", 2)
    ports = last - first + 1
    overflow = 0
    if context.window is not None:
        overflow = context.count("TcpExtTCPTimeWaitOverflow")
    peer = max(known(context.now.time_waits), key=lambda one: one.count, default=None)
    told = f"{count:,} in TIME-WAIT of {most:,}"
    if overflow:
        yield warn(
            f"{told}; {context.amount(overflow, 'dropped early')}",
            steps=[context.set("net.ipv4.tcp_max_tw_buckets", max(most * 2, 16384))],
            risk="memory: about 250 bytes each",
        )
    elif peer is not None and peer.count > ports / 2:
        yield warn(
            f"{peer.count:,} of {ports:,} ports to {peer.remote}:{peer.remote_port} are held",
            steps=[
                context.set("net.ipv4.ip_local_port_range", "1024 65535"),
                context.set("net.ipv4.tcp_tw_reuse", 1),
            ],
            advice="better: keep connections open and use them again",
            risk="a listener on a high port may find it taken",
        )
    else:
        yield ok(told)


@check(
    "local-ports",
    Layer.SOCKET,
    30,
    NAMESPACE,
    why="Each connection to one port of one peer needs a port of its own here; when they are used "
    "up, connect fails with EADDRNOTAVAIL.",
    source=_SYSCTL + ", ip_local_port_range; ip(7)",
)
def local_ports(context: Context) -> Outcomes:
    """The range of local ports below 10,000, or over 80 % of it in use to one peer."""
    first, last = context.numbers("net.ipv4.ip_local_port_range", 2)
    ports = last - first + 1
    peers: dict[tuple[str, int], int] = {}
    for one in known(context.now.sockets):
        if one.protocol == "tcp" and one.remote_port and first <= one.local_port <= last:
            key = (one.remote, one.remote_port)
            peers[key] = peers.get(key, 0) + 1
    worst = max(peers.values(), default=0)
    step = context.set("net.ipv4.ip_local_port_range", "1024 65535")
    risk = "a listener on a high port may find it taken"
    told = f"ports {first} to {last}; at most {worst:,} to one peer"
    if worst > 0.8 * ports:
        yield bad(told, steps=[step], risk=risk)
    elif ports < 10_000:
        yield warn(told, steps=[step], risk=risk)
    else:
        yield ok(told)


@check(
    "orphans",
    Layer.MEMORY,
    0,
    HOST,
    why="Connections that no program has any more hold memory until their peers answer; beyond "
    "the limit they are reset.",
    source=_SYSCTL + ", tcp_max_orphans",
)
def orphans(context: Context) -> Outcomes:
    """Orphaned connections above a quarter of tcp_max_orphans."""
    count = known(context.now.sockstat).get("TCP.orphan", 0)
    most = context.number("net.ipv4.tcp_max_orphans")
    told = f"{count:,} of {most:,} orphans"
    try:
        aborted = context.count("TcpExtTCPAbortOnMemory")
    except Unavailable:
        aborted = 0
    if count > most / 4 or aborted:
        yield warn(
            told,
            steps=[context.set("net.ipv4.tcp_fin_timeout", 15)],
            risk="slow peers are cut off earlier",
        )
    else:
        yield ok(told)
