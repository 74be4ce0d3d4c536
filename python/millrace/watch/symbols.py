"""Names of places in the kernel, from /proc/kallsyms.

The file has some 150,000 lines, so it is read once, when the first name is asked for.
"""

from __future__ import annotations

import bisect

_TEXT = frozenset("tTwW")


class Symbols:
    """Finds the function that an address lies in."""

    def __init__(self, path: str = "/proc/kallsyms") -> None:
        self._path = path
        self._addresses: list[int] | None = None
        self._names: list[str] = []

    def name(self, address: int) -> str:
        """`function+0x12`, or the address where the kernel hides its names (kptr_restrict)."""
        if self._addresses is None:
            self._read()
        assert self._addresses is not None
        at = bisect.bisect_right(self._addresses, address) - 1
        if at < 0 or self._addresses[at] == 0:
            return f"{address:#x}"
        return f"{self._names[at]}+{address - self._addresses[at]:#x}"

    def function(self, address: int) -> str:
        """The function alone."""
        return self.name(address).partition("+")[0]

    def _read(self) -> None:
        found = []
        try:
            with open(self._path, encoding="ascii", errors="replace") as file:
                for line in file:
                    # ffffffff81000000 T _text [module]
                    if len(line) > 19 and line[17] in _TEXT:
                        found.append((int(line[:16], 16), line[19:].split(None, 1)[0]))
        except (OSError, ValueError, IndexError):
            found = []
        found.sort()
        self._addresses = [address for address, _ in found]
        self._names = [name for _, name in found]
