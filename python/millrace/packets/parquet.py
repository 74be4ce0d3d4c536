"""Tables of headers in Parquet files. It takes pyarrow (`pip install millrace[parquet]`).

The index of a Parquet file is at its end, so a file is complete only once it is closed. Until then
it is called `NAME.part`, and what is called `NAME` is whole, whatever happened. With a size or a
time after which the next file is begun, a machine that stops loses one file at most.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

_LEAST_BYTES = 64 << 10


class HeaderFiles:
    """Writes tables of headers to a file, or to several that follow one another."""

    def __init__(
        self,
        path: Path,
        *,
        rotate_bytes: int | None = None,
        rotate_seconds: float | None = None,
        keep: int | None = None,
        about: dict[str, str] | None = None,
    ) -> None:
        """Begin the first file. `about` is kept in the file's metadata.

        Raises ImportError without pyarrow, ValueError for limits that make no sense, OSError.
        """
        self._arrow, self._parquet = _pyarrow()
        if rotate_bytes is not None and rotate_bytes < _LEAST_BYTES:
            raise ValueError(
                f"a file that is followed by the next has {_LEAST_BYTES} bytes at least, "
                f"not {rotate_bytes}"
            )
        rotates = rotate_bytes is not None or rotate_seconds is not None
        if keep is not None and (keep < 1 or not rotates):
            raise ValueError(
                "a number of files to keep is 1 or more, and takes a size or a time after which "
                "the next is begun"
            )
        self._path = path
        self._bytes = rotate_bytes
        self._span = None if rotate_seconds is None else round(rotate_seconds * 1e9)
        self._keep = keep
        self._about = about or {}
        self._rotates = rotates
        self._names: deque[Path] = deque()
        self._first: int | None = None
        #: Files that were begun, and bytes of those that were ended.
        self.begun = 0
        self.written = 0
        self._begin()

    def write(self, table: npt.NDArray[np.void]) -> None:
        """Add rows.

        Raises OSError; the file that was open is then incomplete, those before it are whole.
        """
        while len(table):
            here = self._belong_here(table)
            if here == 0:
                self._end({})
                self._begin()
                continue
            self._first = int(table["timestamp"][0]) if self._first is None else self._first
            batch = self._arrow.record_batch(columns(self._arrow, table[:here]))
            self._writer.write_batch(batch.cast(self._schema), row_group_size=here)
            table = table[here:]

    def close(self, counts: dict[str, int]) -> None:
        """End the last file; `counts` are kept in its metadata."""
        if self._writer is not None:
            self._end({name: str(count) for name, count in counts.items()})

    def _belong_here(self, table: npt.NDArray[np.void]) -> int:
        """How many of the first rows belong into the file that is open."""
        if self._first is None:
            return len(table)
        if self._bytes is not None and self._sink.tell() >= self._bytes:
            return 0
        if self._span is None:
            return len(table)
        later = table["timestamp"] >= self._first + self._span
        return int(later.argmax()) if later.any() else len(table)

    def _begin(self) -> None:
        self.begun += 1
        path = self._path
        if self._rotates:
            path = path.with_name(f"{path.stem}-{self.begun:05}{path.suffix}")
        self._whole = path
        self._part = path.with_name(path.name + ".part")
        self._schema = _schema(self._arrow, self._about)
        try:
            self._sink = self._arrow.OSFile(os.fspath(self._part), "wb")
        except OSError as error:
            raise OSError(error.errno, f"{path}: cannot be written: {error.strerror}") from None
        self._writer: Any = self._parquet.ParquetWriter(
            self._sink, self._schema, compression="zstd", compression_level=1
        )
        self._first = None

    def _end(self, about: dict[str, str]) -> None:
        writer, self._writer = self._writer, None
        with contextlib.closing(self._sink):
            if about:
                writer.add_key_value_metadata(about)
            writer.close()
            self.written += self._sink.tell()
        self._part.replace(self._whole)
        self._names.append(self._whole)
        # The one that is begun next is among those that are kept.
        while self._keep is not None and len(self._names) > self._keep:
            self._names.popleft().unlink(missing_ok=True)


def columns(arrow: Any, table: npt.NDArray[np.void]) -> dict[str, Any]:
    """The columns of a table of headers, its addresses as text as well."""
    names = table.dtype.names or ()
    found = {name: arrow.array(np.ascontiguousarray(table[name])) for name in names}
    found["timestamp"] = found["timestamp"].cast(arrow.timestamp("ns", tz="UTC"))
    for side in ("source", "destination"):
        found[side] = _addresses(arrow, table, side)
    return found


def _addresses(arrow: Any, table: npt.NDArray[np.void], side: str) -> Any:
    """IP addresses as text, each text once."""
    from ipaddress import IPv4Address, IPv6Address

    key = np.empty(len(table), dtype=[("version", "u1"), ("high", "u8"), ("low", "u8")])
    is_v6 = table["ip_version"] == 6
    key["version"] = table["ip_version"]
    key["high"] = np.where(is_v6, table[f"{side}_ipv6_high"], 0)
    key["low"] = np.where(is_v6, table[f"{side}_ipv6_low"], table[f"{side}_ipv4"])
    distinct, places = np.unique(key, return_inverse=True)
    texts: list[str | None] = []
    for version, high, low in distinct.tolist():
        if version == 6:
            texts.append(str(IPv6Address(high << 64 | low)))
        else:
            texts.append(str(IPv4Address(low)) if version == 4 or low else None)
    indices = arrow.array(places.reshape(-1).astype(np.int32))
    return arrow.DictionaryArray.from_arrays(indices, arrow.array(texts, arrow.string()))


def _schema(arrow: Any, about: dict[str, str]) -> Any:
    from millrace._native.packets import HEADER_FIELDS

    kinds = {kind: arrow.from_numpy_dtype(np.dtype(kind)) for _, kind, _ in HEADER_FIELDS}
    fields = [
        (name, arrow.timestamp("ns", tz="UTC") if name == "timestamp" else kinds[kind])
        for name, kind, _ in HEADER_FIELDS
    ]
    text = arrow.dictionary(arrow.int32(), arrow.string())
    fields += [("source", text), ("destination", text)]
    return arrow.schema(fields, metadata={f"millrace.{name}": text for name, text in about.items()})


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow  # type: ignore[import-untyped]
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            "a Parquet file takes pyarrow, which is not installed: pip install millrace[parquet]; "
            "or write .pcapng"
        ) from error
    return pyarrow, parquet
