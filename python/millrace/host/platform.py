"""The kernel, the hypervisor, the bus, and what this user may do."""

from __future__ import annotations

import gzip
import os
import re
import resource
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from posixpath import basename

from millrace.host.access import Access
from millrace.host.irq import device_and_above
from millrace.host.unavailable import NotAvailable, Reading

#: capabilities(7): what each one that concerns Millrace unlocks.
CAPABILITIES: Mapping[str, tuple[int, str]] = {
    "CAP_NET_BIND_SERVICE": (10, "ports below 1024"),
    "CAP_NET_ADMIN": (12, "settings of interfaces, attaching XDP, all counters of sockets"),
    "CAP_NET_RAW": (13, "packet and AF_XDP sockets"),
    "CAP_IPC_LOCK": (14, "more locked memory than the limit allows, hugepages"),
    "CAP_SYS_PTRACE": (19, "the owners of other users' sockets"),
    "CAP_SYS_ADMIN": (21, "network namespaces, and with older kernels BPF"),
    "CAP_SYS_NICE": (23, "real-time priority and other processes' affinity"),
    "CAP_SYS_RESOURCE": (24, "limits above the hard ones"),
    "CAP_PERFMON": (38, "tracepoints, and so the reasons of drops"),
    "CAP_BPF": (39, "loading BPF programs"),
}

#: Kernel options that a part of Millrace needs.
OPTIONS: Mapping[str, str] = {
    "CONFIG_BPF_SYSCALL": "XDP programs",
    "CONFIG_DEBUG_INFO_BTF": "the names of drop reasons",
    "CONFIG_INET_DIAG": "sockets and their tcp_info",
    "CONFIG_INET_UDP_DIAG": "UDP sockets",
    "CONFIG_IO_URING": "the kernel engine",
    "CONFIG_NET_RX_BUSY_POLL": "busy polling",
    "CONFIG_PACKET": "AF_PACKET ports",
    "CONFIG_PACKET_DIAG": "the drops of packet sockets",
    "CONFIG_PSI": "pressure",
    "CONFIG_RPS": "Receive Packet Steering",
    "CONFIG_TRACEPOINTS": "the reasons of drops",
    "CONFIG_TUN": "TAP ports",
    "CONFIG_XDP_SOCKETS": "AF_XDP ports",
    "CONFIG_XDP_SOCKETS_DIAG": "the counters of others' AF_XDP sockets",
    "CONFIG_XPS": "Transmit Packet Steering",
}

_MAX_CONFIG_BYTES = 4 << 20
_PCI = re.compile(r"[0-9a-f]{4,}(:[0-9a-f]{2}){2}\.\d")


@dataclass(frozen=True, slots=True)
class Kernel:
    """The kernel that runs."""

    release: str
    command_line: Reading[str]
    #: Of `OPTIONS`: "y", "m" or "n".
    options: Reading[Mapping[str, str]]
    has_btf: bool


@dataclass(frozen=True, slots=True)
class Platform:
    """What the machine is."""

    #: "" for no hypervisor, otherwise its name or "unknown".
    hypervisor: str
    product: str


@dataclass(frozen=True, slots=True)
class Privileges:
    """What this process may do."""

    uid: int
    #: The effective capabilities among `CAPABILITIES`.
    capabilities: tuple[str, ...]
    #: Soft limits; None for no limit.
    locked_bytes: int | None
    open_files: int | None


@dataclass(frozen=True, slots=True)
class Bus:
    """Where an interface's device sits."""

    interface: str
    #: "0000:03:00.0", or "" for what is on no PCI bus.
    pci: str
    #: -1 for a device that belongs to no node.
    node: int
    link_speed: Reading[str]
    link_speed_max: Reading[str]
    link_width: Reading[int]
    link_width_max: Reading[int]


def read_kernel(access: Access) -> Kernel:
    """The kernel that runs."""
    release = access.files.text("/proc/sys/kernel/osrelease")
    return Kernel(
        release=release if isinstance(release, str) else "",
        command_line=access.files.text("/proc/cmdline"),
        options=_options(access),
        has_btf=access.files.exists("/sys/kernel/btf/vmlinux"),
    )


def read_platform(access: Access) -> Platform:
    """What the machine is."""
    files = access.files
    cpuinfo = files.text("/proc/cpuinfo")
    virtual = isinstance(cpuinfo, str) and re.search(r"^flags.*\bhypervisor\b", cpuinfo, re.M)
    kind = files.text("/sys/hypervisor/type")
    vendor = files.text("/sys/class/dmi/id/sys_vendor")
    product = files.text("/sys/class/dmi/id/product_name")
    name = ""
    if isinstance(kind, str):
        name = kind
    elif virtual:
        name = vendor if isinstance(vendor, str) and vendor else "unknown"
    return Platform(hypervisor=name, product=product if isinstance(product, str) else "")


def read_privileges(access: Access) -> Privileges:
    """What this process may do."""
    bits = 0
    for line in access.files.read("/proc/self/status").splitlines():
        if line.startswith("CapEff:"):
            bits = int(line.split()[1], 16)
    return Privileges(
        uid=os.geteuid(),
        capabilities=tuple(name for name, (bit, _) in CAPABILITIES.items() if bits >> bit & 1),
        locked_bytes=_limit(resource.RLIMIT_MEMLOCK),
        open_files=_limit(resource.RLIMIT_NOFILE),
    )


def read_buses(access: Access) -> tuple[Bus, ...]:
    """Every interface that has a device."""
    files = access.files
    found = []
    for name in sorted(access.interfaces()):
        folders = device_and_above(files, name)
        if not folders:
            continue
        pci = next((folder for folder in folders if _PCI.fullmatch(basename(folder))), "")
        base = pci or folders[0]
        node = files.number(f"{base}/numa_node")
        found.append(
            Bus(
                interface=name,
                pci=basename(pci),
                node=node if isinstance(node, int) else -1,
                link_speed=files.text(f"{base}/current_link_speed"),
                link_speed_max=files.text(f"{base}/max_link_speed"),
                link_width=files.number(f"{base}/current_link_width"),
                link_width_max=files.number(f"{base}/max_link_width"),
            )
        )
    return tuple(found)


def _options(access: Access) -> Reading[Mapping[str, str]]:
    try:
        with open(access.files.path("/proc/config.gz"), "rb") as file:
            text = gzip.GzipFile(fileobj=file).read(_MAX_CONFIG_BYTES).decode(errors="replace")
    except (OSError, EOFError, zlib.error) as first:
        release = os.uname().release if access.is_live else ""
        try:
            with open(f"/boot/config-{release}", errors="replace") as config:
                text = config.read(_MAX_CONFIG_BYTES)
        except OSError:
            return NotAvailable(
                f"neither /proc/config.gz ({first}) nor /boot/config-{release} can be read"
            )
    found = dict(re.findall(r"^(CONFIG_\w+)=(\w+)$", text, re.MULTILINE))
    return {name: found.get(name, "n") for name in OPTIONS}


def _limit(which: int) -> int | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft
