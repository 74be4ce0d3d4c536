"""CPUs: sleep, speed, siblings, isolation, and what the kernel does on them by itself."""

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
from millrace.host.cpuset import format_list
from millrace.host.finding import HOST, Layer
from millrace.host.unavailable import NotAvailable, Unavailable, known

#: Microseconds: states that take longer to leave hurt a lone request.
DEEP_SLEEP = 10


@check(
    "governor",
    Layer.CPU,
    48,
    HOST,
    why="The CPU runs slowly until it has been busy for a while; short bursts of packets are "
    "over before it speeds up.",
    source="Documentation/admin-guide/pm/cpufreq.rst; tuned: performance in every network profile",
)
def governor(context: Context) -> Outcomes:
    """A cpufreq governor or an energy preference other than performance, where there is a goal."""
    cpus = known(context.now.cpus).cpus
    known(cpus[0].governor if cpus else NotAvailable("no CPU"))
    slow = [
        one
        for one in cpus
        if not isinstance(one.governor, NotAvailable) and one.governor != "performance"
    ]
    saving = [
        one
        for one in cpus
        if not isinstance(one.energy_preference, NotAvailable)
        and one.energy_preference not in ("performance", "balance_performance")
    ]
    base = "/sys/devices/system/cpu/cpu"
    steps = [
        file_step(f"{base}{one.number}/cpufreq/scaling_governor", one.governor, "performance")
        for one in slow
    ] + [
        file_step(
            f"{base}{one.number}/cpufreq/energy_performance_preference",
            one.energy_preference,
            "performance",
        )
        for one in saving
    ]
    if slow or saving:
        names = {str(one.governor) for one in slow} | {str(one.energy_preference) for one in saving}
        verdict = warn if context.goal in (Goal.LATENCY, Goal.THROUGHPUT) else info
        yield verdict(
            f"{', '.join(sorted(names))} on {len(set(slow) | set(saving))} of {len(cpus)} CPUs",
            steps=steps,
            risk="power and heat",
        )
    else:
        yield ok("performance on every CPU")


@check(
    "c-states",
    Layer.CPU,
    49,
    HOST,
    why="A packet that wakes a CPU from deep sleep waits until it is awake, over 100 us from the "
    "deepest states.",
    source="Documentation/admin-guide/pm/cpuidle.rst; tuned's force_latency=cstate.id_no_zero:1|3",
)
def c_states(context: Context) -> Outcomes:
    """Idle states that take over 10 us to leave, with the goal latency."""
    cpus = known(context.now.cpus).cpus
    deep = {
        state.name: state.latency
        for one in cpus
        for state in one.idle_states
        if state.latency > DEEP_SLEEP and not state.disabled
    }
    if not any(one.idle_states for one in cpus):
        yield ok("the CPUs show no idle states; a virtual machine's sleep is its host's affair")
        return
    told = ", ".join(f"{name} {latency} us" for name, latency in sorted(deep.items()))
    if deep and context.goal is Goal.LATENCY:
        yield warn(
            f"allowed: {told}",
            steps=[
                file_step(
                    f"/sys/devices/system/cpu/cpu{one.number}/power/pm_qos_resume_latency_us",
                    "0",
                    str(DEEP_SLEEP),
                )
                for one in cpus
            ],
            risk="power and heat; less turbo for the others",
        )
    else:
        yield ok(told or "no state takes over 10 us to leave")


@check(
    "smt",
    Layer.CPU,
    50,
    HOST,
    why="Two threads of a core share its units and caches; a polling one slows its sibling and "
    "is slowed by it.",
    source="Documentation/networking/scaling.rst: no benefit of hyperthreading for interrupts",
)
def smt(context: Context) -> Outcomes:
    """A thread that polls (over 90 % of a CPU) whose sibling is busy as well."""
    cpus = known(context.now.cpus)
    if known(cpus.smt_active) is False:
        yield ok("one thread a core")
        return
    shares = context.rates.cpu_shares
    siblings = {one.number: one.siblings for one in cpus.cpus}
    polling = {
        thread.cpu: thread
        for process in known(context.now.processes)
        for thread in process.threads
        if context.rates.thread_shares.get(thread.tid, 0.0) > 0.9
    }
    for cpu, thread in sorted(polling.items()):
        for other in siblings.get(cpu, ()):
            share = shares.get(other)
            if other != cpu and share is not None and share.busy > 0.3:
                yield warn(
                    f"{thread.name}[{thread.tid}] polls on CPU {cpu}, and its sibling {other} is "
                    f"{share.busy:.0%} busy",
                    advice=f"keep other work off CPU {other}",
                )
                return
    yield ok("no polling thread shares its core with a busy one")


@check(
    "clocksource",
    Layer.CPU,
    51,
    HOST,
    why="Every look at the clock becomes a system call, or a read of a slow device: a microsecond "
    "and more for each timestamp.",
    source="Documentation/timers/timekeeping.rst",
)
def clocksource(context: Context) -> Outcomes:
    """A clocksource other than tsc on x86 where tsc is to be had."""
    cpus = known(context.now.cpus)
    current = known(cpus.clocksource)
    offered = cpus.clocksources or ()
    x86 = context.now.origin.machine in ("x86_64", "i686")
    quick = ("tsc", "kvm-clock", "hyperv_clocksource_tsc_page")
    if not x86 or current in quick:
        yield ok(current)
    elif "tsc" in offered:
        yield warn(
            f"{current}; {', '.join(offered)} are to be had",
            steps=[
                file_step(
                    "/sys/devices/system/clocksource/clocksource0/current_clocksource",
                    current,
                    "tsc",
                )
            ],
            risk="the kernel may have left tsc because it was unstable: see dmesg",
        )
    else:
        yield info(f"{current}; the kernel does not offer tsc")


@check(
    "isolation",
    Layer.CPU,
    47,
    HOST,
    why="The scheduler puts other work on the CPU of a polling thread, and its timer ticks "
    "interrupt it: each is a gap of microseconds to milliseconds.",
    source="Documentation/admin-guide/kernel-parameters.txt, isolcpus, nohz_full, rcu_nocbs",
)
def isolation(context: Context) -> Outcomes:
    """Polling threads on CPUs that are not isolated, with the goal latency. Only a reboot helps."""
    cpus = known(context.now.cpus)
    isolated = set(cpus.isolated)
    polling = sorted(
        {
            thread.cpu
            for process in known(context.now.processes)
            for thread in process.threads
            if context.rates.thread_shares.get(thread.tid, 0.0) > 0.9 and len(thread.allowed) == 1
        }
        - isolated
    )
    if polling and context.goal is Goal.LATENCY:
        listed = format_list(polling)
        yield info(
            f"polling threads on CPU {listed}, which are not isolated",
            advice="after the next boot with: "
            f"isolcpus=managed_irq,domain,{listed} nohz_full={listed} rcu_nocbs={listed}",
        )
    else:
        yield ok(f"isolated: {format_list(isolated) or 'none'}")


@check(
    "mitigations",
    Layer.CPU,
    52,
    HOST,
    why="They make each system call and context switch dearer, some by half a microsecond; this "
    "is what a user-space stack avoids. It is no advice to switch them off.",
    source="Documentation/admin-guide/hw-vuln/",
)
def mitigations(context: Context) -> Outcomes:
    """How many hardware vulnerabilities are mitigated, and whether that is switched off."""
    found = known(context.now.cpus).vulnerabilities
    active = sorted(name for name, said in found.items() if said.startswith("Mitigation"))
    exposed = sorted(name for name, said in found.items() if said.startswith("Vulnerable"))
    line = context.now.kernel
    off = not isinstance(line, NotAvailable) and "mitigations=off" in str(line.command_line)
    told = f"{len(active)} mitigated" + (f", vulnerable: {', '.join(exposed)}" if exposed else "")
    if off:
        yield info(told + ", mitigations=off", advice="trust every program that runs here")
    else:
        yield ok(told)


@check(
    "background-timers",
    Layer.CPU,
    53,
    HOST,
    why="The kernel looks after itself on every CPU: page migration, a watchdog, statistics. "
    "Each is a pause for whatever runs there.",
    source="tuned's network-latency profile",
)
def background_timers(context: Context) -> Outcomes:
    """numa_balancing, nmi_watchdog, timer_migration and vm.stat_interval, with the goal latency."""
    wanted = {
        "kernel.numa_balancing": 0,
        "kernel.nmi_watchdog": 0,
        "kernel.timer_migration": 0,
        "vm.stat_interval": 10,
    }
    off = []
    for key, value in wanted.items():
        try:
            now = context.number(key)
        except Unavailable:
            continue
        if now < value if key == "vm.stat_interval" else now != value:
            off.append(context.set(key, value))
    if off and context.goal is Goal.LATENCY:
        yield info(
            ", ".join(f"{step.target.partition(':')[2]} {step.old}" for step in off),
            steps=off,
            risk="memory is not moved to its users' node; a hard lock-up is not noticed",
        )
    else:
        yield ok(f"{len(off)} of {len(wanted)} run as by default")


@check(
    "real-time-throttle",
    Layer.CPU,
    54,
    HOST,
    why="A polling thread with real-time priority starves the kernel's own threads on its CPU; "
    "without the throttle the machine may hang.",
    source="sched(7), sched_rt_runtime_us",
)
def real_time_throttle(context: Context) -> Outcomes:
    """Threads with real-time priority that use over 90 % of a CPU, and what throttles them."""
    runtime = context.number("kernel.sched_rt_runtime_us")
    greedy = [
        thread
        for process in known(context.now.processes)
        for thread in process.threads
        if thread.policy in ("fifo", "rr")
        and context.rates.thread_shares.get(thread.tid, 0.0) > 0.9
    ]
    if greedy:
        names = ", ".join(f"{one.name}[{one.tid}]" for one in greedy[:4])
        verdict = bad if runtime < 0 else warn
        yield verdict(
            f"{names} poll with real-time priority; sched_rt_runtime_us is {runtime}",
            steps=[context.set("kernel.sched_rt_runtime_us", 950_000)] if runtime < 0 else [],
            advice="an isolated CPU and ordinary priority do as well",
        )
    else:
        yield ok(f"no real-time thread polls; sched_rt_runtime_us is {runtime}")


@check(
    "steal",
    Layer.PLATFORM,
    59,
    HOST,
    why="The hypervisor gave this machine's CPUs to others while they had work. No setting here "
    "changes that, and figures measured meanwhile mean little.",
    source="proc_stat(5), steal",
)
def steal(context: Context) -> Outcomes:
    """Steal time of all CPUs in the window: above 1 % a warning, above 10 % bad."""
    shares = context.rates.cpu_shares
    if not shares:
        return
    mean = sum(one.steal for one in shares.values()) / len(shares)
    told = f"{mean:.1%} of the CPUs' time was stolen"
    if mean > 0.01:
        verdict = bad if mean > 0.10 else warn
        yield verdict(
            told, advice="a host with fewer neighbours, or CPUs of its own for this machine"
        )
    else:
        yield ok(told)


@check(
    "pressure",
    Layer.CPU,
    60,
    HOST,
    why="Programs wait for a CPU, or for memory to become free, and with them their packets.",
    source="Documentation/accounting/psi.rst",
)
def pressure(context: Context) -> Outcomes:
    """How much of the window at least one program waited for memory or a CPU.

    Memory above 10 % is a warning. A CPU is waited for on every busy machine, so that is
    information, and a warning only with the goal latency.
    """
    now = known(context.now.pressure)
    before = known(context.rates.before.pressure)
    shares = {}
    for name, one in now.items():
        old = before.get(name)
        if old is not None:
            shares[name] = max(0, one.some_total - old.some_total) / (context.rates.seconds * 1e6)
    told = ", ".join(f"{name} {share:.0%}" for name, share in sorted(shares.items()))
    if shares.get("memory", 0.0) > 0.10:
        yield warn(f"waited for: {told}", advice="free memory, or give the machine more")
    elif shares.get("cpu", 0.0) > 0.10:
        verdict = warn if context.goal is Goal.LATENCY else info
        yield verdict(f"waited for: {told}", advice="fewer programs, or CPUs of their own for some")
    else:
        yield ok(f"waited for: {told}")


@check(
    "boost",
    Layer.CPU,
    48,
    HOST,
    why="Frequencies above the nominal one are forbidden: a lone busy core is up to a third "
    "slower than it could be.",
    source="Documentation/admin-guide/pm/cpufreq.rst, boost; tuned: boost=1",
)
def boost(context: Context) -> Outcomes:
    """Turbo or boost that is switched off, where there is a goal."""
    cpus = known(context.now.cpus)
    allowed = known(cpus.boost)
    if allowed:
        yield ok("boost is allowed")
        return
    intel = isinstance(cpus.frequency_driver, str) and cpus.frequency_driver.startswith("intel_")
    base = "/sys/devices/system/cpu/"
    step = (
        file_step(f"{base}intel_pstate/no_turbo", "1", "0")
        if intel
        else file_step(f"{base}cpufreq/boost", "0", "1")
    )
    verdict = warn if context.goal in (Goal.LATENCY, Goal.THROUGHPUT) else info
    yield verdict("boost is off", steps=[step], risk="the frequency varies; power and heat")
