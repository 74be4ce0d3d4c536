"""Memory: hugepages, swap, limits."""

from __future__ import annotations

from millrace.host.checks.table import (
    Context,
    Goal,
    Outcomes,
    bad,
    check,
    file_step,
    info,
    ok,
    warn,
)
from millrace.host.finding import HOST, NAMESPACE, Layer
from millrace.host.unavailable import known

#: What a channel's arena takes by default.
ARENA_BYTES = 64 << 20


@check(
    "hugepages",
    Layer.MEMORY,
    56,
    HOST,
    why="With pages of 4 KiB the table of a pool's pages is larger than what the CPU remembers "
    "of it, and packets wait for its walk.",
    source="Documentation/admin-guide/mm/hugetlbpage.rst",
)
def hugepages(context: Context) -> Outcomes:
    """Hugepages: none at all is information, with the goal latency or throughput a warning.

    None while a Millrace channel runs, on ordinary pages then, is a warning too.
    """
    memory = known(context.now.memory)
    pools = {one.page_bytes: one for one in memory.hugepages if one.node < 0}
    pool = pools.get(2 << 20) or next(iter(pools.values()), None)
    if pool is None:
        yield ok("this kernel has no hugepages")
        return
    size = f"{pool.page_bytes >> 20} MiB"
    told = f"{pool.free} of {pool.total} pages of {size} are free"
    wanted = max(ARENA_BYTES // pool.page_bytes, 1)
    step = file_step(
        f"/sys/kernel/mm/hugepages/hugepages-{pool.page_bytes >> 10}kB/nr_hugepages",
        pool.total,
        pool.total + wanted,
    )
    risk = "the memory is gone for everything else; the kernel may find fewer pages than asked for"
    if pool.total == 0 and context.now.own:
        yield warn(f"{told}, and a channel runs without", steps=[step], risk=risk)
    elif pool.total == 0 and context.goal in (Goal.LATENCY, Goal.THROUGHPUT):
        yield warn(told, steps=[step], risk=risk)
    elif pool.total == 0:
        yield info(f"{told}; a Millrace arena uses ordinary pages then", steps=[step], risk=risk)
    else:
        yield ok(told)


@check(
    "hugepages-node",
    Layer.MEMORY,
    56,
    HOST,
    why="The hugepages are on one node and the card on another: every packet crosses the link "
    "between the sockets.",
    source="Documentation/admin-guide/mm/hugetlbpage.rst, per node attributes",
)
def hugepages_node(context: Context) -> Outcomes:
    """Hugepages that are all on nodes without a network card."""
    memory = known(context.now.memory)
    nodes = {bus.node for bus in known(context.now.buses) if bus.node >= 0}
    per_node = {one.node: one for one in memory.hugepages if one.node >= 0 and one.total}
    if len(known(context.now.cpus).nodes) < 2 or not nodes or not per_node:
        yield ok("one node, or no hugepages")
        return
    if not nodes & set(per_node):
        node = min(nodes)
        pool = next(iter(per_node.values()))
        yield warn(
            f"hugepages on node {sorted(per_node)}, the card on node {sorted(nodes)}",
            steps=[
                file_step(
                    f"/sys/devices/system/node/node{node}/hugepages/"
                    f"hugepages-{pool.page_bytes >> 10}kB/nr_hugepages",
                    0,
                    pool.total,
                )
            ],
            risk="the memory is gone for everything else",
        )
    else:
        yield ok(f"hugepages on the card's node {sorted(nodes & set(per_node))}")


@check(
    "transparent-hugepages",
    Layer.MEMORY,
    56,
    HOST,
    why="The kernel joins pages behind a program's back and stops it for that, for milliseconds "
    "when memory is in pieces.",
    source="Documentation/admin-guide/mm/transhuge.rst; tuned's network-latency: never",
)
def transparent_hugepages(context: Context) -> Outcomes:
    """Transparent hugepages of "always", with the goal latency."""
    value = known(known(context.now.memory).transparent_hugepages)
    if value == "always" and context.goal is Goal.LATENCY:
        yield warn(
            "transparent hugepages are always made",
            steps=[file_step("/sys/kernel/mm/transparent_hugepage/enabled", value, "madvise")],
            risk="programs that never ask for them get none",
        )
    else:
        yield ok(value)


@check(
    "swap",
    Layer.MEMORY,
    55,
    HOST,
    why="What a program needs for the next packet may have to come from disk first.",
    source="tuned: vm.swappiness=10; mlockall(2)",
)
def swap(context: Context) -> Outcomes:
    """Swap in use: over a tenth of it is a warning with a goal, else information."""
    memory = known(context.now.memory)
    used = memory.swap_total - memory.swap_free
    told = f"{used >> 20:,} of {memory.swap_total >> 20:,} MiB of swap are used"
    if memory.swap_total and used > memory.swap_total / 10:
        verdict = info if context.goal is Goal.NONE else warn
        yield verdict(
            told,
            steps=[context.set("vm.swappiness", 10)],
            advice="and lock what must not wait: mlockall in the program",
            risk="less memory for the cache of files",
        )
    else:
        yield ok(told)


@check(
    "locked-memory",
    Layer.MEMORY,
    57,
    NAMESPACE,
    why="A UMEM of AF_XDP, and every BPF map of older kernels, counts against the limit of locked "
    "memory; above it the port cannot be opened.",
    source="setrlimit(2), RLIMIT_MEMLOCK; Documentation/networking/af_xdp.rst",
)
def locked_memory(context: Context) -> Outcomes:
    """RLIMIT_MEMLOCK below 64 MiB for a user without CAP_IPC_LOCK."""
    mine = known(context.now.privileges)
    limit = mine.locked_bytes
    if limit is None or limit >= ARENA_BYTES or "CAP_IPC_LOCK" in mine.capabilities:
        yield ok("enough memory may be locked")
    else:
        yield info(
            f"{limit >> 10:,} KiB may be locked",
            advice="raise the limit (LimitMEMLOCK= in a unit, limits.conf for a login)",
            command="ulimit -l unlimited",
        )


@check(
    "open-files",
    Layer.MEMORY,
    57,
    NAMESPACE,
    why="Each kernel socket is a file; at the limit accept and connect fail with EMFILE, and new "
    "clients hang in the queue.",
    source="setrlimit(2), RLIMIT_NOFILE; proc_sys_fs(5), nr_open",
)
def open_files(context: Context) -> Outcomes:
    """Programs with sockets that use over 80 % of the files they may open."""
    tight = [
        one
        for one in known(context.now.processes)
        if one.files_limit is not None and one.files > 0.8 * one.files_limit
    ]
    for one in tight[:5]:
        verdict = bad if one.files >= (one.files_limit or 0) - 1 else warn
        yield verdict(
            f"{one.name}[{one.pid}] has {one.files:,} of {one.files_limit:,} files open",
            advice="raise its limit (LimitNOFILE= in its unit), or find what it does not close",
            command=f"prlimit --pid {one.pid} --nofile={(one.files_limit or 0) * 4}",
        )
    if not tight:
        yield ok("no program is near its limit")
