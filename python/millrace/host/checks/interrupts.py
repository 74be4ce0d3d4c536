"""Interrupts and where they go, NUMA, and who moves them."""

from __future__ import annotations

from collections import Counter

from millrace.host.checks.table import (
    Context,
    Goal,
    Outcomes,
    bad,
    check,
    device,
    file_step,
    info,
    ok,
    warn,
)
from millrace.host.cpuset import format_list
from millrace.host.finding import HOST, Layer, Scope, Step
from millrace.host.irq import Irq
from millrace.host.unavailable import NotAvailable, Unavailable, known

_DEVICE = Scope("device")


def irqs_of(context: Context, name: str) -> list[Irq]:
    """The interrupts of one interface that were ever taken, or all if none was."""
    found = [irq for irq in known(context.now.irqs) if name in irq.interfaces]
    return [irq for irq in found if irq.total] or found


def targets_of(irq: Irq) -> tuple[int, ...]:
    """The CPUs an interrupt goes to."""
    if not isinstance(irq.effective, NotAvailable) and irq.effective:
        return irq.effective
    return irq.affinity or ()


def affinity_step(irq: Irq, cpus: str) -> Step:
    """The step that sends an interrupt to some CPUs."""
    old = irq.affinity
    return file_step(
        f"/proc/irq/{irq.number}/smp_affinity_list",
        old if isinstance(old, NotAvailable) else format_list(old),
        cpus,
    )


@check(
    "irq-one-cpu",
    Layer.INTERRUPT,
    40,
    _DEVICE,
    why="All queues of the device interrupt one CPU: it receives for the whole machine, however "
    "many queues there are.",
    source="Documentation/core-api/irq/irq-affinity.rst; scaling.rst",
    nothing="no device here has several queues with interrupts of their own",
)
def irq_one_cpu(context: Context) -> Outcomes:
    """A device with several queues, of whose interrupts one CPU takes over 70 %.

    By the counts of the window from 1,000 interrupts on, otherwise by where they are sent. The
    interrupts are those of the device, whatever the driver calls them. A managed interrupt refuses
    to be moved (EIO): then the driver spreads them itself.
    """
    cpus = known(context.now.cpus)
    usable = [cpu for cpu in cpus.numbers if cpu not in cpus.isolated] or list(cpus.numbers)
    for link in context.links:
        found = irqs_of(context, link.name)
        queues = max(link.rx_queues, link.tx_queues)
        if len(found) < 2 or queues < 2 or len(usable) < 2:
            continue
        by_cpu: Counter[int] = Counter()
        if context.window is not None:
            for irq in found:
                by_cpu.update(context.rates.irqs.get(irq.number, {}))
        total = sum(by_cpu.values())
        if total < 1000:
            by_cpu = Counter(targets_of(irq)[0] for irq in found if targets_of(irq))
            total = sum(by_cpu.values())
            kind = "interrupts are sent to"
        else:
            kind = "interrupts were taken by"
        if not total:
            continue
        worst, count = by_cpu.most_common(1)[0]
        told = f"{count / total:.0%} of {total:,} {kind} CPU {worst}"
        if count > 0.70 * total:
            yield bad(
                f"{len(found)} interrupts: {told}",
                device(link),
                steps=[
                    affinity_step(irq, str(usable[at % len(usable)]))
                    for at, irq in enumerate(found)
                ],
                risk="irqbalance, if it runs, may move them again",
            )
        else:
            yield ok(told, device(link))


@check(
    "irq-isolated",
    Layer.INTERRUPT,
    43,
    _DEVICE,
    why="A CPU that was set aside for one program is interrupted by the network all the same.",
    source="Documentation/admin-guide/kernel-parameters.txt, isolcpus=managed_irq",
    nothing="no CPU is isolated",
)
def irq_isolated(context: Context) -> Outcomes:
    """Interrupts or NET_RX on isolated CPUs (isolcpus, nohz_full)."""
    cpus = known(context.now.cpus)
    isolated = set(cpus.isolated) | set(cpus.nohz_full)
    if not isolated:
        return
    rest = format_list(set(cpus.numbers) - isolated)
    for link in context.links:
        wrong = [irq for irq in irqs_of(context, link.name) if isolated & set(targets_of(irq))]
        if wrong and rest:
            yield warn(
                f"{len(wrong)} interrupts go to isolated CPUs",
                device(link),
                steps=[affinity_step(irq, rest) for irq in wrong],
            )
        else:
            yield ok("none on isolated CPUs", device(link))
    if context.window is not None:
        runs = context.rates.softirqs.get("NET_RX", {})
        disturbed = {cpu: runs.get(cpu, 0) for cpu in isolated if runs.get(cpu, 0) > 100}
        if disturbed:
            yield warn(
                f"NET_RX ran on isolated CPU {format_list(disturbed)}",
                HOST,
                advice="take these CPUs out of RPS and XPS, and their interrupts away",
            )


@check(
    "irqbalance",
    Layer.INTERRUPT,
    41,
    HOST,
    why="irqbalance moves interrupts every ten seconds by what it measured before: pinned ones "
    "do not stay, and queues part from the programs that read them.",
    source="irqbalance(1), --banirq, IRQBALANCE_BANNED_CPULIST",
)
def irqbalance(context: Context) -> Outcomes:
    """irqbalance runs with a goal of latency, or while interrupts are pinned to single CPUs.

    And the reverse: nothing balances, several CPUs, and every interrupt goes to CPU 0.
    """
    running = known(context.now.services).get("irqbalance")
    irqs = known(context.now.irqs)
    cpus = known(context.now.cpus)
    pinned = [irq for irq in irqs if irq.affinity and len(irq.affinity) == 1]
    if running is not None:
        told = f"irqbalance[{running}] runs"
        if pinned or context.goal is Goal.LATENCY:
            yield warn(
                f"{told}, and {len(pinned)} interrupts are pinned to one CPU",
                steps=[Step("service:irqbalance", "active", "inactive")],
                advice="or keep it and ban these interrupts: "
                + " ".join(f"--banirq={irq.number}" for irq in pinned[:8])
                if pinned
                else "",
                risk="other devices' interrupts are no longer balanced either",
            )
        else:
            yield ok(told)
        return
    fired = [irq for irq in irqs if irq.total > 1000]
    if len(fired) > 2 and len(cpus.numbers) > 1 and all(targets_of(irq) == (0,) for irq in fired):
        yield warn(
            f"irqbalance does not run, and all {len(fired)} interrupts go to CPU 0",
            advice="see irq-one-cpu, or start irqbalance",
            command="systemctl start irqbalance",
        )
    else:
        yield ok("irqbalance does not run; interrupts are where they were put")


@check(
    "numa-irqs",
    Layer.INTERRUPT,
    42,
    _DEVICE,
    why="The card writes into memory of its own node; CPUs of another one fetch every packet "
    "across the link between the sockets.",
    source="Documentation/networking/scaling.rst; numa(7)",
    nothing="no device here says which node it is on",
)
def numa_irqs(context: Context) -> Outcomes:
    """Interrupts of a device that go to CPUs of another NUMA node."""
    cpus = known(context.now.cpus)
    nodes = {bus.interface: bus.node for bus in known(context.now.buses)}
    if len(cpus.nodes) < 2:
        yield ok("one NUMA node", HOST)
        return
    for link in context.links:
        node = nodes.get(link.name, -1)
        if node < 0:
            continue
        near = set(cpus.of_node(node))
        found = irqs_of(context, link.name)
        far = [irq for irq in found if targets_of(irq) and not near & set(targets_of(irq))]
        if far and near:
            ordered = sorted(near)
            yield warn(
                f"{len(far)} of {len(found)} interrupts go to other nodes than {node}",
                device(link),
                steps=[
                    affinity_step(irq, str(ordered[at % len(ordered)]))
                    for at, irq in enumerate(far)
                ],
                risk="the programs should run on that node as well",
            )
        else:
            yield ok(f"all on node {node}", device(link))


@check(
    "numa-programs",
    Layer.APPLICATION,
    42,
    HOST,
    why="A program that reads its packets from another node pays for each cache line of them.",
    source="numa(7); numactl(8)",
    nothing="no device here says which node it is on",
)
def numa_programs(context: Context) -> Outcomes:
    """Busy programs with sockets whose threads may only run on nodes without a network card."""
    cpus = known(context.now.cpus)
    if len(cpus.nodes) < 2:
        yield ok("one NUMA node")
        return
    nodes = {bus.node for bus in known(context.now.buses) if bus.node >= 0}
    near = {cpu for node in nodes for cpu in cpus.of_node(node)}
    if not near:
        return
    far = []
    for process in known(context.now.processes):
        busy = sum(context.rates.thread_shares.get(one.tid, 0.0) for one in process.threads)
        allowed = {cpu for thread in process.threads for cpu in thread.allowed}
        if busy > 0.2 and allowed and not allowed & near:
            far.append(process)
    if far:
        names = ", ".join(f"{one.name}[{one.pid}]" for one in far[:4])
        yield warn(
            f"{names} may only run on nodes without a card; those are {format_list(nodes)}",
            advice="move them to the card's node",
            command="\n".join(f"taskset -apc {format_list(near)} {one.pid}" for one in far[:4]),
        )
    else:
        yield ok("busy programs may run near the card")


@check(
    "thread-migrations",
    Layer.APPLICATION,
    45,
    HOST,
    why="Each move to another CPU costs a thread what it had in its cache, and its packets come "
    "in at the old one.",
    source="proc_pid_sched; taskset(1)",
)
def thread_migrations(context: Context) -> Outcomes:
    """Busy threads with sockets that were moved over 50 times a second, with the goal latency 5."""
    limit = 5 if context.goal is Goal.LATENCY else 50
    try:
        moved = context.rates.thread_migrations
    except Unavailable:
        moved = {}
    worst = []
    for process in known(context.now.processes):
        for thread in process.threads:
            rate = context.per_second(moved.get(thread.tid, 0))
            if rate > limit and context.rates.thread_shares.get(thread.tid, 0.0) > 0.1:
                worst.append((rate, thread))
    if worst:
        rate, thread = max(worst, key=lambda pair: pair[0])
        verdict = warn if context.goal is Goal.LATENCY else info
        yield verdict(
            f"{len(worst)} threads are moved about; {thread.name}[{thread.tid}] {rate:.0f}/s",
            advice="pin it",
            command=f"taskset -pc {thread.cpu} {thread.tid}",
        )
    else:
        yield ok("busy threads stay on their CPUs")
