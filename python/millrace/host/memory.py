"""Memory: free, swapped, in hugepages, and whether programs wait for it.

proc_meminfo(5), Documentation/admin-guide/mm/hugetlbpage.rst, transhuge.rst, accounting/psi.rst.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from millrace.host.access import Access
from millrace.host.files import Files
from millrace.host.unavailable import NotAvailable, Reading, Unavailable


@dataclass(frozen=True, slots=True)
class Hugepages:
    """The pool of one size on one NUMA node, or on all with node -1."""

    node: int
    page_bytes: int
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Pressure:
    """How long programs waited for a resource: percent of the last ten seconds, and in all."""

    some_percent: float
    #: Microseconds since the machine started in which at least one program waited.
    some_total: int
    full_percent: float


@dataclass(frozen=True, slots=True)
class Memory:
    """The machine's memory, in bytes."""

    total: int
    available: int
    swap_total: int
    swap_free: int
    hugepages: tuple[Hugepages, ...]
    #: "always", "madvise" or "never".
    transparent_hugepages: Reading[str]
    page_bytes: int


def read_memory(access: Access) -> Memory:
    """The machine's memory."""
    files = access.files
    found = {}
    for line in files.read("/proc/meminfo").splitlines():
        if row := re.match(r"(\w+):\s+(\d+)( kB)?", line):
            found[row[1]] = int(row[2]) << (10 if row[3] else 0)
    transparent = files.text("/sys/kernel/mm/transparent_hugepage/enabled")
    if isinstance(transparent, str):
        chosen = re.search(r"\[(\w+)\]", transparent)
        transparent = chosen[1] if chosen else NotAvailable("no choice is marked")
    return Memory(
        total=found.get("MemTotal", 0),
        available=found.get("MemAvailable", 0),
        swap_total=found.get("SwapTotal", 0),
        swap_free=found.get("SwapFree", 0),
        hugepages=(
            *_pools(files, "/sys/kernel/mm/hugepages", -1),
            *(
                pool
                for name in files.names("/sys/devices/system/node")
                if re.fullmatch(r"node\d+", name)
                for pool in _pools(
                    files, f"/sys/devices/system/node/{name}/hugepages", int(name[4:])
                )
            ),
        ),
        transparent_hugepages=transparent,
        page_bytes=4096 if not access.is_live else _page_bytes(),
    )


def read_pressure(access: Access) -> Mapping[str, Pressure]:
    """Of "cpu", "memory" and "io", what the kernel tells."""
    found = {}
    missing = NotAvailable("the kernel tells no pressure")
    for resource in ("cpu", "memory", "io"):
        text = access.files.text(f"/proc/pressure/{resource}")
        if isinstance(text, NotAvailable):
            missing = text
            continue
        some = re.search(r"^some avg10=([\d.]+).* total=(\d+)", text, re.MULTILINE)
        full = re.search(r"^full avg10=([\d.]+)", text, re.MULTILINE)
        if some:
            found[resource] = Pressure(
                float(some[1]), int(some[2]), float(full[1]) if full else 0.0
            )
    if not found:
        raise Unavailable(missing)
    return found


def _pools(files: Files, base: str, node: int) -> list[Hugepages]:
    found = []
    for name in files.names(base):
        size = re.fullmatch(r"hugepages-(\d+)kB", name)
        total = files.number(f"{base}/{name}/nr_hugepages")
        free = files.number(f"{base}/{name}/free_hugepages")
        if size and isinstance(total, int) and isinstance(free, int):
            found.append(Hugepages(node, int(size[1]) << 10, total, free))
    return found


def _page_bytes() -> int:
    import mmap

    return mmap.PAGESIZE
