"""Maps that live in this process: what stands in for the kernel's until a program is loaded."""

from __future__ import annotations

import errno
import sys
from typing import Literal, Protocol

_ORDER: Literal["little", "big"] = sys.byteorder

# Kinds of enum bpf_map_type.
HASH = 1
ARRAY = 2
PERCPU_HASH = 5
PERCPU_ARRAY = 6
LRU_HASH = 9
LRU_PERCPU_HASH = 10
LPM_TRIE = 11
DEVMAP = 14
CPUMAP = 16
XSKMAP = 17

ARRAYS = (ARRAY, PERCPU_ARRAY)
REDIRECTS = (DEVMAP, CPUMAP, XSKMAP)
LRU = (LRU_HASH, LRU_PERCPU_HASH)
PER_CPU = (PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH)

ANY, INSERT, REPLACE = 0, 1, 2


class Store(Protocol):
    """A map of bytes: the kernel's (`_native.XdpMap`) or a stand-in."""

    def get(self, key: bytes) -> bytes | None: ...
    def set(self, key: bytes, value: bytes, mode: int = 0) -> None: ...
    def delete(self, key: bytes) -> bool: ...
    def keys(self) -> list[bytes]: ...
    def items(self) -> list[tuple[bytes, bytes]]: ...


class StandIn:
    """A map of one kind in a dict, with the kernel's rules and its errors.

    Where the kernel's LRU map drops an entry that was not used for long, this drops the one that
    was not used for longest.
    """

    def __init__(self, kind: int, key_size: int, value_size: int, entries: int) -> None:
        self._kind = kind
        self._value_size = value_size
        self._entries = entries
        #: Of an array only what was written; the rest is zero.
        self._values: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        if self._kind == LPM_TRIE:
            return self._longest(key)
        value = self._values.get(key)
        if self._kind in ARRAYS and value is None:
            inside = int.from_bytes(key, _ORDER) < self._entries
            return bytes(self._value_size) if inside else None
        if value is not None and self._kind in LRU:
            self._values[key] = self._values.pop(key)
        return value

    def _longest(self, key: bytes) -> bytes | None:
        length = int.from_bytes(key[:4], _ORDER)
        while length >= 0:
            value = self._values.get(prefix_key(length, key[4:]))
            if value is not None:
                return value
            length -= 1
        return None

    def set(self, key: bytes, value: bytes, mode: int = ANY) -> None:
        if self._kind == LPM_TRIE:
            key = prefix_key(int.from_bytes(key[:4], _ORDER), key[4:])
        there = self.get(key) is not None if self._kind in ARRAYS else key in self._values
        if mode == INSERT and there:
            raise FileExistsError(errno.EEXIST, "the key is there already")
        if mode == REPLACE and not there:
            raise FileNotFoundError(errno.ENOENT, "there is no such key")
        if not there:
            if self._kind in (*ARRAYS, *REDIRECTS):
                if int.from_bytes(key, _ORDER) >= self._entries:
                    raise OSError(errno.E2BIG, "the index is too large")
            elif len(self._values) >= self._entries:
                if self._kind not in LRU:
                    full = errno.ENOSPC if self._kind == LPM_TRIE else errno.E2BIG
                    raise OSError(full, "the map is full")
                del self._values[next(iter(self._values))]
        elif self._kind in LRU:
            del self._values[key]
        self._values[key] = value

    def delete(self, key: bytes) -> bool:
        if self._kind in ARRAYS:
            raise OSError(errno.EINVAL, "an array keeps all its entries")
        if self._kind == LPM_TRIE:
            key = prefix_key(int.from_bytes(key[:4], _ORDER), key[4:])
        return self._values.pop(key, None) is not None

    def keys(self) -> list[bytes]:
        if self._kind in ARRAYS:
            return [index.to_bytes(4, _ORDER) for index in range(self._entries)]
        return list(self._values)

    def items(self) -> list[tuple[bytes, bytes]]:
        if self._kind in ARRAYS:
            return [(key, self.get(key) or b"") for key in self.keys()]
        return list(self._values.items())

    def written(self) -> list[tuple[bytes, bytes]]:
        """What was written and is there still, which is what has to be written elsewhere."""
        return list(self._values.items())


def prefix_key(length: int, address: bytes) -> bytes:
    """The key of a prefix in a longest-prefix map: its length, and its bits, the others zero."""
    bits = 8 * len(address)
    number = int.from_bytes(address, "big") >> (bits - length) << (bits - length)
    return length.to_bytes(4, _ORDER) + number.to_bytes(len(address), "big")
