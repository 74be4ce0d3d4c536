"""Interrupts, by device.

An interrupt belongs to an interface because the interface's device, or one above it, lists it: in
`msi_irqs` or in `irq` of sysfs. What /proc/interrupts calls it is only a label, since drivers name
them as they like.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass

from millrace.host.access import Access
from millrace.host.cpuset import parse_list
from millrace.host.files import Files
from millrace.host.unavailable import NotAvailable, Reading


@dataclass(frozen=True, slots=True)
class Irq:
    """One interrupt of a device."""

    number: int
    #: The interfaces of the device; several where one device has several ports.
    interfaces: tuple[str, ...]
    #: What the driver calls it.
    label: str
    #: How often each CPU took it.
    counts: Mapping[int, int]
    #: CPUs that it may go to, and those it does go to.
    affinity: Reading[tuple[int, ...]]
    effective: Reading[tuple[int, ...]]

    @property
    def total(self) -> int:
        """How often it was taken."""
        return sum(self.counts.values())


def read_irqs(access: Access) -> tuple[Irq, ...]:
    """The interrupts of the devices of this namespace's interfaces."""
    files = access.files
    owners: dict[int, list[str]] = {}
    for name in sorted(access.interfaces()):
        for number in irqs_of(files, name):
            owners.setdefault(number, []).append(name)
    if not owners:
        return ()
    counts, labels = _parse_interrupts(files.read("/proc/interrupts"))
    return tuple(
        Irq(
            number=number,
            interfaces=tuple(names),
            label=labels.get(number, ""),
            counts=counts.get(number, {}),
            affinity=_list(files, f"/proc/irq/{number}/smp_affinity_list"),
            effective=_list(files, f"/proc/irq/{number}/effective_affinity_list"),
        )
        for number, names in sorted(owners.items())
    )


def irqs_of(files: Files, interface: str) -> list[int]:
    """The numbers of the interrupts of an interface's device; none for a virtual one."""
    for folder in device_and_above(files, interface):
        found = [int(name) for name in files.names(f"{folder}/msi_irqs") if name.isdecimal()]
        if found:
            return sorted(found)
        single = files.number(f"{folder}/irq")
        if isinstance(single, int) and single > 0:
            return [single]
    return []


def device_and_above(files: Files, interface: str) -> list[str]:
    """The folder of an interface's device in sysfs, and of those it sits on, nearest first."""
    # `device` is written relative to the real folder, not to the link in /sys/class/net.
    here = files.target(f"/sys/class/net/{interface}")
    folder = None if here is None else files.target(f"{here}/device")
    if folder is None:
        return []
    found = []
    while folder.startswith("/sys/devices/") and folder.count("/") > 3:
        found.append(folder)
        folder = posixpath.dirname(folder)
    return found


_ROW = re.compile(r"\s*(\d+):((?:\s+\d+)+)\s*(.*)")


def _parse_interrupts(text: str) -> tuple[dict[int, dict[int, int]], dict[int, str]]:
    """Counts for each CPU, and the label, of each numbered interrupt."""
    lines = text.splitlines()
    cpus = [int(word[3:]) for word in lines[0].split() if word[3:].isdecimal()] if lines else []
    counts: dict[int, dict[int, int]] = {}
    labels: dict[int, str] = {}
    for line in lines[1:]:
        if row := _ROW.match(line):
            number = int(row[1])
            counts[number] = dict(zip(cpus, map(int, row[2].split()), strict=False))
            # The chip, its number and the trigger come first; the driver's words are last.
            labels[number] = row[3].split()[-1] if row[3] else ""
    return counts, labels


def _list(files: Files, path: str) -> Reading[tuple[int, ...]]:
    text = files.text(path)
    if isinstance(text, NotAvailable):
        return text
    try:
        return tuple(sorted(parse_list(text)))
    except ValueError as error:
        return NotAvailable(f"{path}: {error}")
