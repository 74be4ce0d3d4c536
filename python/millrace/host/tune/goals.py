"""What each goal sets: rings, coalescing, offloads, sysctls, power.

The sysctls and the power settings are those of tuned's profiles network-latency,
network-throughput and what they include; `overload` is ours. tuned's are opposite to each other on
queues and buffers, so a goal has to be named.
"""

from __future__ import annotations

from collections.abc import Mapping

from millrace.host.checks.offloads import offload_steps
from millrace.host.checks.ring import BYTES_A_DESCRIPTOR, DDIO_SHARE
from millrace.host.checks.table import Goal, file_step, setting_step
from millrace.host.cpu import Cpus
from millrace.host.cpuset import format_list, format_mask
from millrace.host.ethtool import Device
from millrace.host.finding import Step
from millrace.host.links import Link
from millrace.host.snapshot import Snapshot
from millrace.host.tune.placement import Placement, Policy, choose, place
from millrace.host.tune.plan import Builder, Plan
from millrace.host.unavailable import NotAvailable, known

#: A value that is written as it is, or numbers that a setting must at least have.
_Wish = str | int | tuple[int, ...]


def at_least(*values: int) -> tuple[int, ...]:
    """A wish for values that are not lower; tuned would lower what a newer kernel has."""
    return values


_LATENCY: Mapping[str, tuple[_Wish, str]] = {
    "net.core.busy_read": (50, "a reader looks at the device for 50 us before it sleeps"),
    "net.core.busy_poll": (50, "the same for poll and select"),
    "net.ipv4.tcp_fastopen": (3, "a returning client's request comes with its SYN"),
    "kernel.numa_balancing": (0, "no pages are moved while their program runs"),
    "kernel.hung_task_timeout_secs": (600, "looks for hung tasks less often"),
    "kernel.nmi_watchdog": (0, "no watchdog interrupts"),
    "kernel.timer_migration": (0, "timers stay on the CPU that set them"),
    "vm.stat_interval": (10, "statistics of memory every ten seconds"),
    "vm.swappiness": (10, "keeps programs in memory"),
    "vm.dirty_ratio": (10, "less to write back at once"),
    "vm.dirty_background_ratio": (3, "writing back begins early"),
}

_THROUGHPUT: Mapping[str, tuple[_Wish, str]] = {
    "net.core.somaxconn": (at_least(2048), "bursts of new connections fit"),
    "net.ipv4.tcp_notsent_lowat": (131_072, "little waits unsent behind what a program wrote"),
    "net.ipv4.tcp_slow_start_after_idle": (0, "a connection that rested keeps its rate"),
    "net.ipv4.tcp_rmem": (at_least(4096, 131072, 16 << 20), "16 MiB may be on their way to us"),
    "net.ipv4.tcp_wmem": (at_least(4096, 16384, 16 << 20), "16 MiB may be on their way from us"),
    "vm.swappiness": (10, "keeps programs in memory"),
    "vm.dirty_ratio": (40, "writes back in large pieces"),
    "vm.dirty_background_ratio": (10, "writes back in large pieces"),
}

_OVERLOAD: Mapping[str, tuple[_Wish, str]] = {
    "net.ipv4.tcp_syncookies": (1, "half-open connections need no memory once the queue is full"),
    "net.ipv4.tcp_synack_retries": (2, "a client that does not answer is forgotten after 7 s"),
    "net.ipv4.tcp_max_syn_backlog": (at_least(4096), "bursts of new connections fit"),
    "net.core.somaxconn": (at_least(1024), "bursts of new connections fit"),
    "net.ipv4.tcp_abort_on_overflow": (1, "a client that cannot be served is told at once"),
    "net.ipv4.tcp_fin_timeout": (15, "dead peers hold connections for less time"),
    "net.ipv4.tcp_tw_reuse": (1, "ports to a peer are used again"),
    "net.ipv4.tcp_notsent_lowat": (131_072, "memory is not spent on what cannot leave"),
    "net.core.busy_read": (0, "no CPU time for waiting"),
    "net.core.busy_poll": (0, "no CPU time for waiting"),
}

_SYSCTLS = {Goal.LATENCY: _LATENCY, Goal.THROUGHPUT: _THROUGHPUT, Goal.OVERLOAD: _OVERLOAD}

_RISKS = {
    "net.core.busy_read": "CPU time is spent on waiting",
    "net.core.busy_poll": "CPU time is spent on waiting",
    "net.ipv4.tcp_abort_on_overflow": "a short burst becomes errors at clients",
    "kernel.nmi_watchdog": "a hard lock-up is not noticed",
    "net.ipv4.tcp_rmem": "more memory a connection",
    "net.ipv4.tcp_wmem": "more memory a connection",
}

#: Kernel parameters that only a reboot sets.
_BOOT = "skew_tick=1 tsc=reliable rcupdate.rcu_normal_after_boot=1"


def make_plan(
    snapshot: Snapshot,
    interface: str,
    goal: Goal,
    *,
    policy: Policy | None = None,
    cpus: str | None = None,
    owner: str = "kernel",
) -> Plan:
    """The plan for one interface and one goal. Raises `ValueError` for what does not exist.

    `owner` is "kernel", or "millrace" where a port of ours receives from the interface.
    """
    links = {link.name: link for link in known(snapshot.links)}
    if interface not in links:
        raise ValueError(f"there is no interface {interface!r}; there is {', '.join(links)}")
    if goal is Goal.NONE:
        raise ValueError("a plan needs a goal: latency, throughput or overload")
    if owner not in ("kernel", "millrace"):
        raise ValueError(f"an interface's owner is kernel or millrace, not {owner!r}")
    link = links[interface]
    builder = Builder(snapshot)
    placement = choose(snapshot, link, policy, cpus)
    device = next((one for one in snapshot.devices or () if one.name == interface), None)
    place(builder, link, placement, goal)
    if device is not None:
        _rings(builder, link, device, goal)
        _coalescing(builder, link, device, goal)
        _offloads(builder, link, device, owner)
    _threads(builder, link, goal)
    _sysctls(builder, goal)
    if goal in (Goal.LATENCY, Goal.THROUGHPUT):
        _power(builder, goal, placement)
    if goal is Goal.LATENCY:
        _at_boot(builder, placement)
    return builder.plan(f"{interface} for {goal}: {placement.why}", interface, str(goal))


def _rings(builder: Builder, link: Link, device: Device, goal: Goal) -> None:
    rings, risk = device.rings, "the link goes down for a moment"
    if isinstance(rings, NotAvailable):
        return
    if goal is Goal.THROUGHPUT:
        wanted = min(rings.rx_max, max(rings.rx, 1024))
        builder.step(
            setting_step(link, "ring", "rx", rings.rx, wanted), "bursts fit into the ring", risk
        )
        return
    cpus = builder.snapshot.cpus
    if isinstance(cpus, NotAvailable) or isinstance(cpus.last_level_cache, NotAvailable):
        return
    queues = 1 if isinstance(device.channels, NotAvailable) else max(device.channels.receive, 1)
    room = int(cpus.last_level_cache * DDIO_SHARE / BYTES_A_DESCRIPTOR / queues)
    fitting = max(64, 1 << max(room.bit_length() - 1, 0))
    if fitting < rings.rx:
        builder.step(
            setting_step(link, "ring", "rx", rings.rx, fitting),
            "the rings stay in the cache, and nothing in them is old",
            "shorter bursts fit",
        )


def _coalescing(builder: Builder, link: Link, device: Device, goal: Goal) -> None:
    now = device.coalescing
    if isinstance(now, NotAvailable):
        return
    if goal is Goal.LATENCY:
        if now.adaptive_rx:
            builder.step(
                setting_step(link, "coalesce", "adaptive-rx", True, False),
                "an interrupt comes at once, not when the driver thinks",
                "more interrupts, more CPU",
            )
        if now.rx_usecs:
            builder.step(
                setting_step(link, "coalesce", "rx-usecs", now.rx_usecs, 0),
                "no interrupt is held back",
                "more interrupts, more CPU",
            )
    elif now.adaptive_rx is False:
        builder.step(
            setting_step(link, "coalesce", "adaptive-rx", False, True),
            "fewer interrupts under load",
            "a packet may wait a little",
        )
    elif now.adaptive_rx is None and now.rx_usecs is not None and now.rx_usecs < 8:
        builder.step(
            setting_step(link, "coalesce", "rx-usecs", now.rx_usecs, 32),
            "fewer interrupts under load",
            "a packet may wait 32 us",
        )


def _offloads(builder: Builder, link: Link, device: Device, owner: str) -> None:
    if owner == "millrace":
        for short in ("lro", "rx-gro-hw"):
            builder.steps(
                offload_steps(link, device, short, False),
                "a port of ours must see frames as they came",
            )
        return
    shorts = ("tx", "sg", "tso", "gso")
    for short in shorts if link.kind else (*shorts, "gro"):
        builder.steps(
            offload_steps(link, device, short, True), "many packets take the way through as one"
        )


def _threads(builder: Builder, link: Link, goal: Goal) -> None:
    napis = [napi for napi in builder.snapshot.napis or () if napi.index == link.index]
    if goal is Goal.OVERLOAD and napis and not any(napi.threaded for napi in napis):
        builder.step(
            file_step(f"/sys/class/net/{link.name}/threaded", "0", "1"),
            "receiving competes with programs under the scheduler's rules and cannot starve them",
            "a lone packet waits for a thread to wake up",
        )


def _sysctls(builder: Builder, goal: Goal) -> None:
    values = builder.snapshot.sysctls or {}
    wishes = dict(_SYSCTLS[goal])
    if goal is Goal.OVERLOAD:
        cpus = builder.snapshot.cpus
        if not isinstance(cpus, NotAvailable):
            wishes["net.core.flow_limit_cpu_bitmap"] = (
                format_mask(cpus.numbers),
                "a large flow is cut before many small ones",
            )
    for key, (wish, why) in wishes.items():
        value = values.get(key, NotAvailable("not in this snapshot"))
        if isinstance(value, NotAvailable):
            if "whole machine" in value.why:
                builder.step(Step(f"sysctl:{key}", "", _plain(wish)), why)
            continue
        builder.step(Step(f"sysctl:{key}", value, _wanted(wish, value)), why, _RISKS.get(key, ""))


def _plain(wish: _Wish) -> str:
    return " ".join(map(str, wish)) if isinstance(wish, tuple) else str(wish)


def _wanted(wish: _Wish, value: str) -> str:
    words = value.split()
    if not isinstance(wish, tuple):
        return str(wish)
    if len(words) != len(wish) or not all(word.isdecimal() for word in words):
        return _plain(wish)
    return " ".join(str(max(int(word), least)) for word, least in zip(words, wish, strict=True))


def _power(builder: Builder, goal: Goal, placement: Placement) -> None:
    cpus = builder.snapshot.cpus
    if isinstance(cpus, NotAvailable):
        return
    _frequency(builder, cpus)
    if goal is not Goal.LATENCY:
        return
    states = [state for one in cpus.cpus for state in one.idle_states]
    if any(state.latency > 10 and not state.disabled for state in states):
        for cpu in placement.cpus:
            builder.step(
                file_step(
                    f"/sys/devices/system/cpu/cpu{cpu}/power/pm_qos_resume_latency_us", "0", "10"
                ),
                "this CPU sleeps only as deeply as it wakes up within 10 us",
                "power and heat",
            )
    memory = builder.snapshot.memory
    if not isinstance(memory, NotAvailable):
        pages = memory.transparent_hugepages
        if isinstance(pages, str):
            builder.step(
                file_step("/sys/kernel/mm/transparent_hugepage/enabled", pages, "never"),
                "the kernel does not join pages behind a program's back",
                "programs that ask for large pages get none",
            )


def _frequency(builder: Builder, cpus: Cpus) -> None:
    base = "/sys/devices/system/cpu/cpu"
    for one in cpus.cpus:
        for file, value in (
            ("scaling_governor", one.governor),
            ("energy_performance_preference", one.energy_preference),
        ):
            if isinstance(value, str):
                builder.step(
                    file_step(f"{base}{one.number}/cpufreq/{file}", value, "performance"),
                    "full speed from the first packet",
                    "power and heat",
                )
    intel = isinstance(cpus.frequency_driver, str) and cpus.frequency_driver.startswith("intel_")
    if cpus.boost is False:
        builder.step(
            file_step("/sys/devices/system/cpu/intel_pstate/no_turbo", "1", "0")
            if intel
            else file_step("/sys/devices/system/cpu/cpufreq/boost", "0", "1"),
            "a lone busy core may run above its nominal frequency",
            "power and heat",
        )


def _at_boot(builder: Builder, placement: Placement) -> None:
    line = _BOOT
    if placement.policy is Policy.CPUS:
        listed = format_list(placement.cpus)
        line += f" isolcpus=managed_irq,domain,{listed} nohz_full={listed} rcu_nocbs={listed}"
    kernel = builder.snapshot.kernel
    have = "" if isinstance(kernel, NotAvailable) else str(kernel.command_line or "")
    missing = [word for word in line.split() if word not in have.split()]
    if missing:
        builder.advise(
            f"kernel parameters, after the next boot: {' '.join(missing)}",
            "only a reboot changes them",
        )


def owner_of(snapshot: Snapshot, interface: str) -> str:
    """ "millrace" if a channel of ours is on the interface, otherwise "kernel"."""
    for one in snapshot.own or ():
        if one.interface == interface:
            return "millrace"
    return "kernel"
