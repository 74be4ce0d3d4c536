"""What is wrong: checks of `millrace.host.checks.interrupts`."""

from __future__ import annotations

from typing import Any

from .register import BAD, INFO, WARN, fault


@fault("irq-one-cpu", BAD, "100% of 40,000 interrupts", "echo 1 > /proc/irq/61/smp_affinity_list")
def all_queues_on_one_cpu(server: Any) -> None:
    server.irqs(lambda _: 0)


@fault("irq-isolated", WARN, "8 interrupts go to isolated CPUs", "echo 0-1,4-7 > /proc/irq/60")
def isolated_cpus_are_interrupted(server: Any) -> None:
    server.cpus(isolated=(2, 3)).irqs(lambda at: 2 + at % 2)


@fault("irqbalance", WARN, "irqbalance[55] runs", "systemctl stop irqbalance")
def irqbalance_moves_pinned_ones(server: Any) -> None:
    server.set(services={"irqbalance": 55})


@fault("irqbalance", WARN, "all 8 interrupts go to CPU 0", "systemctl start irqbalance")
def nobody_balances(server: Any) -> None:
    server.irqs(lambda _: 0)


@fault("numa-irqs", WARN, "8 of 8 interrupts go to other nodes than 0", "echo 0 > /proc/irq/60")
def interrupts_on_the_far_node(server: Any) -> None:
    server.irqs(lambda at: 4 + at % 4)


@fault("numa-programs", WARN, "nginx[812] may only run on nodes without", "taskset -apc 0-3 812")
def program_on_the_far_node(server: Any) -> None:
    server.thread(share=0.9, allowed=(5,), cpu=5)


@fault("thread-migrations", INFO, "nginx[812] 100/s", "taskset -pc 0 812")
def thread_is_moved_about(server: Any) -> None:
    server.thread(share=0.5, migrations=1000)
