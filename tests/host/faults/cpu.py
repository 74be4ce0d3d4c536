"""What is wrong: checks of `millrace.host.checks.cpu`."""

from __future__ import annotations

import dataclasses
from typing import Any

from millrace.host.checks import Goal
from millrace.host.cpu import IdleState
from millrace.host.memory import Pressure
from millrace.host.platform import Kernel

from .register import BAD, INFO, WARN, fault


@fault("governor", WARN, "powersave on 8 of 8 CPUs", "scaling_governor", Goal.LATENCY)
def cpus_save_power(server: Any) -> None:
    server.each_cpu(governor="powersave")


@fault("governor", INFO, "power on 8 of 8", "energy_performance_preference")
def cpus_prefer_power(server: Any) -> None:
    server.each_cpu(energy_preference="power")


@fault("c-states", WARN, "C6 170 us", "pm_qos_resume_latency_us", Goal.LATENCY)
def cpus_sleep_deeply(server: Any) -> None:
    server.each_cpu(idle_states=(IdleState("C6", 170, False),))


@fault("smt", WARN, "its sibling 1 is 80% busy")
def sibling_is_busy(server: Any) -> None:
    cpus = server.after.cpus
    server.cpus(
        smt_active=True,
        cpus=tuple(dataclasses.replace(one, siblings=(0, 1)) for one in cpus.cpus),
    )
    server.thread(share=1.0, cpu=0).times(1, user=0.8)


@fault("clocksource", WARN, "hpet", "current_clocksource")
def slow_clock(server: Any) -> None:
    server.cpus(clocksource="hpet")


@fault("isolation", INFO, "polling threads on CPU 3", "", Goal.LATENCY)
def polls_without_isolation(server: Any) -> None:
    server.thread(share=1.0, allowed=(3,), cpu=3)


@fault("mitigations", INFO, "mitigations=off")
def mitigations_are_off(server: Any) -> None:
    server.set(kernel=Kernel("6.18", "quiet mitigations=off", {}, True))


@fault("background-timers", INFO, "kernel.nmi_watchdog 1", "nmi_watchdog=0", Goal.LATENCY)
def watchdog_runs(server: Any) -> None:
    server.sysctl(kernel__nmi_watchdog=1)


@fault("real-time-throttle", BAD, "poll with real-time priority", "sched_rt_runtime_us=950000")
def real_time_without_throttle(server: Any) -> None:
    server.thread(share=1.0, policy="fifo").sysctl(kernel__sched_rt_runtime_us=-1)


@fault("steal", BAD, "20.0% of the CPUs' time was stolen")
def time_is_stolen(server: Any) -> None:
    for cpu in range(8):
        server.times(cpu, steal=0.2)


@fault("pressure", WARN, "memory 50%")
def memory_is_waited_for(server: Any) -> None:
    server.later(pressure={**server.after.pressure, "memory": Pressure(50.0, 5_000_000, 0.0)})


@fault("boost", WARN, "boost is off", "echo 0 > /sys/devices/system/cpu/intel", Goal.THROUGHPUT)
def no_boost(server: Any) -> None:
    server.cpus(boost=False)
