"""The kernel's receive path on each CPU: backlog, budget, threads."""

from __future__ import annotations

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
from millrace.host.finding import HOST, Layer, Scope
from millrace.host.links import by_index
from millrace.host.processes import Thread
from millrace.host.unavailable import Unavailable, known

#: netdata warns from 10 a minute.
SQUEEZES_A_MINUTE = 10


@check(
    "softnet-drops",
    Layer.SOFTNET,
    3,
    HOST,
    why="A CPU's backlog was full, so packets that were already received were thrown away. It "
    "holds what RPS, veth, loopback and tunnels hand over.",
    source="Documentation/admin-guide/sysctl/net.rst, netdev_max_backlog; net/core/dev.c",
)
def softnet_drops(context: Context) -> Outcomes:
    """Packets dropped at a CPU's backlog (column 1 of softnet_stat), any in the window.

    A longer backlog takes longer bursts, at the price of older packets. Where the CPU is full,
    only spreading helps.
    """
    dropped = {cpu: row.dropped for cpu, row in context.rates.softnet.items() if row.dropped}
    if not dropped:
        yield ok(context.none("packet dropped at a backlog"))
        return
    cpus = ", ".join(f"CPU {cpu}: {count:,}" for cpu, count in sorted(dropped.items()))
    evidence = f"{context.amount(sum(dropped.values()), 'packets dropped')}; {cpus}"
    try:
        now = context.number("net.core.netdev_max_backlog")
        steps = [context.set("net.core.netdev_max_backlog", min(max(now * 2, 2000), 10_000))]
    except Unavailable:
        steps = []
    yield bad(
        evidence,
        steps=steps,
        advice="" if steps else "raise net.core.netdev_max_backlog in the machine's own namespace",
        risk="packets wait longer in a burst",
    )


@check(
    "time-squeeze",
    Layer.SOFTNET,
    4,
    HOST,
    why="A CPU stopped receiving with packets left, for lack of budget. They wait until it looks "
    "again, and the ring fills meanwhile.",
    source="Documentation/admin-guide/sysctl/net.rst, netdev_budget; netdata: over 10 a minute",
)
def time_squeeze(context: Context) -> Outcomes:
    """How often polling ended with work left (column 2 of softnet_stat), over 10 a minute.

    There are two budgets, packets and microseconds; the second often binds first, so both are
    doubled. What the kernel spends here programs do not get.
    """
    squeezed = sum(row.squeezed for row in context.rates.softnet.values())
    a_minute = context.per_second(squeezed) * 60
    told = context.amount(squeezed, "rounds cut short")
    if a_minute <= SQUEEZES_A_MINUTE or squeezed < 3:
        yield ok(told)
        return
    try:
        steps = [
            context.set("net.core.netdev_budget", context.number("net.core.netdev_budget") * 2),
            context.set(
                "net.core.netdev_budget_usecs", context.number("net.core.netdev_budget_usecs") * 2
            ),
        ]
    except Unavailable:
        steps = []
    yield warn(
        told,
        steps=steps,
        advice="" if steps else "raise netdev_budget and netdev_budget_usecs outside",
        risk="programs on that CPU wait longer while packets come",
    )


@check(
    "flow-limit",
    Layer.SOFTNET,
    5,
    HOST,
    why="One large flow was cut so that small ones get through: the backlog was half full, and "
    "the limit did its work.",
    source="Documentation/networking/scaling.rst, RPS Flow Limit",
)
def flow_limit(context: Context) -> Outcomes:
    """Packets dropped by RPS' flow limit (column 10 of softnet_stat)."""
    dropped = sum(row.flow_limit for row in context.rates.softnet.values())
    if dropped:
        yield info(
            context.amount(dropped, "packets of the largest flows dropped"),
            advice="find the flow with millrace top; nothing is wrong with the limit",
        )
    else:
        yield ok(context.none("packet dropped by the flow limit"))


@check(
    "backlog-standing",
    Layer.SOFTNET,
    6,
    HOST,
    why="Packets wait in a CPU's backlog at this moment, over half of what it holds. They get "
    "older, and the next burst is lost.",
    source="net/core/net-procfs.c, softnet_seq_show",
)
def backlog_standing(context: Context) -> Outcomes:
    """A backlog over half full (column 11 of softnet_stat) in every snapshot there is."""
    most = context.number("net.core.netdev_max_backlog")
    rows = {row.cpu: row.backlog for row in known(context.now.softnet)}
    if context.window is not None:
        before = {row.cpu: row.backlog for row in known(context.window.before.softnet)}
        rows = {cpu: min(count, before.get(cpu, 0)) for cpu, count in rows.items()}
    worst = max(rows, key=lambda cpu: rows[cpu], default=None)
    if worst is None:
        return
    told = f"{rows[worst]:,} packets wait on CPU {worst}, of {most:,}"
    if rows[worst] > most / 2:
        yield bad(told, advice="spread the load: RPS over more CPUs, or less work on this one")
    else:
        yield ok(told)


@check(
    "ksoftirqd",
    Layer.SOFTNET,
    44,
    HOST,
    why="Receiving has outgrown the interrupts and competes with programs in a thread of the "
    "scheduler's: latency now depends on what else runs.",
    source="Documentation/admin-guide/kernel-per-CPU-kthreads.rst",
    nothing="no ksoftirqd is visible",
)
def ksoftirqd(context: Context) -> Outcomes:
    """A ksoftirqd that used over a tenth of its CPU in the window."""
    shares = context.rates.thread_shares
    threads = [one for one in known(context.now.kernel_threads) if one.name.startswith("ksoftirqd")]
    busy = {one.cpu: shares.get(one.tid, 0.0) for one in threads}
    if not busy:
        return
    worst = max(busy, key=lambda cpu: busy[cpu])
    told = f"ksoftirqd of CPU {worst} used {busy[worst]:.0%} of it"
    if busy[worst] > 0.10:
        yield warn(
            told,
            advice="spread interrupts and RPS over more CPUs, keep programs off this one, or "
            "coalesce more",
        )
    else:
        yield ok(told)


@check(
    "softirq-livelock",
    Layer.SOFTNET,
    44,
    HOST,
    why="A CPU does little else than receive. What it receives for has no time left to run: "
    "throughput falls as load rises.",
    source="J. Mogul and K. Ramakrishnan, Eliminating Receive Livelock (USENIX'96)",
)
def softirq_livelock(context: Context) -> Outcomes:
    """A CPU that spent over 80 % of the window in softirqs."""
    shares = context.rates.cpu_shares
    if not shares:
        return
    worst = max(shares, key=lambda cpu: shares[cpu].softirq)
    told = f"CPU {worst} spent {shares[worst].softirq:.0%} in softirqs"
    if shares[worst].softirq > 0.80:
        yield bad(
            told,
            advice="drop earlier (XDP, fewer rules), spread over more CPUs, or let fewer packets "
            "come",
        )
    else:
        yield ok(told)


@check(
    "threaded-napi",
    Layer.SOFTNET,
    36,
    Scope("device"),
    why="The threads that poll a device run wherever the scheduler puts them; each move costs "
    "the cache that their packets were in.",
    source="Documentation/networking/napi.rst, Threaded NAPI",
    nothing="no NAPI is threaded",
)
def threaded_napi(context: Context) -> Outcomes:
    """Threaded NAPI whose threads may run on every CPU."""
    threads = {one.tid: one for one in known(context.now.kernel_threads)}
    every = set(known(context.now.cpus).numbers)
    links = by_index(context.links)
    loose: dict[str, list[Thread]] = {}
    pinned: set[str] = set()
    for napi in known(context.now.napis):
        link, thread = links.get(napi.index), threads.get(napi.pid)
        if link is None or not napi.threaded or thread is None:
            continue
        if len(every) > 1 and set(thread.allowed) >= every:
            loose.setdefault(link.name, []).append(thread)
        else:
            pinned.add(link.name)
    for name, found in sorted(loose.items()):
        lines = [
            f"taskset -pc {sorted(every)[at % len(every)]} {one.tid}"
            for at, one in enumerate(found)
        ]
        yield warn(
            f"{len(found)} NAPI threads of {name} may run on any CPU",
            Scope("device", name),
            advice="give each a CPU of its own",
            command="\n".join(lines),
        )
    for name in sorted(pinned - set(loose)):
        yield ok("each NAPI thread has its CPUs", Scope("device", name))


@check(
    "busy-poll",
    Layer.SOCKET,
    35,
    HOST,
    why="A program that waits for a packet sleeps, and waking it up is most of a lone request's "
    "latency. Busy polling looks at the device for a while first.",
    source="tuned's network-latency; StackMap: 57 us without, 23 us with busy_poll=50; napi.rst",
)
def busy_poll(context: Context) -> Outcomes:
    """net.core.busy_read and busy_poll of 0 with the goal latency."""
    read, poll = (context.number(f"net.core.busy_{way}") for way in ("read", "poll"))
    told = f"busy_read {read} us, busy_poll {poll} us"
    if context.goal is Goal.LATENCY and not (read and poll):
        yield warn(
            told,
            steps=[context.set("net.core.busy_read", 50), context.set("net.core.busy_poll", 50)],
            risk="CPU time is spent on waiting",
        )
    else:
        yield ok(told)
