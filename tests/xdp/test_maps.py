"""Maps as Python sees them: in this process, in the kernel, and on the way there."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Callable
from typing import Any

import pytest

from millrace.xdp import (
    MAC,
    Array,
    Counter,
    CpuMap,
    DevMap,
    Hash,
    IPv4,
    IPv6,
    LpmTrie,
    LruHash,
    LruPerCpuHash,
    PerCpuArray,
    PerCpuHash,
    XskMap,
    be16,
    i32,
    u8,
    u16,
    u32,
    u64,
)
from millrace.xdp.maps import Map


def in_process(made: Any) -> Any:
    return made


def in_kernel(made: Any) -> Any:
    made.in_kernel()
    return made


Place = Callable[[Any], Any]


@pytest.fixture(params=[in_process, pytest.param(in_kernel, marks=pytest.mark.kernel)])
def place(request: pytest.FixtureRequest) -> Place:
    """Leaves a map in this process, or puts it into the kernel."""
    chosen: Place = request.param
    return chosen


@pytest.mark.parametrize("kind", [Hash, LruHash, PerCpuHash, LruPerCpuHash])
def test_hash_is_a_mapping(kind: Any, place: Place) -> None:
    table = place(kind(IPv4, entries=128))
    assert table["192.0.2.1"] == 0
    assert "192.0.2.1" not in table
    assert len(table) == 0
    table["192.0.2.1"] += 5
    table[ipaddress.IPv4Address("192.0.2.2")] = 7
    assert table["192.0.2.1"] == 5
    assert "192.0.2.2" in table
    assert sorted(table) == [ipaddress.IPv4Address(f"192.0.2.{n}") for n in (1, 2)]
    assert dict(table.items())[ipaddress.IPv4Address("192.0.2.2")] == 7
    assert table.get("192.0.2.3") is None
    assert table.get("192.0.2.3", 9) == 9
    del table["192.0.2.1"]
    with pytest.raises(KeyError):
        del table["192.0.2.1"]
    table.clear()
    assert len(table) == 0


def test_keys_and_values_are_typed(place: Place) -> None:
    flows = place(Hash((IPv4, u16, u8), (u64, u32)))
    flows["192.0.2.1", 53, 17] = (1, 2)
    assert flows["192.0.2.1", 53, 17] == (1, 2)
    assert list(flows) == [(ipaddress.IPv4Address("192.0.2.1"), 53, 17)]
    hosts = place(Hash(IPv6, MAC))
    hosts["2001:db8::1"] = "02:00:00:00:00:01"
    assert hosts["2001:db8::1"] == "02:00:00:00:00:01"
    assert hosts["2001:db8::2"] == "00:00:00:00:00:00"
    signed = place(Hash(be16, i32))
    signed[1] = -5
    assert signed.items() == [(1, -5)]
    for wrong in (65536, -1, "1"):
        with pytest.raises((TypeError, ValueError)):
            signed[wrong] = 0
    with pytest.raises(ValueError, match="i32"):
        signed[1] = 1 << 40


def test_full_hash_takes_no_more(place: Place) -> None:
    table = place(Hash(u32, entries=2))
    table[1] = table[2] = 1
    with pytest.raises(OSError, match=r"full|too long") as caught:
        table[3] = 1
    assert caught.value.errno == errno.E2BIG
    table[1] = 9
    assert table[1] == 9


@pytest.mark.parametrize("kind", [Array, PerCpuArray])
def test_array_has_all_its_indices(kind: Any, place: Place) -> None:
    table = place(kind(4))
    assert list(table) == [0, 0, 0, 0]
    table[2] = 5
    table[-1] += 1
    assert list(table) == [0, 0, 5, 1]
    assert len(table) == 4
    for index in (4, -5):
        with pytest.raises(IndexError):
            table[index]
    with pytest.raises(TypeError):
        table["0"]


def test_large_array_takes_no_memory_until_it_is_written() -> None:
    table = Array(1 << 26)
    table[(1 << 26) - 1] = 5
    assert table[-1] == 5
    assert table[0] == 0
    assert len(table) == 1 << 26


def test_array_of_addresses(place: Place) -> None:
    backends = place(Array(2, IPv4))
    backends[1] = "192.0.2.9"
    assert list(backends) == [ipaddress.IPv4Address(0), ipaddress.IPv4Address("192.0.2.9")]


def test_lpm_trie_finds_the_longest_prefix(place: Place) -> None:
    routes = place(LpmTrie(IPv4, u32))
    routes["10.0.0.0/8"] = 1
    routes["10.1.0.0/16"] = 2
    routes[ipaddress.ip_network("10.1.2.0/24")] = 3
    assert routes["10.9.9.9"] == 1
    assert routes["10.1.9.9"] == 2
    assert routes["10.1.2.3"] == 3
    assert "11.0.0.1" not in routes
    del routes["10.1.0.0/16"]
    assert routes["10.1.9.9"] == 1
    assert set(routes) == {
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_network("10.1.2.0/24"),
    }
    with pytest.raises(KeyError):
        del routes["10.1.0.0/17"]
    with pytest.raises(ValueError, match="host bits"):
        routes["10.0.0.1/8"] = 1
    with pytest.raises(TypeError, match="family"):
        routes["2001:db8::/32"] = 1


def test_lpm_trie_of_ipv6(place: Place) -> None:
    routes = place(LpmTrie(IPv6))
    routes["2001:db8::/32"] = 1
    assert routes["2001:db8:1::5"] == 1
    assert list(routes) == [ipaddress.ip_network("2001:db8::/32")]


def test_counter(place: Place) -> None:
    counter = place(Counter())
    counter.add()
    counter.add(41)
    assert counter.value == int(counter) == 42
    counter.reset()
    assert int(counter) == 0
    counter.add(-1)
    assert counter.value == (1 << 64) - 1


def test_per_cpu_values_can_be_told_apart(place: Place) -> None:
    table = place(PerCpuHash(u8, u32))
    table[1] = 7
    values = table.cpus(1)
    assert values[0] == 7
    assert sum(values) == 7
    with pytest.raises(TypeError, match="one value"):
        place(Hash(u8)).cpus(1)


@pytest.mark.kernel
def test_entries_move_into_the_kernel() -> None:
    table = Hash((IPv4, u16))
    table["192.0.2.1", 80] = 3
    counts = PerCpuArray(8)
    counts[3] = 9
    counter = Counter()
    counter.add(5)
    for made in (table, counts, counter):
        assert "not loaded" in repr(made)
        made.in_kernel()
        assert "in the kernel" in repr(made)
    assert table["192.0.2.1", 80] == 3
    assert list(counts) == [0, 0, 0, 9, 0, 0, 0, 0]
    assert int(counter) == 5


@pytest.mark.kernel
def test_redirect_maps_take_what_they_redirect_to() -> None:
    devices = DevMap(4)
    assert devices[0] is None
    devices[0] = "lo"
    devices[1] = 1
    assert devices[0] == devices[1] == 1
    devices.in_kernel()
    assert devices[1] == 1
    assert 2 not in devices
    del devices[0]
    assert 0 not in devices
    with pytest.raises(OSError, match="no-such-if") as caught:
        devices[0] = "no-such-if"
    assert caught.value.errno == errno.ENODEV
    with pytest.raises(IndexError):
        devices[4] = 1
    processors = CpuMap(2)
    processors[0] = 192
    processors.in_kernel()
    assert processors[0] == 192
    with pytest.raises(OSError, match="updating map xskmap"):
        XskMap(2)[0] = 0  # standard input is no AF_XDP socket


@pytest.mark.parametrize(
    "make",
    [
        lambda: Hash(int),
        lambda: Hash(u32, entries=0),
        lambda: Hash(u32, entries=1 << 40),
        lambda: Hash(u32, entries=True),
        lambda: Hash(tuple([IPv6] * 20)),
        lambda: Hash(u32, name="no name"),
        lambda: LpmTrie(u32),
        lambda: LpmTrie((IPv4, u8)),
        lambda: Array("4"),
        lambda: Array(4, value=str),
    ],
)
def test_wrong_declarations_are_refused(make: Callable[[], Map]) -> None:
    with pytest.raises((TypeError, ValueError)):
        make()


@pytest.mark.parametrize("name", ["kind", "key_size", "value_size", "entries", "flags"])
def test_numbers_that_no_map_has_are_named_with_their_range(name: str) -> None:
    from millrace import _native

    shape = {"kind": 1, "key_size": 4, "value_size": 4, "entries": 1, "flags": 0}
    for number in (-1, 1 << 32, 1 << 200):
        with pytest.raises(ValueError, match=f"{name} is a whole number from 0 to 4294967295"):
            _native.XdpMap(name="shape", **{**shape, name: number})
