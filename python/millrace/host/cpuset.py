"""Sets of CPUs as the kernel writes them: lists (`0-3,8`) and masks (`ff,00000001`).

See cpuset(7), "FORMATS".
"""

from __future__ import annotations

from collections.abc import Iterable

#: No kernel has more CPUs than this (CONFIG_NR_CPUS).
MAX_CPUS = 8192


def parse_list(text: str) -> frozenset[int]:
    """The CPUs of a list; an empty text is no CPU. Raises `ValueError`."""
    found: set[int] = set()
    for part in text.strip().split(","):
        if not part:
            continue
        first, dash, last = part.partition("-")
        low = _cpu(first)
        found.update(range(low, (_cpu(last) if dash else low) + 1))
    return frozenset(found)


def format_list(cpus: Iterable[int]) -> str:
    """The list of some CPUs, ranges joined."""
    parts: list[str] = []
    ordered = sorted(set(cpus))
    at = 0
    while at < len(ordered):
        end = at
        while end + 1 < len(ordered) and ordered[end + 1] == ordered[end] + 1:
            end += 1
        parts.append(str(ordered[at]) if at == end else f"{ordered[at]}-{ordered[end]}")
        at = end + 1
    return ",".join(parts)


def parse_mask(text: str) -> frozenset[int]:
    """The CPUs of a hexadecimal mask, with or without commas. Raises `ValueError`."""
    digits = text.strip().replace(",", "")
    if len(digits) > MAX_CPUS // 4:
        raise ValueError(f"a mask of {len(digits)} digits is for more than {MAX_CPUS} CPUs")
    bits = int(digits or "0", 16)
    return frozenset(cpu for cpu in range(bits.bit_length()) if bits >> cpu & 1)


def format_mask(cpus: Iterable[int]) -> str:
    """The mask of some CPUs, in groups of 32 bits as the kernel wants them."""
    bits = sum(1 << cpu for cpu in set(cpus))
    groups: list[int] = []
    while bits or not groups:
        groups.append(bits & 0xFFFF_FFFF)
        bits >>= 32
    head, *rest = reversed(groups)
    return ",".join([f"{head:x}", *(f"{group:08x}" for group in rest)])


def _cpu(text: str) -> int:
    number = int(text, 10)
    if not 0 <= number < MAX_CPUS:
        raise ValueError(f"{number} is no CPU of 0 to {MAX_CPUS - 1}")
    return number
