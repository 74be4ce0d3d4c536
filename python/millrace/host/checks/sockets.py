"""Sockets: datagrams without room, queues nobody reads, drops and their owners."""

from __future__ import annotations

from millrace.host.checks.table import (
    Context,
    Outcomes,
    bad,
    check,
    info,
    ok,
    warn,
)
from millrace.host.finding import HOST, NAMESPACE, Layer, Scope
from millrace.host.processes import owners
from millrace.host.sockets import Socket
from millrace.host.unavailable import NotAvailable, known

_SNMP = "Documentation/networking/snmp_counter.rst"
#: At most so many sockets are told one by one.
TOLD = 5


def owner(context: Context, one: Socket) -> str:
    """ "nginx[812]", or how to find out whose a socket is."""
    processes = context.now.processes
    if isinstance(processes, NotAvailable):
        return "owner unknown"
    process = owners(processes).get(one.inode)
    if process is None:
        return "owner not visible" if context.now.origin.uid else "no process has it"
    return f"{process.name}[{process.pid}]"


def scope_of(one: Socket) -> Scope:
    """The scope of one socket."""
    return Scope("socket", one.name)


@check(
    "udp-receive-buffer",
    Layer.SOCKET,
    8,
    NAMESPACE,
    why="Datagrams reached the socket and found its buffer full: the program reads more slowly "
    "than they come. They are lost for good.",
    source=_SNMP + ", UdpRcvbufErrors",
)
def udp_receive_buffer(context: Context) -> Outcomes:
    """Datagrams dropped for want of room at their socket, any in the window."""
    lost = context.count("UdpRcvbufErrors", "Udp6RcvbufErrors")
    if not lost:
        yield ok(context.none("datagram dropped at a full socket"))
        return
    came = context.count("UdpInDatagrams", "Udp6InDatagrams") + lost
    steps = []
    most = context.number("net.core.rmem_max")
    default = context.number("net.core.rmem_default")
    if most < 16 << 20:
        steps.append(context.set("net.core.rmem_max", min(max(most * 2, 4 << 20), 16 << 20)))
    if default < 1 << 20:
        steps.append(context.set("net.core.rmem_default", 1 << 20))
    yield bad(
        f"{context.amount(lost, 'datagrams dropped')}, {lost / came:.1%} of those that came",
        steps=steps,
        advice="a larger buffer takes bursts only; against a program that is too slow on average "
        "nothing helps but a faster one, or more of them (SO_REUSEPORT). New sockets get the new "
        "size",
        risk="more memory a socket, and older datagrams in it",
    )


@check(
    "udp-memory",
    Layer.SOCKET,
    8,
    NAMESPACE,
    why="All of UDP together reached its limit of memory, so datagrams are dropped whichever "
    "socket they are for.",
    source=_SNMP + ", UdpMemErrors; Documentation/networking/ip-sysctl.rst, udp_mem",
)
def udp_memory(context: Context) -> Outcomes:
    """Datagrams dropped by udp_mem (UdpMemErrors)."""
    lost = context.count("UdpMemErrors", "Udp6MemErrors")
    if lost:
        yield bad(
            context.amount(lost, "datagrams dropped"),
            advice="raise net.ipv4.udp_mem in the machine's own namespace, or read faster",
            command="sysctl net.ipv4.udp_mem; grep UDP /proc/net/sockstat",
        )
    else:
        yield ok(context.none("datagram dropped for UDP's memory"))


@check(
    "udp-send-buffer",
    Layer.TRANSMIT,
    8,
    NAMESPACE,
    why="Programs send faster than the device takes: their datagrams were refused or dropped "
    "before they left.",
    source=_SNMP + ", UdpSndbufErrors",
)
def udp_send_buffer(context: Context) -> Outcomes:
    """Datagrams that could not be sent (UdpSndbufErrors) in the window."""
    lost = context.count("UdpSndbufErrors", "Udp6SndbufErrors")
    if lost:
        yield warn(
            context.amount(lost, "datagrams not sent"),
            advice="pace the sender; look at qdisc-drops for where they pile up",
        )
    else:
        yield ok(context.none("datagram refused at sending"))


@check(
    "checksum-errors",
    Layer.PROTOCOL,
    8,
    NAMESPACE,
    why="Packets were damaged after their sender summed them and before they came here: memory or "
    "firmware on the way, or an offload that lies.",
    source=_SNMP + ", TcpInCsumErrors, UdpInCsumErrors, IcmpInCsumErrors, IpExtInCsumErrors",
)
def checksum_errors(context: Context) -> Outcomes:
    """Packets with a wrong checksum of TCP, UDP, ICMP or IP in the window."""
    names = ("TcpInCsumErrors", "UdpInCsumErrors", "IcmpInCsumErrors", "IpExtInCsumErrors",
             "Udp6InCsumErrors", "Icmp6InCsumErrors")  # fmt: skip
    found = {name: count for name in names if (count := context.count(name))}
    if found:
        told = ", ".join(f"{name} {count:,}" for name, count in found.items())
        yield bad(
            f"{context.amount(sum(found.values()), 'packets with a wrong checksum')}: {told}",
            advice="compare a capture at the sender with one here; with checksum offload on, a "
            "capture at the sender shows wrong sums that are none",
        )
    else:
        yield ok(context.none("packet with a wrong checksum"))


@check(
    "udp-no-port",
    Layer.APPLICATION,
    8,
    NAMESPACE,
    why="Datagrams came for ports that nobody listens on: a service is down, or its clients have "
    "an old address.",
    source=_SNMP + ", UdpNoPorts",
)
def udp_no_port(context: Context) -> Outcomes:
    """Datagrams without a listener (UdpNoPorts): more than one a second, and ten in the window."""
    lost = context.count("UdpNoPorts", "Udp6NoPorts")
    if lost >= 10 and context.per_second(lost) > 1:
        yield warn(
            context.amount(lost, "datagrams for nobody"),
            advice="start the service, or find the sender",
            command="tcpdump -c 10 -n 'icmp[0] == 3 and icmp[1] == 3'",
        )
    else:
        yield ok(context.amount(lost, "datagrams for nobody"))


@check(
    "tcp-refused",
    Layer.APPLICATION,
    0,
    NAMESPACE,
    why="Connections to this host are answered with resets: nobody listens on the port, or "
    "programs close while data is unread.",
    source=_SNMP + ", TcpOutRsts; RFC 9293 section 3.5.2",
)
def tcp_refused(context: Context) -> Outcomes:
    """Resets sent: more than one a second and ten in the window."""
    resets = context.count("TcpOutRsts")
    if resets >= 10 and context.per_second(resets) > 1:
        known_reasons = context.count("TcpExtTCPAbortOnData", "TcpExtTCPAbortOnClose")
        yield warn(
            context.amount(resets, "resets sent")
            + (f", {known_reasons:,} because data was unread" if known_reasons else ""),
            advice="start the service that is asked for, or find who asks",
            command="tcpdump -c 10 -n 'tcp[tcpflags] & tcp-rst != 0'",
        )
    else:
        yield ok(context.amount(resets, "resets sent"))


@check(
    "socket-drops",
    Layer.SOCKET,
    8,
    Scope("socket"),
    why="These are the sockets whose programs lose packets.",
    source="SK_MEMINFO_DROPS of linux/sock_diag.h",
)
def socket_drops(context: Context) -> Outcomes:
    """Drops of each TCP, UDP and packet socket in the window, with the process that owns it."""
    losing = [one for one in context.rates.sockets if one.drops]
    for one in sorted(losing, key=lambda one: -one.drops)[:TOLD]:
        memory = one.socket.memory
        limit = f", buffer {memory.receive_limit:,} bytes" if memory else ""
        yield bad(
            f"{context.amount(one.drops, 'packets dropped')} at "
            f"{owner(context, one.socket)}{limit}",
            scope_of(one.socket),
            advice="let the program read faster, or give it a larger SO_RCVBUF",
        )
    if not losing:
        yield ok(f"no drops at {len(context.rates.sockets)} sockets", NAMESPACE)


@check(
    "socket-buffer-limit",
    Layer.SOCKET,
    22,
    Scope("socket"),
    why="The program asked for a larger buffer than the kernel allows, was given less without a "
    "word, and now loses packets.",
    source="socket(7), SO_RCVBUF; Documentation/admin-guide/sysctl/net.rst, rmem_max",
)
def socket_buffer_limit(context: Context) -> Outcomes:
    """A socket that drops and whose buffer is exactly twice net.core.rmem_max."""
    most = context.number("net.core.rmem_max")
    capped = [
        one
        for one in context.rates.sockets
        if one.drops and one.socket.memory and one.socket.memory.receive_limit == 2 * most
    ]
    for one in capped[:TOLD]:
        yield warn(
            f"{owner(context, one.socket)} has the {2 * most:,} bytes that rmem_max allows, and "
            f"dropped {one.drops:,}",
            scope_of(one.socket),
            steps=[context.set("net.core.rmem_max", min(max(most * 4, 4 << 20), 64 << 20))],
            advice="then start the program again. If it is slow on average, more room only makes "
            "what it reads older",
            risk="more memory a socket",
        )
    if not capped:
        yield ok("no socket that drops is at rmem_max", NAMESPACE)


@check(
    "receive-queue-standing",
    Layer.APPLICATION,
    26,
    Scope("socket"),
    why="Data has arrived and its program does not take it. The window closes, the sender waits: "
    "the network is not what is slow.",
    source="ss(8), Recv-Q",
)
def receive_queue_standing(context: Context) -> Outcomes:
    """TCP sockets with unread data before and after the window, and nothing read in between.

    At least 4 KiB, or a fifth of the buffer.
    """
    before = {one.cookie: one for one in known(context.rates.before.sockets)}
    found = []
    for one in known(context.now.sockets):
        old = before.get(one.cookie)
        if one.protocol != "tcp" or one.state == "listen" or old is None:
            continue
        limit = one.memory.receive_limit if one.memory else 0
        enough = max(4096, limit // 5)
        if min(one.receive_queue, old.receive_queue) >= min(enough, 4096) and (
            one.receive_queue >= old.receive_queue
        ):
            found.append(one)
    for one in sorted(found, key=lambda one: -one.receive_queue)[:TOLD]:
        yield warn(
            f"{owner(context, one)} left {one.receive_queue:,} bytes unread for the whole window",
            scope_of(one),
            advice="the program is too slow, blocked or stopped: look at what it does",
        )
    if not found:
        yield ok("no program leaves data unread", NAMESPACE)


@check(
    "close-wait",
    Layer.APPLICATION,
    0,
    NAMESPACE,
    why="Peers have closed these connections and the program has not: it leaks sockets until it "
    "runs out of them.",
    source="RFC 9293 section 3.3.2, CLOSE-WAIT",
)
def close_wait(context: Context) -> Outcomes:
    """Connections that stayed in CLOSE-WAIT for the whole window: ten are a warning."""
    before = {
        one.cookie for one in known(context.rates.before.sockets) if one.state == "close-wait"
    }
    stuck = [
        one
        for one in known(context.now.sockets)
        if one.state == "close-wait" and one.cookie in before
    ]
    if len(stuck) >= 10:
        names = sorted({owner(context, one) for one in stuck})
        yield warn(
            f"{len(stuck)} connections in CLOSE-WAIT: {', '.join(names[:4])}",
            advice="the program must close a connection when it reads its end",
        )
    else:
        yield ok(f"{len(stuck)} connections stay in CLOSE-WAIT")


@check(
    "packet-sockets",
    Layer.SOCKET,
    62,
    Scope("socket"),
    why="A capture or a port of ours sees only a part of what it should.",
    source="packet(7), PACKET_STATISTICS; packet_diag",
)
def packet_sockets(context: Context) -> Outcomes:
    """Packet sockets: how many look at each frame, and drops of those without a ring.

    Drops of a ring only its owner can read; Millrace's own ports tell theirs in own-drops.
    """
    found = [one for one in context.rates.sockets if one.socket.protocol == "packet"]
    losing = [one for one in found if one.drops]
    for one in losing[:TOLD]:
        yield bad(
            f"{context.amount(one.drops, 'frames dropped')} at {owner(context, one.socket)}",
            scope_of(one.socket),
            advice="use a ring (PACKET_RX_RING) or a larger SO_RCVBUF, and filter in the kernel",
        )
    everywhere = [one for one in found if one.socket.index == 0]
    if len(everywhere) >= 4:
        yield info(
            f"{len(everywhere)} packet sockets look at the frames of every interface",
            NAMESPACE,
            advice="each costs every frame a filter's run: end captures that are no longer needed",
        )
    elif not losing:
        yield ok(f"{len(found)} packet sockets, no drops", NAMESPACE)


@check(
    "single-listener",
    Layer.SOCKET,
    28,
    Scope("socket"),
    why="All new connections go through one queue that all cores share; its lock and cache lines "
    "wander between them.",
    source="S. Han and others, MegaPipe (OSDI'12); socket(7), SO_REUSEPORT",
    nothing="there is one CPU",
)
def single_listener(context: Context) -> Outcomes:
    """One listening socket that several threads of a process serve, on a machine with many CPUs."""
    if len(known(context.now.cpus).numbers) < 2:
        return
    processes = owners(known(context.now.processes))
    groups: dict[tuple[str, int], list[Socket]] = {}
    for one in known(context.now.sockets):
        if one.state == "listen":
            groups.setdefault((one.local, one.local_port), []).append(one)
    opened = context.count("TcpPassiveOpens")
    told = False
    for group in groups.values():
        process = processes.get(group[0].inode)
        if len(group) > 1 or process is None or len(process.threads) < 4:
            continue
        if context.per_second(opened) > 1000:
            told = True
            yield info(
                f"{process.name}[{process.pid}] has one listener for {len(process.threads)} "
                f"threads; {context.amount(opened, 'connections came')}",
                scope_of(group[0]),
                advice="give each thread a listener of its own (SO_REUSEPORT)",
            )
    if not told:
        yield ok(context.amount(opened, "connections came"), NAMESPACE)


@check(
    "flow-locality",
    Layer.SOCKET,
    29,
    HOST,
    why="A packet that is received on one CPU and read on another takes its cache lines across.",
    source="Documentation/networking/scaling.rst, RFS; socket(7), SO_INCOMING_CPU",
)
def flow_locality(context: Context) -> Outcomes:
    """Pinned programs with busy connections on CPUs that do none of the receiving.

    The CPU on which a connection's packets come in cannot be asked from outside, so this compares
    where NET_RX runs with where the programs may run.
    """
    runs = context.rates.softirqs.get("NET_RX", {})
    total = sum(runs.values())
    every = set(known(context.now.cpus).numbers)
    if total < 1000 or len(every) < 2:
        yield ok("too little is received to judge")
        return
    receiving = {cpu for cpu, count in runs.items() if count > 0.1 * total}
    apart = []
    for process in known(context.now.processes):
        allowed = {cpu for thread in process.threads for cpu in thread.allowed}
        busy = sum(context.rates.thread_shares.get(one.tid, 0.0) for one in process.threads)
        if busy > 0.2 and allowed and not allowed & receiving and allowed < every:
            apart.append(f"{process.name}[{process.pid}]")
    if apart:
        yield info(
            f"{', '.join(apart[:4])} run on other CPUs than those that receive",
            advice="move the interrupts or RPS to their CPUs, or use RFS",
        )
    else:
        yield ok("pinned programs run where their packets come in")
