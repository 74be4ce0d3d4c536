"""What may be written: a sysctl, a file of sysfs or procfs, a setting of a driver, a service.

A target has a name that a journal can keep and that is read back strictly, because root writes what
a journal says: only what is listed here can be written, whatever the name holds.
"""

from __future__ import annotations

import abc
import errno
import fnmatch
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from millrace.host import ethtool
from millrace.host.access import Access
from millrace.host.cpuset import parse_list, parse_mask
from millrace.host.sysctl import HOST_WIDE, OF_MACHINE, path_of

_INTERFACE = r"[^\s/:\0]{1,15}"

# Which files, and how two of their values are compared.
_FILES: tuple[tuple[str, str], ...] = (
    (rf"/sys/class/net/{_INTERFACE}/queues/rx-\d+/rps_cpus", "mask"),
    (rf"/sys/class/net/{_INTERFACE}/queues/rx-\d+/rps_flow_cnt", "text"),
    (rf"/sys/class/net/{_INTERFACE}/queues/tx-\d+/xps_cpus", "mask"),
    (
        rf"/sys/class/net/{_INTERFACE}/(threaded|gro_flush_timeout|napi_defer_hard_irqs"
        r"|tx_queue_len|mtu)",
        "text",
    ),
    (r"/proc/irq/\d+/smp_affinity_list", "list"),
    (
        r"/sys/devices/system/cpu/cpu\d+/cpufreq/"
        r"(scaling_governor|energy_performance_preference)",
        "text",
    ),
    (r"/sys/devices/system/cpu/cpu\d+/power/pm_qos_resume_latency_us", "text"),
    (r"/sys/devices/system/cpu/cpu\d+/cpuidle/state\d+/disable", "text"),
    (r"/sys/devices/system/cpu/(cpufreq/boost|smt/control)", "text"),
    (r"/sys/devices/system/cpu/intel_pstate/(no_turbo|min_perf_pct)", "text"),
    (r"/sys/devices/system/clocksource/clocksource0/current_clocksource", "text"),
    (r"/sys/devices/virtual/workqueue/(writeback/)?cpumask", "mask"),
    (r"/sys/kernel/mm/transparent_hugepage/enabled", "choice"),
    (r"/sys/kernel/mm/hugepages/hugepages-\d+kB/nr_hugepages", "text"),
    (r"/sys/devices/system/node/node\d+/hugepages/hugepages-\d+kB/nr_hugepages", "text"),
)  # fmt: skip

_SYSCTL = re.compile(r"(net|vm)([./][^./\s\0][^/\s\0]*)+")
_SERVICES = ("irqbalance",)


class Target(abc.ABC):
    """One thing that has a value which can be read and written."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """As a journal keeps it."""

    @property
    @abc.abstractmethod
    def title(self) -> str:
        """What it is, for people."""

    @property
    def interface(self) -> str:
        """The interface that it belongs to; "" for none."""
        return ""

    @property
    def is_host_wide(self) -> bool:
        """Whether every network namespace shares it."""
        return False

    @abc.abstractmethod
    def read(self, access: Access) -> str:
        """Its value now. Raises `OSError`."""

    @abc.abstractmethod
    def write(self, access: Access, value: str) -> None:
        """Give it a value. Raises `OSError` with the kernel's error."""

    @abc.abstractmethod
    def shell(self, value: str) -> str:
        """The line of a shell that does the same."""

    def same(self, one: str, other: str) -> bool:
        """Whether two values mean the same; the kernel writes them in its own way."""
        return one.split() == other.split()

    def file(self) -> str:
        """The file of the kernel's that it is; "" if it is none."""
        return ""

    def show(self, value: str) -> str:
        """A value for people."""
        return value


@dataclass(frozen=True)
class Sysctl(Target):
    """A setting below /proc/sys."""

    key: str

    @property
    def name(self) -> str:
        return f"sysctl:{self.key}"

    @property
    def title(self) -> str:
        return self.key

    @property
    def is_host_wide(self) -> bool:
        return self.key in HOST_WIDE or not self.key.startswith("net")

    def read(self, access: Access) -> str:
        return " ".join(access.files.read(path_of(self.key)).split())

    def write(self, access: Access, value: str) -> None:
        access.files.write(path_of(self.key), value)

    def shell(self, value: str) -> str:
        return f"sysctl -w {shlex.quote(f'{self.key}={value}')}"

    def file(self) -> str:
        return path_of(self.key)


@dataclass(frozen=True)
class File(Target):
    """A file of sysfs or procfs."""

    path: str
    kind: str

    @property
    def name(self) -> str:
        return f"file:{self.path}"

    @property
    def title(self) -> str:
        return self.path

    @property
    def interface(self) -> str:
        parts = self.path.split("/")
        return parts[4] if self.path.startswith("/sys/class/net/") else ""

    @property
    def is_host_wide(self) -> bool:
        return not self.interface

    def read(self, access: Access) -> str:
        text = " ".join(access.files.read(self.path).split())
        if self.kind == "choice" and (chosen := re.search(r"\[(\S+)\]", text)):
            return chosen[1]
        return text

    def write(self, access: Access, value: str) -> None:
        access.files.write(self.path, value)

    def shell(self, value: str) -> str:
        return f"echo {shlex.quote(value)} > {shlex.quote(self.path)}"

    def same(self, one: str, other: str) -> bool:
        parse = {"mask": parse_mask, "list": parse_list}.get(self.kind)
        if parse is None:
            return one.split() == other.split()
        try:
            return parse(one) == parse(other)
        except ValueError:
            return False

    def file(self) -> str:
        return self.path


@dataclass(frozen=True)
class Driver(Target):
    """A number that a driver keeps, by ethtool's netlink family."""

    #: "ring", "channels" or "coalesce".
    group: str
    device: str
    setting: str

    @property
    def name(self) -> str:
        return f"{self.group}:{self.device}:{self.setting}"

    @property
    def title(self) -> str:
        return f"{self.device} {self.group} {self.setting}"

    @property
    def interface(self) -> str:
        return self.device

    def read(self, access: Access) -> str:
        netlink = access.generic()
        read, _, _ = _GROUPS[self.group]
        value = getattr(read(netlink, self.device), self.setting.replace("-", "_"))
        if value is None:
            raise OSError(errno.EOPNOTSUPP, f"{self.device} has no {self.setting}")
        return _switch(value) if isinstance(value, bool) else str(value)

    def write(self, access: Access, value: str) -> None:
        netlink = access.generic()
        _, write, _ = _GROUPS[self.group]
        wanted: int | bool = value == "on" if value in ("on", "off") else int(value)
        write(netlink, self.device, **{self.setting.replace("-", "_"): wanted})

    def shell(self, value: str) -> str:
        flag = _GROUPS[self.group][2]
        return f"ethtool {flag} {shlex.quote(self.device)} {shlex.quote(self.setting)} {value}"


@dataclass(frozen=True)
class Offload(Target):
    """An offload by ethtool's short name, with all of the kernel's that it stands for.

    A value names each of them, since they need not agree: "tx-tcp-segmentation=on ...". They are
    written together, because some are only on while others are.
    """

    device: str
    short: str

    @property
    def name(self) -> str:
        return f"offload:{self.device}:{self.short}"

    @property
    def title(self) -> str:
        return f"{self.device} offload {self.short}"

    @property
    def interface(self) -> str:
        return self.device

    def read(self, access: Access) -> str:
        features = ethtool.features(access.generic(), self.device)
        value = offload_value(features, self.short)
        if not value:
            raise OSError(errno.EOPNOTSUPP, f"{self.device} cannot switch {self.short}")
        return value

    def write(self, access: Access, value: str) -> None:
        ethtool.set_features(access.generic(), self.device, _switches(value))

    def shell(self, value: str) -> str:
        words = [f"{name} {'on' if on else 'off'}" for name, on in sorted(_switches(value).items())]
        return f"ethtool -K {shlex.quote(self.device)} {' '.join(words)}"

    def same(self, one: str, other: str) -> bool:
        return _switches(one) == _switches(other)

    def show(self, value: str) -> str:
        states = set(_switches(value).values())
        return value if len(states) != 1 else "on" if states.pop() else "off"


def offload_value(
    features: Mapping[str, ethtool.Feature], short: str, on: bool | None = None
) -> str:
    """The value of an offload as it is, or with `on` as it would be; "" if none can be switched."""
    pattern = ethtool.SHORT_NAMES.get(short, short)
    return " ".join(
        f"{name}={'on' if (feature.active if on is None else on) else 'off'}"
        for name, feature in sorted(features.items())
        if fnmatch.fnmatch(name, pattern) and feature.changeable
    )


def _switches(value: str) -> dict[str, bool]:
    found = {}
    for word in value.split():
        name, _, state = word.partition("=")
        if not re.fullmatch(r"[a-z0-9_-]{1,64}", name) or state not in ("on", "off"):
            raise ValueError(f"{word[:80]!r} is no offload that is on or off")
        found[name] = state == "on"
    return found


@dataclass(frozen=True)
class RssTable(Target):
    """Which queue each value of the RSS hash goes to."""

    device: str

    @property
    def name(self) -> str:
        return f"rss:{self.device}"

    @property
    def title(self) -> str:
        return f"{self.device} RSS table"

    @property
    def interface(self) -> str:
        return self.device

    def read(self, access: Access) -> str:
        return _fold(ethtool.rss(access.generic(), self.device).indirection)

    def write(self, access: Access, value: str) -> None:
        ethtool.set_indirection(self.device, _unfold(value))

    def shell(self, value: str) -> str:
        table = _unfold(value)
        queues = max(table, default=0) + 1
        if table == [at % queues for at in range(len(table))]:
            return f"ethtool -X {shlex.quote(self.device)} equal {queues}"
        weights = " ".join(str(table.count(queue)) for queue in range(queues))
        return f"ethtool -X {shlex.quote(self.device)} weight {weights}"

    def same(self, one: str, other: str) -> bool:
        return _unfold(one) == _unfold(other)


@dataclass(frozen=True)
class Service(Target):
    """Whether a service of systemd's runs: "active" or "inactive"."""

    unit: str

    @property
    def name(self) -> str:
        return f"service:{self.unit}"

    @property
    def title(self) -> str:
        return f"service {self.unit}"

    @property
    def is_host_wide(self) -> bool:
        return True

    def read(self, access: Access) -> str:
        answer = self._systemctl("is-active")
        # Its status says the same as its word; "failed" and others are not running either.
        return "active" if answer.stdout.strip() in ("active", "activating") else "inactive"

    def write(self, access: Access, value: str) -> None:
        answer = self._systemctl("start" if value == "active" else "stop")
        if answer.returncode != 0:
            raise OSError(errno.EIO, f"systemctl could not do it: {answer.stderr.strip()}")

    def shell(self, value: str) -> str:
        return f"systemctl {'start' if value == 'active' else 'stop'} {self.unit}"

    def _systemctl(self, verb: str) -> subprocess.CompletedProcess[str]:
        program = shutil.which("systemctl")
        if program is None:
            raise OSError(errno.ENOENT, f"there is no systemctl to {verb} {self.unit} with")
        try:
            return subprocess.run(
                [program, verb, self.unit], capture_output=True, text=True, timeout=60, check=False
            )
        except subprocess.TimeoutExpired:
            raise OSError(
                errno.ETIMEDOUT, f"systemctl {verb} {self.unit} did not end within 60 s"
            ) from None


_GROUPS: dict[str, tuple[Callable[..., object], Callable[..., None], str]] = {
    "ring": (ethtool.rings, ethtool.set_rings, "-G"),
    "channels": (ethtool.channels, ethtool.set_channels, "-L"),
    "coalesce": (ethtool.coalescing, ethtool.set_coalescing, "-C"),
}
_SETTINGS = {
    "ring": ("rx", "tx"),
    "channels": ("rx", "tx", "combined"),
    "coalesce": ("rx-usecs", "rx-frames", "tx-usecs", "tx-frames", "adaptive-rx", "adaptive-tx"),
}


def parse(name: str) -> Target:
    """The target of a name. Raises `ValueError` for one that may not be written."""
    kind, _, rest = name.partition(":")
    if kind == "sysctl" and (_SYSCTL.fullmatch(rest) or rest in OF_MACHINE):
        path_of(rest)
        return Sysctl(rest)
    if kind == "file":
        for pattern, form in _FILES:
            if re.fullmatch(pattern, rest) and "/../" not in rest:
                return File(rest, form)
    if kind == "rss" and re.fullmatch(_INTERFACE, rest):
        return RssTable(rest)
    if kind == "service" and rest in _SERVICES:
        return Service(rest)
    device, _, setting = rest.partition(":")
    if re.fullmatch(_INTERFACE, device):
        if setting in _SETTINGS.get(kind, ()):
            return Driver(kind, device, setting)
        if kind == "offload" and re.fullmatch(r"[a-z0-9_-]{1,64}", setting):
            return Offload(device, setting)
    raise ValueError(f"{name[:80]!r} is nothing that Millrace writes")


def is_known(name: str) -> bool:
    """Whether something of this name may be written."""
    try:
        parse(name)
    except ValueError:
        return False
    return True


def _switch(value: bool) -> str:
    return "on" if value else "off"


def _fold(table: tuple[int, ...]) -> str:
    """Queue numbers in order, a run of one queue as `3*128`."""
    parts: list[str] = []
    at = 0
    while at < len(table):
        end = at
        while end < len(table) and table[end] == table[at]:
            end += 1
        parts.append(str(table[at]) if end - at == 1 else f"{table[at]}*{end - at}")
        at = end
    return " ".join(parts)


def _unfold(text: str) -> list[int]:
    table: list[int] = []
    for word in text.split():
        queue, _, times = word.partition("*")
        table += [int(queue)] * int(times or 1)
        if len(table) > 1 << 16:
            raise ValueError("an RSS table of more than 65536 entries")
    return table
