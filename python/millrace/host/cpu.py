"""CPUs: how they are joined, what they may sleep and run at, who is kept off them.

Documentation/admin-guide/cputopology.rst, Documentation/ABI/testing/sysfs-devices-system-cpu and
Documentation/admin-guide/pm/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from millrace.host.access import Access
from millrace.host.cpuset import parse_list
from millrace.host.files import Files
from millrace.host.unavailable import NotAvailable, Reading

_BASE = "/sys/devices/system/cpu"


@dataclass(frozen=True, slots=True)
class IdleState:
    """One state a CPU sleeps in."""

    name: str
    #: Microseconds to wake up from it.
    latency: int
    disabled: bool


@dataclass(frozen=True, slots=True)
class Cpu:
    """One CPU that is online."""

    number: int
    node: int
    package: int
    core: int
    #: Those that share its core, itself among them.
    siblings: tuple[int, ...]
    idle_states: tuple[IdleState, ...]
    #: "performance", "schedutil", ...
    governor: Reading[str]
    #: "performance", "balance_power", ...
    energy_preference: Reading[str]


@dataclass(frozen=True, slots=True)
class Cpus:
    """All CPUs, and what holds for them together."""

    cpus: tuple[Cpu, ...]
    model: str
    #: Bytes of the largest cache that CPU 0 shares.
    last_level_cache: Reading[int]
    #: Of isolcpus and nohz_full, which only a reboot changes.
    isolated: tuple[int, ...]
    nohz_full: tuple[int, ...]
    smt_active: Reading[bool]
    idle_driver: Reading[str]
    frequency_driver: Reading[str]
    #: Whether frequencies above the nominal one are allowed.
    boost: Reading[bool]
    clocksource: Reading[str]
    clocksources: Reading[tuple[str, ...]]
    #: What the kernel says of each hardware vulnerability.
    vulnerabilities: Mapping[str, str] = field(default_factory=dict)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the CPUs that are online."""
        return tuple(cpu.number for cpu in self.cpus)

    def of_node(self, node: int) -> tuple[int, ...]:
        """The CPUs of one NUMA node."""
        return tuple(cpu.number for cpu in self.cpus if cpu.node == node)

    @property
    def nodes(self) -> tuple[int, ...]:
        """The NUMA nodes that have CPUs."""
        return tuple(sorted({cpu.node for cpu in self.cpus}))

    def cores(self) -> int:
        """Physical cores that are online."""
        return len({cpu.siblings for cpu in self.cpus})


def read_cpus(access: Access) -> Cpus:
    """The CPUs of this machine."""
    files = access.files
    online = parse_list(files.read(f"{_BASE}/online"))
    nodes = _nodes(files)
    clock = "/sys/devices/system/clocksource/clocksource0"
    names = files.text(f"{clock}/available_clocksource")
    return Cpus(
        cpus=tuple(_cpu(files, number, nodes) for number in sorted(online)),
        model=_model(files),
        last_level_cache=_last_level_cache(files),
        isolated=_cpu_list(files, f"{_BASE}/isolated"),
        nohz_full=_cpu_list(files, f"{_BASE}/nohz_full"),
        smt_active=_switch(files.text(f"{_BASE}/smt/active")),
        idle_driver=files.text(f"{_BASE}/cpuidle/current_driver"),
        frequency_driver=_no_frequency(files.text(f"{_BASE}/cpufreq/policy0/scaling_driver")),
        boost=_boost(files),
        clocksource=files.text(f"{clock}/current_clocksource"),
        clocksources=names if isinstance(names, NotAvailable) else tuple(names.split()),
        vulnerabilities={
            name: said
            for name in files.names(f"{_BASE}/vulnerabilities")
            if isinstance(said := files.text(f"{_BASE}/vulnerabilities/{name}"), str)
        },
    )


def _cpu(files: Files, number: int, nodes: Mapping[int, int]) -> Cpu:
    base = f"{_BASE}/cpu{number}"
    frequency = f"{base}/cpufreq"
    return Cpu(
        number=number,
        node=nodes.get(number, 0),
        package=_or_zero(files.number(f"{base}/topology/physical_package_id")),
        core=_or_zero(files.number(f"{base}/topology/core_id")),
        siblings=_cpu_list(files, f"{base}/topology/thread_siblings_list") or (number,),
        idle_states=tuple(
            IdleState(
                name=str(files.text(f"{base}/cpuidle/{state}/name")),
                latency=_or_zero(files.number(f"{base}/cpuidle/{state}/latency")),
                disabled=files.text(f"{base}/cpuidle/{state}/disable") not in ("0", ""),
            )
            for state in files.names(f"{base}/cpuidle")
            if re.fullmatch(r"state\d+", state)
        ),
        governor=_no_frequency(files.text(f"{frequency}/scaling_governor")),
        energy_preference=_no_frequency(files.text(f"{frequency}/energy_performance_preference")),
    )


def _nodes(files: Files) -> dict[int, int]:
    found = {}
    for name in files.names("/sys/devices/system/node"):
        if re.fullmatch(r"node\d+", name):
            for cpu in _cpu_list(files, f"/sys/devices/system/node/{name}/cpulist"):
                found[cpu] = int(name[4:])
    return found


def _model(files: Files) -> str:
    text = files.text("/proc/cpuinfo")
    if isinstance(text, str):
        for line in text.splitlines():
            if line.startswith(("model name", "Processor", "cpu model")):
                return line.partition(":")[2].strip()
    return ""


def _last_level_cache(files: Files) -> Reading[int]:
    best: Reading[int] = NotAvailable("sysfs shows no caches of CPU 0")
    level = 0
    for name in files.names(f"{_BASE}/cpu0/cache"):
        base = f"{_BASE}/cpu0/cache/{name}"
        here, size = files.number(f"{base}/level"), files.text(f"{base}/size")
        if isinstance(here, int) and isinstance(size, str) and here >= level:
            digits = re.fullmatch(r"(\d{1,12})([KMG]?)", size)
            if digits:
                level = here
                best = int(digits[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[digits[2]]
    return best


def _boost(files: Files) -> Reading[bool]:
    intel = files.text(f"{_BASE}/intel_pstate/no_turbo")
    if isinstance(intel, str):
        return intel == "0"
    return _switch(_no_frequency(files.text(f"{_BASE}/cpufreq/boost")))


def _no_frequency(reading: Reading[str]) -> Reading[str]:
    if isinstance(reading, NotAvailable) and not reading.needs:
        return NotAvailable("no cpufreq driver; a virtual machine's frequency is its host's affair")
    return reading


def _switch(reading: Reading[str]) -> Reading[bool]:
    return reading if isinstance(reading, NotAvailable) else reading == "1"


def _cpu_list(files: Files, path: str) -> tuple[int, ...]:
    text = files.text(path)
    if isinstance(text, NotAvailable):
        return ()
    try:
        return tuple(sorted(parse_list(text)))
    except ValueError:  # nohz_full holds "(null)" where it is not set
        return ()


def _or_zero(reading: Reading[int]) -> int:
    return reading if isinstance(reading, int) else 0
