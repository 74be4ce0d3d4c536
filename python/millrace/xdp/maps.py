"""Maps: what a program and Python both read and write.

A map is declared at the level of the module. Until a program that uses it is loaded, its entries
live in this process, and no privilege is needed; loading moves them into the kernel. Where there is
no entry, a map reads as 0, as `collections.Counter` does.
"""

from __future__ import annotations

import errno
import ipaddress
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from millrace.xdp import standin
from millrace.xdp.types import Address, Integer, Type, TypeLike, as_type, u32, u64
from millrace.xdp.verdict import PASS, REDIRECT, Verdict

#: More would not fit the kernel's 32 bits in bytes.
MOST_ENTRIES = 1 << 26
#: What a key may take; it lies on a program's stack of 512 bytes.
MOST_KEY_BYTES = 128
_NO_PREALLOC = 1
_NO_ROOM = (errno.E2BIG, errno.ENOSPC, errno.ENOMEM)


class Map:
    """What all maps have: a kind, a key, a value, room for so many entries, and a store."""

    #: A number of enum bpf_map_type.
    kind: int
    _flags = 0

    def __init__(
        self,
        key: Type,
        value: Type,
        entries: int,
        name: str | None,
        pinned: str | Path | None = None,
    ) -> None:
        if isinstance(entries, bool) or not isinstance(entries, int):
            raise TypeError(f"entries must be an int, not {type(entries).__name__}")
        if not 1 <= entries <= MOST_ENTRIES:
            raise ValueError(f"entries must be 1 to {MOST_ENTRIES}, not {entries}")
        if key.size > MOST_KEY_BYTES:
            raise ValueError(f"a key of {key.size} bytes is too large; at most {MOST_KEY_BYTES}")
        if name is not None and not name.isidentifier():
            raise ValueError(f"{name!r} is no name for a map; use letters, digits and _")
        self.key_type = key
        self.value_type = value
        self.entries = entries
        #: What the kernel calls it; by default the name of the variable that a program finds it by.
        self.name = name
        self._pinned = pinned
        self._cpus = 1
        self._store: standin.Store = standin.StandIn(
            self.kind, self.key_size, self.stride if self.per_cpu else value.size, entries
        )
        self._kernel: Any = None
        if pinned is not None:
            self.in_kernel()

    @property
    def key_size(self) -> int:
        """Bytes of a key in the kernel."""
        return self.key_type.size

    @property
    def per_cpu(self) -> bool:
        """Whether every CPU has a value of its own."""
        return self.kind in standin.PER_CPU

    @property
    def is_array(self) -> bool:
        """Whether keys are indices, all of which are always there."""
        return self.kind in standin.ARRAYS

    @property
    def stride(self) -> int:
        """Bytes from one CPU's value to the next one's."""
        return -(-self.value_type.size // 8) * 8

    def __repr__(self) -> str:
        where = "in the kernel" if self._kernel is not None else "not loaded"
        name = f" {self.name}" if self.name else ""
        return f"<{type(self).__name__}{name}: {self.key_type} to {self.value_type}, {where}>"

    def in_kernel(self) -> Any:
        """The kernel's map, made on the first call; what was in this process moves there.

        Raises PermissionError without CAP_BPF, OSError for what the kernel refuses.
        """
        if self._kernel is None:
            from millrace import _native

            name = self.name or type(self).__name__.lower()
            kernel = _native.XdpMap(
                self.kind,
                name,
                self.key_size,
                self.value_type.size,
                self.entries,
                self._flags,
                self._pinned,
            )
            cpus = _native.xdp_possible_cpus()
            assert isinstance(self._store, standin.StandIn)
            for key, value in self._store.written():
                kernel.set(key, value.ljust(self.stride * cpus, b"\0") if self.per_cpu else value)
            self._cpus = cpus
            self._kernel = self._store = kernel
        return self._kernel

    def fileno(self) -> int:
        """The kernel's map as a descriptor, which belongs to this object."""
        return int(self.in_kernel().fileno())

    def pin(self, path: str | Path) -> None:
        """Give the kernel's map a name in a BPF file system, so that it stays when this process
        ends; a map declared with `pinned=` that path opens it.
        """
        self.in_kernel().pin(str(path))

    # What a program does, on what a program holds: numbers, and tuples of them.

    def raw_key(self, key: Any) -> bytes:
        """The bytes of a key that a program holds."""
        return self.key_type.pack(key)

    def program_get(self, key: Any, default: Any = None) -> Any:
        """A program's read; None in an array means that the index is too large."""
        data = self._store.get(self.raw_key(key))
        if data is None:
            if default is not None:
                return default
            return None if self.is_array else self.value_type.unpack(bytes(self.value_type.size))
        return self.value_type.unpack(data[: self.value_type.size])

    def program_has(self, key: Any) -> bool:
        """A program's `in`."""
        return self._store.get(self.raw_key(key)) is not None

    def program_set(self, key: Any, value: Any) -> bool:
        """A program's write; False in an array means that the index is too large. In a full map the
        write is lost, as it is in the kernel.
        """
        return self._write(self.raw_key(key), self.value_type.pack(value))

    def program_change(self, key: Any, value: Any) -> None:
        """A program's write to a value that it has just read, or a new one where there was none."""
        self._write(self._found(self.raw_key(key)), self.value_type.pack(value))

    def _found(self, key: bytes) -> bytes:
        """The key that a look-up finds."""
        return key

    def _write(self, key: bytes, data: bytes) -> bool:
        if self.per_cpu:
            old = self._store.get(key) or bytes(self.stride * self._cpus)
            data = data.ljust(self.stride, b"\0") + old[self.stride :]
        try:
            self._store.set(key, data)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            return not self.is_array
        return True

    def program_delete(self, key: Any) -> None:
        """A program's `del`; what is not there is not missed."""
        self._store.delete(self.raw_key(key))


class _Values(Map):
    """A map whose values are numbers, addresses or tuples of them."""

    def _key_bytes(self, key: Any) -> bytes:
        return self.key_type.encode(key)

    def _key_value(self, data: bytes) -> Any:
        return self.key_type.decode(data)

    def _decode(self, data: bytes | None) -> Any:
        """A value as Python sees it; a per-CPU number is the sum over all CPUs."""
        if data is None:
            return self.value_type.decode(bytes(self.value_type.size))
        if self.per_cpu and isinstance(self.value_type, Integer):
            return sum(self._each_cpu(data))
        return self.value_type.decode(data[: self.value_type.size])

    def _each_cpu(self, data: bytes) -> list[Any]:
        size, stride = self.value_type.size, self.stride
        return [
            self.value_type.decode(data[at : at + size])
            for at in range(0, stride * self._cpus, stride)
        ]

    def _encode(self, value: Any) -> bytes:
        data = self.value_type.encode(value)
        return data.ljust(self.stride * self._cpus, b"\0") if self.per_cpu else data

    def __getitem__(self, key: Any) -> Any:
        return self._decode(self._store.get(self._key_bytes(key)))

    def __setitem__(self, key: Any, value: Any) -> None:
        """Write a value. In a per-CPU map the first CPU gets it and all others 0, so that the sum
        is right.
        """
        self._store.set(self._key_bytes(key), self._encode(value))

    def cpus(self, key: Any) -> list[Any]:
        """The value of each possible CPU, for per-CPU maps."""
        if not self.per_cpu:
            raise TypeError(f"{type(self).__name__} has one value for all CPUs")
        data = self._store.get(self._key_bytes(key))
        return self._each_cpu(data if data is not None else bytes(self.stride * self._cpus))


class _Mapping(_Values, MutableMapping[Any, Any]):
    """A map with keys that come and go."""

    def __init__(
        self,
        key: TypeLike,
        value: TypeLike = u64,
        entries: int = 1024,
        *,
        name: str | None = None,
        pinned: str | Path | None = None,
    ) -> None:
        super().__init__(as_type(key, "key"), as_type(value, "value"), entries, name, pinned)

    def __delitem__(self, key: Any) -> None:
        if not self._store.delete(self._key_bytes(key)):
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return self._store.get(self._key_bytes(key)) is not None

    def get(self, key: Any, default: Any = None) -> Any:
        data = self._store.get(self._key_bytes(key))
        return default if data is None else self._decode(data)

    def __iter__(self) -> Iterator[Any]:
        return map(self._key_value, self._store.keys())

    def __len__(self) -> int:
        return len(self._store.keys())

    # One call of the kernel's walk is cheaper than a walk and a look-up of each.
    def items(self) -> Any:
        return [(self._key_value(k), self._decode(v)) for k, v in self._store.items()]

    def clear(self) -> None:
        for key in list(self._store.keys()):
            self._store.delete(key)

    # A map is itself and no other, however equal their entries are.
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __bool__(self) -> bool:
        return True


class Hash(_Mapping):
    """A hash table: `Hash(IPv4)`, `Hash((IPv4, u16), value=u32, entries=65536)`. When it is full,
    new keys are not taken.
    """

    kind = standin.HASH


class LruHash(_Mapping):
    """A hash table that drops keys that were not used for long when it is full."""

    kind = standin.LRU_HASH


class PerCpuHash(_Mapping):
    """A hash table with a value for each CPU; Python reads a number as the sum of all."""

    kind = standin.PERCPU_HASH


class LruPerCpuHash(_Mapping):
    """As LruHash, with a value for each CPU."""

    kind = standin.LRU_PERCPU_HASH


class LpmTrie(_Mapping):
    """Longest prefix match on IPv4 or IPv6: `LpmTrie(IPv4)`. Python's keys are networks
    (`"10.0.0.0/8"`), a program's are addresses. Reading finds the longest prefix that covers the
    key; `del` takes exactly its own.
    """

    kind = standin.LPM_TRIE
    _flags = _NO_PREALLOC

    def __init__(
        self,
        key: TypeLike,
        value: TypeLike = u64,
        entries: int = 1024,
        *,
        name: str | None = None,
        pinned: str | Path | None = None,
    ) -> None:
        if not isinstance(key, Address) or key.name not in ("IPv4", "IPv6"):
            raise TypeError(f"the key of an LpmTrie is IPv4 or IPv6, not {key!r}")
        super().__init__(key, value, entries, name=name, pinned=pinned)

    @property
    def key_size(self) -> int:
        return 4 + self.key_type.size

    def raw_key(self, key: Any) -> bytes:
        return (8 * self.key_type.size).to_bytes(4, sys.byteorder) + self.key_type.pack(key)

    def _found(self, key: bytes) -> bytes:
        length = int.from_bytes(key[:4], sys.byteorder)
        keys = set(self._store.keys())
        for shorter in range(length, -1, -1):
            candidate = standin.prefix_key(shorter, key[4:])
            if candidate in keys:
                return candidate
        return key

    def _key_bytes(self, key: Any) -> bytes:
        network = ipaddress.ip_network(key)
        if network.max_prefixlen != 8 * self.key_type.size:
            raise TypeError(f"{self.key_type} takes networks of its family, not {network}")
        return standin.prefix_key(network.prefixlen, network.network_address.packed)

    def _key_value(self, data: bytes) -> Any:
        length = int.from_bytes(data[:4], sys.byteorder)
        return ipaddress.ip_network((data[4:], length))


class _Indexed(_Values):
    """A map whose keys are the numbers from 0, all of them there at any time."""

    def __init__(
        self,
        entries: int,
        value: TypeLike = u64,
        *,
        name: str | None = None,
        pinned: str | Path | None = None,
    ) -> None:
        super().__init__(u32, as_type(value, "value"), entries, name, pinned)

    def _key_bytes(self, key: Any) -> bytes:
        if isinstance(key, bool) or not isinstance(key, int):
            raise TypeError(f"an array's index is an int, not {type(key).__name__}")
        if not -self.entries <= key < self.entries:
            raise IndexError(f"{key} is outside the array of {self.entries}")
        return u32.pack(key % self.entries)

    def __len__(self) -> int:
        return self.entries

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(self.entries))


class Array(_Indexed):
    """An array: `Array(256)`, `Array(4, value=IPv4)`."""

    kind = standin.ARRAY


class PerCpuArray(_Indexed):
    """An array with a value for each CPU; Python reads a number as the sum of all."""

    kind = standin.PERCPU_ARRAY


class Counter(Map):
    """A number that a program adds to, with `add`, and that Python reads, with `value` or `int`.
    Every CPU counts for itself, so counting costs next to nothing.
    """

    kind = standin.PERCPU_ARRAY

    def __init__(self, *, name: str | None = None, pinned: str | Path | None = None) -> None:
        super().__init__(u32, u64, 1, name, pinned)

    @property
    def value(self) -> int:
        """The sum over all CPUs."""
        data = self._store.get(bytes(4)) or b""
        return sum(u64.unpack(data[at : at + 8]) for at in range(0, len(data), 8))

    def add(self, count: int = 1) -> None:
        """Count. In a program, `count` may be any number; it wraps at 64 bits."""
        data = bytearray(self._store.get(bytes(4)) or bytes(8))
        data[:8] = u64.pack(u64.unpack(bytes(data[:8])) + count)
        self._store.set(bytes(4), bytes(data))

    def reset(self) -> None:
        """Start again from 0."""
        self._store.set(bytes(4), bytes(8 * self._cpus))

    def __int__(self) -> int:
        return self.value

    def __index__(self) -> int:
        return self.value


class RedirectMap(Map):
    """A map whose entries frames can be redirected to."""

    def __init__(
        self, entries: int = 64, *, name: str | None = None, pinned: str | Path | None = None
    ) -> None:
        super().__init__(u32, u32, entries, name, pinned)

    def redirect(self, index: int, default: Verdict = PASS) -> Verdict:
        """In a program: send the frame to this entry, or return `default` where there is none."""
        return REDIRECT if self.program_has(index) else default

    def _index(self, index: Any) -> bytes:
        if isinstance(index, bool) or not isinstance(index, int):
            raise TypeError(f"the index is an int, not {type(index).__name__}")
        if not 0 <= index < self.entries:
            raise IndexError(f"{index} is outside this map of {self.entries}")
        return u32.pack(index)

    def __len__(self) -> int:
        return self.entries

    def __delitem__(self, index: int) -> None:
        """Take an entry away; frames for it then get the default. Nothing happens where there is
        none.
        """
        self._store.delete(self._index(index))

    def __contains__(self, index: object) -> bool:
        return self._store.get(self._index(index)) is not None


class DevMap(RedirectMap):
    """Interfaces to redirect to: `ports[0] = "eth1"`, by name or index."""

    kind = standin.DEVMAP

    def __setitem__(self, index: int, interface: str | int) -> None:
        from millrace.xdp.interface import index_of

        self._store.set(self._index(index), u32.pack(index_of(interface)))

    def __getitem__(self, index: int) -> int | None:
        """The interface's index, or None."""
        data = self._store.get(self._index(index))
        return None if data is None else u32.unpack(data)


class CpuMap(RedirectMap):
    """CPUs to redirect to: `cpus[1] = 2048` lets CPU 1 take frames, with a queue of that many."""

    kind = standin.CPUMAP

    def __setitem__(self, index: int, queue: int) -> None:
        self._store.set(self._index(index), u32.encode(queue))

    def __getitem__(self, index: int) -> int | None:
        """The length of the CPU's queue, or None."""
        data = self._store.get(self._index(index))
        return None if data is None else u32.unpack(data)


class XskMap(RedirectMap):
    """AF_XDP sockets to redirect to: `sockets[queue] = port`, for a port or anything with a
    `fileno` that is such a socket, bound to that queue of the interface. The kernel forgets a
    socket that is closed. Entries can be set once the map is in the kernel, so setting one puts it
    there.
    """

    kind = standin.XSKMAP

    def __init__(
        self, entries: int = 64, *, name: str | None = None, pinned: str | Path | None = None
    ) -> None:
        # The kernel tells nobody what is in such a map.
        self._set: set[int] = set()
        super().__init__(entries, name=name, pinned=pinned)

    def __setitem__(self, index: int, socket: Any) -> None:
        fileno = socket if isinstance(socket, int) else socket.fileno()
        key = self._index(index)
        self.in_kernel().set(key, u32.pack(fileno))
        self._set.add(index)

    def __delitem__(self, index: int) -> None:
        super().__delitem__(index)
        self._set.discard(index)

    def __contains__(self, index: object) -> bool:
        """Whether this object has set that entry; a socket that was closed is gone from it."""
        return u32.unpack(self._index(index)) in self._set

    def program_has(self, key: Any) -> bool:
        return u32(key) in self._set


__all__ = [
    "Array",
    "Counter",
    "CpuMap",
    "DevMap",
    "Hash",
    "LpmTrie",
    "LruHash",
    "LruPerCpuHash",
    "Map",
    "PerCpuArray",
    "PerCpuHash",
    "XskMap",
]
