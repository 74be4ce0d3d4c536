"""The tables that a Millrace process shows: names, kinds of columns and rows in one run of bytes.

What wrote them may be any program of any user, so every length is checked and bounded. The layout
is described in crates/watch/src/table.rs.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

#: An address with a port. (None: there is none, as the peer of a socket that has no peer.)
Address = tuple[str, int]
Cell = int | str | Address | None

_NUMBER, _TEXT, _ADDRESS = range(3)
_FAMILIES = {0: 0, 4: 4, 6: 16}

#: A row takes a byte at least for each column; this bounds what a lying count of rows can cost.
MOST_ROWS = 1 << 20


@dataclass(frozen=True)
class Table:
    """Rows under names of columns."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    #: Of how many rows these are a part.
    total: int

    def __iter__(self) -> Iterator[dict[str, Cell]]:
        return (dict(zip(self.columns, row, strict=True)) for row in self.rows)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_done(self) -> bool:
        return self._at == len(self._data)

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise ValueError(
                f"a table is cut: {count} bytes wanted at {self._at} of {len(self._data)}"
            )
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def text(self) -> str:
        # What a process says of itself is shown in terminals: no control characters.
        text = self.take(self.number(1)).decode("utf-8", "replace")
        return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)

    def address(self) -> Address | None:
        family = self.number(1)
        if family not in _FAMILIES:
            raise ValueError(f"an address of a table is of family {family}")
        packed = self.take(_FAMILIES[family])
        port = self.number(2)
        return (str(ipaddress.ip_address(packed)), port) if packed else None

    def cell(self, kind: int) -> Cell:
        if kind == _NUMBER:
            return self.number(8)
        return self.text() if kind == _TEXT else self.address()


def parse(data: bytes) -> list[Table]:
    """Read tables that stand one after the other.

    Raises ValueError for what is cut or makes no sense.
    """
    reader = _Reader(data)
    tables = []
    while not reader.is_done:
        tables.append(_table(reader))
    return tables


def _table(reader: _Reader) -> Table:
    name = reader.text()
    kinds = []
    columns = []
    for _ in range(reader.number(1)):
        kind = reader.number(1)
        if kind > _ADDRESS:
            raise ValueError(f"table {name!r} has a column of kind {kind}")
        kinds.append(kind)
        columns.append(reader.text())
    count, total = reader.number(4), reader.number(4)
    if count > MOST_ROWS or (count and not kinds):
        raise ValueError(f"table {name!r} claims to have {count} rows of {len(kinds)} columns")
    if len(set(columns)) != len(columns):
        raise ValueError(f"table {name!r} has two columns of one name")
    rows = tuple(tuple(reader.cell(kind) for kind in kinds) for _ in range(count))
    return Table(name, tuple(columns), rows, max(total, count))
